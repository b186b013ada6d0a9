//! What a connection can be made of: a socket, with TLS or without, or what tests put in its place.

use std::{io, net};

use tokio::io::{AsyncRead, AsyncWrite};

/// A connection's bytes, in both directions.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {
    /// Whether [`into_socket`](Self::into_socket) succeeds: there is one socket below, and the hub can
    /// drive sockets on this system.
    fn is_for_hub(&self) -> bool;

    /// The socket, and what encrypts it. Everything that was written is with either.
    fn into_socket(self) -> io::Result<HubSocket>;

    /// Whether anything has arrived. What encrypts a socket may have to receive much before there is
    /// anything to read.
    fn has_begun(&self) -> bool {
        false
    }

    /// Memory of buffers between the socket and what is read and written.
    fn held_bytes(&self) -> usize {
        0
    }

    /// Has the kernel forget what the other end has not received when this is dropped.
    fn abandon(&self) {}
}

/// What the hub drives. It is non-blocking.
pub(crate) struct HubSocket {
    pub(crate) stream: net::TcpStream,
    /// None for a socket whose bytes are those that were written.
    #[cfg(target_os = "linux")]
    pub(crate) encryption: Option<Box<dyn tidings::Encryption>>,
}

/// The client does not speak TLS, but sends a plain HTTP request.
#[derive(Debug, thiserror::Error)]
#[error("the client sent a plain HTTP request to a port with TLS")]
pub(crate) struct PlainHttp;

