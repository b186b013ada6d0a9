//! A real hub in a process of its own, behind a listening socket that the test owns.

use std::env;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::connection::{Connection, Response};
use crate::patiently;

/// Connections that may wait while no hub runs behind the socket: a storm of reconnecting clients.
const BACKLOG: i32 = 4096;

/// Passes standard input, which is the socket, on as file descriptor 3, as systemd does, and
/// executes the hub. `LISTEN_PID` must be the ID of that process, which a shell can set without
/// `unsafe`.
const HAND_OVER: &str = r#"exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@""#;

/// Variables of the developer's shell that would affect a hub under test.
const FOREIGN_SETTINGS: [&str; 3] = ["RUST_LOG", "TIDINGS_URL", "TIDINGS_TOKEN"];

/// A `tidings` process. Dropping this value kills it.
#[derive(Debug)]
pub struct Hub {
    args: Vec<String>,
    binary: Option<PathBuf>,
    environment: Vec<(String, String)>,
    /// None if the hub binds its addresses itself.
    listener: Option<TcpListener>,
    address: SocketAddr,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    /// The process that the test started. After an upgrade it is the old process.
    child: Child,
    /// The process that serves, if an upgrade started it.
    new_process: Option<Pid>,
    /// Both outputs of all processes; it closes when the last one has ended.
    output: watch::Receiver<Vec<String>>,
}

/// The log field in which the old process names the new one, once that serves or only waits for the
/// store.
const NEW_PID: &str = " new_pid=";

/// The log line of a hub that serves.
const LISTENING: &str = "listening ";

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(new_process) = self.new_process {
            let _ = kill_process(new_process, Signal::KILL);
        }
    }
}

impl Hub {
    /// Starts `tidings serve` with further arguments and waits until it serves.
    pub async fn serve(args: &[&str]) -> anyhow::Result<Self> {
        Self::start([&["serve"], args].concat()).await
    }

    /// Starts `tidings serve` with further arguments, on the addresses that they name, and waits until
    /// it serves.
    pub async fn serve_on_its_own(args: &[&str]) -> anyhow::Result<Self> {
        let mut hub = Self::not_started([&["serve"], args].concat())?.on_its_own();
        hub.start_again().await?;
        Ok(hub)
    }

    /// Starts `tidings` with exactly these arguments and waits until it serves.
    pub async fn start(args: impl IntoIterator<Item = impl Into<String>>) -> anyhow::Result<Self> {
        let mut hub = Self::not_started(args)?;
        hub.start_again().await?;
        Ok(hub)
    }

    /// Only the socket: it accepts connections, which wait until
    /// [`start_again`](Self::start_again).
    pub fn not_started(args: impl IntoIterator<Item = impl Into<String>>) -> anyhow::Result<Self> {
        let listener = listener().context("no listening socket on loopback")?;
        let address = listener.local_addr()?;
        let args = args.into_iter().map(Into::into).collect();
        Ok(Self {
            args,
            binary: None,
            environment: Vec::new(),
            listener: Some(listener),
            address,
            running: None,
        })
    }

    /// Binds the addresses that its arguments name instead of using the socket of the test.
    /// [`address`](Self::address) is then the first one of TCP, if there is one.
    #[must_use]
    pub fn on_its_own(mut self) -> Self {
        self.listener = None;
        self
    }

    /// Sets a program other than the built one, such as a copy that the test replaces.
    #[must_use]
    pub fn with_binary(mut self, binary: PathBuf) -> Self {
        self.binary = Some(binary);
        self
    }

