//! Which Redis, how to get in, and what else a URL says.
//!
//! | spelling | meaning |
//! |---|---|
//! | `redis://[user[:password]@]host[:6379][/database]` | a single server |
//! | `redis+sentinel://[user[:password]@]host[:26379][,host…]/service[/database]` | whichever server the Sentinels call the master of that service |
//! | `redis+cluster://[user[:password]@]host[:6379][,host…]` | a Redis Cluster; the hosts are where to ask first |
//!
//! With `rediss` in place of `redis` every connection is TLS. Users, passwords and service names are percent-decoded; `redis://:password@host` is
//! a password without a user. Parameters that belong to connections, and to nothing else:
//!
//! | parameter | meaning |
//! |---|---|
//! | `ca=FILE` | trust the certificates of this PEM file instead of those of the system |
//! | `cert=FILE&cert_key=FILE` | show this certificate (PEM) |
//! | `sentinel_user=…&sentinel_password=…` | how to get in with the Sentinels, if they ask |
//!
//! All other parameters are for whoever was given the URL (the log, the bridge): they [take](RedisUrl::take) what they know, and
//! [refuse](RedisUrl::refuse_the_rest) the rest, so that a misspelt parameter is never ignored.

use std::{fmt, path::PathBuf, str::FromStr};

use percent_encoding::percent_decode_str;

/// Most hosts in one URL.
const HOSTS_MAX: usize = 64;

/// A parsed URL. How it is spelled stands in `docs/scaling-out.md`. Neither `Debug` nor `Display` shows passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Where to connect.
    pub servers: Servers,
    /// Whether connections are TLS.
    pub tls: Option<Tls>,
    /// Who to be on the servers that keep data.
    pub user: Option<String>,
    /// The password of that user, or of the server if there is no user.
    pub password: Option<String>,
    /// The number of the database; 0 in a Redis Cluster.
    pub database: u32,
    /// Parameters that nobody has taken yet.
    parameters: Vec<(String, String)>,
}

/// Where to connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Servers {
    /// A single server.
    Single(Address),
    /// Sentinels that know which server is the master of a service.
    Sentinel {
        /// The Sentinels, in the order in which they are asked.
        sentinels: Vec<Address>,
        /// The name under which they watch over the servers.
        service: String,
        /// Who to be on the Sentinels.
        user: Option<String>,
        /// The password there.
        password: Option<String>,
    },
    /// A Redis Cluster: some of its nodes.
    Cluster(Vec<Address>),
}

/// A host and a port.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Address {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// How TLS is spoken.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tls {
    /// PEM file of the certificates to trust instead of those of the system.
    pub trusted: Option<PathBuf>,
    /// PEM files of our own certificate and its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// Why a URL is none of Redis. It never repeats the URL, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this Redis URL cannot be used: {0}")]
pub struct InvalidRedisUrl(String);

impl InvalidRedisUrl {
    /// For whoever takes parameters: this one cannot be meant so.
    pub fn parameter(name: &str, problem: impl fmt::Display) -> Self {
        Self(format!("the parameter {name} {problem}"))
    }
}

impl RedisUrl {
    /// The value of a parameter, which counts as known from now on. One that is there twice is an error.
    pub fn take(&mut self, name: &str) -> Result<Option<String>, InvalidRedisUrl> {
        let mut value = None;
        while let Some(at) = self.parameters.iter().position(|(key, _)| key == name) {
            if value.replace(self.parameters.remove(at).1).is_some() {
                return Err(InvalidRedisUrl::parameter(name, "is there twice"));
            }
        }
        Ok(value)
    }

    /// The value of a parameter, read as whatever is wanted.
    pub fn take_parsed<T>(&mut self, name: &str, what: &str) -> Result<Option<T>, InvalidRedisUrl>
    where
        T: FromStr,
    {
        let Some(text) = self.take(name)? else { return Ok(None) };
        let parsed = text.parse();
        parsed
            .map(Some)
            .map_err(|_| InvalidRedisUrl::parameter(name, format!("is {text:?} and should be {what}")))
    }

    /// An error if a parameter is left that nobody took. `known` is for that error: what there could have been.
    pub fn refuse_the_rest(&self, known: &[&str]) -> Result<(), InvalidRedisUrl> {
        let Some((name, _)) = self.parameters.first() else { return Ok(()) };
        Err(InvalidRedisUrl(format!(
            "nothing is known of a parameter {name:?}; there are {}",
            known.join(", ")
        )))
    }
}

impl FromStr for RedisUrl {
    type Err = InvalidRedisUrl;

