//! The takeover: a stream leaves hyper, and its socket goes to the hub.
//!
//! hyper and the layers see every request and produce the headers of every response. When the
//! response is a stream, the service stays pending for good, and leaves what hyper would have
//! written in the connection's `Exchange`. The connection finds it there, stops polling hyper and
//! takes back the socket. A subscriber then costs what the hub keeps for it, and nothing of hyper,
//! tokio or this crate except one [`Keep`].
//!
//! Invariant: earlier responses are written to the kernel before the socket is handed over. hyper
//! writes in order, and the gate releases request headers only when the previous response is
//! flushed; [`GatedIo::into_socket`](super::gated::GatedIo::into_socket) checks it.

use std::{
    any::Any,
    io, net,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{places::Place, whole::write_head};
use crate::open_stream::{OpenStream, StreamKeep, Takeover};

/// What a connection can be made of.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {
    /// Whether the hub can drive it without hyper.
    const IS_SOCKET: bool;

    fn into_socket(self) -> io::Result<net::TcpStream>;

    /// Has the kernel forget what the other end has not taken when this is dropped.
    fn abandon(&self) {}
}

impl Transport for TcpStream {
    const IS_SOCKET: bool = cfg!(target_os = "linux");

    fn into_socket(self) -> io::Result<net::TcpStream> {
        self.into_std()
    }

    fn abandon(&self) {
        // Otherwise it keeps trying, for as long as anything is taken now and then.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

/// A stream that hyper will not carry.
#[derive(Debug)]
pub(super) struct Taken {
    head: Vec<u8>,
    stream: OpenStream,
}

/// What lives as long as a connection that the hub drives: one small allocation.
struct Keep {
    _stream: StreamKeep,
    _place: Place,
}

/// Whether the answer to this request may leave hyper, if it turns out to be a stream. HTTP/1.0 has
/// no chunks, the answer to HEAD has no body, and a request's body comes by way of hyper.
pub(super) fn may_take_over<I: Body>(request: &Request<I>) -> bool {
    request.method() == Method::GET && request.version() == Version::HTTP_11 && request.body().is_end_stream()
}

/// Takes the stream out of an answer that is to be sent as one. What a layer has framed or refused
/// is hyper's.
pub(super) fn take_from<B>(response: Response<B>) -> Result<Taken, Response<B>> {
    let is_ours = response.status() == StatusCode::OK
        && !response.headers().contains_key(header::CONTENT_LENGTH)
        && !response.headers().contains_key(header::TRANSFER_ENCODING);
    let takeover = response.extensions().get::<Takeover>().filter(|_| is_ours);
    let Some(stream) = takeover.and_then(Takeover::take) else { return Err(response) };
    let (mut parts, _) = response.into_parts();
    // RFC 9112, 7: the end of a body without a length is notified by its last chunk.
    parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    // `Connection: close` is not added, although the connection ends with the stream (RFC 9112,
    // 9.6, does not demand it): undici, and with it every `fetch` of Node, takes a cut for a proper
    // end where it stands, and does not reconnect.
    let mut head = Vec::new();
    write_head(&mut head, &parts, None, SystemTime::now());
    Ok(Taken { head, stream })
}

impl Taken {
    /// Gives the socket to the hub, with what is to be sent first. `early_bytes`: what the client
    /// has sent behind its request.
    pub(super) fn hand_over(self, socket: net::TcpStream, early_bytes: usize, place: Place) {
        let OpenStream { subscription, keep } = self.stream;
        let keep: Box<dyn Any + Send> = Box::new(Keep { _stream: keep, _place: place });
        #[cfg(target_os = "linux")]
        subscription.drive_socket(socket, self.head, early_bytes, keep);
        #[cfg(not(target_os = "linux"))]
        unreachable!("{:?}", (subscription, socket, self.head, early_bytes, keep.type_id()));
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        convert::Infallible,
        pin::Pin,
        sync::Arc,
        task::{Context, Poll},
    };

    use bytes::Bytes;
    use http_body::{Frame, SizeHint};
    use tidings::{Hub, NewEvent};
    use tokio::{
        io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, ReadBuf},
        net::{TcpListener, TcpSocket},
        sync::watch,
        task::yield_now,
        time::timeout,
    };
    use tower::ServiceExt;

    use super::{
        super::{ConnectionMetrics, ConnectionSettings, Driver, RequestBody, Stage, places::Places},
        *,
    };
    use crate::{Settings, router};

    const PATIENCE: Duration = Duration::from_secs(60);
    const STREAM: &[u8] = b"GET /stream?topic=chat HTTP/1.1\r\nHost: localhost\r\n\r\n";

    /// A client with little room for what it is sent, and the server's end of its connection.
    async fn connect() -> (BufReader<TcpStream>, TcpStream, net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let client = TcpSocket::new_v4().expect("a socket");
        client.set_recv_buffer_size(4096).expect("set");
        let client = client.connect(listener.local_addr().expect("bound")).await.expect("it listens");
        let (socket, peer) = listener.accept().await.expect("a connection");
        (BufReader::new(client), socket, peer)
    }

    async fn lines_until(client: &mut BufReader<TcpStream>, end: &str) -> String {
        let mut lines = String::new();
        while !lines.contains(end) {
            let read =
                timeout(PATIENCE, client.read_line(&mut lines)).await.expect("in time").expect("a line");
            assert!(read > 0, "it ended before {end:?}: {lines}");
        }
        lines
    }

    #[tokio::test]
    async fn a_subscriber_that_was_taken_over_has_no_task_here_and_still_counts() {
        let (mut client, socket, peer) = connect().await;
        client.write_all(STREAM).await.expect("it reads");

        let hub = Hub::in_memory().await;
        let metrics = Arc::<ConnectionMetrics>::default();
        let places = Places::new(&metrics);
        let service = router(hub.clone(), None, Settings::default());
        let driver = Driver::new(service, &ConnectionSettings::default(), &metrics);
        let (_stop, stopping) = watch::channel(Stage::Serving);
        // The future that would be the connection's task comes to its end.
        timeout(PATIENCE, driver.drive(socket, peer, places.take(), stopping)).await.expect("it leaves");

        lines_until(&mut client, "retry: ").await;
        assert_eq!(places.taken(), 1);
        hub.publish(NewEvent::new("chat", "hello")).await.expect("published");
        lines_until(&mut client, "data: hello\n").await;
        drop(client);
        timeout(PATIENCE, places.emptied()).await.expect("the place is given back");
        assert_eq!(hub.stats().subscribers, 0);
    }

    /// Larger than all buffers on the way to a client that does not read.
    const LARGE_BYTES: usize = 4 * 1024 * 1024;

    /// An answer that was made before the body of its request was read, which is dropped with its
    /// last byte.
    struct Early {
        rest: Option<Bytes>,
        _unread: RequestBody,
    }

    impl Body for Early {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.rest.take().map(|bytes| Ok(Frame::data(bytes))))
        }

