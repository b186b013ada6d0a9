//! Positions of logs that number their events: a number is a position, and the order is the same.

use crate::Position;

/// The position of the event with this number.
pub fn position(number: u64) -> Position {
    Position::from_bytes(u128::from(number).to_be_bytes())
}

/// The position right before this one.
pub fn just_before(place: Position) -> Position {
    position(number(place).saturating_sub(1))
}

/// The number of the event at this position. A position that no log assigned yields a number beyond
/// every end.
pub fn number(position: Position) -> u64 {
    u64::try_from(u128::from_be_bytes(position.to_bytes())).unwrap_or(u64::MAX)
}
