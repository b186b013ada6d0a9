//! What `serve` and `demo` share: the listening sockets, their lifecycle, and signals.

#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tidings::Hub;
use tidings_server::{Drain, Leaving, Listener, ListenerRole, LocalAddress};

#[cfg(unix)]
use super::{
    pid_file::PidFile,
    signals::ForApplication,
    upgrade::{OldProcess, UpgradeRefusal, Upgrades},
};
use super::{
    runtime::keep_blocking_thread,
    signals::{Reloads, Stops, stops},
    sockets::{Addresses, Socket, Sockets, ignored},
    supervisor,
    takeover::Takeover,
};
use crate::{
    config::Listen,
    failure::Failure,
    store::{Keeping, Opened},
};

/// Default for `upgrade_secs`, where there is no such setting.
#[cfg_attr(not(feature = "demo"), allow(dead_code, reason = "for `tidings demo`"))]
pub(super) const UPGRADE_SECS: u64 = 30;
/// The share of `drain_secs` over which streams end after an upgrade. Clients that are slow to read
/// their closing frames have the rest.
const PACE_SHARE: f64 = 0.8;

/// How long connections are drained before a store is left to the new process. New connections wait
/// in the queue of the socket meanwhile.
const HAND_OVER: Duration = Duration::from_millis(500);

/// Completes when the server should end, with how to end.
pub(super) type Ended = Pin<Box<dyn Future<Output = Drain> + Send>>;

/// The listening sockets, and the processes to notify once they are served.
pub(super) struct Listening {
    sockets: Vec<Socket>,
    /// Sockets of the old process that are not served any more.
    unused: Vec<Socket>,
    stops: Stops,
    #[cfg(unix)]
    old_process: Option<OldProcess>,
    #[cfg(unix)]
    pid_file: Option<PathBuf>,
    #[cfg(unix)]
    upgrades: Upgrades,
    /// Why this process cannot be upgraded, if it cannot.
    #[cfg(unix)]
    upgrade_refusal: Option<&'static str>,
}

impl Listening {
    /// The sockets that the old process passes, or the inherited ones (`LISTEN_FDS`), or else new
    /// ones at these addresses, with TLS where it is wanted. `drain_delay`: see `drain_delay.rs`.
    pub(super) fn start(addresses: &Addresses<'_>, drain_delay: Duration) -> Result<Self, Failure> {
        #[cfg(unix)]
        let (passed, old_process) = OldProcess::take()
            .map_err(|error| Failure::runtime(format!("the old process passed no sockets: {error}")))?
            .unzip();
        #[cfg(unix)]
        let found = match passed {
            Some(passed) => passed.into_iter().map(Socket::passed).collect::<Result<_, _>>()?,
            None => Socket::inherited()?,
        };
        #[cfg(not(unix))]
        let found = Socket::inherited()?;
        let opened = Sockets::open(found, addresses)?;
        let cannot_start = |error| Failure::runtime(format!("cannot start: {error}"));
        let stops = stops(drain_delay).map_err(cannot_start)?;
        #[cfg(unix)]
        let upgrades = Upgrades::of(&opened.sockets).map_err(cannot_start)?;
        Ok(Self {
            sockets: opened.sockets,
            unused: opened.unused,
            stops,
            #[cfg(unix)]
            old_process,
            #[cfg(unix)]
            pid_file: None,
            #[cfg(unix)]
            upgrades,
            #[cfg(unix)]
            upgrade_refusal: None,
        })
    }

    /// The addresses of the sockets for clients, or of those for operators.
    pub(super) fn addresses(&self, is_admin: bool) -> Vec<LocalAddress> {
        let sockets = self.sockets.iter().filter(|socket| !socket.is_for_own_application());
        let listeners = sockets.map(|socket| &socket.listener);
        let chosen =
            listeners.filter(|listener| (listener.settings().role == ListenerRole::Admin) == is_admin);
        chosen.map(|listener| listener.address().clone()).collect()
    }

    /// The URL at which this machine reaches the sockets for clients.
    pub(super) fn base_url(&self) -> String {
        let listeners = self.sockets.iter().map(|socket| &socket.listener);
        let clients = listeners
            .filter(|listener| matches!(listener.settings().role, ListenerRole::All | ListenerRole::Clients));
        base_url(clients.map(|listener| (listener.address().clone(), listener.settings().tls.is_some())))
    }

