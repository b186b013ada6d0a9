//! A disk that runs full under a hub: publications are refused with the reason, everything else
//! continues, and publishing resumes by itself when there is space again.
//!
//! The disk is a small tmpfs in a mount namespace of its own, which ends with the test. If the
//! system does not permit that, the test is skipped with a message.

#![cfg(target_os = "linux")]

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tidings_testkit::{Connection, EventStream, Hub, binary};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};

const DISK_BYTES: usize = 4 << 20;
const BALLAST_BYTES: usize = 2 << 20;
/// Large enough that a few hundred events fill the disk.
const EVENT_BYTES: usize = 10_000;
const SUBSCRIBERS: usize = 3;
/// The number of refusals after which the disk is full.
const REFUSED_MIN: usize = 20;
const PATIENCE: Duration = Duration::from_secs(60);
const TOPIC: &str = "/stream?topic=chat";
const HISTORY: &str = "/stream?topic=chat&since=earliest";

/// A process that holds the mount namespace with the disk. It ends with its standard input, which
/// this value holds.
struct Disk {
    holder: Child,
    is_root: bool,
}

impl Disk {
    /// Mounts a disk over this folder, and puts ballast on it.
    async fn mount(folder: &Path) -> Result<Self, String> {
        let is_root = rustix::process::geteuid().is_root();
        let script = r#"mount -t tmpfs -o "size=$2,mode=777" none "$1"; head -c "$3" /dev/zero >"$1/ballast"; echo mounted; cat"#;
        let mut command = Command::new("unshare");
        if !is_root {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "sh", "-euc", script, "sh"]).arg(folder);
        command.args([DISK_BYTES.to_string(), BALLAST_BYTES.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut holder = command.spawn().map_err(|error| format!("unshare: {error}"))?;
        let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
        let said = timeout(PATIENCE, lines.next_line()).await.expect("the disk is mounted or not").unwrap();
        if said.as_deref() == Some("mounted") {
            return Ok(Self { holder, is_root });
        }
        Err(format!("unshare ended with {}", holder.wait().await.unwrap()))
    }

    /// A program that runs the hub in the mount namespace.
    fn program(&self, folder: &Path) -> PathBuf {
        let program = folder.join("tidings-on-disk");
        let user = if self.is_root { "" } else { "--user --preserve-credentials" };
        let pid = self.holder.id().unwrap();
        let real = binary().unwrap();
        let script =
            format!("#!/bin/sh\nexec nsenter --target {pid} {user} --mount -- '{}' \"$@\"\n", real.display());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        program
    }

    /// The path of a file on the disk, from outside the namespace.
    fn path(&self, inside: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id().unwrap()));
        root.join(inside.strip_prefix("/").unwrap())
    }
}

/// Publishes with numbers, and remembers what was acknowledged.
struct Publisher {
    connection: Connection,
    count: usize,
    acknowledged: Vec<String>,
}

impl Publisher {
    /// Publishes one event; the status of the answer, and its text.
    async fn publish(&mut self) -> (u16, String) {
        self.count += 1;
        let name = format!("event-{}", self.count);
        let data = format!("{name} {}", "x".repeat(EVENT_BYTES));
        self.connection.request("POST /topics/chat", data.as_bytes()).await.unwrap();
        let response = self.connection.response().await.unwrap();
        if response.status == 200 {
            self.acknowledged.push(name);
        }
        let is_problem = response.header("content-type") == Some("application/problem+json");
        assert_eq!(is_problem, response.status != 200);
        (response.status, response.text())
    }
}

/// The names of so many events.
async fn names(stream: &mut EventStream, count: usize) -> Vec<String> {
    let messages = stream.messages(count).await.unwrap();
    messages.iter().map(|data| data.split(' ').next().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_reported_and_recovers_and_no_acknowledged_event_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = folder.path().join("disk");
    fs::create_dir(&mounted).unwrap();
    let disk = match Disk::mount(&mounted).await {
        Ok(disk) => disk,
        Err(reason) => {
            // Bypasses the test harness, which hides the output of a test that passes.
            writeln!(io::stderr(), "SKIPPED a_full_disk_…: no mounts in a namespace here ({reason})")
                .unwrap();
            return;
        }
    };
    let store = mounted.join("events");
    let mut hub = Hub::not_started(["serve", "--store", store.to_str().unwrap()])
        .unwrap()
        .with_binary(disk.program(folder.path()));
    hub.start_again().await.unwrap();
    let address = hub.address();

    // Subscribers stay connected and are compared at the end.
    let mut streams = Vec::new();
    for _ in 0..SUBSCRIBERS {
        streams.push(EventStream::open(address, TOPIC).await.unwrap());
    }
    let mut publisher = Publisher {
        connection: Connection::open(address).await.unwrap(),
        count: 0,
        acknowledged: Vec::new(),
    };
    let mut refused = 0;
    while refused < REFUSED_MIN {
        assert!(publisher.count * EVENT_BYTES < 2 * DISK_BYTES, "the disk never ran full");
        match publisher.publish().await {
            (200, _) => {}
            (507, text) => {
                assert!(text.contains("Nothing was published") && text.contains("no storage left"), "{text}");
                refused += 1;
            }
            (status, text) => panic!("a publication was answered {status}: {text}"),
        }
    }
    let acknowledged = publisher.acknowledged.len();
    assert!(acknowledged * EVENT_BYTES > BALLAST_BYTES / 2, "{acknowledged}");

    // The operator gets the reason, and the process is alive.
    let ready = hub.request("GET /readyz", b"").await.unwrap();
    assert!(ready.status == 503 && ready.text().contains("No space left"), "{}", ready.text());
    assert!(hub.request("GET /metrics", b"").await.unwrap().text().contains("\ntidings_ready 0\n"));
    assert_eq!(hub.request("GET /healthz", b"").await.unwrap().status, 200);
    hub.printed("storage").await.unwrap();

    // Connected and new subscribers receive all acknowledged events.
    streams.push(EventStream::open(address, HISTORY).await.unwrap());
    let mut readers = JoinSet::new();
    for mut stream in streams {
        readers.spawn(async move { (names(&mut stream, acknowledged).await, stream) });
    }
    let mut streams = Vec::new();
    for (received, stream) in readers.join_all().await {
        assert_eq!(received, publisher.acknowledged);
        streams.push(stream);
    }

    // With space again, the hub becomes ready without a restart or a publication.
    fs::remove_file(disk.path(&mounted.join("ballast"))).unwrap();
    timeout(PATIENCE, async { while hub.request("GET /readyz", b"").await.unwrap().status != 200 {} })
        .await
        .expect("the hub becomes ready by itself");
    let (status, text) = publisher.publish().await;
    assert_eq!(status, 200, "{text}");
    for stream in &mut streams {
        assert_eq!(names(stream, 1).await, publisher.acknowledged[acknowledged..]);
    }

    // No refused event and every acknowledged event is delivered, also after a crash.
    for is_killed in [true, false] {
        if is_killed {
            hub.kill().await.unwrap();
        } else {
            hub.stop().await.unwrap();
        }
        hub.start_again().await.unwrap();
        let mut stream = EventStream::open(address, HISTORY).await.unwrap();
        hub.publish("chat", "end").await.unwrap();
        publisher.acknowledged.push("end".to_owned());
        assert_eq!(names(&mut stream, publisher.acknowledged.len()).await, publisher.acknowledged);
    }
    println!("{} acknowledged, {refused} refused, none lost", publisher.acknowledged.len());
}
