//! The real binary at its limits: no capacity, or no file descriptor, for one more connection.

#![cfg(target_os = "linux")]

use std::{fs, path::Path, process::Command};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidings_testkit::{Connection, EventStream, Hub, Item, binary};

/// The file descriptor limit of the hub in the test without descriptors.
const FILES: usize = 256;
const CLIENTS: usize = 2_000;
/// What Chromium and Firefox send.
const NATIVE: &str = "GET /stream?topic=chat\nAccept: text/event-stream\nCache-Control: no-cache";
/// A publisher whose body does not arrive: it gets an answer, and the hub reads its input for a
/// while.
const UNFINISHED: &str = "POST /topics/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n";
/// The ticks between two heartbeats that a busy loop would take: a second has a hundred.
const TICKS_OF_A_HEARTBEAT_MAX: u64 = 20;

/// A hub with this file descriptor limit. Another process writes the script: a child that is
/// started meanwhile would hold it open.
async fn hub_with_files(folder: &Path, args: &[&str]) -> Hub {
    let script = "printf '#!/bin/sh\nulimit -n %s\nexec \"%s\" \"$@\"\n' \"$1\" \"$2\" >hub; chmod +x hub";
    let mut write = Command::new("sh");
    write.args(["-euc", script, "sh", &FILES.to_string()]).arg(binary().unwrap()).current_dir(folder);
    assert!(write.status().unwrap().success());
    let mut hub = Hub::not_started([&["serve"], args].concat()).unwrap().with_binary(folder.join("hub"));
    hub.start_again().await.unwrap();
    hub
}

/// Requests a stream as a browser does. Either it begins, or the connection ends with a `retry`
/// time.
async fn subscribe(hub: &Hub) -> Result<Connection, String> {
    let mut connection = Connection::open(hub.address()).await.unwrap();
    connection.request(NATIVE, b"").await.unwrap();
    let head = connection.head().await.unwrap();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")), "{head}");
    if head.header("transfer-encoding") == Some("chunked") {
        return Ok(connection);
    }
    assert_eq!(head.header("connection"), Some("close"), "{head}");
    Err(String::from_utf8(connection.rest().await.unwrap()).unwrap())
}

/// The metric with this name.
async fn figure(hub: &Hub, name: &str) -> u64 {
    let text = hub.request("GET /metrics", b"").await.unwrap().text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
}

/// Clock ticks that the hub has computed, in and out of the kernel.
fn ticks(hub: &Hub) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", hub.pid().unwrap())).unwrap();
    let behind_name = stat.rsplit_once(')').unwrap().1;
    behind_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn a_hub_without_descriptors_sheds_answers_health_checks_and_recovers() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let hub = hub_with_files(folder.path(), &["--connections-max", "10000", "--heartbeat-secs", "1"]).await;
    let mut watched = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();

    let mut streams = Vec::new();
    let mut reported = 0;
    for _ in 0..CLIENTS {
        match subscribe(&hub).await {
            Ok(stream) => streams.push(stream),
            Err(body) => {
                assert!(body.contains("\nretry: ") && !body.contains("data:"), "{body}");
                reported += 1;
            }
        }
    }
    assert!((FILES / 2..FILES).contains(&streams.len()), "{} streams", streams.len());
    assert_eq!(streams.len() + reported, CLIENTS);

    // Idle connections arrive before the health check, and do not delay it.
    let mut silent = Vec::new();
    for _ in 0..10 {
        for _ in 0..30 {
            silent.push(Connection::open(hub.address()).await.unwrap());
        }
        assert_eq!(hub.request("GET /healthz", b"").await.unwrap().text(), "ok\n");
    }
    assert_eq!(figure(&hub, "tidings_accept_pauses_total").await, 0);

    // More connections than can be accepted at a time. The heartbeats of the hub itself are the
    // clock.
    let mut unfinished = Vec::new();
    for _ in 0..200 {
        let mut connection = Connection::open(hub.address()).await.unwrap();
        connection.send(UNFINISHED).await.unwrap();
        unfinished.push(connection);
    }
    let before = ticks(&hub);
    let mut heartbeats = 0;
    while heartbeats < 3 {
        heartbeats += u64::from(matches!(watched.next_item().await.unwrap(), Some(Item::Comment(_))));
    }
    let spent = ticks(&hub) - before;
    assert!(spent < heartbeats * TICKS_OF_A_HEARTBEAT_MAX, "{spent} ticks in {heartbeats} heartbeats");
    drop((silent, unfinished));

    // Half of the subscribers disconnect, and others take their capacity.
    let left = streams.len() / 2;
    streams.truncate(left);
    while streams.len() < left + 50 {
        streams.extend(subscribe(&hub).await);
    }
    hub.publish("chat", "to all subscribers").await.unwrap();
    for stream in &mut streams {
        while !String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap()).contains("to all subscribers")
        {
        }
    }
}

#[tokio::test]
async fn a_browser_beyond_the_connection_limit_is_asked_to_retry_and_does() {
    let hub = Hub::serve(&["--connections-max", "2", "--streams-max", "1"]).await.unwrap();
    let stream = subscribe(&hub).await.unwrap();
    let mut unfinished = Connection::open(hub.address()).await.unwrap();
    unfinished.send(UNFINISHED).await.unwrap();
    // The limit is reached when both are accepted; further connections are counted.
    while figure(&hub, "tidings_connections_refused_total{reason=\"full\"}").await == 0 {}

    let body = subscribe(&hub).await.unwrap_err();
    let millis = body.lines().find_map(|line| line.strip_prefix("retry: ")).unwrap();
    assert!((15_000..=45_000).contains(&millis.parse::<u64>().unwrap()), "{millis}");
    assert_eq!(hub.request("GET /healthz", b"").await.unwrap().status, 200);
    let refused = hub.request("GET /stream?topic=chat", b"").await.unwrap();
    assert_eq!((refused.status, refused.header("connection")), (503, Some("close")));
    assert!(refused.header("retry-after").is_some(), "{refused}");

    drop((stream, unfinished));
    while subscribe(&hub).await.is_err() {}
}
