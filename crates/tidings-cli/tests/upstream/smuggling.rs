//! Requests that two servers could read differently: they are refused, or reach the application in
//! one reading.

use tidings_testkit::Connection;

use crate::application::{Raw, ok, values};

#[tokio::test]
async fn a_request_with_two_readings_does_not_reach_the_application() {
    let (raw, hub) = Raw::behind_hub(&[]).await;
    let large = format!("GET /a HTTP/1.1\r\nHost: a\r\nX-A: {}\r\n\r\n", "x".repeat(40_000));
    let many = format!("GET /a HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-A: 1\r\n".repeat(100));
    let post = |fields: &str| format!("POST /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    for request in [
        // RFC 9112, 6.3: length and encoding.
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n",
        post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n") + "0\r\n\r\n",
        post("Content-Length: 5\r\nContent-Length: 6\r\n") + "hello",
        post("Content-Length: 5\r\nContent-Length: 5\r\n") + "hello",
        post("Content-Length: 5, 5\r\n") + "hello",
        post("Content-Length: +5\r\n") + "hello",
        post("Content-Length: -5\r\n") + "hello",
        post("Content-Length: 0x5\r\n") + "hello",
        post("Content-Length: 5 \x0b\r\n") + "hello",
        post("Content-Length: \r\n") + "hello",
        post("Content-Length : 5\r\n") + "hello",
        post("Transfer-Encoding: xchunked\r\n") + "0\r\n\r\n",
        post("Transfer-Encoding: chunked, identity\r\n") + "0\r\n\r\n",
        post("Transfer-Encoding: gzip, chunked\r\n") + "0\r\n\r\n",
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n",
        post("Transfer-Encoding : chunked\r\n") + "0\r\n\r\n",
        post("Transfer-Encoding:\x0bchunked\r\n") + "0\r\n\r\n",
        "POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        // RFC 9112, 5.2 and 2.2: folded lines, bare line feeds and carriage returns.
        post("X-A: 1\r\n folded\r\nContent-Length: 0\r\n"),
        post("X-A: 1\r\n\tTransfer-Encoding: chunked\r\n"),
        "POST /a HTTP/1.1\nHost: a\n\n".to_owned(),
        post("X-A: 1\nContent-Length: 5\r\n") + "hello",
        post("X-A: 1\rContent-Length: 5\r\n") + "hello",
        post("X-A: 1\0\r\n"),
        // RFC 9112, 3.2: hosts.
        "GET /a HTTP/1.1\r\n\r\n".to_owned(),
        "GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(),
        "GET /a HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(),
        "GET /a HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned(),
        "GET /a HTTP/1.1\r\nHost: me@a\r\n\r\n".to_owned(),
        "GET http://a b/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        // Request lines.
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET  /a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /a HTTP/1.1 \r\nHost: a\r\n\r\n".to_owned(),
        "GET /a HTTP/1.2\r\nHost: a\r\n\r\n".to_owned(),
        "GET /a HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(),
        "GET /a\r\n\r\n".to_owned(),
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".to_owned(),
        "G@T /a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        // Names.
        "GET /a HTTP/1.1\r\nHost: a\r\nX A: 1\r\n\r\n".to_owned(),
        "GET /a HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n".to_owned(),
        "GET /a HTTP/1.1\r\nHost: a\r\nX-A\r\n\r\n".to_owned(),
        large,
        many,
    ] {
        let mut client = Connection::open(hub.address()).await.unwrap();
        client.send(format!("{request}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await.unwrap();
        let response = String::from_utf8_lossy(&client.rest().await.unwrap()).into_owned();
        let status = response.split(' ').nth(1).unwrap_or_default();
        assert!(["400", "431", "501", "505"].contains(&status), "{request:.80?}: {response}");
        let responses = response.lines().filter(|line| line.starts_with("HTTP/1."));
        assert_eq!(responses.count(), 1, "{request:.80?}: {response}");
        assert!(raw.is_untouched().await, "{request:.80?}");
    }
}

/// What is behind a request reaches the application as another request, or not at all.
#[tokio::test]
async fn the_application_receives_exactly_what_the_parser_has_read() {
    let (raw, hub) = Raw::behind_hub(&[]).await;
    for (request, line, host, body) in [
        // RFC 9112, 3.2.2: the host of an absolute target wins, and the target is a path.
        (
            "GET http://other.example/a?b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a?b HTTP/1.1",
            "other.example",
            "",
        ),
        ("GET http://other.example HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1", "other.example", ""),
        // RFC 9110, 7.6.1: what `Connection` names is removed, and what the hub says is not.
        (
            "GET /a HTTP/1.1\r\nHost: a\r\nConnection: Host, X-Forwarded-For, Content-Length, Transfer-Encoding\r\n\r\n",
            "GET /a HTTP/1.1",
            "a",
            "",
        ),
        (
            "POST /a HTTP/1.1\r\nHost: a\r\nConnection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
            "POST /a HTTP/1.1",
            "a",
            "hello",
        ),
        (
            "POST /a HTTP/1.1\r\nHost: a\r\nContent_Length: 99\r\nTransfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
            "POST /a HTTP/1.1",
            "a",
            "hello",
        ),
        // RFC 9112, 7.1.1: extensions of chunks are dropped with the chunks.
        (
            "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n",
            "POST /a HTTP/1.1",
            "a",
            "hello",
        ),
        (
            "GET /%2e%2e/%00%0d%0aX:1 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%2e%2e/%00%0d%0aX:1 HTTP/1.1",
            "a",
            "",
        ),
        ("GET /a\\..\\b HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a\\..\\b HTTP/1.1", "a", ""),
    ] {
        let mut client = Connection::open(hub.address()).await.unwrap();
        client
            .send(format!("{request}GET /next HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n"))
            .await
            .unwrap();
        let (mut peer, received) = raw.request().await;
        assert_eq!(received.lines().next(), Some(line), "{request:?}");
        assert_eq!(values(&received, "host"), [host], "{request:?}");
        assert_eq!(values(&received, "x-forwarded-for"), ["127.0.0.1"], "{request:?}");
        assert!(!received.contains('_'), "{received}");
        let framing = [values(&received, "content-length"), values(&received, "transfer-encoding")].concat();
        let length = body.len().to_string();
        assert_eq!(framing, if body.is_empty() { vec![] } else { vec![length.as_str()] }, "{received}");
        assert_eq!(peer.bytes(body.len()).await, body.as_bytes());
        peer.send(ok("")).await;
        let (mut peer, next) = raw.request_after(peer).await;
        assert!(next.starts_with("GET /next HTTP/1.1\r\n") && values(&next, "host") == ["n"], "{next}");
        peer.send(ok("")).await;
        let responses = String::from_utf8(client.rest().await.unwrap()).unwrap();
        assert_eq!(responses.matches("HTTP/1.1 200 OK").count(), 2, "{responses}");
    }
}

#[tokio::test]
async fn chunks_that_are_malformed_end_the_request_without_an_end() {
    let (raw, hub) = Raw::behind_hub(&[]).await;
    for chunks in [
        "5\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n",
        "5\r\nhelloX\r\n",
        "-1\r\n",
        "fffffffffffffffff\r\n",
        " 5\r\nhello\r\n",
    ] {
        let mut client = Connection::open(hub.address()).await.unwrap();
        let request = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{request}{chunks}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await.unwrap();
        let asking = client.rest();
        let receiving = async { raw.accept().await.rest().await };
        let (response, received) = tokio::join!(asking, receiving);
        let (response, received) = (response.unwrap(), String::from_utf8_lossy(&received).into_owned());
        assert!(response.starts_with(b"HTTP/1.1 400 "), "{chunks:?}: {}", String::from_utf8_lossy(&response));
        assert!(!received.ends_with("0\r\n\r\n") && !received.contains("smuggled"), "{chunks:?}: {received}");
    }
}
