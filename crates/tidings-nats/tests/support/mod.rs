//! Logs and clusters on a real nats-server.

// Each test program uses a part of this.
#![allow(dead_code)]

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use tidings_log::{
    AppendError, Appended, Batch, Bounds, Cursor, Deleted, EventId, Filter, Grants, Log, Page, Position,
    Tail, Topic, Unavailable,
};
use tidings_nats::{Nats, NatsAddress, NatsSettings};
use tidings_testkit::NatsServer;

/// A server that lasts as long as somebody in this process uses it.
pub(crate) fn shared_server() -> Arc<NatsServer> {
    static SERVER: Mutex<Weak<NatsServer>> = Mutex::new(Weak::new());
    let mut shared = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = Arc::new(NatsServer::start().expect("nats-server starts"));
    *shared = Arc::downgrade(&server);
    server
}

/// The address of a log that nobody has used yet.
pub(crate) fn fresh_address(server: &NatsServer) -> NatsAddress {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Relaxed);
    format!("{}/log-{number}", server.url()).parse().expect("an address")
}

/// Connects to a log.
pub(crate) async fn connect(address: &NatsAddress, settings: NatsSettings) -> Nats {
    Nats::connect(address, settings).await.expect("the server can be reached")
}

/// Waits until something is true, which is looked at again and again, for as long as any test may take.
pub(crate) async fn eventually(what: &str, mut is_true: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !is_true().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// A log together with the server that it needs.
#[derive(Debug)]
pub(crate) struct WithServer<L> {
    pub(crate) log: L,
    pub(crate) server: Arc<NatsServer>,
}

#[async_trait]
impl<L: Log> Log for WithServer<L> {
    async fn append(&self, batch: Batch) -> Result<Appended, AppendError> {
        self.log.append(batch).await
    }

    async fn delete(&self, topic: &Topic) -> Result<Deleted, AppendError> {
        self.log.delete(topic).await
    }

    async fn read(&self, after: Position, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        self.log.read(after, filter, bytes_max).await
    }

    async fn last(&self, count: usize, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        self.log.last(count, filter, bytes_max).await
    }

    async fn resolve(&self, id: &EventId, grants: &Grants) -> Result<Option<Position>, Unavailable> {
        self.log.resolve(id, grants).await
    }

    async fn position_ago(&self, ago: Duration) -> Result<Position, Unavailable> {
        self.log.position_ago(ago).await
    }

    async fn bounds(&self) -> Result<Bounds, Unavailable> {
        self.log.bounds().await
    }

    async fn tail(&self) -> Result<(Cursor, Box<dyn Tail>), Unavailable> {
        self.log.tail().await
    }

    async fn health(&self) -> Result<(), Unavailable> {
        self.log.health().await
    }
}
