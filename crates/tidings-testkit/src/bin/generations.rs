//! Generations of a hub that share a log: upgrades with a log that outlives the hub, in one process
//! and with a log in memory.
//!
//!     tidings-generations DRAIN_SECS
//!
//! It answers on standard output, one line each: `listening ADDR:PORT` at once. To every `succeed`
//! on standard input it answers `gone N` when a new generation serves behind the same socket and
//! the one before it has drained; N is the number of ended generations. A command that fails is
//! answered `failed REASON`. At the end of standard input this process ends, so that it never
//! outlives the test.
//!
//! Each generation runs what `tidings serve` runs: a hub, its APIs, the real server. It ends like
//! the old process of an upgrade (SIGUSR2): streams end one by one, the socket is never closed.

use std::{env, net::TcpListener, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use tidings::{Hub, HubSettings, MemoryLimits, MemoryLog};
use tidings_server::{ConnectionMetrics, ConnectionSettings, Drain, Listener, Settings, apis, serve};
use tidings_testkit::listener;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::oneshot,
    task::JoinHandle,
};

/// Browsers reconnect soon, so that a test with many generations is short.
const RETRY_MILLIS: u64 = 200;
/// The share of the drain over which streams end, as in `tidings serve`.
const PACE_SHARE: f64 = 0.8;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let drain_secs = env::args().nth(1).context("usage: tidings-generations DRAIN_SECS")?.parse()?;
    let shared = Shared { socket: listener()?, log: MemoryLog::new(MemoryLimits::default()), drain_secs };
    println!("listening {}", shared.socket.local_addr()?);
    let mut serving = shared.start().await?;
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    let mut gone = 0;
    while let Some(command) = commands.next_line().await? {
        let answer = match command.trim() {
            "succeed" => shared.succeed(&mut serving).await,
            other => Err(anyhow::anyhow!("unknown command {other:?}: succeed")),
        };
        match answer {
            Ok(()) => {
                gone += 1;
                println!("gone {gone}");
            }
            Err(error) => println!("failed {}", format!("{error:#}").replace('\n', " | ")),
        }
    }
    Ok(())
}

/// The socket, log and settings that all generations share.
struct Shared {
    socket: TcpListener,
    log: MemoryLog,
    drain_secs: u64,
}

/// One hub with its server.
struct Generation {
    hub: Hub,
    succeeded: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Shared {
    async fn start(&self) -> anyhow::Result<Generation> {
        let listener = Listener::from_std(self.socket.try_clone()?)?;
        let mut settings = HubSettings::default();
        settings.retry_millis = RETRY_MILLIS;
        let hub = Hub::builder().log(self.log.clone()).settings(settings).start().await?;
        let metrics = Arc::<ConnectionMetrics>::default();
        let service = apis(hub.clone(), None, Settings::default());
        let connections = ConnectionSettings { drain_secs: self.drain_secs, ..ConnectionSettings::default() };
        let (succeeded, new_process) = oneshot::channel::<()>();
        let over = self.streams_end_over();
        let ended = async move {
            // A generation that is dropped is not replaced, and ends with this process.
            let _ = new_process.await;
            Drain::Succeeded(over)
        };
        let server = tokio::spawn(serve(vec![listener], service, connections, metrics, ended));
        Ok(Generation { hub, succeeded, server })
    }

    fn streams_end_over(&self) -> Duration {
        Duration::from_secs(self.drain_secs).mul_f64(PACE_SHARE)
    }

    /// Replaces the generation that serves by a new one, and waits for the end of the old one.
    async fn succeed(&self, serving: &mut Generation) -> anyhow::Result<()> {
        let old = std::mem::replace(serving, self.start().await?);
        old.hub.close_over(self.streams_end_over());
        if old.succeeded.send(()).is_err() {
            bail!("the generation had ended by itself");
        }
        old.server.await.context("the server of the old generation")
    }
}
