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

/// Passes the socket that is standard input on as file descriptor 3, as systemd does, and becomes the hub. The
/// process must know its own number in `LISTEN_PID`, and a shell is how to tell it without `unsafe`.
const HAND_OVER: &str = r#"exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@""#;

/// Settings of the developer's own shell that would change what a hub under test does.
const FOREIGN_SETTINGS: [&str; 3] = ["RUST_LOG", "TIDINGS_URL", "TIDINGS_TOKEN"];

/// A `tidings` process. It dies with this value.
#[derive(Debug)]
pub struct Hub {
    args: Vec<String>,
    binary: Option<PathBuf>,
    environment: Vec<(String, String)>,
    listener: TcpListener,
    address: SocketAddr,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    /// The process that this one started. After an upgrade it is a predecessor, on its way out.
    child: Child,
    /// The process that serves, if it is another's child: a successor.
    successor: Option<Pid>,
    /// Both outputs of all of them; it closes when the last one has ended.
    output: watch::Receiver<Vec<String>>,
}

/// What a predecessor says before the number of its successor, when that one serves or waits for nothing but the store.
const SUCCESSOR: &str = " successor=";

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(successor) = self.successor {
            let _ = kill_process(successor, Signal::KILL);
        }
    }
}

impl Hub {
    /// Starts `tidings serve` with further arguments and waits until it serves.
    pub async fn serve(args: &[&str]) -> anyhow::Result<Self> {
        Self::start([&["serve"], args].concat()).await
    }

    /// Starts `tidings` with exactly these arguments and waits until it serves.
    pub async fn start(args: impl IntoIterator<Item = impl Into<String>>) -> anyhow::Result<Self> {
        let mut hub = Self::not_started(args)?;
        hub.start_again().await?;
        Ok(hub)
    }

    /// The socket alone: it accepts connections, which wait until [`start_again`](Self::start_again).
    pub fn not_started(args: impl IntoIterator<Item = impl Into<String>>) -> anyhow::Result<Self> {
        let listener = listener().context("no listening socket on loopback")?;
        let address = listener.local_addr()?;
        let args = args.into_iter().map(Into::into).collect();
        Ok(Self { args, binary: None, environment: Vec::new(), listener, address, running: None })
    }

    /// Another program than the built one is started, such as a copy that the test replaces.
    #[must_use]
    pub fn with_binary(mut self, binary: PathBuf) -> Self {
        self.binary = Some(binary);
        self
    }

    /// A variable in the environment of the hub.
    #[must_use]
    pub fn with_environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts a hub behind the same socket. Connections that came meanwhile are served.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        if self.running.is_some() {
            bail!("this hub is running already");
        }
        let mut command = Command::new("sh");
        let binary = self.binary.clone().map_or_else(binary, Ok)?;
        command.args(["-c", HAND_OVER, "sh"]).arg(binary).args(&self.args);
        for setting in FOREIGN_SETTINGS {
            command.env_remove(setting);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut child = command
            .stdin(Stdio::from(OwnedFd::from(self.listener.try_clone()?)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a hub")?;
        let (lines, mut output) = watch::channel(Vec::new());
        collect_lines(child.stdout.take().expect("stdout was asked for"), lines.clone());
        collect_lines(child.stderr.take().expect("stderr was asked for"), lines);
        let ready = format!("http://{}", self.address);
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
        self.running = Some(Running { child, successor: None, output });
        Ok(())
    }

    /// Ends the hub as a crash does, with SIGKILL. The socket goes on accepting.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let mut running = self.running.take().context("this hub is not running")?;
        running.child.kill().await.context("cannot kill the hub")?;
        let Some(successor) = running.successor.take() else { return Ok(()) };
        kill_process(successor, Signal::KILL).context("cannot kill the hub")?;
        running.all_ended().await
    }

    /// Replaces the hub by a successor (SIGUSR2), and waits until nothing can keep that one from serving. The predecessor drains meanwhile.
    pub async fn upgrade(&mut self) -> anyhow::Result<()> {
        let seen = self.output().iter().filter(|line| line.contains(SUCCESSOR)).count();
        self.signal(Signal::USR2)?;
        let running = self.running.as_mut().context("this hub is not running")?;
        let find = |lines: &Vec<String>| {
            let mut pids = lines.iter().filter_map(|line| line.split_once(SUCCESSOR));
            pids.nth(seen).map(|(_, pid)| pid.trim().to_owned())
        };
        let lines = patiently("a successor", running.output.wait_for(|lines| find(lines).is_some()))
            .await?
            .context("the hub ended instead")?;
        let pid = find(&lines).expect("it was waited for");
        drop(lines);
        running.successor = Some(Pid::from_raw(pid.parse()?).context("no process has the number 0")?);
        Ok(())
    }

    /// Waits until the process that was started first has ended; after an upgrade that is a predecessor.
    pub async fn first_ended(&mut self) -> anyhow::Result<ExitStatus> {
        let running = self.running.as_mut().context("this hub is not running")?;
        Ok(patiently("the predecessor to end", running.child.wait()).await??)
    }

    /// Ends the hub as an operator does, with SIGTERM, and waits for its own end.
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
        let pid = Pid::from_raw(pid.try_into()?).context("no process has the number 0")?;
        kill_process(pid, signal).context("cannot signal the hub")
    }

    /// Waits until the hub has ended by itself, with its predecessors. The status is that of the process that was started first: no process is notified
    /// that of another's child.
    pub async fn stopped(&mut self) -> anyhow::Result<ExitStatus> {
        let mut running = self.running.take().context("this hub is not running")?;
        let status = patiently("the hub to end", running.child.wait()).await??;
        if running.successor.take().is_some() {
            running.all_ended().await?;
        }
        Ok(status)
    }

    /// The number of the running process.
    pub fn pid(&self) -> Option<u32> {
        let running = self.running.as_ref()?;
        let successor = running.successor.map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        successor.or_else(|| running.child.id())
    }

    /// Where the socket listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The absolute form of `path`, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What the running hub has printed so far, both outputs together.
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
        Ok(find(&seen).expect("it was waited for"))
    }

    /// The lines of the running hub as they come; the channel closes with the hub.
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

/// A listening socket on a free port of loopback, with room for a reconnect storm.
pub fn listener() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The built `tidings` binary: the one that `TIDINGS_BIN` names, or the one beside the running test.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(named) = env::var_os("TIDINGS_BIN").or_else(|| env::var_os("CARGO_BIN_EXE_tidings")) {
        return Ok(named.into());
    }
    // Cargo puts a test into `deps` or `examples` below the folder of the binaries.
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
