//! The epochs of a log, and what a cursor of an earlier epoch means.

use std::sync::Arc;

use crate::{Cursor, Epoch, Position};

/// The beginning of an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: Epoch,
    /// Its events are after this position. Events of earlier epochs were kept up to here and lost
    /// beyond.
    pub after: Position,
}

/// The epochs of one log, oldest first, at most [`Epochs::COUNT_MAX`]. Never empty. Cloning is
/// cheap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Epochs(Arc<[EpochStart]>);

/// What a cursor means to a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Located {
    /// It belongs to the current epoch: continue after it.
    Here(Position),
    /// It belongs to an earlier epoch of this log, whose end was lost. Events may be missing;
    /// continue after this position.
    Earlier(Position),
    /// It belongs to another log, or is beyond the end of this one.
    Unknown,
}

impl Epochs {
    /// Most epochs that a log remembers. A cursor of an older epoch is treated as one of another
    /// log.
    pub const COUNT_MAX: usize = 1_000;

    /// A log that starts with this epoch.
    pub fn starting(epoch: Epoch) -> Self {
        Self(Arc::new([EpochStart { epoch, after: Position::BEFORE_ALL }]))
    }

    /// The epochs of a log as they were stored, oldest first. `None` if there is none.
    pub fn from_stored(starts: Vec<EpochStart>) -> Option<Self> {
        (!starts.is_empty()).then(|| Self(starts.into()))
    }

    /// The current epoch.
    pub fn current(&self) -> EpochStart {
        *self.0.last().expect("there is always an epoch")
    }

    /// All epochs, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &EpochStart> {
        self.0.iter()
    }

    /// These epochs and a new one.
    #[must_use]
    pub fn with(&self, start: EpochStart) -> Self {
        let forgotten = (self.0.len() + 1).saturating_sub(Self::COUNT_MAX);
        Self(self.0[forgotten..].iter().copied().chain([start]).collect())
    }

    /// What a cursor means, where the log ends at `newest`.
    pub fn locate(&self, cursor: Cursor, newest: Position) -> Located {
        let Some(index) = self.0.iter().position(|start| start.epoch == cursor.epoch) else {
            return Located::Unknown;
        };
        // Each later epoch cut off the end of the log before it: this cursor is valid up to the
        // lowest cut.
        let kept = self.0[index + 1..].iter().map(|start| start.after).min();
        match kept {
            Some(kept) => Located::Earlier(cursor.position.min(kept)),
            None if cursor.position <= newest => Located::Here(cursor.position),
            None => Located::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(number: u128) -> Position {
        Position::from_bytes(number.to_be_bytes())
    }

    fn cursor(epoch: u64, number: u128) -> Cursor {
        Cursor { epoch: Epoch::from_u64(epoch), position: position(number) }
    }

    fn start(epoch: u64, after: u128) -> EpochStart {
        EpochStart { epoch: Epoch::from_u64(epoch), after: position(after) }
    }

    #[test]
    fn a_cursor_of_the_current_epoch_keeps_its_position() {
        let epochs = Epochs::starting(Epoch::from_u64(1));
        assert_eq!(epochs.locate(cursor(1, 5), position(9)), Located::Here(position(5)));
        assert_eq!(epochs.locate(cursor(1, 9), position(9)), Located::Here(position(9)));
    }

    #[test]
    fn a_cursor_beyond_the_end_is_unknown() {
        let epochs = Epochs::starting(Epoch::from_u64(1));
        assert_eq!(epochs.locate(cursor(1, 10), position(9)), Located::Unknown);
    }

    #[test]
    fn a_cursor_of_an_earlier_epoch_continues_at_what_was_kept() {
        let epochs = Epochs::starting(Epoch::from_u64(1)).with(start(2, 5)).with(start(3, 4));
        let epochs = epochs.with(start(4, 7));
        assert_eq!(epochs.locate(cursor(1, 3), position(9)), Located::Earlier(position(3)));
        assert_eq!(epochs.locate(cursor(1, 8), position(9)), Located::Earlier(position(4)));
        assert_eq!(epochs.locate(cursor(2, 8), position(9)), Located::Earlier(position(4)));
        assert_eq!(epochs.locate(cursor(3, 8), position(9)), Located::Earlier(position(7)));
        assert_eq!(epochs.locate(cursor(4, 8), position(9)), Located::Here(position(8)));
    }

    #[test]
    fn a_cursor_of_another_log_is_unknown() {
        let epochs = Epochs::starting(Epoch::from_u64(1));
        assert_eq!(epochs.locate(cursor(7, 1), position(9)), Located::Unknown);
    }

    #[test]
    fn the_list_of_epochs_is_bounded() {
        let many = (1..3_000)
            .fold(Epochs::starting(Epoch::from_u64(0)), |epochs, number| epochs.with(start(number, 1)));
        assert_eq!(many.iter().count(), Epochs::COUNT_MAX);
        assert_eq!(many.current().epoch, Epoch::from_u64(2_999));
    }
}
