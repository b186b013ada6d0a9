//! Retention: moves the front of the log, and the fronts of the retention rules.
//!
//! Every event up to the front is hidden. The front advances, and never goes back, before each call
//! that reads; each event that it passes is recorded in the floors. The next events after the front
//! are read a few at a time; a segment that has expired completely is passed at once by means of
//! its index. Maintenance frees the bytes of hidden segments. Retention rules (`rule_retention.rs`)
//! and deletions hide further events after the front.
//!
//! This is the work and what it remembers, for one thread at a time, which may read files. Its
//! result is published in the [`Horizon`](super::horizon::Horizon).

use std::{
    collections::{BTreeSet, VecDeque},
    io,
};

use tidings_topic::Topic;

use super::{
    acknowledged::segments_after,
    deletions::Deletions,
    event_reader::EventReader,
    hiding::{Fate, Hiding},
    horizon::{ExpiryLimits, NextAtFront, NextExpiries},
    record::DeletionRecord,
    rule_retention::{DeletedUnderRule, RuleRetention},
    segment_file::Segment,
    store::Store,
};
use crate::{Timestamp, draft::Audience};

/// How many events are read ahead of the front.
const AHEAD_MAX: u64 = 128;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Retention {
    rules: RuleRetention,
    /// The events after the front.
    ahead: VecDeque<EventAhead>,
    /// Compaction has removed something.
    some_removed: bool,
    /// Segments, by their first events, in which something may have been hidden since compaction
    /// looked at them.
    pub(super) touched: BTreeSet<u64>,
}

#[derive(Debug)]
struct EventAhead {
    number: u64,
    /// The bytes of the log before it.
    start: u64,
    bytes: u64,
    time: Timestamp,
    /// What becomes of it. `None` if it was lost or removed and nothing is known of it.
    fate: Option<Fate>,
    known: KnownAhead,
}

#[derive(Debug)]
enum KnownAhead {
    Event(Audience),
    Lost,
    Removed,
}

/// A deletion that was written, and where its events were found.
#[derive(Debug)]
pub(super) struct WrittenDeletion {
    pub(super) record: DeletionRecord,
    /// The segments with deleted events, by their first events, in order.
    pub(super) segments: Vec<u64>,
    pub(super) under_rules: Vec<DeletedUnderRule>,
}

impl Retention {
    pub(super) fn new(hiding: &Hiding, some_removed: bool, touched: BTreeSet<u64>) -> Self {
        Self { rules: RuleRetention::new(hiding), ahead: VecDeque::new(), some_removed, touched }
    }

    /// Moves all fronts to where they have to be.
    pub(super) fn advance(&mut self, store: &Store, now: Timestamp) -> io::Result<()> {
        let advanced = self.advance_all(store, now);
        self.publish_next(store);
        advanced
    }

    fn advance_all(&mut self, store: &Store, now: Timestamp) -> io::Result<()> {
        let (front, hiding) = store.hidden();
        self.rules.count_new(store, &hiding, front)?;
        self.advance_front(store, now)?;
        self.rules.advance(store, now, &mut self.touched)?;
        self.advance_front(store, now)
    }

    /// Publishes a deletion: from now on its events are hidden and its floors are reported.
    pub(super) fn delete(&mut self, store: &Store, written: WrittenDeletion) {
        let WrittenDeletion { record, segments, under_rules } = written;
        let (front, before) = store.hidden();
        let mut after = before.clone();
        after.deletions.add(&record.topic, record.deletion);
        self.rules.forget_deleted((&before, front), &after.deletions, &under_rules, &segments);
        self.note_deleted_ahead(&after.deletions);
        note_clean(store, &after.deletions, &segments);
        self.touched.extend(segments);
        let next = self.next_expiries(&after);
        let mut horizon = store.horizon();
        horizon.floors.record_all(record.forgotten_through, &record.floors, &store.limits);
        horizon.hiding = after;
        horizon.next = next;
    }

    fn note_deleted_ahead(&mut self, deletions: &Deletions) {
        for event in &mut self.ahead {
            if let (KnownAhead::Event(audience), Some(fate)) = (&event.known, &mut event.fate) {
                fate.deleted_through = deletions.through(&audience.topics);
            }
        }
    }

    /// Forgets deletions of which nothing is left, each given with its topic and serial number.
    pub(super) fn forget_deletions(&mut self, store: &Store, done: &[(Topic, u64)]) {
        let mut hiding = store.hidden().1;
        hiding.deletions.remove(done);
        let next = self.next_expiries(&hiding);
        let mut horizon = store.horizon();
        horizon.hiding = hiding;
        horizon.next = next;
    }

    /// Compaction has moved and removed events.
    pub(super) fn look_again(&mut self, store: &Store) {
        self.some_removed = true;
        self.ahead.clear();
        self.rules.look_again(&store.hidden().1);
        self.publish_next(store);
    }

    /// Publishes what will expire next.
    pub(super) fn publish_next(&self, store: &Store) {
        let next = self.next_expiries(&store.hidden().1);
        store.horizon().next = next;
    }

    fn next_expiries(&self, hiding: &Hiding) -> NextExpiries {
        let at_front = self.ahead.front().map(|event| {
            let EventAhead { number, start, time, .. } = *event;
            NextAtFront { number, start, time, is_hidden: event.is_hidden(hiding) }
        });
        NextExpiries {
            at_front,
            some_removed: self.some_removed,
            counted_through: self.rules.counted_through,
            of_rules: self.rules.next(),
        }
    }

