//! The stores of Tidings, and the servers that some of them need.

use std::net::SocketAddr;

use anyhow::Context;

use crate::{
    folder::{Folder, text_of},
    process::{Process, free_address, installed},
};

/// Where a hub keeps its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Memory,
    /// Files, synced before each answer.
    Files,
    /// A Redis on the same machine that keeps everything in memory.
    Redis,
    /// A nats-server on the same machine, with its streams in files.
    Nats,
}

/// An empty store. Dropping this value ends its server.
pub(crate) struct RunningStore {
    /// Words of the hub's command line.
    pub(crate) arguments: Vec<String>,
    _server: Option<Process>,
}

impl Store {
    pub(crate) const ALL: [Self; 4] = [Self::Memory, Self::Files, Self::Redis, Self::Nats];

    /// Why it cannot be measured here, if it cannot.
    pub(crate) fn missing(self) -> Option<&'static str> {
        match self {
            Self::Redis if redis().is_none() => {
                Some("redis-server is not installed; `tests/setup bench` installs Debian's package")
            }
            Self::Nats if nats().is_none() => Some(
                "nats-server is not installed; `tests/setup` builds one, or TIDINGS_NATS_SERVER names one",
            ),
            _ => None,
        }
    }

    pub(crate) fn start(self, folder: &Folder) -> anyhow::Result<RunningStore> {
        let address = free_address()?;
        let (url, server) = match self {
            Self::Memory => return Ok(RunningStore { arguments: Vec::new(), _server: None }),
            Self::Files => {
                let store = text_of(&folder.path("events"))?;
                let arguments = ["--store", &store, "--sync", "always"].map(str::to_owned).to_vec();
                return Ok(RunningStore { arguments, _server: None });
            }
            Self::Redis => (format!("redis://{address}"), start_redis(address, folder)?),
            Self::Nats => (format!("nats://{address}"), start_nats(address, folder)?),
        };
        Ok(RunningStore { arguments: vec!["--store".to_owned(), url], _server: Some(server) })
    }
}

fn redis() -> Option<String> {
    installed("redis-server", "TIDINGS_BENCH_REDIS", &[])?.into_os_string().into_string().ok()
}

fn nats() -> Option<String> {
    let usual = ["tests/.cache/bin/nats-server", "/usr/sbin/nats-server"];
    installed("nats-server", "TIDINGS_NATS_SERVER", &usual)?.into_os_string().into_string().ok()
}

fn start_redis(address: SocketAddr, folder: &Folder) -> anyhow::Result<Process> {
    let redis = redis().context("redis-server is not installed")?;
    let port = address.port().to_string();
    let words = ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"];
    let command: Vec<String> = [redis].into_iter().chain(words.map(str::to_owned)).collect();
    Process::start("redis", &command, address, folder)
}

fn start_nats(address: SocketAddr, folder: &Folder) -> anyhow::Result<Process> {
    let nats = nats().context("nats-server is not installed")?;
    let streams = text_of(&folder.path("streams"))?;
    let text = format!(
        "listen: \"{address}\"\njetstream {{ store_dir: \"{streams}\", max_file: 64GB, max_mem: 64MB }}\n"
    );
    let config = text_of(&folder.write("nats.conf", &text)?)?;
    Process::start("nats", &[nats, "--config".to_owned(), config], address, folder)
}
