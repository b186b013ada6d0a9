//! Changes of presence as a stream.
//!
//! The connection that changes only notes the change. Where a change has not been read yet, its
//! opposite cancels it, so what waits is bounded by the number of subscribers that are present or
//! have been reported.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, Weak},
    task::{Context, Poll},
};

use futures_core::Stream;
use futures_util::task::AtomicWaker;
use tidings_log::parts::lock;
use tidings_topic::ConnectionId;

use super::change::Presence;

/// Who connects to a hub and disconnects: a [`Stream`] of [`Presence`], made by
/// [`Hub::presence`](crate::Hub::presence).
#[derive(Debug)]
pub struct PresenceStream {
    changes: Arc<Changes>,
    /// Taken from the changes all at once.
    taken: std::vec::IntoIter<Presence>,
}

/// What a stream has not read yet.
#[derive(Debug, Default)]
struct Changes {
    waiting: Mutex<HashMap<ConnectionId, Presence>>,
    waker: AtomicWaker,
}

/// The streams of a hub.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<Vec<Weak<Changes>>>);

impl Streams {
    /// Changes from now on.
    pub(super) fn open(&self) -> PresenceStream {
        let changes = Arc::new(Changes::default());
        lock(&self.0).push(Arc::downgrade(&changes));
        PresenceStream { changes, taken: Vec::new().into_iter() }
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }

    /// Notes a change for every stream, and drops streams that have ended.
    pub(super) fn note(&self, presence: &Presence) {
        lock(&self.0).retain(|changes| {
            let Some(changes) = changes.upgrade() else { return false };
            changes.note(presence);
            true
        });
    }
}

impl Changes {
    fn note(&self, presence: &Presence) {
        let mut waiting = lock(&self.waiting);
        // The opposite is the only change that may wait for the same connection.
        if waiting.remove(&presence.connection).is_none() {
            waiting.insert(presence.connection, presence.clone());
        }
        drop(waiting);
        self.waker.wake();
    }
}

impl Stream for PresenceStream {
    type Item = Presence;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Presence>> {
        if let Some(presence) = self.taken.next() {
            return Poll::Ready(Some(presence));
        }
        // Before looking, so that a change between looking and sleeping wakes this task.
        self.changes.waker.register(context.waker());
        let waiting = std::mem::take(&mut *lock(&self.changes.waiting));
        self.taken = waiting.into_values().collect::<Vec<_>>().into_iter();
        self.taken.next().map_or(Poll::Pending, |presence| Poll::Ready(Some(presence)))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use crate::{Hub, Subscribe};

    async fn subscription(hub: &Hub, name: &str) -> crate::Subscription {
        hub.subscribe(Subscribe::topics(["chat"]).label(name)).await.expect("a subscription")
    }

    #[tokio::test]
    async fn a_subscriber_that_has_left_before_it_is_read_is_not_reported() {
        let hub = Hub::in_memory().await;
        let mut presence = hub.presence();
        drop(subscription(&hub, "ann").await);
        let bob = subscription(&hub, "bob").await;
        let who = presence.next().now_or_never().flatten().expect("a change");
        assert_eq!((who.here, who.label.as_deref()), (true, Some("bob")));
        assert!(presence.next().now_or_never().is_none());
        drop(bob);
        let who = presence.next().now_or_never().flatten().expect("a change");
        assert_eq!((who.here, who.label.as_deref()), (false, Some("bob")));
    }

    #[tokio::test]
    async fn each_stream_is_notified_and_one_that_was_dropped_costs_nothing() {
        let hub = Hub::in_memory().await;
        let [mut first, second] = [hub.presence(), hub.presence()];
        drop(second);
        let ann = subscription(&hub, "ann").await;
        let listener = hub.listen(Subscribe::topics(["chat"])).await.expect("a subscription");
        assert_eq!(first.next().await.expect("a change").connection, ann.connection());
        assert!(first.next().now_or_never().is_none(), "the application itself is not present");
        drop((first, listener, ann));
        assert!(hub.state.presence.0.streams.is_empty());
    }
}
