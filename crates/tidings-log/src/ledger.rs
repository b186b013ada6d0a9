//! The state of a log in memory, without I/O, waiting or a clock of its own.
//!
//! Entries are kept in a queue in the order of their numbers, which are assigned consecutively,
//! beginning with one. Retention removes entries from the front and deletions remove them anywhere; both raise
//! floors, so a number without an entry belongs to a removed event. Every call that takes the time
//! first drops expired entries, so they are never visible.

pub(crate) mod floors;
mod index;
pub(crate) mod keys;
#[cfg(test)]
mod model;

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tidings_topic::Topic;

use crate::{
    AppendError, Appended, Batch, Bounds, Cursor, Deleted, Entry, Epoch, Epochs, EventId, LogStats,
    MemoryLimits, Position, TailItem, Timestamp,
    draft::{Audience, Draft, Gathered, Plan, Reach},
    numbers::{number, position},
};

use self::{
    floors::Floors,
    index::{Index, Times, ascending, descending},
    keys::{Keys, KnownKey},
};

/// The whole state of a log.
#[derive(Debug)]
pub(crate) struct Ledger {
    limits: MemoryLimits,
    epoch: Epoch,
    /// The newest number that was given out.
    newest: u64,
    /// How many deletions there were.
    deletions: u64,
    entries: VecDeque<Arc<Entry>>,
    bytes: u64,
    topics: Index<Topic>,
    /// Publishers' own ids.
    ids: Index<EventId>,
    times: Times,
    floors: Floors,
    keys: Keys,
}

impl Ledger {
    /// An empty log that begins with this epoch.
    pub(crate) fn new(limits: MemoryLimits, epoch: Epoch) -> Self {
        Self {
            limits,
            epoch,
            newest: 0,
            deletions: 0,
            entries: VecDeque::new(),
            bytes: 0,
            topics: Index::new(),
            ids: Index::new(),
            times: Times::default(),
            floors: Floors::default(),
            keys: Keys::default(),
        }
    }

    /// Appends a batch whole, or nothing of it. Only the oldest entries make room for it, never its
    /// own.
    pub(crate) fn append(&mut self, now: Timestamp, batch: Batch) -> Result<Appended, AppendError> {
        self.expire(now);
        if let Some(first_id) = batch.key.as_ref().and_then(|key| self.keys.get(key)) {
            return Ok(Appended::Duplicate { first_id: first_id.clone() });
        }
        let entries = self.entries_of(now, batch.events);
        let bytes = entries.iter().map(|entry| weight(entry)).sum();
        self.make_room(bytes, entries.len() as u64)?;
        let ids: Vec<_> = entries.iter().map(|entry| entry.id.clone()).collect();
        for entry in entries {
            self.push(entry);
        }
        if let (Some(key), Some(first_id)) = (batch.key, ids.first()) {
            let known = KnownKey { key, first_id: first_id.clone(), time: now, last: self.newest };
            self.keys.insert(known, &self.limits);
        }
        Ok(Appended::New { ids, last: self.end() })
    }

    /// The entries that bear this topic.
    pub(crate) fn bearing(&mut self, now: Timestamp, topic: &Topic) -> Vec<Arc<Entry>> {
        self.expire(now);
        let numbers = self.topics.get(topic).into_iter().flatten();
        numbers.filter_map(|number| self.get(*number)).map(Arc::clone).collect()
    }

