//! A hub whose output cannot be written serves, upgrades, drains and exits like any other.
//!
//! Each row of the table is an output that is broken in its own way, tested with a text log and a
//! JSON log. The listening socket belongs to the test, so the test need not read the address from
//! the hub, and the process ID is in the file of `--pid-file`.

#![cfg(target_os = "linux")]

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
    process::{Pid, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use serde_json::Value;
use tidings_testkit::{Connection, EventStream, PATIENCE, Signal, binary, listener};
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

/// Together more than a pipe here holds, and printed one by one with `-v`.
const EVENTS: usize = 200;
const EVENT_BYTES: usize = 500;
/// An answer that depends on an output would never come.
const ANSWER_TIME_MAX: Duration = PATIENCE;

/// The interval of checks for a file.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Passes standard input on as a listening socket, as systemd does, breaks the outputs (`$0`) and
/// becomes the hub.
const LAUNCH: &str = r#"exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; eval "$0"; exec "$@""#;

/// How the outputs of a hub are broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    /// Every write fails with ENOSPC.
    DevFull,
    /// Both descriptors are closed.
    Closed,
    /// The reader has exited: EPIPE, and a signal.
    ClosedPipe,
    /// The reader runs and does not read: writes block forever, once this many bytes are in the
    /// pipe.
    StoppedReader { pipe_bytes: usize },
    /// A terminal that is not read, as after Ctrl-S.
    StoppedTerminal,
    /// A file at the file size limit: EFBIG, and a signal.
    FileSizeLimit,
    /// A file on a disk that is full.
    FullDisk,
}

const BROKEN: [Broken; 8] = [
    Broken::DevFull,
    Broken::Closed,
    Broken::ClosedPipe,
    Broken::StoppedReader { pipe_bytes: 4 << 10 },
    Broken::StoppedReader { pipe_bytes: 64 << 10 },
    Broken::StoppedTerminal,
    Broken::FileSizeLimit,
    Broken::FullDisk,
];

/// A hub with broken outputs. Dropping this value kills it.
struct Hub {
    address: SocketAddr,
    child: Child,
    pid_file: PathBuf,
    /// The end of the pipe that is not read.
    reader: Option<OwnedFd>,
    _listener: TcpListener,
}

