//! One measurement: subscribers connect, events are published, processor time is read.

use std::{fmt, net::SocketAddr, sync::Arc};

use anyhow::{Context, ensure};
use tidings_bench::Server;
use tidings_testkit::{Certificate, Connection, EventStream, Hub, TlsClient, patiently};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::nginx::Nginx;

const HOST: &str = "127.0.0.1";
const STREAM: &str = "/stream?topic=chat";
/// All with TLS have it, so that they do the same work.
const SUITE: &str = "TLS13_AES_256_GCM_SHA384";
/// Connections that are opened at a time.
const CONCURRENT: usize = 50;
const DATA_BYTES: usize = 200;
/// Events before those that are measured.
const WARM_UP_EVENTS: u32 = 20;

/// How many subscribers receive how many events.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) subscribers: u32,
    pub(crate) events: u32,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subscribers, events } = self;
        write!(f, "{subscribers} subscribers, {events} events of {DATA_BYTES} bytes, {SUITE}")
    }
}

/// How subscribers reach the hub.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Plain,
    HubTls,
    NginxTls,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Plain, Self::HubTls, Self::NginxTls];
}

/// Processor time of one delivery, in µs.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) hub: f64,
    pub(crate) nginx: f64,
}

impl Cost {
    pub(crate) fn total(self) -> f64 {
        self.hub + self.nginx
    }
}

/// A hub and what may be in front of it.
struct Servers {
    hub: Hub,
    nginx: Option<Nginx>,
    /// None if subscribers connect without TLS.
    client: Option<TlsClient>,
}

impl Servers {
    async fn start(way: Way, folder: &std::path::Path) -> anyhow::Result<Self> {
        let certificate = Certificate::create(folder, "hub", &[HOST])?;
        let [file, key] = [&certificate.certificate, &certificate.key].map(|path| path.to_str());
        let (file, key) = file.zip(key).context("a path is not UTF-8")?;
        let tls = ["--tls-certificate", file, "--tls-key", key];
        let hub = Hub::serve(if way == Way::HubTls { &tls } else { &[] }).await?;
        let nginx = (way == Way::NginxTls).then(|| Nginx::start(folder, &certificate, hub.address()));
        let client = (way != Way::Plain)
            .then(|| TlsClient::trusting(&certificate.certificate).map(TlsClient::without_resumption));
        Ok(Self { hub, nginx: nginx.transpose()?, client: client.transpose()? })
    }

    /// Where subscribers connect.
    fn address(&self) -> SocketAddr {
        self.nginx.as_ref().map_or(self.hub.address(), Nginx::address)
    }

    /// Seconds of processor time so far, of the hub and of nginx.
    fn cpu(&self) -> anyhow::Result<[f64; 2]> {
        let hub = self.hub.pid().context("the hub is not running")?;
        let pids = [Some(hub), self.nginx.as_ref().map(Nginx::pid)];
        let mut seconds = [0.0; 2];
        for (seconds, pid) in seconds.iter_mut().zip(pids) {
            *seconds =
                pid.map_or(Ok(0.0), |pid| Server::new(pid).map(|server| server.cpu().as_secs_f64()))?;
        }
        Ok(seconds)
    }
}

/// Connects all, publishes all events, and returns what a delivery has cost.
pub(crate) async fn measure(way: Way, load: Load) -> anyhow::Result<Cost> {
    let folder = tempfile::tempdir()?;
    let mut servers = Servers::start(way, folder.path()).await?;
    let streams = subscribe(servers.address(), servers.client.as_ref(), load.subscribers).await?;

    let received = Arc::new(Semaphore::new(0));
    let mut reading = JoinSet::new();
    for mut stream in streams {
        let received = Arc::clone(&received);
        reading.spawn(async move {
            for _ in 0..WARM_UP_EVENTS + load.events {
                let event = stream.next().await?;
                ensure!(event.data.len() == DATA_BYTES, "an event arrived as {event:?}");
                received.add_permits(1);
            }
            anyhow::Ok(())
        });
    }

    // nginx terminates TLS for subscribers only, as it would for browsers.
    let client = servers.client.as_ref().filter(|_| way == Way::HubTls);
    let mut publisher = open(servers.hub.address(), client).await?;
    let mut publish = async |events: u32| -> anyhow::Result<()> {
        for _ in 0..events {
            publisher.request("POST /topics/chat", &[b'x'; DATA_BYTES]).await?;
            ensure!(publisher.response().await?.status == 200, "an event was refused");
            patiently("all to receive", received.acquire_many(load.subscribers)).await??.forget();
        }
        Ok(())
    };
    publish(WARM_UP_EVENTS).await?;
    let before = servers.cpu()?;
    publish(load.events).await?;
    let after = servers.cpu()?;
    for result in reading.join_all().await {
        result?;
    }
    servers.hub.stop().await?;

    let deliveries = f64::from(load.subscribers) * f64::from(load.events);
    let [hub, nginx] = [0, 1].map(|at| (after[at] - before[at]) * 1e6 / deliveries);
    Ok(Cost { hub, nginx })
}

async fn subscribe(
    address: SocketAddr,
    client: Option<&TlsClient>,
    count: u32,
) -> anyhow::Result<Vec<EventStream>> {
    let permits = Arc::new(Semaphore::new(CONCURRENT));
    let mut opening = JoinSet::new();
    for _ in 0..count {
        let (client, permits) = (client.cloned(), Arc::clone(&permits));
        opening.spawn(async move {
            let _permit = permits.acquire_owned().await?;
            let connection = open(address, client.as_ref()).await?;
            let suite = connection.cipher_suite();
            ensure!(suite.as_deref().is_none_or(|suite| suite == SUITE), "the server chose {suite:?}");
            EventStream::on(connection, STREAM, &[]).await
        });
    }
    opening.join_all().await.into_iter().collect()
}

async fn open(address: SocketAddr, client: Option<&TlsClient>) -> anyhow::Result<Connection> {
    match client {
        Some(client) => Connection::open_tls(address, client, HOST).await,
        None => Connection::open(address).await,
    }
}
