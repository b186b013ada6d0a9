//! Retention by rules: each rule has its own front, and counts the events after it.
//!
//! Events and bytes are counted from the rows of the indexes, without reading records: each event
//! once, when it is appended or when the log is opened. A front advances, and never goes back, over
//! the events of its rule only; each event that it passes is recorded in the floors. A segment in
//! which all events of a rule have expired is passed at once.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    sync::{Arc, atomic::Ordering},
};

use super::{
    acknowledged::segments_after,
    deletions::Deletions,
    event_reader::EventReader,
    hiding::{Fate, Hiding},
    horizon::NextOfRule,
    index::Row,
    segment_file::{Segment, SegmentName},
    store::Store,
};
use crate::{RetentionRule, Timestamp, draft::Audience};

/// How many events of a rule are read ahead of its front, and about how many bytes of their
/// topics.
const AHEAD_MAX: usize = 16;
const AHEAD_BYTES_MAX: usize = 64 * 1024;
/// Of how many segments it is remembered which rule applies to which audience.
const FATES_MAX: usize = 4;

/// What is known of the events of each rule.
#[derive(Debug, Default)]
pub(super) struct RuleRetention {
    /// Everything up to here is counted.
    pub(super) counted_through: u64,
    rules: Vec<KeptByRule>,
    pub(super) fates: FatesOfSegments,
}

/// What a rule keeps.
#[derive(Debug, Default)]
struct KeptByRule {
    count: u64,
    bytes: u64,
    /// Every event of the rule up to here is in `ahead` or was passed.
    looked_through: u64,
    ahead: VecDeque<EventAhead>,
}

#[derive(Debug)]
struct EventAhead {
    number: u64,
    bytes: u64,
    time: Timestamp,
    /// The first event of its segment.
    segment: u64,
    /// `None`: it is damaged, which is reported to readers that pass it.
    audience: Option<Audience>,
}

/// A deleted event to which a rule applies.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeletedUnderRule {
    pub(super) number: u64,
    pub(super) bytes: u32,
    pub(super) rule: u8,
}

/// What becomes of the audiences of some segments, in the order of their lists.
#[derive(Debug, Default)]
pub(super) struct FatesOfSegments(VecDeque<(SegmentName, u32, Arc<Vec<Fate>>)>);

impl RuleRetention {
    pub(super) fn new(hiding: &Hiding) -> Self {
        let rules = hiding.rules.iter().map(|_| KeptByRule::default()).collect();
        let mut retention = Self { rules, ..Self::default() };
        retention.look_again(hiding);
        retention
    }

    /// What will expire next under each rule.
    pub(super) fn next(&self) -> Vec<NextOfRule> {
        self.rules.iter().map(KeptByRule::next).collect()
    }

    /// Which audience has which fate, or what comes next, may have changed.
    pub(super) fn look_again(&mut self, hiding: &Hiding) {
        self.fates.0.clear();
        for (kept, front) in self.rules.iter_mut().zip(&*hiding.fronts) {
            kept.ahead.clear();
            kept.looked_through = *front;
        }
    }

    /// Counts what came since, where everything up to the front of the log is hidden.
    pub(super) fn count_new(&mut self, store: &Store, hiding: &Hiding, front: u64) -> io::Result<()> {
        let (segments, extent) = store.segments();
        let from = self.counted_through.max(front);
        if hiding.rules.is_empty() || from >= extent.newest {
            return Ok(());
        }
        for segment in segments_after(&segments, from) {
            let (after, last) = (self.counted_through.max(front), segment.last().min(extent.newest));
            for (number, row, fate) in self.fated_rows(store, hiding, segment, (after, last))? {
                if let Some(rule) = fate.rule.filter(|_| !hiding.hide_fated(fate, number)) {
                    let kept = &mut self.rules[usize::from(rule)];
                    kept.count += 1;
                    kept.bytes += u64::from(row.length);
                }
            }
            self.counted_through = last.max(after);
        }
        self.counted_through = extent.newest;
        Ok(())
    }

    /// The front of the log passes everything of a segment after one event and up to another.
    pub(super) fn forget_through(
        &mut self,
        store: &Store,
        hiding: &Hiding,
        segment: &Segment,
        range: (u64, u64),
    ) -> io::Result<()> {
        if hiding.rules.is_empty() {
            return Ok(());
        }
        for (number, row, fate) in self.fated_rows(store, hiding, segment, range)? {
            self.forget(hiding, number, u64::from(row.length), fate);
        }
        Ok(())
    }

