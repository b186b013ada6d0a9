//! HTTP/2 connections in memory, with a clock that the tests advance. The peer is hyper's client,
//! or raw bytes of the test.

use std::sync::atomic::AtomicUsize;

use futures_util::{FutureExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::TokioExecutor;
use tokio::{
    io::{AsyncReadExt, DuplexStream, duplex},
    task::{JoinHandle, yield_now},
    time::sleep,
};

use super::{
    super::{
        BodyError, ConnectionMetrics, ConnectionSettings, admission::Admission, permits::ConnectionPermits,
    },
    *,
};
use crate::http1::{
    HTTP2_PREFACE,
    tests::{GUSH_BYTES, PEER, StreamWatch, handle, patiently},
};

/// The frame that a client has to send first, without any setting (RFC 9113, 3.4).
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// `GET http://a/`, as the first request and the whole of it.
const GET: &[u8] = &[0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x41, 1, b'a'];

/// A server's end of a connection.
struct Served {
    task: JoinHandle<()>,
    stop: watch::Sender<Stage>,
    metrics: Arc<ConnectionMetrics>,
    admission: Arc<Admission>,
    stream: Arc<StreamWatch>,
    start: Instant,
}

/// The client's end, with hyper on it.
struct Client {
    sender: SendRequest<UnsyncBoxBody<Bytes, Infallible>>,
    /// Ends with the connection.
    task: JoinHandle<hyper::Result<()>>,
}

fn connect(settings: &ConnectionSettings) -> (DuplexStream, Served) {
    let (client, theirs) = duplex(64 * 1024);
    let (stop, stopping) = watch::channel(Stage::Serving);
    let metrics = Arc::<ConnectionMetrics>::default();
    let stream = Arc::<StreamWatch>::default();
    let watch = Arc::clone(&stream);
    let service = tower::service_fn(move |request| handle(request, Arc::clone(&watch)));
    let driver = Driver::new(service, settings, &metrics);
    let admission = Arc::clone(&driver.admission);
    let permit = ConnectionPermits::new(&metrics).take();
    let task = tokio::spawn(driver.drive(theirs, Peer::of(PEER), permit, stopping));
    (client, Served { task, stop, metrics, admission, stream, start: Instant::now() })
}

async fn connected() -> (Client, Served) {
    let (io, served) = connect(&ConnectionSettings::default());
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(io)).await.expect("a connection");
    (Client { sender, task: tokio::spawn(connection) }, served)
}

/// A connection of which the test is the client, and what it sends first.
async fn connected_raw(settings: &ConnectionSettings, frames: &[u8]) -> (DuplexStream, Served) {
    let (mut io, served) = connect(settings);
    io.write_all(&[HTTP2_PREFACE, SETTINGS, frames].concat()).await.expect("room");
    (io, served)
}

impl Served {
    fn secs(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    async fn ended(&mut self) {
        patiently(&mut self.task).await.expect("no panic");
    }
}

impl Client {
    async fn send(&mut self, request: Request<UnsyncBoxBody<Bytes, Infallible>>) -> Response<Incoming> {
        patiently(self.sender.send_request(request)).await.expect("an answer")
    }

    async fn get(&mut self, path: &str) -> Response<Incoming> {
        let request = Request::get(format!("http://a{path}"));
        self.send(request.body(Full::default().boxed_unsync()).expect("a request")).await
    }