    fn advance_front(&mut self, store: &Store, now: Timestamp) -> io::Result<()> {
        loop {
            let (segments, extent) = store.segments();
            let (front, hiding) = store.hidden();
            let limits = ExpiryLimits::of(&store.settings, extent, now);
            if self.next_expiries(&hiding).is_front_settled(front, &hiding, extent, &limits) {
                return Ok(());
            }
            let following = segments_after(&segments, front);
            let segment = &following[0];
            if following.len() > 1 && (segment.last() <= front || expires_whole(segment, &limits)) {
                self.pass_segment(store, &hiding, segment, (front, following[1].first()))?;
            } else if self.ahead.is_empty() {
                self.read_ahead(store, &hiding, segment, (front, extent.newest))?;
            } else {
                self.pass_ahead(store, &hiding, &limits);
            }
        }
    }

    /// Passes all events that were read ahead and do not stay.
    fn pass_ahead(&mut self, store: &Store, hiding: &Hiding, limits: &ExpiryLimits) {
        let stays = |event: &EventAhead| {
            !event.is_hidden(hiding) && !limits.exclude(event.number, event.start, event.time)
        };
        let count = self.ahead.iter().take_while(|event| !stays(event)).count();
        let passed: Vec<_> = self.ahead.drain(..count).collect();
        for event in &passed {
            if let Some(fate) = event.fate {
                self.rules.forget(hiding, event.number, event.bytes, fate);
            }
        }
        let mut horizon = store.horizon();
        for event in passed {
            horizon.front = event.number;
            match event.known {
                KnownAhead::Event(audience) => {
                    horizon.floors.record(event.number, audience, &store.limits);
                }
                KnownAhead::Lost => horizon.floors.forget_through(event.number),
                KnownAhead::Removed => {}
            }
        }
    }

    /// Passes a segment of which nothing stays and which another one follows.
    fn pass_segment(
        &mut self,
        store: &Store,
        hiding: &Hiding,
        segment: &Segment,
        (front, next): (u64, u64),
    ) -> io::Result<()> {
        let last = segment.last();
        let (mut passed, mut newest_lost) = (Vec::new(), None);
        if last > front {
            self.rules.forget_through(store, hiding, segment, (front, last))?;
            passed = segment.lists(&*store.disk)?.1;
            passed.sort_unstable_by_key(|(_, newest)| *newest);
            newest_lost = segment.newest_lost(front, last);
        }
        // A segment between them may be gone.
        newest_lost = newest_lost.max(Some(next - 1).filter(|before_next| *before_next > last));
        self.ahead.clear();
        let mut horizon = store.horizon();
        for (audience, newest) in passed {
            let number = segment.first() + u64::from(newest);
            if number > front {
                horizon.floors.record(number, Audience::clone(&audience), &store.limits);
            }
        }
        if let Some(newest_lost) = newest_lost {
            horizon.floors.forget_through(newest_lost);
        }
        horizon.front = next - 1;
        Ok(())
    }

    fn read_ahead(
        &mut self,
        store: &Store,
        hiding: &Hiding,
        segment: &Segment,
        (front, newest): (u64, u64),
    ) -> io::Result<()> {
        let after = front.max(segment.first() - 1);
        let through = segment.last().min(newest).min(after + AHEAD_MAX);
        let (rows, fates) = segment.of_one_index(|| {
            let rows = segment.rows(&*store.disk, (after, through))?;
            let has_rules = !hiding.rules.is_empty();
            Ok((rows, has_rules.then(|| self.rules.fates.of(store, segment, hiding)).transpose()?))
        })?;
        let mut reader = EventReader::new(store, segment);
        for (number, row) in rows {
            let fate = fates.as_ref().and_then(|fates| fates.get(row.audience as usize)).copied();
            let mut fate = fate.filter(|_| row.offset > 0);
            let known = match reader.get(number, row.offset)? {
                Some(entry) => {
                    let audience = Audience::of(&entry.event);
                    fate = fate.or_else(|| Some(hiding.fate(&audience)));
                    KnownAhead::Event(audience)
                }
                None if segment.newest_lost(number - 1, number).is_some() => KnownAhead::Lost,
                None => KnownAhead::Removed,
            };
            let (start, bytes) = (segment.base() + u64::from(row.offset), u64::from(row.length));
            self.ahead.push_back(EventAhead { number, start, bytes, time: row.time, fate, known });
        }
        Ok(())
    }
}

impl EventAhead {
    fn is_hidden(&self, hiding: &Hiding) -> bool {
        match &self.known {
            KnownAhead::Event(_) => self.fate.is_some_and(|fate| hiding.hide_fated(fate, self.number)),
            KnownAhead::Lost | KnownAhead::Removed => true,
        }
    }
}

/// Where the newest deletion found nothing, and all before it are done with, nothing is left of
/// any.
fn note_clean(store: &Store, deletions: &Deletions, found_in: &[u64]) {
    let (segments, _) = store.segments();
    for segment in segments.iter().filter(|segment| found_in.binary_search(&segment.first()).is_err()) {
        if segment.is_clean(deletions.serial - 1) {
            segment.note_clean(deletions.serial);
        }
    }
}

/// Whether nothing of a segment may stay. An event never expires before those in front of it,
/// whatever the clock did.
fn expires_whole(segment: &Segment, limits: &ExpiryLimits) -> bool {
    limits.exclude(segment.last(), segment.base() + segment.bytes() - 1, segment.times().1)
}
