//! Retention by rules: each rule has its own front, and counts the events after it.
//!
//! Events and bytes are counted from the rows of the indexes, without reading records: each event
//! once, when it is appended or when the log is opened. A front advances, and never goes back, over
//! the events of its rule only; each event that it passes is recorded in the floors. A segment in
//! which all events of a rule have expired is passed at once.

use std::{collections::VecDeque, io, sync::Arc};

use tidings_topic::Topic;

use super::{
    file::{Segment, SegmentName},
    hiding::{Fate, Hiding},
    index::{Name, Row, Wanted, forwards},
    reading::{Fetcher, LOOKUP_MAX, index_after, until},
    retention::Retention,
    shared::{Shared, segments_after},
};
use crate::{RetentionRule, Timestamp, draft::Audience};

/// How many events of a rule are looked at ahead of its front, and about how many bytes of their
/// topics.
const AHEAD_MAX: usize = 16;
const AHEAD_BYTES_MAX: usize = 64 * 1024;
/// Of how many segments it is remembered which audience falls under which rule.
const FATES_MAX: usize = 4;

/// What is known of the rules.
#[derive(Debug, Default)]
pub(super) struct Ruled {
    /// Everything up to here is counted.
    counted_through: u64,
    rules: Vec<Kept>,
    fates: Fates,
}

/// What a rule keeps.
#[derive(Debug, Default)]
struct Kept {
    count: u64,
    bytes: u64,
    /// Every event of the rule up to here is in `ahead` or was passed.
    looked_through: u64,
    ahead: VecDeque<Ahead>,
}

#[derive(Debug)]
struct Ahead {
    number: u64,
    bytes: u64,
    time: Timestamp,
    /// The first event of its segment.
    segment: u64,
    /// `None`: it is damaged, and the one that reads past it is reported.
    audience: Option<Audience>,
}

/// What becomes of the audiences of some segments, in the order of their lists.
#[derive(Debug, Default)]
struct Fates(VecDeque<(SegmentName, u32, Arc<Vec<Fate>>)>);

impl Ruled {
    pub(super) fn new(rules: usize) -> Self {
        Self { rules: (0..rules).map(|_| Kept::default()).collect(), ..Self::default() }
    }

    /// Which audience has which fate, or what comes next, may have changed.
    pub(super) fn look_again(&mut self, hiding: &Hiding) {
        self.fates.0.clear();
        for (kept, front) in self.rules.iter_mut().zip(&*hiding.fronts) {
            kept.ahead.clear();
            kept.looked_through = *front;
        }
    }

    /// Whether every front stays where it is, as far as can be determined without reading a file.
    pub(super) fn is_settled(&self, rules: &[RetentionRule], newest: u64, now: Timestamp) -> bool {
        rules.is_empty()
            || self.counted_through >= newest
                && self.rules.iter().zip(rules).all(|(kept, rule)| {
                    kept.count == 0
                        || kept.ahead.front().is_some_and(|next| !kept.is_due(rule, next.time, now))
                })
    }

    /// An event is gone. If it was counted, it counts no more.
    fn forget(&mut self, hiding: &Hiding, number: u64, bytes: u64, fate: Fate) {
        let Some(rule) = fate.rule.map(usize::from) else { return };
        if number <= self.counted_through && !hiding.hides_fated(fate, number) {
            let kept = &mut self.rules[rule];
            kept.count = kept.count.saturating_sub(1);
            kept.bytes = kept.bytes.saturating_sub(bytes);
        }
    }
}

impl Kept {
    /// Whether the next event has to go.
    fn is_due(&self, rule: &RetentionRule, time: Timestamp, now: Timestamp) -> bool {
        rule.count_max.is_some_and(|count_max| self.count > count_max)
            || rule.bytes_max.is_some_and(|bytes_max| self.bytes > bytes_max)
            || rule.age_max.is_some_and(|age_max| time < now.earlier_by(age_max))
    }

    /// Whether all of these, which come next, have to go, and are of a segment whose latest event
    /// has this time.
    fn all_are_due(
        &self,
        rule: &RetentionRule,
        (count, bytes): (u64, u64),
        latest: Timestamp,
        now: Timestamp,
    ) -> bool {
        // One more than what would be left.
        rule.count_max.is_some_and(|count_max| self.count.saturating_sub(count) >= count_max)
            || rule.bytes_max.is_some_and(|bytes_max| self.bytes.saturating_sub(bytes) >= bytes_max)
            || rule.age_max.is_some_and(|age_max| latest < now.earlier_by(age_max))
    }
}

impl Fates {
    fn of(&mut self, shared: &Shared, segment: &Segment, hiding: &Hiding) -> io::Result<Arc<Vec<Fate>>> {
        let (name, rebuilt, count) = (segment.name, segment.rebuilt(), segment.audiences_count());
        let known = self.0.iter().position(|(known, stamp, _)| *known == name && *stamp == rebuilt);
        let mut fates =
            known.and_then(|known| self.0.remove(known)).map(|(.., fates)| fates).unwrap_or_default();
        if fates.len() < count {
            let audiences = segment.audiences_from(&*shared.disk, fates.len())?;
            Arc::make_mut(&mut fates).extend(audiences.iter().map(|audience| hiding.fate(audience)));
        }
        self.0.push_front((name, rebuilt, Arc::clone(&fates)));
        self.0.truncate(FATES_MAX);
        Ok(fates)
    }
}

