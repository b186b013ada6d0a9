//! Streams over HTTP/1.1, whose sockets the hub drives, and over HTTP/1.0, which their connections
//! write: the guarantees are the same.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tidings::NewEvent;
use tidings_server::{ConnectionSettings, Settings};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    served_support::{Served, VERSIONS, lines_until, stream_request},
    support::{HUB, within},
};

/// The names of a response's headers, in alphabetical order.
fn names(head: &str) -> Vec<&str> {
    let mut names: Vec<_> =
        head.lines().filter_map(|line| line.split_once(": ").map(|(name, _)| name)).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn the_headers_of_a_stream_do_not_depend_on_what_writes_it() {
    for charset_utf8 in [true, false] {
        let mut settings = Settings::default();
        settings.charset_utf8 = charset_utf8;
        let served = Served::start_with(settings, ConnectionSettings::default()).await;
        for (target, fields) in [
            ("/stream?topic=chat".to_owned(), ""),
            ("/topics/chat?format=json".to_owned(), "Origin: http://localhost:5173\r\n"),
            ("http://localhost/topics/chat".to_owned(), ""),
            (format!("{HUB}?match=chat&lastEventID=earliest"), ""),
            ("/topics/chat".to_owned(), "Connection: close\r\n"),
        ] {
            // The second one waits for a body that does not arrive, so its connection writes it.
            let bodies = [
                ("1.1", "Content-Length: 0\r\nExpect: 100-continue\r\n"),
                ("1.1", "Content-Length: 5\r\n"),
                ("1.0", ""),
            ];
            let mut heads = Vec::new();
            for (version, body) in bodies {
                let request = format!("GET {target} HTTP/{version}\r\nHost: localhost\r\n{fields}{body}\r\n");
                let mut stream = served.send(&request).await;
                let head = lines_until(&mut stream, "\r\n\r\n").await;
                assert!(head.starts_with(&format!("HTTP/{version} 200 OK\r\n")), "{request}: {head}");
                let chunked = "transfer-encoding: chunked\r\n";
                assert_eq!(head.contains(chunked), version == "1.1", "{request}: {head}");
                heads.push(head.replace(chunked, ""));
                lines_until(&mut stream, "retry: ").await;
                served.hub.publish(NewEvent::new("chat", "hello")).await.expect("published");
                lines_until(&mut stream, "hello").await;
            }
            assert_eq!(names(&heads[0]), names(&heads[1]), "{target}");
            assert_eq!(names(&heads[0]), names(&heads[2]), "{target}");
            let type_of =
                |head: &str| head.lines().find(|line| line.starts_with("content-type")).map(str::to_owned);
            assert_eq!(type_of(&heads[0]), type_of(&heads[1]));
            assert_eq!(heads[0].contains("charset=utf-8"), charset_utf8);
        }
    }
}

/// undici, which is `fetch` in Node, treats an aborted stream as complete if its headers contain
/// `Connection: close`, so its clients would not reconnect. A stream has this header only if the
/// client requested it.
#[tokio::test]
async fn a_stream_has_no_connection_close_header() {
    for version in VERSIONS {
        let served = Served::start().await;
        let mut stream = served.send(stream_request(version)).await;
        let head = lines_until(&mut stream, "\r\n\r\n").await;
        assert!(!head.to_ascii_lowercase().contains("connection:"), "{head}");
    }
}

/// If the socket were handed over before they were written, the rest of a response would be lost,
/// and the headers of the stream would be in the middle of it.
#[tokio::test]
async fn a_stream_begins_after_a_slow_reader_has_all_earlier_responses() {
    for version in VERSIONS {
        let served = Served::start().await;
        let large = "x".repeat(256 * 1024);
        for _ in 0..8 {
            served.hub.publish(NewEvent::new("chat", large.clone())).await.expect("published");
        }
        let summary = "GET /topics/chat HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n";
        let with_body = "GET /topics/chat HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nContent-Length: 5\r\n\r\nhello";
        let mut client = served.connect_from([127, 0, 0, 1]).await;
        let requests = format!(
            "{summary}GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n{with_body}{}",
            stream_request(version)
        );
        client.write_all(requests.as_bytes()).await.expect("the peer reads");
        let mut client = tokio::io::BufReader::new(client);
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
    for version in VERSIONS {
        let served = Served::start().await;
        let mut shut = served.send(stream_request(version)).await;
        lines_until(&mut shut, "retry: ").await;
        shut.get_mut().shutdown().await.expect("shut");
        served.all_have_left().await;

        let mut gone = served.send(stream_request(version)).await;
        lines_until(&mut gone, "retry: ").await;
        drop(gone);
        served.all_have_left().await;

        for _ in 0..20 {
            drop(served.send(stream_request(version)).await);
            served.send(stream_request(version)).await.get_mut().shutdown().await.expect("shut");
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
    for version in VERSIONS {
        let served = Served::start().await;
        for number in 0..1_000 {
            served.hub.publish(NewEvent::new("chat", format!("event {number}"))).await.expect("published");
        }
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
        served.all_have_left().await;
    }
}

#[tokio::test]
async fn a_little_extra_input_is_dropped_and_much_ends_the_stream() {
    for version in VERSIONS {
        let served = Served::start().await;
        // With the request, and in a separate packet.
        let mut little = served
            .send(format!("{}{}{}", stream_request(version), stream_request(version), "x".repeat(1024)))
            .await;
        lines_until(&mut little, "retry: ").await;
        little.write_all(&[b'x'; 1024]).await.expect("the peer reads");
        served.hub.publish(NewEvent::new("chat", "still there")).await.expect("published");
        let read = lines_until(&mut little, "data: still there\n").await;
        assert!(!read.contains("200 OK"), "the second request is ignored: {read}");
        let _ = little.write_all(&[b'x'; 8 * 1024]).await;
        served.all_have_left().await;

        let mut much = served.send(format!("{}{}", stream_request(version), "x".repeat(16 * 1024))).await;
        let mut end = Vec::new();
        // A reset is an end, too.
        let _ = within(much.read_to_end(&mut end)).await;
        served.all_have_left().await;
    }
}

#[tokio::test]
async fn a_stream_of_a_closed_hub_gets_a_notice_and_ends_cleanly() {
    for version in VERSIONS {
        let served = Served::start().await;
        served.hub.close();
        let mut stream = served.send(stream_request(version)).await;
        let mut all = String::new();
        within(stream.read_to_string(&mut all)).await.expect("a clean end");
        assert_eq!(all.ends_with("\r\n0\r\n\r\n"), version == "1.1", "{all}");
        assert!(all.contains("\"kind\":\"reconnect\""), "{all}");
        served.all_have_left().await;
    }
}

#[tokio::test]
async fn a_stream_counts_as_a_connection_until_it_ends() {
    for version in VERSIONS {
        let settings = ConnectionSettings { connections_max: 1, ..ConnectionSettings::default() };
        let served = Served::start_with(Settings::default(), settings).await;
        let mut stream = served.send(stream_request(version)).await;
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
async fn a_stream_counts_towards_the_limit_on_streams_until_it_ends() {
    for version in VERSIONS {
        let mut settings = Settings::default();
        settings.streams_max = 1;
        let served = Served::start_with(settings, ConnectionSettings::default()).await;
        let mut stream = served.send(stream_request(version)).await;
        lines_until(&mut stream, "retry: ").await;
        let one_more = "GET /stream?topic=chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        served.ask(one_more).await.refused(503);
        drop(stream);
        served.all_have_left().await;
        let mut next = served.send(stream_request(version)).await;
        lines_until(&mut next, "retry: ").await;
    }
}

#[tokio::test]
async fn a_finite_read_is_followed_by_the_next_request() {
    let served = Served::start().await;
    served.hub.publish(NewEvent::new("chat", "hello")).await.expect("published");
    let read = |fields| {
        format!("GET /topics/chat?since=earliest&until=now HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
    };
    let mut client = served.send(read("") + &read("Connection: close\r\n")).await;
    let mut answers = String::new();
    within(client.read_to_string(&mut answers)).await.expect("an end");
    assert_eq!(
        (answers.matches("200 OK").count(), answers.matches("data: hello").count()),
        (2, 2),
        "{answers}"
    );
}

#[tokio::test]
async fn a_stopping_server_waits_for_its_streams_until_the_deadline() {
    for version in VERSIONS {
        let settings = ConnectionSettings { drain_secs: 3_600, ..ConnectionSettings::default() };
        let mut served = Served::start_with(Settings::default(), settings).await;
        let mut stream = served.send(stream_request(version)).await;
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

        let settings = ConnectionSettings { drain_secs: 0, ..ConnectionSettings::default() };
        let mut served = Served::start_with(Settings::default(), settings).await;
        let mut stream = served.send(stream_request(version)).await;
        lines_until(&mut stream, "retry: ").await;
        drop(served.stop.take());
        tokio::time::timeout(Duration::from_secs(60), &mut served.server)
            .await
            .expect("it does not wait")
            .expect("no panic");
    }
}
