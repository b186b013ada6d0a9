//! A hub with its APIs on a real socket.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use axum::body::Body;
use http::{HeaderMap, HeaderName, Request, Response};
use tidings::Hub;
use tidings_server::RequestBody;
use tidings_server::{
    ConnectionMetrics, ConnectionSettings, Drain, Listener, ListenerRole, ListenerSettings, Settings, apis,
    serve,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};
use tower::Service;

use crate::support::{self, Answer, within};

/// A stream over HTTP/1.1 is written by a shard of the hub (on Linux), over HTTP/1.0 by its
/// connection. The guarantees are the same for both.
pub const VERSIONS: [&str; 2] = ["1.1", "1.0"];

/// The request for a stream.
pub fn stream_request(version: &str) -> String {
    format!("GET /stream?topic=chat HTTP/{version}\r\nHost: localhost\r\n\r\n")
}

pub struct Served {
    pub address: SocketAddr,
    /// The address for operators.
    pub admin_address: SocketAddr,
    pub hub: Hub,
    pub metrics: Arc<ConnectionMetrics>,
    pub stop: Option<oneshot::Sender<()>>,
    pub server: JoinHandle<()>,
}

impl Served {
    pub async fn start() -> Self {
        Self::start_with(Settings::default(), ConnectionSettings::default()).await
    }

    /// A hub without keys, as `tidings serve` serves it.
    pub async fn start_with(settings: Settings, connections: ConnectionSettings) -> Self {
        let hub = support::hub().await;
        Self::start_service(hub.clone(), settings, connections, |settings| apis(hub, None, settings))
    }

    /// Serves the service that is built from these settings and the metrics of the connections.
    pub fn start_service<S>(
        hub: Hub,
        mut settings: Settings,
        connections: ConnectionSettings,
        service: impl FnOnce(Settings) -> S,
    ) -> Self
    where
        S: Service<Request<RequestBody>, Response = Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
    {
        let bind = || Listener::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let mut for_operators = ListenerSettings::default();
        for_operators.role = ListenerRole::Admin;
        let listeners = [bind(), bind().with_settings(for_operators)];
        let [address, admin_address] =
            [0, 1].map(|number: usize| listeners[number].local_addr().expect("it is bound"));
        let metrics = Arc::new(ConnectionMetrics::default());
        settings.connection_metrics = Some(Arc::clone(&metrics));
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
            Drain::AtOnce
        };
        let service = service(settings);
        let server =
            tokio::spawn(serve(listeners.into(), service, connections, Arc::clone(&metrics), shutdown));
        Self { address, admin_address, hub, metrics, stop: Some(stop), server }
    }

    pub async fn send(&self, request: impl AsRef<[u8]>) -> BufReader<TcpStream> {
        let mut socket = TcpStream::connect(self.address).await.expect("the server listens");
        socket.write_all(request.as_ref()).await.expect("the peer reads");
        BufReader::new(socket)
    }

    /// A connection of a client with this address and a small receive buffer.
    pub async fn connect_from(&self, address: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("set");
        socket.bind(SocketAddr::from((address, 0))).expect("every loopback address is local");
        socket.connect(self.address).await.expect("the server listens")
    }

    /// A request with a finite response.
    pub async fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        self.ask_at(self.address, request).await
    }

    /// The same at another address.
    pub async fn ask_at(&self, address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
        let mut socket = TcpStream::connect(address).await.expect("the server listens");
        socket.write_all(request.as_ref()).await.expect("the peer reads");
        let mut socket = BufReader::new(socket);
        let mut raw = String::new();
        within(socket.read_to_string(&mut raw)).await.expect("an answer");
        let (head, body) = raw.split_once("\r\n\r\n").expect("response headers");
        let mut lines = head.lines();
        let status =
            lines.next().and_then(|line| line.get(9..12)).expect("a status").parse().expect("a status");
        let mut headers = HeaderMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        Answer { status, headers, body: body.to_owned() }
    }

    /// Waits until no subscriber is left.
    pub async fn all_have_left(&self) {
        within(async {
            while self.hub.stats().subscribers > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

pub async fn lines_until(socket: &mut BufReader<TcpStream>, wanted: &str) -> String {
    let mut read = String::new();
    while !read.contains(wanted) {
        let count = within(socket.read_line(&mut read)).await.expect("a line");
        assert!(count > 0, "the stream ended before {wanted:?}: {read}");
    }
    read
}
