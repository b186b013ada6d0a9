//! Real nats-servers with JetStream, each in a process of its own.

mod domains;
mod nodes;
mod operator;
mod request;

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Instant,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;

use crate::{PATIENCE, certificate, port::Port};

pub use domains::NatsDomains;
pub use nodes::NatsNodes;
pub use operator::NatsOperator;

/// The path of a `nats-server` other than Debian's.
const VARIABLE: &str = "TIDINGS_NATS_SERVER";
/// The path of Debian's server, which is not in the `PATH` of every user.
const DEBIAN: &str = "/usr/sbin/nats-server";

/// A `nats-server` with JetStream on a port of loopback. Dropping this value kills it and deletes
/// its data.
///
/// Starting and stopping block for some tens of milliseconds. It does not depend on a runtime, so
/// that several tests can share a server.
#[derive(Debug)]
pub struct NatsServer {
    folder: TempDir,
    port: Port,
    options: Vec<String>,
    has_jetstream: bool,
    /// Its JetStream domain.
    domain: Option<&'static str>,
    running: Option<Child>,
}

impl NatsServer {
    /// Starts a server with an empty store on a free port.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(&[])
    }

    /// The same, with further lines of its configuration file.
    pub fn start_with(options: &[&str]) -> anyhow::Result<Self> {
        let mut server = Self::not_started(options)?;
        server.start_again()?;
        Ok(server)
    }

    /// A server without JetStream, until [`set_jetstream`](Self::set_jetstream) enables it.
    pub fn start_without_jetstream() -> anyhow::Result<Self> {
        let mut server = Self::not_started(&[])?;
        server.set_jetstream(false);
        server.start_again()?;
        Ok(server)
    }

    /// Sets whether it has JetStream from its next start on.
    pub fn set_jetstream(&mut self, has_jetstream: bool) {
        self.has_jetstream = has_jetstream;
    }

    /// The further lines of its configuration file from its next start on.
    pub fn options(&mut self) -> &mut Vec<String> {
        &mut self.options
    }

    /// Whether the server under test, which `TIDINGS_NATS_SERVER` names, is a supported version: 2.11 or
    /// later.
    pub fn is_current() -> bool {
        let printed = Command::new(program()).arg("--version").output();
        let printed = printed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let version = printed.unwrap_or_default();
        let version = version.rsplit(" v").next().unwrap_or_default();
        let mut numbers = version.split('.').map(|number| number.trim().parse::<u32>().unwrap_or_default());
        (numbers.next(), numbers.next()) >= (Some(2), Some(11))
    }

    /// A server that accepts only TLS, and only clients with the certificate in its
    /// [folder](Self::folder): `cert.pem`, with the key `key.pem`. The certificate is that of the
    /// server and of every client, and its own authority.
    pub fn start_tls() -> anyhow::Result<Self> {
        let mut server = Self::not_started(&[])?;
        certificate::make(server.folder())?;
        let folder = server.folder().display();
        server.options.push(format!(
            "tls {{ cert_file: \"{folder}/cert.pem\", key_file: \"{folder}/key.pem\", ca_file: \"{folder}/cert.pem\", verify: true }}"
        ));
        server.start_again()?;
        Ok(server)
    }

    fn not_started(options: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no folder for the store of nats-server")?;
        let options = options.iter().map(|line| (*line).to_owned()).collect();
        let port = Port::reserve()?;
        Ok(Self { folder, port, options, has_jetstream: true, domain: None, running: None })
    }

    /// Restarts it on the same port, with its data.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        if self.running.is_some() {
            bail!("this nats-server is running already");
        }
        let configuration = self.folder.path().join("nats.conf");
        let mut lines = vec!["host: 127.0.0.1".to_owned(), format!("port: {}", self.port.number())];
        if self.has_jetstream {
            let store = self.store();
            let store = store.display();
            let domain = self.domain.map(|name| format!(", domain: {name}")).unwrap_or_default();
            lines.push(format!(
                "jetstream {{ store_dir: \"{store}\", max_file: 64GB, max_mem: 64MB{domain} }}"
            ));
        }
        lines.extend(self.options.iter().cloned());
        fs::write(&configuration, lines.join("\n"))?;
        let mut child = Command::new(program())
            .arg("-c")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start nats-server; it is a Debian package")?;
        let lines = lines_of(child.stderr.take().expect("stderr is piped"));
        let mut running = Running(Some(child));
        let deadline = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        loop {
            let line = match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("nats-server ended; it printed:\n{}", said.join("\n"))
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("nats-server did not become ready; it printed:\n{}", said.join("\n"))
                }
            };
            let is_ready = line.contains("Server is ready");
            said.push(line);
            if is_ready {
                self.running = running.0.take();
                return Ok(());
            }
        }
    }

    /// Kills the server with SIGKILL, like a crash.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.running.take().context("this nats-server is not running")?;
        child.kill().context("cannot kill nats-server")?;
        child.wait()?;
        Ok(())
    }

    /// Stops the server with SIGTERM, like an operator, and waits until it has ended.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let mut running = Running(Some(self.running.take().context("this nats-server is not running")?));
        let child = running.0.as_mut().expect("it was just put there");
        kill_process(pid(child)?, Signal::TERM).context("cannot signal nats-server")?;
        child.wait()?;
        running.0 = None;
        Ok(())
    }

    /// Suspends its process, like a machine that hangs, or continues it.
    pub fn freeze(&self, frozen: bool) -> anyhow::Result<()> {
        let child = self.running.as_ref().context("this nats-server is not running")?;
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        kill_process(pid(child)?, signal).context("cannot signal nats-server")?;
        if frozen {
            // A signal takes effect with a delay.
            waitid(WaitId::Pid(pid(child)?), WaitIdOptions::STOPPED)?;
        }
        Ok(())
    }

    /// The address of the server.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    /// The listen address, as in `127.0.0.1:4222`.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }

    /// The folder of the server: its configuration and data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of its streams.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Copies the stored data. The server must not be running.
    pub fn save_store(&self) -> anyhow::Result<TempDir> {
        if self.running.is_some() {
            bail!("a running nats-server still writes to its store");
        }
        let copy = tempfile::tempdir()?;
        copy_folder(&self.store(), &copy.path().join("store"))?;
        Ok(copy)
    }

    /// Restores a copy, as if later writes had never reached the disk. The server must not be
    /// running.
    pub fn restore_store(&self, copy: &TempDir) -> anyhow::Result<()> {
        if self.running.is_some() {
            bail!("a running nats-server still writes to its store");
        }
        fs::remove_dir_all(self.store())?;
        copy_folder(&copy.path().join("store"), &self.store())
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        drop(Running(self.running.take()));
    }
}

/// A process that is killed on drop unless it is taken.
struct Running(Option<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn program() -> PathBuf {
    if let Some(named) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return named.into();
    }
    let debian = PathBuf::from(DEBIAN);
    if debian.is_file() { debian } else { "nats-server".into() }
}

fn pid(child: &Child) -> anyhow::Result<Pid> {
    Pid::from_raw(child.id().try_into()?).context("no process has ID 0")
}

/// The lines of an output. It is read to its end, so that the process never blocks on it.
fn lines_of(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
