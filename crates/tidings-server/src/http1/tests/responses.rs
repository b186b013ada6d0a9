//! How the end of a response is known.

use std::time::SystemTime;

use futures_util::{StreamExt, stream};
use http::Version;
use http_body_util::StreamBody;

use super::{
    response::{Framing, Persistence, write_headers},
    *,
};

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

/// What encrypts a socket may hold the end of a response when all of it has been written.
#[tokio::test(start_paused = true)]
async fn a_response_has_left_before_the_next_request_is_waited_for() {
    let mut client = Client::connect_with_records(1024);
    client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_until("\r\n\r\n").await;
    let mut body = vec![0; 1024 * 1024];
    patiently(client.io.read_exact(&mut body)).await.expect("all of it");
    assert_eq!(client.secs(), 0, "not only when the connection is closed");
}

/// RFC 9110, 6.6.1.
#[test]
fn a_response_has_the_date_of_its_second_unless_its_handler_has_set_one() {
    let headers = |response: &Response<()>, millis| {
        let (mut headers, now) = (Vec::new(), SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        let (framing, persistence) = (Framing::NoBody(None), Persistence::Kept);
        write_headers(&mut headers, Version::HTTP_11, response, framing, persistence, now);
        String::from_utf8(headers).expect("text")
    };
    let (mut dated, undated) = (Response::new(()), Response::new(()));
    dated.headers_mut().insert(header::DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
    for (response, millis, expected) in [
        (&undated, 1_000, "Thu, 01 Jan 1970 00:00:01 GMT"),
        (&undated, 1_999, "Thu, 01 Jan 1970 00:00:01 GMT"),
        (&undated, 2_000, "Thu, 01 Jan 1970 00:00:02 GMT"),
        (&dated, 2_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
    ] {
        assert_eq!(headers(response, millis), format!("HTTP/1.1 200 OK\r\ndate: {expected}\r\n\r\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_is_taken_of_a_body_than_its_client_reads() {
    static BYTES: [u8; 64 * 1024] = [b'x'; 64 * 1024];
    for piece_bytes in [1024, BYTES.len()] {
        let taken = Arc::<AtomicU64>::default();
        let pieces_taken = Arc::clone(&taken);
        let service = tower::service_fn(move |_: Request<RequestBody>| {
            let taken = Arc::clone(&pieces_taken);
            let pieces = stream::iter(0..1_000).map(move |_| {
                taken.fetch_add(1, Relaxed);
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(&BYTES[..piece_bytes])))
            });
            async { Ok::<_, Infallible>(Response::new(StreamBody::new(pieces))) }
        });
        let (mut io, theirs) = duplex(1024);
        let metrics = Arc::<ConnectionMetrics>::default();
        let driver = Driver::new(service, &ConnectionSettings::default(), &metrics);
        let (_stop, stopping) = watch::channel(Stage::Serving);
        tokio::spawn(driver.drive(theirs, Peer::of(PEER), ConnectionPermits::new(&metrics).take(), stopping));
        io.write_all(GET).await.expect("there is room");
        sleep(Duration::from_secs(1)).await;
        let taken_bytes = usize::try_from(taken.load(Relaxed)).expect("few") * piece_bytes;
        assert!((1..=2 * BYTES.len()).contains(&taken_bytes), "{taken_bytes}");
    }
}
