//! Where the server is, and which log on it is meant: `nats://user:password@host:4222/name?replicas=3`.

use std::{fmt, path::PathBuf, str::FromStr};

use percent_encoding::percent_decode_str;
use url::Url;

/// The address of a log on NATS.
///
/// `nats://host:4222/name`, or `tls://…` for a connection that has to be encrypted. Several servers of one NATS cluster are separated by commas:
/// `nats://one:4222,two:4222/name`. Before an `@` stands `user:password` or a token. The name is that of the log, `tidings` if there is none: letters, digits, `-` and `_`, at most 64.
///
/// | parameter | |
/// |---|---|
/// | `replicas=N` | so many servers of a NATS cluster keep the log, 1 to 5; a log that is there already and kept by others is not opened |
/// | `ca=FILE` | trust the certificates of this PEM file instead of those of the system; with `tls://` |
/// | `cert=FILE&cert_key=FILE` | show this certificate (PEM); with `tls://` |
///
/// ```
/// use tidings_nats::NatsAddress;
///
/// let address: NatsAddress = "nats://ada:secret@nats.example/news".parse()?;
/// assert_eq!(address.name(), "news");
/// assert_eq!(address.to_string(), "nats://nats.example/news");
/// # Ok::<(), tidings_nats::InvalidAddress>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct NatsAddress {
    /// Scheme, host and port of each server.
    pub(crate) servers: Vec<String>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) tls: Tls,
    /// See [`NatsSettings::replicas`](crate::NatsSettings::replicas), which it comes before.
    pub(crate) replicas: Option<usize>,
    name: String,
}

/// How TLS is spoken.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Tls {
    /// Whether the connection has to be encrypted.
    pub(crate) is_required: bool,
    /// PEM file of the certificates to trust instead of those of the system.
    pub(crate) trusted: Option<PathBuf>,
    /// PEM files of our own certificate and its key.
    pub(crate) own: Option<(PathBuf, PathBuf)>,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    Token(String),
    User(String, String),
}

/// Why a text is no address of a log on NATS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidAddress(String);

/// The name of the log if the address has none.
const DEFAULT_NAME: &str = "tidings";
/// Longest name, in bytes: it becomes part of a file name on the server.
const NAME_BYTES_MAX: usize = 64;
/// Most servers in one address.
const SERVERS_MAX: usize = 16;
/// Most servers that keep a stream, as NATS has it.
const REPLICAS_MAX: usize = 5;
/// What may stand behind the `?`.
const PARAMETERS: &str = "replicas, ca, cert and cert_key";

impl NatsAddress {
    /// The name of the log.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for NatsAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = |why: &str| InvalidAddress(format!("{why}; an address is nats://host:4222/name"));
        let (scheme, rest) = text.split_once("://").ok_or_else(|| invalid("the scheme is missing"))?;
        if !["nats", "tls"].contains(&scheme) {
            return Err(invalid("the scheme is neither nats nor tls"));
        }
        if rest.contains('#') {
            return Err(invalid("it has no fragment"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (replicas, tls) = parameters(query, scheme == "tls").map_err(|why| invalid(&why))?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let name = if path.is_empty() { DEFAULT_NAME } else { path };
        let is_named_well = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.len() > NAME_BYTES_MAX || !name.bytes().all(is_named_well) {
            return Err(invalid(
                "the name of the log has other characters than letters, digits, - and _, or too many",
            ));
        }
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (
                Some(
                    Credentials::parse(credentials)
                        .ok_or_else(|| invalid("the credentials are not UTF-8"))?,
                ),
                hosts,
            ),
            None => (None, authority),
        };
        let mut servers = Vec::new();
        for host in hosts.split(',') {
            let server = format!("{scheme}://{host}");
            let parsed = Url::parse(&server).ok();
            if parsed.is_none_or(|url| url.host_str().is_none_or(str::is_empty)) {
                return Err(invalid("the host is missing or none"));
            }
            servers.push(server);
        }
        if servers.len() > SERVERS_MAX {
            return Err(invalid("there are too many servers"));
        }
        Ok(Self { servers, credentials, tls, replicas, name: name.to_owned() })
    }
}

/// What the parameters say: how many replicas, and how TLS is spoken.
fn parameters(query: &str, is_tls: bool) -> Result<(Option<usize>, Tls), String> {
    let mut replicas = None;
    let (mut trusted, mut certificate, mut key) = (None, None, None);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let place = match &*name {
            "replicas" => &mut replicas,
            "ca" => &mut trusted,
            "cert" => &mut certificate,
            "cert_key" => &mut key,
            _ => return Err(format!("nothing is known of a parameter {name:?}; there are {PARAMETERS}")),
        };
        if place.replace(value.into_owned()).is_some() {
            return Err(format!("the parameter {name} is there twice"));
        }
    }
    let own = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        _ => return Err("cert and cert_key come together".to_owned()),
    };
    let tls = Tls { is_required: is_tls, trusted: trusted.map(PathBuf::from), own };
    if !is_tls && tls != Tls::default() {
        return Err("ca, cert and cert_key are for TLS: write tls in place of nats".to_owned());
    }
    let replicas = match replicas {
        Some(text) => match text.parse() {
            Ok(count) if (1..=REPLICAS_MAX).contains(&count) => Some(count),
            _ => {
                return Err(format!(
                    "the parameter replicas is {text:?} and should be a number from 1 to {REPLICAS_MAX}"
                ));
            }
        },
        None => None,
    };
    Ok((replicas, tls))
}

