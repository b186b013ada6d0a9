//! Bodies pass through piece by piece.

use tidings_testkit::Connection;

use crate::application::{Raw, ok};

const LARGE_BYTES: usize = 100 << 20;
const PIECE_BYTES: usize = 64 << 10;

/// The most memory that the hub has taken so far.
#[cfg(target_os = "linux")]
fn peak_bytes(hub: &tidings_testkit::Hub) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", hub.pid().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_large_upload_and_a_large_download_take_little_memory() {
    let (raw, hub) = Raw::behind_hub(&[]).await;
    let before = peak_bytes(&hub);
    let piece = vec![b'x'; PIECE_BYTES];
    for is_chunked in [false, true] {
        let uploading = async {
            let mut client = Connection::open(hub.address()).await.unwrap();
            let framing = if is_chunked {
                "Transfer-Encoding: chunked".to_owned()
            } else {
                format!("Content-Length: {LARGE_BYTES}")
            };
            client.send(format!("PUT /large HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")).await.unwrap();
            for _ in 0..LARGE_BYTES / PIECE_BYTES {
                if is_chunked {
                    client.send(format!("{PIECE_BYTES:x}\r\n")).await.unwrap();
                }
                client.send(&piece).await.unwrap();
                if is_chunked {
                    client.send("\r\n").await.unwrap();
                }
            }
            if is_chunked {
                client.send("0\r\n\r\n").await.unwrap();
            }
            let response = client.response().await.unwrap();
            (response.status, response.body.len())
        };
        let storing = async {
            let (mut peer, request) = raw.request().await;
            let mut length = 0;
            if is_chunked {
                assert!(request.contains("transfer-encoding: chunked"), "{request}");
                loop {
                    let mut line = Vec::new();
                    while !line.ends_with(b"\r\n") {
                        line.extend(peer.bytes(1).await);
                    }
                    let line = String::from_utf8(line).unwrap();
                    let size = usize::from_str_radix(line.trim_end(), 16).expect("a bare size");
                    assert_eq!(peer.bytes(size + 2).await.len(), size + 2);
                    length += size;
                    if size == 0 {
                        break;
                    }
                }
            } else {
                assert!(request.contains(&format!("content-length: {LARGE_BYTES}")), "{request}");
                while length < LARGE_BYTES {
                    length += peer.bytes(PIECE_BYTES).await.len();
                }
            }
            assert_eq!(length, LARGE_BYTES);
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE_BYTES}\r\n\r\n")).await;
            for _ in 0..LARGE_BYTES / PIECE_BYTES {
                peer.send(&piece).await;
            }
        };
        let (got, ()) = tokio::join!(uploading, storing);
        assert_eq!(got, (200, LARGE_BYTES));
    }
    let taken = peak_bytes(&hub) - before;
    assert!(taken < 16 << 20, "the hub has taken {taken} bytes");
}

#[tokio::test]
async fn pieces_of_a_body_arrive_before_the_next_ones_are_sent() {
    let (raw, hub) = Raw::behind_hub(&[]).await;
    let mut client = Connection::open(hub.address()).await.unwrap();
    client
        .send("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        .await
        .unwrap();
    let (mut peer, _) = raw.request().await;
    assert_eq!(peer.bytes(8).await, b"3\r\none\r\n");
    client.send("3\r\ntwo\r\n").await.unwrap();
    assert_eq!(peer.bytes(8).await, b"3\r\ntwo\r\n");
    // The response may begin before the request has ended.
    peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await;
    assert_eq!(client.head().await.unwrap().status, 200);
    assert_eq!(client.chunk().await.unwrap().as_deref(), Some(&b"a"[..]));
    client.send("5\r\nthree\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(peer.bytes(15).await, b"5\r\nthree\r\n0\r\n\r\n");
    // Extensions and trailer fields of the application are dropped.
    peer.send("1;x=y\r\nb\r\n0\r\nX-Trailer: 1\r\n\r\n").await;
    assert_eq!(client.chunk().await.unwrap().as_deref(), Some(&b"b"[..]));
    assert_eq!(client.chunk().await.unwrap(), None);
    // The connection is still good.
    client.request("GET /b", b"").await.unwrap();
    let (mut peer, next) = raw.request_after(peer).await;
    assert_eq!(next.lines().next(), Some("GET /b HTTP/1.1"));
    peer.send(ok("b")).await;
    assert_eq!(client.response().await.unwrap().text(), "b");
}

#[tokio::test]
async fn a_body_is_refused_before_it_was_sent() {
    let (raw, hub) = Raw::behind_hub(&[]).await;
    let mut client = Connection::open(hub.address()).await.unwrap();
    client
        .send(format!("PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE_BYTES}\r\n\r\nx"))
        .await
        .unwrap();
    let (mut peer, _) = raw.request().await;
    peer.send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno!").await;
    peer.finish_sending().await;
    let response = client.response().await.unwrap();
    assert_eq!((response.status, response.text().as_str()), (413, "no!"));
    drop(client);
    peer.rest().await;
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_asked_for_its_body() {
    let (raw, hub) = Raw::behind_hub(&[]).await;
    let mut client = Connection::open(hub.address()).await.unwrap();
    client
        .send("POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .await
        .unwrap();
    let (mut peer, request) = raw.request().await;
    assert!(!request.contains("expect"), "{request}");
    assert_eq!(client.head().await.unwrap().status, 100);
    client.send("hello").await.unwrap();
    assert_eq!(peer.bytes(5).await, b"hello");
    peer.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.response().await.unwrap().status, 204);
}

#[tokio::test]
async fn a_client_that_gives_up_ends_the_request_to_the_application() {
    let (raw, hub) = Raw::behind_hub(&[]).await;
    for head in [
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf",
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut client = Connection::open(hub.address()).await.unwrap();
        client.send(head).await.unwrap();
        let (mut peer, _) = raw.request().await;
        drop(client);
        let rest = peer.rest().await;
        // What has arrived must not look like a whole body.
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&rest));
    }
}

#[tokio::test]
async fn a_client_that_sends_nothing_more_of_its_body_is_refused() {
    let (raw, hub) = Raw::behind_hub(&["--body-secs", "1"]).await;
    let mut client = Connection::open(hub.address()).await.unwrap();
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").await.unwrap();
    let (mut peer, _) = raw.request().await;
    assert_eq!(client.response().await.unwrap().status, 408);
    assert_eq!(peer.rest().await, b"half");
}