    /// Deletes these entries, given in order, as far as they are still there.
    pub(crate) fn delete(&mut self, now: Timestamp, doomed: &[Arc<Entry>]) -> Deleted {
        self.expire(now);
        let mut next = doomed.iter().peekable();
        let (mut numbers, mut topics, mut ids) = (VecDeque::new(), HashSet::new(), HashSet::new());
        let (bytes, floors) = (&mut self.bytes, &mut self.floors);
        self.entries.retain(|entry| {
            while next.next_if(|doomed| doomed.cursor.position < entry.cursor.position).is_some() {}
            if next.next_if(|doomed| Arc::ptr_eq(doomed, entry)).is_none() {
                return true;
            }
            let number = number(entry.cursor.position);
            numbers.push_back(number);
            *bytes -= weight(entry);
            floors.record(number, Audience::of(&entry.event), &self.limits);
            topics.extend(entry.event.topics.iter().cloned());
            ids.extend(entry.event.id.clone());
            false
        });
        for topic in &topics {
            self.topics.remove(topic, &numbers);
        }
        for id in &ids {
            self.ids.remove(id, &numbers);
        }
        if !numbers.is_empty() {
            self.deletions += 1;
            self.look_up_times_anew();
        }
        Deleted { count: numbers.len() as u64, kept: 0, serial: self.deletions }
    }

    /// What may belong to the page after a position, looking at about `bytes_max` bytes and at
    /// least one entry.
    pub(crate) fn read(
        &mut self,
        now: Timestamp,
        after: Position,
        plan: &Plan<'_>,
        bytes_max: usize,
    ) -> Draft {
        self.expire(now);
        let after_number = number(after);
        let mut candidates = self.candidates_after(after_number, plan).peekable();
        let mut page = Gathered::new(bytes_max);
        while let Some(entry) = candidates.next_if(|_| !page.is_full()) {
            page.add(Arc::clone(entry));
        }
        let entries = page.entries;
        let at_end = candidates.peek().is_none();
        let considered = entries.last().filter(|_| !at_end);
        let through = considered.map_or(position(self.newest), |entry| entry.cursor.position).max(after);
        drop(candidates);
        let floor = self.floors.draft(plan, after_number);
        Draft { epoch: self.epoch, after, entries, last_count: None, through, at_end, floor }
    }

    /// What may belong to the newest `count` entries, looking at about `bytes_max` bytes.
    pub(crate) fn last(&mut self, now: Timestamp, count: usize, plan: &Plan<'_>, bytes_max: usize) -> Draft {
        self.expire(now);
        let mut page = Gathered::new(bytes_max);
        let mut surely_accepted = 0;
        for entry in self.candidates_backwards(plan) {
            if surely_accepted == count || page.has_bytes_max() {
                break;
            }
            surely_accepted += usize::from(plan.surely_accepts(entry.event.private));
            page.add(Arc::clone(entry));
        }
        Draft::last(count, page, self.end(), self.floors.draft(plan, 0))
    }

    /// The entries that bear a publisher's id, up to the first public one.
    pub(crate) fn named(&mut self, now: Timestamp, id: &EventId) -> Vec<Arc<Entry>> {
        self.expire(now);
        let mut named = Vec::new();
        for entry in self.ids.get(id).into_iter().flatten().filter_map(|number| self.get(*number)) {
            named.push(Arc::clone(entry));
            if !entry.event.private {
                break;
            }
        }
        named
    }

    /// The last kept position that was appended more than `ago` before now.
    pub(crate) fn position_ago(&mut self, now: Timestamp, ago: Duration) -> Position {
        self.expire(now);
        position(self.times.last_before(now.earlier_by(ago)).unwrap_or_default())
    }

    /// How far the log reaches.
    pub(crate) fn bounds(&mut self, now: Timestamp) -> Bounds {
        self.expire(now);
        Bounds {
            epochs: Epochs::starting(self.epoch),
            oldest: self.entries.front().map(|entry| entry.cursor.position),
            newest: position(self.newest),
            retention_bytes: Some(self.limits.bytes_max),
        }
    }

    /// What is kept.
    pub(crate) fn stats(&mut self, now: Timestamp) -> LogStats {
        self.expire(now);
        LogStats {
            events: self.entries.len() as u64,
            bytes: self.bytes,
            oldest: self.entries.front().map(|entry| entry.time),
            newest: self.entries.back().map(|entry| entry.time),
            ..LogStats::new("memory", self.limits.bytes_max)
        }
    }

    /// Where a new tail begins.
    pub(crate) fn seen(&self) -> Seen {
        Seen { cursor: self.end(), deletions: self.deletions }
    }

