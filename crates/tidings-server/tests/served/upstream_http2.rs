//! Clients of HTTP/2 in front of an application that speaks HTTP/1.1: what they send reaches it in
//! one reading.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{body::Frame, client::conn::http2::handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidings_server::{ConnectionSettings, Settings, Upstream, UpstreamSettings};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{served_support::Served, support::within};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// END_HEADERS and END_STREAM.
const WHOLE: u8 = 5;

/// A hub, and the socket of its application.
async fn served() -> (Served, TcpListener) {
    let application = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", application.local_addr().expect("it is bound"));
    let mut settings = Settings::default();
    settings.upstream = Some(Upstream::new(&url, UpstreamSettings::default()).expect("an address"));
    (Served::start_with(settings, ConnectionSettings::default()).await, application)
}

/// The next request with so many bytes of body, and its connection.
async fn request(application: &TcpListener, body_bytes: usize) -> (TcpStream, String) {
    let (mut socket, _) = within(application.accept()).await.expect("a connection");
    let mut received = Vec::new();
    loop {
        let end = received.windows(4).position(|window| window == b"\r\n\r\n");
        if end.is_some_and(|end| received.len() >= end + 4 + body_bytes) {
            return (socket, String::from_utf8(received).expect("text"));
        }
        assert!(within(socket.read_buf(&mut received)).await.expect("a request") > 0);
    }
}

/// The fields of a request, without its line and its body.
fn fields(request: &str) -> Vec<&str> {
    let mut fields: Vec<_> = request.split("\r\n").skip(1).take_while(|line| !line.is_empty()).collect();
    fields.sort_unstable();
    fields
}

