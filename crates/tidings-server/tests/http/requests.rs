//! Raw bytes in, status out: every kind of request headers, on real sockets.

use tokio::io::AsyncWriteExt;

use crate::support::{BODY_BYTES_MAX, Server, status};

const HOST: &str = "Host: localhost\r\n";

/// Requests that the server must refuse, and the status.
fn malformed() -> Vec<(u16, String)> {
    let with = |line: &str| format!("POST /echo HTTP/1.1\r\n{HOST}{line}\r\n\r\n");
    let mut requests = vec![
        (400, "GET / HTTP/1.1\nHost: localhost\n\n".to_owned()),
        (400, format!("GET / HTTP/1.1\n{HOST}\r\n")),
        (400, "GET / HTTP/1.1\r\nHost: localhost\n\r\n".to_owned()),
        (400, format!("GET / HTTP/1.1\r\n{HOST}\n")),
        (400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nHost:\r\n\r\n".to_owned()),
        (400, "GET http://a/ HTTP/1.1\r\n\r\n".to_owned()),
        (400, format!("GET ftp://a/ HTTP/1.1\r\n{HOST}\r\n")),
        (400, format!("GET  / HTTP/1.1\r\n{HOST}\r\n")),
        (400, format!("GET nowhere HTTP/1.1\r\n{HOST}\r\n")),
        (400, format!("GET /#a HTTP/1.1\r\n{HOST}\r\n")),
        (400, format!("GET / HTTP/one\r\n{HOST}\r\n")),
        (400, "GET /\r\n\r\n".to_owned()),
        (400, "hello\r\n\r\n".to_owned()),
        (400, "\r\n\r\n\r\n".to_owned()),
        (400, "\u{16}\u{3}\u{1}".to_owned()),
        (501, format!("CONNECT localhost:80 HTTP/1.1\r\n{HOST}\r\n")),
        (505, format!("GET / HTTP/2.0\r\n{HOST}\r\n")),
        (505, format!("GET / HTTP/1.2\r\n{HOST}\r\n")),
        (505, "PRI * HTTP/2.0\r\n\r\nsm\r\n\r\n".to_owned()),
        (400, "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()),
        (431, format!("GET / HTTP/1.1\r\n{HOST}X: {}\r\n\r\n", "x".repeat(33_000))),
        (431, format!("GET /{} HTTP/1.1\r\n{HOST}\r\n", "x".repeat(33_000))),
        (431, format!("GET / HTTP/1.1\r\n{HOST}{}\r\n", "a: b\r\n".repeat(100))),
    ];
    for line in [
        "X: a\r\n folded",
        "X : a",
        " X: a",
        "X",
        ": a",
        "X: a\0b",
        "X: a\rb",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: five",
        "Content-Length:",
        "Content-Length: 99999999999999999999999",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
    ] {
        requests.push((400, with(line)));
    }
    requests
}

#[tokio::test]
async fn malformed_request_headers_are_refused_and_close_the_connection() {
    let server = Server::start();
    for (expected, request) in malformed() {
        let answer = server.answer(request.as_bytes()).await;
        assert_eq!(status(&answer), expected, "{request:?}: {answer}");
        assert!(answer.contains("\r\nContent-Type: application/problem+json\r\n"), "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        assert_eq!(answer.matches("\r\nDate: ").count(), 1, "one answer, then silence: {answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn malformed_headers_are_refused_byte_by_byte_and_pipelined() {
    let server = Server::start();
    for (expected, request) in malformed() {
        if request.len() < 1_000 {
            let mut client = server.connect().await;
            for byte in request.as_bytes() {
                // It may be refused before the last byte.
                if client.0.write_all(&[*byte]).await.is_err() {
                    break;
                }
            }
            assert_eq!(status(&client.rest().await), expected, "{request:?}");
        }
        let behind = format!("POST /echo HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\none{request}");
        let answer = server.answer(behind.as_bytes()).await;
        let (first, second) = answer.split_once("one").expect("the first answer");
        assert_eq!((status(first), status(second)), (200, expected), "{request:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn malformed_chunks_are_refused_and_nothing_after_them_is_read() {
    let server = Server::start();
    for body in [
        "5\nhello\n0\n\n",
        "x\r\n",
        "5\r\nhelloo\r\n0\r\n\r\n",
        "5;\nhello",
        "-1\r\n",
        "10000000000000000\r\n",
        "0\r\nA b\n\r\n",
        "0\r\nA\r\n\r\n",
        "0\r\nA : b\r\n\r\n",
        "0\r\n: b\r\n\r\n",
    ] {
        let request = format!(
            "POST /echo HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{body}GET / HTTP/1.1\r\n{HOST}\r\n"
        );
        let answer = server.answer(request.as_bytes()).await;
        assert_eq!(status(&answer), 400, "{body:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{body:?}: {answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_host_of_an_absolute_target_replaces_the_header() {
    let server = Server::start();
    for (head, expected) in [
        ("GET /seen?a=b HTTP/1.1\r\nHost: one:80", "GET /seen?a=b host=one:80"),
        ("GET http://two:81/seen?a=b HTTP/1.1\r\nHost: one", "GET /seen?a=b host=two:81"),
        ("GET HTTPS://two/seen HTTP/1.1\r\nHost: one", "GET /seen host=two"),
        ("GET http://two/seen HTTP/1.0", "GET /seen host=two"),
        ("GET /seen HTTP/1.0", "GET /seen host=none"),
        ("GET /seen HTTP/1.0\r\nHost: one", "GET /seen host=one"),
    ] {
        let answer = server.answer(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert_eq!(status(&answer), 200, "{head}");
        assert!(answer.ends_with(&format!("\r\n\r\n{expected}")), "{head}: {answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn http_1_0_is_closed_after_the_response_without_keep_alive() {
    let server = Server::start();
    assert!(server.answer(b"GET / HTTP/1.0\r\n\r\n").await.ends_with("hello"));
    let mut kept = server.connect().await;
    for _ in 0..2 {
        kept.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        kept.read_until("hello").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn head_is_answered_without_a_body_and_the_connection_is_kept() {
    let server = Server::start();
    let mut client = server.connect().await;
    client.send(format!("HEAD / HTTP/1.1\r\n{HOST}\r\n").as_bytes()).await;
    let head = client.read_until("\r\n\r\n").await;
    assert!(head.contains("content-length: 5\r\n"), "{head}");
    client.send(format!("GET / HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n").as_bytes()).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 200 "), "no byte of a body came before");
    server.stop().await;
}

#[tokio::test]
async fn request_headers_byte_by_byte_are_answered() {
    let server = Server::start();
    let mut client = server.connect().await;
    client.0.set_nodelay(true).expect("an option");
    for byte in format!("\r\nGET / HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n").bytes() {
        client.send(&[byte]).await;
    }
    assert!(client.rest().await.ends_with("hello"));
    server.stop().await;
}

#[tokio::test]
async fn request_headers_of_nearly_32_kib_are_answered() {
    let server = Server::start();
    let request = format!("GET / HTTP/1.1\r\n{HOST}Connection: close\r\nX: {}\r\n\r\n", "x".repeat(32_000));
    assert!(server.answer(request.as_bytes()).await.ends_with("hello"));
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_waits_for_100_continue_is_requested() {
    let server = Server::start();
    let mut client = server.connect().await;
    let head = format!(
        "POST /echo HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
    );
    client.send(head.as_bytes()).await;
    assert_eq!(client.read_until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(b"hello").await;
    let answer = client.rest().await;
    assert_eq!(status(&answer), 200);
    assert!(answer.ends_with("hello"));
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_is_too_large_gets_no_100_continue() {
    let server = Server::start();
    let mut client = server.connect().await;
    let head = format!("POST /echo HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 100000\r\n\r\n");
    client.send(head.as_bytes()).await;
    assert_eq!(status(&client.rest().await), 413);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_is_still_sending_receives_the_refusal_not_a_reset() {
    let server = Server::start();
    let body = "x".repeat(10 * BODY_BYTES_MAX);
    let sized = format!("POST /echo HTTP/1.1\r\n{HOST}Content-Length: {}\r\n\r\n{body}", body.len());
    let chunked = format!(
        "POST /echo HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let head = format!("GET / HTTP/1.1\r\n{HOST}X: {body}\r\n\r\n");
    for (expected, request) in [(413, sized), (413, chunked), (431, head)] {
        assert_eq!(status(&server.answer(request.as_bytes()).await), expected);
    }
    server.stop().await;
}
