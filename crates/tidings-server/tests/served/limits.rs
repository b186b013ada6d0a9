//! What happens when a limit is reached, and the response to each client.

use axum::body::Body;
use tidings_server::{ConnectionSettings, Keyless, Settings};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    task::JoinSet,
};

use crate::{
    served_support::Served,
    support::{self, Api, HUB, hub, keyless, keyless_with, with_keys, within},
};

fn streams(total: usize, per_address: usize) -> Settings {
    let mut settings = Settings::default();
    settings.streams_max = total;
    settings.streams_per_address_max = per_address;
    settings
}

/// Both APIs share one limit.
const TARGETS: [&str; 3] = ["/stream?topic=a", "/topics/a", "/.well-known/mercure?match=a"];

#[tokio::test]
async fn a_full_hub_answers_503_with_retry_after() {
    let api = keyless_with(streams(1, 10)).await;
    let held = api.get("/stream?topic=a").stream().await;
    for target in TARGETS {
        let answer = api.get(target).answer().await;
        assert!(answer.refused(503).contains('1'), "{answer:?}");
        let secs: u64 = answer.header("retry-after").parse().expect("seconds");
        assert!((15..=45).contains(&secs), "{secs}");
    }
    drop(held);
    api.get("/stream?topic=a").stream().await;
}

#[tokio::test]
async fn an_address_at_its_limit_gets_429_and_others_are_served() {
    let api = keyless_with(streams(100, 2)).await;
    let _held = [
        api.get("/stream?topic=a").from("192.0.2.1:1000").stream().await,
        api.get(&format!("{HUB}?match=a")).from("192.0.2.1:1001").stream().await,
    ];
    for target in TARGETS {
        let answer = api.get(target).from("192.0.2.1:1002").answer().await;
        assert!(answer.refused(429).contains('2'), "{answer:?}");
        assert!(answer.headers.contains_key("retry-after"));
        api.get(target).from("192.0.2.2:1000").stream().await;
    }
}

#[tokio::test]
async fn loopback_has_no_limit_of_its_own() {
    let api = keyless_with(streams(100, 1)).await;
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(api.get("/stream?topic=a").from("127.0.0.1:1000").stream().await);
        held.push(api.get("/stream?topic=a").from("[::1]:1000").stream().await);
    }
}