    fn from_str(text: &str) -> Result<Self, InvalidRedisUrl> {
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| invalid("it has no scheme, as in redis://host"))?;
        let (kind, is_tls) = match scheme {
            "redis" => (Kind::Single, false),
            "rediss" => (Kind::Single, true),
            "redis+sentinel" => (Kind::Sentinel, false),
            "rediss+sentinel" => (Kind::Sentinel, true),
            "redis+cluster" => (Kind::Cluster, false),
            "rediss+cluster" => (Kind::Cluster, true),
            other => {
                return Err(invalid(format!(
                    "the scheme {other} is none of redis, redis+sentinel and redis+cluster, or the same with rediss"
                )));
            }
        };
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // A password may hold an @ that nobody encoded; a host never does.
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => (decoded("user", user)?, decoded("password", password)?),
            None => (None, None),
        };
        if user.is_some() && password.is_none() {
            return Err(invalid(
                "it names a user without a password; a password alone is written redis://:password@host",
            ));
        }
        let parameters = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let mut url = Self {
            servers: Servers::Cluster(Vec::new()),
            tls: None,
            user,
            password,
            database: 0,
            parameters,
        };
        url.tls = url.take_tls(is_tls)?;
        let hosts = addresses(hosts, kind.default_port())?;
        let path = path.strip_suffix('/').unwrap_or(path);
        url.servers = match kind {
            Kind::Single => {
                url.database = database(path)?;
                let [address] = <[Address; 1]>::try_from(hosts).map_err(|_| {
                    invalid("it names several hosts; that is for redis+sentinel and redis+cluster")
                })?;
                Servers::Single(address)
            }
            Kind::Sentinel => {
                let (service, number) = path.split_once('/').unwrap_or((path, ""));
                url.database = database(number)?;
                let service = decoded("service", service)?.ok_or_else(|| {
                    invalid("it does not name the service, as in redis+sentinel://host/service")
                })?;
                let (user, password) = (url.take("sentinel_user")?, url.take("sentinel_password")?);
                Servers::Sentinel { sentinels: hosts, service, user, password }
            }
            Kind::Cluster => {
                if database(path)? != 0 {
                    return Err(invalid("a Redis Cluster has one database only"));
                }
                Servers::Cluster(hosts)
            }
        };
        Ok(url)
    }
}

impl RedisUrl {
    fn take_tls(&mut self, is_tls: bool) -> Result<Option<Tls>, InvalidRedisUrl> {
        let trusted = self.take("ca")?.map(PathBuf::from);
        let own = match (self.take("cert")?, self.take("cert_key")?) {
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (None, None) => None,
            _ => return Err(invalid("cert and cert_key come together")),
        };
        let tls = Tls { trusted, own };
        if !is_tls && tls != Tls::default() {
            return Err(invalid("ca, cert and cert_key are for TLS: write rediss in place of redis"));
        }
        Ok(is_tls.then_some(tls))
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Single,
    Sentinel,
    Cluster,
}

impl Kind {
    fn default_port(self) -> u16 {
        match self {
            Self::Single | Self::Cluster => 6379,
            Self::Sentinel => 26379,
        }
    }
}

fn invalid(problem: impl Into<String>) -> InvalidRedisUrl {
    InvalidRedisUrl(problem.into())
}

fn decoded(what: &str, text: &str) -> Result<Option<String>, InvalidRedisUrl> {
    let decoded =
        percent_decode_str(text).decode_utf8().map_err(|_| invalid(format!("the {what} is not UTF-8")))?;
    Ok((!decoded.is_empty()).then(|| decoded.into_owned()))
}

fn database(text: &str) -> Result<u32, InvalidRedisUrl> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| invalid(format!("{text:?} is not the number of a database")))
}

fn addresses(text: &str, default_port: u16) -> Result<Vec<Address>, InvalidRedisUrl> {
    let addresses: Vec<_> =
        text.split(',').map(|one| address(one, default_port)).collect::<Result<_, _>>()?;
    if addresses.len() > HOSTS_MAX {
        return Err(invalid(format!("it names {} hosts; {HOSTS_MAX} are the most", addresses.len())));
    }
    Ok(addresses)
}

