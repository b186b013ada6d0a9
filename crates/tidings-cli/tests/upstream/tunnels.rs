//! WebSockets.

use futures_util::{SinkExt, StreamExt};
use tidings_testkit::{Certificate, Connection, Hub, Signal, TlsClient, patiently};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    accept_async, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::application::{Raw, ok};

/// The headers of a request for a WebSocket, as a browser sends them.
const ASK: &str = "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// Sends back each message of a WebSocket.
async fn serve_echo(listener: &TcpListener) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut socket = accept_async(stream).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        if message.is_close() {
            break;
        }
        socket.send(message).await.unwrap();
    }
}

#[tokio::test]
async fn a_websocket_carries_messages_in_both_directions_until_it_is_closed() {
    let (listener, url) = listen().await;
    let hub = Hub::serve(&["--upstream", &url]).await.unwrap();
    let conversing = async {
        let stream = TcpStream::connect(hub.address()).await.unwrap();
        let request = format!("ws://{}/socket", hub.address()).into_client_request().unwrap();
        let (mut socket, response) = client_async(request, stream).await.unwrap();
        assert_eq!(response.status(), 101);
        let large = Message::binary(vec![7; 1 << 20]);
        for message in [Message::text("hello"), large, Message::text("")] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), message);
        }
        socket.close(None).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    };
    let both = async { tokio::join!(conversing, serve_echo(&listener)) };
    patiently("the conversation", Box::pin(both)).await.unwrap();
}

#[tokio::test]
async fn a_websocket_over_tls_is_decrypted_for_the_application() {
    let (listener, url) = listen().await;
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::create(folder.path(), "hub", &["127.0.0.1"]).unwrap();
    let [file, key] = [&certificate.certificate, &certificate.key].map(|path| path.to_str().unwrap());
    let hub = Hub::serve(&["--upstream", &url, "--tls-certificate", file, "--tls-key", key]).await.unwrap();
    let client = TlsClient::trusting(&certificate.certificate).unwrap();
    let conversing = async {
        let mut connection = Connection::open_tls(hub.address(), &client, "127.0.0.1").await.unwrap();
        // With the request, the first bytes of the new protocol.
        connection.send(format!("{ASK}early")).await.unwrap();
        let switched = connection.head().await.unwrap();
        assert_eq!(switched.status, 101);
        assert_eq!(switched.header("connection"), Some("upgrade"));
        assert_eq!(switched.header("upgrade"), Some("websocket"));
        assert_eq!(switched.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        connection.send("later").await.unwrap();
        connection.finish_sending().await.unwrap();
        connection.rest().await.unwrap()
    };
    let serving = async {
        let mut peer = crate::application::Peer::accepted(&listener).await;
        let request = peer.request_or_end().await.expect("a request");
        assert!(
            request.contains("connection: upgrade") && request.contains("upgrade: websocket"),
            "{request}"
        );
        assert!(request.contains("x-forwarded-proto: https"), "{request}");
        peer.send(format!("{SWITCH}first")).await;
        // The client has ended its side, and still receives.
        assert_eq!(peer.rest().await, b"earlylater");
        peer.send("last").await;
    };
    let (received, ()) = tokio::join!(conversing, serving);
    assert_eq!(received, b"firstlast");
}

#[tokio::test]
async fn the_application_may_refuse_a_websocket() {
    let (raw, hub) = Raw::behind_hub(&[]).await;
    let mut client = Connection::open(hub.address()).await.unwrap();
    client.send(format!("{ASK}GET /next HTTP/1.1\r\nHost: a\r\n\r\n")).await.unwrap();
    let (mut peer, _) = raw.request().await;
    peer.send("HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno").await;
    let refused = client.response().await.unwrap();
    assert_eq!((refused.status, refused.text().as_str()), (426, "no"));
    // No tunnel was opened: what follows is a request.
    let (mut peer, next) = raw.request_after(peer).await;
    assert!(next.starts_with("GET /next "));
    peer.send(ok("next")).await;
    assert_eq!(client.response().await.unwrap().text(), "next");
}

/// A tunnel to a server that speaks another protocol would carry requests past the hub.
#[tokio::test]
async fn no_other_protocol_is_changed_to() {
    let (raw, hub) = Raw::behind_hub(&[]).await;
    let (host, end) = (
        "Host: a\r\nConnection: Upgrade, HTTP2-Settings",
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
    );
    for request in [
        format!("GET /a HTTP/1.1\r\n{host}\r\nUpgrade: h2c\r\n{end}"),
        format!("GET /a HTTP/1.1\r\n{host}\r\nUpgrade: h2c, websocket\r\n{end}"),
        format!("GET /a HTTP/1.1\r\n{host}\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n{end}"),
        format!("POST /a HTTP/1.1\r\n{host}\r\nUpgrade: websocket\r\nContent-Length: 0\r\n{end}"),
        format!("GET /a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n{end}"),
    ] {
        let mut client = Connection::open(hub.address()).await.unwrap();
        client.send(&request).await.unwrap();
        let (mut peer, received) = raw.request().await;
        assert!(!received.contains("pgrade"), "{received}");
        // An application that changes to it anyway is not followed.
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await;
        assert_eq!(client.head().await.unwrap().status, 502, "{request}");
    }
}

#[tokio::test]
async fn a_tunnel_is_one_request_and_one_connection_for_the_limits() {
    let (raw, hub) = Raw::behind_hub(&["--upstream-requests-max", "1"]).await;
    let mut client = Connection::open(hub.address()).await.unwrap();
    client.send(ASK).await.unwrap();
    let (mut peer, _) = raw.request().await;
    peer.send(SWITCH).await;
    assert_eq!(client.head().await.unwrap().status, 101);
    assert_eq!(hub.request("GET /a", b"").await.unwrap().status, 503);
    client.reset().unwrap();
    peer.rest().await;
    drop(peer);
    let empty = ok("");
    let (response, _) = tokio::join!(hub.request("GET /a", b""), raw.answer(&empty));
    assert_eq!(response.unwrap().status, 200);
}

#[tokio::test]
async fn a_tunnel_lasts_until_the_hub_has_drained() {
    let (raw, mut hub) = Raw::behind_hub(&["--drain-secs", "2"]).await;
    let mut client = Connection::open(hub.address()).await.unwrap();
    client.send(ASK).await.unwrap();
    let (mut peer, _) = raw.request().await;
    peer.send(SWITCH).await;
    assert_eq!(client.head().await.unwrap().status, 101);
    hub.signal(Signal::TERM).unwrap();
    hub.printed("draining connections").await.unwrap();
    client.send("still").await.unwrap();
    assert_eq!(peer.bytes(5).await, b"still");
    assert!(hub.stopped().await.unwrap().success());
    assert_eq!(client.rest().await.unwrap(), b"");
    assert_eq!(peer.rest().await, b"");
}
