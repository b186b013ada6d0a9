//! Where a hub listens, as written in `--listen`.
//!
//! An address may be followed by options, like those of a store: `?name=value&name=value`.

#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    str::FromStr,
};

use tidings_server::{ClientAddressSource, LocalAddress};

/// The mode of the file of a Unix socket: its user and its group may connect.
#[cfg(unix)]
const MODE_DEFAULT: u32 = 0o660;

const FORMS: &str = "write 127.0.0.1:8080 or localhost:8080 for this machine only, :8080 for every address, a host name as in \
     hub.internal:8080, or unix:/run/tidings.sock";

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    /// The address as it was written, without its options.
    pub(crate) address: String,
    pub(crate) place: Place,
    /// Whether it has TLS, if it says so.
    tls: Option<bool>,
    /// Whether the application behind the hub answers there, if it says so.
    upstream: Option<bool>,
    /// Where trusted proxies state the address of a client, if it differs from other addresses.
    pub(crate) client_address: Option<ClientAddressSource>,
}

/// What the address means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// One address. Port 0 chooses a free one.
    Ip(SocketAddr),
    /// All addresses of both families.
    All(u16),
    /// All addresses of a host name.
    Name(Vec<SocketAddr>),
    /// A Unix socket, and the mode of its file.
    #[cfg(unix)]
    Unix { path: PathBuf, mode: u32 },
}

impl Listen {
    /// Whether programs on other machines can connect.
    pub(crate) fn reaches_others(&self) -> bool {
        match &self.place {
            Place::Ip(address) => !address.ip().is_loopback(),
            Place::All(_) => true,
            Place::Name(addresses) => addresses.iter().any(|address| !address.ip().is_loopback()),
            #[cfg(unix)]
            Place::Unix { .. } => false,
        }
    }

    /// The address of its socket, or of the first of them, as far as it is known before it is
    /// bound.
    pub(crate) fn local_address(&self) -> LocalAddress {
        match &self.place {
            Place::Ip(address) => LocalAddress::Ip(*address),
            Place::All(port) => LocalAddress::All(*port),
            Place::Name(addresses) => LocalAddress::Ip(addresses[0]),
            #[cfg(unix)]
            Place::Unix { path, .. } => LocalAddress::Unix(path.clone()),
        }
    }

    /// Whether it means this address of a socket; a name means each of its addresses.
    pub(crate) fn is_at(&self, address: &LocalAddress) -> bool {
        match (&self.place, address) {
            (Place::Name(addresses), LocalAddress::Ip(address)) => addresses.contains(address),
            _ => self.local_address() == *address,
        }
    }

    /// Whether it has TLS on a hub that has certificates: every TCP socket does that does not say
    /// otherwise.
    pub(crate) fn has_tls(&self) -> bool {
        self.tls.unwrap_or(!matches!(self.local_address(), LocalAddress::Unix(_)))
    }

    /// Whether it asks for TLS, so that it is of no use without.
    pub(crate) fn needs_tls(&self) -> bool {
        self.tls == Some(true)
    }

    /// Whether it is for the application behind the hub, which does not answer there itself.
    pub(crate) fn is_for_application(&self) -> bool {
        self.upstream == Some(false)
    }

    /// Whether it says anything about the application behind the hub.
    pub(crate) fn has_upstream_option(&self) -> bool {
        self.upstream.is_some()
    }

    /// Makes a path relative to this directory.
    #[cfg(unix)]
    pub(crate) fn relative_to(&mut self, folder: &Path) {
        if let Place::Unix { path, .. } = &mut self.place {
            *path = folder.join(&*path);
        }
    }
}

