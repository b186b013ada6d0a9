//! What `serve` and `demo` share: a socket, its life from the first connection to the last, a log, and signals.

#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::{
    env,
    io::{self, IsTerminal},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tidings::Hub;
use tidings_server::{Drain, Listener};
use tracing_subscriber::{EnvFilter, fmt::time::SystemTime};

use super::{
    keep_blocking_thread,
    signals::{Stops, stops},
    supervisor,
};
#[cfg(unix)]
use super::{
    pid_file::PidFile,
    upgrade::{Predecessor, Upgrades},
};
use crate::{
    config::LogFormat,
    failure::Failure,
    output,
    store::{Keeping, Opened},
};

/// How long a successor may take to serve before the upgrade is given up, where no setting says so.
pub(super) const UPGRADE_SECS: u64 = 30;
/// Of `drain_secs`, the share over which streams end after an upgrade. What takes longer to read its closing frames has the rest.
const PACE_SHARE: f64 = 0.8;

/// How long those who are connected are given before a store is left to a successor. The one that connects meanwhile waits for it.
const HAND_OVER: Duration = Duration::from_millis(500);

/// When the server is to end, and how.
pub(super) type Ended = Pin<Box<dyn Future<Output = Drain> + Send>>;

/// How a successor takes over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Succession {
    /// It serves already.
    Serves,
    /// It serves when this process has ended.
    WaitsForStore,
}

/// Where connections come from, and who is to be reported once they are served.
pub(super) struct Listening {
    pub(super) listener: Listener,
    pub(super) address: SocketAddr,
    stops: Stops,
    #[cfg(unix)]
    predecessor: Option<Predecessor>,
    #[cfg(unix)]
    pid_file: Option<PathBuf>,
    #[cfg(unix)]
    upgrades: Upgrades,
}

impl Listening {
    /// The socket that a predecessor passes, or the one that was inherited (`LISTEN_FDS`), or else one at this address.
    pub(super) fn start(address: SocketAddr) -> Result<Self, Failure> {
        #[cfg(unix)]
        let (passed, predecessor) = Predecessor::take()
            .map_err(|error| Failure::runtime(format!("the predecessor passes no socket: {error}")))?
            .unzip();
        #[cfg(not(unix))]
        let passed = None;
        let listener = match passed {
            Some(socket) => Listener::from_std(socket).map_err(Failure::runtime)?,
            None => match Listener::inherited().map_err(Failure::runtime)? {
                Some(listener) => listener,
                None => {
                    Listener::bind(address).map_err(|error| Failure::runtime(format!("--listen: {error}")))?
                }
            },
        };
        let address = listener.local_addr().map_err(|error| {
            Failure::runtime(format!("the socket does not say where it listens: {error}"))
        })?;
        let cannot_start = |error| Failure::runtime(format!("cannot start: {error}"));
        let stops = stops().map_err(cannot_start)?;
        #[cfg(unix)]
        let upgrades = Upgrades::of(&listener).map_err(cannot_start)?;
        Ok(Self {
            listener,
            address,
            stops,
            #[cfg(unix)]
            predecessor,
            #[cfg(unix)]
            pid_file: None,
            #[cfg(unix)]
            upgrades,
        })
    }

    /// Names the process in this file while it serves. Nothing is written before it does.
    #[cfg(unix)]
    pub(super) fn set_pid_file(&mut self, path: &Path) -> Result<(), Failure> {
        PidFile::check(path, self.predecessor.as_ref().and_then(|_| Predecessor::pid()))?;
        self.pid_file = Some(path.to_owned());
        Ok(())
    }

    /// Opens the store. If the predecessor has it, that one is asked to leave it, and waited for.
    pub(super) async fn open(&mut self, keeping: &Keeping) -> Result<Opened, Failure> {
        keep_blocking_thread().await?;
        let refused = match keeping.open().await {
            Ok(opened) => return Ok(opened),
            Err(refused) => refused,
        };
        #[cfg(unix)]
        if refused.is_in_use
            && let Some(predecessor) = self.predecessor.take()
        {
            predecessor.leave().await.map_err(Failure::runtime)?;
            return keeping.open_soon().await.map_err(Failure::from);
        }
        Err(refused.into())
    }