impl Credentials {
    fn parse(text: &str) -> Option<Self> {
        let decode =
            |text: &str| percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned);
        Some(match text.split_once(':') {
            Some((user, password)) => Self::User(decode(user)?, decode(password)?),
            None => Self::Token(decode(text)?),
        })
    }
}

/// Without the credentials, so that it can be shown to anybody.
impl fmt::Display for NatsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, server) in self.servers.iter().enumerate() {
            let shown = if index == 0 {
                server
            } else {
                server.split_once("://").map_or(server.as_str(), |(_, host)| host)
            };
            write!(f, "{}{shown}", if index == 0 { "" } else { "," })?;
        }
        write!(f, "/{}", self.name)
    }
}

impl fmt::Debug for NatsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NatsAddress({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NatsAddress, InvalidAddress> {
        text.parse()
    }

    #[test]
    fn an_address_names_servers_and_a_log() {
        let address = parse("nats://one:4222,two/news").unwrap();
        assert_eq!(address.servers, ["nats://one:4222", "nats://two"]);
        assert_eq!((address.name(), address.to_string()), ("news", "nats://one:4222,two/news".to_owned()));
        assert_eq!(parse("tls://host").unwrap().name(), "tidings");
        assert_eq!(parse("nats://[::1]:4222/").unwrap().servers, ["nats://[::1]:4222"]);
    }

    #[test]
    fn parameters_say_how_many_keep_the_log_and_how_tls_is_spoken() {
        assert_eq!(parse("nats://one,two/news?replicas=3").unwrap().replicas, Some(3));
        let address = parse("tls://host?ca=/a.pem&cert=/b.pem&cert_key=/c.pem").unwrap();
        assert_eq!((address.name(), address.replicas), ("tidings", None));
        assert!(address.tls.is_required);
        assert_eq!(address.tls.trusted, Some("/a.pem".into()));
        assert_eq!(address.tls.own, Some(("/b.pem".into(), "/c.pem".into())));
        for text in [
            "nats://host?ca=/a.pem",
            "tls://host?cert=/b.pem",
            "nats://host?replicas=0",
            "nats://host?replicas=three",
            "nats://host?replicas=1&replicas=3",
            "nats://host?replica=3",
        ] {
            parse(text).expect_err(text);
        }
    }

    #[test]
    fn credentials_are_read_and_never_shown() {
        let address = parse("nats://ada:s%3Acret@host/news").unwrap();
        assert!(address.credentials == Some(Credentials::User("ada".into(), "s:cret".into())));
        assert!(parse("nats://t0ken@host").unwrap().credentials == Some(Credentials::Token("t0ken".into())));
        assert!(!format!("{address} {address:?}").contains("cret"));
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_reason() {
        for text in [
            "host",
            "redis://host",
            "nats://",
            "nats://host/a.b",
            "nats://host/a/b",
            "nats://host/a?b=c",
            "nats://a b/",
            "nats://host,/x",
        ] {
            let refused = parse(text).expect_err(text).to_string();
            assert!(refused.contains("an address is nats://host:4222/name"), "{text}: {refused}");
        }
    }
}