impl Hub {
    async fn start(broken: Broken, folder: &Path, args: &[&str]) -> Self {
        let log = folder.join("log").display().to_string();
        let (mut stdout, mut stderr, mut reader) = (Stdio::null(), Stdio::null(), None);
        let script = match broken {
            Broken::DevFull => "exec >/dev/full 2>&1".to_owned(),
            Broken::Closed => "exec >&- 2>&-".to_owned(),
            // One block is enough for the file of --pid-file.
            Broken::FileSizeLimit => format!("ulimit -f 1; exec >'{log}' 2>&1"),
            Broken::FullDisk => {
                // The file is opened where the disk is, and the hub runs there.
                let disk = folder.display();
                format!(
                    r#"set -- unshare --mount sh -euc '
                        mount -t tmpfs -o size=8k none "$0"
                        head -c 8192 /dev/zero >"$0/ballast" 2>/dev/null || true
                        exec "$@" >"$0/log" 2>&1' '{disk}' "$@""#
                )
            }
            Broken::StoppedTerminal => {
                let terminal = Terminal::open();
                (stdout, stderr) = (terminal.other_end().into(), terminal.other_end().into());
                reader = Some(terminal.0);
                ":".to_owned()
            }
            Broken::ClosedPipe | Broken::StoppedReader { .. } => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
                if let Broken::StoppedReader { pipe_bytes } = broken {
                    fcntl_setpipe_size(&write, pipe_bytes).unwrap();
                    reader = Some(read);
                }
                stdout = write.try_clone().unwrap().into();
                stderr = write.into();
                ":".to_owned()
            }
        };
        Self::launch(&script, (stdout, stderr), reader, folder, args).await
    }

    async fn launch(
        script: &str,
        (stdout, stderr): (Stdio, Stdio),
        reader: Option<OwnedFd>,
        folder: &Path,
        args: &[&str],
    ) -> Self {
        let listener = listener().unwrap();
        // Not on the disk that is full.
        let pid_file = folder.with_extension("pid");
        let mut command = Command::new("sh");
        command.args(["-c", LAUNCH, script]).arg(binary().unwrap()).args(["serve", "--drain-secs", "1"]);
        command.arg("--pid-file").arg(&pid_file).args(args);
        for setting in ["RUST_LOG", "RUST_BACKTRACE"] {
            command.env_remove(setting);
        }
        command.stdin(OwnedFd::from(listener.try_clone().unwrap())).stdout(stdout).stderr(stderr);
        let child = command.kill_on_drop(true).spawn().unwrap();
        let mut hub =
            Self { address: listener.local_addr().unwrap(), child, pid_file, reader, _listener: listener };
        hub.serves().await;
        hub
    }

    /// Waits until the process that serves has written its ID. Connections wait in the socket
    /// meanwhile.
    async fn serves(&mut self) -> Pid {
        self.becomes(|pid| pid.is_some()).await.unwrap()
    }

    async fn becomes(&mut self, is_expected: impl Fn(Option<Pid>) -> bool) -> Option<Pid> {
        let looking = async {
            loop {
                let text = fs::read_to_string(&self.pid_file).ok();
                let pid = text.and_then(|text| Pid::from_raw(text.trim().parse().unwrap()));
                if is_expected(pid) {
                    return pid;
                }
                if let Some(status) = self.child.try_wait().unwrap().filter(|status| !status.success()) {
                    panic!("the hub ended with {status}");
                }
                sleep(LOOK_INTERVAL).await;
            }
        };
        timeout(PATIENCE, looking).await.expect("the file of --pid-file changes")
    }

    /// Causes every kind of line that a hub writes: events, a refused origin, a refused
    /// publication.
    async fn is_served(&self) {
        let served = async {
            let mut stream = EventStream::open(self.address, "/stream?topic=chat").await.unwrap();
            let mut connection = Connection::open(self.address).await.unwrap();
            let data = "x".repeat(EVENT_BYTES);
            for _ in 0..EVENTS {
                connection.request("POST /topics/chat", data.as_bytes()).await.unwrap();
                assert_eq!(connection.response().await.unwrap().status, 200);
            }
            connection.request("GET /healthz\nOrigin: https://x.example", b"").await.unwrap();
            assert_eq!(connection.response().await.unwrap().status, 200);
            connection
                .request("POST /topics/chat\nOrigin: https://y.example", data.as_bytes())
                .await
                .unwrap();
            assert_eq!(connection.response().await.unwrap().status, 403);
            assert_eq!(stream.messages(EVENTS).await.unwrap().len(), EVENTS);
        };
        timeout(ANSWER_TIME_MAX, served).await.expect("the hub answers");
    }

    fn signal(pid: Pid, signal: Signal) {
        kill_process(pid, signal).unwrap();
    }

    async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.expect("the process ends").unwrap()
    }

    /// Upgrades, and checks that the old process exits with status 0 and that the new one serves
    /// and exits cleanly.
    async fn upgrades(mut self) {
        let old = self.serves().await;
        Self::signal(old, Signal::USR2);
        let new = self.becomes(|pid| pid.is_some_and(|pid| pid != old)).await.unwrap();
        let _new = KillOnDrop(new);
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "the old process: {status}");
        self.is_served().await;
        Self::signal(new, Signal::TERM);
        // The test cannot read its status, but only a clean exit removes the file.
        self.becomes(|pid| pid.is_none()).await;
    }

    /// Stops the hub, and checks that a stream is notified and that the process exits with status
    /// 0.
    async fn drains(mut self) {
        let pid = self.serves().await;
        let mut stream = EventStream::open(self.address, "/stream?topic=chat").await.unwrap();
        Self::signal(pid, Signal::TERM);
        let notice = timeout(PATIENCE, stream.next()).await.expect("a notice").unwrap();
        assert_eq!(notice.event_type, "tidings");
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "{status}");
        assert!(!self.pid_file.exists());
    }
}

