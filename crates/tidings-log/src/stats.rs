//! What a log knows of itself, for metrics.

use crate::{Timestamp, histogram::Recorded};

/// Statistics of a log at one moment, as far as this process knows them without asking anybody: see
/// [`Log::stats`](crate::Log::stats).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LogStats {
    /// What the log is stored in: `memory`, `files`, `redis`, `nats`.
    pub store: &'static str,
    /// Whether the store accepted appends and answered when this process last used it.
    pub is_up: bool,
    /// The events that the log keeps. In files, deleted events count until their front has passed
    /// them.
    pub events: u64,
    /// Their bytes, in the measure that [`bytes_max`](Self::bytes_max) limits. In files these are the
    /// bytes of the segments, which are freed as a whole.
    pub bytes: u64,
    /// The limit of the log in bytes.
    pub bytes_max: u64,
    /// When the oldest event that is kept was appended; `None` if no event is kept.
    pub oldest: Option<Timestamp>,
    /// When the newest event was appended that is kept.
    pub newest: Option<Timestamp>,
    /// How long syncing to disk took, each time; `None` for a log that does not sync itself.
    pub syncs: Option<Recorded>,
}

impl LogStats {
    /// Of an empty log in a store that can be used.
    pub fn new(store: &'static str, bytes_max: u64) -> Self {
        Self { store, is_up: true, events: 0, bytes: 0, bytes_max, oldest: None, newest: None, syncs: None }
    }
}
