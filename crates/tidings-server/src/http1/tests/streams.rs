//! What a client does while it receives a stream.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_client_is_gone() {
    let mut client = Client::connect();
    client.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_until(": hi\n").await;
    sleep(Duration::from_secs(1_000)).await;
    assert!(!client.is_ended(), "silence alone ends no stream");
    client.io.shutdown().await.expect("shut");
    client.ended().await;
    assert!(client.stream.dropped.load(Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_also_when_its_client_was_gone_before_it_began() {
    let mut client = Client::connect();
    client.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.io.shutdown().await.expect("shut");
    client.ended().await;
    assert!(client.stream.dropped.load(Relaxed));
}

/// A wake-up that answers itself would burn a processor for as long as the stream lasts.
#[tokio::test(start_paused = true)]
async fn a_stream_whose_request_broke_off_sleeps_like_any_other() {
    for body in ["", "x", "xx"] {
        for framing in ["Content-Length: 2", "Transfer-Encoding: chunked"] {
            let mut client = Client::connect();
            client
                .send(format!("GET /stream HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{body}").as_bytes())
                .await;
            client.io.shutdown().await.expect("shut");
            for _ in 0..1_000 {
                yield_now().await;
            }
            assert!(client.stream.polls.load(Relaxed) < 20, "{framing} {body:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_keeps_sending_behind_a_stream_request_is_cut() {
    let mut client = Client::connect();
    client.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_until(": hi\n").await;
    client.send(&[b'x'; 1024]).await;
    sleep(Duration::from_secs(1)).await;
    assert!(!client.is_ended(), "a little is put up with");
    client.send(&[b'x'; 8 * 1024]).await;
    client.ended().await;
    assert!(client.stream.dropped.load(Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_sent_much_behind_a_stream_request_is_cut_without_waiting_for_an_event() {
    let mut client = Client::connect();
    client.send(&[b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n", &[b'x'; 16 * 1024][..]].concat()).await;
    client.ended().await;
    assert!(client.stream.dropped.load(Relaxed));
}
