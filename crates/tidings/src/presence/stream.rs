//! Changes of presence as a stream.
//!
//! The connection that changes only notes the change. A disconnect cancels a connect that has not
//! been read yet, and a change of topics replaces what has not been read, so what waits is bounded by
//! the number of subscribers that are present or have been reported.

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
    waiting: Mutex<HashMap<ConnectionId, Change>>,
    waker: AtomicWaker,
}

/// A change that has not been read yet.
#[derive(Debug)]
struct Change {
    presence: Presence,
    /// The stream has reported this subscriber as one that is here.
    is_reported: bool,
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
    pub(super) fn note(&self, presence: &Presence, is_known: bool) {
        lock(&self.0).retain(|changes| {
            let Some(changes) = changes.upgrade() else { return false };
            changes.note(presence, is_known);
            true
        });
    }
}

impl Changes {
    /// `is_known`: it has been noted before that this subscriber is here.
    fn note(&self, presence: &Presence, is_known: bool) {
        let mut waiting = lock(&self.waiting);
        let unread = waiting.remove(&presence.connection);
        let is_reported = unread.map_or(is_known, |change| change.is_reported);
        // One that comes and goes before it is read is not reported.
        if presence.here || is_reported {
            waiting.insert(presence.connection, Change { presence: presence.clone(), is_reported });
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
        self.taken = waiting.into_values().map(|change| change.presence).collect::<Vec<_>>().into_iter();
        self.taken.next().map_or(Poll::Pending, |presence| Poll::Ready(Some(presence)))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::Presence;
    use crate::{EditProof, Hub, Subscribe, Subscription, TopicEdit};

    const PROOF: EditProof = EditProof([1; 32]);

    async fn subscription(hub: &Hub, name: &str) -> Subscription {
        let request = Subscribe::topics(["chat"]).label(name).editable(PROOF, None);
        hub.subscribe(request).await.expect("a subscription")
    }

    async fn add(hub: &Hub, subscription: &mut Subscription, topic: &str) {
        let add = vec![hub.validator().exact(topic).expect("a topic")];
        let edit = hub.edit(subscription.connection(), PROOF, TopicEdit { add, ..TopicEdit::default() });
        let (edited, _) = tokio::join!(edit, subscription.next());
        edited.expect("it is polled");
    }

    fn topics(who: &Presence) -> Vec<&str> {
        who.matchers.iter().map(|matcher| &*matcher.text).collect()
    }

    /// The streams have nothing to send, so each change waits for a heartbeat.
    #[tokio::test(start_paused = true)]
    async fn a_subscriber_is_reported_again_with_its_new_topics() {
        let hub = Hub::in_memory().await;
        let mut presence = hub.presence();
        let mut next = || presence.next().now_or_never().flatten();
        let mut ann = subscription(&hub, "ann").await;
        add(&hub, &mut ann, "news").await;
        let who = next().expect("a change");
        assert_eq!((who.here, topics(&who)), (true, vec!["chat", "news"]), "the first report is of both");
        assert!(next().is_none());
        for topic in ["b", "c"] {
            add(&hub, &mut ann, topic).await;
        }
        let who = next().expect("a change");
        assert_eq!((who.here, topics(&who)), (true, vec!["chat", "news", "b", "c"]));
        add(&hub, &mut ann, "d").await;
        drop(ann);
        let who = next().expect("a change");
        assert!(!who.here && topics(&who).contains(&"d"));
        let mut bob = subscription(&hub, "bob").await;
        add(&hub, &mut bob, "news").await;
        drop(bob);
        assert!(next().is_none(), "it came and went before it was read");
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