impl Retention {
    /// Counts what came since.
    pub(super) fn count_new(&mut self, shared: &Shared) -> io::Result<()> {
        let (segments, newest) = shared.acknowledged();
        let from = self.ruled.counted_through.max(self.front);
        if self.hiding.rules.is_empty() || from >= newest {
            return Ok(());
        }
        for segment in segments_after(&segments, from) {
            let (after, last) = (self.ruled.counted_through.max(self.front), segment.last().min(newest));
            self.each_row(shared, segment, (after, last), |retention, number, row, fate| {
                if let Some(rule) = fate.rule.map(usize::from)
                    && !retention.hiding.hides_fated(fate, number)
                {
                    let kept = &mut retention.ruled.rules[rule];
                    kept.count += 1;
                    kept.bytes += u64::from(row.length);
                }
            })?;
            self.ruled.counted_through = last.max(after);
        }
        self.ruled.counted_through = newest;
        Ok(())
    }

    /// What becomes of the audiences of a segment. `None` if there are no rules to know it for.
    pub(super) fn fates(&mut self, shared: &Shared, segment: &Segment) -> io::Result<Option<Arc<Vec<Fate>>>> {
        if self.hiding.rules.is_empty() {
            return Ok(None);
        }
        self.ruled.fates.of(shared, segment, &self.hiding).map(Some)
    }

    /// The front of the log passes everything of a segment up to this event.
    pub(super) fn forget_ruled_through(
        &mut self,
        shared: &Shared,
        segment: &Segment,
        last: u64,
    ) -> io::Result<()> {
        if self.hiding.rules.is_empty() {
            return Ok(());
        }
        self.each_row(shared, segment, (self.front, last), |retention, number, row, fate| {
            retention.forget_ruled(number, u64::from(row.length), fate);
        })
    }

    /// The front of the log passes an event.
    pub(super) fn forget_ruled(&mut self, number: u64, bytes: u64, fate: Fate) {
        self.ruled.forget(&self.hiding, number, bytes, fate);
    }