#[tokio::test]
async fn a_native_event_source_is_shed_without_an_error() {
    for (api, peer) in [
        (keyless_with(streams(0, 10)).await, "127.0.0.1:1"),
        (keyless_with(streams(10, 0)).await, "192.0.2.1:1"),
    ] {
        for target in TARGETS {
            let answer = api.get(target).like_a_browser().from(peer).answer().await.ok();
            assert_eq!(answer.header("content-type"), "text/event-stream");
            let millis = answer.body.lines().find_map(|line| line.strip_prefix("retry: ")).expect("a time");
            assert!((15_000..=45_000).contains(&millis.parse::<u64>().expect("milliseconds")), "{millis}");
            assert!(!answer.body.contains("id:") && !answer.body.contains("data:"), "{answer:?}");
            assert!(answer.body.ends_with("\n\n"), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn only_a_native_event_source_is_treated_as_one() {
    let api = keyless_with(streams(0, 10)).await;
    let ask = || api.get("/stream?topic=a");
    for ask in [
        ask(),
        ask().header("accept", "text/event-stream"),
        ask().header("accept", "text/event-stream, */*").header("cache-control", "no-cache"),
        ask().header("accept", "text/event-stream").header("cache-control", "no-store"),
        ask().like_a_browser().bearer("anything"),
    ] {
        ask.answer().await.refused(503);
    }
}

#[tokio::test]
async fn a_native_event_source_receives_permanent_errors() {
    let api = with_keys().await;
    api.get("/stream").like_a_browser().answer().await.refused(400);
    api.get(&format!("{HUB}?match_cel=a")).like_a_browser().answer().await.refused(400);
    let mut settings = Settings::default();
    settings.anonymous_subscribers = false;
    let api = support::with_keys_and(settings).await;
    api.get("/stream?topic=a").like_a_browser().answer().await.refused(401);
}

#[tokio::test]
async fn shed_subscribers_are_counted() {
    let api = keyless_with(streams(0, 10)).await;
    api.get("/stream?topic=a").answer().await.refused(503);
    api.get("/stream?topic=a").like_a_browser().answer().await.ok();
    let metrics = api.get("/metrics").answer().await.ok().body;
    assert!(metrics.contains("tidings_streams_rejected_total{reason=\"full\"} 2"), "{metrics}");
    assert!(
        metrics.contains("tidings_requests_total{route=\"/stream\",method=\"GET\",status=\"5xx\"} 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_refused_subscription_takes_no_slot() {
    let api = keyless_with(streams(1, 1)).await;
    for _ in 0..3 {
        api.get("/stream").answer().await.refused(400);
        api.get("/stream?pattern=(").answer().await.refused(400);
    }
    api.get("/stream?topic=a").stream().await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_413_with_and_without_a_length() {
    let mut settings = Settings::default();
    settings.body_bytes_max = 10;
    let api = keyless_with(settings).await;
    api.post("/topics/a", "0123456789").answer().await.ok();
    for target in ["/topics/a", "/topics", HUB] {
        let form = |body| api.post(target, body).header("content-type", "application/x-www-form-urlencoded");
        let declared = form(Body::from("01234567890")).answer().await;
        assert!(declared.refused(413).contains("10 bytes"), "{declared:?}");
        let chunks = futures_util::stream::iter(["012345", "67890"].map(Ok::<_, std::io::Error>));
        form(Body::from_stream(chunks)).answer().await.refused(413);
        // Refused by its declared length, before a byte is read.
        let endless = Body::from_stream(futures_util::stream::pending::<Result<&str, std::io::Error>>());
        form(endless).header("content-length", "11").answer().await.refused(413);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_is_408() {
    let mut settings = Settings::default();
    settings.body_secs = 5;
    let api = keyless_with(settings).await;
    for target in ["/topics/a", "/topics", HUB] {
        let endless = Body::from_stream(futures_util::stream::pending::<Result<&str, std::io::Error>>());
        let ask = api.post(target, endless).header("content-type", "application/x-www-form-urlencoded");
        ask.answer().await.refused(408);
    }
}

#[tokio::test]
async fn a_refused_publisher_is_refused_before_its_body_is_read() {
    let api = with_keys().await;
    for target in ["/topics/a", "/topics", HUB] {
        let endless = Body::from_stream(futures_util::stream::pending::<Result<&str, std::io::Error>>());
        api.post(target, endless).answer().await.refused(401);
    }
}

#[tokio::test]
async fn too_many_events_or_topics_are_413_and_none_is_published() {
    let mut settings = Settings::default();
    settings.batch_events_max = 3;
    let api = keyless_with(settings).await;
    let line = "{\"topic\":\"a\",\"data\":1}\n";
    api.post("/topics", line.repeat(3)).answer().await.ok();
    let detail = api.post("/topics", line.repeat(4)).answer().await.refused(413);
    assert!(detail.contains('3'), "{detail}");
    let topics = vec!["t"; api.hub.validator().topics_max + 1];
    let line = serde_json::json!({ "topics": topics, "data": 1 }).to_string();
    api.post("/topics", line).answer().await.refused(413);
    assert_eq!(api.hub.stats().published, 3);
}

#[tokio::test]
async fn the_summary_is_bounded() {
    let mut settings = Settings::default();
    settings.summary_events_max = 2;
    let api = keyless_with(settings).await;
    for data in ["1", "2", "3"] {
        api.post("/topics/a", data).answer().await.ok();
    }
    let summary = api.get("/topics/a").header("accept", "application/json").answer().await.ok().json();
    let data: Vec<_> =
        summary["events"].as_array().expect("events").iter().map(|event| event["data"].clone()).collect();
    assert_eq!(data, ["2", "3"]);
}

#[tokio::test]
async fn with_no_auth_no_client_receives_private_events() {
    let mut settings = Settings::default();
    settings.keyless = Keyless::Anywhere;
    let api = Api::new(hub().await, None, settings);
    let mut stream = api.get("/stream?topic=a").stream().await;
    api.post("/topics/a?private", "secret").answer().await.ok();
    api.post("/topics/a", "public").answer().await.ok();
    assert_eq!(stream.data().await, "public");

    let api = keyless().await;
    let mut stream = api.get("/stream?topic=a").stream().await;
    api.post("/topics/a?private", "secret").answer().await.ok();
    assert_eq!(stream.data().await, "secret");
}

/// Regression: 300 unfinished bodies of 900 KB took 246 MB; only the number of connections bounded
/// them.
#[tokio::test]
async fn unfinished_bodies_share_a_memory_budget_and_release_it() {
    let mut settings = Settings::default();
    settings.bodies_bytes_max = 4_500_000;
    let served = Served::start_with(settings, ConnectionSettings::default()).await;
    let head = "POST /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
    let mut clients = JoinSet::new();
    let (refusals, mut refused) = mpsc::unbounded_channel();
    for _ in 0..16 {
        let mut client = served.send(head).await;
        let refusals = refusals.clone();
        clients.spawn(async move {
            // It is not read once the request is refused.
            let _ = client.get_mut().write_all(&vec![b'x'; 900_000]).await;
            let mut answer = String::new();
            let _ = client.read_to_string(&mut answer).await;
            let _ = refusals.send(answer);
        });
    }
    // The budget suffices for four.
    for _ in 0..12 {
        let answer = within(refused.recv()).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: "), "{answer}");
    }
    // A body that arrives complete needs no budget.
    let whole =
        "POST /topics/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
    served.ask(whole).await.ok();
    clients.shutdown().await;
    within(async {
        loop {
            let mut client = served.send(head).await;
            let _ = client.get_mut().write_all(&vec![b'x'; 900_000]).await;
            let _ = client.get_mut().write_all(&vec![b'x'; 100_000]).await;
            let mut line = String::new();
            // The server may detect closed connections only now.
            if client.read_line(&mut line).await.is_ok() && line.starts_with("HTTP/1.1 200 ") {
                break;
            }
        }
    })
    .await;
}

/// Regression: 300 clients that asked for a summary of 1 MB and read nothing of it took 290 MB;
/// only the number of connections bounded them.
#[tokio::test]
async fn summaries_that_are_not_read_share_a_memory_budget_and_release_it() {
    let mut settings = Settings::default();
    settings.responses_bytes_max = 1_000_000;
    let api = keyless_with(settings).await;
    api.post("/topics/a", "x".repeat(200_000)).answer().await.ok();
    let summary = |topic: &str, address: &str| {
        api.get(&format!("/topics/{topic}")).header("accept", "application/json").from(address)
    };
    let mut unread = vec![summary("a", "192.0.2.1:1").send().await];
    // A quarter is for one address.
    let answer = summary("a", "192.0.2.1:2").answer().await;
    assert!(answer.refused(429).contains("your address"), "{answer:?}");
    assert_eq!(answer.header("retry-after"), "1");
    for other in ["192.0.2.2:1", "192.0.2.3:1", "127.0.0.1:1"] {
        unread.push(summary("a", other).send().await);
    }
    assert!(unread.iter().all(|response| response.status() == 200));
    for other in ["192.0.2.4:1", "127.0.0.1:2"] {
        let answer = summary("a", other).answer().await;
        assert!(answer.refused(503).contains("have not read"), "{answer:?}");
        assert_eq!(answer.header("retry-after"), "1");
        // Nobody is kept from publishing, or from what is small.
        api.post("/topics/b", "x").from(other).answer().await.ok();
        summary("b", other).answer().await.ok();
    }
    drop(unread);
    summary("a", "192.0.2.1:3").answer().await.ok();
}
