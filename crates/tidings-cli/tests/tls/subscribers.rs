//! Many subscribers over TLS, and a new certificate while they are connected.
//!
//! `TIDINGS_CLIENTS=5000` sets their number. With `--nocapture` the memory of each is printed.

#![cfg(target_os = "linux")]

use std::{env, fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidings_testkit::{Certificate, Connection, EventStream, Hub, Signal, TlsClient};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

const CLIENTS: usize = 300;
/// Handshakes at a time.
const CONCURRENT: usize = 50;
/// Longer than any step of all subscribers takes.
const STEP_TIME_MAX: Duration = Duration::from_secs(300);
const HOST: &str = "127.0.0.1";
const STREAM: &str = "/stream?topic=chat";

fn clients_count() -> usize {
    env::var("TIDINGS_CLIENTS").map_or(CLIENTS, |count| count.parse().expect("TIDINGS_CLIENTS is a number"))
}

/// A client that trusts this certificate and no other, makes no use of earlier connections, and
/// speaks one version.
fn client(certificate: &Certificate, version: &str) -> TlsClient {
    let file = &certificate.certificate;
    let client = match version {
        "1.2" => TlsClient::of_tls_1_2(file),
        _ => TlsClient::trusting(file),
    };
    client.unwrap().without_resumption()
}

/// The memory that a process has written, and no other process has.
fn anonymous_bytes(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.strip_suffix(" kB"));
    kib.unwrap().trim().parse::<usize>().unwrap() * 1024
}

async fn subscribe(address: SocketAddr, client: &TlsClient, count: usize) -> Vec<EventStream> {
    let permits = Arc::new(Semaphore::new(CONCURRENT));
    let open = |_| {
        let (client, permits) = (client.clone(), Arc::clone(&permits));
        async move {
            let _permit = permits.acquire_owned().await.expect("it is never closed");
            EventStream::on(Connection::open_tls(address, &client, HOST).await.unwrap(), STREAM, &[])
                .await
                .unwrap()
        }
    };
    let opening: JoinSet<_> = (0..count).map(open).collect();
    timeout(STEP_TIME_MAX, opening.join_all()).await.expect("all subscribe in time")
}

async fn publish(address: SocketAddr, client: &TlsClient, data: &str) {
    let mut connection = Connection::open_tls(address, client, HOST).await.unwrap();
    connection.request("POST /topics/chat", data.as_bytes()).await.unwrap();
    assert_eq!(connection.response().await.unwrap().status, 200);
}

/// All streams receive this event next.
async fn receive(streams: Vec<EventStream>, data: &'static str) -> Vec<EventStream> {
    let receiving = streams.into_iter().map(|mut stream| async move {
        assert_eq!(stream.messages(1).await.expect("the stream goes on"), [data]);
        stream
    });
    let receiving: JoinSet<_> = receiving.collect();
    timeout(STEP_TIME_MAX, receiving.join_all()).await.expect("all receive in time")
}

async fn many_subscribers(version: &str) {
    let count = clients_count();
    let folder = tempfile::tempdir().unwrap();
    let create = |folder: &Path| Certificate::create(folder, "hub", &[HOST]).unwrap();
    let certificate = create(folder.path());
    let [file, key] = [&certificate.certificate, &certificate.key].map(|path| path.to_str().unwrap());
    let mut hub = Hub::serve(&["--tls-certificate", file, "--tls-key", key]).await.unwrap();
    let (address, pid) = (hub.address(), hub.pid().unwrap());
    let old = client(&certificate, version);

    // What the first subscriber costs is not what each costs.
    let mut streams = subscribe(address, &old, 1).await;
    publish(address, &old, "first").await;
    streams = receive(streams, "first").await;
    let before = anonymous_bytes(pid);
    streams.extend(subscribe(address, &old, count - 1).await);
    let suite = streams[0].connection().cipher_suite().unwrap();
    assert_eq!(suite.starts_with("TLS13_"), version == "1.3", "{suite}");
    let idle = anonymous_bytes(pid);
    publish(address, &old, "second").await;
    streams = receive(streams, "second").await;
    let served = anonymous_bytes(pid);
    let each = |bytes: usize| bytes.saturating_sub(before) / (count - 1).max(1);
    println!(
        "{count} subscribers over TLS {version} ({suite}): {} bytes of memory each, {} after an event",
        each(idle),
        each(served)
    );

    create(folder.path());
    let new = client(&certificate, version);
    hub.signal(Signal::HUP).unwrap();
    let reloaded = hub.printed("the configuration was reloaded").await.unwrap();
    assert!(reloaded.contains("certificates"), "{reloaded}");
    Connection::open_tls(address, &old, HOST).await.expect_err("the certificate is another one");
    streams.extend(subscribe(address, &new, CONCURRENT).await);
    publish(address, &new, "third").await;
    receive(streams, "third").await;
    hub.stop().await.unwrap();
}

/// One version after the other, so that there are never twice as many sockets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_disconnects_no_subscriber_with_each_version() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    for version in ["1.3", "1.2"] {
        many_subscribers(version).await;
    }
}