impl PlainHttp {
    /// Whether reading failed because of this.
    pub(crate) fn is_reason_of(error: &io::Error) -> bool {
        error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Self>)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        convert::Infallible,
        pin::Pin,
        sync::{Arc, atomic::Ordering::Relaxed},
        task::{Context, Poll},
        time::Duration,
    };

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body::{Body, Frame, SizeHint};
    use http_body_util::Full;
    use tidings::{Hub, NewEvent};
    use tokio::{
        io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, ReadBuf},
        net::{TcpListener, TcpSocket, TcpStream},
        sync::{Notify, mpsc, watch},
        task::yield_now,
        time::timeout,
    };
    use tower::ServiceExt;

    use super::*;
    use crate::{
        RequestBody, Settings,
        connection::{
            ConnectionMetrics, ConnectionSettings, driver::Driver, peer::Peer, permits::ConnectionPermits,
            stage::Stage,
        },
        http1::HTTP2_PREFACE,
        router,
        tls::Stream,
    };

    const PATIENCE: Duration = Duration::from_secs(60);
    const STREAM: &[u8] = b"GET /stream?topic=chat HTTP/1.1\r\nHost: localhost\r\n\r\n";

    /// A client with little room for what it is sent, and the server's end of its connection.
    async fn connect() -> (BufReader<TcpStream>, Stream, net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let client = TcpSocket::new_v4().expect("a socket");
        client.set_recv_buffer_size(4096).expect("set");
        let client = client.connect(listener.local_addr().expect("bound")).await.expect("it listens");
        let (socket, peer) = listener.accept().await.expect("a connection");
        (BufReader::new(client), Stream::new(socket, None), peer)
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
    async fn a_subscriber_whose_socket_the_hub_has_needs_no_task_here_and_still_counts() {
        let (mut client, socket, peer) = connect().await;
        client.write_all(STREAM).await.expect("it reads");

        let hub = Hub::in_memory().await;
        let metrics = Arc::<ConnectionMetrics>::default();
        let permits = ConnectionPermits::new(&metrics);
        let service = router(hub.clone(), None, Settings::default());
        let driver = Driver::new(service, &ConnectionSettings::default(), &metrics);
        let (_stop, stopping) = watch::channel(Stage::Serving);
        // The future that would be the connection's task comes to its end.
        timeout(PATIENCE, driver.drive(socket, Peer::of(peer), permits.take(), stopping))
            .await
            .expect("it leaves");

        lines_until(&mut client, "retry: ").await;
        assert_eq!(permits.taken(), 1);
        hub.publish(NewEvent::new("chat", "hello")).await.expect("published");
        lines_until(&mut client, "data: hello\n").await;
        drop(client);
        timeout(PATIENCE, permits.all_returned()).await.expect("the permit is returned");
        assert_eq!(hub.stats().subscribers, 0);
    }

    /// Larger than all buffers on the way to a client that does not read.
    const LARGE_BYTES: usize = 4 * 1024 * 1024;

    /// Otherwise the kernel would keep what is left of a response, and offer it for as long as anything
    /// is acknowledged now and then. The clock is the runtime's own.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_closed_for_a_slow_reader_is_reset() {
        let http1 = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n";
        // A stream may send one byte (RFC 9113, 6.5.2), so that the end of the response waits.
        let http2 = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\x01\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a";
        for request in [&http1[..], &[HTTP2_PREFACE, http2].concat()] {
            let (mut client, socket, peer) = connect().await;
            client.write_all(request).await.expect("it reads");
            let service = tower::service_fn(async |request: Request<RequestBody>| {
                let length = if request.uri().path() == "/large" { LARGE_BYTES } else { 5 };
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(vec![b'x'; length])))
            });
            let metrics = Arc::<ConnectionMetrics>::default();
            // So long that no PING is waited for.
            let settings = ConnectionSettings { dead_peer_secs: 10_000, ..ConnectionSettings::default() };
            let driver = Driver::new(service, &settings, &metrics);
            let (_stop, stopping) = watch::channel(Stage::Serving);
            driver.drive(socket, Peer::of(peer), ConnectionPermits::new(&metrics).take(), stopping).await;
            assert_eq!(metrics.closed_slow.load(Relaxed), 1);
            let end = client.read_to_end(&mut Vec::new()).await;
            assert_eq!(end.expect_err("a reset").kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn a_client_that_resets_its_connection_does_not_end_what_its_request_changes() {
        let (mut client, socket, peer) = connect().await;
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it reads");
        let (begun, may_end) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        let (ended, mut has_ended) = mpsc::unbounded_channel();
        let (begins, ends) = (Arc::clone(&begun), Arc::clone(&may_end));
        let service = tower::service_fn(move |_: Request<RequestBody>| {
            let (begins, ends, ended) = (Arc::clone(&begins), Arc::clone(&ends), ended.clone());
            async move {
                begins.notify_one();
                ends.notified().await;
                ended.send(()).expect("the test waits");
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("done")))
            }
        });
        let metrics = Arc::<ConnectionMetrics>::default();
        let driver = Driver::new(service, &ConnectionSettings::default(), &metrics);
        let (_stop, stopping) = watch::channel(Stage::Serving);
        tokio::spawn(driver.drive(socket, Peer::of(peer), ConnectionPermits::new(&metrics).take(), stopping));
        begun.notified().await;
        Stream::new(client.into_inner(), None).abandon();
        // The server has every occasion to notice it.
        for _ in 0..1_000 {
            yield_now().await;
        }
        may_end.notify_one();
        timeout(PATIENCE, has_ended.recv()).await.expect("in time").expect("the handler has gone on");
    }

    /// A body that never comes, and reports that it is dropped.
    struct Never(mpsc::UnboundedSender<()>);

    impl Body for Never {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    impl Drop for Never {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    /// Somebody may work for it, and nothing is written that would fail.
    #[tokio::test]
    async fn a_response_whose_body_is_waited_for_ends_with_a_client_that_resets_its_connection() {
        let (mut client, socket, peer) = connect().await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it reads");
        let (dropped, mut is_dropped) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |_: Request<RequestBody>| {
            let body = Never(dropped.clone());
            async { Ok::<_, Infallible>(Response::new(body)) }
        });
        let metrics = Arc::<ConnectionMetrics>::default();
        let driver = Driver::new(service, &ConnectionSettings::default(), &metrics);
        let (_stop, stopping) = watch::channel(Stage::Serving);
        tokio::spawn(driver.drive(socket, Peer::of(peer), ConnectionPermits::new(&metrics).take(), stopping));
        lines_until(&mut client, "\r\n\r\n").await;
        socket2::SockRef::from(client.get_ref()).set_linger(Some(Duration::ZERO)).expect("set");
        drop(client);
        timeout(PATIENCE, is_dropped.recv()).await.expect("in time").expect("it was dropped");
    }

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

    /// A socket that takes one slice at a time.
    struct OneSlice(Stream);

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
        fn is_for_hub(&self) -> bool {
            true
        }

        fn into_socket(self) -> io::Result<HubSocket> {
            self.0.into_socket()
        }
    }

    /// A library that served HTTP/1 here began with the next request before a response was flushed,
    /// where the body of its request, held back by `Expect`, ended after the response was made. The
    /// socket of a stream behind it then left with the response cut short.
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
        let connection = tokio::spawn(driver.drive(
            OneSlice(socket),
            Peer::of(peer),
            ConnectionPermits::new(&metrics).take(),
            stopping,
        ));

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
