//! Ephemeral events beside stored ones, at three hubs on one store.
//!
//! `TIDINGS_EPHEMERAL=1000000` makes it long: a tenth as many events are stored.

#![cfg(target_os = "linux")]

use std::{env, fs, net::SocketAddr};

use tidings_testkit::{Connection, EventStream, Hub, NatsServer, PATIENCE, RedisServer};
use tokio::{task::JoinSet, time::timeout};

const HUBS: usize = 3;
/// Streams with one matcher are sent straight from their feed, those with several are merged.
const STREAMS: [&str; 2] = ["/stream?topic=chat", "/stream?topic=chat&topic=news&pattern=/a/:id"];
/// Events of one request.
const BATCH: usize = 100;
/// Memory that a hub may gain while it delivers ephemeral events: its queues and feeds, and what
/// the allocator keeps of them.
const GAIN_BYTES_MAX: u64 = 32 << 20;

fn ephemeral_count() -> usize {
    env::var("TIDINGS_EPHEMERAL").ok().map_or(30_000, |text| text.parse().expect("a number"))
}

/// What one subscriber received: the stored events in their order, and how many ephemeral ones.
#[derive(Debug, PartialEq, Eq)]
struct Received {
    stored: Vec<String>,
    ephemeral: usize,
}

/// Reads until every hub has said that it published everything. Ephemeral events come at most once
/// and in the order of their publisher, each with the id of the stored event before it.
async fn receive(address: SocketAddr, stream: &str, may_be_ephemeral: bool) -> Received {
    let mut events = EventStream::open(address, stream).await.unwrap();
    let mut received = Received { stored: Vec::new(), ephemeral: 0 };
    let (mut ends, mut last_id, mut last_numbers) = (0, None, [None; HUBS]);
    while ends < HUBS {
        let event = events.next().await.unwrap();
        if event.event_type != "typing" {
            assert_eq!(event.event_type, "message", "a notice: {event:?}");
            ends += usize::from(event.data == "end");
            received.stored.push(event.data);
            last_id = Some(event.last_event_id);
            continue;
        }
        assert!(may_be_ephemeral, "an ephemeral event was replayed: {event:?}");
        assert!(last_id.as_ref().is_none_or(|id| *id == event.last_event_id), "after {last_id:?}: {event:?}");
        let (hub, number) = event.data.split_once(' ').expect("a hub and a number");
        let last = &mut last_numbers[hub.parse::<usize>().unwrap()];
        let number: usize = number.parse().unwrap();
        assert!(last.is_none_or(|last| last < number), "{last:?} before {event:?}");
        *last = Some(number);
        received.ephemeral += 1;
    }
    received
}

/// Publishes these numbers in batches at one hub.
async fn publish(
    connection: &mut Connection,
    hub: usize,
    numbers: impl Iterator<Item = usize>,
    fields: &str,
) {
    let lines: Vec<_> =
        numbers.map(|number| format!(r#"{{"topic":"chat","data":"{hub} {number}"{fields}}}"#)).collect();
    for batch in lines.chunks(BATCH) {
        connection.request("POST /topics", batch.join("\n").as_bytes()).await.unwrap();
        let response = connection.response().await.unwrap();
        assert_eq!(response.status, 200, "{response}");
    }
}

/// Half of the ephemeral events beside all of the stored ones, then the others alone. Returns the
/// memory of the hub in between and in the end.
async fn load(address: SocketAddr, pid: u32, hub: usize) -> (u64, u64) {
    const TYPING: &str = r#","type":"typing","ephemeral":true"#;
    let count = ephemeral_count() / HUBS;
    let mut connection = Connection::open(address).await.unwrap();
    for first in (0..count / 2).step_by(BATCH) {
        publish(&mut connection, hub, first..(count / 2).min(first + BATCH), TYPING).await;
        publish(&mut connection, hub, first / 5..(count / 2).min(first + BATCH) / 5, "").await;
    }
    let between = memory_bytes(pid);
    for first in (count / 2..count).step_by(BATCH) {
        publish(&mut connection, hub, first..count.min(first + BATCH), TYPING).await;
    }
    let end = memory_bytes(pid);
    connection.request("POST /topics/chat", b"end").await.unwrap();
    assert_eq!(connection.response().await.unwrap().status, 200);
    (between, end)
}

fn memory_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
    kib.expect("a process has memory").trim().parse::<u64>().unwrap() << 10
}

async fn dropped(hub: &Hub) -> u64 {
    let metrics = hub.request("GET /metrics", b"").await.expect("metrics").text();
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("tidings_ephemeral_dropped_total "));
    dropped.expect("it is a metric").parse().expect("a number")
}

async fn run(store: &str) {
    let mut hubs = Vec::new();
    for _ in 0..HUBS {
        hubs.push(Hub::serve(&["--store", store]).await.expect("it starts"));
    }
    let mut subscribers = JoinSet::new();
    for hub in &hubs {
        for stream in STREAMS {
            subscribers.spawn(receive(hub.address(), stream, true));
        }
    }
    // Once each of them is there, none misses a stored event.
    for hub in &hubs {
        let all = format!("tidings_subscribers {}\n", STREAMS.len());
        let joined =
            async { while !hub.request("GET /metrics", b"").await.unwrap().text().contains(&all) {} };
        timeout(PATIENCE, joined).await.expect("all are there");
    }
    let mut publishers = JoinSet::new();
    for (number, hub) in hubs.iter().enumerate() {
        publishers.spawn(load(hub.address(), hub.pid().expect("it runs"), number));
    }
    for (between, end) in publishers.join_all().await {
        println!("memory: {} and {} MiB", between >> 20, end >> 20);
        assert!(end <= between + GAIN_BYTES_MAX, "{between} and {end} bytes");
    }
    let received = subscribers.join_all().await;
    let stored = &received[0].stored;
    for hub in 0..HUBS {
        let of_hub: Vec<usize> =
            stored.iter().filter_map(|data| data.strip_prefix(&format!("{hub} "))?.parse().ok()).collect();
        assert_eq!(of_hub, (0..ephemeral_count() / HUBS / 2 / 5).collect::<Vec<_>>(), "of hub {hub}");
    }
    assert!(received.iter().all(|received| received.stored == *stored), "another order");
    let ephemeral: Vec<_> = received.iter().map(|received| received.ephemeral).collect();
    assert!(ephemeral.iter().all(|count| (1..=ephemeral_count()).contains(count)), "{ephemeral:?}");
    for hub in &hubs {
        for stream in STREAMS {
            let replayed = receive(hub.address(), &format!("{stream}&since=earliest"), false).await;
            assert_eq!(replayed, Received { stored: stored.clone(), ephemeral: 0 });
        }
        println!("dropped: {}", dropped(hub).await);
    }
    println!("{} stored; ephemeral of {}: {ephemeral:?}", stored.len(), ephemeral_count());
    for mut hub in hubs {
        assert!(hub.stop().await.expect("it stops").success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ephemeral_events_beside_stored_ones_change_nothing_for_hubs_on_redis() {
    let server = RedisServer::start().await.expect("Redis starts");
    run(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ephemeral_events_beside_stored_ones_change_nothing_for_hubs_on_nats() {
    let server = NatsServer::start().expect("NATS starts");
    run(&format!("{}/ephemeral", server.url())).await;
}
