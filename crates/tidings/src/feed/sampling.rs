//! Which events are followed on their way to the subscribers, to measure how long it takes.
//!
//! The writer chooses one entry every [`SAMPLE_INTERVAL`] at most, by the times in the log, so that
//! choosing needs no clock; only a chosen entry costs something. It gets a [`Mark`], which its feeds
//! keep and where a shard finds it, and which [`Sampled`] keeps for those that pull their streams.

use std::{
    num::NonZeroU64,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tidings_log::{Entry, Position, Timestamp, parts::number};

/// The time between two chosen entries, at least.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// The moment that an entry was appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark(NonZeroU64);

/// What marks count from. Nothing is measured that was appended before.
static BASE: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Mark {
    /// The moment of an append, on the clock of this process. The log gives it in milliseconds and,
    /// if it is on another machine, by the clock of that.
    fn of_append(time: Timestamp) -> Self {
        let appended = UNIX_EPOCH + Duration::from_millis(time.to_millis());
        let age = SystemTime::now().duration_since(appended).unwrap_or_default();
        let since_base = BASE.elapsed().saturating_sub(age);
        let nanos = u64::try_from(since_base.as_nanos()).unwrap_or(u64::MAX);
        Self(NonZeroU64::new(nanos).unwrap_or(NonZeroU64::MIN))
    }

    /// How long ago it was.
    pub(crate) fn elapsed(self) -> Duration {
        BASE.elapsed().saturating_sub(Duration::from_nanos(self.0.get()))
    }
}

/// A mark that others may look at while it is replaced.
#[derive(Debug, Default)]
pub(crate) struct LastMark(AtomicU64);

impl LastMark {
    pub(crate) fn set(&self, mark: Mark) {
        self.0.store(mark.0.get(), Ordering::Release);
    }

    pub(crate) fn get(&self) -> Option<Mark> {
        NonZeroU64::new(self.0.load(Ordering::Acquire)).map(Mark)
    }
}

/// The entry that was chosen last.
#[derive(Debug, Default)]
pub(crate) struct Sampled {
    /// The number of its position; 0 before the first.
    position: AtomicU64,
    mark: LastMark,
}

impl Sampled {
    fn set(&self, position: Position, mark: Mark) {
        self.position.store(0, Ordering::Release);
        self.mark.set(mark);
        self.position.store(number(position), Ordering::Release);
    }

    /// The mark of the entry at this position, if it is the one that was chosen last.
    pub(crate) fn at(&self, position: Position) -> Option<Mark> {
        let is_sampled = || self.position.load(Ordering::Acquire) == number(position);
        let mark = is_sampled().then(|| self.mark.get()).flatten();
        mark.filter(|_| is_sampled())
    }
}

/// Chooses entries.
#[derive(Debug)]
pub(crate) struct Sampler {
    last: Timestamp,
}

impl Default for Sampler {
    fn default() -> Self {
        LazyLock::force(&BASE);
        Self { last: Timestamp::default() }
    }
}

impl Sampler {
    /// The mark of an entry that has readers, if it is chosen.
    pub(crate) fn choose(&mut self, entry: &Entry, sampled: &Sampled) -> Option<Mark> {
        let interval = u64::try_from(SAMPLE_INTERVAL.as_millis()).expect("a short time");
        // The clock may have been set back.
        if entry.time.to_millis().abs_diff(self.last.to_millis()) < interval {
            return None;
        }
        self.last = entry.time;
        let mark = Mark::of_append(entry.time);
        sampled.set(entry.cursor.position, mark);
        Some(mark)
    }
}

#[cfg(test)]
mod tests {
    use tidings_log::{Cursor, Epoch};
    use tidings_topic::{NewEvent, Validator};

    use super::*;

    fn entry(number: u128, time: u64) -> Entry {
        let event = Validator::default().event(NewEvent::new("chat", "")).expect("valid");
        let position = Position::from_bytes(number.to_be_bytes());
        Entry::new(Cursor { epoch: Epoch::from_u64(1), position }, Timestamp::from_millis(time), event)
    }

    #[test]
    fn one_entry_in_each_interval_is_chosen_also_when_the_clock_goes_back() {
        let (mut chooser, sampled) = (Sampler::default(), Sampled::default());
        let times = [1_000, 1_001, 1_099, 1_100, 1_150, 1_250, 400, 450];
        let chosen = times.map(|time| chooser.choose(&entry(1, time), &sampled).is_some());
        assert_eq!(chosen, [true, false, false, true, false, true, true, false]);
    }

    #[test]
    fn only_the_entry_that_was_chosen_last_has_a_mark() {
        let (mut chooser, sampled) = (Sampler::default(), Sampled::default());
        assert_eq!(sampled.at(entry(0, 0).cursor.position), None, "none has been chosen");
        let first = chooser.choose(&entry(7, 1_000), &sampled);
        assert_eq!(sampled.at(entry(7, 0).cursor.position), first);
        assert_eq!(sampled.at(entry(8, 0).cursor.position), None);
        let second = chooser.choose(&entry(9, 2_000), &sampled);
        assert!(second.is_some());
        assert_eq!(sampled.at(entry(7, 0).cursor.position), None);
        assert_eq!(sampled.at(entry(9, 0).cursor.position), second);
    }

    #[test]
    fn a_mark_is_as_old_as_its_entry_and_no_older_than_the_process() {
        LazyLock::force(&BASE);
        let before = BASE.elapsed();
        let old = Mark::of_append(Timestamp::from_millis(0));
        assert!(old.elapsed() >= before && old.elapsed() <= BASE.elapsed());
        let in_the_future = Mark::of_append(Timestamp::from_millis(u64::from(u32::MAX) * 1_000));
        assert!(in_the_future.elapsed() <= BASE.elapsed().saturating_sub(before));
    }
}
