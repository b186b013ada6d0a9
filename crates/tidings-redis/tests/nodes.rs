//! The log and the cluster on a Redis Cluster of three nodes.

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tidings_log::{
    Log, MemoryLimits,
    cluster::{Cluster, conformance::Nodes},
    conformance::{Abilities, Make, Subject, Wanted},
};
use tidings_redis::{RedisCluster, RedisLog};
use tidings_testkit::RedisNodes;
use tokio::sync::OnceCell;

use crate::support::{append, next_entries, open, settings, texts, until_health};

/// Logs of one cluster, which ends with the checks that asked for them. Their names put them on different nodes.
#[derive(Default)]
struct Cluster3 {
    servers: OnceCell<RedisNodes>,
    logs: AtomicUsize,
}

impl Make for Cluster3 {
    async fn make(&self, wanted: Wanted) -> Subject {
        let servers = self.servers.get_or_init(async || RedisNodes::start().await.unwrap()).await;
        let number = self.logs.fetch_add(1, Ordering::Relaxed);
        let settings = settings(&format!("{}?name=log-{number}", servers.url()), wanted.memory_limits());
        let log = RedisLog::open_with_clock(settings, wanted.clock).await.unwrap();
        Subject { log: Arc::new(log), abilities: Abilities::ALL }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_keeps_its_promises_on_a_redis_cluster() {
    tidings_log::conformance::check_all(Cluster3::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_keeps_its_promises_on_a_redis_cluster() {
    use tidings_log::cluster::conformance as checks;

    let servers = RedisNodes::start().await.unwrap();
    let names = AtomicUsize::new(0);
    let nodes = async || {
        let name = names.fetch_add(1, Ordering::Relaxed);
        let settings = settings(&format!("{}?name=cluster-{name}", servers.url()), MemoryLimits::default());
        let join = async || RedisCluster::open(&settings).await.unwrap();
        Nodes { one: Arc::new(join().await), other: Arc::new(join().await) }
    };
    checks::a_lease_has_one_holder_until_it_is_released(nodes().await).await;
    checks::a_lost_lease_takes_nothing_from_the_next_holder(nodes().await).await;
    checks::what_is_not_said_again_is_gone_when_its_time_is_up(nodes().await).await;
    checks::a_list_has_the_keys_of_its_prefix_in_order(nodes().await).await;
    checks::a_watch_begins_with_what_is_there_and_tells_what_changes(nodes().await).await;
    checks::a_message_reaches_all_who_listen_in_order(nodes().await).await;
}

/// Resharding moves the log under the feet of hubs, with everything in it.
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
