//! Queries of the index. Filters are applied elsewhere: matching a pattern takes microseconds, and
//! the index is locked.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tidings_log::{
    Bounds, Cursor, Entry, Epoch, EventId, LogStats, Position, TailItem, Timestamp, Topic,
    parts::{Audience, FloorDraft, Plan, Reach, number, position},
};

use super::{Index, Record, sequence_of};

/// Most records that one look returns. It bounds the time during which the index is locked.
pub(crate) const LOOK_MAX: usize = 1_024;

/// An event that a filter may accept.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) number: u64,
    /// When its message was stored, which tells it from another one at its sequence.
    pub(crate) nanos: u64,
    pub(crate) audience: Arc<Audience>,
    /// [`Entry::memory_bytes`].
    pub(crate) bytes: usize,
    /// The event, if it is in memory.
    pub(crate) entry: Option<Arc<Entry>>,
}

/// The content of a stretch of the log.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) epoch: Epoch,
    /// In the order of looking.
    pub(crate) candidates: Vec<Candidate>,
    /// Nothing follows in the direction of looking.
    pub(crate) is_complete: bool,
    /// The last number that was looked at.
    pub(crate) last: u64,
    pub(crate) newest: u64,
}

/// What comes next for a tail.
#[derive(Debug)]
pub(crate) enum Followed {
    /// This item, and the position after it.
    Item(TailItem, Seen),
    /// These events of its epoch, of which some have to be fetched.
    Events(Vec<Candidate>),
    /// Nothing yet.
    Nothing,
}

/// What a tail has returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub(crate) cursor: Cursor,
    /// How many deletions it has reported.
    pub(crate) deletions: u64,
}

impl Index {
    /// What the filter may accept after a number.
    pub(crate) fn look_after(&self, after: u64, plan: &Plan<'_>) -> Look {
        let (numbers, is_complete) = match &plan.reach {
            Reach::Topics(topics) => self.merged(topics, |numbers| {
                let from = numbers.partition_point(|number| *number <= after);
                (numbers.range(from..).copied().take(LOOK_MAX).collect(), numbers.len() - from <= LOOK_MAX)
            }),
            Reach::Everything | Reach::Unknown => {
                let from = self.place_after(after);
                let taken = self.records.range(from..).take(LOOK_MAX).map(|record| record.number);
                (taken.collect(), self.records.len() - from <= LOOK_MAX)
            }
        };
        self.look(numbers, is_complete)
    }

    /// What the filter may accept before a number, newest first.
    pub(crate) fn look_before(&self, before: u64, plan: &Plan<'_>) -> Look {
        let (mut numbers, is_complete) = match &plan.reach {
            Reach::Topics(topics) => self.merged(topics, |numbers| {
                let until = numbers.partition_point(|number| *number < before);
                (numbers.range(until.saturating_sub(LOOK_MAX)..until).copied().collect(), until <= LOOK_MAX)
            }),
            Reach::Everything | Reach::Unknown => {
                let until = self.place_after(before.saturating_sub(1));
                let taken = self.records.range(until.saturating_sub(LOOK_MAX)..until);
                (taken.map(|record| record.number).collect(), until <= LOOK_MAX)
            }
        };
        numbers.reverse();
        self.look(numbers, is_complete)
    }

    /// The floors after a number that a plan has to take into account.
    pub(crate) fn floor(&self, plan: &Plan<'_>, after: u64) -> FloorDraft {
        self.floors.draft(plan, after)
    }

    fn look(&self, mut numbers: Vec<u64>, is_complete: bool) -> Look {
        let is_complete = is_complete && numbers.len() <= LOOK_MAX;
        numbers.truncate(LOOK_MAX);
        let last = numbers.last().copied().unwrap_or(self.newest);
        let found = numbers.into_iter().filter_map(|number| self.record(number));
        let kept = found.filter(|record| !record.is_gone);
        let candidates = kept.map(|record| self.candidate(record)).collect();
        Look { epoch: self.epochs.current().epoch, candidates, is_complete, last, newest: self.newest }
    }

    fn candidate(&self, record: &Record) -> Candidate {
        Candidate {
            number: record.number,
            nanos: record.nanos,
            audience: Arc::clone(&record.audience),
            bytes: record.bytes as usize,
            entry: self.recent_entry(record.number).cloned(),
        }
    }

    fn recent_entry(&self, number: u64) -> Option<&Arc<Entry>> {
        let place = position(number);
        let index = self.recent.partition_point(|entry| entry.cursor.position < place);
        self.recent.get(index).filter(|entry| entry.cursor.position == place)
    }

    /// Numbers of several merged lists, given those of each, and whether these are all.
    fn merged(
        &self,
        topics: &[(&Topic, bool)],
        taken_of: impl Fn(&VecDeque<u64>) -> (Vec<u64>, bool),
    ) -> (Vec<u64>, bool) {
        let lists = topics.iter().filter_map(|(topic, _)| self.topics.get(*topic));
        let (taken, are_all): (Vec<_>, Vec<_>) = lists.map(taken_of).unzip();
        let mut merged = taken.concat();
        merged.sort_unstable();
        merged.dedup();
        (merged, are_all.into_iter().all(|is_all| is_all))
    }

    /// The events that may have a publisher's id: the hash matches.
    pub(crate) fn named(&self, id: &EventId) -> Vec<Candidate> {
        use std::hash::BuildHasher;
        let numbers = self.ids.get(&self.hasher.hash_one(id)).into_iter().flatten();
        numbers.filter_map(|number| self.record(*number)).map(|record| self.candidate(record)).collect()
    }

