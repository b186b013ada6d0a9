//! Back-pressure on publishers: appends in flight are bounded, and appends wait while the fan-out
//! lags.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use tidings_log::{Cursor, Position, parts::lock};
use tokio::sync::Notify;

/// Counts what is being appended to the log, and what is in the log and not yet in the feeds.
#[derive(Debug)]
pub(crate) struct Pressure {
    count: Capacity,
    bytes: Capacity,
    lagging: Mutex<Lagging>,
    /// The bytes of the lagging batches. Changed under the lock of these.
    lagging_bytes: AtomicU64,
    lagging_bytes_max: u64,
    caught_up: Notify,
}

/// What is in the log and not yet in the feeds.
#[derive(Debug)]
struct Lagging {
    /// How far the feeds have been written. `None` if they will not be written any further.
    head: Option<Cursor>,
    /// The last position and the bytes of each batch beyond, in the order of the log.
    batches: VecDeque<(Position, u64)>,
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
    /// Of the batch.
    bytes: u64,
}

impl AppendPermit {
    /// The size of the batch.
    pub(crate) fn batch_bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for AppendPermit {
    fn drop(&mut self) {
        self.pressure.bytes.give_back(self.bytes.min(self.pressure.bytes.max));
        self.pressure.count.give_back(1);
    }
}

impl Pressure {
    pub(crate) fn new(head: Cursor, count_max: usize, bytes_max: u64, lagging_bytes_max: u64) -> Self {
        Self {
            count: Capacity::new(count_max as u64),
            bytes: Capacity::new(bytes_max.max(1)),
            lagging: Mutex::new(Lagging { head: Some(head), batches: VecDeque::new() }),
            lagging_bytes: AtomicU64::new(0),
            lagging_bytes_max,
            caught_up: Notify::new(),
        }
    }

    /// Takes a permit for a batch of this size, if there is capacity. A batch larger than the total
    /// capacity takes all of it.
    pub(crate) fn enter(self: &Arc<Self>, bytes: u64) -> Option<AppendPermit> {
        if !self.count.take(1) {
            return None;
        }
        if !self.bytes.take(bytes.min(self.bytes.max)) {
            self.count.give_back(1);
            return None;
        }
        Some(AppendPermit { pressure: Arc::clone(self), bytes })
    }

    /// How many batches are being appended and how many may be, and the same of their bytes.
    pub(crate) fn appends(&self) -> [(u64, u64); 2] {
        [&self.count, &self.bytes].map(|capacity| (capacity.taken.load(Ordering::Relaxed), capacity.max))
    }

