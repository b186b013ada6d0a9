//! Connections in memory, with a clock that the tests advance.

mod bodies;
mod deadlines;
mod endings;
mod requests;
mod responses;
mod streams;

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;

use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream, DuplexStream, ReadBuf, duplex},
    sync::watch,
    task::{JoinHandle, yield_now},
    time::{Instant, sleep, timeout},
};

use super::*;
use crate::{
    connection::{
        BodyError, ConnectionMetrics, ConnectionSettings, admission::Admission, driver::Driver, peer::Peer,
        permits::ConnectionPermits, read_body, stage::Stage,
    },
    relayed::Relayed,
};

const GET: &[u8] = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
pub(crate) const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

impl Transport for DuplexStream {
    fn is_for_hub(&self) -> bool {
        false
    }

    fn into_socket(self) -> io::Result<HubSocket> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A connection that takes bytes before its socket does, as encryption does with records.
impl Transport for BufStream<DuplexStream> {
    fn is_for_hub(&self) -> bool {
        false
    }

    fn into_socket(self) -> io::Result<HubSocket> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A connection whose handshake has begun and does not end.
struct Handshake {
    io: DuplexStream,
    held_bytes: usize,
}

impl Transport for Handshake {
    fn is_for_hub(&self) -> bool {
        false
    }

    fn into_socket(self) -> io::Result<HubSocket> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn has_begun(&self) -> bool {
        true
    }

    fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

impl AsyncRead for Handshake {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Handshake {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// One connection in memory, under a clock that the test moves.
struct Client {
    io: DuplexStream,
    task: JoinHandle<()>,
    stop: watch::Sender<Stage>,
    metrics: Arc<ConnectionMetrics>,
    admission: Arc<Admission>,
    stream: Arc<StreamWatch>,
    start: Instant,
}

impl Client {
    fn connect() -> Self {
        Self::connect_with_buffer(64 * 1024)
    }

    fn connect_with_buffer(bytes: usize) -> Self {
        let (io, theirs) = duplex(bytes);
        Self::connect_over(io, theirs)
    }

    /// A connection that holds up to two MiB of what is written to a socket with this buffer.
    fn connect_with_records(bytes: usize) -> Self {
        let (io, theirs) = duplex(bytes);
        Self::connect_over(io, BufStream::with_capacity(1024, 2 * 1024 * 1024, theirs))
    }

    fn connect_over(io: DuplexStream, theirs: impl Transport + 'static) -> Self {
        let (stop, stopping) = watch::channel(Stage::Serving);
        let metrics = Arc::<ConnectionMetrics>::default();
        let stream = Arc::<StreamWatch>::default();
        let watch = Arc::clone(&stream);
        let service = tower::service_fn(move |request| handle(request, Arc::clone(&watch)));
        let driver = Driver::new(service, &ConnectionSettings::default(), &metrics);
        let admission = Arc::clone(&driver.admission);
        let permit = ConnectionPermits::new(&metrics).take();
        let task = tokio::spawn(driver.drive(theirs, Peer::of(PEER), permit, stopping));
        Self { io, task, stop, metrics, admission, stream, start: Instant::now() }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.expect("the server reads");
    }

    /// Sends a byte a second, for as long as the server takes them.
    async fn drip(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.io.write_all(&[*byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Everything until the server closes.
    async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        patiently(self.io.read_to_end(&mut rest)).await.expect("a clean end");
        String::from_utf8(rest).expect("text")
    }

    /// What comes until this text has come.
    async fn read_until(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        while !read.ends_with(end.as_bytes()) {
            let byte = patiently(self.io.read_u8()).await.expect("the awaited text");
            read.push(byte);
        }
        String::from_utf8(read).expect("text")
    }

    /// Waits until the server has no more to do with this connection.
    async fn ended(&mut self) {
        patiently(&mut self.task).await.expect("no panic");
    }

    fn secs(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    fn is_ended(&self) -> bool {
        self.task.is_finished()
    }
}

/// A day of the runtime's own time, which passes at once when nothing else is to do.
pub(crate) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(24 * 60 * 60), future).await.expect("it never came")
}

pub(crate) type TestBody = UnsyncBoxBody<Bytes, Infallible>;

pub(crate) async fn handle(
    request: Request<RequestBody>,
    watch: Arc<StreamWatch>,
) -> Result<Response<TestBody>, Infallible> {
    let text = |text: String| Response::new(Full::from(text).boxed_unsync());
    Ok(match request.uri().path() {
        "/slow" => {
            sleep(Duration::from_secs(1_000)).await;
            text("slow".to_owned())
        }
        "/echo" => match read_body(request.into_body(), 1024, 30).await {
            Ok(body) => Response::new(Full::from(body).boxed_unsync()),
            Err(error) => text(error.to_string()),
        },
        "/large" => text("x".repeat(1024 * 1024)),
        "/relayed" => {
            let mut response = text("x".repeat(1024 * 1024));
            response.extensions_mut().insert(Relayed);
            response
        }
        "/gush" => event_stream(Gushing { watch }),
        "/stream" => event_stream(Endless { greeting: Some(": hi\n"), watch }),
        _ => text("hello".to_owned()),
    })
}

fn event_stream(body: impl Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Response<TestBody> {
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

/// What became of a stream.
#[derive(Default)]
pub(crate) struct StreamWatch {
    pub(crate) dropped: AtomicBool,
    pub(crate) polls: AtomicU64,
}

/// How much [`Gushing`] gives at a time.
pub(crate) const GUSH_BYTES: usize = 64 * 1024;

static GUSH: [u8; GUSH_BYTES] = [b'x'; GUSH_BYTES];

/// A body without an end that always has more.
struct Gushing {
    watch: Arc<StreamWatch>,
}

impl Body for Gushing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.watch.polls.fetch_add(1, Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&GUSH)))))
    }
}

impl Drop for Gushing {
    fn drop(&mut self) {
        self.watch.dropped.store(true, Relaxed);
    }
}

/// A stream that greets and never says another word, and keeps a record of itself.
struct Endless {
    greeting: Option<&'static str>,
    watch: Arc<StreamWatch>,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.watch.polls.fetch_add(1, Relaxed);
        match self.greeting.take() {
            Some(greeting) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(greeting.as_bytes()))))),
            None => Poll::Pending,
        }
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.watch.dropped.store(true, Relaxed);
    }
}