    /// Serves until somebody stops it (once for a clean end, twice for an end at once), until a successor has taken over, or until the hub fails: a process
    /// that cannot deliver ends, so that the one that watches it starts another.
    pub(super) async fn serve<F: Future<Output = ()>>(
        self,
        hub: Hub,
        store: Opened,
        drain_secs: u64,
        upgrade_secs: u64,
        serve: impl FnOnce(Listener, Ended) -> F,
    ) -> Result<(), Failure> {
        let pace = Duration::from_secs(drain_secs).mul_f64(PACE_SHARE);
        #[cfg(unix)]
        let succeeded = self.upgrades.succeeded(Duration::from_secs(upgrade_secs), store.is_exclusive());
        #[cfg(not(unix))]
        let succeeded = std::future::pending::<Succession>();
        let stops = self.stops;
        let twice = stops.clone().requested(2);
        let ending = hub.clone();
        let has_successor = Arc::<AtomicBool>::default();
        let succeeding = Arc::clone(&has_successor);
        let ended = async move {
            tokio::select! {
                () = stops.requested(1) => {
                    supervisor::tell("STOPPING=1");
                    ending.close();
                    Drain::AtOnce
                }
                // Nobody has stopped it: it has failed.
                () = ending.closed() => Drain::AtOnce,
                succession = succeeded => {
                    succeeding.store(true, Relaxed);
                    match succession {
                        Succession::Serves => {
                            ending.close_over(pace);
                            Drain::Succeeded
                        }
                        Succession::WaitsForStore => {
                            ending.close_over(pace.min(HAND_OVER));
                            Drain::HandOver(HAND_OVER)
                        }
                    }
                }
            }
        };
        #[cfg(unix)]
        let pid_file = self.pid_file.as_deref().map(PidFile::write).transpose()?;
        let serving = serve(self.listener, Box::pin(ended));
        #[cfg(unix)]
        match self.predecessor {
            Some(predecessor) => predecessor.ready(),
            None => supervisor::tell("READY=1"),
        }
        let served = tokio::select! {
            () = serving => Ok(()),
            () = twice => Err(Failure::runtime("stopped twice: connections were cut")),
        };
        // Other hubs need not find out by themselves that this one is gone.
        hub.close();
        hub.closed().await;
        store.close().await;
        // From an upgrade on the file is the successor's, also while that one waits for this process to end.
        #[cfg(unix)]
        if let Some(pid_file) = pid_file
            && !has_successor.load(Relaxed)
        {
            pid_file.remove();
        }
        match hub.failure() {
            Some(reason) => Err(Failure::runtime(format!("the hub has failed: {reason}"))),
            None => served,
        }
    }
}

/// How this machine reaches an address that it listens on.
pub(super) fn base_url(listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, listen.port()))
}

/// Logs to standard error: warnings, and what operators want to know. `RUST_LOG` asks for more or less.
pub(super) fn start_log(format: LogFormat) -> Result<(), Failure> {
    output::set_format(format);
    output::STDERR.start().map_err(|error| Failure::runtime(format!("cannot start: {error}")))?;
    // The client of NATS calls it an error when a lost connection is given up, and has its reasons; the hub says what there is to say of it.
    let default = || EnvFilter::new("info,async_nats=off");
    let wanted = env::var(EnvFilter::DEFAULT_ENV).ok().filter(|words| !words.trim().is_empty());
    let (filter, mistake) = match wanted.map(EnvFilter::try_new) {
        None => (default(), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(mistake)) => (default(), Some(mistake)),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(SystemTime)
        .with_writer(|| &output::STDERR)
        // It would write its own errors past the queue.
        .log_internal_errors(false)
        .with_ansi(format == LogFormat::Text && io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    if let Some(mistake) = mistake {
        tracing::warn!("RUST_LOG is ignored: {mistake}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidings::log::segment::{SegmentLog, SegmentSettings};

    use super::*;
    use crate::store::{Store, Sync};

    /// The log is closed under the hub: nothing can be published or delivered any more.
    #[tokio::test]
    async fn a_hub_that_fails_ends_the_program_with_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let log = SegmentLog::open(folder.path(), SegmentSettings::default(), tidings::log::Clock::system())
            .unwrap();
        let hub = Hub::builder().log(log.clone()).start().await.unwrap();
        let keeping = Keeping {
            store: Store::Memory,
            sync: Sync::Never,
            age_max: None,
            bytes_max: 1 << 20,
            count_max: None,
            #[cfg(unix)]
            rules: Vec::new(),
        };
        let mut listening = Listening::start("127.0.0.1:0".parse().unwrap()).unwrap();
        let store = listening.open(&keeping).await.unwrap_or_else(|_| unreachable!("memory is there"));
        let serving = listening.serve(hub, store, 30, 30, async |_, ended| {
            assert_eq!(ended.await, Drain::AtOnce);
        });
        log.close().await;
        let failure = serving.await.unwrap_err().to_string();
        assert_eq!(failure, "the hub has failed: the log has ended: it has been closed");
    }

    #[test]
    fn an_address_that_means_all_is_reached_at_this_one() {
        for (listen, url) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:80", "http://[::1]:80"),
            ("192.0.2.1:80", "http://192.0.2.1:80"),
        ] {
            assert_eq!(base_url(listen.parse().unwrap()), url);
        }
    }
}
