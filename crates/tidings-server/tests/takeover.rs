//! Streams that leave hyper, and streams that do not: clients cannot distinguish them.

mod served_support;
mod support;

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use served_support::{BOTH_WAYS, Served, lines_until};
use support::{HUB, within};
use tidings::NewEvent;
use tidings_server::{ConnectionSettings, Settings};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

const STREAM: &str = "GET /stream?topic=chat HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn connections(raw_streams: bool) -> ConnectionSettings {
    ConnectionSettings { raw_streams, ..ConnectionSettings::default() }
}

/// The headers of a response, one per line in alphabetical order, without what differs each time.
async fn head(stream: &mut BufReader<TcpStream>) -> Vec<String> {
    let head = lines_until(stream, "\r\n\r\n").await;
    let mut lines: Vec<_> = head.lines().map(str::to_owned).collect();
    let date = lines.iter_mut().find(|line| line.starts_with("date: ")).expect("a date");
    assert!(httpdate::parse_http_date(&date["date: ".len()..]).is_ok(), "{date}");
    date.clear();
    lines[1..].sort();
    lines
}

#[tokio::test]
async fn the_headers_of_a_stream_are_the_same_with_both_drivers() {
    for charset_utf8 in [true, false] {
        let mut settings = Settings::default();
        settings.charset_utf8 = charset_utf8;
        let raw = Served::start_with(settings.clone(), connections(true)).await;
        let through_hyper = Served::start_with(settings, connections(false)).await;
        for request in [
            STREAM.to_owned(),
            "GET /topics/chat?format=json HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:5173\r\n\r\n".to_owned(),
            "GET http://localhost/topics/chat HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n".to_owned(),
            format!("GET {HUB}?match=chat&lastEventID=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            "GET /topics/chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned(),
            "GET /topics/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n".to_owned(),
            "GET /topics/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
            "GET /topics/chat HTTP/1.0\r\nHost: localhost\r\n\r\n".to_owned(),
            "OPTIONS /topics/chat HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        ] {
            let mut streams = [raw.send(&request).await, through_hyper.send(&request).await];
            let [ours, hypers] = &mut streams;
            let [ours, hypers] = [head(ours).await, head(hypers).await];
            assert_eq!(ours, hypers, "{request}");
            if request.starts_with("GET") {
                assert_eq!(ours[0].get(9..), Some("200 OK"), "{request}");
                for (served, stream) in [&raw, &through_hyper].into_iter().zip(&mut streams) {
                    lines_until(stream, "retry: ").await;
                    served.hub.publish(NewEvent::new("chat", "hello")).await.expect("published");
                    lines_until(stream, "hello").await;
                }
            }
        }
    }
}

/// undici, which is `fetch` in Node, treats an aborted stream as complete if its headers contain
/// `Connection: close`, so its clients would not reconnect. A stream has this header only if the
/// client requested it.
#[tokio::test]
async fn a_stream_has_no_connection_close_header() {
    for raw_streams in BOTH_WAYS {
        let served = Served::start(raw_streams).await;
        let mut stream = served.send(STREAM).await;
        let head = lines_until(&mut stream, "\r\n\r\n").await;
        assert!(!head.to_ascii_lowercase().contains("connection:"), "{head}");
    }
}

/// Part of a response that the client has not read yet is still in hyper. If the socket were handed
/// over then, the rest would be lost, and the headers of the stream would be in the middle of it.
#[tokio::test]
async fn a_stream_begins_after_a_slow_reader_has_all_earlier_responses() {
    for raw_streams in BOTH_WAYS {
        let served = Served::start(raw_streams).await;
        let large = "x".repeat(256 * 1024);
        for _ in 0..8 {
            served.hub.publish(NewEvent::new("chat", large.clone())).await.expect("published");
        }
        let summary = "GET /topics/chat HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n";
        let with_body = "GET /topics/chat HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nContent-Length: 5\r\n\r\nhello";
        let mut client = served.connect_from([127, 0, 0, 1]).await;
        let requests =
            format!("{summary}GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n{with_body}{STREAM}");
        client.write_all(requests.as_bytes()).await.expect("the peer reads");
        let mut client = BufReader::new(client);
        for is_large in [true, false, true] {
            let head = lines_until(&mut client, "\r\n\r\n").await;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
            let mut body = vec![0; length.parse().expect("a number")];
            assert!(!is_large || body.len() > 1024 * 1024, "more than the buffers hold: {}", body.len());
            within(client.read_exact(&mut body)).await.expect("all of it");
            assert!(!is_large || body.ends_with(b"}\n"));
        }
        let head = lines_until(&mut client, "\r\n\r\n").await;
        assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
        lines_until(&mut client, "retry: ").await;
        served.hub.publish(NewEvent::new("chat", "live")).await.expect("published");
        lines_until(&mut client, "data: live\n").await;
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_client_half_closes_or_disconnects() {
    for raw_streams in BOTH_WAYS {
        let served = Served::start(raw_streams).await;
        let mut shut = served.send(STREAM).await;
        lines_until(&mut shut, "retry: ").await;
        shut.get_mut().shutdown().await.expect("shut");
        served.all_have_left().await;

        let mut gone = served.send(STREAM).await;
        lines_until(&mut gone, "retry: ").await;
        drop(gone);
        served.all_have_left().await;

        for _ in 0..20 {
            drop(served.send(STREAM).await);
            served.send(STREAM).await.get_mut().shutdown().await.expect("shut");
        }
        within(async {
            while served.metrics.accepted.load(Relaxed) < 42 || served.metrics.open.load(Relaxed) > 1 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        served.all_have_left().await;
    }
}

/// Regression: over HTTP/1.1 such a client received nothing, over HTTP/1.0 not everything. `printf
/// … | nc` is one.
#[tokio::test]
async fn a_client_that_half_closes_after_the_request_gets_its_history() {
    for raw_streams in BOTH_WAYS {
        let served = Served::start(raw_streams).await;
        for number in 0..1_000 {
            served.hub.publish(NewEvent::new("chat", format!("event {number}"))).await.expect("published");
        }
        for version in ["1.1", "1.0"] {
            let request =
                format!("GET /stream?topic=chat&since=earliest HTTP/{version}\r\nHost: localhost\r\n\r\n");
            let mut client = served.send(request.as_bytes()).await;
            client.get_mut().shutdown().await.expect("shut");
            let mut answer = String::new();
            within(client.read_to_string(&mut answer)).await.expect("a clean end");
            assert!(answer.starts_with(&format!("HTTP/{version} 200")), "{answer}");
            assert!(answer.contains("retry: "), "{answer}");
            let events = answer.lines().filter(|line| line.starts_with("data: event "));
            assert_eq!(events.count(), 1_000, "HTTP/{version}");
            assert_eq!(answer.ends_with("0\r\n\r\n"), version == "1.1", "{answer}");
        }
        served.all_have_left().await;
    }
}

#[tokio::test]
async fn a_little_extra_input_is_dropped_and_much_ends_the_stream() {
    for raw_streams in BOTH_WAYS {
        let served = Served::start(raw_streams).await;
        // With the request, and in a separate packet.
        let mut little = served.send(&format!("{STREAM}{STREAM}{}", "x".repeat(1024))).await;
        lines_until(&mut little, "retry: ").await;
        little.write_all(&[b'x'; 1024]).await.expect("the peer reads");
        served.hub.publish(NewEvent::new("chat", "still there")).await.expect("published");
        let read = lines_until(&mut little, "data: still there\n").await;
        assert!(!read.contains("HTTP/1.1"), "the second request is ignored: {read}");
        let _ = little.write_all(&[b'x'; 8 * 1024]).await;
        served.all_have_left().await;

        let mut much = served.send(&format!("{STREAM}{}", "x".repeat(16 * 1024))).await;
        let mut end = Vec::new();
        // A reset is an end, too.
        let _ = within(much.read_to_end(&mut end)).await;
        served.all_have_left().await;
    }
}

#[tokio::test]
async fn a_stream_of_a_closed_hub_gets_a_notice_and_ends_cleanly() {
    for raw_streams in BOTH_WAYS {
        let served = Served::start(raw_streams).await;
        served.hub.close();
        let mut stream = served.send(STREAM).await;
        // A bare socket ends with its stream; the connection that hyper keeps may serve another
        // request.
        let all = lines_until(&mut stream, "\r\n0\r\n\r\n").await;
        assert!(all.contains("\"kind\":\"reconnect\""), "{all}");
        served.all_have_left().await;
    }
}

#[tokio::test]
async fn a_stream_counts_as_a_connection_until_it_ends() {
    for raw_streams in BOTH_WAYS {
        let settings = ConnectionSettings { connections_max: 1, ..connections(raw_streams) };
        let served = Served::start_with(Settings::default(), settings).await;
        let mut stream = served.send(STREAM).await;
        lines_until(&mut stream, "retry: ").await;
        let page = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        assert_eq!(served.ask(page).await.status, 503);
        let open = async |count| {
            within(async {
                while served.metrics.open.load(Relaxed) != count {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        };
        open(1).await;
        drop(stream);
        open(0).await;
        served.ask(page).await.ok();
    }
}

#[tokio::test]
async fn a_stopping_server_waits_for_its_streams_until_the_deadline() {
    for raw_streams in BOTH_WAYS {
        let settings = ConnectionSettings { drain_secs: 3_600, ..connections(raw_streams) };
        let mut served = Served::start_with(Settings::default(), settings).await;
        let mut stream = served.send(STREAM).await;
        lines_until(&mut stream, "retry: ").await;
        drop(served.stop.take());
        // No connection is accepted any more, so it is draining.
        within(async {
            while TcpStream::connect(served.address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        served.hub.publish(NewEvent::new("chat", "the last one")).await.expect("published");
        lines_until(&mut stream, "data: the last one\n").await;
        assert!(!served.server.is_finished());
        drop(stream);
        within(&mut served.server).await.expect("no panic");

        let settings = ConnectionSettings { drain_secs: 0, ..connections(raw_streams) };
        let mut served = Served::start_with(Settings::default(), settings).await;
        let mut stream = served.send(STREAM).await;
        lines_until(&mut stream, "retry: ").await;
        drop(served.stop.take());
        tokio::time::timeout(Duration::from_secs(60), &mut served.server)
            .await
            .expect("it does not wait")
            .expect("no panic");
    }
}
