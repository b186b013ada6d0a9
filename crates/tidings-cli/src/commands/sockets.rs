//! The listening sockets of a hub: passed on by the old process of an upgrade, inherited from a
//! supervisor, or bound.
//!
//! Each socket has a name, which says what it is for: after an upgrade, a configured address takes
//! over the sockets that the old process had for the same address, with the ports that were chosen.

#[cfg(unix)]
use std::os::fd::OwnedFd;

use tidings_server::{
    ClientAddressSource, ListenError, Listener, ListenerRole, ListenerSettings, LocalAddress, Tls,
    TrustedProxies,
};

use crate::{
    config::{Listen, Place},
    failure::Failure,
};

/// Most sockets of a hub. The kernel passes on up to 253 of them in one message.
pub(super) const SOCKETS_MAX: usize = 64;
/// How often another free port is tried, where several addresses need the same one.
const PORT_ATTEMPTS: usize = 10;
/// The name of inherited sockets, and of those that LISTEN_FDNAMES says are for operators.
const INHERITED: &str = "inherited";
const INHERITED_ADMIN: &str = "inherited admin";
/// The name of the socket for the application that this process runs.
const APPLICATION: &str = "application";

/// A listening socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) name: String,
    pub(super) listener: Listener,
}

/// The configured addresses, and how they are served.
#[derive(Default)]
pub(super) struct Addresses<'a> {
    pub(super) listens: &'a [Listen],
    pub(super) admin_listens: &'a [Listen],
    /// For those that have TLS.
    pub(super) tls: Option<&'a Tls>,
    /// Where trusted proxies state the address of a client; not for operators.
    pub(super) client_address: ClientAddressSource,
    pub(super) trusted_proxies: TrustedProxies,
    /// Whether the application that the hub runs needs a socket of its own, on loopback.
    #[cfg(unix)]
    pub(super) has_application: bool,
}

/// What one setting asks for.
struct Wanted<'a> {
    setting: &'static str,
    listens: &'a [Listen],
    inherited: &'static str,
    settings: ListenerSettings,
    tls: Option<&'a Tls>,
}

/// All sockets of a hub.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) sockets: Vec<Socket>,
    /// Sockets of the old process for addresses that are no longer configured.
    pub(super) unused: Vec<Socket>,
}

impl Sockets {
    /// Opens a socket for each address, unless it is one of `found`: those that exist already.
    pub(super) fn open(found: Vec<Socket>, addresses: &Addresses<'_>) -> Result<Self, Failure> {
        let &Addresses { listens, admin_listens, tls, client_address, ref trusted_proxies, .. } = addresses;
        let mut opened = Self { sockets: Vec::new(), unused: found };
        let has_admin =
            !admin_listens.is_empty() || opened.unused.iter().any(|socket| socket.name == INHERITED_ADMIN);
        let settings = |role, client_address| {
            let mut settings = ListenerSettings::default();
            settings.role = role;
            settings.client_address = client_address;
            settings.trusted_proxies = trusted_proxies.clone();
            settings
        };
        #[cfg(unix)]
        let has_admin = has_admin || addresses.has_application;
        let clients = Wanted {
            setting: "listen",
            listens,
            inherited: INHERITED,
            settings: settings(
                if has_admin { ListenerRole::Clients } else { ListenerRole::All },
                client_address,
            ),
            tls,
        };
        let admin = Wanted {
            setting: "admin-listen",
            listens: admin_listens,
            inherited: INHERITED_ADMIN,
            settings: settings(ListenerRole::Admin, ClientAddressSource::Peer),
            tls,
        };
        for wanted in [clients, admin] {
            opened.open_wanted(&wanted)?;
        }
        #[cfg(unix)]
        if addresses.has_application {
            let listener = Listener::bind((std::net::Ipv4Addr::LOCALHOST, 0).into())
                .map_err(|error| Failure::runtime(format!("a socket for the application: {error}")))?;
            let settings = settings(ListenerRole::Application, ClientAddressSource::Peer);
            opened
                .sockets
                .push(Socket { name: APPLICATION.to_owned(), listener: listener.with_settings(settings) });
        }
        if opened.sockets.len() > SOCKETS_MAX {
            return Err(Failure::usage(format!(
                "--listen: the addresses need {} sockets; the limit is {SOCKETS_MAX}",
                opened.sockets.len()
            )));
        }
        Ok(opened)
    }

