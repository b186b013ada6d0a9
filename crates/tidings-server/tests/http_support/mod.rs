//! A tiny application on a real loopback socket, and clients that send raw bytes.

#![allow(dead_code, unreachable_pub, reason = "every test binary uses its own part of this")]

use std::{convert::Infallible, io::Write, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Extension, Request, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{StreamExt, stream};
use http::{StatusCode, header};
use tidings_server::{
    BodyError, ConnectionMetrics, ConnectionSettings, Drain, Listener, NoCapacity, read_body, serve,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

/// How long a test waits for the peer before it fails. No test depends on it being short.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most bytes that `/echo` accepts.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// A server with a tiny application.
pub struct Server {
    pub address: SocketAddr,
    pub metrics: Arc<ConnectionMetrics>,
    /// Receives a message whenever a stream ends.
    pub streams_ended: mpsc::UnboundedReceiver<()>,
    stop: oneshot::Sender<Drain>,
    task: JoinHandle<()>,
}

impl Server {
    pub fn start() -> Self {
        Self::start_with(ConnectionSettings::default())
    }

    pub fn start_with(settings: ConnectionSettings) -> Self {
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        Self::start_on(listener, settings)
    }

    pub fn start_on(listener: Listener, settings: ConnectionSettings) -> Self {
        let address = listener.local_addr().expect("an address");
        let metrics = Arc::<ConnectionMetrics>::default();
        let (stop, stopped) = oneshot::channel();
        let (ended, streams_ended) = mpsc::unbounded_channel();
        let shutdown = async { stopped.await.unwrap_or(Drain::AtOnce) };
        let task =
            tokio::spawn(serve(vec![listener], application(ended), settings, Arc::clone(&metrics), shutdown));
        Self { address, metrics, streams_ended, stop, task }
    }

    pub async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.expect("a connection"))
    }

    /// A connection that the kernel completes, with bytes that are sent before the server runs.
    pub fn connect_at_once(&self, sent: &[u8]) -> Client {
        let mut stream = std::net::TcpStream::connect(self.address).expect("a connection");
        stream.write_all(sent).expect("the socket buffer has space");
        stream.set_nonblocking(true).expect("an option");
        Client(TcpStream::from_std(stream).expect("a runtime"))
    }

    /// Sends these bytes and reads until the server closes.
    pub async fn answer(&self, bytes: &[u8]) -> String {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client.rest().await
    }

    /// Stops the server, and waits until it has ended.
    pub async fn stop(self) {
        self.end(Drain::AtOnce).await;
    }

    /// Stops the server with this drain mode, and waits until it has ended.
    pub async fn end(self, drain: Drain) {
        self.stop.send(drain).expect("the server runs");
        patiently(self.task).await.expect("no panic");
    }
}

/// One connection to the server.
pub struct Client(pub TcpStream);

impl Client {
    pub async fn send(&mut self, bytes: &[u8]) {
        patiently(self.0.write_all(bytes)).await.expect("the server reads");
    }

    pub async fn shut_sending(&mut self) {
        self.0.shutdown().await.expect("shut");
    }

    /// Everything until the server closes.
    pub async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        patiently(self.0.read_to_end(&mut rest)).await.expect("a clean end");
        String::from_utf8(rest).expect("text")
    }

    /// Waits until the server closes, in whichever way.
    pub async fn rest_or_reset(&mut self) {
        let _ = patiently(self.0.read_to_end(&mut Vec::new())).await;
    }

    /// Reads until this text has arrived.
    pub async fn read_until(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        while !read.ends_with(end.as_bytes()) {
            match patiently(self.0.read_u8()).await {
                Ok(byte) => read.push(byte),
                Err(error) => panic!("{error} before {end:?}: {:?}", String::from_utf8_lossy(&read)),
            }
        }
        String::from_utf8(read).expect("text")
    }
}

pub async fn patiently<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it took too long")
}

/// The number in the status line.
pub fn status(answer: &str) -> u16 {
    let status = answer.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
    status.and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status line: {answer:?}"))
}

fn application(ended: mpsc::UnboundedSender<()>) -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/seen", get(seen).post(seen))
        .route(
            "/peer",
            get(|Extension(client): Extension<tidings_server::Client>| async move { client.address.to_string() }),
        )
        .route("/echo", post(echo))
        .route("/stream", get(stream_forever))
        .route("/endless", get(|| async { std::future::pending::<()>().await }))
        .route("/panic", get(panic_at_once))
        .with_state(ended)
}

/// Responds with the request as a handler sees it.
async fn seen(request: Request) -> String {
    let host = request.headers().get(header::HOST).map_or("none", |host| host.to_str().expect("ASCII"));
    let room = if request.extensions().get::<NoCapacity>().is_some() { " without room" } else { "" };
    format!("{} {} host={host}{room}", request.method(), request.uri())
}

async fn echo(request: Request) -> Response {
    match read_body(request.into_body(), BODY_BYTES_MAX, 30).await {
        Ok(body) => body.into_response(),
        Err(BodyError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(BodyError::TimedOut) => StatusCode::REQUEST_TIMEOUT.into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

async fn stream_forever(State(ended): State<mpsc::UnboundedSender<()>>) -> impl IntoResponse {
    struct Ended(mpsc::UnboundedSender<()>);
    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let ended = Ended(ended);
    let greeting = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b": hi\n")) });
    let silence = stream::once(async move {
        let _ended = ended;
        std::future::pending().await
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(greeting.chain(silence)))
}

async fn panic_at_once() -> &'static str {
    panic!("a handler's bug")
}
