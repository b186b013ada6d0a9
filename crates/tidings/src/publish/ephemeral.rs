//! Ephemeral events on their way to the feeds of this hub and to the other hubs.
//!
//! They are not stored, so nothing holds them but two queues: one for the writer of the feeds, and
//! one for the [broadcast](super::broadcast). Nobody waits for these, and they wait for nobody: when
//! one is full, the oldest events in it are dropped and counted.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tidings_log::{Cursor, parts::lock};
use tidings_topic::Event;
use tokio::sync::Notify;

/// The ephemeral events that this hub has to deliver.
#[derive(Debug)]
pub(crate) struct Ephemeral {
    /// For the writer of the feeds.
    pub(crate) live: DroppingQueue<LiveEvent>,
    /// For the other hubs, encoded. None where there are no others.
    pub(crate) outgoing: Option<DroppingQueue<Vec<u8>>>,
    /// What other hubs know this one by.
    pub(crate) hub: HubNumber,
    dropped: AtomicU64,
}

/// Identifies a hub from its start to its end.
pub(crate) type HubNumber = [u8; 16];

/// An event for the feeds of this hub.
#[derive(Debug)]
pub(crate) struct LiveEvent {
    pub(crate) event: Event,
    /// The newest entry of the log that it follows, for an event that was published here: it is
    /// written after this entry and before the next one, whichever the writer finds first. None for
    /// one of another hub, which is written at once.
    pub(crate) after: Option<Cursor>,
}

impl Ephemeral {
    /// Each of the queues holds so many bytes at most.
    pub(crate) fn new(bytes_max: usize, is_clustered: bool) -> Self {
        let mut hub = HubNumber::default();
        getrandom::fill(&mut hub).expect("the system provides random numbers");
        Self {
            live: DroppingQueue::new(bytes_max),
            outgoing: is_clustered.then(|| DroppingQueue::new(bytes_max)),
            hub,
            dropped: AtomicU64::new(0),
        }
    }

    pub(crate) fn deliver(&self, event: LiveEvent) {
        let bytes = event.event.memory_bytes();
        self.count_dropped(self.live.push(event, bytes));
    }

    pub(crate) fn send(&self, outgoing: &DroppingQueue<Vec<u8>>, encoded: Vec<u8>) {
        let bytes = encoded.len();
        self.count_dropped(outgoing.push(encoded, bytes));
    }

    pub(crate) fn count_dropped(&self, events: usize) {
        self.dropped.fetch_add(events as u64, Ordering::Relaxed);
    }

    /// How many events were dropped, by either queue or after it.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// A queue that makes nobody wait: when it is full, the oldest items are dropped.
#[derive(Debug)]
pub(crate) struct DroppingQueue<T> {
    waiting: Mutex<Waiting<T>>,
    bytes_max: usize,
    /// Something has been added.
    arrived: Notify,
}

#[derive(Debug)]
struct Waiting<T> {
    /// Each with its bytes, the oldest first.
    items: VecDeque<(T, usize)>,
    bytes: usize,
}

impl<T> DroppingQueue<T> {
    fn new(bytes_max: usize) -> Self {
        let waiting = Waiting { items: VecDeque::new(), bytes: 0 };
        Self { waiting: Mutex::new(waiting), bytes_max, arrived: Notify::new() }
    }

    /// Adds an item of so many bytes. Returns how many were dropped for it. The newest is kept,
    /// whatever its size.
    fn push(&self, item: T, bytes: usize) -> usize {
        let mut dropped = Vec::new();
        {
            let mut waiting = lock(&self.waiting);
            while waiting.bytes + bytes > self.bytes_max
                && let Some((oldest, bytes)) = waiting.items.pop_front()
            {
                waiting.bytes -= bytes;
                dropped.push(oldest);
            }
            waiting.bytes += bytes;
            waiting.items.push_back((item, bytes));
        }
        self.arrived.notify_one();
        dropped.len()
    }