    fn open_wanted(&mut self, wanted: &Wanted<'_>) -> Result<(), Failure> {
        let inherited = self.take(wanted.inherited);
        if !inherited.is_empty() {
            for socket in inherited {
                let address = socket.listener.address();
                let is_tcp = !matches!(address, LocalAddress::Unix(_));
                let listen = wanted.listens.iter().find(|listen| listen.is_at(address));
                let has_tls = listen.map_or(is_tcp, Listen::has_tls);
                self.add(vec![socket], wanted, has_tls, listen);
            }
            return Ok(());
        }
        for (index, listen) in wanted.listens.iter().enumerate() {
            // Port 0 may be asked for more than once.
            let number =
                wanted.listens[..index].iter().filter(|other| other.address == listen.address).count();
            let name = format!("{} {number} {}", wanted.setting, listen.address);
            let mut sockets = self.take(&name);
            if sockets.is_empty() {
                let listeners = bind(&listen.place)
                    .map_err(|error| Failure::runtime(format!("--{}: {error}", wanted.setting)))?;
                sockets =
                    listeners.into_iter().map(|listener| Socket { name: name.clone(), listener }).collect();
            }
            #[cfg(unix)]
            if let Place::Unix { mode, .. } = listen.place {
                for socket in &sockets {
                    socket.listener.set_file_mode(mode).map_err(|error| {
                        Failure::runtime(format!("--{}: {}: {error}", wanted.setting, listen.address))
                    })?;
                }
            }
            self.add(sockets, wanted, listen.has_tls(), Some(listen));
        }
        Ok(())
    }

    /// Takes the unused sockets of this name.
    fn take(&mut self, name: &str) -> Vec<Socket> {
        self.unused.extract_if(.., |socket| socket.name == name).collect()
    }

    fn add(&mut self, sockets: Vec<Socket>, wanted: &Wanted<'_>, has_tls: bool, listen: Option<&Listen>) {
        let mut settings = wanted.settings.clone();
        settings.tls = wanted.tls.filter(|_| has_tls).cloned();
        let client_address = listen.and_then(|listen| listen.client_address);
        settings.client_address = client_address.unwrap_or(settings.client_address);
        if listen.is_some_and(Listen::is_for_application) {
            settings.role = ListenerRole::Application;
        }
        self.sockets.extend(sockets.into_iter().map(|Socket { name, listener }| Socket {
            name,
            listener: listener.with_settings(settings.clone()),
        }));
    }
}

impl Socket {
    /// The sockets that a supervisor has opened (`LISTEN_FDS`). One that it names `admin` is for
    /// operators. Call it once, early.
    pub(super) fn inherited() -> Result<Vec<Self>, Failure> {
        let name = |given: String| if given == "admin" { INHERITED_ADMIN } else { INHERITED }.to_owned();
        let inherited = Listener::inherited().map_err(Failure::runtime)?.into_iter();
        Ok(inherited.map(|(given, listener)| Self { name: name(given), listener }).collect())
    }

    /// A socket that another process passes on.
    #[cfg(unix)]
    pub(super) fn passed((name, socket): (String, OwnedFd)) -> Result<Self, Failure> {
        Ok(Self { name, listener: Listener::from_fd(socket).map_err(Failure::runtime)? })
    }

    /// Whether it is for the application that this process runs.
    pub(super) fn is_for_own_application(&self) -> bool {
        self.name == APPLICATION
    }

    /// Whether a supervisor opened it, and keeps it.
    pub(super) fn is_inherited(&self) -> bool {
        [INHERITED, INHERITED_ADMIN].contains(&self.name.as_str())
    }
}

/// An address that no socket listens on, because the process was given others instead.
pub(super) fn ignored<'a>(listens: &'a [Listen], sockets: &[Socket]) -> Option<&'a Listen> {
    let inherited: Vec<_> = sockets.iter().filter(|socket| socket.name == INHERITED).collect();
    let is_met = |listen: &&Listen| {
        let address = listen.local_address();
        let is_free_port = matches!(&address, LocalAddress::Ip(address) if address.port() == 0);
        is_free_port || inherited.iter().any(|socket| listen.is_at(socket.listener.address()))
    };
    if inherited.is_empty() { None } else { listens.iter().find(|listen| !is_met(listen)) }
}

