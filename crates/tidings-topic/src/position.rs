//! Positions in a log, and epochs.

use std::fmt;

/// A position in a log: 16 opaque bytes that are ordered as big-endian numbers.
///
/// Their meaning is known only to the log that created them (a counter, a segment offset, a Redis
/// `ms-seq`, a JetStream sequence and index). Other code only compares positions, stores them and
/// returns them to the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position([u8; 16]);

impl Position {
    /// Before every event of every log.
    pub const BEFORE_ALL: Self = Self([0; 16]);

    /// For log implementations: a position from its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// For log implementations: the bytes of this position.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Position({:x})", u128::from_be_bytes(self.0))
    }
}

/// The log that a position belongs to: a random number that changes whenever a log starts empty or
/// loses its end.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// An epoch from its number. Logs choose the number at random, so that no two logs share an
    /// epoch.
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// The number of this epoch.
    pub const fn to_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({:x})", self.0)
    }
}