impl FromStr for Listen {
    /// Continues after the word itself.
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let (address, options) = word.split_once('?').unwrap_or((word, ""));
        let mut place = place(address)?;
        let mut tls = None;
        let mut upstream = None;
        let mut client_address = None;
        for option in options.split('&').filter(|option| !option.is_empty()) {
            match (option.split_once('=').unwrap_or((option, "")), &mut place) {
                #[cfg(unix)]
                (("mode", digits), Place::Unix { mode, .. }) => *mode = file_mode(digits)?,
                (("mode", _), _) => {
                    return Err("has a mode, which only the file of a Unix socket has".to_owned());
                }
                (("tls", word), _) => {
                    let truth =
                        word.parse().map_err(|_| "has an option tls that is neither true nor false")?;
                    tls = Some(truth);
                }
                (("upstream", word), _) => {
                    let truth =
                        word.parse().map_err(|_| "has an option upstream that is neither true nor false")?;
                    upstream = Some(truth);
                }
                (("client-address", source), _) => {
                    client_address =
                        Some(source.parse().map_err(|reason| format!("has a client-address that {reason}"))?);
                }
                ((name, _), _) => {
                    return Err(format!(
                        "has the unknown option {}: there are tls, as in 127.0.0.1:8080?tls=false, upstream, client-address, and mode, as in \
                         unix:/run/tidings.sock?mode=660",
                        name.escape_debug()
                    ));
                }
            }
        }
        Ok(Self { address: address.to_owned(), place, tls, upstream, client_address })
    }
}

fn place(address: &str) -> Result<Place, String> {
    if let Some(path) = address.strip_prefix("unix:") {
        return unix(path);
    }
    if let Some(port) = address.strip_prefix(':').and_then(|port| port.parse().ok()) {
        return Ok(Place::All(port));
    }
    if let Ok(address) = address.parse() {
        return Ok(Place::Ip(address));
    }
    let has_name_and_port = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(['/', ':']) && port.parse::<u16>().is_ok()
    });
    if !has_name_and_port {
        return Err(format!("is not an address with a port: {FORMS}"));
    }
    let found =
        address.to_socket_addrs().map_err(|error| format!("cannot be resolved ({error}): {FORMS}"))?;
    let mut addresses: Vec<SocketAddr> = found.collect();
    // RFC 6761, 6.3: the name is both addresses, whatever the system has in its tables.
    if let Some(port) = address.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        addresses = vec![([127, 0, 0, 1], port).into(), (std::net::Ipv6Addr::LOCALHOST, port).into()];
    }
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() { Err(format!("has no address: {FORMS}")) } else { Ok(Place::Name(addresses)) }
}

#[cfg(unix)]
fn unix(path: &str) -> Result<Place, String> {
    if path.is_empty() || path.starts_with('@') || path.contains(char::is_control) {
        return Err("is not the path of a Unix socket: write it as unix:/run/tidings.sock".to_owned());
    }
    Ok(Place::Unix { path: path.into(), mode: MODE_DEFAULT })
}

#[cfg(not(unix))]
fn unix(_: &str) -> Result<Place, String> {
    Err("is a Unix socket, which this system does not have".to_owned())
}