    /// The end of the log.
    pub(crate) fn end(&self) -> Cursor {
        Cursor { epoch: self.epoch, position: position(self.newest) }
    }

    /// What comes after this place of a tail, and the place behind it: deletions first. `None` at
    /// the end.
    pub(crate) fn follow(
        &mut self,
        now: Timestamp,
        seen: Seen,
        bytes_max: usize,
    ) -> Option<(TailItem, Seen)> {
        self.expire(now);
        if seen.deletions < self.deletions {
            let serial = self.deletions;
            return Some((TailItem::Deleted { serial }, Seen { deletions: serial, ..seen }));
        }
        let seen_number = number(seen.cursor.position);
        if seen_number >= self.newest {
            return None;
        }
        let following = self.entries.get(self.place(seen_number));
        let gone_before = following.map_or(self.newest + 1, |entry| number(entry.cursor.position));
        let (item, position) = if seen_number + 1 < gone_before {
            let through = position(gone_before - 1);
            (TailItem::Skipped { through }, through)
        } else {
            let entries = self.stretch(seen_number, bytes_max);
            let last = entries.last().map_or(seen.cursor.position, |entry| entry.cursor.position);
            (TailItem::Entries(entries), last)
        };
        Some((item, Seen { cursor: Cursor { position, ..seen.cursor }, ..seen }))
    }

    fn get(&self, wanted: u64) -> Option<&Arc<Entry>> {
        let entry = self.entries.get(self.place(wanted.checked_sub(1)?))?;
        (number(entry.cursor.position) == wanted).then_some(entry)
    }

    /// Where in the queue the first entry after this number stands.
    fn place(&self, after: u64) -> usize {
        let number_at = |index| self.entries.get(index).map(|entry| number(entry.cursor.position));
        let Some(behind_front) = number_at(0).and_then(|front| after.checked_sub(front)) else { return 0 };
        // Where nothing was deleted the numbers have no holes, and there is nothing to look for.
        if let Ok(index) = usize::try_from(behind_front)
            && number_at(index) == Some(after)
        {
            return index + 1;
        }
        self.entries.partition_point(|entry| number(entry.cursor.position) <= after)
    }

    fn look_up_times_anew(&mut self) {
        self.times = Times::default();
        for entry in &self.entries {
            self.times.push(number(entry.cursor.position), entry.time);
        }
    }

    fn entries_of(&self, now: Timestamp, events: Vec<crate::Event>) -> Vec<Arc<Entry>> {
        let numbers = self.newest + 1..;
        let epoch = self.epoch;
        let entry =
            |(event, number)| Arc::new(Entry::new(Cursor { epoch, position: position(number) }, now, event));
        events.into_iter().zip(numbers).map(entry).collect()
    }

    fn make_room(&mut self, bytes: u64, count: u64) -> Result<(), AppendError> {
        let bytes_max = self.limits.bytes_max;
        let count_max = self.limits.count_max.unwrap_or(u64::MAX);
        if bytes > bytes_max {
            return Err(AppendError::Full(format!(
                "the batch takes {bytes} bytes and the log keeps at most {bytes_max}"
            )));
        }
        if count > count_max {
            return Err(AppendError::Full(format!(
                "the batch has {count} events and the log keeps at most {count_max}"
            )));
        }
        while self.bytes + bytes > bytes_max || self.entries.len() as u64 + count > count_max {
            self.drop_front();
        }
        Ok(())
    }

    fn push(&mut self, entry: Arc<Entry>) {
        let number = self.newest + 1;
        self.bytes += weight(&entry);
        for topic in &entry.event.topics {
            self.topics.push(topic, number);
        }
        if let Some(id) = &entry.event.id {
            self.ids.push(id, number);
        }
        self.times.push(number, entry.time);
        self.newest = number;
        self.entries.push_back(entry);
    }

