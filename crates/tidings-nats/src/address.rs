//! Where the server is, and which log on it is meant: `nats://user:password@host:4222/name`.

use std::{fmt, str::FromStr};

use percent_encoding::percent_decode_str;
use url::Url;

/// The address of a log on NATS.
///
/// `nats://host:4222/name`, or `tls://…` for a connection that has to be encrypted. Several servers of one NATS cluster are separated by commas:
/// `nats://one:4222,two:4222/name`. Before an `@` stands `user:password` or a token. The name is that of the log, `tidings` if there is none: letters, digits, `-` and `_`, at most 64.
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
    name: String,
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
        if rest.contains(['?', '#']) {
            return Err(invalid("it has no parameters"));
        }
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
        Ok(Self { servers, credentials, name: name.to_owned() })
    }
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