/// A process that is not a child of the test.
struct KillOnDrop(Pid);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// Whether this system mounts a disk of its own for a process.
fn can_mount() -> bool {
    let mounted = std::process::Command::new("unshare")
        .args(["--mount", "mount", "-t", "tmpfs", "none", "/tmp"])
        .stderr(Stdio::null())
        .status();
    mounted.is_ok_and(|status| status.success())
}

#[expect(
    clippy::explicit_write,
    reason = "the test harness shows what eprintln! writes only of tests that fail"
)]
async fn try_all(format: &str) {
    for broken in BROKEN {
        if broken == Broken::FullDisk && !can_mount() {
            // Bypasses the test harness, which hides the output of a test that passes.
            writeln!(io::stderr(), "SKIPPED a full disk below the log: no mounts in a namespace here")
                .unwrap();
            continue;
        }
        eprintln!("{broken:?} with a log in {format}");
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("output");
        fs::create_dir(&folder).unwrap();
        let args = ["-v", "--log", format];
        let hub = Hub::start(broken, &folder, &args).await;
        hub.is_served().await;
        hub.upgrades().await;
        let hub = Hub::start(broken, &folder, &args).await;
        hub.is_served().await;
        hub.drains().await;
    }
}

#[tokio::test]
async fn a_hub_survives_every_broken_output_in_text() {
    try_all("text").await;
}

#[tokio::test]
async fn a_hub_survives_every_broken_output_in_json() {
    try_all("json").await;
}

/// A failed start keeps its exit status, whether or not the error line can be written.
#[tokio::test]
async fn a_failed_start_keeps_its_exit_status_on_every_broken_output() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log").display().to_string();
    // A full pipe, not read while this value exists.
    let (_reader, stopped) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let pipe_bytes = fcntl_setpipe_size(&stopped, 4096).unwrap();
    File::from(stopped.try_clone().unwrap()).write_all(&vec![b'x'; pipe_bytes]).unwrap();
    let gone = pipe_with(PipeFlags::CLOEXEC).unwrap().1;
    for (name, script, pipe) in [
        ("/dev/full", "exec 2>/dev/full".to_owned(), None),
        ("closed", "exec 2>&-".to_owned(), None),
        ("closed pipe", ":".to_owned(), Some(&gone)),
        ("stopped reader", ":".to_owned(), Some(&stopped)),
        ("file size limit", format!("ulimit -f 0; exec 2>'{log}'"), None),
    ] {
        for (args, code) in [
            (&["--nonsense"][..], 2),
            (&["--heartbeat-secs", "0"], 2),
            (&["--store", "/dev/null"], 1),
            (&["--store", "/dev/null", "--log", "json"], 1),
        ] {
            let mut command = Command::new("sh");
            command.args(["-c", r#"eval "$0"; exec "$@""#, &script]).arg(binary().unwrap());
            command.args(["serve", "--listen", "127.0.0.1:0"]).args(args);
            let stderr = pipe.map_or_else(Stdio::null, |pipe| pipe.try_clone().unwrap().into());
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).kill_on_drop(true);
            let status = timeout(PATIENCE, command.status()).await.expect("it ends").unwrap();
            assert_eq!(status.code(), Some(code), "{name} {args:?}");
        }
    }
}

