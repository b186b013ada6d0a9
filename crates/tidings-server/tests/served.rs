//! The APIs on real sockets: the guarantees of the router hold through a connection, with both
//! drivers of a stream.

mod served_support;
mod support;

use served_support::{BOTH_WAYS, Served, lines_until};
use support::within;

#[tokio::test]
async fn the_two_printed_commands_work_together() {
    for raw_streams in BOTH_WAYS {
        let served = Served::start(raw_streams).await;
        let mut stream =
            served.send("GET /stream?topic=chat HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n").await;
        let head = lines_until(&mut stream, "retry: ").await;
        assert!(
            head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("transfer-encoding: chunked\r\n"),
            "{head}"
        );
        let answer = served
            .ask("POST /topics/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
            .await
            .ok();
        assert!(answer.json()["id"].is_string());
        lines_until(&mut stream, "data: hello\n").await;
    }
}

#[tokio::test]
async fn a_head_request_has_no_length_and_ends() {
    for raw_streams in BOTH_WAYS {
        let served = Served::start(raw_streams).await;
        let answer = served
            .ask("HEAD /stream?topic=chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .ok();
        assert_eq!(answer.header("content-type"), "text/event-stream");
        assert!(!answer.headers.contains_key("content-length"), "{answer:?}");
    }
}

#[tokio::test]
async fn the_host_of_an_absolute_target_wins() {
    for raw_streams in BOTH_WAYS {
        let served = Served::start(raw_streams).await;
        let foreign = "GET http://evil.example/stream?topic=chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        served.ask(foreign).await.refused(421);
        let ours = "GET http://localhost/topics/chat HTTP/1.1\r\nHost: evil.example\r\nAccept: application/json\r\nConnection: close\r\n\r\n";
        served.ask(ours).await.ok();
    }
}

#[tokio::test]
async fn a_reader_that_disconnects_releases_its_permit() {
    for raw_streams in BOTH_WAYS {
        let served = Served::start(raw_streams).await;
        let mut stream = served.send("GET /stream?topic=chat HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        lines_until(&mut stream, "retry: ").await;
        assert_eq!(served.hub.stats().subscribers, 1);
        drop(stream);
        within(async {
            while served.hub.stats().subscribers > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let metrics = served
            .ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .ok()
            .body;
        assert!(metrics.contains("tidings_streams_closed_total 1"), "{metrics}");
        assert!(metrics.contains("tidings_connections_accepted_total 2"), "{metrics}");
        assert!(metrics.contains("tidings_connections_refused_total{reason=\"full\"} 0"), "{metrics}");
    }
}

#[tokio::test]
async fn a_hub_that_closes_sends_a_notice_and_ends_streams_cleanly() {
    for raw_streams in BOTH_WAYS {
        let mut served = Served::start(raw_streams).await;
        let mut stream = served.send("GET /stream?topic=chat HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        lines_until(&mut stream, "retry: ").await;
        served.hub.close();
        drop(served.stop.take());
        let rest = lines_until(&mut stream, "\r\n0\r\n").await;
        assert!(rest.contains("event: tidings\n") && rest.contains("\"kind\":\"reconnect\""), "{rest}");
        assert!(rest.contains("retry: "), "{rest}");
        within(&mut served.server).await.expect("no panic");
    }
}
