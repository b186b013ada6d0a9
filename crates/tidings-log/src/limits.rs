//! The limits of a log in memory, which are also those of floors and keys of other logs.

use std::time::Duration;

/// The limits of a [`MemoryLog`](crate::MemoryLog). When one is exceeded, the oldest events are
/// dropped, which raises the floor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryLimits {
    /// Most memory of events and their indexes, in bytes. A batch that alone is larger is refused
    /// with [`AppendError::Full`](crate::AppendError::Full). Default 64 MiB.
    pub bytes_max: u64,
    /// Most events. A batch that alone has more is refused with
    /// [`AppendError::Full`](crate::AppendError::Full). Default: unlimited within the other limits.
    pub count_max: Option<u64>,
    /// Greatest age of an event by the clock. Older events expire at once; the next call of any
    /// kind releases their memory, so an idle log keeps it, within the other limits. An event never
    /// expires before older events, even if the clock goes back. Default: unlimited.
    pub age_max: Option<Duration>,
    /// For how many sets of topics the log remembers the last dropped event (with at most
    /// [`FLOORS_BYTES_MAX`](Self::FLOORS_BYTES_MAX) of memory). Beyond it the least recently
    /// updated are forgotten, and a reader whose position is older than these gets a gap notice
    /// whether or not it missed an event. Default 100,000.
    pub floors_max: usize,
    /// Most idempotency keys (with at most [`KEYS_BYTES_MAX`](Self::KEYS_BYTES_MAX) of memory).
    /// Beyond it the oldest are forgotten, and repeats of their batches are appended. Default
    /// 100,000.
    pub keys_max: usize,
    /// Greatest age of an idempotency key. Older ones are forgotten. Default 10 minutes.
    pub keys_age_max: Duration,
}

impl MemoryLimits {
    /// Most memory of remembered floors, in bytes.
    pub const FLOORS_BYTES_MAX: usize = 32 * 1024 * 1024;
    /// Most memory of idempotency keys, in bytes.
    pub const KEYS_BYTES_MAX: usize = 32 * 1024 * 1024;
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self {
            bytes_max: 64 * 1024 * 1024,
            count_max: None,
            age_max: None,
            floors_max: 100_000,
            keys_max: 100_000,
            keys_age_max: Duration::from_secs(10 * 60),
        }
    }
}
