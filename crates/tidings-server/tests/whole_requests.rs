//! A complete request is answered without hyper, and clients cannot distinguish it: the same
//! requests are sent to both paths, and the bytes of the responses are compared. A HEAD request
//! selects the other path, since the connection then stays with hyper.

mod served_support;
mod support;

use std::sync::atomic::Ordering::Relaxed;

use served_support::Served;
use support::within;
use tidings_server::{ConnectionSettings, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HEAD: &str = "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The responses to these bytes, after those that are skipped; without the date.
async fn responses(served: &Served, sent: &str, answers_before: usize) -> String {
    let mut socket = served.send(sent).await;
    socket.get_mut().shutdown().await.expect("the sending side closes");
    let mut raw = Vec::new();
    within(socket.read_to_end(&mut raw)).await.expect("an end");
    let raw = String::from_utf8(raw).expect("text");
    let answers = raw.splitn(answers_before + 1, "\r\n\r\n").last().expect("at least one");
    answers.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}

fn request(line: &str, fields: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{line} HTTP/1.1\r\nHost: localhost\r\n{fields}{length}\r\n{body}")
}

#[tokio::test]
async fn both_paths_respond_with_the_same_bytes() {
    let mut settings = Settings::default();
    settings.body_bytes_max = 1_000;
    let served = Served::start_with(settings, ConnectionSettings::default()).await;
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let large = "x".repeat(1_001);
    let requests = [
        request("POST /topics/chat?id=1", "", "hello"),
        request("POST /topics/chat?id=2", "Connection: keep-alive\r\n", "hello"),
        request("POST /topics/chat?id=3", "Connection: Keep-Alive\r\nX: \u{e9}\r\nX: two\r\n", "hello"),
        request("POST http://localhost/topics/chat?id=4", "", "hello"),
        request("POST /topics/chat?id=5", "Connection: close\r\n", "hello"),
        request("POST /topics/chat?id=6", "Expect: 100-continue\r\n", "hello"),
        request("POST /topics/chat?id=7", "Origin: http://localhost:1\r\n", "hello"),
        request("POST /topics/chat?id=8", "Origin: https://elsewhere.example\r\n", "hello"),
        request("POST /topics/chat?id=9", "Content-Length: 0\r\n", ""),
        request("POST /topics/chat?id=10", "", ""),
        request("POST /topics/chat?id=a%0Ab", "", "a line feed in an id"),
        request("POST /topics/chat", "", &large),
        request("POST /topics/a%2Fb%00?id=11", "", "a control character"),
        request("POST /topics", "", "{\"topic\":\"chat\",\"data\":\"x\",\"id\":\"12\"}\n"),
        request("POST /.well-known/mercure", form, "topic=a&data=b&id=13"),
        request("POST /.well-known/mercure", "", "topic=a&data=b"),
        request("POST /nowhere", "", "hello"),
        request("POST /healthz", "", "hello"),
        request("GET /healthz", "", ""),
        request("GET /healthz", "", "a body that is not read"),
        request("GET /", "Accept: text/html\r\n", ""),
        request("GET /assets/viewer.js", "", ""),
        request("GET /stream", "", ""),
        request("GET /topics/other", "Accept: application/json\r\n", ""),
        "GET /healthz HTTP/1.0\r\n\r\n".to_owned(),
        "POST /topics/chat?id=14 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            .to_owned(),
        "\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
    ];
    for request in &requests {
        let whole = responses(&served, request, 0).await;
        let by_hyper = responses(&served, &format!("{HEAD}{request}"), 1).await;
        assert_eq!(whole, by_hyper, "{request}");
        assert!(whole.starts_with("HTTP/1.1 ") || whole.starts_with("HTTP/1.0 "), "{request}: {whole}");
    }
    // Pipelined on one connection: complete requests, then one that is not, and complete ones
    // again. (The summary names the end of the log, which moves.)
    let in_row =
        |request: &&String| [": close", "HTTP/1.0", "/topics/other"].iter().all(|no| !request.contains(no));
    let row: String = requests.iter().filter(in_row).cloned().collect();
    assert_eq!(responses(&served, &row, 0).await, responses(&served, &format!("{HEAD}{row}"), 1).await);
}

/// Parts of a request may arrive at any time: then hyper serves it, with everything that has
/// arrived.
#[tokio::test]
async fn a_request_split_anywhere_is_answered_alike() {
    let served = Served::start(true).await;
    let request = request("POST /topics/chat?id=1", "", "hello");
    let expected = responses(&served, &request, 0).await;
    for cut in 1..request.len() {
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
        let raw: String = raw.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect();
        assert_eq!(raw, expected, "cut at {cut}");
    }
}