fn address(text: &str, default_port: u16) -> Result<Address, InvalidRedisUrl> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) =
                rest.split_once(']').ok_or_else(|| invalid("an IPv6 address is written in brackets"))?;
            (host, rest.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err(invalid("it names no host"));
    }
    let port = port.map_or(Ok(default_port), str::parse);
    let port = port.map_err(|_| invalid(format!("what follows {host} is not a port")))?;
    Ok(Address { host: host.to_owned(), port })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// The servers, without secrets and parameters.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, hosts, service) = match &self.servers {
            Servers::Single(address) => ("", std::slice::from_ref(address), None),
            Servers::Sentinel { sentinels, service, .. } => ("+sentinel", &sentinels[..], Some(service)),
            Servers::Cluster(nodes) => ("+cluster", &nodes[..], None),
        };
        let hosts: Vec<_> = hosts.iter().map(Address::to_string).collect();
        write!(f, "redis{}{kind}://{}", if self.tls.is_some() { "s" } else { "" }, hosts.join(","))?;
        if let Some(service) = service {
            write!(f, "/{service}")?;
        }
        if self.database != 0 {
            write!(f, "/{}", self.database)?;
        }
        Ok(())
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RedisUrl {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn address(host: &str, port: u16) -> Address {
        Address { host: host.to_owned(), port }
    }

    #[test]
    fn a_single_server_is_named_by_host_port_and_database() {
        let bare = parse("redis://localhost");
        assert_eq!(bare.servers, Servers::Single(address("localhost", 6379)));
        assert_eq!((bare.tls, bare.user, bare.password, bare.database), (None, None, None, 0));
        let full = parse("rediss://me:s%40cret@[::1]:7000/3");
        assert_eq!(full.servers, Servers::Single(address("::1", 7000)));
        assert_eq!((full.user.as_deref(), full.password.as_deref()), (Some("me"), Some("s@cret")));
        assert_eq!((full.tls, full.database), (Some(Tls::default()), 3));
        assert_eq!(parse("redis://:secret@h/").password.as_deref(), Some("secret"));
        assert_eq!(parse("redis://:a@b@h").password.as_deref(), Some("a@b"));
    }

    #[test]
    fn sentinels_are_named_with_their_service() {
        let url = parse("redis+sentinel://u:p@a,b:5000/my-service/2?sentinel_password=q");
        let sentinels = vec![address("a", 26379), address("b", 5000)];
        let (service, password) = ("my-service".to_owned(), Some("q".to_owned()));
        assert_eq!(url.servers, Servers::Sentinel { sentinels, service, user: None, password });
        assert_eq!((url.user.as_deref(), url.database), (Some("u"), 2));
    }

    #[test]
    fn a_cluster_is_named_by_some_of_its_nodes() {
        let url = parse("rediss+cluster://a:1,b:2,c?ca=/etc/ca.pem");
        assert_eq!(url.servers, Servers::Cluster(vec![address("a", 1), address("b", 2), address("c", 6379)]));
        assert_eq!(url.tls.and_then(|tls| tls.trusted), Some("/etc/ca.pem".into()));
    }

    #[test]
    fn a_parameter_that_nobody_knows_is_refused() {
        let mut url = parse("redis://h?name=a&wait=1&nmae=b");
        assert_eq!(url.take("name"), Ok(Some("a".to_owned())));
        assert_eq!(url.take("name"), Ok(None));
        assert_eq!(url.take_parsed::<u32>("wait", "a number"), Ok(Some(1)));
        assert!(url.refuse_the_rest(&["name"]).unwrap_err().to_string().contains("nmae"));
        assert!(parse("redis://h?wait=x").take_parsed::<u32>("wait", "a number").is_err());
        assert!(parse("redis://h?a=1&a=2").take("a").is_err());
    }

    #[test]
    fn nothing_that_is_printed_holds_a_password() {
        for text in
            ["redis://u:hidden@h/1?password=hidden", "redis+sentinel://:hidden@h/s?sentinel_password=hidden"]
        {
            let url = parse(text);
            assert!(!format!("{url} {url:?}").contains("hidden"));
        }
        assert_eq!(
            parse("rediss+sentinel://u:p@a,[::2]:7/s/1").to_string(),
            "rediss+sentinel://a:26379,[::2]:7/s/1"
        );
        let wrong = "redis://u:hidden@h:port".parse::<RedisUrl>().unwrap_err();
        assert!(!wrong.to_string().contains("hidden"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in [
            "localhost",
            "http://h",
            "redis://",
            "redis://h:x",
            "redis://h/x",
            "redis://a,b",
            "redis://user@h",
            "redis+sentinel://h",
            "redis+sentinel://h/",
            "redis+cluster://h/1",
            "redis://h?ca=x",
            "rediss://h?cert=x",
            "redis://[::1",
            "redis://a,,b",
            "redis://%ff:x@h",
        ] {
            assert!(text.parse::<RedisUrl>().is_err(), "{text}");
        }
    }
}
