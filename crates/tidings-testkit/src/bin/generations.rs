//! Generations of a hub that share a log: what an upgrade is when the log outlives the process, in one process and with a log in memory.
//!
//!     tidings-generations DRAIN_SECS
//!
//! It answers on standard output, one line each: `listening ADDR:PORT` at once; then to every `succeed` on standard input, when
//! a successor serves behind the same socket and the generation before it has drained: `gone N`, the number of generations that
//! have gone. A command that fails is answered `failed REASON`. At the end of standard input this process ends, so that nothing
//! outlives the test, however that ends.
//!
//! Each generation is what `tidings serve` runs: a hub, its APIs, the real server. It ends as a process does whose successor has taken over
//! (SIGUSR2): streams end one by one, the socket is never closed.

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

/// Browsers come back soon, so that a test with many generations is short.
const RETRY_MILLIS: u64 = 200;
/// Of the drain, the share over which streams end, as in `tidings serve`.
const PACE_SHARE: f64 = 0.8;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let drain_secs = env::args().nth(1).context("say DRAIN_SECS")?.parse()?;
    let house = House { socket: listener()?, log: MemoryLog::new(MemoryLimits::default()), drain_secs };
    println!("listening {}", house.socket.local_addr()?);
    let mut serving = house.start().await?;
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    let mut gone = 0;
    while let Some(command) = commands.next_line().await? {
        let answer = match command.trim() {
            "succeed" => house.succeed(&mut serving).await,
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

/// What all generations have in common.
struct House {
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

impl House {
    async fn start(&self) -> anyhow::Result<Generation> {
        let listener = Listener::from_std(self.socket.try_clone()?)?;
        let mut settings = HubSettings::default();
        settings.retry_millis = RETRY_MILLIS;
        let hub = Hub::builder().log(self.log.clone()).settings(settings).start().await?;
        let metrics = Arc::<ConnectionMetrics>::default();
        let service = apis(hub.clone(), None, Settings::default());
        let connections = ConnectionSettings { drain_secs: self.drain_secs, ..ConnectionSettings::default() };
        let (succeeded, successor) = oneshot::channel::<()>();
        let ended = async {
            // A generation that is dropped has no successor, and ends with this process.
            let _ = successor.await;
            Drain::Succeeded
        };
        let server = tokio::spawn(serve(listener, service, connections, metrics, ended));
        Ok(Generation { hub, succeeded, server })
    }

    /// Puts a new generation in the place of the one that serves, and waits for the end of that one.
    async fn succeed(&self, serving: &mut Generation) -> anyhow::Result<()> {
        let old = std::mem::replace(serving, self.start().await?);
        old.hub.close_over(Duration::from_secs(self.drain_secs).mul_f64(PACE_SHARE));
        if old.succeeded.send(()).is_err() {
            bail!("the generation had ended by itself");
        }
        old.server.await.context("the server of the old generation")
    }
}