    /// Sets an environment variable of the hub.
    #[must_use]
    pub fn with_environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts a hub behind the same socket. Connections that arrived meanwhile are served.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        if self.running.is_some() {
            bail!("this hub is running already");
        }
        let binary = self.binary.clone().map_or_else(binary, Ok)?;
        let (mut command, stdin, ready) = match &self.listener {
            Some(listener) => {
                let mut command = Command::new("sh");
                command.args(["-c", HAND_OVER, "sh"]).arg(binary);
                let socket = Stdio::from(OwnedFd::from(listener.try_clone()?));
                (command, socket, format!("://{}", self.address))
            }
            None => (Command::new(binary), Stdio::null(), LISTENING.to_owned()),
        };
        command.args(&self.args);
        for setting in FOREIGN_SETTINGS {
            command.env_remove(setting);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a hub")?;
        let (lines, mut output) = watch::channel(Vec::new());
        collect_lines(child.stdout.take().expect("stdout is piped"), lines.clone());
        collect_lines(child.stderr.take().expect("stderr is piped"), lines);
        let printed = patiently(
            "the hub to print its address",
            output.wait_for(|lines| lines.iter().any(|line| line.contains(&ready))),
        )
        .await
        .map(|seen| seen.is_ok());
        if !matches!(printed, Ok(true)) {
            child.start_kill().ok();
            let status = child.wait().await?;
            bail!("the hub did not start ({status}); it printed:\n{}", output.borrow().join("\n"));
        }
        self.running = Some(Running { child, new_process: None, output });
        let first = self.addresses().iter().find_map(|address| address.parse().ok());
        if let Some(address) = first.filter(|_| self.listener.is_none()) {
            self.address = address;
        }
        Ok(())
    }

