//! Proxies on another machine: network namespaces in place of machines, and the configurations of
//! docs/operations.md as they are printed there.
//!
//! `TIDINGS_CLIENTS=5000` sets the number of client addresses. Where the system permits no network
//! namespaces, or a proxy is not installed, the test is skipped with a message.

#![cfg(target_os = "linux")]

use std::{
    env, fs,
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tidings_testkit::{Connection, EventStream, Hub, PATIENCE, binary};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

const CLIENTS: usize = 300;
/// Addresses whose limit is tried, with and without a forged header.
const TRIED: usize = 50;
/// Connections that are opened at a time.
const CONCURRENT: usize = 50;
/// Where the clients reach the proxy.
const ENTRANCE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 7, 0, 2)), 80);
const KEY: &str = "a-secret-of-some-length";

static STARTED: AtomicUsize = AtomicUsize::new(0);

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Three machines: clients in 10.8.0.0/16, the proxy with 10.7.0.2 and 10.9.9.9, the hub with
/// 10.9.9.1.
struct Machines {
    clients: String,
    proxy: String,
    hub: String,
}

impl Machines {
    fn start() -> Result<Self, String> {
        // Both tests run in one process.
        let number = STARTED.fetch_add(1, Relaxed);
        let name = |role| format!("tidings-{}-{number}-{role}", process::id());
        let machines = Self { clients: name("clients"), proxy: name("proxy"), hub: name("hub") };
        let Self { clients, proxy, hub } = &machines;
        ip(&format!(
            "netns add {clients}\nnetns add {proxy}\nnetns add {hub}\n\
             link add c0 netns {clients} type veth peer name p0 netns {proxy}\n\
             link add h0 netns {hub} type veth peer name p1 netns {proxy}\n"
        ))?;
        let up =
            |device: &str, address: &str| format!("addr add {address} dev {device}\nlink set {device} up\n");
        let lo = "link set lo up\n";
        // Every address of 10.8.0.0/16 is one of the clients' machine.
        let route = "route add local 10.8.0.0/16 dev lo\n";
        Self::set_up(clients, &[lo, &up("c0", "10.7.0.1/24"), route].concat())?;
        let back = "route add 10.8.0.0/16 via 10.7.0.1\n";
        Self::set_up(proxy, &[lo, &up("p0", "10.7.0.2/24"), &up("p1", "10.9.9.9/24"), back].concat())?;
        Self::set_up(hub, &[lo, &up("h0", "10.9.9.1/24")].concat())?;
        Ok(machines)
    }

    fn set_up(machine: &str, batch: &str) -> Result<(), String> {
        run(Command::new("ip").args(["-netns", machine, "-batch", "-"]), batch)
    }

    /// The command that runs a program on a machine.
    fn command(machine: &str, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", machine]).arg(program);
        command
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in [&self.clients, &self.proxy, &self.hub] {
            let _ = ip(&format!("netns del {name}\n"));
        }
    }
}

fn ip(batch: &str) -> Result<(), String> {
    run(Command::new("ip").args(["-batch", "-"]), batch)
}

fn run(command: &mut Command, input: &str) -> Result<(), String> {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = piped.spawn().map_err(|error| format!("ip: {error}"))?;
    // A command that fails at once does not read it.
    let written = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let printed = String::from_utf8_lossy(&output.stderr);
    match written {
        Ok(()) if output.status.success() => Ok(()),
        Ok(()) => Err(printed.into_owned()),
        Err(error) => Err(format!("{printed} {error}")),
    }
}

/// A proxy, which is asked to end, so that it ends its own processes.
struct StoppedOnDrop(Child);

