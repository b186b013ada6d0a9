//! The servers under test, each in the foreground on a free port of loopback.

use std::{net::SocketAddr, path::Path};

use anyhow::Context;

use crate::{
    folder::{Folder, text_of},
    process::{Process, allow_descriptors, free_address, installed},
    store::{RunningStore, Store},
};

const NGINX_CONF: &str = include_str!("../../nginx.conf");
const CENTRIFUGO_JSON: &str = include_str!("../../centrifugo.json");
const MERCURE_CADDYFILE: &str = include_str!("../../mercure.Caddyfile");
/// The paths of nginx and its modules in distributions.
const NGINX: [&str; 2] = ["/usr/sbin/nginx", "/usr/bin/nginx"];
const MODULES: [&str; 3] = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules"];
/// Permits to publish anything to the Mercure hub, which has the key in its configuration.
const MERCURE_TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJtZXJjdXJlIjp7InB1Ymxpc2giOlsiKiJdfX0.cROGR8eriqgWXD28Q5DUspZu9auMAMdXMdXN-enfGuo";

/// A server under test. Another build of Tidings is measured only if the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerKind {
    Tidings(Store),
    Baseline(Store),
    /// The physical limit: `bench/bare`.
    Bare,
    Nchan,
    Axum,
    Mercure,
    Centrifugo,
}

impl ServerKind {
    /// All except other builds of Tidings.
    pub(crate) const ALL: [Self; 9] = [
        Self::Tidings(Store::Memory),
        Self::Tidings(Store::Files),
        Self::Tidings(Store::Redis),
        Self::Tidings(Store::Nats),
        Self::Bare,
        Self::Nchan,
        Self::Axum,
        Self::Mercure,
        Self::Centrifugo,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tidings(Store::Memory) => "tidings",
            Self::Tidings(Store::Files) => "tidings-disk",
            Self::Tidings(Store::Redis) => "tidings-redis",
            Self::Tidings(Store::Nats) => "tidings-nats",
            Self::Baseline(Store::Memory) => "baseline",
            Self::Baseline(Store::Files) => "baseline-disk",
            Self::Baseline(Store::Redis) => "baseline-redis",
            Self::Baseline(Store::Nats) => "baseline-nats",
            Self::Bare => "bare",
            Self::Nchan => "nchan",
            Self::Axum => "axum",
            Self::Mercure => "mercure",
            Self::Centrifugo => "centrifugo",
        }
    }

    /// The same server with another build of Tidings.
    pub(crate) fn baseline(self) -> Option<Self> {
        match self {
            Self::Tidings(store) => Some(Self::Baseline(store)),
            _ => None,
        }
    }

    /// The store, if it is a build of Tidings.
    pub(crate) fn store(self) -> Option<Store> {
        match self {
            Self::Tidings(store) | Self::Baseline(store) => Some(store),
            _ => None,
        }
    }

    /// Whether a comparison is complete without it. No package of a distribution has it.
    pub(crate) fn is_optional(self) -> bool {
        matches!(self, Self::Mercure | Self::Centrifugo)
    }

    /// The name of its preset in the load client. The bare loop has the routes of Tidings.
    pub(crate) fn preset(self) -> &'static str {
        match self {
            Self::Tidings(_) | Self::Baseline(_) | Self::Bare => "tidings",
            Self::Nchan | Self::Axum | Self::Mercure | Self::Centrifugo => self.name(),
        }
    }

    /// The token with which the load client publishes, if one is needed.
    pub(crate) fn token(self) -> Option<&'static str> {
        (self == Self::Mercure).then_some(MERCURE_TOKEN)
    }

    /// Why it cannot be measured here, if it cannot.
    pub(crate) fn missing(self) -> Option<&'static str> {
        match self {
            Self::Tidings(store) | Self::Baseline(store) => store.missing(),
            Self::Nchan if nginx().is_none() || modules().is_none() => Some(
                "nginx or its module nchan is not installed; `tests/setup bench` installs Debian's packages",
            ),
            Self::Mercure if mercure().is_none() => {
                Some("there is no `mercure` in the PATH, and TIDINGS_BENCH_MERCURE does not name one")
            }
            Self::Centrifugo if centrifugo().is_none() => {
                Some("there is no `centrifugo` in the PATH, and TIDINGS_BENCH_CENTRIFUGO does not name one")
            }
            Self::Bare | Self::Nchan | Self::Axum | Self::Mercure | Self::Centrifugo => None,
        }
    }
}

