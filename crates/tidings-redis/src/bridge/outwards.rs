//! From the hub outwards: what is to be published next.
//!
//! The tail of the log is followed, so everything goes out that any hub of the cluster publishes, by whatever entry point, in the order of the log, and no
//! queue is needed while Redis is away: the log has what was published meanwhile, for as long as it keeps it.
//!
//! What stays inside: what came in through the bridge, and what is private. The one that listens on a Redis has no grants.

use std::{sync::Arc, time::Duration};

use tidings_log::{Event, Tail, TailItem, Topic};
use tidings_net::Spread;

use super::{Shared, inbox::Message};

/// Bytes of the log that are looked at before what was found is sent.
const PAGE_BYTES: usize = 256 << 10;
/// How long to wait before the log is asked again that could not be followed.
const PAUSE: Duration = Duration::from_millis(500);

/// The end of the log, followed from the moment on in which this process took the bridge over.
pub(super) struct Outwards {
    shared: Arc<Shared>,
    tail: Option<Box<dyn Tail>>,
}

impl Outwards {
    /// Follows the log from now on, if the bridge goes both ways.
    pub(super) async fn start(shared: &Arc<Shared>) -> Self {
        let mut outwards = Self { shared: Arc::clone(shared), tail: None };
        if shared.settings.both_ways {
            outwards.tail = shared.hub.tail().await.ok();
        }
        outwards
    }

    /// What is to be sent next, at least one message. Waits until there is something; for ever if the bridge goes one way. Cancel safe.
    pub(super) async fn next(&mut self) -> Vec<Message> {
        if !self.shared.settings.both_ways {
            return std::future::pending().await;
        }
        loop {
            let Some(tail) = &mut self.tail else {
                self.tail = self.shared.hub.tail().await.ok();
                if self.tail.is_none() {
                    tokio::time::sleep(Spread::AROUND.of(PAUSE)).await;
                }
                continue;
            };
            match tail.next(PAGE_BYTES).await {
                Some(TailItem::Entries(entries)) => {
                    let messages: Vec<_> =
                        entries.iter().flat_map(|entry| self.shared.messages_of(&entry.event)).collect();
                    if !messages.is_empty() {
                        return messages;
                    }
                }
                Some(TailItem::Skipped { .. }) => {
                    let bridge = &self.shared.settings;
                    tracing::warn!(%bridge, "some events were not sent: the log had dropped them before Redis was back");
                }
                Some(TailItem::Deleted { .. } | TailItem::NewEpoch(_)) => {}
                None => self.tail = None,
            }
        }
    }
}

impl Shared {
    /// What others are to receive of this event.
    fn messages_of(&self, event: &Event) -> Vec<Message> {
        if event.private || self.mark.is_on(event) {
            return Vec::new();
        }
        let topics = event.topics.iter().map(Topic::as_str);
        let topics: Vec<_> = topics.filter(|topic| self.settings.covers(topic)).collect();
        let messages = self.settings.format.encode(event, &topics).into_iter();
        messages.map(|(channel, payload)| Message { channel, payload }).collect()
    }
}
