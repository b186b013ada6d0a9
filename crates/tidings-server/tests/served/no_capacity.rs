//! Connections beyond `connections_max`: health checks are answered, a browser is asked to retry,
//! other clients receive 503.

use std::sync::atomic::Ordering::Relaxed;

use tidings_server::{ConnectionSettings, Settings};

use crate::{
    served_support::{Served, VERSIONS, lines_until, stream_request},
    support::within,
};

const REST: &str = "HTTP/1.1\r\nHost: localhost\r\n";
const NATIVE: &str =
    "Accept: text/event-stream\r\nCache-Control: no-cache\r\nOrigin: http://localhost:3000\r\n";

/// A hub with one connection permit, and the stream that holds it.
async fn full(version: &str) -> (Served, impl Sized) {
    let connections = ConnectionSettings { connections_max: 1, ..ConnectionSettings::default() };
    let served = Served::start_with(Settings::default(), connections).await;
    let mut stream = served.send(stream_request(version)).await;
    lines_until(&mut stream, "retry: ").await;
    (served, stream)
}

#[tokio::test]
async fn at_capacity_health_checks_are_answered() {
    for version in VERSIONS {
        let (served, _stream) = full(version).await;
        for path in ["/healthz", "/readyz", "/metrics"] {
            let answer = served.ask(format!("GET {path} {REST}\r\n")).await.ok();
            assert_eq!(answer.header("connection"), "close", "{answer:?}");
        }
        let metrics = served.ask(format!("GET /metrics {REST}\r\n")).await.ok().body;
        assert!(metrics.contains("tidings_connections_refused_total{reason=\"full\"} 4"), "{metrics}");
    }
}

#[tokio::test]
async fn at_capacity_a_native_event_source_is_asked_to_retry() {
    for version in VERSIONS {
        let (served, _stream) = full(version).await;
        let answer = served.ask(format!("GET /stream?topic=chat {REST}{NATIVE}\r\n")).await.ok();
        assert_eq!(answer.header("content-type"), "text/event-stream");
        assert_eq!(answer.header("connection"), "close");
        // Without it, a browser would treat the response as an error, and end the stream.
        assert_eq!(answer.header("access-control-allow-origin"), "http://localhost:3000");
        let millis = answer.body.lines().find_map(|line| line.strip_prefix("retry: ")).expect("a time");
        assert!((15_000..=45_000).contains(&millis.parse::<u64>().expect("milliseconds")), "{millis}");
        assert!(!answer.body.contains("id:") && !answer.body.contains("data:"), "{answer:?}");
    }
}

#[tokio::test]
async fn at_capacity_other_clients_receive_503_and_nothing_is_done() {
    for version in VERSIONS {
        let (served, _stream) = full(version).await;
        for request in [
            format!("GET /stream?topic=chat {REST}\r\n"),
            format!("GET / {REST}\r\n"),
            format!("POST /topics/chat {REST}Content-Length: 5\r\n\r\nhello"),
            format!("POST /.well-known/mercure {REST}Content-Length: 17\r\n\r\ntopic=chat&data=x"),
        ] {
            let answer = served.ask(request).await;
            let secs: u64 = answer.header("retry-after").parse().expect("seconds");
            assert!((15..=45).contains(&secs), "{secs}");
            assert_eq!(answer.header("connection"), "close");
            assert!(answer.refused(503).contains("connections"), "{answer:?}");
        }
        assert_eq!((served.hub.stats().published, served.hub.stats().subscribers), (0, 1));
    }
}

#[tokio::test]
async fn a_released_permit_admits_the_next_connection() {
    for version in VERSIONS {
        let (served, stream) = full(version).await;
        drop(stream);
        within(async {
            while served.metrics.open.load(Relaxed) > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let mut stream = served.send(format!("GET /stream?topic=chat {REST}{NATIVE}\r\n")).await;
        let head = lines_until(&mut stream, "retry: ").await;
        assert!(!head.contains("connection: close"), "{head}");
        assert_eq!(served.hub.stats().subscribers, 1);
    }
}
