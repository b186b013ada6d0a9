//! Logs and clusters on a real nats-server.

// Each test program uses a part of this.
#![allow(dead_code)]

pub(crate) mod log;

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tidings_log::{Clock, Log, MemoryLimits};
use tidings_log_conformance::{Make, cluster};
use tidings_nats::{Nats, NatsAddress, NatsSettings};
use tidings_testkit::{NatsDomains, NatsServer};

/// A server that lasts as long as a test in this process uses it.
fn shared<T>(server: &Mutex<Weak<T>>, start: impl FnOnce() -> anyhow::Result<T>) -> Arc<T> {
    let mut shared = server.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = Arc::new(start().expect("nats-server starts"));
    *shared = Arc::downgrade(&server);
    server
}

static SERVER: Mutex<Weak<NatsServer>> = Mutex::new(Weak::new());
static DOMAINS: Mutex<Weak<NatsDomains>> = Mutex::new(Weak::new());

/// The address of an unused log.
pub(crate) fn fresh_address(server: &NatsServer) -> NatsAddress {
    fresh_address_with(server, "")
}

fn fresh_address_with(server: &NatsServer, parameters: &str) -> NatsAddress {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Relaxed);
    format!("{}/log-{number}{parameters}", server.url()).parse().expect("an address")
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

/// Where a log is.
#[derive(Debug)]
enum Location {
    Server(Arc<NatsServer>),
    /// On the server that is reached through a leaf node.
    Domain(Arc<NatsDomains>),
}

/// Each check has a log or a cluster of its own on one shared server.
#[derive(Debug)]
pub(crate) struct Fresh {
    location: Location,
    /// How much of the log is kept in memory, in bytes.
    recent_bytes_max: usize,
}

impl Fresh {
    pub(crate) fn new() -> Self {
        let location = Location::Server(shared(&SERVER, NatsServer::start));
        Self { location, recent_bytes_max: NatsSettings::default().recent_bytes_max }
    }

    /// Everything has to be fetched from the stream.
    pub(crate) fn with_nothing_at_hand() -> Self {
        Self { recent_bytes_max: 0, ..Self::new() }
    }

    /// Everything has to be fetched through a leaf node.
    pub(crate) fn through_a_leaf_node() -> Self {
        let location = Location::Domain(shared(&DOMAINS, NatsDomains::start));
        Self { location, recent_bytes_max: 0 }
    }

    fn address(&self) -> NatsAddress {
        match &self.location {
            Location::Server(server) => fresh_address(server),
            Location::Domain(domains) => fresh_address_with(&domains.leaf, "?domain=hub"),
        }
    }
}

impl Make for Fresh {
    /// Time is the server's, and so is the deduplication window.
    async fn make(&self, limits: MemoryLimits, clock: Option<Clock>) -> Option<Arc<dyn Log>> {
        if clock.is_some() || limits.keys_max != MemoryLimits::default().keys_max {
            return None;
        }
        let settings = NatsSettings {
            // The server reserves what a stream may need, and there are many.
            bytes_max: limits.bytes_max.min(16 << 20),
            count_max: limits.count_max,
            age_max: limits.age_max,
            recent_bytes_max: self.recent_bytes_max,
            ..NatsSettings::default()
        };
        let log = connect(&self.address(), settings).await.log().await.expect("the log opens");
        Some(Arc::new(log))
    }
}

impl cluster::Make for Fresh {
    async fn make(&self) -> cluster::Nodes {
        let address = self.address();
        let join = async || {
            let nats = connect(&address, NatsSettings::default()).await;
            Arc::new(nats.cluster().await.expect("the cluster opens"))
        };
        cluster::Nodes { one: join().await, other: join().await }
    }
}
