//! An application that is down, restarts, hangs or is asked too much.

use tidings_testkit::{Application, Connection, EventStream, Hub, Reply};
use tokio::net::{TcpListener, TcpSocket};

use crate::application::{Raw, ok};

/// A port on which nothing listens before [`TcpSocket::listen`].
fn down() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    (socket, url)
}

async fn serve(listener: TcpListener, count: usize) -> Vec<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut requests = Vec::new();
    while requests.len() < count {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; 4096];
        let read = stream.read(&mut bytes).await.unwrap();
        // A connection of the hub that only asks whether somebody listens.
        if read > 0 {
            stream
                .write_all(ok("back").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes())
                .await
                .unwrap();
            requests.push(String::from_utf8_lossy(&bytes[..read]).into_owned());
        }
    }
    requests
}

#[tokio::test]
async fn requests_wait_for_an_application_that_restarts_and_their_bodies_are_whole() {
    let (socket, url) = down();
    let mut hub = Hub::serve(&["--upstream", &url]).await.unwrap();
    let mut stream = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
    let mut clients = Vec::new();
    for (head, body) in [("GET /a", &b""[..]), ("POST /b", b"hello"), ("PUT /c", b"world"), ("GET /d", b"")] {
        let mut client = Connection::open(hub.address()).await.unwrap();
        client.request(head, body).await.unwrap();
        clients.push(client);
    }
    // A stream neither needs the application nor waits for it.
    hub.publish("chat", "meanwhile").await.unwrap();
    assert_eq!(stream.messages(1).await.unwrap(), ["meanwhile"]);
    let serving = serve(socket.listen(16).unwrap(), clients.len());
    let receiving = async {
        for client in &mut clients {
            assert_eq!(client.response().await.unwrap().text(), "back");
        }
    };
    let (mut requests, ()) = tokio::join!(serving, receiving);
    requests.sort();
    let ends: Vec<_> = requests.iter().map(|request| request.rsplit("\r\n\r\n").next().unwrap()).collect();
    assert_eq!(ends, ["", "", "hello", "world"]);
    hub.publish("chat", "after").await.unwrap();
    assert_eq!(stream.messages(1).await.unwrap(), ["after"]);
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn an_application_that_stays_down_is_502_and_an_event_source_tries_again() {
    let (_socket, url) = down();
    let mut hub = Hub::serve(&["--upstream", &url, "--upstream-wait-secs", "1"]).await.unwrap();
    for (head, body) in [("GET /a", &b""[..]), ("POST /a", b"hello")] {
        let response = hub.request(head, body).await.unwrap();
        assert_eq!(response.status, 502, "{head}: {response}");
        assert!(response.header("retry-after").is_some(), "{response}");
        assert_eq!(response.header("cache-control"), Some("no-store"));
    }
    let response =
        hub.request("GET /stream\nAccept: text/event-stream\nCache-Control: no-cache", b"").await.unwrap();
    assert_eq!((response.status, response.header("content-type")), (200, Some("text/event-stream")));
    assert!(response.text().contains("retry: "), "{response}");
    let page = hub.request("GET /a\nAccept: text/html", b"").await.unwrap();
    assert_eq!((page.status, page.header("content-type")), (502, Some("text/html; charset=utf-8")));
    let line = hub.printed("requests have no response of the application").await.unwrap();
    assert!(line.contains(&url) && line.contains("unreachable=1"), "{line}");
}

#[tokio::test]
async fn an_application_that_does_not_answer_is_504() {
    let (raw, hub) = Raw::behind_hub(&["--upstream-secs", "1"]).await;
    let (response, (mut peer, _)) = tokio::join!(hub.request("POST /a", b"hello"), raw.request());
    assert_eq!(response.unwrap().status, 504);
    assert_eq!(peer.rest().await, b"hello");
}

#[tokio::test]
async fn a_request_is_repeated_only_if_it_may_be() {
    let (raw, hub) = Raw::behind_hub(&[]).await;
    // The application closes a connection before it answers, as when it ends.
    for (head, body, is_repeated) in [
        ("GET /a", &b""[..], true),
        ("HEAD /a", b"", true),
        ("DELETE /a", b"", true),
        ("POST /a", b"", false),
        ("PUT /a", b"hello", false),
        ("PATCH /a", b"", false),
    ] {
        let mut client = Connection::open(hub.address()).await.unwrap();
        client.request(head, body).await.unwrap();
        let (peer, request) = raw.request().await;
        assert!(request.starts_with(head));
        drop(peer);
        if is_repeated {
            let again = raw.answer(&ok("")).await;
            assert!(again.starts_with(head), "{again}");
        }
        let status = client.head().await.unwrap().status;
        assert_eq!(status, if is_repeated { 200 } else { 502 }, "{head}");
    }
}

#[tokio::test]
async fn a_request_that_ends_every_connection_is_repeated_once() {
    let application = Application::start(|_| Reply::Close(String::new())).await.unwrap();
    let hub = Hub::serve(&["--upstream", &application.url("")]).await.unwrap();
    assert_eq!(hub.request("GET /poison", b"").await.unwrap().status, 502);
    assert_eq!(application.requests().len(), 2);
}

#[tokio::test]
async fn more_requests_than_may_be_under_way_are_refused_and_streams_are_not() {
    let (raw, hub) = Raw::behind_hub(&["--upstream-requests-max", "1"]).await;
    let mut client = Connection::open(hub.address()).await.unwrap();
    client.request("GET /slow", b"").await.unwrap();
    let (mut peer, _) = raw.request().await;
    let refused = hub.request("GET /a", b"").await.unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some(), "{refused}");
    let mut stream = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
    hub.publish("chat", "x").await.unwrap();
    assert_eq!(stream.messages(1).await.unwrap(), ["x"]);
    // It is under way until its body has ended.
    peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await;
    assert_eq!(client.head().await.unwrap().status, 200);
    assert_eq!(hub.request("GET /a", b"").await.unwrap().status, 503);
    peer.send("0\r\n\r\n").await;
    while client.chunk().await.unwrap().is_some() {}
    let (served, ()) = tokio::join!(hub.request("GET /a", b""), async {
        let (mut peer, request) = raw.request_after(peer).await;
        assert!(request.starts_with("GET /a "));
        peer.send(ok("")).await;
    });
    assert_eq!(served.unwrap().status, 200);
}

#[tokio::test]
async fn requests_that_wait_for_the_application_keep_no_others_waiting() {
    let (raw, hub) = Raw::behind_hub(&["--requests-max", "1", "--authorize-requests-max", "1"]).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut client = Connection::open(hub.address()).await.unwrap();
        client.request("GET /slow", b"").await.unwrap();
        waiting.push((client, raw.request().await));
    }
    assert_eq!(hub.request("POST /topics/chat", b"x").await.unwrap().status, 200);
}
