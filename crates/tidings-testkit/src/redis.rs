//! Real Redis servers, each in a folder of its own.

mod cluster;
mod sentinel;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::certificate;
use crate::hub::collect_lines;
use crate::patiently;
use crate::port::Port;

pub use cluster::RedisNodes;
pub use sentinel::RedisSentinels;

/// The configuration of every server, which the lines of a test can override. Nothing is written to
/// disk by default.
const DEFAULTS: &str = "save \"\"\nappendonly no\n";

/// The interval of checks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A `redis-server` process on a free port. Dropping this value kills it and removes its folder.
#[derive(Debug)]
pub struct RedisServer {
    port: Port,
    folder: TempDir,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    output: watch::Receiver<Vec<String>>,
}

impl RedisServer {
    /// An empty server that keeps everything in memory, so a restart loses it.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// A server that syncs before it answers: `kill` and `start_again` lose nothing.
    pub async fn start_durable() -> anyhow::Result<Self> {
        Self::start_with(&["appendonly yes", "appendfsync always"]).await
    }

    /// A server with further lines of configuration, as in `requirepass secret`.
    pub async fn start_with(lines: &[&str]) -> anyhow::Result<Self> {
        let mut server = Self::not_started(lines)?;
        server.start_again().await?;
        Ok(server)
    }

    /// A server that accepts only TLS, and only clients with the certificate in its folder:
    /// `cert.pem`, with the key `key.pem`. The certificate is that of the server and of every
    /// client, and its own authority.
    pub async fn start_tls() -> anyhow::Result<Self> {
        let mut server = Self::not_started(&[])?;
        let folder = server.folder();
        certificate::make(&folder)?;
        let path = folder.join("redis.conf");
        let (port, folder) = (server.port(), folder.display());
        let configuration = std::fs::read_to_string(&path)?;
        std::fs::write(
            path,
            format!(
                "{configuration}port 0\ntls-port {port}\ntls-auth-clients yes\ntls-cert-file {folder}/cert.pem\n\
                 tls-key-file {folder}/key.pem\ntls-ca-cert-file {folder}/cert.pem\n"
            ),
        )?;
        server.start_again().await?;
        Ok(server)
    }

    /// A server that is not started yet, and its port.
    pub fn not_started(lines: &[&str]) -> anyhow::Result<Self> {
        Self::not_started_bare(&[&[DEFAULTS], lines].concat())
    }

    /// A server that is configured with its address only.
    fn not_started_bare(lines: &[&str]) -> anyhow::Result<Self> {
        let port = Port::reserve()?;
        let folder = tempfile::tempdir().context("no folder for a Redis server")?;
        let configuration = format!(
            "bind 127.0.0.1\ndaemonize no\nport {}\ndir {}\n{}\n",
            port.number(),
            folder.path().display(),
            lines.join("\n")
        );
        std::fs::write(folder.path().join("redis.conf"), configuration)?;
        Ok(Self { port, folder, running: None })
    }

    /// Starts the server on its port, with the data in its folder, and waits until it answers.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        self.start_as(&[]).await
    }

    async fn start_as(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        self.launch("redis-server", arguments, "Ready to accept connections").await
    }

    /// Stops the server with SIGTERM, like an operator, and waits until it has ended.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let mut running = self.running.take().context("this Redis server is not running")?;
        patiently("a Redis server to end", running.child.wait()).await??;
        Ok(())
    }

    /// Kills the server with SIGKILL, like a crash.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let mut running = self.running.take().context("this Redis server is not running")?;
        running.child.kill().await.context("cannot kill a Redis server")
    }

    /// Suspends the process: connections stay open, and nothing is answered.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Continues after [`freeze`](Self::freeze).
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Whether the process was started and neither stopped nor killed.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Runs a command with `redis-cli`; the arguments may include a password or another port.
    /// Returns the answer, a line for each element. An error of the server is an error.
    pub async fn command(&self, arguments: &[&str]) -> anyhow::Result<String> {
        redis_cli(self.port.number(), arguments).await
    }

    /// The port, which stays the same.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The listen address.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }

    /// The URL of the server, without a password.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// The folder of the server: its configuration and data.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The lines that the running server has printed so far.
    pub fn output(&self) -> Vec<String> {
        self.running.as_ref().map(|running| running.output.borrow().clone()).unwrap_or_default()
    }

    async fn launch(&mut self, program: &str, arguments: &[&str], ready: &str) -> anyhow::Result<()> {
        if self.running.is_some() {
            bail!("this Redis server is running already");
        }
        let mut child = Command::new(program)
            .arg(self.folder.path().join("redis.conf"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {program}: tests/setup installs it"))?;
        let (lines, mut output) = watch::channel(Vec::new());
        collect_lines(child.stdout.take().expect("stdout is piped"), lines.clone());
        collect_lines(child.stderr.take().expect("stderr is piped"), lines);
        let started = patiently(
            "a Redis server to be ready",
            output.wait_for(|lines| lines.iter().any(|line| line.contains(ready))),
        )
        .await
        .map(|seen| seen.is_ok());
        if !matches!(started, Ok(true)) {
            child.start_kill().ok();
            let status = child.wait().await?;
            bail!("{program} did not start ({status}); it printed:\n{}", output.borrow().join("\n"));
        }
        self.running = Some(Running { child, output });
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.running.as_ref().and_then(|running| running.child.id());
        let pid = pid.context("this Redis server is not running")?;
        let pid = Pid::from_raw(pid.try_into()?).context("no process has ID 0")?;
        kill_process(pid, signal).context("cannot signal a Redis server")
    }
}

impl Drop for RedisServer {
    /// A suspended process must be continued before it can end.
    fn drop(&mut self) {
        if self.running.is_some() {
            self.signal(Signal::KILL).ok();
        }
    }
}

async fn redis_cli(port: u16, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("redis-cli");
    command.args(["-e", "-p", &port.to_string()]).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = patiently("redis-cli", command.output()).await?.context("cannot start redis-cli")?;
    let printed = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    if !output.status.success() {
        bail!("{arguments:?} was answered {printed}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(printed)
}

/// Repeats a check until it succeeds. An error counts as no.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    patiently(what, async {
        while !holds().await.unwrap_or(false) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await
}
