//! The APIs on real sockets: the guarantees of the router hold through a connection.

use tokio::io::AsyncReadExt;

use crate::{
    served_support::{Served, VERSIONS, lines_until, stream_request},
    support::within,
};

#[tokio::test]
async fn the_two_printed_commands_work_together() {
    for version in VERSIONS {
        let served = Served::start().await;
        let mut stream = served.send(stream_request(version)).await;
        let head = lines_until(&mut stream, "retry: ").await;
        assert!(
            head.starts_with(&format!("HTTP/{version} 200 OK\r\n"))
                && head.contains("transfer-encoding: chunked\r\n") == (version == "1.1"),
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
    for version in VERSIONS {
        let served = Served::start().await;
        let answer = served
            .ask(format!(
                "HEAD /stream?topic=chat HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            ))
            .await
            .ok();
        assert_eq!(answer.header("content-type"), "text/event-stream");
        assert!(!answer.headers.contains_key("content-length"), "{answer:?}");
    }
}

#[tokio::test]
async fn the_host_of_an_absolute_target_wins() {
    for version in VERSIONS {
        let served = Served::start().await;
        let foreign = format!(
            "GET http://evil.example/stream?topic=chat HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        served.ask(foreign).await.refused(421);
        let ours = format!(
            "GET http://localhost/topics/chat HTTP/{version}\r\nHost: evil.example\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
        );
        served.ask(ours).await.ok();
    }
}

#[tokio::test]
async fn a_reader_that_disconnects_releases_its_permit() {
    for version in VERSIONS {
        let served = Served::start().await;
        let mut stream = served.send(stream_request(version)).await;
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
        assert!(metrics.contains("tidings_streams_closed_total{reason=\"client\"} 1"), "{metrics}");
        assert!(metrics.contains("tidings_connections_accepted_total 2"), "{metrics}");
        assert!(metrics.contains("tidings_connections_refused_total{reason=\"full\"} 0"), "{metrics}");
    }
}

#[tokio::test]
async fn a_hub_that_closes_sends_a_notice_and_ends_streams_cleanly() {
    for version in VERSIONS {
        let mut served = Served::start().await;
        let mut stream = served.send(stream_request(version)).await;
        lines_until(&mut stream, "retry: ").await;
        served.hub.close();
        drop(served.stop.take());
        let mut rest = String::new();
        within(stream.read_to_string(&mut rest)).await.expect("a clean end");
        assert_eq!(rest.ends_with("\r\n0\r\n\r\n"), version == "1.1", "{rest}");
        assert!(rest.contains("event: tidings\n") && rest.contains("\"kind\":\"reconnect\""), "{rest}");
        assert!(rest.contains("retry: "), "{rest}");
        within(&mut served.server).await.expect("no panic");
    }
}
