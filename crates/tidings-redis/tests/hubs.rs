//! Three real hubs on one Redis: publishers at all of them, subscribers that fail over between
//! them, while Redis or the hubs go down and come back.
//!
//! `TIDINGS_OUTAGES=20` makes it long. The hubs are the built binary: `cargo build -p tidings-cli`.
//!
//! Needs: redis-server, redis-sentinel.

use tidings_testkit::{
    Hub, RedisSentinels, RedisServer,
    failover::{Losses, outages, run_failover},
};

const HUBS: usize = 3;
const OUTAGES: u64 = 3;

/// Runs hubs on the store of this URL, through outages that may use them.
async fn survive(
    store: &str,
    losses: Losses,
    mut outage: impl AsyncFnMut(&mut [Hub], u64) -> anyhow::Result<()>,
) {
    let mut hubs = Vec::new();
    for _ in 0..HUBS {
        hubs.push(Hub::serve(&["--store", store]).await.unwrap());
    }
    let addresses: Vec<_> = hubs.iter().map(Hub::address).collect();
    let outcome =
        run_failover(&addresses, outages(OUTAGES), losses, async |round, _| outage(&mut hubs, round).await);
    let outcome = outcome.await.unwrap();
    println!("{outcome:?}");
    for hub in &mut hubs {
        assert!(hub.stop().await.unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_a_durable_redis_is_stopped_and_started() {
    let mut server = RedisServer::start_durable().await.unwrap();
    survive(&server.url(), Losses::None, async |_, round| {
        if round % 2 == 0 {
            server.stop().await?;
        } else {
            server.kill().await?;
        }
        server.start_again().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_loses_all_data_is_reported_to_every_subscriber() {
    let mut server = RedisServer::start().await.unwrap();
    survive(&server.url(), Losses::Certain, async |_, round| {
        if round % 2 == 0 {
            server.kill().await?;
            server.start_again().await
        } else {
            server.command(&["FLUSHALL"]).await.map(drop)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_hubs_are_killed() {
    let server = RedisServer::start_durable().await.unwrap();
    survive(&server.url(), Losses::None, async |hubs, round| {
        let hub = &mut hubs[usize::try_from(round)? % HUBS];
        hub.kill().await?;
        hub.start_again().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_through_failovers_or_a_gap_is_reported() {
    let mut servers = RedisSentinels::start().await.unwrap();
    // Received events that the replica did not have may be lost with the master, although no
    // acknowledged event is.
    let store = format!("{}?wait=1", servers.url());
    survive(&store, Losses::Possible, async |_, _| servers.fail_over().await).await;
}
