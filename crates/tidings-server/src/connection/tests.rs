use std::{
    io, net,
    sync::atomic::{AtomicBool, AtomicU64},
    task::Context,
};

use futures_util::FutureExt;
use http::{HeaderValue, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::{JoinHandle, yield_now},
    time::{Instant, sleep},
};

use super::*;

const GET: &[u8] = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
pub(super) const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

impl Transport for DuplexStream {
    const IS_SOCKET: bool = false;

    fn into_socket(self) -> io::Result<net::TcpStream> {
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
        let place = Places::new(&metrics).take();
        let task = tokio::spawn(driver.drive(theirs, PEER, place, stopping));
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
pub(super) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(24 * 60 * 60), future).await.expect("it never came")
}

pub(super) type TestBody = UnsyncBoxBody<Bytes, Infallible>;

pub(super) async fn handle(
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
pub(super) struct StreamWatch {
    pub(super) dropped: AtomicBool,
    pub(super) polls: AtomicU64,
}

/// How much [`Gushing`] gives at a time.
pub(super) const GUSH_BYTES: usize = 64 * 1024;

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
async fn a_head_that_drips_gets_408_after_ten_seconds() {
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
async fn a_head_byte_by_byte_is_answered_if_it_is_in_time() {
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
async fn a_later_head_has_ten_seconds_from_its_first_byte() {
    let mut client = Client::connect();
    client.send(GET).await;
    client.read_until("hello").await;
    sleep(Duration::from_secs(50)).await;
    client.send(b"GET /he").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(client.secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_head_that_came_early_starts_with_the_answer_before_it() {
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
async fn a_head_that_is_cut_short_is_reported_so() {
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
async fn a_connection_that_waits_holds_no_buffer() {
    let (mut io, theirs) = duplex(1024);
    let settings = ConnectionSettings::default();
    let driver = Driver::new((), &settings, &Arc::default());
    let mut gated = driver.gate(theirs, PEER);
    let mut space = [0; 8 * 1024];
    let mut read = || {
        let mut into = hyper::rt::ReadBuf::new(&mut space);
        let pending = poll_fn(|cx| {
            Poll::Ready(hyper::rt::Read::poll_read(Pin::new(&mut gated), cx, into.unfilled()).is_pending())
        });
        let pending = pending.now_or_never().expect("always ready");
        (pending, gated.buffered_bytes())
    };
    assert_eq!(read(), (true, 0));
    io.write_all(GET).await.expect("room");
    assert_eq!(read(), (false, 0), "all of it is with hyper");
    assert_eq!(read(), (true, 0));
}
