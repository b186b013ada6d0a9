//! The servers under test, each in the foreground on a free port of loopback.

use std::{
    env, fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, getrlimit, kill_process, setrlimit};
use tempfile::TempDir;

const NGINX_CONF: &str = include_str!("../../nginx.conf");
/// The paths of nginx and its modules in distributions.
const NGINX: [&str; 2] = ["/usr/sbin/nginx", "/usr/bin/nginx"];
const MODULES: [&str; 3] = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules"];
const REDIS: &str = "redis-server";
/// How long syncs are counted.
const SYNC_TIME: Duration = Duration::from_secs(2);
const START_TIME_MAX: Duration = Duration::from_secs(20);
/// Subscribers of the scenario `private` hold this many different grants.
const GRANTS: usize = 100;
/// Signs the tokens of a hub that runs for seconds on loopback.
const SECRET: &str = "a secret of the benchmark, 32 bytes or more";
const AUDIENCE: &str = "https://hub.example/";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerKind {
    Tidings,
    /// Tidings with a log in files, synced before each answer.
    TidingsDisk,
    /// Tidings with a log in a Redis on the same machine, in memory.
    TidingsRedis,
    Nchan,
    Axum,
}

impl ServerKind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Tidings, Self::TidingsDisk, Self::TidingsRedis, Self::Nchan, Self::Axum];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tidings => "tidings",
            Self::TidingsDisk => "tidings-disk",
            Self::TidingsRedis => "tidings-redis",
            Self::Nchan => "nchan",
            Self::Axum => "axum",
        }
    }

    /// The name of its preset in the load client.
    pub(crate) fn preset(self) -> &'static str {
        match self {
            Self::TidingsDisk | Self::TidingsRedis => Self::Tidings.name(),
            Self::Tidings | Self::Nchan | Self::Axum => self.name(),
        }
    }

    /// Why it cannot be measured here, if it cannot.
    pub(crate) fn missing(self) -> Option<String> {
        let program = match self {
            Self::Nchan if nginx().is_none() || modules().is_none() => "nginx or its module nchan",
            Self::TidingsRedis if Command::new(REDIS).arg("--version").output().is_err() => REDIS,
            _ => return None,
        };
        Some(format!("{program} is not installed; `tests/setup bench` installs Debian's packages"))
    }
}

/// The resources of a run: programs, and a folder that is removed with this value.
pub(crate) struct Folder {
    programs: PathBuf,
    temporary: TempDir,
}

/// The credentials for the hub of the scenario `private`.
pub(crate) struct Tokens {
    pub(crate) publish: String,
    /// A file, one token per line.
    pub(crate) subscribe: PathBuf,
}

impl Folder {
    pub(crate) fn new(programs: &Path) -> anyhow::Result<Self> {
        // A restart command is run by the program that kills the server: it must not depend on the
        // current directory.
        let programs =
            programs.canonicalize().with_context(|| format!("no folder {}", programs.display()))?;
        // Next to the programs, which are on a disk: the temporary folder may be in memory, where
        // syncs cannot be measured.
        let temporary = tempfile::tempdir_in(&programs)?;
        Ok(Self { programs, temporary })
    }

    pub(crate) fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.programs.join(name);
        ensure!(path.is_file(), "{} is not built: run `make bench`", path.display());
        Ok(path)
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.temporary.path().join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn issuer(&self) -> anyhow::Result<PathBuf> {
        let text = format!("[issuer]\niss = \"bench\"\naudience = \"{AUDIENCE}\"\nsecret = \"{SECRET}\"\n");
        self.write("tidings.toml", &text)
    }