    /// Waits until something has been added since it last returned. For one waiter.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Asks something of the oldest item. None if there is no item.
    pub(crate) fn of_oldest<R>(&self, ask: impl FnOnce(&T) -> R) -> Option<R> {
        lock(&self.waiting).items.front().map(|(item, _)| ask(item))
    }

    /// Takes the oldest items, of about so many bytes at most, up to the first that is not wanted.
    pub(crate) fn take_while(&self, bytes_max: usize, is_wanted: impl Fn(&T) -> bool) -> Vec<T> {
        let mut waiting = lock(&self.waiting);
        let (mut taken, mut taken_bytes) = (Vec::new(), 0);
        while let Some((item, bytes)) = waiting.items.front()
            && (taken.is_empty() || taken_bytes + bytes <= bytes_max)
            && is_wanted(item)
        {
            taken_bytes += bytes;
            taken.extend(waiting.items.pop_front().map(|(item, _)| item));
        }
        waiting.bytes -= taken_bytes;
        if waiting.items.is_empty() {
            // A burst leaves no memory behind.
            waiting.items = VecDeque::new();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};
    use tidings_topic::NewEvent;

    use super::*;
    use crate::Hub;

    /// Ephemeral events must not be the reason that publishers of stored ones wait.
    #[tokio::test(start_paused = true)]
    async fn ephemeral_events_are_dropped_while_a_shard_is_far_behind_with_them() {
        let hub = Hub::builder().fan_out_lag_bytes_max(40_000).start().await.expect("memory is there");
        let mut stream = hub.subscribe("chat").await.expect("memory is there");
        stream.next().await.expect("the preface");
        let shard = hub.state.engine.lag.add_shard();
        shard.set_served(Some(0));
        let mut delivered = 0;
        for _ in 0..100 {
            let typing = NewEvent::new("chat", "x".repeat(1_000)).ephemeral();
            hub.publish(typing).await.expect("accepted");
            // Time passes only when the fan-out has nothing to do.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            delivered += u64::from(stream.next().now_or_never().is_some());
        }
        assert!((5..15).contains(&delivered), "a quarter of the lag that stops publishers: {delivered}");
        assert_eq!(hub.stats().ephemeral_dropped, 100 - delivered);
        hub.publish(NewEvent::new("chat", "stored")).await.expect("published");
        shard.set_served(None);
        hub.publish(NewEvent::new("chat", "typing").ephemeral()).await.expect("accepted");
        for data in ["stored", "typing"] {
            let event = stream.next().await.expect("an event");
            assert!(event.ends_with(format!("data: {data}\n\n").as_bytes()), "{event:?}");
        }
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_keeps_the_newest_whatever_its_size() {
        let queue = DroppingQueue::new(10);
        assert_eq!([1, 2, 3].map(|item| queue.push(item, 4)), [0, 0, 1]);
        assert_eq!(queue.take_while(usize::MAX, |_| true), [2, 3]);
        assert_eq!([queue.push(4, 5), queue.push(5, 5), queue.push(6, 100)], [0, 0, 2]);
        assert_eq!(queue.take_while(0, |_| true), [6], "at least one");
        assert_eq!(queue.push(7, 10), 0, "the bytes of those that were taken do not count");
    }

    #[test]
    fn items_are_taken_in_order_up_to_the_first_that_is_not_wanted() {
        let queue = DroppingQueue::new(100);
        assert!(queue.arrived().now_or_never().is_none());
        for item in [1, 2, 9, 3] {
            queue.push(item, 10);
        }
        assert!(queue.arrived().now_or_never().is_some());
        assert!(queue.arrived().now_or_never().is_none(), "once for all that were added before");
        assert_eq!(queue.take_while(10, |item| *item < 9), [1], "as many bytes as are asked for");
        assert_eq!(queue.take_while(100, |item| *item < 9), [2]);
        assert_eq!(queue.of_oldest(|item| *item), Some(9));
        assert!(queue.take_while(100, |item| *item < 9).is_empty());
        assert_eq!(queue.take_while(100, |_| true), [9, 3]);
        assert_eq!(queue.of_oldest(|item| *item), None);
    }
}
