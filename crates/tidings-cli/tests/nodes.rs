//! Several hubs on one shared store.
//!
//! `TIDINGS_OUTAGES=20` runs it longer.
//!
//! Needs: redis-server, nats-server.

#![cfg(unix)]

use std::time::Duration;

use futures_util::future::join_all;
use tidings_testkit::{
    EventStream, Hub, NatsNodes, NatsServer, PATIENCE, RedisServer,
    failover::{Losses, outages, run_failover},
};
use tokio::time::{sleep, timeout};

const HUBS: usize = 3;
const OUTAGES: u64 = 4;

async fn serve(store: &str) -> Hub {
    Hub::serve(&["--store", store]).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_fail_over_through_nats_outages_and_miss_nothing() {
    let mut server = NatsServer::start().unwrap();
    let store = format!("{}/failover", server.url());
    let mut hubs = Vec::new();
    for _ in 0..HUBS {
        hubs.push(serve(&store).await);
    }
    let addresses: Vec<_> = hubs.iter().map(Hub::address).collect();
    let outcome = run_failover(&addresses, outages(OUTAGES), Losses::None, async |round, load| {
        if round % 2 == 0 {
            server.stop()?;
        } else {
            server.kill()?;
        }
        load.is_refused(HUBS).await?;
        server.start_again()
    });
    let outcome = outcome.await.unwrap();
    println!("{outcome:?}");
    for mut hub in hubs {
        assert!(hub.stop().await.unwrap().success());
    }
}

/// The pause after a refusal, so that the requests do not take the processor from an election.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Publishes with a key until it is acknowledged.
async fn publish_at_last(hub: &Hub, data: &str) {
    let head = format!("POST /topics/chat\nIdempotency-Key: {data}");
    let mut last = String::new();
    let publishing = async {
        loop {
            let reply = hub.request(&head, data.as_bytes()).await.unwrap();
            if reply.status == 200 {
                break;
            }
            last = format!("{} {}", reply.status, reply.text());
            assert_eq!(reply.status, 503, "{last}");
            sleep(REFUSED_PAUSE).await;
        }
    };
    let outcome = timeout(PATIENCE, publishing).await;
    outcome.unwrap_or_else(|_| panic!("{data} was never accepted: {last}\n{}", hub.output().join("\n")));
}

/// A deployment starts all its hubs at once, and each finds no stream yet: the servers leave
/// requests to create what is being created without an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hubs_that_start_together_on_an_empty_cluster_share_one_log() {
    let nodes = NatsNodes::start().unwrap();
    for log in 0..3 {
        let store = format!("{}/together-{log}?replicas=3", nodes.url());
        let starting = (0..HUBS).map(|_| serve(&store));
        let hubs = join_all(starting).await;
        let mut stream = EventStream::open(hubs[0].address(), "/stream?topic=chat").await.unwrap();
        for hub in &hubs {
            publish_at_last(hub, &format!("from-{}", hub.address())).await;
        }
        let expected: Vec<_> = hubs.iter().map(|hub| format!("from-{}", hub.address())).collect();
        assert_eq!(stream.messages(HUBS).await.unwrap(), expected);
    }
}

/// Three servers hold the log, and any one may be down, including the leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hubs_continue_when_the_leader_of_their_log_is_killed() {
    let mut nodes = NatsNodes::start().unwrap();
    let store = format!("{}/led?replicas=3", nodes.url());
    let hubs = [serve(&store).await, serve(&store).await];
    let mut streams = Vec::new();
    for hub in &hubs {
        streams.push(EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap());
    }
    for round in 0..2 {
        publish_at_last(&hubs[0], &format!("before-{round}")).await;
        nodes.is_whole("led").unwrap();
        let leader = nodes.leader_of("led").unwrap();
        nodes.node(leader).kill().unwrap();
        publish_at_last(&hubs[1], &format!("without-{round}")).await;
        nodes.node(leader).start_again().unwrap();
        nodes.is_whole("led").unwrap();
    }
    for stream in &mut streams {
        assert_eq!(stream.messages(4).await.unwrap(), ["before-0", "without-0", "before-1", "without-1"]);
    }
}

/// The same under load. A gap may be reported, since a new leader may know less than the old one.
///
/// nats-server 2.9.10, as packaged by Debian, stores an event twice on one node and once on the
/// others if its leader is killed often enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_fail_over_on_a_nats_cluster_without_unreported_loss() {
    if !NatsServer::is_current() {
        println!(
            "skipped: it takes a current nats-server, named by TIDINGS_NATS_SERVER (tests/setup builds one)"
        );
        return;
    }
    let mut nodes = NatsNodes::start().unwrap();
    let store = format!("{}/three?replicas=3", nodes.url());
    let mut hubs = Vec::new();
    for _ in 0..HUBS {
        hubs.push(serve(&store).await);
    }
    let addresses: Vec<_> = hubs.iter().map(Hub::address).collect();
    let outcome = run_failover(&addresses, outages(OUTAGES) / 2, Losses::Possible, async |round, _| {
        nodes.is_whole("three")?;
        let leader = nodes.leader_of("three")?;
        if round % 2 == 0 {
            nodes.node(leader).kill()?;
            nodes.leader_of("three")?;
            nodes.node(leader).start_again()
        } else {
            let other = (leader + 1) % nodes.count();
            nodes.node(other).stop()?;
            nodes.node(other).start_again()
        }
    });
    let outcome = outcome.await.unwrap();
    println!("{outcome:?}");
    for mut hub in hubs {
        assert!(hub.stop().await.unwrap().success());
    }
}

