//! Applications that decide about streams, and clients that do not read what these answer.

use http::StatusCode;
use http_body_util::BodyExt;
use tidings_server::{Applications, AuthorizedPath, Settings};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::*;

/// An application that refuses all streams with a body of this many bytes, and its URL.
async fn refusing_application(bytes: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("it listens"));
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            tokio::spawn(async move {
                let _ = socket.read(&mut [0; 4_096]).await;
                let head = "HTTP/1.1 403 Forbidden\r\nConnection: close\r\n";
                let response = format!("{head}Content-Length: {bytes}\r\n\r\n{}", "x".repeat(bytes));
                let _ = socket.write_all(response.as_bytes()).await;
            });
        }
    });
    url
}

#[tokio::test]
async fn answers_of_an_application_that_nobody_reads_take_a_bounded_memory() {
    const ANSWER_BYTES: usize = 300_000;
    let url = refusing_application(ANSWER_BYTES).await;
    let mut settings = Settings::default();
    settings.authorize = Applications::new(&[AuthorizedPath::new("/stream", &url).expect("a path")], 128);
    settings.responses_bytes_max = 4 * ANSWER_BYTES;
    let api = keyless_with(settings).await;
    let mut held = Vec::new();
    for _ in 0..10 {
        let response = api.get("/stream").from("127.0.0.1:7").send().await;
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            break;
        }
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        held.push(response);
    }
    assert!((1..=4).contains(&held.len()), "{}", held.len());
    // Publishing is not affected, and reading makes room.
    api.post("/topics/a", "x").answer().await.id();
    let read = held.remove(0).into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(read.len(), ANSWER_BYTES);
    drop(read);
    assert_eq!(api.get("/stream").from("127.0.0.1:7").send().await.status(), StatusCode::FORBIDDEN);
}
