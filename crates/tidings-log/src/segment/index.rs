//! Finding events within one segment: by number, by topic, by a publisher's id, by time.
//!
//! Events are counted from the beginning of their segment: the first has index 0. A [`MemoryIndex`]
//! grows with the active segment; a full segment has an index file ([`super::index_file`]). Both
//! are accessed through [`Places`], so that there is only one implementation of lookups.
//!
//! Names (topics and ids) are stored as 64-bit hashes, seeded with the segment's salt. Hashes may
//! collide: an event found by a name is a candidate, and the reader compares the name after reading
//! it.

use std::{collections::HashMap, io, sync::Arc};

use crate::{Event, EventId, IdempotencyKey, Timestamp, Topic, codec::count, draft::Audience};

/// What can be looked up in a segment.
pub(super) trait Places {
    /// How many events there are, lost ones included.
    fn count(&self) -> u32;
    /// What is known of an event.
    fn row(&mut self, index: u32) -> io::Result<Row>;
    /// The events that bear a name, or at least one with the same hash.
    fn named(&mut self, hash: u64) -> io::Result<Postings>;
    /// One of them.
    fn posting(&mut self, postings: Postings, place: u32) -> io::Result<u32>;
    /// How many [times](Self::time) there are.
    fn times_count(&self) -> u32;
    /// Events that no later one precedes on the clock: their times ascend, so the last one before
    /// some time is among them.
    fn time(&mut self, place: u32) -> io::Result<(u32, Timestamp)>;
    /// The deletions, in their order.
    fn deletions(&mut self) -> io::Result<Vec<IndexedDeletion>>;
    fn lists(&mut self) -> io::Result<Lists>;
}

/// The keys of a segment's batches, oldest first, and who can receive what, with the newest event
/// of each.
pub(super) type Lists = (Vec<KeyUse>, Vec<(Arc<Audience>, u32)>);

/// What is kept in memory of every index.
#[derive(Clone, Default, Debug)]
pub(super) struct Summary {
    /// How many events there are, lost and removed ones included.
    pub(super) count: u32,
    /// The bytes of the segment that it covers.
    pub(super) bytes: u64,
    /// The earliest and the latest time of an event.
    pub(super) earliest: Option<Timestamp>,
    pub(super) latest: Timestamp,
    /// Lost events: the first and the last of each stretch.
    pub(super) holes: Vec<(u32, u32)>,
    pub(super) removed: Removed,
    /// How many deletions and audiences there are.
    pub(super) deletions: u32,
    pub(super) audiences: u32,
}

impl Summary {
    /// The first and the last number of each stretch of lost events, in a segment that begins with
    /// this one.
    pub(super) fn lost(&self, first: u64) -> impl Iterator<Item = (u64, u64)> {
        self.holes.iter().map(move |(from, to)| (first + u64::from(*from), first + u64::from(*to)))
    }

    /// How many events are lost.
    #[cfg(any(test, feature = "store-tools"))]
    pub(super) fn lost_count(&self) -> u64 {
        self.lost(0).map(|(from, to)| to - from + 1).sum()
    }
}

/// An event, as far as it can be judged without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Row {
    /// Where its record stands. 0 if it was lost or removed, and then nothing else is known.
    pub(super) offset: u32,
    /// The bytes of its record.
    pub(super) length: u32,
    /// Who can receive it: a place in the list of the segment's audiences.
    pub(super) audience: u32,
    pub(super) time: Timestamp,
}

/// A list of events, in ascending order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Postings {
    /// Where it begins. What that means is the index's own affair.
    pub(super) start: u64,
    pub(super) count: u32,
}

/// What is looked for in a segment.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    Everything,
    /// Events that bear one of these topics.
    Topics(Vec<Topic>),
    /// Events that bear this id.
    Id(EventId),
}

impl Wanted {
    /// The hashes of the names in the segment with this salt, if not everything is wanted.
    fn hashes(&self, salt: u64) -> Option<Vec<u64>> {
        match self {
            Self::Everything => None,
            Self::Topics(topics) => {
                Some(topics.iter().map(|topic| hash(salt, b't', topic.as_str())).collect())
            }
            Self::Id(id) => Some(vec![hash(salt, b'i', id.as_str())]),
        }
    }
}