#[tokio::test]
async fn a_request_and_its_body_are_those_of_http_1_1() {
    let (served, application) = served().await;
    let socket = TcpStream::connect(served.address).await.expect("it listens");
    let (mut sender, connection) =
        within(handshake(TokioExecutor::new(), TokioIo::new(socket))).await.expect("a handshake");
    tokio::spawn(connection);
    let to = |method: Method, target: &str| {
        let request = Request::builder().method(method).uri(format!("http://a.example{target}"));
        request.header("cookie", "a=1").header("cookie", "b=2").header("te", "trailers")
    };

    // A body of known length, and one of unknown length.
    let known = to(Method::POST, "/a?b=%zz").body(Full::new(Bytes::from("hello")).boxed()).expect("valid");
    let (response, ()) = tokio::join!(within(sender.send_request(known)), async {
        let (mut socket, received) = request(&application, 5).await;
        assert!(received.starts_with("POST /a?b=%zz HTTP/1.1\r\n") && received.ends_with("\r\n\r\nhello"));
        let version = format!("tidings-version: {}", env!("CARGO_PKG_VERSION"));
        let expected = [
            "content-length: 5",
            "cookie: a=1; b=2",
            "host: a.example",
            &version,
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: a.example",
            // The scheme of the hub's public URL.
            "x-forwarded-proto: https",
        ];
        assert_eq!(fields(&received), expected);
        let answer = "HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 1\r\nX-App: 1\r\n\
                      Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\nX-Trailer: 1\r\n\r\n";
        socket.write_all(answer.as_bytes()).await.expect("it reads");
    });
    let response = response.expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
    for name in ["connection", "x-hop", "keep-alive", "transfer-encoding"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    assert_eq!(response.headers()["x-app"], "1");
    assert_eq!(within(response.into_body().collect()).await.expect("whole").to_bytes(), "one");

    let pieces = ["he", "llo"].map(|piece| Ok(Frame::data(Bytes::from(piece))));
    let unknown = StreamBody::new(futures_util::stream::iter(pieces)).boxed();
    let unknown = to(Method::PUT, "/b").body(unknown).expect("valid");
    let (response, ()) = tokio::join!(within(sender.send_request(unknown)), async {
        let (mut socket, received) = request(&application, 0).await;
        assert!(fields(&received).contains(&"transfer-encoding: chunked"), "{received}");
        let mut body = received.split_once("\r\n\r\n").expect("an end").1.as_bytes().to_vec();
        while !body.ends_with(b"0\r\n\r\n") {
            assert!(within(socket.read_buf(&mut body)).await.expect("the rest") > 0);
        }
        socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("it reads");
    });
    assert_eq!(response.expect("a response").status(), StatusCode::NO_CONTENT);

    // A stream that the application grants.
    let stream = to(Method::GET, "/stream").body(Full::default().boxed()).expect("valid");
    let (response, ()) = tokio::join!(within(sender.send_request(stream)), async {
        let (mut socket, _) = request(&application, 0).await;
        let answer = b"HTTP/1.1 200 OK\r\nTidings-Subscribe: topic=chat\r\nContent-Length: 0\r\n\r\n";
        socket.write_all(answer).await.expect("it reads");
    });
    assert_eq!(response.expect("a response").headers()["content-type"], "text/event-stream");
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&[length[1], length[2], length[3], kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// Fields, not indexed and with new names (RFC 7541, 6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")][..], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// How the server ends a request with these fields: the status, or `None` for a reset of the request
/// or of the connection.
async fn refused(served: &Served, fields: &[(&str, &str)]) -> Option<Vec<u8>> {
    let mut socket = TcpStream::connect(served.address).await.expect("it listens");
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, WHOLE, 1, &block(fields))].concat();
    socket.write_all(&hello).await.expect("it reads");
    loop {
        let mut head = [0; 9];
        within(socket.read_exact(&mut head)).await.ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        within(socket.read_exact(&mut payload)).await.ok()?;
        match head[3] {
            HEADERS => return Some(payload),
            RST_STREAM | GOAWAY => return None,
            _ => {}
        }
    }
}

/// RFC 9113, 8.2.1 and 8.3: fields that would be something else in HTTP/1.1.
#[tokio::test]
async fn fields_that_http_1_1_would_read_differently_do_not_reach_the_application() {
    const USUAL: [(&str, &str); 3] = [(":method", "GET"), (":scheme", "http"), (":authority", "a")];
    let (served, application) = served().await;
    let with = |more: &[(&'static str, &'static str)]| [&USUAL[..], more].concat();
    for fields in [
        with(&[(":path", "/a"), ("x-a", "1\r\nX-Smuggled: 1")]),
        with(&[(":path", "/a"), ("x-a", "1\nX-Smuggled: 1")]),
        with(&[(":path", "/a"), ("x-a", "1\0")]),
        with(&[(":path", "/a"), ("x-a\r\nx-b", "1")]),
        with(&[(":path", "/a"), ("x-a: 1\r\nx-b", "1")]),
        with(&[(":path", "/a"), ("X-Upper", "1")]),
        with(&[(":path", "/a"), ("x a", "1")]),
        with(&[(":path", "/a HTTP/1.1\r\nX-Smuggled: 1")]),
        with(&[(":path", "/a b")]),
        with(&[(":path", "a")]),
        with(&[(":path", "")]),
        with(&[(":path", "/a#b")]),
        with(&[(":path", "/a"), (":path", "/b")]),
        with(&[]),
        with(&[(":path", "/a"), ("transfer-encoding", "chunked")]),
        with(&[(":path", "/a"), ("connection", "close")]),
        with(&[(":path", "/a"), ("te", "chunked")]),
        with(&[(":path", "/a"), ("content-length", "5")]),
        with(&[(":path", "/a"), ("content-length", "x")]),
        with(&[(":path", "/a"), ("host", "b")]),
        vec![(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "a b")],
        vec![(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "me@a")],
        vec![(":method", "GET"), (":scheme", "http"), (":path", "/a")],
        vec![(":method", "G T"), (":scheme", "http"), (":path", "/a"), (":authority", "a")],
        vec![(":method", "CONNECT"), (":authority", "a:80")],
    ] {
        let asked = tokio::select! {
            refused = refused(&served, &fields) => refused,
            (_, received) = request(&application, 0) => panic!("{fields:?} reached it: {received}"),
        };
        // A status that is in the table (RFC 7541, Appendix A): 400 is its entry 12, 200 its entry 8.
        assert!(asked.is_none_or(|fields| fields[0] != 0x88), "{fields:?}");
    }
}