/// Addresses as a log line shows them.
pub(super) fn shown(addresses: &[LocalAddress]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn bind(place: &Place) -> Result<Vec<Listener>, ListenError> {
    match place {
        Place::Ip(address) => Listener::bind(*address).map(|listener| vec![listener]),
        Place::All(port) => Listener::bind_all(*port).map(|listener| vec![listener]),
        Place::Name(addresses) => bind_name(addresses),
        #[cfg(unix)]
        Place::Unix { path, mode } => Listener::bind_unix(path, *mode).map(|listener| vec![listener]),
    }
}

/// Binds the addresses of a name that this machine has, all to the same port.
fn bind_name(addresses: &[std::net::SocketAddr]) -> Result<Vec<Listener>, ListenError> {
    let mut attempts_left = PORT_ATTEMPTS;
    'attempt: loop {
        attempts_left -= 1;
        let mut port = addresses[0].port();
        let is_chosen = port == 0;
        let mut bound: Vec<Listener> = Vec::new();
        let mut missing = None;
        for address in addresses {
            let mut address = *address;
            address.set_port(port);
            match Listener::bind(address) {
                Ok(listener) => {
                    port = listener.local_addr().map_or(port, |address| address.port());
                    bound.push(listener);
                }
                Err(error) if error.is_of_another_machine() => missing = Some((address, error)),
                // Free on one address is not free on all.
                Err(error) if error.is_in_use() && is_chosen && attempts_left > 0 => continue 'attempt,
                Err(error) => return Err(error),
            }
        }
        match missing {
            Some((_, error)) if bound.is_empty() => return Err(error),
            Some((address, _)) => {
                tracing::info!(%address, "not listening on an address that this machine does not have");
                return Ok(bound);
            }
            None => return Ok(bound),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listens(words: &[&str]) -> Vec<Listen> {
        words.iter().map(|word| word.parse().unwrap()).collect()
    }

    fn open(found: Vec<Socket>, listens: &[Listen], admin_listens: &[Listen]) -> Result<Sockets, Failure> {
        Sockets::open(found, &Addresses { listens, admin_listens, ..Addresses::default() })
    }

    fn addresses(sockets: &[Socket]) -> Vec<LocalAddress> {
        sockets.iter().map(|socket| socket.listener.address().clone()).collect()
    }

    #[tokio::test]
    async fn localhost_has_one_port_on_both_addresses() {
        let opened = open(Vec::new(), &listens(&["localhost:0"]), &[]).unwrap();
        let ports: Vec<_> =
            opened.sockets.iter().map(|socket| socket.listener.local_addr().unwrap().port()).collect();
        assert!(!ports.is_empty() && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
        // Without IPv6 there is only one.
        if Listener::bind((std::net::Ipv6Addr::LOCALHOST, 0).into()).is_ok() {
            assert_eq!(ports.len(), 2);
        }
    }

    #[tokio::test]
    async fn an_address_takes_over_the_sockets_that_were_opened_for_it() {
        let first = listens(&["127.0.0.1:0", "127.0.0.1:0"]);
        let opened = open(Vec::new(), &first, &listens(&["127.0.0.2:0"])).unwrap();
        let before = addresses(&opened.sockets);
        assert_eq!(before.len(), 3);

        // The order has changed, one address is gone, and one is new.
        let second = listens(&["127.0.0.3:0", "127.0.0.1:0"]);
        let again = open(opened.sockets, &second, &[]).unwrap();
        let after = addresses(&again.sockets);
        assert_eq!(after.len(), 2);
        assert!(!before.contains(&after[0]));
        assert_eq!(after[1], before[0]);
        assert_eq!(addresses(&again.unused), before[1..]);
    }

    #[tokio::test]
    async fn the_options_of_an_address_hold_for_an_inherited_socket() {
        let found = [1, 2, 3].map(|host| {
            let listener = Listener::bind(([127, 0, 0, host], 0).into()).unwrap();
            Socket { name: INHERITED.to_owned(), listener }
        });
        let [plain, proxied, _] = found.each_ref().map(|socket| socket.listener.address().to_string());
        let listens =
            listens(&[&format!("{proxied}?client-address=proxy-protocol"), &format!("{plain}?tls=false")]);
        let opened = open(found.into(), &listens, &[]).unwrap();
        let sources = opened.sockets.iter().map(|socket| socket.listener.settings().client_address);
        let [peer, proxy] = [ClientAddressSource::Peer, ClientAddressSource::ProxyProtocol];
        assert_eq!(sources.collect::<Vec<_>>(), [peer, proxy, peer]);
        assert_eq!(ignored(&listens, &opened.sockets).map(|listen| &listen.address), None);
    }

    #[tokio::test]
    async fn a_name_means_each_of_its_inherited_sockets() {
        let Ok(second) = Listener::bind((std::net::Ipv6Addr::LOCALHOST, 0).into()) else { return };
        let port = second.local_addr().unwrap().port();
        let Ok(first) = Listener::bind(([127, 0, 0, 1], port).into()) else { return };
        let listens = listens(&[&format!("localhost:{port}?client-address=proxy-protocol")]);
        for listener in [first, second] {
            let found = vec![Socket { name: INHERITED.to_owned(), listener }];
            let opened = open(found, &listens, &[]).unwrap();
            let source = opened.sockets[0].listener.settings().client_address;
            assert_eq!(source, ClientAddressSource::ProxyProtocol, "{opened:?}");
            assert_eq!(ignored(&listens, &opened.sockets).map(|listen| &listen.address), None);
        }
    }

    #[tokio::test]
    async fn an_error_names_the_setting_and_the_address() {
        let taken = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = taken.address().to_string();
        let refused = open(Vec::new(), &listens(&[&address]), &[]).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("--listen: cannot listen on {address}: ")), "{refused}");
        let refused =
            open(Vec::new(), &listens(&["127.0.0.1:0"]), &listens(&[&address])).unwrap_err().to_string();
        assert!(refused.starts_with("--admin-listen: "), "{refused}");
    }
}
