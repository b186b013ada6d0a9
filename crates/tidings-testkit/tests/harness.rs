//! Tests of the test kit itself: it distinguishes pauses, cuts and clean ends correctly.

use std::net::SocketAddr;
use std::time::Duration;

use tidings_testkit::{Connection, EventStream, FaultProxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const ONE: &str = "f\r\nid: 1\ndata: 1\n\n\r\n";
const TWO: &str = "f\r\nid: 2\ndata: 2\n\n\r\n";
const LAST_CHUNK: &str = "0\r\n\r\n";

/// Answers one request with these bytes after the headers, then returns the connection.
async fn answering(body: &'static str) -> (SocketAddr, tokio::task::JoinHandle<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        stream.write_all([HEAD, body].concat().as_bytes()).await.unwrap();
        stream
    });
    (address, served)
}

#[tokio::test]
async fn a_clean_end_differs_from_a_cut() {
    let (address, served) = answering("f\r\nid: 1\ndata: 1\n\n\r\n0\r\n\r\n").await;
    let mut clean = EventStream::open(address, "/stream").await.unwrap();
    assert_eq!(clean.next().await.unwrap().last_event_id, "1");
    assert!(clean.next_or_end().await.unwrap().is_none());
    drop(served.await.unwrap());

    let (address, served) = answering(ONE).await;
    let mut cut = EventStream::open(address, "/stream").await.unwrap();
    assert_eq!(cut.messages(1).await.unwrap(), ["1"]);
    drop(served.await.unwrap());
    assert!(
        cut.next_or_end().await.is_err(),
        "the end of the connection alone is not the end of a chunked stream"
    );
}

#[tokio::test]
async fn a_paused_proxy_passes_nothing_and_then_everything() {
    let (address, served) = answering(ONE).await;
    let mut proxy = FaultProxy::start(address).await.unwrap();
    let mut stream = EventStream::open(proxy.address(), "/stream").await.unwrap();
    assert_eq!(stream.messages(1).await.unwrap(), ["1"]);
    proxy.connections_reach(1).await.unwrap();
    let mut hub = served.await.unwrap();

    proxy.pause();
    let passed = proxy.bytes_to_client();
    hub.write_all([TWO, LAST_CHUNK].concat().as_bytes()).await.unwrap();
    let mut connection = stream.into_connection();
    assert!(connection.is_silent_for(Duration::from_millis(100)).await);
    assert_eq!(proxy.bytes_to_client(), passed);

    proxy.resume();
    assert_eq!(connection.chunk().await.unwrap().as_deref(), Some(&b"id: 2\ndata: 2\n\n"[..]));
    assert_eq!(connection.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn a_cut_resets_both_sides() {
    let (address, served) = answering(ONE).await;
    let proxy = FaultProxy::start(address).await.unwrap();
    let mut stream = EventStream::open(proxy.address(), "/stream").await.unwrap();
    assert_eq!(stream.messages(1).await.unwrap(), ["1"]);
    let mut hub = served.await.unwrap();

    proxy.cut();
    assert!(stream.next().await.is_err());
    assert!(hub.read_u8().await.is_err());
}

#[tokio::test]
async fn a_body_is_read_by_its_framing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nX-A: b\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n")
            .await
            .unwrap();
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nto the end").await.unwrap();
    });
    let mut connection = Connection::open(address).await.unwrap();
    let refused = connection.response().await.unwrap();
    assert_eq!((refused.status, refused.header("x-a"), refused.text().as_str()), (400, Some("b"), "no"));
    assert_eq!(connection.response().await.unwrap().text(), "yes");
    assert_eq!(connection.response().await.unwrap().status, 204);
    assert_eq!(connection.response().await.unwrap().text(), "to the end");
}