/// The output of `-v` is not read for a while. Then the reader gets the queued lines and the number
/// of dropped ones.
#[tokio::test]
async fn a_late_reader_gets_the_number_of_dropped_lines() {
    const MANY: usize = 1_000;
    const LARGE: usize = 4_000;
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("output");
    let broken = Broken::StoppedReader { pipe_bytes: 64 << 10 };
    let mut hub = Hub::start(broken, &folder, &["-v", "--log", "json"]).await;
    let mut connection = Connection::open(hub.address).await.unwrap();
    let data = "x".repeat(LARGE);
    for _ in 0..MANY {
        connection.request("POST /topics/chat", data.as_bytes()).await.unwrap();
        assert_eq!(connection.response().await.unwrap().status, 200);
    }
    let reader = File::from(hub.reader.take().unwrap());
    let lines = tokio::task::spawn_blocking(move || {
        let mut printed = 0;
        for line in io::BufRead::lines(io::BufReader::new(reader)) {
            let line: Value = serde_json::from_str(&line.unwrap()).expect("every line is JSON");
            printed += usize::from(line["topic"] == "chat");
            let message = line["fields"]["message"].as_str().unwrap_or_default();
            if let Some((dropped, _)) = message.split_once(" lines for standard output were dropped") {
                return (printed, dropped.parse::<usize>().unwrap());
            }
        }
        panic!("no report of dropped lines after {printed} events");
    });
    let (printed, dropped) = timeout(PATIENCE, lines).await.expect("dropped lines are reported").unwrap();
    assert!(dropped > 0 && printed > 0 && printed + dropped <= MANY, "{printed} {dropped}");
    // From here on the output is not read again.
    hub.is_served().await;
    hub.drains().await;
}

/// The banner is only for terminals.
#[tokio::test]
async fn only_a_terminal_gets_the_banner_and_every_start_writes_one_line() {
    for (format, has_terminal) in [("text", true), ("text", false), ("json", true), ("json", false)] {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("output");
        let log = parent.path().join("log");
        let log_file = || Stdio::from(OpenOptions::new().create(true).append(true).open(&log).unwrap());
        let terminal = has_terminal.then(Terminal::open);
        let stdout = terminal.as_ref().map_or_else(log_file, |terminal| terminal.other_end().into());
        let mut hub = Hub::launch(":", (stdout, log_file()), None, &folder, &["--log", format]).await;
        hub.is_served().await;
        Hub::signal(hub.serves().await, Signal::TERM);
        assert_eq!(hub.ended().await.code(), Some(0));

        let url = format!("http://{}", hub.address);
        let log = fs::read_to_string(&log).unwrap();
        let starts: Vec<_> = log.lines().filter(|line| line.contains("listening")).collect();
        let [start] = starts[..] else { panic!("{log}") };
        for part in [&url, env!("CARGO_PKG_VERSION"), "memory:", "credentials", "streams_max"] {
            assert!(start.contains(part), "{part} in {start}");
        }
        assert!(!log.contains("curl"), "{log}");
        if format == "json" {
            for line in log.lines() {
                serde_json::from_str::<Value>(line).expect(line);
            }
        }
        let shown = terminal.map(Terminal::shown).unwrap_or_default();
        let has_banner = format == "text" && has_terminal;
        for part in [
            format!("curl -N '{url}/stream"),
            "every client on this machine may publish and subscribe".to_owned(),
            "Up to ".to_owned(),
        ] {
            assert_eq!(shown.contains(&part), has_banner, "{part} in {shown}");
        }
        assert!(has_banner || shown.is_empty(), "{shown}");
    }
}

/// The test holds the user's end of the terminal.
struct Terminal(OwnedFd);