    /// The newest entry of the log that is known here. None if the feeds will not be written any
    /// further.
    pub(crate) fn newest(&self) -> Option<Cursor> {
        let lagging = lock(&self.lagging);
        let head = lagging.head?;
        let position = lagging.batches.back().map_or(head.position, |(position, _)| *position);
        Some(Cursor { position, ..head })
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

    /// Records batches that are in the log and may not be in the feeds yet: the last position and
    /// the bytes of each.
    pub(crate) fn appended(&self, batches: impl IntoIterator<Item = (Cursor, u64)>) {
        let mut lagging = lock(&self.lagging);
        let mut bytes_added = 0;
        for (last, bytes) in batches {
            // Under the lock: a writer that moves the head afterwards finds this batch and removes
            // it.
            if lagging.head.is_some_and(|head| head.epoch == last.epoch && head.position < last.position) {
                // Publishers that were answered at the same time arrive here in any order, but
                // nearly in that of the log.
                let after = lagging.batches.iter().rposition(|(position, _)| *position < last.position);
                lagging.batches.insert(after.map_or(0, |index| index + 1), (last.position, bytes));
                bytes_added += bytes;
            }
        }
        self.lagging_bytes.fetch_add(bytes_added, Ordering::AcqRel);
    }

    /// The feeds have been written up to here: removes the batches that they have now.
    pub(crate) fn fanned_out(&self, head: Cursor) {
        let mut lagging = lock(&self.lagging);
        lagging.head = Some(head);
        let mut bytes_removed = 0;
        while let Some(&(_, bytes)) =
            lagging.batches.front().filter(|(position, _)| *position <= head.position)
        {
            lagging.batches.pop_front();
            bytes_removed += bytes;
        }
        self.lower(lagging, bytes_removed);
    }

    /// Starts from zero, as the feeds do: after this position, or not any more.
    pub(crate) fn restart(&self, head: Option<Cursor>) {
        let mut lagging = lock(&self.lagging);
        *lagging = Lagging { head, batches: VecDeque::new() };
        let bytes = self.lagging_bytes();
        self.lower(lagging, bytes);
    }

    /// Publishers wait only while the lag is beyond the limit, so they are woken only when it
    /// returns below.
    fn lower(&self, lagging: MutexGuard<'_, Lagging>, bytes: u64) {
        let before = self.lagging_bytes.fetch_sub(bytes, Ordering::AcqRel);
        drop(lagging);
        if before > self.lagging_bytes_max && before - bytes <= self.lagging_bytes_max {
            self.caught_up.notify_waiters();
        }
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

    fn pressure(count_max: usize, bytes_max: u64, lagging_bytes_max: u64) -> Pressure {
        Pressure::new(cursor(1, 0), count_max, bytes_max, lagging_bytes_max)
    }

    #[test]
    fn a_finished_batch_frees_capacity() {
        let pressure = Arc::new(pressure(2, 10 * BYTES, 0));
        let first = pressure.enter(9 * BYTES).expect("there is capacity");
        assert!(pressure.enter(2 * BYTES).is_none(), "too many bytes");
        let second = pressure.enter(1).expect("there is capacity for this");
        assert!(pressure.enter(0).is_none(), "too many batches");
        drop((first, second));
        assert!(pressure.enter(u64::MAX).is_some(), "a batch larger than the total capacity takes all of it");
    }

    #[test]
    fn a_batch_refused_for_its_bytes_takes_no_permit() {
        let pressure = Arc::new(pressure(2, BYTES, 0));
        let _large = pressure.enter(BYTES).expect("there is capacity");
        for _ in 0..5 {
            assert!(pressure.enter(BYTES).is_none());
        }
        assert!(pressure.enter(0).is_some());
    }

    #[test]
    fn only_what_the_feeds_do_not_have_yet_counts_as_lag() {
        let pressure = pressure(1, 1, 100);
        pressure.fanned_out(cursor(1, 5));
        pressure.appended([(cursor(1, 5), 60), (cursor(2, 6), 60)]);
        assert_eq!(pressure.lagging_bytes(), 0);
        pressure.appended([(cursor(1, 8), 60), (cursor(1, 7), 60)]);
        assert_eq!(pressure.lagging_bytes(), 120);
        pressure.fanned_out(cursor(1, 7));
        assert_eq!(pressure.lagging_bytes(), 60);
        pressure.fanned_out(cursor(1, 9));
        assert_eq!(pressure.lagging_bytes(), 0);
        pressure.restart(None);
        pressure.appended([(cursor(1, 10), 60)]);
        assert_eq!(pressure.lagging_bytes(), 0, "no feed is written any more");
    }

    #[test]
    fn a_waiting_publisher_wakes_when_the_fan_out_catches_up_or_restarts() {
        let pressure = pressure(1, 1, 50);
        let catch_up: [&dyn Fn(); 2] =
            [&|| pressure.fanned_out(cursor(1, 2)), &|| pressure.restart(Some(cursor(1, 3)))];
        for catch_up in catch_up {
            pressure.fanned_out(cursor(1, 0));
            pressure.appended([(cursor(1, 1), 1), (cursor(1, 2), 60)]);
            let mut waiting = Box::pin(pressure.wait_for_fan_out());
            assert!((&mut waiting).now_or_never().is_none());
            pressure.fanned_out(cursor(1, 1));
            assert!((&mut waiting).now_or_never().is_none());
            catch_up();
            assert!(waiting.now_or_never().is_some());
        }
    }
}
