//! `tidings serve --bridge`: real hubs, a real Redis, real connections.

use std::time::Duration;

use tidings_testkit::{EventStream, Hub, PATIENCE, RedisServer};
use tokio::time::{sleep, timeout};

const LISTENS: &str = "the bridge is listening";

async fn bridged(server: &RedisServer, parameters: &str, more: &[&str]) -> Hub {
    let bridge = format!("{}?{parameters}", server.url());
    let mut hub = Hub::serve(&[&["--stream", "chat", "--bridge", &bridge], more].concat()).await.unwrap();
    hub.printed(LISTENS).await.unwrap();
    hub
}

async fn publish(server: &RedisServer, message: &str) {
    server.command(&["PUBLISH", "chat", message]).await.unwrap();
}

/// Waits until `/readyz` is answered with this status, and returns the body.
async fn until_ready(hub: &Hub, status: u16) -> String {
    let asking = async {
        loop {
            let answer = hub.request("GET /readyz", b"").await.unwrap();
            if answer.status == status {
                return answer.text();
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("/readyz never was {status}"))
}

#[tokio::test]
async fn a_thousand_browsers_receive_a_channel_in_one_order_over_one_connection() {
    const STREAMS: usize = 1_000;
    let server = RedisServer::start().await.unwrap();
    let hub = bridged(&server, "channels=chat", &[]).await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(EventStream::open(hub.address(), "/stream").await.unwrap());
    }
    for round in 0..10 {
        let messages = [0, 1, 2].map(|who| format!("{round} {who}"));
        let [one, two, three] = &messages;
        tokio::join!(publish(&server, one), publish(&server, two), publish(&server, three));
    }
    let first = streams[0].messages(30).await.unwrap();
    let mut all: Vec<_> = (0..30).map(|number| format!("{} {}", number / 3, number % 3)).collect();
    let mut sorted = first.clone();
    all.sort();
    sorted.sort();
    assert_eq!(sorted, all, "the first frame is the first message, and none is missing or duplicated");
    for stream in &mut streams[1..] {
        assert_eq!(stream.messages(30).await.unwrap(), first);
    }
    let subscribers = server.command(&["PUBSUB", "NUMSUB", "chat"]).await.unwrap();
    assert_eq!(subscribers, "chat\n1", "one connection for all subscribers");
}

#[tokio::test]
async fn a_bridge_reconnects_to_a_restarted_redis_and_is_not_ready_meanwhile() {
    let mut server = RedisServer::start().await.unwrap();
    let mut hub = bridged(&server, "channels=chat", &[]).await;
    let mut stream = EventStream::open(hub.address(), "/stream").await.unwrap();
    until_ready(&hub, 200).await;
    server.kill().await.unwrap();
    let reported = until_ready(&hub, 503).await;
    assert!(reported.contains("bridge 1") && !reported.contains(&server.address().to_string()), "{reported}");
    // Everything but the bridge works.
    hub.publish("chat", "by HTTP").await.unwrap();
    server.start_again().await.unwrap();
    until_ready(&hub, 200).await;
    publish(&server, "by Redis").await;
    assert_eq!(stream.messages(2).await.unwrap(), ["by HTTP", "by Redis"]);
    hub.printed("the bridge is listening again; messages published in the meantime are lost").await.unwrap();
    let figures = hub.request("GET /metrics", b"").await.unwrap().text();
    for line in [
        "tidings_bridge_connections_lost_total{bridge=\"1\"} 1",
        "tidings_bridge_published_total{bridge=\"1\"} 1",
        "tidings_bridge_listening{bridge=\"1\"} 1",
    ] {
        assert!(figures.lines().any(|found| found == line), "{line} in {figures}");
    }
}

#[tokio::test]
async fn one_hub_of_a_cluster_bridges_and_another_takes_over_when_it_is_killed() {
    let server = RedisServer::start().await.unwrap();
    let store = server.url();
    let shared = ["--store", store.as_str()];
    let mut first = bridged(&server, "channels=chat&both_ways=true", &shared).await;
    let bridge = format!("{}?channels=chat&both_ways=true", server.url());
    let arguments = ["--stream", "chat", "--bridge", &bridge, "--store", &store];
    let mut second = Hub::serve(&arguments).await.unwrap();
    second.printed("this one is on standby").await.unwrap();
    until_ready(&second, 200).await;

    let mut stream = EventStream::open(second.address(), "/stream").await.unwrap();
    publish(&server, "from outside").await;
    // Only the arrival of a message through Redis shows that it precedes the next one.
    assert_eq!(stream.messages(1).await.unwrap(), ["from outside"]);
    second.publish("chat", "from the second").await.unwrap();
    first.publish("chat", "from the first").await.unwrap();
    assert_eq!(stream.messages(2).await.unwrap(), ["from the second", "from the first"]);

    first.kill().await.unwrap();
    second.printed(LISTENS).await.unwrap();
    publish(&server, "taken over").await;
    assert_eq!(stream.messages(1).await.unwrap(), ["taken over"]);
    // A hub that stops hands its bridge over at once.
    first.start_again().await.unwrap();
    first.printed("this one is on standby").await.unwrap();
    let mut stream = EventStream::open(first.address(), "/stream").await.unwrap();
    second.ask_to_stop().unwrap();
    first.printed(LISTENS).await.unwrap();
    publish(&server, "handed over").await;
    assert_eq!(stream.messages(1).await.unwrap(), ["handed over"]);
    second.stopped().await.unwrap();
}

#[tokio::test]
async fn bridges_can_be_set_in_the_file_and_in_the_environment() {
    let server = RedisServer::start().await.unwrap();
    let urls = format!("{0}?channels=chat,news {0}?channels=other&format=flask-sse", server.url());
    let mut hub = Hub::not_started(["serve"]).unwrap().with_environment("TIDINGS_BRIDGE", &urls);
    hub.start_again().await.unwrap();
    until_ready(&hub, 200).await;
    let mut stream = EventStream::open(hub.address(), "/stream?topic=news&topic=other").await.unwrap();
    server.command(&["PUBLISH", "news", "raw"]).await.unwrap();
    assert_eq!(stream.messages(1).await.unwrap(), ["raw"]);
    server.command(&["PUBLISH", "other", "{\"data\":[1]}"]).await.unwrap();
    assert_eq!(stream.messages(1).await.unwrap(), ["[1]"]);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidings.toml");
    std::fs::write(&file, format!("bridge = [\"{}?channels=chat\"]\n", server.url())).unwrap();
    let mut hub = Hub::serve(&["--config", file.to_str().unwrap()]).await.unwrap();
    hub.printed(LISTENS).await.unwrap();
}

#[tokio::test]
async fn undecodable_messages_are_counted_and_logged_once_and_block_none() {
    let server = RedisServer::start().await.unwrap();
    let hub = bridged(&server, "channels=chat&format=flask-sse", &[]).await;
    let mut stream = EventStream::open(hub.address(), "/stream").await.unwrap();
    for message in ["nonsense", "{\"data\":1,\"id\":\"a\\nb\"}", "nonsense", "{\"data\":\"received\"}"] {
        publish(&server, message).await;
    }
    assert_eq!(stream.messages(1).await.unwrap(), ["received"]);
    let figures = hub.request("GET /metrics", b"").await.unwrap().text();
    assert!(figures.contains("tidings_bridge_undecodable_total{bridge=\"1\"} 2"), "{figures}");
    assert!(figures.contains("tidings_bridge_invalid_total{bridge=\"1\"} 1"), "{figures}");
    let reported = hub.output().iter().filter(|line| line.contains("messages were refused")).count();
    assert_eq!(reported, 1);
}

#[tokio::test]
async fn an_upgrade_hands_the_bridge_over_with_the_socket() {
    let server = RedisServer::start().await.unwrap();
    let store = server.url();
    let mut hub = bridged(&server, "channels=chat", &["--store", &store, "--drain-secs", "60"]).await;
    hub.upgrade().await.unwrap();
    let mut output = hub.watch_output().unwrap();
    let listens = |lines: &Vec<String>| lines.iter().filter(|line| line.contains(LISTENS)).count() == 2;
    timeout(PATIENCE, output.wait_for(listens)).await.expect("the new process to listen").unwrap();
    let mut stream = EventStream::open(hub.address(), "/stream").await.unwrap();
    publish(&server, "after the upgrade").await;
    assert_eq!(stream.messages(1).await.unwrap(), ["after the upgrade"]);
    assert_eq!(server.command(&["PUBSUB", "NUMSUB", "chat"]).await.unwrap(), "chat\n1");
}