    /// Drops what is too old. It looks at the front only: an entry never expires before those in
    /// front of it, whatever the clock did.
    fn expire(&mut self, now: Timestamp) {
        self.keys.expire(now, &self.limits);
        let Some(age_max) = self.limits.age_max else { return };
        let oldest = now.earlier_by(age_max);
        while self.entries.front().is_some_and(|entry| entry.time < oldest) {
            self.drop_front();
        }
        if self.entries.capacity() > 4 * self.entries.len() + 1_000 {
            self.entries.shrink_to(2 * self.entries.len());
            self.topics.shrink();
            self.ids.shrink();
        }
    }

    fn drop_front(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        let number = number(entry.cursor.position);
        self.bytes -= weight(&entry);
        for topic in &entry.event.topics {
            self.topics.drop_front(topic, number);
        }
        if let Some(id) = &entry.event.id {
            self.ids.drop_front(id, number);
        }
        self.times.drop_front(number);
        self.floors.record(number, Audience::of(&entry.event), &self.limits);
    }

    fn candidates_after<'a>(
        &'a self,
        after: u64,
        plan: &Plan<'_>,
    ) -> Box<dyn Iterator<Item = &'a Arc<Entry>> + 'a> {
        match &plan.reach {
            Reach::Topics(topics) => {
                let numbers = ascending(self.numbers_of(topics), after);
                Box::new(numbers.filter_map(|number| self.get(number)))
            }
            Reach::Everything | Reach::Unknown => Box::new(self.entries.range(self.place(after)..)),
        }
    }

    fn candidates_backwards<'a>(&'a self, plan: &Plan<'_>) -> Box<dyn Iterator<Item = &'a Arc<Entry>> + 'a> {
        match &plan.reach {
            Reach::Topics(topics) => {
                let numbers = descending(self.numbers_of(topics));
                Box::new(numbers.filter_map(|number| self.get(number)))
            }
            Reach::Everything | Reach::Unknown => Box::new(self.entries.iter().rev()),
        }
    }

    fn numbers_of(&self, topics: &[(&Topic, bool)]) -> Vec<&VecDeque<u64>> {
        topics.iter().filter_map(|(topic, _)| self.topics.get(topic)).collect()
    }

    /// Entries after a number and up to the first that is missing, of about `bytes_max` bytes, at
    /// least one.
    fn stretch(&self, after: u64, bytes_max: usize) -> Vec<Arc<Entry>> {
        let mut page = Gathered::new(bytes_max);
        for (entry, expected) in self.entries.range(self.place(after)..).zip(after + 1..) {
            if number(entry.cursor.position) != expected || page.is_full() {
                break;
            }
            page.add(Arc::clone(entry));
        }
        page.entries
    }
}

/// How far a tail has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    /// Everything up to here was brought.
    pub(crate) cursor: Cursor,
    /// So many deletions were reported.
    pub(crate) deletions: u64,
}

/// The memory of an entry and of finding it.
fn weight(entry: &Entry) -> u64 {
    let names = entry.event.topics.len() + usize::from(entry.event.id.is_some());
    (entry.memory_bytes() + names * NAME_BYTES + PLACE_BYTES) as u64
}

/// Memory that an index needs for one name of one entry, if no other entry bears it.
const NAME_BYTES: usize = 96;

/// Memory that the queue and the index of times need for one entry.
const PLACE_BYTES: usize = 48;

#[cfg(test)]
mod tests {
    use tidings_topic::{NewEvent, Validator};

    use super::*;

    #[test]
    fn the_places_of_expired_entries_are_given_back() {
        let limits = MemoryLimits { age_max: Some(Duration::from_secs(1)), ..MemoryLimits::default() };
        let mut ledger = Ledger::new(limits, Epoch::from_u64(1));
        let event = Validator::default().event(NewEvent::new("a", "")).expect("a valid event");
        let batch = Batch { events: vec![event; 10_000], key: None };
        ledger.append(Timestamp::default(), batch).expect("it fits");
        assert_eq!(ledger.bounds(Timestamp::from_millis(1_001)).oldest, None);
        assert!(ledger.entries.capacity() <= 1_000, "{} places", ledger.entries.capacity());
    }
}