    /// Kills the hub with SIGKILL, like a crash. The socket continues to accept.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let mut running = self.running.take().context("this hub is not running")?;
        running.child.kill().await.context("cannot kill the hub")?;
        let Some(new_process) = running.new_process.take() else { return Ok(()) };
        kill_process(new_process, Signal::KILL).context("cannot kill the hub")?;
        running.all_ended().await
    }

    /// Upgrades the hub (SIGUSR2), and waits until the new process serves or only waits for the
    /// store. The old process drains meanwhile.
    pub async fn upgrade(&mut self) -> anyhow::Result<()> {
        let seen = self.output().iter().filter(|line| line.contains(NEW_PID)).count();
        self.signal(Signal::USR2)?;
        let running = self.running.as_mut().context("this hub is not running")?;
        let find = |lines: &Vec<String>| {
            let mut pids = lines.iter().filter_map(|line| line.split_once(NEW_PID));
            pids.nth(seen).map(|(_, pid)| pid.trim().to_owned())
        };
        let lines = patiently("a new process", running.output.wait_for(|lines| find(lines).is_some()))
            .await?
            .context("the hub ended")?;
        let pid = find(&lines).expect("the wait has found it");
        drop(lines);
        running.new_process = Some(Pid::from_raw(pid.parse()?).context("no process has ID 0")?);
        Ok(())
    }

    /// Waits until the process that was started first has ended; after an upgrade that is an old
    /// process.
    pub async fn first_ended(&mut self) -> anyhow::Result<ExitStatus> {
        let running = self.running.as_mut().context("this hub is not running")?;
        Ok(patiently("the old process to end", running.child.wait()).await??)
    }

    /// Stops the hub with SIGTERM, like an operator, and waits until it has ended.
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.ask_to_stop()?;
        self.stopped().await
    }

    /// Sends SIGTERM and does not wait.
    pub fn ask_to_stop(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends a signal to the process that serves.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.pid().context("this hub is not running")?;
        let pid = Pid::from_raw(pid.try_into()?).context("no process has ID 0")?;
        kill_process(pid, signal).context("cannot signal the hub")
    }

    /// Waits until the hub and its old processes have ended by themselves. The status is that of
    /// the process that was started first: a process gets the status of its own children only.
    pub async fn stopped(&mut self) -> anyhow::Result<ExitStatus> {
        let mut running = self.running.take().context("this hub is not running")?;
        let status = patiently("the hub to end", running.child.wait()).await??;
        if running.new_process.take().is_some() {
            running.all_ended().await?;
        }
        Ok(status)
    }

    /// The ID of the running process.
    pub fn pid(&self) -> Option<u32> {
        let running = self.running.as_ref()?;
        let new_process = running.new_process.map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        new_process.or_else(|| running.child.id())
    }

    /// Where the socket listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The addresses for clients that the hub has logged, in their order; those of the latest
    /// process.
    pub fn addresses(&self) -> Vec<String> {
        self.logged_addresses(" address=")
    }

    /// The same for the addresses for operators.
    pub fn admin_addresses(&self) -> Vec<String> {
        self.logged_addresses(" admin_address=")
    }

    fn logged_addresses(&self, field: &str) -> Vec<String> {
        let output = self.output();
        let line = output.iter().rev().find(|line| line.contains(LISTENING));
        let value = line.and_then(|line| line.split_once(field)).map_or("", |(_, rest)| rest);
        // A field ends where the next one begins.
        let end = value.find('=').map_or(value.len(), |sign| value[..sign].rfind(' ').unwrap_or(0));
        let words = value[..end].split(", ");
        words.map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// The absolute form of `path`, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The lines that the running hub has printed so far, both outputs together.
    pub fn output(&self) -> Vec<String> {
        self.running.as_ref().map(|running| running.output.borrow().clone()).unwrap_or_default()
    }

    /// Waits until the hub has printed a line that contains `text`, and returns the line.
    pub async fn printed(&mut self, text: &str) -> anyhow::Result<String> {
        let running = self.running.as_mut().context("this hub is not running")?;
        let find = |lines: &Vec<String>| lines.iter().find(|line| line.contains(text)).cloned();
        let seen =
            patiently(&format!("{text:?} in the output"), running.output.wait_for(|l| find(l).is_some()))
                .await?
                .with_context(|| format!("the hub ended without printing {text:?}"))?;
        Ok(find(&seen).expect("the wait has found it"))
    }

    /// The lines of the running hub as they are printed; the channel closes when the hub ends.
    pub fn watch_output(&self) -> Option<watch::Receiver<Vec<String>>> {
        self.running.as_ref().map(|running| running.output.clone())
    }

    /// One request on a connection of its own.
    pub async fn request(&self, head: &str, body: &[u8]) -> anyhow::Result<Response> {
        let mut connection = Connection::open(self.address).await?;
        connection.request(head, body).await?;
        connection.response().await
    }

    /// `POST /topics/{topic}` with `data`, which must be accepted. `topic` may carry a query.
    pub async fn publish(&self, topic: &str, data: impl AsRef<[u8]>) -> anyhow::Result<Response> {
        let response = self.request(&format!("POST /topics/{topic}"), data.as_ref()).await?;
        if response.status != 200 {
            bail!("publishing to {topic} was answered {}: {}", response.status, response.text());
        }
        Ok(response)
    }
}

impl Running {
    async fn all_ended(&mut self) -> anyhow::Result<()> {
        patiently("all processes to end", async { while self.output.changed().await.is_ok() {} }).await
    }
}

/// A listening socket on a free port of loopback, with a backlog for a reconnect storm.
pub fn listener() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The built `tidings` binary: the one that `TIDINGS_BIN` names, or the one next to the running
/// test.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(named) = env::var_os("TIDINGS_BIN").or_else(|| env::var_os("CARGO_BIN_EXE_tidings")) {
        return Ok(named.into());
    }
    // Cargo builds tests into `deps` or `examples` below the folder of the binaries.
    let test = env::current_exe()?;
    let name = format!("tidings{}", env::consts::EXE_SUFFIX);
    test.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(&name))
        .find(|candidate| candidate.is_file())
        .context("the hub is not built: cargo build -p tidings-cli")
}

pub(crate) fn collect_lines(
    stream: impl AsyncRead + Unpin + Send + 'static,
    into: watch::Sender<Vec<String>>,
) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            into.send_modify(|all| all.push(line));
        }
    });
}
