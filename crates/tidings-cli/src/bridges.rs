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
        vec![
            Figure::new("tidings_bridge_listening", figures.is_listening.into()),
            Figure::new("tidings_bridge_queue_bytes", figures.queue_bytes),
            Figure::new("tidings_bridge_received_total", figures.received),
            Figure::new("tidings_bridge_published_total", figures.published),
            Figure::new("tidings_bridge_undecodable_total", figures.undecodable),
            Figure::new("tidings_bridge_invalid_total", figures.invalid),
            Figure::new("tidings_bridge_too_large_total", figures.too_large),
            Figure::new("tidings_bridge_no_room_total", figures.no_room),
            Figure::new("tidings_bridge_dropped_total", figures.dropped),
            Figure::new("tidings_bridge_sent_total", figures.sent),
            Figure::new("tidings_bridge_unsent_total", figures.unsent),
            Figure::new("tidings_bridge_returned_total", figures.returned),
            Figure::new("tidings_bridge_connections_lost_total", figures.connections_lost),
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