/// A running server. Dropping this value stops it.
pub(crate) struct Server {
    address: SocketAddr,
    command: Vec<String>,
    process: Process,
    /// The store that it needs, which ends after it.
    _store: Option<RunningStore>,
}

impl Server {
    pub(crate) fn start(kind: ServerKind, folder: &Folder, with_issuer: bool) -> anyhow::Result<Self> {
        allow_descriptors()?;
        let store = kind.store().map(|store| store.start(folder)).transpose()?;
        // A restart must find the same port free, so it is chosen here and not by the server.
        let address = free_address()?;
        let mut command = command(kind, folder, address)?;
        command.extend(store.iter().flat_map(|store| store.arguments.clone()));
        if with_issuer {
            command.extend(["--config".to_owned(), text_of(&folder.issuer()?)?]);
        }
        let process = Process::start(kind.name(), &command, address, folder)?;
        Ok(Self { address, command, process, _store: store })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// For a shell.
    pub(crate) fn command_line(&self) -> String {
        self.command.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ")
    }
}

fn command(kind: ServerKind, folder: &Folder, address: SocketAddr) -> anyhow::Result<Vec<String>> {
    let port = address.port().to_string();
    let (program, arguments) = match kind {
        ServerKind::Tidings(_) => {
            (text_of(&folder.program("tidings")?)?, vec!["serve".to_owned(), format!("--listen={address}")])
        }
        ServerKind::Baseline(_) => {
            (text_of(folder.baseline()?)?, vec!["serve".to_owned(), format!("--listen={address}")])
        }
        ServerKind::Bare => (text_of(&folder.program("tidings-bench-bare")?)?, vec![address.to_string()]),
        ServerKind::Axum => (text_of(&folder.program("tidings-bench-axum")?)?, vec![address.to_string()]),
        ServerKind::Nchan => {
            let (nginx, modules) = nginx().zip(modules()).context("nginx with nchan is not installed")?;
            let path = text_of(&folder.path(""))?;
            let conf = NGINX_CONF.replace("MODULES", modules).replace("FOLDER", &path).replace("PORT", &port);
            let conf = text_of(&folder.write("nginx.conf", &conf)?)?;
            // As root, nginx would run its workers as a user without access to the folder.
            let user = if rustix::process::geteuid().is_root() { " user root;" } else { "" };
            let options = format!("daemon off;{user}");
            let words = ["-p", &path, "-e", "error.log", "-c", &conf, "-g", &options];
            (nginx.to_owned(), words.map(str::to_owned).to_vec())
        }
        ServerKind::Mercure => {
            let config = MERCURE_CADDYFILE.replace("PORT", &port);
            let config = text_of(&folder.write("Caddyfile", &config)?)?;
            let words = ["run", "--adapter", "caddyfile", "--config", &config];
            (mercure().context("mercure is missing")?, words.map(str::to_owned).to_vec())
        }
        ServerKind::Centrifugo => {
            let config = folder.write("centrifugo.json", &CENTRIFUGO_JSON.replace("PORT", &port))?;
            (centrifugo().context("centrifugo is missing")?, vec!["--config".to_owned(), text_of(&config)?])
        }
    };
    Ok([program].into_iter().chain(arguments).collect())
}

fn nginx() -> Option<&'static str> {
    NGINX.into_iter().find(|path| Path::new(path).is_file())
}

fn modules() -> Option<&'static str> {
    MODULES.into_iter().find(|folder| Path::new(folder).join("ngx_nchan_module.so").is_file())
}

fn mercure() -> Option<String> {
    installed("mercure", "TIDINGS_BENCH_MERCURE", &[])?.into_os_string().into_string().ok()
}

fn centrifugo() -> Option<String> {
    installed("centrifugo", "TIDINGS_BENCH_CENTRIFUGO", &[])?.into_os_string().into_string().ok()
}
