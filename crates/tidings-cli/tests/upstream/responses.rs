//! Responses of the application reach the client as they are, or as a refusal.

use std::time::Duration;

use tidings_testkit::{Connection, Hub};
use tokio::time::timeout;

use crate::application::{Raw, ok};

/// What a client receives of a response to `GET /a`, after which the application closes.
async fn relayed(raw: &Raw, hub: &Hub, method: &str, response: &str) -> String {
    let mut client = Connection::open(hub.address()).await.unwrap();
    client.request(&format!("{method} /a\nConnection: close"), b"").await.unwrap();
    let (mut peer, _) = raw.request().await;
    peer.send(response).await;
    drop(peer);
    let received = client.rest().await.unwrap();
    let text = String::from_utf8_lossy(&received).into_owned();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("date: ")).collect();
    lines.join("\n") + "\n"
}

#[tokio::test]
async fn responses_without_a_body_keep_the_length_that_they_declare() {
    let (raw, hub) = Raw::behind_hub(&[]).await;
    for (method, response, expected) in [
        (
            "HEAD",
            "200 OK\r\nContent-Length: 1234\r\n\r\n",
            "200 OK\nconnection: close\ncontent-length: 1234\n\n",
        ),
        ("HEAD", "200 OK\r\n\r\n", "200 OK\nconnection: close\n\n"),
        ("GET", "204 No Content\r\nX-A: 1\r\n\r\n", "204 No Content\nx-a: 1\nconnection: close\n\n"),
        (
            "GET",
            "304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 1234\r\n\r\n",
            "304 Not Modified\netag: \"a\"\nconnection: close\ncontent-length: 1234\n\n",
        ),
        ("GET", "200 OK\r\nContent-Length: 0\r\n\r\n", "200 OK\nconnection: close\ncontent-length: 0\n\n"),
        (
            "GET",
            "299 Odd\r\nContent-Length: 1\r\n\r\nx",
            "299 <none>\nconnection: close\ncontent-length: 1\n\nx\n",
        ),
    ] {
        let got = relayed(&raw, &hub, method, &format!("HTTP/1.1 {response}")).await;
        assert_eq!(got, format!("HTTP/1.1 {expected}"), "{method} {response}");
    }
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_is_framed_for_the_client() {
    let (raw, hub) = Raw::behind_hub(&[]).await;
    for response in ["HTTP/1.0 200 OK\r\n\r\nhello", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"] {
        let got = relayed(&raw, &hub, "GET", response).await;
        assert!(got.ends_with("transfer-encoding: chunked\n\n5\nhello\n0\n\n"), "{got}");
    }
    let got = relayed(&raw, &hub, "GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
    assert!(got.ends_with("content-length: 5\n\nhello\n"), "{got}");
}

#[tokio::test]
async fn interim_responses_are_dropped() {
    let (raw, hub) = Raw::behind_hub(&[]).await;
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(3);
    let got = relayed(&raw, &hub, "GET", &format!("{hints}{}", ok("hello"))).await;
    assert!(got.starts_with("HTTP/1.1 200 OK\n") && !got.contains("link"), "{got}");
}

#[tokio::test]
async fn a_length_next_to_an_encoding_does_not_count() {
    let (raw, hub) = Raw::behind_hub(&[]).await;
    let response =
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let got = relayed(&raw, &hub, "GET", response).await;
    assert!(got.ends_with("5\nhello\n0\n\n") && !got.contains("content-length"), "{got}");
}

#[tokio::test]
async fn a_response_that_cannot_be_understood_is_502() {
    let (raw, hub) = Raw::behind_hub(&[]).await;
    let many = format!("200 OK\r\n{}\r\n", "X-A: 1\r\n".repeat(101));
    let large = format!("200 OK\r\nX-A: {}\r\n\r\n", "x".repeat(200_000));
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: 1\r\n folded\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX A: 1\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "nonsense\r\n\r\n",
        "",
        &format!("HTTP/1.1 {many}"),
        &format!("HTTP/1.1 {large}"),
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let asking = hub.request("POST /a", b"");
        let answering = async {
            let (mut peer, _) = raw.request().await;
            peer.send(response).await;
        };
        let (got, ()) = tokio::join!(asking, answering);
        let got = got.unwrap();
        assert_eq!(got.status, 502, "{response:.60}: {got}");
        assert_eq!(got.header("content-type"), Some("application/problem+json"));
    }
}

#[tokio::test]
async fn a_response_that_ends_early_ends_early_for_the_client() {
    let (raw, hub) = Raw::behind_hub(&[]).await;
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nx",
    ] {
        let mut client = Connection::open(hub.address()).await.unwrap();
        client.request("GET /a", b"").await.unwrap();
        let (mut peer, _) = raw.request().await;
        peer.send(response).await;
        drop(peer);
        client.response().await.expect_err("the end is missing");
    }
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_waited_for_and_slows_the_application_down() {
    const PIECE_BYTES: usize = 1 << 20;
    let (raw, hub) = Raw::behind_hub(&["--response-secs", "1"]).await;
    let mut client = Connection::open_narrow(hub.address(), 4096).await.unwrap();
    client.request("GET /a", b"").await.unwrap();
    let (mut peer, _) = raw.request().await;
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status, 200);
    let mut sent = 0;
    let piece = vec![b'x'; PIECE_BYTES];
    // Nothing is read: the application can send what fits into the buffers, and no more.
    while timeout(Duration::from_secs(2), peer.send(&piece)).await.is_ok() {
        sent += PIECE_BYTES;
        assert!(sent < 32 << 20, "{sent} bytes were taken from the application and not delivered");
    }
    // After more than `response_secs` the client is still connected: it is the application's response.
    assert_eq!(client.bytes(PIECE_BYTES).await.unwrap().len(), PIECE_BYTES);
}

#[tokio::test]
async fn a_method_that_shows_a_page_its_own_cookies_is_not_forwarded() {
    let (raw, hub) = Raw::behind_hub(&[]).await;
    assert_eq!(hub.request("TRACE /a", b"").await.unwrap().status, 405);
    assert_eq!(hub.request("OPTIONS *", b"").await.unwrap().status, 204);
    assert!(raw.is_untouched().await);
}