        fn is_end_stream(&self) -> bool {
            self.rest.is_none()
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.rest.as_ref().map_or(0, Bytes::len) as u64)
        }
    }

    /// A socket that takes one slice at a time, so that hyper copies an answer instead of queueing
    /// it.
    struct OneSlice(TcpStream);

    impl AsyncRead for OneSlice {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, into)
        }
    }

    impl AsyncWrite for OneSlice {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    impl Transport for OneSlice {
        const IS_SOCKET: bool = true;

        fn into_socket(self) -> io::Result<net::TcpStream> {
            self.0.into_socket()
        }
    }

    /// hyper begins with the next request before an answer is flushed, where the body of its
    /// request, held back by `Expect`, ends after the answer was made and was copied. The gate
    /// alone keeps such an answer from being cut short.
    #[tokio::test]
    async fn a_stream_behind_a_request_that_was_answered_early_leaves_that_answer_whole() {
        let (mut client, socket, peer) = connect().await;
        let early = b"POST /early HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello";
        client.write_all(&[&early[..], STREAM].concat()).await.expect("it reads");

        let metrics = Arc::<ConnectionMetrics>::default();
        let router = router(Hub::in_memory().await, None, Settings::default());
        let service = tower::service_fn(move |request: Request<RequestBody>| {
            let router = router.clone();
            async move {
                if request.uri().path() == "/early" {
                    let body =
                        Early { rest: Some(vec![b'x'; LARGE_BYTES].into()), _unread: request.into_body() };
                    return Ok(Response::new(axum::body::Body::new(body)));
                }
                router.oneshot(request.map(axum::body::Body::new)).await
            }
        });
        let driver = Driver::new(service, &ConnectionSettings::default(), &metrics);
        let (_stop, stopping) = watch::channel(Stage::Serving);
        let connection =
            tokio::spawn(driver.drive(OneSlice(socket), peer, Places::new(&metrics).take(), stopping));

        // The client reads nothing, and the server has every occasion to go too far.
        for _ in 0..1_000 {
            yield_now().await;
        }
        lines_until(&mut client, "\r\n\r\n").await;
        let mut body = vec![0; LARGE_BYTES];
        timeout(PATIENCE, client.read_exact(&mut body)).await.expect("in time").expect("all of it");
        assert!(body.iter().all(|byte| *byte == b'x'));
        lines_until(&mut client, "retry: ").await;
        connection.await.expect("no panic");
    }
}
