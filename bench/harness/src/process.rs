//! Processes that accept connections: servers and their stores.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::folder::Folder;

const START_TIME_MAX: Duration = Duration::from_secs(20);

/// A process that accepts connections. Dropping this value kills it.
pub(crate) struct Process(Child);

impl Process {
    /// Starts a program and waits until it accepts connections at its address.
    pub(crate) fn start(
        name: &str,
        command: &[String],
        address: SocketAddr,
        folder: &Folder,
    ) -> anyhow::Result<Self> {
        let path = folder.path(&format!("{name}.log"));
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

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
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

pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Servers inherit it; only ours raises its own.
pub(crate) fn allow_descriptors() -> anyhow::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// A program that is not built here: named by an environment variable, or at one of the usual paths,
/// or in the `PATH`.
pub(crate) fn installed(name: &str, variable: &str, usual: &[&str]) -> Option<PathBuf> {
    if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let usual = usual.iter().map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let searched: Vec<PathBuf> = env::split_paths(&path).map(|folder| folder.join(name)).collect();
    usual.chain(searched).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
