//! What every cluster promises, on a real nats-server: two nodes with a connection each.

mod support;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tidings_log::cluster::{Cluster, ClusterError, Lease, Messages, Watch, conformance::Nodes};
use tidings_nats::{NatsCluster, NatsSettings};
use tidings_testkit::NatsServer;

use support::{connect, fresh_address, shared_server};

/// A node together with the server that it needs.
struct WithServer {
    cluster: NatsCluster,
    _server: Arc<NatsServer>,
}

impl fmt::Debug for WithServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cluster.fmt(f)
    }
}

#[async_trait]
impl Cluster for WithServer {
    async fn acquire(&self, key: &str, time: Duration) -> Result<Option<Lease>, ClusterError> {
        self.cluster.acquire(key, time).await
    }
    async fn renew(&self, lease: &Lease, time: Duration) -> Result<bool, ClusterError> {
        self.cluster.renew(lease, time).await
    }
    async fn release(&self, lease: &Lease) -> Result<(), ClusterError> {
        self.cluster.release(lease).await
    }
    async fn set(&self, key: &str, value: &[u8], time: Duration) -> Result<(), ClusterError> {
        self.cluster.set(key, value, time).await
    }
    async fn remove(&self, key: &str) -> Result<(), ClusterError> {
        self.cluster.remove(key).await
    }
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ClusterError> {
        self.cluster.get(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, ClusterError> {
        self.cluster.list(prefix).await
    }
    async fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>, ClusterError> {
        self.cluster.watch(prefix).await
    }
    async fn send(&self, channel: &str, message: &[u8]) -> Result<(), ClusterError> {
        self.cluster.send(channel, message).await
    }
    async fn listen(&self, channel: &str) -> Result<Box<dyn Messages>, ClusterError> {
        self.cluster.listen(channel).await
    }
}

async fn make() -> Nodes {
    let server = shared_server();
    let address = fresh_address(&server);
    let node = async || {
        let cluster =
            connect(&address, NatsSettings::default()).await.cluster().await.expect("the cluster opens");
        let with_server: Arc<dyn Cluster> = Arc::new(WithServer { cluster, _server: Arc::clone(&server) });
        with_server
    };
    Nodes { one: node().await, other: node().await }
}

tidings_log::cluster_conformance!(nats, make);
