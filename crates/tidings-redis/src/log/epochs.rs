//! The epochs of the log as Redis keeps them: a line each with the epoch, the place after which it begins, and the number of the event there.
//!
//! An epoch begins at what was the end of the log when somebody found out that something is missing, so the places of their beginnings grow, and
//! the place of an event tells its epoch.

use tidings_log::{Epoch, EpochStart, Epochs, parts::position};

use super::entry::place_of;

/// All epochs, with the numbers at which they begin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Starts {
    epochs: Epochs,
    begun: Vec<Begun>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Begun {
    epoch: Epoch,
    after: u64,
    number: u64,
}

/// Where a tail goes from its own epoch.
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
        Self { epochs: Epochs::starting(epoch), begun: vec![Begun { epoch, after: 0, number: 0 }] }
    }

    /// Reads what the scripts write. `None` if it is something else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut begun = Vec::new();
        for line in text.lines() {
            let mut words = line.split(' ');
            let epoch = Epoch::from_u64(u64::from_str_radix(words.next()?, 16).ok()?);
            let after = place_of(words.next()?.as_bytes())?;
            begun.push(Begun { epoch, after, number: words.next()?.parse().ok()? });
        }
        let starts =
            begun.iter().map(|begun| EpochStart { epoch: begun.epoch, after: position(begun.after) });
        Some(Self { epochs: Epochs::from_stored(starts.collect())?, begun })
    }

    /// Before anything is known.
    pub(super) fn none() -> Self {
        Self { epochs: Epochs::starting(Epoch::from_u64(0)), begun: Vec::new() }
    }

    /// The newest epoch, if anything is known.
    pub(super) fn newest(&self) -> Option<Epoch> {
        self.begun.last().map(|begun| begun.epoch)
    }

    pub(super) fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    pub(super) fn current(&self) -> Epoch {
        self.epochs.current().epoch
    }

    pub(super) fn contains(&self, epoch: Epoch) -> bool {
        self.begun.iter().any(|begun| begun.epoch == epoch)
    }

    /// The epoch to which a place belongs.
    pub(super) fn epoch_of(&self, place: u64) -> Epoch {
        let count = self.begun.partition_point(|begun| begun.after < place);
        self.begun[count.saturating_sub(1)].epoch
    }

    /// The epoch that a tail in this one comes to next. From another log it comes to the beginning of this one.
    pub(super) fn next_after(&self, epoch: Epoch) -> Option<Next> {
        let known = self.begun.iter().position(|begun| begun.epoch == epoch);
        let later = self.begun.iter().skip(known.map_or(0, |index| index + 1));
        let next = later.reduce(|chosen, next| if next.after <= chosen.after { next } else { chosen })?;
        let start = EpochStart { epoch: next.epoch, after: position(next.after) };
        Some(Next { start, number: next.number, is_known: known.is_some() })
    }

    /// The epochs before the current one, the newest of them, as a script is told them.
    pub(super) fn earlier(&self) -> String {
        let earlier = self.begun.iter().rev().skip(1).take(EARLIER_MAX);
        earlier.map(|begun| spelled(begun.epoch)).collect::<Vec<_>>().join(" ")
    }
}

/// How many epochs of the past a process shows, to find out that Redis has lost some.
const EARLIER_MAX: usize = 16;

/// An epoch as the scripts write it.
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
    fn the_place_of_an_event_tells_its_epoch() {
        let starts = Starts::parse("a 0-0 0\nb 0-100 7\nc 0-100 7\nd 1-0 9\n").unwrap();
        for (place, epoch) in [(1, 0xa), (100, 0xa), (101, 0xc), (1 << 20, 0xc), ((1 << 20) + 1, 0xd)] {
            assert_eq!(starts.epoch_of(place).to_u64(), epoch, "{place}");
        }
        assert_eq!(starts.current().to_u64(), 0xd);
    }

    #[test]
    fn a_tail_comes_from_its_epoch_to_the_next_and_from_another_log_to_the_beginning() {
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
    fn what_the_scripts_do_not_write_is_none() {
        for text in ["", "a", "a 0-0", "a 0-0 x", "g 0-0 0", "a 0 0"] {
            assert_eq!(Starts::parse(text), None, "{text:?}");
        }
    }
}
