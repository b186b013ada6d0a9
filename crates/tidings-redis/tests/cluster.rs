//! The cluster on a real Redis server.
//!
//! Needs: redis-server.

mod support;

use std::{collections::BTreeMap, time::Duration};

use tidings_log::{
    MemoryLimits,
    cluster::{Change, Cluster},
};
use tidings_redis::RedisCluster;
use tidings_testkit::RedisServer;
use tokio::time::timeout;

use crate::support::{Fresh, PATIENCE, settings, until};

tidings_log_conformance::cluster_conformance!(conformance, Fresh::<RedisServer>::default());

async fn join(server: &RedisServer) -> RedisCluster {
    RedisCluster::open(&settings(&server.url(), MemoryLimits::default())).await.unwrap()
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
    until("no cluster answers", async || one.get("p/1").await.is_err() && other.get("p/1").await.is_err())
        .await;
    assert!(one.listen("c").await.is_err());
    server.start_again().await.unwrap();
    until("both clusters answer", async || one.get("p/1").await.is_ok() && other.get("p/1").await.is_ok())
        .await;

    assert_eq!(other.acquire("bridge", LONG).await, Ok(None), "the lease is held");
    assert_eq!(one.renew(&lease, LONG).await, Ok(true));
    one.set("p/1", b"after", LONG).await.unwrap();
    let after = Change::Set { key: "p/1".to_owned(), value: b"after".to_vec() };
    assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap(), Ok(vec![after]));
    one.send("c", b"received").await.unwrap();
    assert_eq!(timeout(PATIENCE, messages.next()).await.unwrap(), Ok(b"received".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lease_numbers_grow_even_if_redis_loses_all_data() {
    let server = RedisServer::start().await.unwrap();
    let node = join(&server).await;
    let mut last = 0;
    for _ in 0..3 {
        let lease = node.acquire("bridge", LONG).await.unwrap().expect("it is free");
        assert!(lease.fence > last);
        last = lease.fence;
        server.command(&["FLUSHALL"]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_many_keys_is_complete() {
    let server = RedisServer::start().await.unwrap();
    let node = join(&server).await;
    for number in 0..2_500 {
        node.set(&format!("p/{number:04}"), b"", LONG).await.unwrap();
    }
    node.set("q", b"", LONG).await.unwrap();
    let keys: Vec<_> = node.list("p/").await.unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!((keys.len(), keys.is_sorted()), (2_500, true));
}

/// What a watch has reported.
type Held = BTreeMap<String, Vec<u8>>;

/// A watch is notified which keys changed, and looks at these; changes that it was not notified of
/// it finds in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_reports_every_change_and_expiry_even_if_it_missed_some() {
    let server = RedisServer::start().await.unwrap();
    let (one, other) = (join(&server).await, join(&server).await);
    let key = |number: usize| format!("p/{number:04}");
    for number in 0..3_000 {
        one.set(&key(number), b"first", LONG).await.unwrap();
    }
    one.set("p/short", b"", Duration::from_secs(2)).await.unwrap();
    let mut watch = other.watch("p/").await.unwrap();
    let mut held = Held::new();
    let mut until = async |holds: &dyn Fn(&Held) -> bool| {
        while !holds(&held) {
            for change in timeout(PATIENCE, watch.next()).await.expect("a change").unwrap() {
                match change {
                    Change::Set { key, value } => drop(held.insert(key, value)),
                    Change::Gone { key } => assert!(held.remove(&key).is_some(), "{key} was never there"),
                }
            }
        }
    };
    until(&|held| held.len() == 3_001).await;
    one.set(&key(7), b"second", LONG).await.unwrap();
    until(&|held| held[&key(7)] == b"second").await;
    one.remove(&key(8)).await.unwrap();
    until(&|held| !held.contains_key(&key(8))).await;
    until(&|held| !held.contains_key("p/short")).await;
    // More at once than are remembered one by one.
    for number in 1_000..3_000 {
        one.set(&key(number), b"third", LONG).await.unwrap();
    }
    until(&|held| (1_000..3_000).all(|number| held[&key(number)] == b"third")).await;
    server.command(&["FLUSHALL"]).await.unwrap();
    // It is found without a notification of its own, through the next change.
    one.set("p/last", b"", LONG).await.unwrap();
    until(&|held| held.contains_key("p/last")).await;
}
