//! A TCP proxy that stalls and cuts on command.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::connection::reset_on_drop;
use crate::patiently;

/// The buffer of a direction. While the proxy is paused, a cut loses at most this and what the
/// kernel buffers.
const PUMP_BYTES: usize = 16 << 10;

/// A proxy in front of one address. Dropping this value stops it and resets its connections.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    traffic: watch::Receiver<Traffic>,
    accepting: JoinHandle<()>,
}

/// The state of the proxy.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    paused: bool,
    /// Connections with a smaller number are reset.
    cuts: usize,
}

/// The traffic so far.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    connections: usize,
    bytes_to_client: usize,
}

impl FaultProxy {
    /// A proxy on a free port in front of `upstream`.
    pub async fn start(upstream: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no port for the proxy")?;
        let address = listener.local_addr()?;
        let (weather, forecast) = watch::channel(Weather::default());
        let (log, traffic) = watch::channel(Traffic::default());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                log.send_modify(|traffic| traffic.connections += 1);
                tokio::spawn(pass(client, upstream, forecast.clone(), log.clone()));
            }
        });
        Ok(Self { address, weather, traffic, accepting })
    }

    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stalls every connection: nothing is read from either side, nothing is closed. New
    /// connections stall too.
    pub fn pause(&self) {
        self.weather.send_modify(|weather| weather.paused = true);
    }

    /// Continues after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.weather.send_modify(|weather| weather.paused = false);
    }

    /// Resets every connection, on both sides.
    pub fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }

    /// Waits until this many connections were accepted since the start.
    pub async fn connections_reach(&mut self, count: usize) -> anyhow::Result<()> {
        let what = format!("connection number {count}");
        patiently(&what, self.traffic.wait_for(|traffic| traffic.connections >= count)).await??;
        Ok(())
    }

    /// The bytes sent to clients since the start.
    pub fn bytes_to_client(&self) -> usize {
        self.traffic.borrow().bytes_to_client
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn pass(
    mut client: TcpStream,
    upstream: SocketAddr,
    mut forecast: watch::Receiver<Weather>,
    log: watch::Sender<Traffic>,
) {
    let born = forecast.borrow().cuts;
    let Ok(mut hub) = TcpStream::connect(upstream).await else {
        reset_on_drop(&client).ok();
        return;
    };
    let gate = forecast.clone();
    let passing = async {
        let (from_client, to_client) = client.split();
        let (from_hub, to_hub) = hub.split();
        tokio::join!(
            pump(from_client, to_hub, gate.clone(), |_| {}),
            pump(from_hub, to_client, gate, |bytes| {
                log.send_modify(|traffic| traffic.bytes_to_client += bytes);
            })
        )
    };
    tokio::select! {
        _ = passing => {}
        _ = forecast.wait_for(|weather| weather.cuts != born) => {
            reset_on_drop(&client).ok();
            reset_on_drop(&hub).ok();
        }
    }
}

/// Forwards one direction until it ends, and then its end.
async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut gate: watch::Receiver<Weather>,
    count: impl Fn(usize),
) -> Option<()> {
    let mut buffer = vec![0; PUMP_BYTES];
    loop {
        gate.wait_for(|weather| !weather.paused).await.ok()?;
        let read = from.read(&mut buffer).await.ok()?;
        // Data that was read before the pause began waits for its end too.
        gate.wait_for(|weather| !weather.paused).await.ok()?;
        if read == 0 {
            return to.shutdown().await.ok();
        }
        to.write_all(&buffer[..read]).await.ok()?;
        count(read);
    }
}
