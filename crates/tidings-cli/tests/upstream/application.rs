//! An application whose connections the test drives by itself, byte for byte.

use tidings_testkit::{Hub, PATIENCE};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// A socket on which nothing is answered but what the test answers.
pub(crate) struct Raw(TcpListener);

/// A connection of the hub.
pub(crate) struct Peer {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Raw {
    /// The application, and a hub in front of it.
    pub(crate) async fn behind_hub(args: &[&str]) -> (Self, Hub) {
        let raw = Self(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let hub = Hub::serve(&[&["--upstream", &raw.url()], args].concat()).await.unwrap();
        (raw, hub)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> Peer {
        Peer::accepted(&self.0).await
    }

    /// The next request, and its connection. Connections without one are skipped.
    pub(crate) async fn request(&self) -> (Peer, String) {
        loop {
            let mut peer = self.accept().await;
            if let Some(request) = peer.request_or_end().await {
                return (peer, request);
            }
        }
    }

    /// The next request, on this connection or, if the hub prefers it, on another.
    pub(crate) async fn request_after(&self, mut peer: Peer) -> (Peer, String) {
        let request = tokio::select! {
            request = peer.request_or_end() => request,
            asked = self.request() => return asked,
        };
        match request {
            Some(request) => (peer, request),
            None => self.request().await,
        }
    }

    /// Answers the next request of a new connection, which it returns.
    pub(crate) async fn answer(&self, response: &str) -> String {
        let (mut peer, request) = self.request().await;
        peer.send(response).await;
        request
    }

    /// Nothing has connected.
    pub(crate) async fn is_untouched(&self) -> bool {
        std::future::poll_fn(|cx| std::task::Poll::Ready(self.0.poll_accept(cx).is_pending())).await
    }
}

impl Peer {
    /// The next connection to this socket.
    pub(crate) async fn accepted(listener: &TcpListener) -> Self {
        let (stream, _) = timeout(PATIENCE, listener.accept()).await.expect("a connection").unwrap();
        Self { stream, received: Vec::new() }
    }

    /// The line and the headers of the next request, without the empty line; `None` if the hub closes
    /// without one.
    pub(crate) async fn request_or_end(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<_> = self.received.drain(..end + 4).collect();
                return Some(String::from_utf8(head[..end].to_vec()).unwrap());
            }
            if !self.more().await {
                assert!(self.received.is_empty(), "cut: {}", String::from_utf8_lossy(&self.received));
                return None;
            }
        }
    }

    /// So many bytes.
    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count {
            assert!(self.more().await, "the hub closed after {} bytes", self.received.len());
        }
        self.received.drain(..count).collect()
    }

    /// Everything until the hub closes. A reset counts as a close.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.received)
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.expect("it reads").unwrap();
    }

    pub(crate) async fn finish_sending(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
        read.expect("the hub to send or to close").is_ok_and(|count| count > 0)
    }
}

/// The values of a header in a request.
pub(crate) fn values<'a>(request: &'a str, name: &str) -> Vec<&'a str> {
    let lines = request.lines().skip(1).filter_map(|line| line.split_once(": "));
    lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

/// A response with this body.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