    pub(crate) fn tokens(&self) -> anyhow::Result<Tokens> {
        let config = self.issuer()?;
        let new = |rights: &[&str]| {
            let mut command = Command::new(self.program("tidings")?);
            command.args(["token", "new", "--config"]).arg(&config).args(rights);
            let output = command.output().context("cannot create tokens")?;
            ensure!(
                output.status.success(),
                "cannot create tokens: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            Ok(String::from_utf8(output.stdout)?.trim().to_owned())
        };
        let mut lines = String::new();
        for grant in 0..GRANTS {
            // Each may receive the benchmark's topics and something of its own.
            let own = format!("user-{grant}");
            lines += &(new(&["--subscribe", "bench-*", "--subscribe", &own])? + "\n");
        }
        Ok(Tokens { publish: new(&["--publish", "*"])?, subscribe: self.write("tokens", &lines)? })
    }
}

/// A running server. Dropping this value stops it.
pub(crate) struct Server {
    address: SocketAddr,
    command: Vec<String>,
    process: Process,
    /// The store that it needs, which ends after it.
    _store: Option<Process>,
}

/// A process that accepts connections. Dropping this value kills it.
struct Process(Child);

impl Server {
    pub(crate) fn start(kind: ServerKind, folder: &Folder, with_issuer: bool) -> anyhow::Result<Self> {
        allow_descriptors()?;
        let store = (kind == ServerKind::TidingsRedis).then(|| start_redis(folder)).transpose()?;
        let (store, store_address) = store.unzip();
        // A restart must find the same port free, so it is chosen here and not by the server.
        let address = free_address()?;
        let command = command(kind, folder, address, store_address, with_issuer)?;
        let process = Process::start(kind.name(), &command, address, folder)?;
        Ok(Self { address, command, process, _store: store })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// For a shell.
    pub(crate) fn command_line(&self) -> String {
        self.command.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ")
    }
}

impl Process {
    /// Starts a program and waits until it accepts connections at its address.
    fn start(name: &str, command: &[String], address: SocketAddr, folder: &Folder) -> anyhow::Result<Self> {
        let path = folder.temporary.path().join(format!("{name}.log"));
        let log = fs::File::create(&path)?;
        let child = Command::new(&command[0])
            .args(&command[1..])
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", command[0]))?;
        let mut process = Self(child);
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = process.0.try_wait()? {
                let log = fs::read_to_string(path).unwrap_or_default();
                bail!("{name} exited at once ({status}): {}", log.trim());
            }
            ensure!(began.elapsed() < START_TIME_MAX, "{name} does not accept connections");
            sleep(Duration::from_millis(5));
        }
        Ok(process)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After a storm it has been killed already.
        if let Ok(None) = self.0.try_wait()
            && let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw)
        {
            kill_process(pid, Signal::TERM).ok();
        }
        let began = Instant::now();
        while let Ok(None) = self.0.try_wait() {
            if began.elapsed() > START_TIME_MAX {
                self.0.kill().ok();
            }
            sleep(Duration::from_millis(5));
        }
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A Redis that keeps everything in memory.
fn start_redis(folder: &Folder) -> anyhow::Result<(Process, SocketAddr)> {
    let address = free_address()?;
    let port = address.port().to_string();
    let words = [REDIS, "--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"];
    let command = words.map(str::to_owned);
    Ok((Process::start("redis", &command, address, folder)?, address))
}

fn command(
    kind: ServerKind,
    folder: &Folder,
    address: SocketAddr,
    store: Option<SocketAddr>,
    with_issuer: bool,
) -> anyhow::Result<Vec<String>> {
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is no text");
    let program = |name: &str| text(&folder.program(name)?);
    match kind {
        ServerKind::Tidings | ServerKind::TidingsDisk | ServerKind::TidingsRedis => {
            let mut command =
                vec![program("tidings")?, "serve".to_owned(), "--listen".to_owned(), address.to_string()];
            if kind == ServerKind::TidingsDisk {
                let store = text(&folder.temporary.path().join("events"))?;
                command.extend(["--store", &store, "--sync", "always"].map(str::to_owned));
            }
            if let Some(store) = store {
                command.extend(["--store".to_owned(), format!("redis://{store}")]);
            }
            if with_issuer {
                command.extend(["--config".to_owned(), text(&folder.issuer()?)?]);
            }
            Ok(command)
        }
        ServerKind::Axum => Ok(vec![program("tidings-bench-axum")?, address.to_string()]),
        ServerKind::Nchan => {
            let (nginx, modules) = nginx().zip(modules()).context("nginx with nchan is not installed")?;
            let path = text(folder.temporary.path())?;
            let conf = NGINX_CONF
                .replace("MODULES", modules)
                .replace("FOLDER", &path)
                .replace("PORT", &address.port().to_string());
            let conf = text(&folder.write("nginx.conf", &conf)?)?;
            // As root, nginx would run its workers as a user without access to the folder.
            let user = if rustix::process::geteuid().is_root() { " user root;" } else { "" };
            let words = ["-p", &path, "-e", "error.log", "-c", &conf, "-g", &format!("daemon off;{user}")];
            Ok([nginx].into_iter().chain(words).map(str::to_owned).collect())
        }
    }
}

fn nginx() -> Option<&'static str> {
    NGINX.into_iter().find(|path| Path::new(path).is_file())
}

fn modules() -> Option<&'static str> {
    MODULES.into_iter().find(|folder| Path::new(folder).join("ngx_nchan_module.so").is_file())
}

/// Servers inherit it; only ours raises its own.
fn allow_descriptors() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// Syncs per second of this disk, each of an appended group of 64 events of 128 bytes: with 64
/// publishers that all wait, no log that syncs before it answers can accept more than 64 times as
/// many events.
pub(crate) fn syncs_per_second(folder: &Path) -> anyhow::Result<f64> {
    const GROUP_BYTES: usize = 64 * 256;
    let mut file = tempfile::tempfile_in(folder)?;
    let group = vec![0x5a; GROUP_BYTES];
    let began = Instant::now();
    let mut syncs = 0.0;
    while began.elapsed() < SYNC_TIME {
        file.write_all(&group)?;
        file.sync_data()?;
        syncs += 1.0;
    }
    Ok(syncs / began.elapsed().as_secs_f64())
}

/// The machine, in a line.
pub(crate) fn machine() -> String {
    let field = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned())).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = field("/proc/meminfo", "MemTotal");
    let mebibytes =
        memory.split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024;
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{}, {cores} cores ({}), {mebibytes} MiB, kernel {}, {}",
        system.trim_matches('"'),
        field("/proc/cpuinfo", "model name"),
        release.trim().split('-').next().unwrap_or_default(),
        env::consts::ARCH
    )
}