impl Terminal {
    fn open() -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        Self(ours)
    }

    fn other_end(&self) -> OwnedFd {
        let name = ptsname(&self.0, Vec::new()).unwrap();
        rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, rustix::fs::Mode::empty())
            .unwrap()
    }

    /// Closes the terminal, and waits until no process has it open any more: a process that another
    /// test is starting has a copy of every descriptor for a moment.
    fn close(self) {
        let other_end = self.other_end();
        drop(self);
        let mut ends = [PollFd::new(&other_end, PollFlags::empty())];
        let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
        assert_eq!(poll(&mut ends, Some(&patience)).unwrap(), 1, "the terminal is still open");
    }

    /// Everything that was printed, once the processes have exited.
    fn shown(self) -> String {
        let mut shown = Vec::new();
        // A terminal whose other end is closed reports an error after the last byte.
        let _ = File::from(self.0).read_to_end(&mut shown);
        String::from_utf8(shown).unwrap()
    }
}

/// Reads from the kernel that every signal that would end a hub by default is caught or ignored.
#[tokio::test]
async fn every_signal_has_a_decision() {
    /// Signals that report a fault of the program, SIGKILL, signals that do not end a process
    /// (stops, SIGCHLD, SIGCONT, SIGURG, SIGWINCH), and two that the C library reserves.
    const LEFT_ALONE: [u32; 19] = [4, 5, 6, 7, 8, 9, 11, 17, 18, 19, 20, 21, 22, 23, 28, 31, 32, 33, 34];
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("output");
    let mut hub = Hub::launch(":", (Stdio::null(), Stdio::null()), None, &folder, &[]).await;
    let pid = hub.serves().await;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    let handled = mask("SigCgt:") | mask("SigIgn:");
    for number in (1..=64).filter(|number| !LEFT_ALONE.contains(number)) {
        assert!(handled & (1 << (number - 1)) != 0, "signal {number} ends the hub");
    }

    // Ignored signals have no effect, and a hub without a terminal ignores a hang-up.
    for signal in [Signal::HUP, Signal::USR1, Signal::ALARM, Signal::XFSZ, Signal::PIPE, Signal::PROF] {
        Hub::signal(pid, signal);
    }
    hub.is_served().await;
    Hub::signal(pid, Signal::QUIT);
    assert_eq!(hub.ended().await.code(), Some(0), "SIGQUIT drains");
}

/// A shell that exits sends SIGHUP, and so does the kernel when the terminal closes. Under `nohup`
/// the hub continues.
#[tokio::test]
async fn a_hub_whose_terminal_closes_drains_unless_hang_ups_are_ignored() {
    for (script, is_to_go_on) in [(":", false), ("trap '' HUP", true)] {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("output");
        let terminal = Terminal::open();
        let outputs = (terminal.other_end().into(), terminal.other_end().into());
        let mut hub = Hub::launch(script, outputs, None, &folder, &[]).await;
        let pid = hub.serves().await;
        // While the terminal is open, the hub continues.
        Hub::signal(pid, Signal::HUP);
        hub.is_served().await;
        let mut stream = EventStream::open(hub.address, "/stream?topic=chat").await.unwrap();
        terminal.close();
        Hub::signal(pid, Signal::HUP);
        if is_to_go_on {
            hub.is_served().await;
            Hub::signal(pid, Signal::TERM);
        } else {
            let notice = timeout(PATIENCE, stream.next()).await.expect("a notice").unwrap();
            assert_eq!(notice.event_type, "tidings");
        }
        assert_eq!(hub.ended().await.code(), Some(0));
    }
}

/// Under a file size limit the store of a hub is full at some point, which has no other effect.
#[tokio::test]
async fn a_file_size_limit_refuses_events_and_does_not_end_the_hub() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("output");
    let store = parent.path().join("events");
    let args = ["--store", store.to_str().unwrap(), "--sync", "never"];
    // In blocks of 512 bytes.
    let mut hub = Hub::launch("ulimit -f 400", (Stdio::null(), Stdio::null()), None, &folder, &args).await;
    let mut connection = Connection::open(hub.address).await.unwrap();
    let data = "x".repeat(10_000);
    let mut refused = None;
    for _ in 0..100 {
        connection.request("POST /topics/chat", data.as_bytes()).await.unwrap();
        let response = connection.response().await.unwrap();
        if response.status != 200 {
            refused = Some(response);
            break;
        }
    }
    let refused = refused.expect("200 KiB are less than a hundred events of 10,000 bytes");
    assert!(matches!(refused.status, 503 | 507), "{} {}", refused.status, refused.text());
    connection.request("GET /healthz", b"").await.unwrap();
    assert_eq!(connection.response().await.unwrap().status, 200);
    Hub::signal(hub.serves().await, Signal::TERM);
    assert_eq!(hub.ended().await.code(), Some(0));
}

