//! The server, and the log on it: `nats://user:password@host:4222/name?replicas=3`.

use std::{fmt, path::Path, str::FromStr};

use tidings_net::{Address, InvalidUrl, ServerUrl, Tls};

use crate::credentials::Credentials;

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
/// | `creds=FILE` | the JWT and the seed of a user, as nsc writes them |
/// | `nkey=FILE` | the seed of a user without a JWT |
/// | `domain=NAME` | the JetStream domain that keeps the log, where the server is a leaf node |
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
    pub(crate) credentials: Credentials,
    /// Set if connections have to be encrypted.
    pub(crate) tls: Option<Tls>,
    /// Overrides [`NatsSettings::replicas`](crate::NatsSettings::replicas).
    pub(crate) replicas: Option<usize>,
    /// The JetStream domain that keeps the log, if it is not that of the server.
    pub(crate) domain: Option<String>,
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
const PARAMETERS: [&str; 7] = ["replicas", "creds", "nkey", "domain", "ca", "cert", "cert_key"];

impl NatsAddress {
    /// The name of the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of another log on the same servers, whose name is this one and the suffix: letters,
    /// digits, `-` and `_`.
    #[must_use]
    pub fn with_name_suffix(&self, suffix: &str) -> Self {
        Self { name: format!("{}{suffix}", self.name), ..self.clone() }
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
        let tls_key = self.tls.iter().flat_map(|tls| &tls.own).map(|(_, key)| key.as_path());
        tls_key.chain(self.credentials.file())
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
        let domain = url.parameters.take("domain")?;
        if domain.as_deref().is_some_and(|domain| !is_domain(domain)) {
            let problem = "should be the name of a JetStream domain, without spaces, dots, * and >";
            return Err(InvalidUrl::parameter("domain", problem));
        }
        let credentials = Credentials::of_url(url.login.take(), &mut url.parameters)?;
        url.parameters.refuse_the_rest(&PARAMETERS)?;
        let servers = url.addresses(PORT)?;
        Ok(Self { servers, tls, replicas, domain, name: name.to_owned(), credentials })
    }
}

/// What a server accepts as the name of a domain: a token of a subject.
fn is_domain(name: &str) -> bool {
    let is_separator =
        |char: char| char.is_whitespace() || char.is_control() || ['.', '*', '>'].contains(&char);
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(is_separator)
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
    use tidings_net::Login;

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
        assert_eq!(parse("nats://one?domain=hub").unwrap().domain.as_deref(), Some("hub"));
        let address = parse("tls://host?ca=/a.pem&cert=/b.pem&cert_key=/c.pem&creds=/d.creds").unwrap();
        let secret = ["/c.pem", "/d.creds"].map(Path::new);
        assert_eq!(address.secret_files().collect::<Vec<_>>(), secret);
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
            "nats://host?domain=",
            "nats://host?domain=a.b",
            "nats://host?domain=a%20b",
            "nats://host?domain=%3E",
        ] {
            parse(text).expect_err(text);
        }
    }

    #[test]
    fn credentials_are_read_and_never_shown() {
        let address = parse("nats://ada:s%3Acret@host/news").unwrap();
        let login = |user: &str, password: Option<&str>| {
            Credentials::Login(Login { user: user.to_owned(), password: password.map(str::to_owned) })
        };
        assert!(address.credentials == login("ada", Some("s:cret")));
        assert!(parse("nats://t0ken@host").unwrap().credentials == login("t0ken", None));
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
