//! The epochs of the log as Redis keeps them: a line each with the epoch, the position after which
//! it begins, and the number of the event there.
//!
//! An epoch begins at the end of the log at the time when a loss was detected, so the start
//! positions grow, and the position of an event determines its epoch.

use std::sync::Arc;

use tidings_log::{Epoch, EpochStart, Epochs, parts::position};

use super::places::place_of;

/// All epochs, with the numbers at which they begin.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Starts(Vec<Begun>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Begun {
    start: EpochStart,
    number: u64,
}

/// The next epoch of a tail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Next {
    pub(super) start: EpochStart,
    /// The number of the last event before it.
    pub(super) number: u64,
    /// Whether the epoch that it follows is one of this log.
    pub(super) is_known: bool,
}

impl Starts {
    /// A log that begins with this epoch.
    #[cfg(test)]
    pub(super) fn starting(epoch: Epoch) -> Self {
        Self(vec![Begun { start: Epochs::starting(epoch).current(), number: 0 }])
    }

    /// Reads what the scripts write. `None` if it is something else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut begun = Vec::new();
        for line in text.lines() {
            let mut words = line.split(' ');
            let epoch = Epoch::from_u64(u64::from_str_radix(words.next()?, 16).ok()?);
            let after = position(place_of(words.next()?.as_bytes())?);
            begun.push(Begun { start: EpochStart { epoch, after }, number: words.next()?.parse().ok()? });
        }
        (!begun.is_empty()).then_some(Self(begun))
    }

    /// The newest epoch, if anything is known.
    pub(super) fn newest(&self) -> Option<Epoch> {
        self.0.last().map(|begun| begun.start.epoch)
    }

    pub(super) fn epochs(&self) -> Epochs {
        let starts = self.0.iter().map(|begun| begun.start).collect();
        Epochs::from_stored(starts).unwrap_or_else(|| Epochs::starting(self.current()))
    }

    /// The newest epoch, or one of no log.
    pub(super) fn current(&self) -> Epoch {
        self.newest().unwrap_or(Epoch::from_u64(0))
    }

    pub(super) fn contains(&self, epoch: Epoch) -> bool {
        self.index_of(epoch).is_some()
    }

    fn index_of(&self, epoch: Epoch) -> Option<usize> {
        self.0.iter().position(|begun| begun.start.epoch == epoch)
    }

    /// The epochs as they were while this one was the newest. A later epoch may have given the
    /// positions of lost events to others.
    pub(super) fn through(&self, epoch: Epoch) -> Option<Self> {
        Some(Self(self.0[..=self.index_of(epoch)?].to_vec()))
    }

    /// The epoch of a position.
    pub(super) fn epoch_of(&self, place: u64) -> Epoch {
        let count = self.0.partition_point(|begun| begun.start.after < position(place));
        self.0[count.saturating_sub(1)].start.epoch
    }

    /// The epoch that follows this one for a tail. A tail of another log continues at the beginning
    /// of this one.
    pub(super) fn next_after(&self, epoch: Epoch) -> Option<Next> {
        let known = self.index_of(epoch);
        let later = self.0.iter().skip(known.map_or(0, |index| index + 1));
        let next = later
            .reduce(|chosen, next| if next.start.after <= chosen.start.after { next } else { chosen })?;
        Some(Next { start: next.start, number: next.number, is_known: known.is_some() })
    }

    /// The epochs before the current one, newest first, as scripts receive them.
    pub(super) fn earlier(&self) -> String {
        let earlier = self.0.iter().rev().skip(1).take(EARLIER_MAX);
        earlier.map(|begun| spelled(begun.start.epoch)).collect::<Vec<_>>().join(" ")
    }
}

/// The epochs as last received, and how often they have changed.
#[derive(Default, Debug)]
pub(super) struct Learned {
    starts: Arc<Starts>,
    changes: u64,
}

impl Learned {
    pub(super) fn starts(&self) -> Arc<Starts> {
        Arc::clone(&self.starts)
    }