    /// Where the application reaches the hub.
    #[cfg(unix)]
    pub(super) fn application_address(&self) -> Option<SocketAddr> {
        let socket = self.sockets.iter().find(|socket| socket.is_for_own_application())?;
        match socket.listener.address() {
            LocalAddress::Ip(address) => Some(*address),
            LocalAddress::All(_) | LocalAddress::Unix(_) => None,
        }
    }

    /// What signals mean for the application, from now on.
    #[cfg(unix)]
    pub(super) fn signals_for_application(&self) -> tokio::sync::broadcast::Receiver<ForApplication> {
        self.stops.for_application()
    }

    /// Refuses upgrades, with this reason.
    #[cfg(unix)]
    pub(super) fn refuse_upgrades(&mut self, reason: &'static str) {
        self.upgrade_refusal = Some(reason);
    }

    /// Requests to reload the configuration, from now on.
    pub(super) fn reloads(&self) -> Reloads {
        self.stops.reloads()
    }

    /// Whether the process was asked to stop, while it still serves.
    pub(super) fn leaving(&self) -> &Leaving {
        self.stops.leaving()
    }

    /// The sockets.
    pub(super) fn sockets(&self) -> &[Socket] {
        &self.sockets
    }

    /// One of these addresses that has no effect, because a supervisor has opened other sockets.
    pub(super) fn ignored<'a>(&self, listens: &'a [Listen]) -> Option<&'a Listen> {
        ignored(listens, &self.sockets)
    }

    /// Writes the process ID to this file while the process serves, not before.
    #[cfg(unix)]
    pub(super) fn set_pid_file(&mut self, path: &Path) -> Result<(), Failure> {
        PidFile::check(path, self.old_process.as_ref().and_then(|_| OldProcess::pid()))?;
        self.pid_file = Some(path.to_owned());
        Ok(())
    }

    /// Opens the store. If the old process has it open, asks that process to leave it, and waits.
    pub(super) async fn open(&mut self, keeping: &Keeping) -> Result<Opened, Failure> {
        keep_blocking_thread().await?;
        let refused = match keeping.open().await {
            Ok(opened) => return Ok(opened),
            Err(refused) => refused,
        };
        #[cfg(unix)]
        if refused.is_in_use
            && let Some(old_process) = self.old_process.take()
        {
            old_process.leave().await.map_err(Failure::runtime)?;
            return keeping.open_soon().await.map_err(Failure::from);
        }
        Err(refused.into())
    }

    /// Serves until a signal stops it (one drains, after the drain delay, and another one exits at
    /// once), until a new process has
    /// taken over, or until the hub fails: a process that cannot deliver exits, so that its
    /// supervisor starts another.
    pub(super) async fn serve<F: Future<Output = ()>>(
        self,
        hub: Hub,
        store: Opened,
        drain_secs: u64,
        upgrade_secs: u64,
        serve: impl FnOnce(Vec<Listener>, Ended) -> F,
    ) -> Result<(), Failure> {
        let pace = Duration::from_secs(drain_secs).mul_f64(PACE_SHARE);
        #[cfg(unix)]
        let succeeded = self.upgrades.succeeded(
            Duration::from_secs(upgrade_secs),
            store.is_exclusive(),
            UpgradeRefusal { always: self.upgrade_refusal, leaving: self.stops.leaving().clone() },
        );
        #[cfg(not(unix))]
        let succeeded = std::future::pending::<Takeover>();
        let stops = self.stops;
        let twice = stops.clone().requested(2);
        let ending = hub.clone();
        let is_upgraded = Arc::<AtomicBool>::default();
        let succeeding = Arc::clone(&is_upgraded);
        let ended = async move {
            tokio::select! {
                () = stops.requested(1) => {
                    supervisor::notify("STOPPING=1");
                    ending.close();
                    Drain::AtOnce
                }
                // Not stopped by a signal: the hub has failed.
                () = ending.closed() => Drain::AtOnce,
                takeover = succeeded => {
                    succeeding.store(true, Relaxed);
                    let over = match takeover {
                        Takeover::Serves => pace,
                        Takeover::WaitsForStore => pace.min(HAND_OVER),
                    };
                    ending.close_over(over);
                    Drain::Succeeded(over)
                }
            }
        };
        #[cfg(unix)]
        let pid_file = self.pid_file.as_deref().map(PidFile::write).transpose()?;
        let mut sockets = [self.sockets, self.unused];
        #[cfg(unix)]
        for socket in sockets.iter_mut().flatten() {
            // From now on this process is the one that removes their files.
            socket.listener.own_file(!socket.is_inherited());
        }
        let [sockets, unused] = sockets;
        let listeners = sockets.into_iter().map(|socket| socket.listener).collect();
        let serving = serve(listeners, Box::pin(ended));
        drop(unused);
        #[cfg(unix)]
        match self.old_process {
            Some(old_process) => old_process.ready(),
            None => supervisor::notify("READY=1"),
        }
        let served = tokio::select! {
            () = serving => Ok(()),
            () = twice => Err(Failure::runtime("stopped by a second signal: connections were cut")),
        };
        // Notify other hubs that this one ends.
        hub.close();
        hub.closed().await;
        store.close().await;
        // After an upgrade the file belongs to the new process, also while that waits for this one
        // to end.
        #[cfg(unix)]
        if let Some(pid_file) = pid_file
            && !is_upgraded.load(Relaxed)
        {
            pid_file.remove();
        }
        match hub.failure() {
            Some(reason) => Err(Failure::runtime(format!("the hub has failed: {reason}"))),
            None => served,
        }
    }
}