    /// An event is gone. If it was counted, it counts no more.
    pub(super) fn forget(&mut self, hiding: &Hiding, number: u64, bytes: u64, fate: Fate) {
        let Some(rule) = fate.rule.map(usize::from) else { return };
        if number <= self.counted_through && !hiding.hide_fated(fate, number) {
            self.rules[rule].forget(1, bytes);
        }
    }

    /// Some events are deleted that were visible when they were looked up; if they still were
    /// before this deletion, they count no more. Some of them are in these segments, given by their
    /// first events.
    pub(super) fn forget_deleted(
        &mut self,
        (before, front): (&Hiding, u64),
        deletions: &Deletions,
        deleted: &[DeletedUnderRule],
        segments: &[u64],
    ) {
        for DeletedUnderRule { number, bytes, rule } in deleted {
            let is_counted = (front + 1..=self.counted_through).contains(number);
            if is_counted && !before.is_expired_by(*rule, *number) {
                self.rules[usize::from(*rule)].forget(1, u64::from(*bytes));
            }
        }
        let is_deleted = |event: &EventAhead| {
            let audience = event.audience.as_ref();
            audience.is_some_and(|audience| event.number <= deletions.through(&audience.topics))
        };
        for kept in &mut self.rules {
            kept.ahead.retain(|event| !is_deleted(event));
        }
        self.fates.0.retain(|(name, ..)| segments.binary_search(&name.first).is_err());
    }

    /// Moves the front of each rule to where it has to be, and adds the segments in which something
    /// expires.
    pub(super) fn advance(
        &mut self,
        store: &Store,
        now: Timestamp,
        touched: &mut BTreeSet<u64>,
    ) -> io::Result<()> {
        let rules = Arc::clone(&store.horizon().hiding.rules);
        for (place, rule) in rules.iter().enumerate() {
            while self.rules[place].count > 0 {
                if self.rules[place].ahead.is_empty() && !self.look_ahead(store, place, rule, now, touched)? {
                    // All of it was passed as a whole, or could not be counted again.
                    let kept = &mut self.rules[place];
                    (kept.count, kept.bytes) = (0, 0);
                    break;
                }
                let front = store.horizon().front;
                let kept = &mut self.rules[place];
                let Some(next) = kept.ahead.front() else { continue };
                if next.number > front && !kept.next().is_due(rule, next.time, now) {
                    break;
                }
                let Some(next) = kept.ahead.pop_front() else { break };
                if next.number > front {
                    kept.forget(1, next.bytes);
                    touched.insert(next.segment);
                    expire(store, place, next.number, next.audience.map(|audience| (next.number, audience)));
                }
            }
        }
        Ok(())
    }