#[cfg(unix)]
fn file_mode(digits: &str) -> Result<u32, String> {
    let is_octal = (3..=4).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
    // Without the permission to write, no program could connect.
    u32::from_str_radix(digits, 8)
        .ok()
        .filter(|mode| is_octal && *mode <= 0o777 && mode & 0o222 != 0)
        .ok_or_else(|| {
            "has a mode that is not one of a socket that programs can connect to, such as 600, 660 or 666"
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(word: &str) -> Place {
        word.parse::<Listen>().unwrap_or_else(|error| panic!("{word} {error}")).place
    }

    #[test]
    fn an_address_has_a_port() {
        for good in ["127.0.0.1:8080", "[::1]:0", "0.0.0.0:80", "[::]:80"] {
            assert_eq!(place(good), Place::Ip(good.parse().unwrap()));
        }
        assert_eq!(place(":8080"), Place::All(8080));
        for bad in [
            "",
            "8080",
            ":",
            ":x",
            "127.0.0.1",
            "127.0.0.1:99999",
            "http://127.0.0.1:80",
            "::1:80:x",
            "no.such.host.invalid:80",
        ] {
            let refused = bad.parse::<Listen>().unwrap_err();
            assert!(refused.contains("unix:/run/tidings.sock"), "{bad} {refused}");
        }
    }

    #[test]
    fn localhost_is_both_addresses() {
        let addresses = ["127.0.0.1:80", "[::1]:80"].map(|address| address.parse().unwrap());
        assert_eq!(place("localhost:80"), Place::Name(addresses.to_vec()));
    }

    #[test]
    fn only_loopback_and_unix_sockets_stay_on_this_machine() {
        for (word, reaches_others) in [
            ("127.0.0.1:80", false),
            ("127.9.9.9:80", false),
            ("[::1]:80", false),
            ("localhost:80", false),
            #[cfg(unix)]
            ("unix:hub.sock", false),
            (":80", true),
            ("0.0.0.0:80", true),
            ("[::]:80", true),
            ("192.0.2.1:80", true),
        ] {
            assert_eq!(word.parse::<Listen>().unwrap().reaches_others(), reaches_others, "{word}");
        }
    }

    #[test]
    fn a_tcp_socket_has_tls_unless_it_says_otherwise() {
        for (word, has_tls, needs_tls) in [
            ("127.0.0.1:80", true, false),
            (":80?tls=true", true, true),
            ("localhost:80?tls=false", false, false),
            #[cfg(unix)]
            ("unix:hub.sock", false, false),
            #[cfg(unix)]
            ("unix:hub.sock?mode=600&tls=true", true, true),
        ] {
            let listen: Listen = word.parse().unwrap();
            assert_eq!((listen.has_tls(), listen.needs_tls()), (has_tls, needs_tls), "{word}");
        }
        for bad in [":80?tls", ":80?tls=", ":80?tls=yes", ":80?TLS=true"] {
            bad.parse::<Listen>().unwrap_err();
        }
    }

    #[test]
    fn an_address_may_be_for_the_application_alone() {
        for (word, expected) in [(":80", false), (":80?upstream=true", false), (":80?upstream=false", true)] {
            assert_eq!(word.parse::<Listen>().unwrap().is_for_application(), expected, "{word}");
        }
        for bad in [":80?upstream", ":80?upstream=no", ":80?upstream=http://a"] {
            bad.parse::<Listen>().unwrap_err();
        }
    }

    #[test]
    fn an_address_may_have_a_source_of_client_addresses_of_its_own() {
        let source = |word: &str| word.parse::<Listen>().unwrap().client_address;
        assert_eq!(source(":80"), None);
        assert_eq!(source(":80?client-address=peer"), Some(ClientAddressSource::Peer));
        #[cfg(unix)]
        assert_eq!(
            source("unix:hub.sock?mode=600&client-address=proxy-protocol"),
            Some(ClientAddressSource::ProxyProtocol)
        );
        let refused = ":80?client-address=x-real-ip".parse::<Listen>().unwrap_err();
        assert!(refused.contains("x-forwarded-for"), "{refused}");
    }

    #[cfg(unix)]
    #[test]
    fn a_unix_socket_has_a_path_and_a_mode() {
        let unix = |path: &str, mode| Place::Unix { path: path.into(), mode };
        assert_eq!(place("unix:/run/tidings.sock"), unix("/run/tidings.sock", 0o660));
        assert_eq!(place("unix:hub.sock?mode=600"), unix("hub.sock", 0o600));
        assert_eq!(place("unix:hub.sock?mode=0666"), unix("hub.sock", 0o666));
        let mut listen: Listen = "unix:hub.sock?mode=600".parse().unwrap();
        assert_eq!(listen.address, "unix:hub.sock");
        listen.relative_to(Path::new("/etc/tidings"));
        assert_eq!(listen.place, unix("/etc/tidings/hub.sock", 0o600));
        for bad in [
            "unix:",
            "unix:@abstract",
            "unix:a\nb",
            "unix:a?mode=",
            "unix:a?mode=rw",
            "unix:a?mode=888",
            "unix:a?mode=444",
            "unix:a?mode=1777",
            "unix:a?mode=+66",
            "unix:a?moed=600",
            ":80?mode=600",
        ] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }
}
