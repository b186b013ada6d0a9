//! The cluster on a real Redis server.

mod support;

use std::{sync::Arc, time::Duration};

use tidings_log::{
    MemoryLimits,
    cluster::{Change, Cluster, ClusterError, Lease, Messages, Watch, conformance::Nodes},
};
use tidings_redis::RedisCluster;
use tidings_testkit::RedisServer;
use tokio::time::timeout;

use crate::support::{PATIENCE, settings, until};

/// A cluster that takes its server along.
#[derive(Debug)]
struct Owning(RedisCluster, #[expect(dead_code, reason = "it ends with this")] Arc<RedisServer>);

async fn join(server: &RedisServer) -> RedisCluster {
    RedisCluster::open(&settings(&server.url(), MemoryLimits::default())).await.unwrap()
}

async fn make() -> Nodes {
    let server = Arc::new(RedisServer::start().await.unwrap());
    let (one, other) = (join(&server).await, join(&server).await);
    Nodes { one: Arc::new(Owning(one, Arc::clone(&server))), other: Arc::new(Owning(other, server)) }
}

tidings_log::cluster_conformance!(conformance, make);

#[async_trait::async_trait]
impl Cluster for Owning {
    async fn acquire(&self, key: &str, time: Duration) -> Result<Option<Lease>, ClusterError> {
        self.0.acquire(key, time).await
    }

    async fn renew(&self, lease: &Lease, time: Duration) -> Result<bool, ClusterError> {
        self.0.renew(lease, time).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), ClusterError> {
        self.0.release(lease).await
    }

    async fn set(&self, key: &str, value: &[u8], time: Duration) -> Result<(), ClusterError> {
        self.0.set(key, value, time).await
    }

    async fn remove(&self, key: &str) -> Result<(), ClusterError> {
        self.0.remove(key).await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ClusterError> {
        self.0.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, ClusterError> {
        self.0.list(prefix).await
    }

    async fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>, ClusterError> {
        self.0.watch(prefix).await
    }

    async fn send(&self, channel: &str, message: &[u8]) -> Result<(), ClusterError> {
        self.0.send(channel, message).await
    }

    async fn listen(&self, channel: &str) -> Result<Box<dyn Messages>, ClusterError> {
        self.0.listen(channel).await
    }
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_costs_messages_but_no_changes() {
    let mut server = RedisServer::start_durable().await.unwrap();
    let (one, other) = (join(&server).await, join(&server).await);
    let mut watch = other.watch("p/").await.unwrap();
    let mut messages = other.listen("c").await.unwrap();
    one.set("p/1", b"before", LONG).await.unwrap();
    let lease = one.acquire("bridge", LONG).await.unwrap().unwrap();
    let before = Change::Set { key: "p/1".to_owned(), value: b"before".to_vec() };
    assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap(), Ok(vec![before]));

    server.kill().await.unwrap();
    until("nobody answers", async || one.get("p/1").await.is_err() && other.get("p/1").await.is_err()).await;
    assert!(one.listen("c").await.is_err());
    server.start_again().await.unwrap();
    until("everybody answers", async || one.get("p/1").await.is_ok() && other.get("p/1").await.is_ok()).await;

    assert_eq!(other.acquire("bridge", LONG).await, Ok(None), "the lease is held");
    assert_eq!(one.renew(&lease, LONG).await, Ok(true));
    one.set("p/1", b"after", LONG).await.unwrap();
    let after = Change::Set { key: "p/1".to_owned(), value: b"after".to_vec() };
    assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap(), Ok(vec![after]));
    one.send("c", b"heard").await.unwrap();
    assert_eq!(timeout(PATIENCE, messages.next()).await.unwrap(), Ok(b"heard".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_numbers_of_leases_grow_even_if_redis_forgets_all() {
    let server = RedisServer::start().await.unwrap();
    let node = join(&server).await;
    let mut last = 0;
    for _ in 0..3 {
        let lease = node.acquire("bridge", LONG).await.unwrap().expect("nobody has it");
        assert!(lease.fence > last);
        last = lease.fence;
        server.command(&["FLUSHALL"]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_many_keys_is_whole() {
    let server = RedisServer::start().await.unwrap();
    let node = join(&server).await;
    for number in 0..2_500 {
        node.set(&format!("p/{number:04}"), b"", LONG).await.unwrap();
    }
    node.set("q", b"", LONG).await.unwrap();
    let keys: Vec<_> = node.list("p/").await.unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!((keys.len(), keys.is_sorted()), (2_500, true));
}
