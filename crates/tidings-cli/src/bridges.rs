//! The bridges of a hub. They connect `tidings-redis`, which does not depend on the hub, with
//! `tidings-server`, which does not depend on Redis.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use tidings::{
    Error, Event, Hub, IdempotencyKey, Invalid, NewEvent, Unavailable,
    log::{Tail, cluster::Cluster},
};
use tidings_net::InvalidUrl;
pub(crate) use tidings_redis::bridge::BridgeSettings;
use tidings_redis::bridge::{Bridge, HubAccess, NotTaken};
use tidings_server::{Component, Figure};

/// Parses the URL of a bridge. Errors continue after the URL.
pub(crate) fn parse(url: &str) -> Result<BridgeSettings, String> {
    url.parse().map_err(|error: InvalidUrl| format!("is not a bridge: {error}"))
}

/// Bridges that run until this value is dropped.
pub(crate) struct Bridges(Vec<Arc<Numbered>>);

impl Bridges {
    /// Starts a bridge for each of these settings.
    pub(crate) fn start(settings: &[BridgeSettings], hub: &Hub) -> Self {
        let bridges = settings.iter().enumerate().map(|(index, settings)| {
            let bridge = Bridge::start(settings.clone(), Arc::new(LocalHub(hub.clone())));
            Arc::new(Numbered { number: index + 1, bridge })
        });
        Self(bridges.collect())
    }

    /// The bridges as components of the server.
    pub(crate) fn components(&self) -> Vec<Arc<dyn Component>> {
        self.0.iter().map(|bridge| Arc::clone(bridge) as Arc<dyn Component>).collect()
    }

    /// Stops all of them, so that other hubs can take over.
    pub(crate) async fn stop(&self) {
        join_all(self.0.iter().map(|numbered| numbered.bridge.stop())).await;
    }
}

/// A bridge, identified by its index in the settings: readers of metrics need not know where a
/// Redis is.
#[derive(Debug)]
struct Numbered {
    number: usize,
    bridge: Bridge,
}

impl Component for Numbered {
    fn kind(&self) -> &'static str {
        "bridge"
    }

    fn name(&self) -> String {
        self.number.to_string()
    }

    fn trouble(&self) -> Option<String> {
        self.bridge.trouble().map(|_| "it has no connection; the log has the reason".to_owned())
    }

    fn figures(&self) -> Vec<Figure> {
        let figures = self.bridge.figures();
        let (counter, gauge) = (Figure::counter, Figure::gauge);
        vec![
            gauge("bridge_listening", "1 while this process is subscribed", figures.is_listening.into()),
            gauge("bridge_queue_bytes", "Bytes of messages that are queued for the hub", figures.queue_bytes),
            counter("bridge_received", "Messages received", figures.received),
            counter("bridge_published", "Events published", figures.published),
            counter("bridge_undecodable", "Messages that could not be decoded", figures.undecodable),
            counter("bridge_invalid", "Messages rejected by the validator", figures.invalid),
            counter("bridge_too_large", "Messages that were too large", figures.too_large),
            counter("bridge_no_room", "Messages rejected because the log was full", figures.no_room),
            counter("bridge_dropped", "Messages dropped because the queue was full", figures.dropped),
            counter("bridge_sent", "Messages sent", figures.sent),
            counter("bridge_unsent", "Messages that may not have been sent", figures.unsent),
            counter(
                "bridge_returned",
                "Messages of this bridge that it received back and ignored",
                figures.returned,
            ),
            counter("bridge_connections_lost", "Connections lost", figures.connections_lost),
        ]
    }
}

/// The access of a bridge to the hub: the validator and the back-pressure of the hub apply, as to
/// every publisher.
#[derive(Debug)]
struct LocalHub(Hub);

#[async_trait]
impl HubAccess for LocalHub {
    fn check(&self, event: NewEvent) -> Result<Event, Invalid> {
        self.0.validator().event(event)
    }

    async fn publish(&self, events: Vec<Event>, key: IdempotencyKey) -> Result<(), NotTaken> {
        match self.0.publish_events(events, Some(key)).await {
            Ok(_) => Ok(()),
            Err(error @ (Error::Full(_) | Error::Invalid(_))) => Err(NotTaken::Never(error.to_string())),
            Err(error) => Err(NotTaken::Now(error.to_string())),
        }
    }

    async fn tail(&self) -> Result<Box<dyn Tail>, Unavailable> {
        self.0.tail().await
    }

    fn cluster(&self) -> &dyn Cluster {
        self.0.cluster()
    }
}