    /// A deletion of this topic takes something in these segments: it counts no more. Before this
    /// the old fates hold, afterwards the new ones.
    pub(super) fn forget_deleted(
        &mut self,
        shared: &Shared,
        topic: &Topic,
        firsts: &[u64],
        after: &Hiding,
    ) -> io::Result<()> {
        let (segments, _) = shared.acknowledged();
        let touched = segments.iter().filter(|segment| firsts.binary_search(&segment.first()).is_ok());
        let wanted = Wanted::Named(vec![Name::Topic(topic.clone())]);
        for segment in touched.filter(|_| !after.rules.is_empty()) {
            let fates = self.ruled.fates.of(shared, segment, &self.hiding)?;
            let audiences = segment.audiences_from(&*shared.disk, 0)?;
            let new: Vec<_> =
                audiences.iter().map(|audience| after.deletions.through(&audience.topics)).collect();
            let mut from = index_after(segment, self.front);
            loop {
                let rows = segment.look(&*shared.disk, |places| {
                    let range = (from, u32::MAX);
                    let found = forwards(places, &wanted, segment.header.salt, range, LOOKUP_MAX)?;
                    found
                        .into_iter()
                        .map(|index| Ok((index, places.row(index)?)))
                        .collect::<io::Result<Vec<_>>>()
                })?;
                for (index, row) in rows.iter().filter(|(_, row)| row.offset > 0) {
                    let (number, audience) = (segment.first() + u64::from(*index), row.audience as usize);
                    if let (Some(fate), Some(through)) = (fates.get(audience), new.get(audience))
                        && number <= *through
                    {
                        self.forget_ruled(number, u64::from(row.length), *fate);
                    }
                }
                match rows.last() {
                    Some((index, _)) if rows.len() == LOOKUP_MAX => from = index + 1,
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Counts everything anew at the next occasion.
    pub(super) fn recount(&mut self) {
        self.ruled = Ruled::new(self.hiding.rules.len());
        self.look_again();
    }

    /// Moves the front of each rule to where it has to be.
    pub(super) fn advance_rules(&mut self, shared: &Shared, now: Timestamp) -> io::Result<()> {
        let rules = Arc::clone(&self.hiding.rules);
        for (place, rule) in rules.iter().enumerate() {
            while self.ruled.rules[place].count > 0 {
                if self.ruled.rules[place].ahead.is_empty()
                    && !self.look_ahead_of(shared, place, rule, now)?
                {
                    // All of it was passed as a whole, or could not be counted again.
                    let kept = &mut self.ruled.rules[place];
                    (kept.count, kept.bytes) = (0, 0);
                    break;
                }
                let kept = &mut self.ruled.rules[place];
                let Some(next) = kept.ahead.front() else { continue };
                if next.number > self.front && !kept.is_due(rule, next.time, now) {
                    break;
                }
                let Some(next) = kept.ahead.pop_front() else { break };
                if next.number > self.front {
                    kept.count = kept.count.saturating_sub(1);
                    kept.bytes = kept.bytes.saturating_sub(next.bytes);
                    self.set_front_of(place, next.number);
                    self.touched.insert(next.segment);
                    if let Some(audience) = next.audience {
                        self.floors.record(next.number, audience, &shared.settings.limits());
                    }
                }
            }
        }
        Ok(())
    }

    fn set_front_of(&mut self, rule: usize, front: u64) {
        let mut fronts = self.hiding.fronts.to_vec();
        fronts[rule] = front;
        self.hiding.fronts = fronts.into();
    }

    /// Looks for what comes next under a rule. Says whether there may be more.
    fn look_ahead_of(
        &mut self,
        shared: &Shared,
        place: usize,
        rule: &RetentionRule,
        now: Timestamp,
    ) -> io::Result<bool> {
        let (segments, _) = shared.acknowledged();
        let counted_through = self.ruled.counted_through;
        let from = self.ruled.rules[place].looked_through.max(self.front);
        for segment in segments_after(&segments, from) {
            let after = self.ruled.rules[place].looked_through.max(self.front);
            let last = segment.last().min(counted_through);
            if after >= last {
                continue;
            }
            let mut found = Vec::new();
            let (mut count, mut bytes, mut newest) = (0, 0, after);
            self.each_row(shared, segment, (after, last), |_, number, row, fate| {
                if fate.rule.map(usize::from) == Some(place) && number > fate.deleted_through {
                    if found.len() < AHEAD_MAX {
                        found.push((number, row));
                    }
                    (count, bytes, newest) = (count + 1, bytes + u64::from(row.length), number);
                }
            })?;
            let latest = segment.times().1;
            let is_full = last == segment.last() && segment.first() != segments[segments.len() - 1].first();
            if count > 0 && is_full && self.ruled.rules[place].all_are_due(rule, (count, bytes), latest, now)
            {
                self.pass_ruled(shared, segment, place, after)?;
                let kept = &mut self.ruled.rules[place];
                kept.count = kept.count.saturating_sub(count);
                kept.bytes = kept.bytes.saturating_sub(bytes);
                self.set_front_of(place, newest);
                self.touched.insert(segment.first());
                found.clear();
            }
            let kept = &mut self.ruled.rules[place];
            kept.looked_through = last;
            if !found.is_empty() {
                kept.look_at(shared, segment, found)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Accounts for all events of a rule in a segment after this one.
    fn pass_ruled(&mut self, shared: &Shared, segment: &Segment, place: usize, after: u64) -> io::Result<()> {
        let fates = self.ruled.fates.of(shared, segment, &self.hiding)?;
        let (_, audiences) = segment.lists(&*shared.disk)?;
        for ((newest, audience), fate) in audiences.into_iter().zip(fates.iter()) {
            let number = segment.first() + u64::from(newest);
            if fate.rule.map(usize::from) == Some(place) && number > after {
                self.floors.record(number, audience, &shared.settings.limits());
            }
        }
        Ok(())
    }

    /// Looks at the rows of a segment after one event and up to another, with what becomes of each.
    fn each_row(
        &mut self,
        shared: &Shared,
        segment: &Segment,
        (after, last): (u64, u64),
        mut look: impl FnMut(&mut Self, u64, Row, Fate),
    ) -> io::Result<()> {
        let fates = self.ruled.fates.of(shared, segment, &self.hiding)?;
        let range = index_after(segment, after)..until(segment, last);
        let rows = segment.rows(&*shared.disk, range.clone())?;
        for (index, row) in range.zip(rows) {
            if let Some(fate) = fates.get(row.audience as usize).filter(|_| row.offset > 0) {
                look(self, segment.first() + u64::from(index), row, *fate);
            }
        }
        Ok(())
    }
}

impl Kept {
    /// Reads these events, which come next.
    fn look_at(&mut self, shared: &Shared, segment: &Arc<Segment>, found: Vec<(u64, Row)>) -> io::Result<()> {
        let mut fetcher = Fetcher::new(shared, segment);
        let mut topics_bytes = 0;
        for (number, row) in found {
            if topics_bytes > AHEAD_BYTES_MAX {
                break;
            }
            let entry = fetcher.get_hidden_too(index_after(segment, number - 1), row.offset)?;
            let audience = entry.map(|entry| Audience::of(&entry.event));
            let topics = audience.iter().flat_map(|audience| &audience.topics);
            topics_bytes += topics.map(|topic| topic.as_str().len()).sum::<usize>();
            let (bytes, time) = (u64::from(row.length), row.time);
            self.ahead.push_back(Ahead { number, bytes, time, segment: segment.first(), audience });
            self.looked_through = number;
        }
        Ok(())
    }
}