/// The URL at which this machine reaches one of these addresses, each with whether it has TLS: over
/// loopback if an address allows it, otherwise at the first address. Over a Unix socket the host has
/// no meaning.
pub(super) fn base_url(addresses: impl IntoIterator<Item = (LocalAddress, bool)>) -> String {
    let reached = addresses.into_iter().filter_map(|(address, has_tls)| {
        let address = match address {
            LocalAddress::Ip(address) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
                SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()))
            }
            LocalAddress::Ip(address) if address.ip().is_unspecified() => {
                SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))
            }
            LocalAddress::Ip(address) => address,
            LocalAddress::All(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            LocalAddress::Unix(_) => return None,
        };
        Some((address, has_tls))
    });
    match reached.min_by_key(|(address, _)| !address.ip().is_loopback()) {
        Some((address, true)) => format!("https://{address}"),
        Some((address, false)) => format!("http://{address}"),
        None => "http://localhost".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tidings::log::segment::{SegmentLog, SegmentSettings};

    use super::*;
    use crate::store::{Store, Sync};

    /// The log is closed while the hub uses it: nothing can be published or delivered any more.
    #[tokio::test]
    async fn a_failed_hub_ends_the_program_with_one_line() {
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
            has_journal: false,
        };
        let listens = ["127.0.0.1:0".parse().unwrap()];
        let addresses = Addresses { listens: &listens, ..Addresses::default() };
        let mut listening = Listening::start(&addresses, Duration::ZERO).unwrap();
        let store =
            listening.open(&keeping).await.unwrap_or_else(|_| unreachable!("a log in memory always opens"));
        let serving = listening.serve(hub, store, 30, 30, async |_, ended| {
            assert_eq!(ended.await, Drain::AtOnce);
        });
        log.close().await;
        let failure = serving.await.unwrap_err().to_string();
        assert_eq!(failure, "the hub has failed: the log has ended: it has been closed");
    }

    #[test]
    fn a_hub_is_reached_over_loopback_where_an_address_allows_it() {
        let ip = |text: &str| LocalAddress::Ip(text.parse().unwrap());
        let unix = || LocalAddress::Unix("/run/hub.sock".into());
        for (addresses, url) in [
            (vec![ip("127.0.0.1:8080")], "http://127.0.0.1:8080"),
            (vec![ip("0.0.0.0:80")], "http://127.0.0.1:80"),
            (vec![ip("[::]:80")], "http://[::1]:80"),
            (vec![LocalAddress::All(80)], "http://127.0.0.1:80"),
            (vec![ip("192.0.2.1:80")], "http://192.0.2.1:80"),
            (vec![ip("192.0.2.1:80"), ip("192.0.2.2:80")], "http://192.0.2.1:80"),
            (vec![unix(), ip("192.0.2.1:80"), ip("[::1]:81"), ip("127.0.0.1:82")], "http://[::1]:81"),
            (vec![unix()], "http://localhost"),
        ] {
            assert_eq!(base_url(addresses.iter().cloned().map(|address| (address, false))), url);
            let encrypted = base_url(addresses.into_iter().map(|address| (address, true)));
            assert_eq!(encrypted.replace("https:", "http:"), url);
            assert_eq!(encrypted.starts_with("https://"), !url.ends_with("localhost"));
        }
    }
}
