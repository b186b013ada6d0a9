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

/// The configuration that every server begins with; lines of a test come later and win. Nothing is written to disk by itself.
const DEFAULTS: &str = "save \"\"\nappendonly no\n";

/// How long to wait before something is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A `redis-server` process on a free port. It dies with this value, and its folder is removed.
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
    /// An empty server that keeps everything in memory: what was stored is gone when it is started again.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// A server that has on disk whatever it has answered: `kill` and `start_again` lose nothing.
    pub async fn start_durable() -> anyhow::Result<Self> {
        Self::start_with(&["appendonly yes", "appendfsync always"]).await
    }

    /// A server with further lines of configuration, as in `requirepass secret`.
    pub async fn start_with(lines: &[&str]) -> anyhow::Result<Self> {
        let mut server = Self::not_started(lines)?;
        server.start_again().await?;
        Ok(server)
    }

    /// A server that speaks TLS alone, and only with those who show the certificate that lies in its folder: `cert.pem`, with the key `key.pem`. It is
    /// its own and everybody's, and trusted by itself.
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

    /// A server that does not run yet, and its port.
    pub fn not_started(lines: &[&str]) -> anyhow::Result<Self> {
        Self::not_started_bare(&[&[DEFAULTS], lines].concat())
    }

    /// One that is configured with nothing but its address.
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

    /// Starts the server on its port, with what it finds in its folder, and waits until it answers.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        self.start_as(&[]).await
    }

    async fn start_as(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        self.launch("redis-server", arguments, "Ready to accept connections").await
    }

    /// Ends the server as an operator does, with SIGTERM, and waits for its end.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let mut running = self.running.take().context("this Redis server is not running")?;
        patiently("a Redis server to end", running.child.wait()).await??;
        Ok(())
    }

    /// Ends the server as a crash does, with SIGKILL.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let mut running = self.running.take().context("this Redis server is not running")?;
        running.child.kill().await.context("cannot kill a Redis server")
    }

    /// Stops the process where it is: connections stay, and nothing is answered.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Goes on after [`freeze`](Self::freeze).
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Whether the process was started and neither stopped nor killed.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// One command as `redis-cli` sends it, with a password or another port among the arguments if need be. Returns what was answered, a line
    /// for each element. An error of the server is an error.
    pub async fn command(&self, arguments: &[&str]) -> anyhow::Result<String> {
        redis_cli(self.port.number(), arguments).await
    }

    /// The port, which stays the same.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }

    /// The URL of the server, for one that asks for no password.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// The folder of the server: its configuration, and whatever it keeps.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// What the running server has printed so far.
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
        collect_lines(child.stdout.take().expect("stdout was asked for"), lines.clone());
        collect_lines(child.stderr.take().expect("stderr was asked for"), lines);
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
        let pid = Pid::from_raw(pid.try_into()?).context("no process has the number 0")?;
        kill_process(pid, signal).context("cannot signal a Redis server")
    }
}

impl Drop for RedisServer {
    /// A process that is stopped where it is would not even be killed by a pipe that closes.
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

/// Asks again and again until the answer is yes. What cannot be asked at the moment is no.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    patiently(what, async {
        while !holds().await.unwrap_or(false) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await
}
