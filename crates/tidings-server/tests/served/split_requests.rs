//! Parts of a request may arrive at any time: the response does not depend on it.

use std::sync::atomic::Ordering::Relaxed;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{served_support::Served, support::within};

/// The response, without the date.
fn without_date(raw: &str) -> String {
    raw.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}

const POST: &str = "POST /topics/chat?id=1 HTTP/1.1\r\nHost: localhost\r\n";

#[tokio::test]
async fn a_request_split_anywhere_is_answered_alike() {
    let served = Served::start().await;
    let sized = format!("{POST}Content-Length: 5\r\n\r\nhello");
    let chunked =
        format!("{POST}Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\n");
    let mut expected = None;
    for request in [sized, chunked] {
        // The last cut is behind the request: it arrives whole.
        for cut in 1..=request.len() {
            let (front, rest) = request.split_at(cut);
            let before = served.metrics.requests.load(Relaxed);
            let mut socket = served.send(front).await;
            if front.contains("\r\n\r\n") {
                // The headers are complete: the service sees the request, and waits for the body.
                within(async {
                    while served.metrics.requests.load(Relaxed) == before {
                        tokio::task::yield_now().await;
                    }
                })
                .await;
            }
            socket.get_mut().write_all(rest.as_bytes()).await.expect("the peer reads");
            socket.get_mut().shutdown().await.expect("the sending side closes");
            let mut raw = String::new();
            within(socket.read_to_string(&mut raw)).await.expect("an end");
            let answer = without_date(&raw);
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "cut at {cut}: {answer}");
            assert_eq!(&answer, expected.get_or_insert_with(|| answer.clone()), "cut at {cut} of {request}");
        }
    }
}
