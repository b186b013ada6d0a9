//! Hubs with bridges, and an application that listens on their Redis.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use redis::{AsyncCommands, PushInfo, PushKind, aio::MultiplexedConnection};
use tidings::{
    Error, Event, Hub, IdempotencyKey, Invalid, NewEvent, Unavailable,
    log::{Entry, Tail, TailItem, cluster::Cluster},
};
use tidings_redis::bridge::{Bridge, BridgeFigures, BridgeSettings, HubAccess, NotTaken};
use tidings_testkit::{PATIENCE, RedisServer};
use tokio::{sync::mpsc, time::timeout};

/// Access to a hub, which a test may shut.
#[derive(Debug)]
pub(crate) struct LocalHub {
    hub: Hub,
    pub(crate) is_shut: AtomicBool,
    /// Publishes and loses the reply, once.
    pub(crate) is_forgetful: AtomicBool,
}

#[async_trait]
impl HubAccess for LocalHub {
    fn check(&self, event: NewEvent) -> Result<Event, Invalid> {
        self.hub.validator().event(event)
    }

    async fn publish(&self, events: Vec<Event>, key: IdempotencyKey) -> Result<(), NotTaken> {
        if self.is_shut.load(Ordering::Relaxed) {
            return Err(NotTaken::Now("the hub is shut".to_owned()));
        }
        let published = self.hub.publish_events(events, Some(key)).await;
        if self.is_forgetful.swap(false, Ordering::Relaxed) {
            return Err(NotTaken::Now("the answer was lost".to_owned()));
        }
        published.map(drop).map_err(|error| match error {
            Error::Full(_) => NotTaken::Never(error.to_string()),
            _ => NotTaken::Now(error.to_string()),
        })
    }

    async fn tail(&self) -> Result<Box<dyn Tail>, Unavailable> {
        self.hub.tail().await
    }

    fn cluster(&self) -> &dyn Cluster {
        self.hub.cluster()
    }
}

/// A hub, its bridge, and what its log receives.
pub(crate) struct Bridged {
    pub(crate) hub: Hub,
    pub(crate) hub_access: Arc<LocalHub>,
    pub(crate) bridge: Bridge,
    received: Box<dyn Tail>,
    unread: std::collections::VecDeque<Arc<Entry>>,
}

impl Bridged {
    /// A hub of its own with a bridge that is listening.
    pub(crate) async fn start(server: &RedisServer, parameters: &str) -> Self {
        let bridged = Self::of(Hub::in_memory().await, settings(server, parameters)).await;
        bridged.until("the bridge to listen", |figures| figures.is_listening).await;
        bridged
    }

    /// A bridge of this hub, which may not be listening yet.
    pub(crate) async fn of(hub: Hub, settings: BridgeSettings) -> Self {
        let received = hub.tail().await.unwrap();
        let (is_shut, is_forgetful) = (AtomicBool::new(false), AtomicBool::new(false));
        let hub_access = Arc::new(LocalHub { hub: hub.clone(), is_shut, is_forgetful });
        let bridge = Bridge::start(settings, Arc::clone(&hub_access) as Arc<dyn HubAccess>);
        Self { hub, hub_access, bridge, received, unread: std::collections::VecDeque::new() }
    }

    /// The next event in the log.
    pub(crate) async fn next(&mut self) -> Event {
        while self.unread.is_empty() {
            let item = timeout(PATIENCE, self.received.next(64 << 10)).await.expect("an event");
            if let Some(TailItem::Entries(entries)) = item {
                self.unread.extend(entries);
            }
        }
        self.unread.pop_front().expect("there is one").event.clone()
    }

    /// The data of the next events.
    pub(crate) async fn data(&mut self, count: usize) -> Vec<String> {
        let mut all = Vec::new();
        while all.len() < count {
            all.push(self.next().await.data);
        }
        all
    }

    pub(crate) async fn publish(&self, topic: &str, data: &str) {
        self.hub.publish(NewEvent::new(topic, data)).await.unwrap();
    }

    /// Waits until the bridge reports such a problem.
    pub(crate) async fn until_trouble(&self, is_right: impl Fn(&str) -> bool) {
        let waiting = async {
            while !self.bridge.trouble().is_some_and(|trouble| is_right(&trouble)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("the trouble is {:?}", self.bridge.trouble()));
    }

    /// Waits until the metrics meet a condition.
    pub(crate) async fn until(
        &self,
        what: &str,
        are_right: impl Fn(&BridgeFigures) -> bool,
    ) -> BridgeFigures {
        let waiting = async {
            loop {
                let figures = self.bridge.figures();
                if are_right(&figures) {
                    return figures;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("timed out waiting for {what}: {:?}", self.bridge.figures()))
    }
}

pub(crate) fn settings(server: &RedisServer, parameters: &str) -> BridgeSettings {
    format!("{}?{parameters}", server.url()).parse().unwrap()
}

/// An application independent of Tidings: it subscribes and publishes.
pub(crate) struct Application {
    connection: MultiplexedConnection,
    received: mpsc::UnboundedReceiver<PushInfo>,
}

impl Application {
    pub(crate) async fn start(server: &RedisServer, channels: &[&str]) -> Self {
        let client = redis::Client::open(format!("{}?protocol=resp3", server.url())).unwrap();
        let (receive, received) = mpsc::unbounded_channel();
        // The client's default limit is half a second, too little on a busy machine.
        let config = redis::AsyncConnectionConfig::new()
            .set_push_sender(receive)
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
        if !channels.is_empty() {
            connection.subscribe(channels).await.unwrap();
        }
        Self { connection, received }
    }

    /// Publishes, and returns how many connections received it.
    pub(crate) async fn publish(&mut self, channel: &str, payload: impl AsRef<[u8]>) -> usize {
        self.connection.publish(channel, payload.as_ref()).await.unwrap()
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> String {
        loop {
            let push =
                timeout(PATIENCE, self.received.recv()).await.expect("a message").expect("a connection");
            if push.kind == PushKind::Message {
                return redis::from_redis_value(push.data[1].clone()).unwrap();
            }
        }
    }

    pub(crate) async fn messages(&mut self, count: usize) -> Vec<String> {
        let mut all = Vec::new();
        while all.len() < count {
            all.push(self.next().await);
        }
        all
    }
}
