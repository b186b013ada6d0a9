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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tidings_log::Epoch;

    use super::*;

    fn cursor(epoch: u64, number: u128) -> Cursor {
        let position = Position::from_bytes(number.to_be_bytes());
        Cursor { epoch: Epoch::from_u64(epoch), position }
    }

    #[test]
    fn whoever_is_through_makes_room() {
        let pressure = Pressure::new(2, 10 * BYTES_PER_PERMIT, 0);
        let first = pressure.enter(9 * BYTES_PER_PERMIT).expect("there is room");
        assert!(pressure.enter(2 * BYTES_PER_PERMIT).is_none(), "too many bytes");
        let second = pressure.enter(1).expect("there is room for this");
        assert!(pressure.enter(0).is_none(), "too many batches");
        drop((first, second));
        assert!(pressure.enter(u64::MAX).is_some(), "one that is larger than all the room has it to itself");
    }

    #[test]
    fn what_was_refused_for_its_bytes_takes_no_turn() {
        let pressure = Pressure::new(2, BYTES_PER_PERMIT, 0);
        let _large = pressure.enter(BYTES_PER_PERMIT).expect("there is room");
        for _ in 0..5 {
            assert!(pressure.enter(BYTES_PER_PERMIT).is_none());
        }
        assert!(pressure.enter(0).is_some());
    }

    #[test]
    fn only_what_the_feeds_do_not_have_yet_counts_as_lag() {
        let pressure = Pressure::new(1, 1, 100);
        pressure.appended(cursor(1, 5), 60, || cursor(1, 5));
        pressure.appended(cursor(1, 6), 60, || cursor(2, 0));
        assert_eq!(pressure.lagging_bytes(), 0);
        pressure.appended(cursor(1, 8), 60, || cursor(1, 5));
        pressure.appended(cursor(1, 7), 60, || cursor(1, 5));
        assert_eq!(pressure.lagging_bytes(), 120);
        pressure.fanned_out(cursor(1, 7).position);
        assert_eq!(pressure.lagging_bytes(), 60);
        pressure.fanned_out(cursor(1, 9).position);
        assert_eq!(pressure.lagging_bytes(), 0);
    }

    #[test]
    fn who_waits_for_the_fan_out_is_woken_when_it_has_caught_up_or_starts_anew() {
        let pressure = Pressure::new(1, 1, 50);
        let catch_up: [&dyn Fn(); 2] =
            [&|| pressure.fanned_out(cursor(1, 1).position), &|| pressure.restart()];
        for catch_up in catch_up {
            pressure.appended(cursor(1, 1), 60, || cursor(1, 0));
            let mut waiting = Box::pin(pressure.wait_for_fan_out());
            assert!((&mut waiting).now_or_never().is_none());
            pressure.fanned_out(cursor(1, 0).position);
            assert!((&mut waiting).now_or_never().is_none());
            catch_up();
            assert!(waiting.now_or_never().is_some());
        }
    }
}