impl Drop for StoppedOnDrop {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// The configuration of this language in the documentation.
fn documented(language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md");
    let text = fs::read_to_string(path).unwrap();
    let section = text.split_once("\n## Client addresses\n").expect("the section").1;
    let code = section.split_once(&format!("```{language}\n")).expect("a configuration").1;
    code.split_once("```").expect("its end").0.to_owned()
}

fn nginx(folder: &Path) -> (String, Vec<String>) {
    let at = folder.display();
    let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let places: String =
        places.iter().fold(String::new(), |all, name| all + &format!("{name}_temp_path {at}/{name};\n"));
    let config = format!(
        "user root;\nworker_processes 1;\nworker_rlimit_nofile 20000;\npid {at}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 20000; }}\nhttp {{\naccess_log off;\n{places}{}}}\n",
        documented("nginx")
    );
    (config, ["-g", "daemon off;", "-c"].map(str::to_owned).to_vec())
}

fn haproxy(_: &Path) -> (String, Vec<String>) {
    let config = format!("global\n    maxconn 9000\n\n{}", documented("haproxy"));
    (config, ["-db", "-f"].map(str::to_owned).to_vec())
}

fn installed(program: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&folders).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn clients_count() -> usize {
    env::var("TIDINGS_CLIENTS").map_or(CLIENTS, |count| count.parse().expect("TIDINGS_CLIENTS is a number"))
}

/// A hub that allows one stream of each address, behind a proxy on another machine.
async fn serves_each_client(
    program: &str,
    source: &str,
    configuration: impl FnOnce(&Path) -> (String, Vec<String>),
) {
    let Some(program) = installed(program) else {
        return eprintln!("skipped: {program} is not installed");
    };
    let machines = match Machines::start() {
        Ok(machines) => machines,
        Err(error) => return eprintln!("skipped: no network namespaces: {}", error.trim()),
    };
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("t.toml");
    let key =
        format!("[[key]]\nname = \"app\"\nsecret = \"{KEY}\"\npublish = [\"*\"]\nsubscribe = [\"*\"]\n");
    fs::write(&config, key).unwrap();
    let hub_binary = binary().unwrap();
    let args = [
        "netns",
        "exec",
        &machines.hub,
        hub_binary.to_str().unwrap(),
        "serve",
        "--config",
        config.to_str().unwrap(),
        "--listen",
        "10.9.9.1:8080",
        "--trusted-proxy",
        "10.9.9.9",
        "--client-address",
        source,
        "--streams-per-address-max",
        "1",
    ];
    let mut hub = Hub::not_started(args).unwrap().with_binary("ip".into()).on_its_own();
    hub.start_again().await.unwrap();

    let (config, mut args) = configuration(folder.path());
    let file = folder.path().join("proxy.conf");
    fs::write(&file, config).unwrap();
    args.push(file.to_str().unwrap().to_owned());
    let mut proxy = Machines::command(&machines.proxy, &program);
    let _proxy = StoppedOnDrop(proxy.args(args).stdin(Stdio::null()).spawn().unwrap());

    // This test binary again, as the clients.
    let clients = Machines::command(&machines.clients, &env::current_exe().unwrap())
        .args(["--exact", "clients_with_an_address_each", "--ignored", "--nocapture"])
        .output();
    let clients = tokio::task::spawn_blocking(|| clients).await.unwrap().unwrap();
    let printed = [clients.stdout, clients.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    assert!(clients.status.success() && printed.contains("every client was served"), "{printed}");

    let line = hub.printed("a limit was reached").await.unwrap();
    assert!(line.contains("streams_per_address_max") && line.contains(" client=10.8."), "{line}");
    let output = hub.output();
    assert!(!output.iter().any(|line| line.contains("client=10.9.9.9")), "{output:?}");
    assert!(hub.stop().await.unwrap().success());
}

#[tokio::test]
async fn limits_hold_for_each_client_behind_nginx_on_another_machine() {
    serves_each_client("nginx", "x-forwarded-for", nginx).await;
}

#[tokio::test]
async fn limits_hold_for_each_client_behind_haproxy_on_another_machine() {
    serves_each_client("haproxy", "proxy-protocol", haproxy).await;
}

fn address(number: usize) -> IpAddr {
    let [.., high, low] = u32::try_from(number + 1).expect("few clients").to_be_bytes();
    Ipv4Addr::new(10, 8, high, low).into()
}

async fn open(client: IpAddr, fields: &[&str]) -> Result<EventStream, AnyError> {
    Ok(EventStream::on(Connection::open_from(client, ENTRANCE).await?, "/stream?topic=chat", fields).await?)
}

async fn is_up() -> Result<bool, AnyError> {
    let mut connection = Connection::open_from(address(0), ENTRANCE).await?;
    connection.request("GET /healthz\nConnection: close", b"").await?;
    Ok(connection.response().await?.status == 200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the clients of the tests above, in a network namespace of their own"]
async fn clients_with_an_address_each() {
    let clients = clients_count();
    timeout(PATIENCE, async {
        while !matches!(is_up().await, Ok(true)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the proxy serves");

    let turns = Arc::new(Semaphore::new(CONCURRENT));
    let mut opening = JoinSet::new();
    for number in 0..clients {
        let turns = Arc::clone(&turns);
        opening.spawn(async move {
            let _turn = turns.acquire_owned().await.expect("open");
            open(address(number), &[]).await
        });
    }
    let mut streams = Vec::new();
    for opened in opening.join_all().await {
        streams.push(opened.expect("no client is refused for the address of the proxy"));
    }

    let forged = ["X-Forwarded-For: 10.8.200.200", "Forwarded: for=10.8.200.200", "X-Real-IP: 10.8.200.200"];
    for number in (0..clients).step_by(clients.div_ceil(TRIED)) {
        for fields in [&[][..], &forged] {
            let refused = open(address(number), fields).await.expect_err("one stream each").to_string();
            assert!(refused.contains("429"), "{refused}");
        }
    }
    // Nobody has used the address that was forged.
    streams.push(open(Ipv4Addr::new(10, 8, 200, 200).into(), &[]).await.expect("it is free"));

    let mut publisher = Connection::open_from(address(0), ENTRANCE).await.expect("a connection");
    let head = format!("POST /topics/chat\nAuthorization: Bearer {KEY}");
    publisher.request(&head, b"hello").await.expect("sent");
    assert_eq!(publisher.response().await.expect("an answer").status, 200);
    for stream in &mut streams {
        assert_eq!(stream.next().await.expect("an event").data, "hello");
    }
    println!("every client was served");
}