/// The hash of a topic or an id in the segment with this salt. FNV-1a, finished with SplitMix64;
/// never 0.
fn hash(salt: u64, kind: u8, text: &str) -> u64 {
    let step = |state: u64, byte: &u8| (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let state = [kind].iter().chain(text.as_bytes()).fold(salt ^ 0xcbf2_9ce4_8422_2325, step);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).max(1)
}

/// In which order events are looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    OldestFirst,
    NewestFirst,
}

/// The first `max` wanted events from this index on and before that one, in this direction.
pub(super) fn find(
    places: &mut dyn Places,
    wanted: &Wanted,
    salt: u64,
    (from, until): (u32, u32),
    (direction, max): (Direction, u32),
) -> io::Result<Vec<u32>> {
    let first_of = |start: u32, end: u32| match direction {
        Direction::OldestFirst => start..end.min(start.saturating_add(max)),
        Direction::NewestFirst => end.saturating_sub(max).max(start)..end,
    };
    let mut found = Vec::new();
    match wanted.hashes(salt) {
        None => found.extend(first_of(from, until.min(places.count()))),
        Some(hashes) => {
            for hash in hashes {
                let postings = places.named(hash)?;
                let range =
                    first_of(first_from(places, postings, from)?, first_from(places, postings, until)?);
                for place in range {
                    found.push(places.posting(postings, place)?);
                }
            }
            found.sort_unstable();
            found.dedup();
        }
    }
    if direction == Direction::NewestFirst {
        found.reverse();
    }
    found.truncate(max as usize);
    Ok(found)
}

/// The last event before some time.
pub(super) fn last_before(places: &mut dyn Places, time: Timestamp) -> io::Result<Option<u32>> {
    let earlier = partition(places.times_count(), |place| Ok(places.time(place)?.1 < time))?;
    earlier.checked_sub(1).map(|place| Ok(places.time(place)?.0)).transpose()
}

/// Where in a list the first event from this index on is.
fn first_from(places: &mut dyn Places, postings: Postings, from: u32) -> io::Result<u32> {
    if from == 0 || from >= places.count() {
        return Ok(if from == 0 { 0 } else { postings.count });
    }
    partition(postings.count, |place| Ok(places.posting(postings, place)? < from))
}

/// How many of the first places have a property that all later ones lack.
fn partition(count: u32, mut has: impl FnMut(u32) -> io::Result<bool>) -> io::Result<u32> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if has(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// A batch that was appended under a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct KeyUse {
    pub(super) key: IdempotencyKey,
    pub(super) time: Timestamp,
    /// Its first event.
    pub(super) index: u32,
    /// The publisher's own id of that, if it has one.
    pub(super) id: Option<EventId>,
}

/// Events that compaction took out.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Removed {
    pub(super) count: u32,
    /// The index behind the newest.
    pub(super) until: u32,
}

/// Where the record of a deletion is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct IndexedDeletion {
    pub(super) offset: u32,
    /// The serial number of the deletion.
    pub(super) serial: u64,
}

/// An event as an index knows it: everything that is computed before the index is changed.
#[derive(Debug)]
pub(super) struct IndexedEvent {
    /// Offset and length of its record.
    pub(super) place: (u32, u32),
    pub(super) time: Timestamp,
    audience: Audience,
    /// The hashes of its topics and id.
    names: Vec<u64>,
    key: Option<(IdempotencyKey, Option<EventId>)>,
}

impl IndexedEvent {
    /// An event of the segment with this salt, its audience, and the key of the batch that begins
    /// with it.
    pub(super) fn new(
        salt: u64,
        place: (u32, u32),
        time: Timestamp,
        (event, audience): (&Event, Audience),
        key: Option<IdempotencyKey>,
    ) -> Self {
        let topics = event.topics.iter().map(|topic| hash(salt, b't', topic.as_str()));
        let id = event.id.as_ref().map(|id| hash(salt, b'i', id.as_str()));
        let names = topics.chain(id).collect();
        Self { place, time, audience, names, key: key.map(|key| (key, event.id.clone())) }
    }
}

