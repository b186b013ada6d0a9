//! The log and the cluster on a master that Sentinels monitor, and through failovers.
//!
//! Needs: redis-server, redis-sentinel.

mod support;

use tidings_log::{Log, MemoryLimits, TailItem, cluster::Cluster};
use tidings_redis::RedisCluster;
use tidings_testkit::RedisSentinels;

use crate::support::{Fresh, append, next, open, settings, texts, until_health};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_keeps_its_promises_behind_sentinels() {
    tidings_log_conformance::check_all(Fresh::<RedisSentinels>::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_keeps_its_promises_behind_sentinels() {
    tidings_log_conformance::cluster::check_all(Fresh::<RedisSentinels>::default()).await;
}

/// Every event that was acknowledged with `wait=1` is on the replica that takes over, so no epoch
/// ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_for_the_replica_survives_failovers() {
    let mut servers = RedisSentinels::start().await.unwrap();
    let url = format!("{}?wait=1", servers.url());
    let logs = [open(&url).await, open(&url).await];
    let cluster = RedisCluster::open(&settings(&url, MemoryLimits::default())).await.unwrap();
    let mut tails = Vec::new();
    for log in &logs {
        tails.push(log.tail().await.unwrap().1);
    }
    let mut said = Vec::new();
    for round in 0..5 {
        for log in &logs {
            let text = format!("{round}-{}", said.len());
            append(log, &text).await;
            said.push(text);
        }
        for tail in &mut tails {
            let mut received = 0;
            while received < 2 {
                match next(tail).await {
                    TailItem::Entries(entries) => received += entries.len(),
                    other => panic!("expected entries, got {other:?}"),
                }
            }
        }
        servers.fail_over().await.unwrap();
        for log in &logs {
            until_health(log, true).await;
            assert_eq!(texts(log).await, said);
            assert_eq!(log.bounds().await.unwrap().epochs.iter().count(), 1, "nothing was lost");
        }
        support::until("the cluster answers", async || cluster.get("a").await.is_ok()).await;
    }
}

/// The replica was cut off and has missed acknowledged events: that is reported.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_loses_the_end_begins_a_new_epoch() {
    let mut servers = RedisSentinels::start().await.unwrap();
    let log = open(&format!("{}?wait=1", servers.url())).await;
    let kept = append(&log, "kept").await;
    let (_, mut tail) = log.tail().await.unwrap();
    let url = servers.url();
    let careless = open(&url).await;
    servers.cut_replica_off().await.unwrap();
    let lost = append(&careless, "lost").await;
    assert!(matches!(next(&mut tail).await, TailItem::Entries(_)));
    servers.fail_over().await.unwrap();
    let start = loop {
        match next(&mut tail).await {
            TailItem::NewEpoch(start) => break start,
            TailItem::Deleted { .. } => {}
            other => panic!("expected a new epoch, got {other:?}"),
        }
    };
    assert_eq!(start.after, kept.position);
    assert_ne!(start.epoch, lost.epoch);
    for log in [&log, &careless] {
        until_health(log, true).await;
        assert_eq!(log.bounds().await.unwrap().epochs.current(), start);
        assert_eq!(texts(log).await, ["kept"]);
    }
}
