//! A hub with its faces behind a real socket, and streams over it in both ways: given to the hub as a bare socket, and through hyper.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use axum::body::Body;
use http::{HeaderMap, HeaderName, Request, Response};
use tidings::Hub;
use tidings_server::RequestBody;
use tidings_server::{ConnectionMetrics, ConnectionSettings, Drain, Listener, Settings, apis, serve};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};
use tower::Service;

use crate::support::{self, Answer, within};

/// Whether streams leave hyper. What is promised of them is promised of both.
pub const BOTH_WAYS: [bool; 2] = [true, false];

pub struct Served {
    pub address: SocketAddr,
    pub hub: Hub,
    pub metrics: Arc<ConnectionMetrics>,
    pub stop: Option<oneshot::Sender<()>>,
    pub server: JoinHandle<()>,
}

impl Served {
    pub async fn start(raw_streams: bool) -> Self {
        Self::start_with(
            Settings::default(),
            ConnectionSettings { raw_streams, ..ConnectionSettings::default() },
        )
        .await
    }

    /// A hub without keys, as `tidings serve` serves it.
    pub async fn start_with(settings: Settings, connections: ConnectionSettings) -> Self {
        let hub = support::hub().await;
        Self::start_service(hub.clone(), settings, connections, |settings| apis(hub, None, settings))
    }

    /// Serves what is made of these settings, which are notified of the connections' metrics.
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
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let metrics = Arc::new(ConnectionMetrics::default());
        settings.connection_metrics = Some(Arc::clone(&metrics));
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
            Drain::AtOnce
        };
        let service = service(settings);
        let server = tokio::spawn(serve(listener, service, connections, Arc::clone(&metrics), shutdown));
        Self { address, hub, metrics, stop: Some(stop), server }
    }

    pub async fn send(&self, request: impl AsRef<[u8]>) -> BufReader<TcpStream> {
        let mut socket = TcpStream::connect(self.address).await.expect("it listens");
        socket.write_all(request.as_ref()).await.expect("it reads");
        BufReader::new(socket)
    }

    /// A connection of a client that has this address and little room for what it is sent.
    pub async fn connect_from(&self, address: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("set");
        socket.bind(SocketAddr::from((address, 0))).expect("every loopback address is ours");
        socket.connect(self.address).await.expect("it listens")
    }

    /// A request whose answer ends.
    pub async fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut socket = self.send(request).await;
        let mut raw = String::new();
        within(socket.read_to_string(&mut raw)).await.expect("an answer");
        let (head, body) = raw.split_once("\r\n\r\n").expect("a head");
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

    /// Waits until nobody subscribes.
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
        assert!(count > 0, "it ended before {wanted:?}: {read}");
    }
    read
}