    /// Looks for what comes next under a rule. Returns whether there may be more.
    fn look_ahead(
        &mut self,
        store: &Store,
        place: usize,
        rule: &RetentionRule,
        now: Timestamp,
        touched: &mut BTreeSet<u64>,
    ) -> io::Result<bool> {
        let (front, hiding) = store.hidden();
        let (segments, _) = store.segments();
        let from = self.rules[place].looked_through.max(front);
        for segment in segments_after(&segments, from) {
            let after = self.rules[place].looked_through.max(front);
            let last = segment.last().min(self.counted_through);
            if after >= last {
                continue;
            }
            let mut found = Vec::new();
            let (mut count, mut bytes, mut newest) = (0, 0, after);
            for (number, row, fate) in self.fated_rows(store, &hiding, segment, (after, last))? {
                if fate.rule.map(usize::from) == Some(place) && number > fate.deleted_through {
                    if found.len() < AHEAD_MAX {
                        found.push((number, row));
                    }
                    (count, bytes, newest) = (count + 1, bytes + u64::from(row.length), number);
                }
            }
            let latest = segment.times().1;
            let is_full = last == segment.last() && segment.first() != segments[segments.len() - 1].first();
            if count > 0 && is_full && self.rules[place].is_last_due((count, bytes), latest, rule, now) {
                let passed = self.audiences_of_rule(store, &hiding, segment, (place, after))?;
                self.rules[place].forget(count, bytes);
                touched.insert(segment.first());
                expire(store, place, newest, passed);
                found.clear();
            }
            let kept = &mut self.rules[place];
            kept.looked_through = last;
            if !found.is_empty() {
                kept.read_ahead(store, segment, found)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The audiences of all events of a rule in a segment after this one, with the newest of each.
    fn audiences_of_rule(
        &mut self,
        store: &Store,
        hiding: &Hiding,
        segment: &Segment,
        (place, after): (usize, u64),
    ) -> io::Result<Vec<(u64, Audience)>> {
        let (fates, (_, audiences)) = segment
            .of_one_index(|| Ok((self.fates.of(store, segment, hiding)?, segment.lists(&*store.disk)?)))?;
        let passed = audiences.iter().zip(fates.iter()).filter_map(|((audience, newest), fate)| {
            let number = segment.first() + u64::from(*newest);
            let is_passed = fate.rule.map(usize::from) == Some(place) && number > after;
            is_passed.then(|| (number, Audience::clone(audience)))
        });
        Ok(passed.collect())
    }

    /// The rows of a segment after one event and up to another, with what becomes of each.
    fn fated_rows(
        &mut self,
        store: &Store,
        hiding: &Hiding,
        segment: &Segment,
        (after, last): (u64, u64),
    ) -> io::Result<impl Iterator<Item = (u64, Row, Fate)> + use<>> {
        let (fates, rows) = segment.of_one_index(|| {
            Ok((self.fates.of(store, segment, hiding)?, segment.rows(&*store.disk, (after, last))?))
        })?;
        Ok(rows.into_iter().filter(|(_, row)| row.offset > 0).filter_map(move |(number, row)| {
            let fate = fates.get(row.audience as usize)?;
            Some((number, row, *fate))
        }))
    }
}

/// Hides what a rule does not keep up to this event, and records it in the floors.
fn expire(store: &Store, rule: usize, front: u64, passed: impl IntoIterator<Item = (u64, Audience)>) {
    store.rules_unsaved.store(true, Ordering::Relaxed);
    let mut horizon = store.horizon();
    let mut fronts = horizon.hiding.fronts.to_vec();
    fronts[rule] = front;
    horizon.hiding.fronts = fronts.into();
    for (number, audience) in passed {
        horizon.floors.record(number, audience, &store.limits);
    }
}

impl KeptByRule {
    fn next(&self) -> NextOfRule {
        let time = self.ahead.front().map(|event| event.time);
        NextOfRule { count: self.count, bytes: self.bytes, time }
    }

    fn forget(&mut self, count: u64, bytes: u64) {
        self.count = self.count.saturating_sub(count);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Whether the last of so many that come next has to expire, if it has this time.
    fn is_last_due(
        &self,
        (count, bytes): (u64, u64),
        time: Timestamp,
        rule: &RetentionRule,
        now: Timestamp,
    ) -> bool {
        let left = (self.count.saturating_sub(count), self.bytes.saturating_sub(bytes));
        NextOfRule { count: left.0 + 1, bytes: left.1 + 1, time: None }.is_due(rule, time, now)
    }

    /// Reads these events, which come next.
    fn read_ahead(&mut self, store: &Store, segment: &Segment, found: Vec<(u64, Row)>) -> io::Result<()> {
        let mut reader = EventReader::new(store, segment);
        let mut topics_bytes = 0;
        for (number, row) in found {
            if topics_bytes > AHEAD_BYTES_MAX {
                break;
            }
            let entry = reader.get(number, row.offset)?;
            let audience = entry.map(|entry| Audience::of(&entry.event));
            let topics = audience.iter().flat_map(|audience| &audience.topics);
            topics_bytes += topics.map(|topic| topic.as_str().len()).sum::<usize>();
            let (bytes, time) = (u64::from(row.length), row.time);
            self.ahead.push_back(EventAhead { number, bytes, time, segment: segment.first(), audience });
            self.looked_through = number;
        }
        Ok(())
    }
}

impl FatesOfSegments {
    pub(super) fn of(
        &mut self,
        store: &Store,
        segment: &Segment,
        hiding: &Hiding,
    ) -> io::Result<Arc<Vec<Fate>>> {
        let (name, rebuilt, count) = (segment.name, segment.rebuilt(), segment.audiences_count());
        let known = self.0.iter().position(|(known, stamp, _)| *known == name && *stamp == rebuilt);
        let mut fates =
            known.and_then(|known| self.0.remove(known)).map(|(.., fates)| fates).unwrap_or_default();
        if fates.len() < count {
            let audiences = segment.audiences_from(&*store.disk, fates.len())?;
            Arc::make_mut(&mut fates).extend(audiences.iter().map(|audience| hiding.fate(audience)));
        }
        self.0.push_front((name, rebuilt, Arc::clone(&fates)));
        self.0.truncate(FATES_MAX);
        Ok(fates)
    }
}