    /// Waits until the connection is over.
    async fn ended(&mut self) {
        patiently(&mut self.task).await.expect("no panic").expect("a clean end");
    }
}

async fn text(response: Response<Incoming>) -> String {
    let body = patiently(response.into_body().collect()).await.expect("a body");
    String::from_utf8(body.to_bytes().into()).expect("text")
}

/// The type and the payload of the next frame.
async fn next_frame(io: &mut DuplexStream) -> (u8, Vec<u8>) {
    let mut header = [0; 9];
    patiently(io.read_exact(&mut header)).await.expect("a frame");
    let mut payload = vec![0; usize::from(header[1]) << 8 | usize::from(header[2])];
    patiently(io.read_exact(&mut payload)).await.expect("a frame");
    (header[3], payload)
}

/// Everything until the server closes.
async fn rest(io: &mut DuplexStream) -> Vec<u8> {
    let mut rest = Vec::new();
    patiently(io.read_to_end(&mut rest)).await.expect("an end");
    rest
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_request_is_closed_after_75_seconds() {
    let (mut client, mut served) = connected().await;
    assert_eq!(text(client.get("/hello").await).await, "hello");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(text(client.get("/hello").await).await, "hello");
    client.ended().await;
    served.ended().await;
    assert_eq!(served.secs(), 60 + 75);
    assert_eq!(served.metrics.closed_idle.load(Relaxed), 1);
    assert_eq!(served.metrics.open.load(Relaxed), 0);
    assert_eq!(served.metrics.requests.load(Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_receive_the_end_is_left_two_seconds_later() {
    // So long that no PING is waited for.
    let settings = ConnectionSettings { dead_peer_secs: 10_000, ..Default::default() };
    let (mut io, mut served) = connected_raw(&settings, &[]).await;
    sleep(Duration::from_secs(76)).await;
    assert!(!served.admission.free_capacity(), "it goes anyway");
    rest(&mut io).await;
    served.ended().await;
    assert_eq!(served.secs(), 75 + 2);
    assert_eq!(served.metrics.closed_idle.load(Relaxed), 1);
}

/// RFC 9113, 6.5.2 and 6.9.1: the limits that a client has to keep are the first that it receives.
#[tokio::test(start_paused = true)]
async fn a_client_receives_the_limits_of_its_connection_first() {
    let (mut io, _served) = connected_raw(&ConnectionSettings::default(), &[]).await;
    let (kind, settings) = next_frame(&mut io).await;
    assert_eq!(kind, 4);
    let value = |number: u16| {
        let mut all = settings.chunks(6).filter(|setting| setting[..2] == number.to_be_bytes());
        let [_, _, value @ ..] = all.next_back().expect("it is sent") else {
            panic!("a setting has six bytes")
        };
        u32::from_be_bytes(value.try_into().expect("four bytes"))
    };
    // MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE and MAX_HEADER_LIST_SIZE.
    assert_eq!([3, 4, 6].map(value), [128, 64 * 1024, 32 * 1024]);
    let widened = loop {
        let (kind, payload) = next_frame(&mut io).await;
        if kind == 8 {
            break payload;
        }
    };
    // Every connection begins with a window of 65,535 bytes.
    assert_eq!(widened, (256 * 1024 - 65_535_u32).to_be_bytes());
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_a_stream_is_never_idle() {
    let (mut client, served) = connected().await;
    let mut stream = client.get("/stream").await.into_body();
    assert_eq!(
        stream.frame().await.expect("a frame").expect("no error").into_data().expect("data"),
        ": hi\n"
    );
    sleep(Duration::from_secs(10_000)).await;
    assert!(!served.task.is_finished());
    drop(stream);
    client.ended().await;
    assert_eq!(served.secs(), 10_000 + 75);
    assert!(served.stream.dropped.load(Relaxed), "who resets a stream ends it");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_no_ping_is_gone_after_thirty_seconds() {
    let stream =
        [&[0, 0, 14, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x44, 7][..], b"/stream", &[0x41, 1, b'a']].concat();
    let (mut io, mut served) = connected_raw(&ConnectionSettings::default(), &stream).await;
    rest(&mut io).await;
    served.ended().await;
    assert_eq!(served.secs(), 30);
    assert!(served.stream.dropped.load(Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_costs_little_and_loses_the_stream_and_nothing_else() {
    let (mut client, mut served) = connected().await;
    let gushing = client.get("/gush").await;
    sleep(Duration::from_secs(29)).await;
    assert!(!served.stream.dropped.load(Relaxed), "it may take its time");
    // hyper's client lets a stream send 2 MiB ahead; the rest is ours.
    let taken = usize::try_from(served.stream.polls.load(Relaxed)).expect("few") * GUSH_BYTES;
    assert!(taken <= 2 * 1024 * 1024 + SEND_BUFFER_BYTES_MAX + 2 * GUSH_BYTES, "{taken}");
    let mut other = client.get("/stream").await.into_body();
    other.frame().await.expect("a frame").expect("no error");
    sleep(Duration::from_secs(17)).await;
    assert!(served.stream.dropped.load(Relaxed), "it was cut");
    let end = patiently(gushing.into_body().collect()).await;
    assert!(end.is_err(), "and is notified");
    assert_eq!(text(client.get("/hello").await).await, "hello");
    assert!(!served.task.is_finished());
    drop((client, other));
    served.ended().await;
}

/// A client that asks for an endless response, has room for all of it, and reads nothing.
async fn connected_to_gush() -> (DuplexStream, Served) {
    let gush = [&[0, 0, 12, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x44, 5][..], b"/gush", &[0x41, 1, b'a']].concat();
    let of_streams = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff];
    let of_connection = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0];
    let frames = [&of_streams[..], &of_connection, &gush].concat();
    let (io, served) = connected_raw(&ConnectionSettings::default(), &frames).await;
    sleep(Duration::from_secs(1)).await;
    (io, served)
}

#[tokio::test(start_paused = true)]
async fn little_is_kept_for_a_reader_that_has_made_room_for_much() {
    let (_io, served) = connected_to_gush().await;
    let taken = usize::try_from(served.stream.polls.load(Relaxed)).expect("few") * GUSH_BYTES;
    // What the socket holds is not kept here.
    assert!(taken <= 64 * 1024 + SEND_BUFFER_BYTES_MAX + 2 * GUSH_BYTES, "{taken}");
}

/// It would be a part of the response for the client.
#[tokio::test(start_paused = true)]
async fn no_closing_frame_is_written_into_a_frame_that_is_written_in_part() {
    let (mut io, served) = connected_to_gush().await;
    let continuation = [0, 0, 0, 9, 4, 0, 0, 0, 3];
    io.write_all(&continuation).await.expect("room");
    sleep(Duration::from_secs(1)).await;
    let sent = rest(&mut io).await;
    assert_eq!(served.metrics.refused_malformed.load(Relaxed), 1);
    let mut left = &sent[..];
    while let [_, high, low, _, _, _, _, _, _, behind @ ..] = left {
        let length = usize::from(*high) << 8 | usize::from(*low);
        let Some(rest) = behind.get(length..) else { break };
        left = rest;
    }
    // The test is of use if the last frame is one in part.
    let (header, part) = left.split_at_checked(9).expect("a frame is cut in its payload");
    assert_eq!(header[3], 0);
    assert!(part.iter().all(|byte| *byte == b'x'), "{:?}", part.last_chunk::<17>());
}

/// The response has paid for the request, so that only the number of resets is counted.
#[tokio::test(start_paused = true)]
async fn a_client_that_has_its_requests_reset_for_errors_again_and_again_is_left() {
    let (mut io, _served) = connected_raw(&ConnectionSettings::default(), &[]).await;
    let mut resets = 0;
    for stream in (1_u32..).step_by(2) {
        let mut request =
            [&[0, 0, 14, 1, 5, 0, 0, 0, 0, 0x82, 0x86, 0x04, 7][..], b"/stream", &[0x41, 1, b'a']].concat();
        request[5..9].copy_from_slice(&stream.to_be_bytes());
        io.write_all(&request).await.expect("room");
        while next_frame(&mut io).await.0 != 0 {}
        // RFC 9113, 6.9.1: a window that is too large is an error of the stream.
        let [a, b, c, d] = stream.to_be_bytes();
        io.write_all(&[0, 0, 4, 8, 0, a, b, c, d, 0x7f, 0xff, 0xff, 0xff]).await.expect("room");
        let (kind, payload) = loop {
            let frame = next_frame(&mut io).await;
            if matches!(frame.0, 3 | 7) {
                break frame;
            }
        };
        if kind == 7 {
            // ENHANCE_YOUR_CALM.
            assert_eq!(payload[7], 0xb);
            break;
        }
        resets += 1;
    }
    assert_eq!(resets, ERROR_RESETS_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_is_given_up_after_thirty_seconds() {
    let (mut client, served) = connected().await;
    let dripping = stream::unfold((), |()| async {
        sleep(Duration::from_secs(1)).await;
        Some((Ok(Frame::data(Bytes::from_static(b"x"))), ()))
    });
    let request =
        Request::post("http://a/echo").body(StreamBody::new(dripping).boxed_unsync()).expect("a request");
    let answer = client.send(request).await;
    assert_eq!(served.secs(), 30);
    assert_eq!(text(answer).await, BodyError::TimedOut.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_stopping_server_finishes_what_it_was_asked_and_ends_what_is_idle_at_once() {
    for stage in [Stage::Leaving, Stage::Ending] {
        let (mut idle, mut idle_served) = connected().await;
        assert_eq!(text(idle.get("/hello").await).await, "hello");
        idle_served.stop.send_replace(stage);
        idle.ended().await;
        idle_served.ended().await;
        assert_eq!(idle_served.secs(), 0);

        let (mut client, mut served) = connected().await;
        let slow = client.sender.clone().send_request(
            Request::get("http://a/slow").body(Full::default().boxed_unsync()).expect("a request"),
        );
        let slow = tokio::spawn(slow);
        sleep(Duration::from_secs(1)).await;
        served.stop.send_replace(stage);
        let answer = patiently(slow).await.expect("no panic").expect("an answer");
        assert_eq!(text(answer).await, "slow");
        client.ended().await;
        served.ended().await;
        assert_eq!(served.secs(), 1_000);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_makes_room_for_others_and_one_with_a_stream_does_not() {
    let (mut client, mut served) = connected().await;
    let mut stream = client.get("/stream").await.into_body();
    stream.frame().await.expect("a frame").expect("no error");
    assert!(!served.admission.free_capacity());
    drop(stream);
    while !served.stream.dropped.load(Relaxed) {
        yield_now().await;
    }
    assert!(served.admission.free_capacity());
    client.ended().await;
    served.ended().await;
    assert_eq!((served.secs(), served.metrics.closed_idle.load(Relaxed)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_preface_alone_and_a_body_that_is_still_to_come_hold_no_permit() {
    let post = [&[0, 0, 12, 1, 4, 0, 0, 0, 1, 0x83, 0x86, 0x44, 5][..], b"/echo", &[0x41, 1, b'a']].concat();
    let settings = ConnectionSettings { requests_max: 1, ..Default::default() };
    for (frames, requests) in [(&[][..], 0), (&post, 1)] {
        let (mut io, served) = connected_raw(&settings, frames).await;
        // What it is sent shows that it was admitted.
        patiently(io.read_exact(&mut [0; 9])).await.expect("a frame");
        assert!(patiently(served.admission.answer_permit()).await.is_some(), "the permit is free");
        assert_eq!((served.secs(), served.metrics.requests.load(Relaxed)), (0, requests));
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_waits_for_a_permit_which_its_streams_do_not_hold() {
    let settings = ConnectionSettings { requests_max: 1, ..Default::default() };
    let stream =
        [&[0, 0, 14, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x44, 7][..], b"/stream", &[0x41, 1, b'a']].concat();
    let (mut io, served) = connect(&settings);
    let taken = served.admission.answer_permit().await;
    io.write_all(&[HTTP2_PREFACE, SETTINGS, &stream].concat()).await.expect("room");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(served.metrics.requests.load(Relaxed), 0);
    drop(taken);
    while served.stream.polls.load(Relaxed) == 0 {
        yield_now().await;
    }
    assert!(served.admission.answer_permit().await.is_some());
    assert_eq!(served.secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_no_handler_should_see_is_refused_in_the_words_of_http_1() {
    let (mut client, served) = connected().await;
    let bad = [
        (501, Request::connect("a:80")),
        (400, Request::get("http://user@a/")),
        (400, Request::get("http://a/").header("host", "b")),
        (400, Request::get("http://a/").header("host", "a").header("host", "a")),
    ];
    let count = bad.len();
    for (status, request) in bad {
        let answer = client.send(request.body(Full::default().boxed_unsync()).expect("a request")).await;
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert!(text(answer).await.contains("\"detail\":\""));
    }
    assert_eq!(served.metrics.requests.load(Relaxed), 0, "the service saw none");
    let refused =
        served.metrics.refused_malformed.load(Relaxed) + served.metrics.refused_unsupported.load(Relaxed);
    assert_eq!(refused, count as u64);
}

/// RFC 9110, 9.3.2.
#[tokio::test(start_paused = true)]
async fn a_response_to_head_has_no_body() {
    let (mut client, _served) = connected().await;
    for (host, status) in [("a", 200), ("b", 400)] {
        let request = Request::head("http://a/hello").header("host", host);
        let answer = client.send(request.body(Full::default().boxed_unsync()).expect("a request")).await;
        assert_eq!((answer.status().as_u16(), answer.body().is_end_stream()), (status, true));
    }
}

#[tokio::test]
async fn nothing_is_read_from_a_socket_when_its_pass_is_over() {
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (mut client, theirs) = duplex(ping.len());
    let work = Arc::new(Work::new(Instant::now()));
    let mut wire = Wire::new(theirs, HTTP2_PREFACE, 1_000, &work);
    wire.read_exact(&mut [0; HTTP2_PREFACE.len()]).await.expect("the preface");
    client.write_all(&ping).await.expect("room");
    assert!(wire.read_u8().now_or_never().is_none());
    assert!(client.write_u8(0).now_or_never().is_none(), "the frame is still in the socket");
    work.begin_pass(64, Instant::now());
    wire.read_exact(&mut [0; 17]).await.expect("the frame");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_much_and_reads_the_answers_is_no_flood() {
    let (mut client, served) = connected().await;
    for _ in 0..2_000 {
        assert_eq!(text(client.get("/hello").await).await, "hello");
    }
    assert_eq!(served.metrics.refused_flood.load(Relaxed), 0);
}

/// Some clients widen both windows for each part that they have read of a response.
#[tokio::test(start_paused = true)]
async fn a_client_that_makes_room_for_what_it_reads_is_no_flood() {
    let gush = [&[0, 0, 12, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x44, 5][..], b"/gush", &[0x41, 1, b'a']].concat();
    let settings = ConnectionSettings { dead_peer_secs: 10_000, ..Default::default() };
    let (mut io, _served) = connected_raw(&settings, &gush).await;
    let part = 256;
    let [of_stream, of_connection] =
        [1, 0].map(|stream| [0, 0, 4, 8, 0, 0, 0, 0, stream, 0, 0, 1, 0].to_vec());
    let mut read = 0;
    while read < 1024 * 1024 {
        let mut header = [0; 9];
        io.read_exact(&mut header).await.expect("the connection is kept");
        let mut payload = vec![0; usize::from(header[1]) << 8 | usize::from(header[2])];
        io.read_exact(&mut payload).await.expect("the connection is kept");
        if header[3] == 0 {
            read += payload.len();
            let updates = [&of_stream[..], &of_connection].concat().repeat(payload.len() / part);
            io.write_all(&updates).await.expect("the connection is kept");
        }
    }
}

/// What 20 clients send who ask for as much as they can, each in one packet, with fields like these
/// behind those of each request.
fn flood(fields: &[u8]) -> Vec<u8> {
    let mut bytes = [HTTP2_PREFACE, SETTINGS].concat();
    for stream in (1_u32..).step_by(2).take(100) {
        let block = [&GET[9..], fields].concat();
        let length = u32::try_from(block.len()).expect("short").to_be_bytes();
        bytes.extend([length[1], length[2], length[3], 1, 5]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(block);
    }
    bytes
}

/// All that had come on a connection was answered before anybody else was served: up to 128
/// requests, each with as many fields as it may have. With 200 such connections others waited
/// for half a second.
#[tokio::test]
async fn a_client_with_little_to_do_is_served_between_the_passes_of_a_flood() {
    // RFC 7541, 6.2.1 and 6.1: a cookie that is remembered, and then a byte for each time that it
    // is meant.
    let cookies = [&[0x60, 1, b'c'][..], &[0xbe; 250]].concat();
    for (name, fields, served_max) in [("requests", &b""[..], 60), ("fields", &cookies, 26)] {
        let served = Arc::<AtomicUsize>::default();
        let service = {
            let served = Arc::clone(&served);
            tower::service_fn(move |_: Request<RequestBody>| {
                served.fetch_add(1, Relaxed);
                async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello"))) }
            })
        };
        let metrics = Arc::<ConnectionMetrics>::default();
        // So long that no PING is waited for on a machine with much to do.
        let settings = ConnectionSettings { dead_peer_secs: 10_000, ..Default::default() };
        let driver = Driver::new(service, &settings, &metrics);
        let (_stop, stopping) = watch::channel(Stage::Serving);
        let connect = async |bytes: &[u8]| {
            let (mut client, theirs) = duplex(256 * 1024);
            client.write_all(bytes).await.expect("room");
            let permit = ConnectionPermits::new(&metrics).take();
            tokio::spawn(driver.clone().drive(theirs, Peer::of(PEER), permit, stopping.clone()));
            client
        };
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(connect(&flood(fields)).await);
        }
        let mut quiet = connect(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        quiet.read_u8().await.expect("an answer");
        let served_first = served.load(Relaxed);
        assert!(served_first <= served_max, "{name}: {served_first} came first");
        // And nobody is forgotten.
        while served.load(Relaxed) < 20 * 100 + 1 {
            yield_now().await;
        }
    }
}

/// RFC 9113, 6.5.2: SETTINGS_INITIAL_WINDOW_SIZE.
fn window(bytes: u8) -> [u8; 15] {
    [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, bytes]
}

#[tokio::test(start_paused = true)]
async fn a_response_that_a_client_makes_no_room_for_is_reset_after_a_minute() {
    // So long that no PING is waited for, and nothing else ends the connection.
    let settings =
        ConnectionSettings { dead_peer_secs: 10_000, keep_alive_secs: 10_000, ..Default::default() };
    let (mut io, served) = connected_raw(&settings, &[&window(0)[..], GET].concat()).await;
    // RST_STREAM of the request.
    let reset = [0, 0, 4, 3, 0, 0, 0, 0, 1];
    let mut read = Vec::new();
    while !read.ends_with(&reset) {
        read.push(patiently(io.read_u8()).await.expect("a byte"));
    }
    assert!((60..=90).contains(&served.secs()), "{}", served.secs());
    assert_eq!(served.metrics.closed_slow.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_relayed_response_may_take_its_time() {
    let settings = ConnectionSettings { dead_peer_secs: 10_000, ..Default::default() };
    let relayed =
        [&[0, 0, 15, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x44, 8][..], b"/relayed", &[0x41, 1, b'a']].concat();
    let (_io, served) = connected_raw(&settings, &[&window(1)[..], &relayed].concat()).await;
    sleep(Duration::from_secs(1_000)).await;
    assert!(!served.task.is_finished());
    assert_eq!(served.metrics.closed_slow.load(Relaxed), 0);
}

/// The library says nothing of what it keeps for a client. One that leaves the last bytes of every
/// answer, and goes on asking, kept them for ever.
#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_the_ends_of_its_responses_loses_the_connection() {
    let settings = ConnectionSettings { dead_peer_secs: 10_000, keep_alive_secs: 100, ..Default::default() };
    let (mut io, mut served) = connected_raw(&settings, &[&window(1)[..], GET].concat()).await;
    rest(&mut io).await;
    served.ended().await;
    assert!((60..=120).contains(&served.secs()), "{}", served.secs());
    assert_eq!(served.metrics.closed_slow.load(Relaxed), 1);
    assert_eq!(served.metrics.closed_idle.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn header_fields_that_stay_incomplete_end_a_connection_that_is_in_use() {
    let settings = ConnectionSettings { dead_peer_secs: 10_000, ..Default::default() };
    let stream = b"\0\0\x0d\x01\x05\0\0\0\x01\x82\x86\x04\x07/stream\x41\x01a";
    let part = [0, 0, 6, 1, 1, 0, 0, 0, 3, 0x82, 0x86, 0x84, 0x41, 1, b'a'];
    let stream = [&[0, 0, 14][..], &stream[3..]].concat();
    let (mut io, mut served) = connected_raw(&settings, &[&stream[..], &part].concat()).await;
    rest(&mut io).await;
    served.ended().await;
    assert!((10..=70).contains(&served.secs()), "{}", served.secs());
    assert_eq!(served.metrics.refused_late.load(Relaxed), 1);
}
