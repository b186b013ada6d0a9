//! Back-pressure on publishers: appends in flight are bounded, and appends wait while the fan-out lags.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tidings_log::{Cursor, Position};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// Counts what is on its way into the log, and what is in the log and not yet in the feeds.
#[derive(Debug)]
pub(crate) struct Pressure {
    count: Semaphore,
    /// In units of [`BYTES_PER_PERMIT`], because a semaphore counts with 32 bits.
    bytes: Semaphore,
    bytes_permits_max: u32,
    lagging: Mutex<BTreeMap<Position, u64>>,
    lagging_bytes: AtomicU64,
    lagging_bytes_max: u64,
    caught_up: Notify,
}

/// The right to append one batch.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    _count: SemaphorePermit<'a>,
    _bytes: SemaphorePermit<'a>,
}

const BYTES_PER_PERMIT: u64 = 1024;

impl Pressure {
    pub(crate) fn new(count_max: usize, bytes_max: u64, lagging_bytes_max: u64) -> Self {
        let permits =
            u32::try_from(bytes_max.div_ceil(BYTES_PER_PERMIT)).unwrap_or(u32::MAX).clamp(1, u32::MAX >> 4);
        Self {
            count: Semaphore::new(count_max.min(Semaphore::MAX_PERMITS)),
            bytes: Semaphore::new(permits as usize),
            bytes_permits_max: permits,
            lagging: Mutex::default(),
            lagging_bytes: AtomicU64::new(0),
            lagging_bytes_max,
            caught_up: Notify::new(),
        }
    }

    /// Enters with a batch of this size, if there is room. A batch larger than all the room there is takes all of it.
    pub(crate) fn enter(&self, bytes: u64) -> Option<Turn<'_>> {
        let permits =
            u32::try_from(bytes.div_ceil(BYTES_PER_PERMIT)).unwrap_or(u32::MAX).min(self.bytes_permits_max);
        let count = self.count.try_acquire().ok()?;
        let bytes = self.bytes.try_acquire_many(permits).ok()?;
        Some(Turn { _count: count, _bytes: bytes })
    }

    /// Waits until the feeds lag less than they may.
    pub(crate) async fn wait_for_fan_out(&self) {
        while self.lagging_bytes.load(Ordering::Acquire) > self.lagging_bytes_max {
            let caught_up = self.caught_up.notified();
            if self.lagging_bytes.load(Ordering::Acquire) <= self.lagging_bytes_max {
                return;
            }
            caught_up.await;
        }
    }

    /// Notes a batch that is in the log and may not be in the feeds yet.
    pub(crate) fn appended(&self, last: Cursor, bytes: u64, head: impl Fn() -> Cursor) {
        let mut lagging = self.lagging.lock().expect("nothing panics while it holds this");
        // Under the lock: whoever moves the head afterwards finds this batch and takes it out.
        let head = head();
        if head.epoch == last.epoch && head.position < last.position {
            lagging.insert(last.position, bytes);
            self.lagging_bytes.fetch_add(bytes, Ordering::AcqRel);
        }
    }

    /// Takes out what the feeds have now.
    pub(crate) fn fanned_out(&self, head: Position) {
        let mut lagging = self.lagging.lock().expect("nothing panics while it holds this");
        while let Some(first) = lagging.first_entry().filter(|first| *first.key() <= head) {
            let bytes = first.remove();
            self.lagging_bytes.fetch_sub(bytes, Ordering::AcqRel);
        }
        drop(lagging);
        self.caught_up.notify_waiters();
    }

    /// Starts from nothing: the feeds do.
    pub(crate) fn restart(&self) {
        let mut lagging = self.lagging.lock().expect("nothing panics while it holds this");
        lagging.clear();
        self.lagging_bytes.store(0, Ordering::Release);
        drop(lagging);
        self.caught_up.notify_waiters();
    }

    /// Bytes that are in the log and not yet in the feeds.
    pub(crate) fn lagging_bytes(&self) -> u64 {
        self.lagging_bytes.load(Ordering::Relaxed)
    }
}
