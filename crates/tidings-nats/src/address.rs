//! The server, and the log on it: `nats://user:password@host:4222/name?replicas=3`.

use std::{fmt, path::Path, str::FromStr};

use tidings_net::{Address, InvalidUrl, Login, ServerUrl, Tls};

/// The address of a log on NATS.
///
/// `nats://host:4222/name`, or `tls://…` for a connection that has to be encrypted. Several servers
/// of one NATS cluster are separated by commas: `nats://one:4222,two:4222/name`. `user:password` or
/// a token goes before an `@`. The name is that of the log, `tidings` by default: letters, digits,
/// `-` and `_`, at most 64.
///
/// | parameter | |
/// |---|---|
/// | `replicas=N` | how many servers of a NATS cluster keep the log, 1 to 5; an existing log with another number is not opened |
/// | `ca=FILE` | trust the certificates of this PEM file instead of those of the system; with `tls://` |
/// | `cert=FILE&cert_key=FILE` | show this certificate (PEM); with `tls://` |
///
/// ```
/// use tidings_nats::NatsAddress;
///
/// let address: NatsAddress = "nats://ada:secret@nats.example/news".parse()?;
/// assert_eq!(address.name(), "news");
/// assert_eq!(address.to_string(), "nats://nats.example:4222/news");
/// # Ok::<(), tidings_nats::InvalidUrl>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct NatsAddress {
    servers: Vec<Address>,
    /// A login without a password is a token.
    pub(crate) login: Option<Login>,
    /// Set if connections have to be encrypted.
    pub(crate) tls: Option<Tls>,
    /// Overrides [`NatsSettings::replicas`](crate::NatsSettings::replicas).
    pub(crate) replicas: Option<usize>,
    name: String,
}

/// The name of the log if the address has none.
const DEFAULT_NAME: &str = "tidings";
/// Longest name, in bytes: it becomes part of a file name on the server.
const NAME_BYTES_MAX: usize = 64;
/// The port of a server.
const PORT: u16 = 4222;
/// Most replicas of a stream in NATS.
const REPLICAS_MAX: usize = 5;
/// Parameters that may follow the `?`.
const PARAMETERS: [&str; 4] = ["replicas", "ca", "cert", "cert_key"];

impl NatsAddress {
    /// The name of the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Scheme, host and port of each server.
    pub(crate) fn servers(&self) -> Vec<String> {
        self.servers.iter().map(|server| format!("{}://{server}", self.scheme())).collect()
    }

    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "tls" } else { "nats" }
    }

    /// The files that hold secrets.
    pub fn secret_files(&self) -> impl Iterator<Item = &Path> {
        self.tls.iter().flat_map(|tls| &tls.own).map(|(_, key)| key.as_path())
    }
}

impl FromStr for NatsAddress {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        Self::parse(text)
            .map_err(|invalid| InvalidUrl::new(format!("{invalid}; an address is nats://host:4222/name")))
    }
}

impl NatsAddress {
    fn parse(text: &str) -> Result<Self, InvalidUrl> {
        let mut url: ServerUrl = text.parse()?;
        if !["nats", "tls"].contains(&&*url.scheme) {
            return Err(InvalidUrl::new("the scheme is neither nats nor tls"));
        }
        let name = if url.path.is_empty() { DEFAULT_NAME } else { &url.path };
        let is_named_well = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.len() > NAME_BYTES_MAX || !name.bytes().all(is_named_well) {
            return Err(InvalidUrl::new(
                "the name of the log may have letters, digits, - and _ only, at most 64",
            ));
        }
        let tls = url.parameters.take_tls(url.scheme == "tls", "write tls in place of nats")?;
        let wanted = format!("a number from 1 to {REPLICAS_MAX}");
        let replicas = url.parameters.take_parsed("replicas", &wanted)?;
        if replicas.is_some_and(|count| !(1..=REPLICAS_MAX).contains(&count)) {
            return Err(InvalidUrl::parameter("replicas", format!("should be {wanted}")));
        }
        url.parameters.refuse_the_rest(&PARAMETERS)?;
        let servers = url.addresses(PORT)?;
        Ok(Self { servers, tls, replicas, name: name.to_owned(), login: url.login })
    }
}

/// Without the credentials, so that it is safe to show.
impl fmt::Display for NatsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> = self.servers.iter().map(Address::to_string).collect();
        write!(f, "{}://{}/{}", self.scheme(), servers.join(","), self.name)
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

    fn parse(text: &str) -> Result<NatsAddress, InvalidUrl> {
        text.parse()
    }

    #[test]
    fn an_address_names_servers_and_a_log() {
        let address = parse("nats://one:4222,two/news").unwrap();
        assert_eq!(address.servers(), ["nats://one:4222", "nats://two:4222"]);
        assert_eq!(
            (address.name(), address.to_string()),
            ("news", "nats://one:4222,two:4222/news".to_owned())
        );
        assert_eq!(parse("tls://host").unwrap().name(), "tidings");
        assert_eq!(parse("nats://[::1]:4222/").unwrap().servers(), ["nats://[::1]:4222"]);
    }

    #[test]
    fn parameters_set_the_replicas_and_tls() {
        assert_eq!(parse("nats://one,two/news?replicas=3").unwrap().replicas, Some(3));
        let address = parse("tls://host?ca=/a.pem&cert=/b.pem&cert_key=/c.pem").unwrap();
        assert_eq!((address.name(), address.replicas), ("tidings", None));
        let tls = Tls { trusted: Some("/a.pem".into()), own: Some(("/b.pem".into(), "/c.pem".into())) };
        assert_eq!(address.tls, Some(tls));
        assert_eq!(parse("nats://host").unwrap().tls, None);
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
        let login = |user: &str, password: Option<&str>| Login {
            user: user.to_owned(),
            password: password.map(str::to_owned),
        };
        assert!(address.login == Some(login("ada", Some("s:cret"))));
        assert!(parse("nats://t0ken@host").unwrap().login == Some(login("t0ken", None)));
        assert!(!format!("{address} {address:?}").contains("cret"));
    }

    #[test]
    fn an_invalid_address_is_refused_with_a_reason() {
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
