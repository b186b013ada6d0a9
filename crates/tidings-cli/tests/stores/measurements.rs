//! What a hub measures of its log, its fan-out and its subscribers: each metric moves by what it
//! counts.

#![cfg(target_os = "linux")]
#![allow(clippy::float_cmp, reason = "what is compared are whole numbers")]

use std::{collections::HashMap, time::Duration};

use tidings_testkit::{Connection, EventStream, Hub, NatsServer, PATIENCE, RedisServer};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};

/// All series of a hub, and their values.
async fn scrape(hub: &Hub) -> HashMap<String, f64> {
    let text = hub.request("GET /metrics", b"").await.expect("the hub runs").text();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.filter_map(|line| line.rsplit_once(' '));
    samples.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

/// Waits until a series has a value that fits.
async fn until(hub: &Hub, series: &str, fits: impl Fn(f64) -> bool) {
    let fitting = async {
        loop {
            let value = *scrape(hub).await.get(series).unwrap_or_else(|| panic!("{series} is not there"));
            if fits(value) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, fitting).await.unwrap_or_else(|_| panic!("{series} never is as expected"));
}

/// Repeats an action until every one of these series has grown.
async fn grow_by(hub: &Hub, series: &[&str], mut action: impl AsyncFnMut()) {
    let before = scrape(hub).await;
    let growing = async {
        loop {
            action().await;
            let after = scrape(hub).await;
            let value = |all: &HashMap<String, f64>, name: &str| {
                *all.get(name).unwrap_or_else(|| panic!("{name} is not there"))
            };
            if series.iter().all(|name| value(&after, name) > value(&before, name)) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, growing).await.unwrap_or_else(|_| panic!("one of {series:?} does not grow"));
}

/// Publishes an event, and returns its id.
async fn publish(hub: &Hub) -> String {
    let receipt = hub.publish("chat", "hello").await.expect("published").text();
    let (_, id) = receipt.split_once(r#""id":""#).expect("a receipt");
    id.split_once('"').expect("an id").0.to_owned()
}

#[tokio::test]
async fn each_metric_of_log_and_fan_out_moves_by_what_it_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("store");
    let store = store.to_str().expect("a path");
    let hub = Hub::serve(&["--store", store, "--retain-count", "5"]).await.expect("it starts");
    let address = hub.address();

    let mut stream = EventStream::open(address, "/stream?topic=chat").await.expect("a stream");
    let of_an_event = [
        r#"tidings_deliveries_total{driver="shard"}"#,
        r#"tidings_delivered_bytes_total{driver="shard"}"#,
        r#"tidings_delivery_lag_seconds_count{driver="shard"}"#,
        r#"tidings_store_operation_duration_seconds_count{operation="append"}"#,
        "tidings_log_sync_duration_seconds_count",
        "tidings_log_events",
        "tidings_log_bytes",
        "tidings_log_oldest_timestamp_seconds",
        "tidings_log_newest_timestamp_seconds",
    ];
    grow_by(&hub, &of_an_event, async || {
        publish(&hub).await;
        stream.next().await.expect("the event");
    })
    .await;

    // A stream over HTTP/1.0 is pulled.
    let mut pulled = Connection::open(address).await.expect("it listens");
    pulled.send("GET /stream?topic=chat HTTP/1.0\r\nHost: localhost\r\n\r\n").await.expect("sent");
    assert_eq!(pulled.bytes(15).await.expect("an answer"), b"HTTP/1.0 200 OK");
    let of_a_pulled_event = [
        r#"tidings_deliveries_total{driver="pulled"}"#,
        r#"tidings_delivered_bytes_total{driver="pulled"}"#,
        r#"tidings_delivery_lag_seconds_count{driver="pulled"}"#,
    ];
    grow_by(&hub, &of_a_pulled_event, async || drop(publish(&hub).await)).await;
    drop(pulled);

    grow_by(&hub, &[r#"tidings_streams_closed_total{reason="client"}"#], async || {
        drop(EventStream::open(address, "/stream?topic=chat").await.expect("a stream"));
    })
    .await;

    let first = publish(&hub).await;
    publish(&hub).await;
    let of_history = [
        "tidings_replays_total",
        "tidings_replay_events_total",
        r#"tidings_replay_pages_total{source="log"}"#,
        r#"tidings_store_operation_duration_seconds_count{operation="read"}"#,
    ];
    grow_by(&hub, &of_history, async || {
        drop(EventStream::resume(address, "/stream?topic=chat", &first).await.expect("a stream"));
    })
    .await;
    grow_by(&hub, &[r#"tidings_replay_pages_total{source="shared"}"#], async || {
        drop(EventStream::resume(address, "/stream?topic=chat", &first).await.expect("a stream"));
    })
    .await;
    for (since, operation) in [("-2", "last"), ("10m", "position_ago"), ("id:none", "resolve")] {
        let series = format!(r#"tidings_store_operation_duration_seconds_count{{operation="{operation}"}}"#);
        grow_by(&hub, &[&series], async || {
            let target = format!("/stream?topic=chat&since={since}");
            drop(EventStream::open(address, &target).await.expect("a stream"));
        })
        .await;
    }

    for _ in 0..10 {
        publish(&hub).await;
    }
    let other = Hub::serve(&[]).await.expect("it starts");
    let foreign = publish(&other).await;
    for (id, reason) in [(&*first, "expired"), ("none", "unknown"), (&*foreign, "other_log")] {
        let gaps = format!(r#"tidings_gaps_total{{reason="{reason}"}}"#);
        grow_by(
            &hub,
            &[&gaps, r#"tidings_store_operation_duration_seconds_count{operation="bounds"}"#],
            async || {
                drop(EventStream::resume(address, "/stream?topic=chat", id).await.expect("a stream"));
            },
        )
        .await;
    }

    until(&hub, "tidings_log_events", |events| events == 5.0).await;
    grow_by(&hub, &[r#"tidings_store_operation_duration_seconds_count{operation="delete"}"#], async || {
        hub.request("DELETE /topics/chat", b"").await.expect("deleted");
    })
    .await;
    until(&hub, "tidings_log_events", |events| events == 0.0).await;
    until(&hub, "tidings_log_oldest_timestamp_seconds", |time| time == 0.0).await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_seen_to_be_behind() {
    let hub = Hub::serve(&[]).await.expect("it starts");
    let mut frozen = Connection::open_narrow(hub.address(), 4 * 1024).await.expect("it listens");
    frozen.request("GET /stream?topic=chat", b"").await.expect("sent");
    assert_eq!(frozen.head().await.expect("an answer").status, 200);
    let of_a_frozen_reader =
        ["tidings_streams_stalled", "tidings_reader_lag_bytes_worst", "tidings_reader_lag_bytes_p99"];
    grow_by(&hub, &of_a_frozen_reader, async || {
        hub.publish("chat", "x".repeat(500_000)).await.expect("published");
    })
    .await;
    drop(frozen);
    for series in of_a_frozen_reader {
        until(&hub, series, |value| value == 0.0).await;
    }
}

#[tokio::test]
async fn limits_are_there_beside_what_they_limit() {
    let hub = Hub::serve(&["--patterns-max", "7", "--retain-bytes", "64KiB"]).await.expect("it starts");
    let _stream = EventStream::open(hub.address(), "/stream?pattern=/a/:b").await.expect("a stream");
    hub.publish("/a/1", "hello").await.expect("published");
    let all = scrape(&hub).await;
    for (series, expected) in [
        ("tidings_patterns", 1.0),
        ("tidings_patterns_max", 7.0),
        ("tidings_log_bytes_max", 65_536.0),
        ("tidings_fan_out_lag_bytes_max", 32_768.0),
        ("tidings_appends_pending", 0.0),
        ("tidings_appends_pending_bytes", 0.0),
        ("tidings_replays_running", 0.0),
        ("tidings_cluster_hubs", 1.0),
        ("tidings_store_up", 1.0),
        (r#"tidings_store_info{store="memory"}"#, 1.0),
        (r#"tidings_store_info{store="redis"}"#, 0.0),
    ] {
        assert_eq!(all.get(series), Some(&expected), "{series}");
    }
    for series in [
        "tidings_feed_bytes_max",
        "tidings_appends_pending_max",
        "tidings_appends_pending_bytes_max",
        "tidings_replays_running_max",
    ] {
        assert!(all[series] > 0.0, "{series}");
    }
    let large = "x".repeat(100_000);
    let refused = hub.request("POST /topics//a/1", large.as_bytes()).await.expect("an answer");
    assert_eq!(refused.status, 507, "{refused}");
    until(&hub, r#"tidings_store_errors_total{reason="full"}"#, |count| count == 1.0).await;
}

/// The store is up, is seen to be down, and up again; two hubs count each other.
async fn follow_a_store(kind: &str, url: &str, stop: impl AsyncFnOnce(), start: impl AsyncFnOnce()) {
    let hub = Hub::serve(&["--store", url]).await.expect("it starts");
    publish(&hub).await;
    until(&hub, &format!(r#"tidings_store_info{{store="{kind}"}}"#), |is_this| is_this == 1.0).await;
    until(&hub, "tidings_store_up", |up| up == 1.0).await;
    until(&hub, "tidings_log_events", |events| events == 1.0).await;
    let mut other = Hub::serve(&["--store", url]).await.expect("it starts");
    for hub in [&hub, &other] {
        until(hub, "tidings_cluster_hubs", |hubs| hubs == 2.0).await;
    }
    other.stop().await.expect("it stops");
    until(&hub, "tidings_cluster_hubs", |hubs| hubs == 1.0).await;

    stop().await;
    until(&hub, "tidings_store_up", |up| up == 0.0).await;
    grow_by(&hub, &[r#"tidings_store_errors_total{reason="unavailable"}"#], async || {
        let refused = hub.request("POST /topics/chat", b"hello").await.expect("an answer");
        assert_eq!(refused.status, 503, "{refused}");
    })
    .await;
    start().await;
    until(&hub, "tidings_store_up", |up| up == 1.0).await;
}

#[tokio::test]
async fn a_store_in_redis_is_seen_to_be_down_and_up_again() {
    let server = Mutex::new(RedisServer::start_durable().await.expect("it starts"));
    let url = server.lock().await.url();
    let stop = async || server.lock().await.stop().await.expect("it stops");
    let start = async || server.lock().await.start_again().await.expect("it starts");
    follow_a_store("redis", &url, stop, start).await;
}

#[tokio::test]
async fn a_store_on_nats_is_seen_to_be_down_and_up_again() {
    let server = Mutex::new(NatsServer::start().expect("it starts"));
    let url = server.lock().await.url();
    let stop = async || server.lock().await.stop().expect("it stops");
    let start = async || server.lock().await.start_again().expect("it starts");
    follow_a_store("nats", &url, stop, start).await;
}

/// A hub that bridges holds a lease, and publications wait for a store that does not answer.
#[tokio::test]
async fn leases_and_pending_appends_are_counted() {
    let server = RedisServer::start().await.expect("it starts");
    let bridge = format!("{}?channels=chat", server.url());
    let hub = Hub::serve(&["--store", &server.url(), "--stream", "chat", "--bridge", &bridge]).await;
    let hub = hub.expect("it starts");
    until(&hub, "tidings_cluster_leases", |leases| leases >= 1.0).await;
    server.freeze().expect("it runs");
    let waiting = hub.publish("chat", "hello");
    let seen = async {
        until(&hub, "tidings_appends_pending", |pending| pending == 1.0).await;
        until(&hub, "tidings_appends_pending_bytes", |bytes| bytes > 0.0).await;
        server.thaw().expect("it runs");
    };
    let (published, ()) = tokio::join!(waiting, seen);
    assert!(published.is_ok());
    until(&hub, "tidings_appends_pending", |pending| pending == 0.0).await;
}
