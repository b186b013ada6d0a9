//! The faces on real sockets: what the router promises holds behind the connection, too.

mod support;

use std::{net::SocketAddr, sync::Arc};

use support::{Answer, within};
use tidings::Hub;
use tidings_server::{ConnectionMetrics, ConnectionSettings, Drain, Listener, Settings, router, serve};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

struct Served {
    address: SocketAddr,
    hub: Hub,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl Served {
    async fn start() -> Self {
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let hub = support::hub().await;
        let metrics = Arc::new(ConnectionMetrics::default());
        let mut settings = Settings::default();
        settings.connection_metrics = Some(Arc::clone(&metrics));
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
            Drain::AtOnce
        };
        let service = router(hub.clone(), None, settings);
        let server = tokio::spawn(serve(listener, service, ConnectionSettings::default(), metrics, shutdown));
        Self { address, hub, stop: Some(stop), server }
    }

    async fn send(&self, request: &str) -> BufReader<TcpStream> {
        let mut socket = TcpStream::connect(self.address).await.expect("it listens");
        socket.write_all(request.as_bytes()).await.expect("it reads");
        BufReader::new(socket)
    }

    /// A request whose answer ends.
    async fn ask(&self, request: &str) -> Answer {
        let mut socket = self.send(request).await;
        let mut raw = String::new();
        within(socket.read_to_string(&mut raw)).await.expect("an answer");
        let (head, body) = raw.split_once("\r\n\r\n").expect("a head");
        let mut lines = head.lines();
        let status =
            lines.next().and_then(|line| line.get(9..12)).expect("a status").parse().expect("a status");
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        Answer { status, headers: headers.collect(), body: body.to_owned() }
    }
}

async fn lines_until(socket: &mut BufReader<TcpStream>, wanted: &str) -> String {
    let mut read = String::new();
    while !read.contains(wanted) {
        let count = within(socket.read_line(&mut read)).await.expect("a line");
        assert!(count > 0, "it ended before {wanted:?}: {read}");
    }
    read
}

#[tokio::test]
async fn the_two_printed_commands_meet() {
    let served = Served::start().await;
    let mut stream =
        served.send("GET /stream?topic=chat HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n").await;
    let head = lines_until(&mut stream, "retry: ").await;
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("transfer-encoding: chunked\r\n"),
        "{head}"
    );
    let answer = served
        .ask("POST /topics/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        .await
        .ok();
    assert_eq!(answer.json()["subscribers"], 1);
    lines_until(&mut stream, "data: hello\n").await;
}

#[tokio::test]
async fn a_head_request_claims_no_length_and_ends() {
    let served = Served::start().await;
    let answer = served
        .ask("HEAD /stream?topic=chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .ok();
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert!(!answer.headers.contains_key("content-length"), "{answer:?}");
}

#[tokio::test]
async fn the_host_of_an_absolute_target_is_the_one_that_counts() {
    let served = Served::start().await;
    let foreign =
        "GET http://evil.example/stream?topic=chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    served.ask(foreign).await.refused(421);
    let ours = "GET http://localhost/healthz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    served.ask(ours).await.ok();
}

#[tokio::test]
async fn a_reader_that_leaves_gives_its_place_back() {
    let served = Served::start().await;
    let mut stream = served.send("GET /stream?topic=chat HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    lines_until(&mut stream, "retry: ").await;
    assert_eq!(served.hub.stats().subscribers, 1);
    drop(stream);
    within(async {
        while served.hub.stats().subscribers > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let metrics =
        served.ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.ok().body;
    assert!(metrics.contains("tidings_streams_closed_total 1"), "{metrics}");
    assert!(metrics.contains("tidings_connections_accepted_total 2"), "{metrics}");
    assert!(metrics.contains("tidings_connections_refused_total{reason=\"full\"} 0"), "{metrics}");
}

#[tokio::test]
async fn a_hub_that_closes_says_goodbye_and_ends_its_streams_cleanly() {
    let mut served = Served::start().await;
    let mut stream = served.send("GET /stream?topic=chat HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    lines_until(&mut stream, "retry: ").await;
    served.hub.close();
    drop(served.stop.take());
    let rest = lines_until(&mut stream, "\r\n0\r\n").await;
    assert!(rest.contains("event: tidings\n") && rest.contains("\"kind\":\"reconnect\""), "{rest}");
    assert!(rest.contains("retry: "), "{rest}");
    within(&mut served.server).await.expect("no panic");
}
