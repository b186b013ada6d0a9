//! The log and the cluster on a Redis Cluster of three nodes.
//!
//! Needs: redis-server.

mod support;

use tidings_log::{Log, MemoryLimits, cluster::Cluster};
use tidings_redis::RedisCluster;
use tidings_testkit::RedisNodes;

use crate::support::{Fresh, append, next_entries, open, settings, texts, until_health};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_keeps_its_promises_on_a_redis_cluster() {
    tidings_log_conformance::check_all(Fresh::<RedisNodes>::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_keeps_its_promises_on_a_redis_cluster() {
    tidings_log_conformance::cluster::check_all(Fresh::<RedisNodes>::default()).await;
}

/// Resharding moves the log, with everything in it, while hubs use it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_found_again_when_its_slot_has_moved() {
    let mut servers = RedisNodes::start().await.unwrap();
    let log = open(&servers.url()).await;
    let cluster = RedisCluster::open(&settings(&servers.url(), MemoryLimits::default())).await.unwrap();
    let (_, mut tail) = log.tail().await.unwrap();
    let mut said = Vec::new();
    for round in 0..3 {
        let text = round.to_string();
        append(&log, &text).await;
        assert_eq!(next_entries(&mut tail).await[0].event.data, text);
        said.push(text);
        servers.move_slot("{tidings}:state").await.unwrap();
        support::until("the log is there again", async || log.bounds().await.is_ok()).await;
        until_health(&log, true).await;
        assert_eq!(texts(&log).await, said);
        assert_eq!(log.bounds().await.unwrap().epochs.iter().count(), 1, "nothing was lost");
        support::until("the cluster answers", async || cluster.get("a").await.is_ok()).await;
    }
}