    /// The id of the first event of a batch with a key, or where it is to be fetched from.
    pub(crate) fn first_id(&self, sequence: u64) -> Result<EventId, Candidate> {
        if let Some(id) = self.named_keys.get(&sequence) {
            return Ok(id.clone());
        }
        let first = super::number_of(sequence, 0);
        match self.record(first).filter(|record| record.id_hash.is_some() && !record.is_gone) {
            Some(record) => Err(self.candidate(record)),
            None => Ok(self.generated_id(first)),
        }
    }

    /// The id of an event whose publisher gave it none.
    pub(crate) fn generated_id(&self, number: u64) -> EventId {
        Cursor { epoch: self.epoch_of(number), position: position(number) }.to_event_id()
    }

    /// The last kept event that is older than this.
    pub(crate) fn position_ago(&self, now: Timestamp, ago: Duration) -> Position {
        let before_nanos = now.earlier_by(ago).to_millis().saturating_mul(1_000_000);
        // A server whose clock was set back leaves times that do not rise: then the last event that
        // is old enough counts, as documented.
        let is_old = |record: &Record| record.nanos < before_nanos;
        let last_old = if self.times_rise {
            self.records.partition_point(is_old)
        } else {
            self.records.iter().rposition(is_old).map_or(0, |index| index + 1)
        };
        let kept = self.records.range(..last_old).rfind(|record| !record.is_gone);
        kept.map_or(Position::BEFORE_ALL, |record| position(record.number))
    }

    /// The bounds of the log.
    pub(crate) fn bounds(&self) -> Bounds {
        let oldest = self.records.iter().find(|record| !record.is_gone);
        Bounds {
            epochs: self.epochs.clone(),
            oldest: oldest.map(|record| position(record.number)),
            newest: position(self.newest),
            retention_bytes: Some(self.settings.bytes_max),
        }
    }

    /// What is kept.
    pub(crate) fn stats(&self) -> LogStats {
        let time = |record: &Record| Timestamp::from_millis(record.nanos / 1_000_000);
        let records = (self.kept > 0).then_some(&self.records);
        let mut stats = LogStats::new("nats", self.settings.bytes_max);
        stats.events = self.kept;
        stats.bytes = self.stored_bytes;
        stats.oldest = records.and_then(VecDeque::front).map(time);
        stats.newest = records.and_then(VecDeque::back).map(time);
        stats
    }

    /// Where a new tail begins.
    pub(crate) fn seen(&self) -> Seen {
        let cursor = Cursor { epoch: self.epochs.current().epoch, position: position(self.newest) };
        Seen { cursor, deletions: self.deletions }
    }

    /// How many deletions took something away.
    pub(crate) fn deletions(&self) -> u64 {
        self.deletions
    }

    /// What follows this position of a tail. It first reports deletions, then the epochs in order:
    /// what is left of its own, then the start of the next.
    pub(crate) fn follow(&self, seen: Seen, bytes_max: usize) -> Followed {
        if seen.deletions < self.deletions {
            let serial = self.deletions;
            return Followed::Item(TailItem::Deleted { serial }, Seen { deletions: serial, ..seen });
        }
        let mut left_through = u64::MAX;
        let known = self.epochs.iter().position(|start| start.epoch == seen.cursor.epoch);
        let next_epoch = match known {
            Some(index) => self.epochs.iter().nth(index + 1).copied(),
            None => self.epochs.iter().next().copied(),
        };
        if let Some(next) = next_epoch {
            left_through = if known.is_some() { number(next.after) } else { 0 };
        }
        let seen_number = number(seen.cursor.position);
        if let Some(followed) = self.follow_within(seen, seen_number, left_through, bytes_max) {
            return followed;
        }
        match next_epoch {
            Some(next) => {
                let cursor = Cursor { epoch: next.epoch, position: next.after };
                Followed::Item(TailItem::NewEpoch(next), Seen { cursor, ..seen })
            }
            None => Followed::Nothing,
        }
    }

    fn follow_within(
        &self,
        seen: Seen,
        seen_number: u64,
        left_through: u64,
        bytes_max: usize,
    ) -> Option<Followed> {
        let mut gone_through = Some(self.front.min(left_through)).filter(|front| *front > seen_number);
        let mut events = Vec::new();
        let mut bytes = 0;
        let from = self.place_after(gone_through.unwrap_or(seen_number));
        for record in
            self.records.range(from..).take_while(|record| record.number <= left_through).take(LOOK_MAX)
        {
            match (record.is_gone, gone_through) {
                (true, _) if !events.is_empty() => break,
                (true, _) => gone_through = Some(record.number),
                (false, Some(_)) => break,
                (false, None) if !events.is_empty() && bytes >= bytes_max => break,
                (false, None) => {
                    bytes += record.bytes as usize;
                    events.push(self.candidate(record));
                }
            }
        }
        if let Some(through) = gone_through {
            let through = position(through);
            let seen = Seen { cursor: Cursor { position: through, ..seen.cursor }, ..seen };
            return Some(Followed::Item(TailItem::Skipped { through }, seen));
        }
        (!events.is_empty()).then_some(Followed::Events(events))
    }

    /// When the message that holds an event was stored, as it was read.
    pub(crate) fn nanos_of(&self, sequence: u64) -> Option<u64> {
        let from = self.place_after(super::number_of(sequence, 0).saturating_sub(1));
        self.records
            .get(from)
            .filter(|record| sequence_of(record.number) == sequence)
            .map(|record| record.nanos)
    }
}