    /// Read this before asking Redis.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Takes over epochs that were requested after this many changes. Replies do not always arrive
    /// in the order in which Redis sent them: epochs that contradict what was learned in the
    /// meantime may be older, and the caller that has to know asks again.
    pub(super) fn learn(&mut self, starts: &Arc<Starts>, asked_at: u64) {
        let goes_on = self.starts.newest().is_none_or(|newest| starts.contains(newest));
        if self.starts != *starts && (goes_on || self.changes == asked_at) {
            *self = Self { starts: Arc::clone(starts), changes: self.changes + 1 };
        }
    }
}

/// How many past epochs a process presents, to detect that Redis has lost some.
const EARLIER_MAX: usize = 16;

/// An epoch in the scripts' notation.
pub(super) fn spelled(epoch: Epoch) -> String {
    format!("{:x}", epoch.to_u64())
}

/// A new epoch, if one is needed.
pub(super) fn fresh() -> String {
    format!("{:x}", getrandom::u64().expect("the system gives random numbers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_of_an_event_determines_its_epoch() {
        let starts = Starts::parse("a 0-0 0\nb 0-100 7\nc 0-100 7\nd 1-0 9\n").unwrap();
        for (place, epoch) in [(1, 0xa), (100, 0xa), (101, 0xc), (1 << 20, 0xc), ((1 << 20) + 1, 0xd)] {
            assert_eq!(starts.epoch_of(place).to_u64(), epoch, "{place}");
        }
        assert_eq!(starts.current().to_u64(), 0xd);
    }

    #[test]
    fn an_event_keeps_the_epoch_in_which_it_was_read() {
        let starts = Starts::parse("a 0-0 0\nb 0-100 7\nc 0-200 9\n").unwrap();
        let then = starts.through(Epoch::from_u64(0xb)).unwrap();
        assert_eq!((then.current().to_u64(), then.epoch_of(201).to_u64()), (0xb, 0xb));
        assert_eq!(then.epochs().iter().count(), 2);
        assert_eq!(starts.through(Epoch::from_u64(0xd)), None);
    }

    #[test]
    fn a_late_reply_does_not_restore_old_epochs() {
        let starts = |text| Arc::new(Starts::parse(text).unwrap());
        let (first, second) = (starts("a 0-0 0\n"), starts("a 0-0 0\nb 0-100 7\n"));
        let other = starts("c 0-0 0\n");
        let mut learned = Learned::default();
        learned.learn(&first, 0);
        let asked_at = learned.changes();
        learned.learn(&second, asked_at);
        learned.learn(&first, asked_at);
        assert_eq!(learned.starts(), second, "the end was lost in the meantime");
        learned.learn(&other, asked_at);
        assert_eq!(learned.starts(), second, "it is unknown which of them is older");
        learned.learn(&other, learned.changes());
        assert_eq!(learned.starts(), other);
        learned.learn(&starts("c 0-0 0\nd 0-1 1\n"), asked_at);
        assert_eq!(learned.starts().current().to_u64(), 0xd, "it continues where the other ends");
    }

    #[test]
    fn a_tail_continues_in_the_next_epoch_or_at_the_start_of_a_new_log() {
        let starts = Starts::parse("a 0-0 0\nb 0-100 7\nc 0-200 9\n").unwrap();
        let next = |epoch| {
            starts.next_after(Epoch::from_u64(epoch)).map(|next| (next.start.epoch.to_u64(), next.number))
        };
        assert_eq!(next(0xa), Some((0xb, 7)));
        assert_eq!(next(0xb), Some((0xc, 9)));
        assert_eq!(next(0xc), None);
        assert_eq!(next(0xf), Some((0xa, 0)));
    }

    #[test]
    fn malformed_epochs_are_none() {
        for text in ["", "a", "a 0-0", "a 0-0 x", "g 0-0 0", "a 0 0"] {
            assert_eq!(Starts::parse(text), None, "{text:?}");
        }
    }
}
