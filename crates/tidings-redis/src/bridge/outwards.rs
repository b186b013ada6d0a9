//! From the hub to Redis: what is to be published next.
//!
//! The bridge follows the tail of the log. So everything goes out that any hub of the cluster
//! publishes, through any API, in the order of the log. No queue is needed while Redis is
//! unavailable: the log has what was published in the meantime, for as long as it keeps it.
//!
//! What stays inside: what came in through the bridge, and private events. A subscriber on Redis
//! has no grants.

use std::{sync::Arc, time::Duration};

use tidings_log::{Event, Tail, TailItem, Topic};
use tidings_net::Spread;

use super::{inbox::Message, state::BridgeState};

/// Bytes of the log that are read before the messages found are sent.
const PAGE_BYTES: usize = 256 << 10;
/// How long to wait before a log that could not be followed is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// The end of the log, followed from the moment at which this process took over the bridge.
pub(super) struct Outwards {
    shared: Arc<BridgeState>,
    tail: Option<Box<dyn Tail>>,
}

impl Outwards {
    /// Follows the log from now on, if the bridge goes both ways.
    pub(super) async fn start(shared: &Arc<BridgeState>) -> Self {
        let tail = if shared.settings.both_ways { shared.hub.tail().await.ok() } else { None };
        Self { shared: Arc::clone(shared), tail }
    }

    /// The next messages to send, at least one. Waits until there is one; forever if the bridge
    /// goes one way. Cancel safe.
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
                    tracing::warn!(%bridge, "some events were not sent: they expired from the log while Redis was unavailable");
                }
                Some(TailItem::Deleted { .. } | TailItem::NewEpoch(_)) => {}
                None => self.tail = None,
            }
        }
    }
}

impl BridgeState {
    /// The messages for other subscribers that this event produces.
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
