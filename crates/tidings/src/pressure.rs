//! Back-pressure on publishers: appends in flight are bounded, and appends wait while the fan-out
//! lags.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tidings_log::{Cursor, Position};
use tokio::sync::Notify;

/// Counts what is being appended to the log, and what is in the log and not yet in the feeds.
#[derive(Debug)]
pub(crate) struct Pressure {
    count: Capacity,
    bytes: Capacity,
    /// The last position and the bytes of each batch, in the order of the log.
    lagging: Mutex<VecDeque<(Position, u64)>>,
    lagging_bytes: AtomicU64,
    lagging_bytes_max: u64,
    caught_up: Notify,
}

/// Capacity that is taken and given back, and never waited for.
#[derive(Debug)]
struct Capacity {
    taken: AtomicU64,
    max: u64,
}

impl Capacity {
    fn new(max: u64) -> Self {
        Self { taken: AtomicU64::new(0), max }
    }

    fn take(&self, amount: u64) -> bool {
        let take = |taken: u64| taken.checked_add(amount).filter(|taken| *taken <= self.max);
        // Relaxed is enough: it counts and orders nothing else.
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn give_back(&self, amount: u64) {
        self.taken.fetch_sub(amount, Ordering::Relaxed);
    }
}

/// The permit to append one batch, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct AppendPermit {
    pressure: Arc<Pressure>,
    bytes: u64,
}

impl Drop for AppendPermit {
    fn drop(&mut self) {
        self.pressure.bytes.give_back(self.bytes);
        self.pressure.count.give_back(1);
    }
}

impl Pressure {
    pub(crate) fn new(count_max: usize, bytes_max: u64, lagging_bytes_max: u64) -> Self {
        Self {
            count: Capacity::new(count_max as u64),
            bytes: Capacity::new(bytes_max.max(1)),
            lagging: Mutex::default(),
            lagging_bytes: AtomicU64::new(0),
            lagging_bytes_max,
            caught_up: Notify::new(),
        }
    }

    /// Takes a permit for a batch of this size, if there is capacity. A batch larger than the total
    /// capacity takes all of it.
    pub(crate) fn enter(self: &Arc<Self>, bytes: u64) -> Option<AppendPermit> {
        let bytes = bytes.min(self.bytes.max);
        if !self.count.take(1) {
            return None;
        }
        if !self.bytes.take(bytes) {
            self.count.give_back(1);
            return None;
        }
        Some(AppendPermit { pressure: Arc::clone(self), bytes })
    }

    /// Waits until the feeds lag less than the limit.
    pub(crate) async fn wait_for_fan_out(&self) {
        while self.lagging_bytes.load(Ordering::Acquire) > self.lagging_bytes_max {
            let caught_up = self.caught_up.notified();
            if self.lagging_bytes.load(Ordering::Acquire) <= self.lagging_bytes_max {
                return;
            }
            caught_up.await;
        }
    }

    /// Records a batch that is in the log and may not be in the feeds yet.
    pub(crate) fn appended(&self, last: Cursor, bytes: u64, head: impl Fn() -> Cursor) {
        let mut lagging = self.lagging();
        // Under the lock: a writer that moves the head afterwards finds this batch and removes it.
        let head = head();
        if head.epoch == last.epoch && head.position < last.position {
            // Publishers that were answered at the same time arrive here in any order, but nearly
            // in that of the log.
            let after = lagging.iter().rposition(|(position, _)| *position < last.position);
            lagging.insert(after.map_or(0, |index| index + 1), (last.position, bytes));
            self.lagging_bytes.fetch_add(bytes, Ordering::AcqRel);
        }
    }

    /// Removes the batches that the feeds have now.
    pub(crate) fn fanned_out(&self, head: Position) {
        let mut lagging = self.lagging();
        while let Some(&(_, bytes)) = lagging.front().filter(|(position, _)| *position <= head) {
            lagging.pop_front();
            self.lagging_bytes.fetch_sub(bytes, Ordering::AcqRel);
        }
        drop(lagging);
        self.caught_up.notify_waiters();
    }

    /// Starts from zero, as the feeds do.
    pub(crate) fn restart(&self) {
        let mut lagging = self.lagging();
        lagging.clear();
        self.lagging_bytes.store(0, Ordering::Release);
        drop(lagging);
        self.caught_up.notify_waiters();
    }

    fn lagging(&self) -> MutexGuard<'_, VecDeque<(Position, u64)>> {
        self.lagging.lock().unwrap_or_else(PoisonError::into_inner)
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

    const BYTES: u64 = 1024;

    fn cursor(epoch: u64, number: u128) -> Cursor {
        let position = Position::from_bytes(number.to_be_bytes());
        Cursor { epoch: Epoch::from_u64(epoch), position }
    }

    #[test]
    fn a_finished_batch_frees_capacity() {
        let pressure = Arc::new(Pressure::new(2, 10 * BYTES, 0));
        let first = pressure.enter(9 * BYTES).expect("there is capacity");
        assert!(pressure.enter(2 * BYTES).is_none(), "too many bytes");
        let second = pressure.enter(1).expect("there is capacity for this");
        assert!(pressure.enter(0).is_none(), "too many batches");
        drop((first, second));
        assert!(pressure.enter(u64::MAX).is_some(), "a batch larger than the total capacity takes all of it");
    }

    #[test]
    fn a_batch_refused_for_its_bytes_takes_no_permit() {
        let pressure = Arc::new(Pressure::new(2, BYTES, 0));
        let _large = pressure.enter(BYTES).expect("there is capacity");
        for _ in 0..5 {
            assert!(pressure.enter(BYTES).is_none());
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
    fn a_waiting_publisher_wakes_when_the_fan_out_catches_up_or_restarts() {
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