#[tokio::test]
async fn a_restarted_hub_on_nats_resumes_where_the_others_are() {
    let server = NatsServer::start().unwrap();
    let store = format!("{}/anew", server.url());
    let (mut one, other) = (serve(&store).await, serve(&store).await);
    let mut stream = EventStream::open(one.address(), "/stream?topic=chat").await.unwrap();
    one.publish("chat", "received").await.unwrap();
    stream.messages(1).await.unwrap();
    let id = stream.last_event_id().to_owned();
    one.kill().await.unwrap();
    other.publish("chat", "missed").await.unwrap();
    one.start_again().await.unwrap();
    for hub in [&one, &other] {
        let mut resumed = EventStream::resume(hub.address(), "/stream?topic=chat", &id).await.unwrap();
        assert_eq!(resumed.messages(1).await.unwrap(), ["missed"]);
    }
    let subscribers = one.request("GET /readyz", b"").await.unwrap();
    assert_eq!(subscribers.status, 200);
}

#[tokio::test]
async fn a_topic_deleted_at_one_hub_is_deleted_at_all() {
    let server = NatsServer::start().unwrap();
    let store = format!("{}/deleted", server.url());
    let (one, other) = (serve(&store).await, serve(&store).await);
    let mut live = EventStream::open(one.address(), "/stream?topic=news").await.unwrap();
    one.publish("chat", "gone").await.unwrap();
    one.publish("news", "kept").await.unwrap();
    assert_eq!(other.request("DELETE /topics/chat", b"").await.unwrap().status, 204);
    other.publish("news", "after").await.unwrap();
    assert_eq!(live.messages(2).await.unwrap(), ["kept", "after"]);
    for hub in [&one, &other] {
        let path = "/stream?topic=chat&topic=news&since=earliest";
        let mut stream = EventStream::open(hub.address(), path).await.unwrap();
        assert_eq!(stream.messages(2).await.unwrap(), ["kept", "after"]);
    }
}

#[tokio::test]
async fn a_hub_that_cannot_reach_its_store_does_not_start() {
    let mut server = NatsServer::start().unwrap();
    let store = format!("{}/away", server.url());
    server.stop().unwrap();
    let refused = Hub::serve(&["--store", &store]).await.unwrap_err().to_string();
    assert!(refused.contains("--store: cannot open nats://127.0.0.1"), "{refused}");
}

#[tokio::test]
async fn readiness_follows_the_store_and_subscribers_stay() {
    let mut server = NatsServer::start().unwrap();
    let hub = serve(&format!("{}/ready", server.url())).await;
    let ready = async || hub.request("GET /readyz", b"").await.unwrap().status;
    let mut stream = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
    assert_eq!(ready().await, 200);
    server.stop().unwrap();
    while ready().await == 200 {}
    let refused = hub.request("POST /topics/chat", b"never").await.unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    server.start_again().unwrap();
    while ready().await != 200 {}
    hub.publish("chat", "after").await.unwrap();
    assert_eq!(stream.messages(1).await.unwrap(), ["after"], "the stream stayed open");
}

#[tokio::test]
async fn a_nats_that_comes_back_without_jetstream_is_named_until_it_has_it() {
    let mut server = NatsServer::start().unwrap();
    let mut hub = serve(&format!("{}/without", server.url())).await;
    let ready = async |hub: &Hub| hub.request("GET /readyz", b"").await.unwrap().status;
    server.stop().unwrap();
    server.set_jetstream(false);
    server.start_again().unwrap();
    hub.printed("JetStream is not enabled on this NATS server").await.unwrap();
    assert_eq!(ready(&hub).await, 503);
    server.stop().unwrap();
    server.set_jetstream(true);
    server.start_again().unwrap();
    while ready(&hub).await != 200 {}
}

#[tokio::test]
async fn a_redis_that_may_evict_events_is_refused_with_the_setting_to_change() {
    let server = RedisServer::start_with(&["maxmemory-policy allkeys-lru"]).await.unwrap();
    let refused = Hub::serve(&["--store", &server.url()]).await.unwrap_err().to_string();
    assert!(
        refused.contains("--store: ") && refused.contains("set maxmemory-policy to noeviction"),
        "{refused}"
    );
    server.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await.unwrap();
    serve(&server.url()).await.publish("chat", "hello").await.unwrap();
}
