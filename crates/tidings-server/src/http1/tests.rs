//! Connections in memory, with a clock that the tests advance.

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
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::watch,
    task::{JoinHandle, yield_now},
    time::{Instant, sleep, timeout},
};

use super::*;
use crate::connection::{
    BodyError, ConnectionMetrics, ConnectionSettings, driver::Driver, peer::Peer, permits::ConnectionPermits,
    read_body, stage::Stage,
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

/// One connection in memory, under a clock that the test moves.
struct Client {
    io: DuplexStream,
    task: JoinHandle<()>,
    stop: watch::Sender<Stage>,
    metrics: Arc<ConnectionMetrics>,
    stream: Arc<StreamWatch>,
    start: Instant,
}

impl Client {
    fn connect() -> Self {
        Self::connect_with_buffer(64 * 1024)
    }

    fn connect_with_buffer(bytes: usize) -> Self {
        let (io, theirs) = duplex(bytes);
        let (stop, stopping) = watch::channel(Stage::Serving);
        let metrics = Arc::<ConnectionMetrics>::default();
        let stream = Arc::<StreamWatch>::default();
        let watch = Arc::clone(&stream);
        let service = tower::service_fn(move |request| handle(request, Arc::clone(&watch)));
        let driver = Driver::new(service, &ConnectionSettings::default(), &metrics);
        let permit = ConnectionPermits::new(&metrics).take();
        let task = tokio::spawn(driver.drive(theirs, Peer::of(PEER), permit, stopping));
        Self { io, task, stop, metrics, stream, start: Instant::now() }
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
        "/gush" => Response::new(Gushing { watch }.boxed_unsync()),
        "/stream" => {
            let mut response = Response::new(Endless { greeting: Some(": hi\n"), watch }.boxed_unsync());
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            response
        }
        _ => text("hello".to_owned()),
    })
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

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed_after_five_seconds_without_an_answer() {
    let mut client = Client::connect();
    assert_eq!(client.rest().await, "");
    assert_eq!(client.secs(), 5);
    assert_eq!(client.metrics.refused_silent.load(Relaxed), 1);
    client.ended().await;
    assert_eq!(client.metrics.open.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn request_headers_that_drip_get_408_after_ten_seconds() {
    let mut client = Client::connect();
    client.drip(&GET[..12]).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(client.metrics.refused_late.load(Relaxed), 1);
    assert_eq!(client.metrics.requests.load(Relaxed), 0, "the service never saw it");

    let mut client = Client::connect();
    client.send(&GET[..12]).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
    // The answer came at ten seconds, the end after a closing frame to a client that kept its side
    // open.
    assert_eq!(client.secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_request_byte_by_byte_is_answered_if_it_is_in_time() {
    let mut client = Client::connect();
    for byte in GET {
        client.send(&[*byte]).await;
        sleep(Duration::from_millis(100)).await;
    }
    assert!(client.read_until("hello").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_75_seconds_of_its_last_answer() {
    let mut client = Client::connect();
    client.send(GET).await;
    client.read_until("hello").await;
    sleep(Duration::from_secs(60)).await;
    client.send(GET).await;
    client.read_until("hello").await;
    assert_eq!(client.rest().await, "");
    assert_eq!(client.secs(), 60 + 75);
    assert_eq!(client.metrics.closed_idle.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn later_request_headers_have_ten_seconds_from_their_first_byte() {
    let mut client = Client::connect();
    client.send(GET).await;
    client.read_until("hello").await;
    sleep(Duration::from_secs(50)).await;
    client.send(b"GET /he").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(client.secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_an_early_request_starts_with_the_response_before_it() {
    let mut client = Client::connect();
    client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\nGET /he").await;
    client.read_until("slow").await;
    assert_eq!(client.secs(), 1_000, "no deadline runs while an answer is made");
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(client.secs(), 1_010);
}

#[tokio::test(start_paused = true)]
async fn a_malformed_second_request_is_refused_behind_the_whole_first_answer() {
    // The buffer of the connection is smaller than the first answer, so that it is still being
    // written.
    let mut client = Client::connect_with_buffer(1024);
    client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\n\r\n").await;
    let rest = client.rest().await;
    let (first, second) = rest.split_once("HTTP/1.1 400 ").expect("a refusal");
    assert!(first.starts_with("HTTP/1.1 200 "));
    assert!(first.ends_with(&"x".repeat(1024 * 1024)));
    assert!(second.contains("Connection: close"));
}

/// Any progress of the reader starts the time of the kernel anew, so one byte now and then kept an
/// answer for ever.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_read_drop_by_drop_is_cut_after_a_minute() {
    for target in ["/hello", "/large"] {
        let mut client = Client::connect_with_buffer(64);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
        while !client.is_ended() {
            sleep(Duration::from_secs(5)).await;
            let _ = client.io.read_u8().await;
        }
        assert!((60..=65).contains(&client.secs()), "{target}: {}", client.secs());
        assert_eq!(client.metrics.closed_slow.load(Relaxed), 1, "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_last_answer_is_written_whole_to_a_slow_reader() {
    let mut client = Client::connect_with_buffer(1024);
    client.send(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    sleep(Duration::from_secs(50)).await;
    assert!(client.rest().await.ends_with(&"x".repeat(1024 * 1024)));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_shuts_its_side_after_the_request_still_gets_the_answer() {
    for request in ["GET /hello", "GET /slow", "GET /large"] {
        let mut client = Client::connect_with_buffer(1024);
        client.send(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
        client.io.shutdown().await.expect("shut");
        let rest = client.rest().await;
        assert!(rest.starts_with("HTTP/1.1 200 "), "{request}: {rest}");
        assert!(
            rest.ends_with("hello") || rest.ends_with("slow") || rest.ends_with(&"x".repeat(1024 * 1024)),
            "{request}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn request_headers_that_are_cut_short_are_refused() {
    let mut client = Client::connect();
    client.send(&GET[..12]).await;
    client.io.shutdown().await.expect("shut");
    assert!(client.rest().await.starts_with("HTTP/1.1 400 "));
    assert_eq!(client.secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_cut_short_or_malformed_is_broken() {
    let mut client = Client::connect();
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell").await;
    client.io.shutdown().await.expect("shut");
    assert!(client.rest().await.ends_with(&BodyError::Broken.to_string()));

    let mut client = Client::connect();
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n").await;
    assert!(client.rest().await.ends_with(&BodyError::Broken.to_string()));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_is_given_up_after_thirty_seconds() {
    let mut client = Client::connect();
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").await;
    client.drip(&[b'x'; 29]).await;
    assert!(client.io.read(&mut [0]).now_or_never().is_none(), "nothing is said before");
    let rest = client.rest().await;
    assert!(rest.ends_with(&BodyError::TimedOut.to_string()), "{rest}");
    assert_eq!(client.secs(), 30);
}

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

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_their_order() {
    let mut client = Client::connect();
    let post = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n";
    client.send(&[post, GET, &b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"[..], GET].concat()).await;
    for expected in ["one", "hello", "slow", "hello"] {
        let answer = client.read_until(expected).await;
        assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 1, "{answer}");
    }
    assert_eq!(client.metrics.requests.load(Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_server_closes_what_is_idle_at_once() {
    let mut silent = Client::connect();
    let mut kept = Client::connect();
    kept.send(GET).await;
    kept.read_until("hello").await;
    for client in [&mut silent, &mut kept] {
        client.stop.send_replace(Stage::Ending);
        assert_eq!(client.rest().await, "");
        assert_eq!(client.secs(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_succeeded_answers_who_is_connected_once_more() {
    let mut silent = Client::connect();
    let mut kept = Client::connect();
    kept.send(GET).await;
    let first = kept.read_until("hello").await;
    assert!(!first.contains("connection: close"), "{first}");
    for client in [&mut silent, &mut kept] {
        client.stop.send_replace(Stage::Leaving);
        sleep(Duration::from_secs(3)).await;
        client.send(GET).await;
        let answer = client.rest().await;
        assert!(answer.contains("connection: close") && answer.ends_with("hello"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopping_server_finishes_what_has_begun_and_says_that_it_closes() {
    let mut running = Client::connect();
    running.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut begun = Client::connect();
    begun.send(&GET[..12]).await;
    sleep(Duration::from_secs(1)).await;
    running.stop.send_replace(Stage::Ending);
    begun.stop.send_replace(Stage::Ending);
    begun.send(&GET[12..]).await;
    for (client, expected) in [(&mut running, "slow"), (&mut begun, "hello")] {
        let rest = client.rest().await;
        assert!(rest.contains("connection: close"), "{rest}");
        assert!(rest.ends_with(expected), "{rest}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_stop_sending_is_left_after_its_refusal() {
    let mut client = Client::connect();
    let mut answered = false;
    while !client.is_ended() {
        // The client reads nothing that it is reported and ends nothing.
        let sent = client.io.write_all(&[b'x'; 4096]).await;
        answered |= sent.is_ok();
        sleep(Duration::from_millis(1)).await;
        assert!(client.secs() < 10);
    }
    assert!(answered);
    assert_eq!(client.metrics.refused_large.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn who_is_still_sending_is_listened_to_after_the_refusal() {
    let mut client = Client::connect();
    client.send(&b"x".repeat(40 * 1024)).await;
    client.read_until("}").await;
    for _ in 0..10 {
        client.send(&[b'x'; 4096]).await;
        sleep(Duration::from_millis(100)).await;
    }
    assert!(!client.is_ended(), "an end now could take the refusal with it");
    client.io.shutdown().await.expect("shut");
    client.ended().await;
    assert_eq!(client.secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_holds_no_buffer() {
    let (mut io, theirs) = duplex(1024);
    let driver = Driver::new((), &ConnectionSettings::default(), &Arc::default());
    let mut connection = Connection::new(
        theirs,
        Peer::of(PEER).neighbourhood(),
        driver.limits,
        &driver.admission,
        &driver.metrics,
    );
    let next = |connection: &mut Connection<_>| poll_fn(|cx| connection.poll_next(cx)).now_or_never();
    assert!(next(&mut connection).is_none());
    assert_eq!(connection.buffered_bytes(), 0);
    io.write_all(&[GET, &GET[..10]].concat()).await.expect("room");
    assert!(matches!(next(&mut connection), Some(Ok(Next::Request(_)))));
    assert_eq!(connection.buffered_bytes(), 10);
    connection.await_next();
    io.write_all(&GET[10..]).await.expect("room");
    assert!(matches!(next(&mut connection), Some(Ok(Next::Request(_)))));
    connection.await_next();
    assert!(next(&mut connection).is_none());
    assert_eq!(connection.buffered_bytes(), 0);
}

/// Thousands of publishers keep a connection each. What a request needs is boxed for its time.
#[tokio::test]
async fn the_task_of_an_idle_connection_is_small() {
    let (_io, theirs) = duplex(1024);
    let service = tower::service_fn(|_: Request<RequestBody>| async {
        let large = [0_u8; 16 * 1024];
        yield_now().await;
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(large.to_vec())))
    });
    let metrics = Arc::<ConnectionMetrics>::default();
    let driver = Driver::new(service, &ConnectionSettings::default(), &metrics);
    let (_stop, stopping) = watch::channel(Stage::Serving);
    let connection = driver.drive(theirs, Peer::of(PEER), ConnectionPermits::new(&metrics).take(), stopping);
    let bytes = size_of_val(&connection);
    assert!(bytes <= 1_024, "{bytes}");
}

/// Responses used to leave one by one. A publisher with several connections slept after each of
/// them and had to be woken for the next one, for which the hub pays.
#[tokio::test]
async fn all_requests_that_have_arrived_are_received_before_one_is_answered() {
    let (mut first, first_server) = duplex(4096);
    let (mut second, second_server) = duplex(4096);
    first.write_all(GET).await.expect("there is room");
    second.write_all(GET).await.expect("there is room");
    let (first, answered_first) = (Arc::new(Mutex::new(first)), Arc::<AtomicBool>::default());
    let (client, is_answered) = (Arc::clone(&first), Arc::clone(&answered_first));
    let service = tower::service_fn(move |_: Request<RequestBody>| {
        let byte = client.lock().expect("nothing panics while it holds this").read_u8().now_or_never();
        is_answered.fetch_or(byte.is_some(), Relaxed);
        async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello"))) }
    });
    let metrics = Arc::<ConnectionMetrics>::default();
    let driver = Driver::new(service, &ConnectionSettings::default(), &metrics);
    let (_stop, stopping) = watch::channel(Stage::Serving);
    for io in [first_server, second_server] {
        let permit = ConnectionPermits::new(&metrics).take();
        tokio::spawn(driver.clone().drive(io, Peer::of(PEER), permit, stopping.clone()));
    }
    second.read_u8().await.expect("an answer");
    assert!(!answered_first.load(Relaxed), "the first was answered before the second was received");
}

/// A body of frames, which have a length together or not.
struct Frames {
    frames: Vec<&'static str>,
    length: Option<u64>,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = (!self.frames.is_empty()).then(|| self.frames.remove(0));
        Poll::Ready(next.map(|text| Ok(Frame::data(text.into()))))
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// The responses of a service to these bytes, without the dates.
async fn responses<S, B>(service: S, sent: impl AsRef<[u8]>) -> String
where
    S: tower::Service<Request<RequestBody>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let (mut io, theirs) = duplex(64 * 1024);
    let metrics = Arc::<ConnectionMetrics>::default();
    let driver = Driver::new(service, &ConnectionSettings::default(), &metrics);
    let (_stop, stopping) = watch::channel(Stage::Serving);
    tokio::spawn(driver.drive(theirs, Peer::of(PEER), ConnectionPermits::new(&metrics).take(), stopping));
    io.write_all(sent.as_ref()).await.expect("there is room");
    io.shutdown().await.expect("shut");
    let mut read = String::new();
    patiently(io.read_to_string(&mut read)).await.expect("an end");
    read.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}

/// RFC 9112, 6.3, and RFC 9110, 8.6 and 9.3.2: how the end of each response is known.
#[tokio::test(start_paused = true)]
async fn each_response_is_framed_as_its_request_and_its_status_demand() {
    let service = tower::service_fn(|request: Request<RequestBody>| async move {
        let query = request.uri().query().unwrap_or_default();
        let length = query.contains("sized").then_some(6);
        let mut response = Response::new(Frames { frames: vec!["one", "", "two"], length });
        if let Some(status) = query.split('&').find_map(|part| part.parse().ok()) {
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        }
        if query.contains("declared") {
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("6"));
        }
        if query.contains("close") {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        // Framing is the connection's.
        response.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("gzip"));
        Ok::<_, Infallible>(response)
    });
    for (line, fields, expected) in [
        ("GET /?sized HTTP/1.1", "", "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nonetwo"),
        ("GET /?declared HTTP/1.1", "", "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nonetwo"),
        (
            "GET / HTTP/1.1",
            "",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n",
        ),
        ("GET / HTTP/1.0", "", "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nonetwo"),
        (
            "GET / HTTP/1.0",
            "Connection: keep-alive\r\n",
            "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nonetwo",
        ),
        (
            "GET /?sized HTTP/1.0",
            "",
            "HTTP/1.0 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\nonetwo",
        ),
        (
            "GET /?sized HTTP/1.0",
            "Connection: keep-alive\r\n",
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 6\r\n\r\nonetwo",
        ),
        ("HEAD /?sized HTTP/1.1", "", "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n"),
        ("HEAD / HTTP/1.1", "", "HTTP/1.1 200 OK\r\n\r\n"),
        ("GET /?204&declared HTTP/1.1", "", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET /?304&sized HTTP/1.1", "", "HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("GET /?304&declared HTTP/1.1", "", "HTTP/1.1 304 Not Modified\r\ncontent-length: 6\r\n\r\n"),
        (
            "GET /?sized&close HTTP/1.1",
            "",
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\nonetwo",
        ),
        (
            "GET /?sized HTTP/1.1",
            "Connection: Close\r\n",
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\nonetwo",
        ),
        (
            "GET /?sized HTTP/1.1",
            "Connection: Upgrade\r\nUpgrade: h2c\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nonetwo",
        ),
    ] {
        let request = format!("{line}\r\nHost: a\r\n{fields}\r\n");
        let answer = responses(service, &request).await;
        assert_eq!(answer, expected, "{request}");
        let twice = responses(service, request.repeat(2)).await;
        let kept = if expected.contains("connection: close") { 1 } else { 2 };
        assert_eq!(twice, expected.repeat(kept), "{request}");
    }
}

/// RFC 9112, 8: a response that is too short is cut, so that the client does not wait for the rest
/// or take the next response for it.
#[tokio::test(start_paused = true)]
async fn a_response_without_its_declared_length_ends_the_connection() {
    for (length, body) in [(7, "onetwo"), (5, "one")] {
        let service = tower::service_fn(move |_: Request<RequestBody>| async move {
            Ok::<_, Infallible>(Response::new(Frames { frames: vec!["one", "two"], length: Some(length) }))
        });
        let answer = responses(service, GET.repeat(2)).await;
        // What is known to be wrong before anything was written is not written.
        assert!(answer.is_empty() || answer.ends_with(body), "{answer}");
        assert!(answer.matches("HTTP/1.1").count() <= 1, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_read_only_as_fast_as_its_handler_reads() {
    let (read, may_read) =
        (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
    let (has_read, permits) = (Arc::clone(&read), Arc::clone(&may_read));
    let service = tower::service_fn(move |request: Request<RequestBody>| {
        let (has_read, permits) = (Arc::clone(&has_read), Arc::clone(&permits));
        async move {
            let mut body = request.into_body();
            let mut bytes = 0;
            loop {
                permits.acquire().await.expect("open").forget();
                let Some(frame) = body.frame().await else { break };
                bytes += frame.expect("a body").into_data().expect("data").len();
                has_read.add_permits(1);
            }
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(bytes.to_string())))
        }
    });
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let (mut io, theirs) = duplex(1024);
        let metrics = Arc::<ConnectionMetrics>::default();
        let driver = Driver::new(service.clone(), &ConnectionSettings::default(), &metrics);
        let (_stop, stopping) = watch::channel(Stage::Serving);
        tokio::spawn(driver.drive(theirs, Peer::of(PEER), ConnectionPermits::new(&metrics).take(), stopping));
        let mut request = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").into_bytes();
        if framing.starts_with("Transfer") {
            request.extend(b"f4240\r\n");
        }
        io.write_all(&request).await.expect("the server reads");
        let body = vec![b'x'; 1_000_000];
        let mut sent = 0;
        // It takes what the buffer holds and one read, and no more.
        while let Ok(Ok(count)) = timeout(Duration::from_secs(1), io.write(&body[sent..])).await {
            sent += count;
        }
        assert!(sent <= 2 * 1024, "{sent}");
        may_read.add_permits(1);
        patiently(read.acquire()).await.expect("open").forget();
        while let Ok(Ok(count)) = timeout(Duration::from_secs(1), io.write(&body[sent..])).await {
            sent += count;
        }
        assert!(sent <= 4 * 1024, "{sent}");
        may_read.add_permits(1_000_000);
        io.write_all(&body[sent..]).await.expect("the server reads");
        if framing.starts_with("Transfer") {
            io.write_all(b"\r\n0\r\n\r\n").await.expect("the server reads");
        }
        io.shutdown().await.expect("shut");
        let mut answer = String::new();
        patiently(io.read_to_string(&mut answer)).await.expect("an end");
        assert!(answer.ends_with("\r\n\r\n1000000"), "{answer}");
        let left = (read.available_permits(), may_read.available_permits());
        read.forget_permits(left.0);
        may_read.forget_permits(left.1);
    }
}

/// RFC 9112, 9.6: a response may come before the body of its request has ended.
#[tokio::test(start_paused = true)]
async fn after_an_early_response_a_short_body_is_dropped_and_a_long_one_ends_the_connection() {
    let post =
        |framing: &str, body: &str| format!("POST /hello HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{body}");
    // The body arrives after the response.
    for (framing, rest) in [
        ("Content-Length: 6", "helper".to_owned()),
        ("Content-Length: 65536", "x".repeat(65536)),
        ("Transfer-Encoding: chunked", "6\r\nhelper\r\n0\r\n\r\n".to_owned()),
    ] {
        let mut client = Client::connect();
        client.send(post(framing, "").as_bytes()).await;
        let first = client.read_until("hello").await;
        assert!(!first.contains("connection: close"), "{first}");
        client.send(rest.as_bytes()).await;
        client.send(GET).await;
        client.read_until("hello").await;
        assert_eq!(client.metrics.requests.load(Relaxed), 2);
    }
    for (framing, rest) in [
        ("Content-Length: 100000", "x".repeat(1_000)),
        ("Content-Length: 6\r\nExpect: 100-continue", String::new()),
        ("Transfer-Encoding: chunked", "x".to_owned()),
    ] {
        let mut client = Client::connect();
        client.send(post(framing, &rest).as_bytes()).await;
        let first = client.read_until("hello").await;
        assert!(first.contains("connection: close"), "{framing}: {first}");
        assert_eq!(client.rest().await, "");
    }
    // A body that does not come.
    let mut client = Client::connect();
    client.send(post("Content-Length: 6", "help").as_bytes()).await;
    client.read_until("hello").await;
    assert_eq!(client.rest().await, "");
    assert_eq!(client.secs(), 10);
}

/// A handler may answer with what it reads.
#[tokio::test(start_paused = true)]
async fn a_response_can_be_made_of_the_body_while_that_arrives() {
    let service = tower::service_fn(|request: Request<RequestBody>| async {
        Ok::<_, Infallible>(Response::new(Box::pin(request.into_body())))
    });
    let (mut io, theirs) = duplex(1024);
    let metrics = Arc::<ConnectionMetrics>::default();
    let driver = Driver::new(service, &ConnectionSettings::default(), &metrics);
    let (_stop, stopping) = watch::channel(Stage::Serving);
    tokio::spawn(driver.drive(theirs, Peer::of(PEER), ConnectionPermits::new(&metrics).take(), stopping));
    let headers = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    io.write_all(headers).await.expect("the server reads");
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(patiently(io.read_u8()).await.expect("the response headers"));
    }
    for _ in 0..100 {
        io.write_all(b"6\r\nhelper\r\n").await.expect("the server reads");
        while !read.ends_with(b"6\r\nhelper\r\n") {
            read.push(patiently(io.read_u8()).await.expect("the echo"));
        }
        read.clear();
    }
    io.write_all(b"0\r\n\r\n").await.expect("the server reads");
    io.write_all(GET).await.expect("the server reads");
    io.shutdown().await.expect("shut");
    let mut rest = String::new();
    patiently(io.read_to_string(&mut rest)).await.expect("an end");
    assert!(rest.starts_with("0\r\n\r\nHTTP/1.1 200 "), "{rest}");
}

/// RFC 9110, 10.1.1.
#[tokio::test(start_paused = true)]
async fn a_body_is_asked_for_only_when_its_handler_reads_it() {
    let post = |target: &str, version: &str, body: &str| {
        format!(
            "POST {target} HTTP/{version}\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n{body}"
        )
    };
    let mut client = Client::connect();
    client.send(post("/echo", "1.1", "").as_bytes()).await;
    assert_eq!(client.read_until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(b"helper"[..5].as_ref()).await;
    assert!(client.read_until("helpe").await.starts_with("HTTP/1.1 200 OK\r\n"));
    // It has begun to come, or is not read, or the client cannot understand the answer.
    for (request, rest) in [
        (post("/echo", "1.1", "he"), "lpe"),
        (post("/echo", "1.1", "helpe"), ""),
        (post("/echo", "1.0", ""), "helpe"),
    ] {
        let mut client = Client::connect();
        client.send(request.as_bytes()).await;
        yield_now().await;
        client.send(rest.as_bytes()).await;
        let answer = client.read_until("helpe").await;
        assert!(!answer.contains("100 Continue") && answer.contains(" 200 OK"), "{answer}");
    }
    let mut client = Client::connect();
    client.send(post("/hello", "1.1", "").as_bytes()).await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"), "{answer}");
}