/// Without further threads, processes or descriptors a hub continues with those it has, and loses
/// nothing.
#[tokio::test]
async fn lower_limits_refuse_requests_and_do_not_end_the_hub() {
    const STORED: usize = 300;
    // Root is exempt from process limits.
    const OTHER_USER: [&str; 6] = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"];
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("output");
    let store = parent.path().join("events");
    let args = ["--store", store.to_str().unwrap(), "--sync", "never"];
    let mut script = ":".to_owned();
    if rustix::process::geteuid().is_root() {
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let mut check = std::process::Command::new(OTHER_USER[0]);
        check.args(&OTHER_USER[1..]).args(["sh", "-c", r#"test -x "$0" && test -w "$1""#]);
        let checked = check.arg(binary().unwrap()).arg(parent.path()).status();
        if !checked.is_ok_and(|status| status.success()) {
            writeln!(io::stderr(), "SKIPPED limits that shrink: no other user can run the hub here").unwrap();
            return;
        }
        script = format!(r#"set -- {} "$@""#, OTHER_USER.join(" "));
    }
    let start = async || Hub::launch(&script, (Stdio::null(), Stdio::null()), None, &folder, &args).await;
    let mut hub = start().await;
    let mut connection = Connection::open(hub.address).await.unwrap();
    let data = "x".repeat(10_000);
    for _ in 0..STORED {
        connection.request("POST /topics/chat", data.as_bytes()).await.unwrap();
        assert_eq!(connection.response().await.unwrap().status, 200);
    }
    Hub::signal(hub.serves().await, Signal::TERM);
    assert_eq!(hub.ended().await.code(), Some(0));

    // After a restart history is read from the disk, by threads for blocking work.
    let mut hub = start().await;
    let pid = hub.serves().await;
    let limit = |limit: &str| {
        let script = format!(r#"set -- prlimit --pid "$1" "$2"; {script}; exec "$@""#);
        let args = ["-euc", &script, "sh", &pid.to_string(), limit];
        assert!(std::process::Command::new("sh").args(args).status().unwrap().success());
    };
    // The threads that fan out start with the first stream.
    let _first = EventStream::open(hub.address, "/stream?topic=other").await.unwrap();
    limit("--nproc=1:1024");
    for _ in 0..5 {
        let mut history = EventStream::open(hub.address, "/stream?topic=chat&since=earliest").await.unwrap();
        let read = timeout(ANSWER_TIME_MAX, history.messages(STORED)).await.expect("history is read");
        assert_eq!(read.unwrap().len(), STORED);
    }
    Hub::signal(pid, Signal::USR2);

    let mut connection = Connection::open(hub.address).await.unwrap();
    connection.request("GET /healthz", b"").await.unwrap();
    assert_eq!(connection.response().await.unwrap().status, 200);
    limit("--nofile=3:1024");
    connection.request("POST /topics/chat", b"more").await.unwrap();
    assert_eq!(connection.response().await.unwrap().status, 200);
    Hub::signal(pid, Signal::USR2);
    connection.request("GET /healthz", b"").await.unwrap();
    assert_eq!(connection.response().await.unwrap().status, 200);

    // Both upgrades failed, and this is the same hub.
    limit("--nofile=1024:1024");
    hub.is_served().await;
    assert_eq!(hub.serves().await, pid);
    Hub::signal(pid, Signal::TERM);
    assert_eq!(hub.ended().await.code(), Some(0));
}