/// The index of a segment that is being written.
#[derive(Default, Debug)]
pub(super) struct MemoryIndex {
    pub(super) rows: Vec<Row>,
    pub(super) names: HashMap<u64, Vec<u32>>,
    pub(super) times: Vec<(u32, Timestamp)>,
    /// Who can receive what, with the newest event of each.
    pub(super) audiences: Vec<(Arc<Audience>, u32)>,
    audience_places: HashMap<Arc<Audience>, u32>,
    pub(super) keys: Vec<KeyUse>,
    /// Deletions, in their order.
    pub(super) deletions: Vec<IndexedDeletion>,
    pub(super) summary: Summary,
}

impl MemoryIndex {
    /// An index without events, of so many bytes of a segment.
    pub(super) fn new(bytes: u64) -> Self {
        Self { summary: Summary { bytes, ..Summary::default() }, ..Self::default() }
    }

    /// Adds the next event.
    pub(super) fn push(&mut self, event: IndexedEvent) {
        let IndexedEvent { place: (offset, length), time, audience, names, key } = event;
        let index = self.next();
        let audience = self.audience(audience, index);
        self.rows.push(Row { offset, length, audience, time });
        self.summary.count = self.next();
        for name in names {
            let postings = self.names.entry(name).or_default();
            if postings.last() != Some(&index) {
                postings.push(index);
            }
        }
        while self.times.last().is_some_and(|(_, later)| *later >= time) {
            self.times.pop();
        }
        self.times.push((index, time));
        self.summary.earliest = self.times.first().map(|(_, earliest)| *earliest);
        self.summary.latest = self.summary.latest.max(time);
        if let Some((key, id)) = key {
            self.keys.push(KeyUse { key, time, index, id });
        }
    }

    /// Counts the next events as lost.
    pub(super) fn push_hole(&mut self, count: u32) {
        if let Some(last) = count.checked_sub(1) {
            let first = self.next();
            self.summary.holes.push((first, first + last));
            self.push_nothing(count);
        }
    }

    /// Counts the next events as removed.
    pub(super) fn push_removed(&mut self, count: u32) {
        if count > 0 {
            self.push_nothing(count);
            self.summary.removed = Removed { count: self.summary.removed.count + count, until: self.next() };
        }
    }

    /// Adds the next deletion.
    pub(super) fn push_deletion(&mut self, deletion: IndexedDeletion) {
        self.deletions.push(deletion);
        self.summary.deletions += 1;
    }

    fn push_nothing(&mut self, count: u32) {
        self.rows.extend((0..count).map(|_| Row::default()));
        self.summary.count = self.next();
    }

    fn audience(&mut self, audience: Audience, index: u32) -> u32 {
        if let Some(place) = self.audience_places.get(&audience) {
            self.audiences[*place as usize].1 = index;
            return *place;
        }
        let (place, audience) = (count(&self.audiences), Arc::new(audience));
        self.audience_places.insert(Arc::clone(&audience), place);
        self.audiences.push((audience, index));
        self.summary.audiences += 1;
        place
    }

    fn next(&self) -> u32 {
        u32::try_from(self.rows.len()).expect("a segment has fewer events than bytes, and those fit")
    }
}

/// A name of which no event is known.
pub(super) const NO_POSTINGS: Postings = Postings { start: 0, count: 0 };

impl Places for &MemoryIndex {
    fn count(&self) -> u32 {
        self.next()
    }

    fn row(&mut self, index: u32) -> io::Result<Row> {
        Ok(self.rows.get(index as usize).copied().unwrap_or_default())
    }

    fn named(&mut self, hash: u64) -> io::Result<Postings> {
        let postings = self.names.get(&hash);
        Ok(postings.map_or(NO_POSTINGS, |list| Postings { start: hash, count: count(list) }))
    }

    fn posting(&mut self, postings: Postings, place: u32) -> io::Result<u32> {
        Ok(self.names[&postings.start][place as usize])
    }

    fn times_count(&self) -> u32 {
        count(&self.times)
    }

    fn time(&mut self, place: u32) -> io::Result<(u32, Timestamp)> {
        Ok(self.times[place as usize])
    }

    fn deletions(&mut self) -> io::Result<Vec<IndexedDeletion>> {
        Ok(self.deletions.clone())
    }

    fn lists(&mut self) -> io::Result<Lists> {
        Ok((self.keys.clone(), self.audiences.clone()))
    }
}
