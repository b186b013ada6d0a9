//! The time of day, injected so that tests control it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// A point in time from milliseconds since 1970.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    pub const fn to_millis(self) -> u64 {
        self.0
    }

    /// This point in time, earlier by a duration; 1970 at the earliest.
    #[must_use]
    pub fn earlier_by(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// A source of the time of day: the system clock, or a clock that a test sets.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    /// The system clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that moves only when [`advance`](Self::advance) or [`set`](Self::set) is called.
    /// Clones share it.
    pub fn manual(start: Timestamp) -> Self {
        Self(Some(Arc::new(AtomicU64::new(start.to_millis()))))
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        if let Some(manual) = &self.0 {
            return Timestamp(manual.load(Ordering::SeqCst));
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
    }

    /// Sets a manual clock, forwards or backwards. No effect on the system clock.
    pub fn set(&self, time: Timestamp) {
        if let Some(manual) = &self.0 {
            manual.store(time.to_millis(), Ordering::SeqCst);
        }
    }

    /// Moves a manual clock forwards. No effect on the system clock.
    pub fn advance(&self, duration: Duration) {
        if let Some(manual) = &self.0 {
            let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            manual.fetch_add(millis, Ordering::SeqCst);
        }
    }
}
