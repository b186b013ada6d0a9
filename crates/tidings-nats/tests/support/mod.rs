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

use tidings_log::{
    cluster::{self, conformance::Nodes},
    conformance::{self, Abilities, Subject, Wanted},
};
use tidings_nats::{Nats, NatsAddress, NatsSettings};
use tidings_testkit::NatsServer;

/// Time is the server's, and so is the deduplication window.
const ABILITIES: Abilities = Abilities { bounds: true, clock: false, keys: false };

/// A server that lasts as long as a test in this process uses it.
fn shared_server() -> Arc<NatsServer> {
    static SERVER: Mutex<Weak<NatsServer>> = Mutex::new(Weak::new());
    let mut shared = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = Arc::new(NatsServer::start().expect("nats-server starts"));
    *shared = Arc::downgrade(&server);
    server
}

/// The address of an unused log.
pub(crate) fn fresh_address(server: &NatsServer) -> NatsAddress {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Relaxed);
    format!("{}/log-{number}", server.url()).parse().expect("an address")
}

/// Connects to a log.
pub(crate) async fn connect(address: &NatsAddress, settings: NatsSettings) -> Nats {
    Nats::connect(address, settings).await.expect("the server can be reached")
}

/// Polls a condition until it is true, up to the limit of any test.
pub(crate) async fn eventually(what: &str, mut is_true: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !is_true().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("timed out waiting: {what}"));
}

/// Each check has a log or a cluster of its own on one shared server.
#[derive(Debug)]
pub(crate) struct Fresh {
    server: Arc<NatsServer>,
    /// How much of the log is kept in memory, in bytes.
    recent_bytes_max: usize,
}

impl Fresh {
    pub(crate) fn new() -> Self {
        Self { server: shared_server(), recent_bytes_max: NatsSettings::default().recent_bytes_max }
    }

    /// Everything has to be fetched from the stream.
    pub(crate) fn with_nothing_at_hand() -> Self {
        Self { recent_bytes_max: 0, ..Self::new() }
    }
}

impl conformance::Make for Fresh {
    async fn make(&self, wanted: Wanted) -> Subject {
        let settings = NatsSettings {
            // The server reserves what a stream may need, and there are many.
            bytes_max: wanted.bytes_max.unwrap_or(16 << 20),
            count_max: wanted.count_max,
            age_max: wanted.age_max,
            recent_bytes_max: self.recent_bytes_max,
            ..NatsSettings::default()
        };
        let log = connect(&fresh_address(&self.server), settings).await.log().await.expect("the log opens");
        Subject { log: Arc::new(log), abilities: ABILITIES }
    }
}

impl cluster::conformance::Make for Fresh {
    async fn make(&self) -> Nodes {
        let address = fresh_address(&self.server);
        let join = async || {
            let nats = connect(&address, NatsSettings::default()).await;
            Arc::new(nats.cluster().await.expect("the cluster opens"))
        };
        Nodes { one: join().await, other: join().await }
    }
}
