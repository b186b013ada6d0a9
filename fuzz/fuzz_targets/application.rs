//! Any answer of an application that decides about streams, its header `Tidings-Subscribe` above all:
//! the client gets a stream, the application's own response, or an error that blames the
//! application; never a stream without the header, and nothing panics.

#![no_main]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{LazyLock, Mutex},
    time::Duration,
};

use arbitrary::Arbitrary;
use axum::{Router, body::Body};
use http::{Request, Response};
use libfuzzer_sys::fuzz_target;
use tidings::Hub;
use tidings_server::{Applications, AuthorizedPath, Settings, router};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tower::ServiceExt;

/// What the application answers next.
static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

static HUB: LazyLock<Router> = LazyLock::new(|| {
    RUNTIME.block_on(async {
        let application =
            TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.expect("a port");
        let address = application.local_addr().expect("an address");
        tokio::spawn(async move {
            loop {
                let (client, _) = application.accept().await.expect("a connection");
                tokio::spawn(serve(client));
            }
        });
        let path = AuthorizedPath::new("/stream", &format!("http://{address}/stream")).expect("a path");
        let mut settings = Settings::default();
        settings.authorize =
            Applications::new(&[path.with_time(Duration::from_secs(5))], Applications::REQUESTS_MAX_DEFAULT);
        router(Hub::in_memory().await, None, settings)
    })
});

/// Answers each request on a connection. What is no response that can be followed by another one
/// ends the connection.
async fn serve(mut client: TcpStream) {
    let mut request = Vec::new();
    loop {
        request.clear();
        while !request.ends_with(b"\r\n\r\n") {
            match client.read_u8().await {
                Ok(byte) => request.push(byte),
                Err(_) => return,
            }
        }
        let answer = ANSWER.lock().expect("no panic").clone();
        let is_kept = answer.ends_with(b"\r\ncontent-length: 0\r\n\r\n");
        if client.write_all(&answer).await.is_err() || !is_kept {
            return;
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Answer<'a> {
    /// 200 with this header.
    Subscribe(&'a [u8]),
    /// With several of these headers.
    Several(Vec<&'a [u8]>),
    /// Any bytes.
    Raw(&'a [u8]),
}

fuzz_target!(|answer: Answer<'_>| {
    let (bytes, is_raw) = match answer {
        Answer::Subscribe(value) => (headers(&[value]), false),
        Answer::Several(values) => (headers(&values), false),
        Answer::Raw(bytes) => (bytes.to_vec(), true),
    };
    let grants = contains(&bytes, b"tidings-subscribe");
    // A header of every stream of the hub, and of no other response of it.
    let is_own = !contains(&bytes, b"x-accel-buffering");
    ANSWER.lock().expect("no panic").clone_from(&bytes);
    LazyLock::force(&HUB);
    RUNTIME.block_on(async {
        let request = Request::get("/stream?topic=a").header("host", "localhost").body(Body::empty());
        let answering = HUB.clone().oneshot(request.expect("a request"));
        let response: Response<Body> = answering.await.expect("a router never fails");
        let status = response.status().as_u16();
        let is_stream = response.headers().contains_key("x-accel-buffering") && is_own;
        assert!(grants || !is_stream, "a stream that no application has granted");
        assert!(!response.headers().contains_key("tidings-subscribe"), "the header reached the client");
        if grants && !is_raw && !is_stream {
            assert!(matches!(status, 429 | 502..=504), "{status}");
        }
    });
});

/// A response whose header has these values; line breaks would begin another header.
fn headers(values: &[&[u8]]) -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 200 OK\r\n".to_vec();
    for value in values {
        bytes.extend_from_slice(b"tidings-subscribe: ");
        bytes.extend(value.iter().filter(|byte| **byte >= b' ' && **byte != 127 || **byte == b'\t'));
        bytes.extend_from_slice(b"\r\n");
    }
    // The end that the application recognises.
    bytes.extend_from_slice(b"content-length: 0\r\n\r\n");
    bytes
}

fn contains(bytes: &[u8], name: &[u8]) -> bool {
    bytes.to_ascii_lowercase().windows(name.len()).any(|window| window == name)
}
