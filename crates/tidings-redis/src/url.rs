//! The location of a Redis, its credentials, and the parameters of its URL.
//!
//! | spelling | meaning |
//! |---|---|
//! | `redis://[user[:password]@]host[:6379][/database]` | a single server |
//! | `redis+unix://[user[:password]@]/path[?db=database]`, or `unix://…` | a single server, through a Unix socket |
//! | `redis+sentinel://[user[:password]@]host[:26379][,host…]/service[/database]` | whichever server the Sentinels call the master of that service |
//! | `redis+cluster://[user[:password]@]host[:6379][,host…]` | a Redis Cluster; the hosts are where to ask first |
//!
//! With `rediss` in place of `redis` every connection is TLS. Users, passwords, service names and
//! paths are percent-decoded; `redis://:password@host` is a password without a user. Parameters of
//! the connection itself:
//!
//! | parameter | meaning |
//! |---|---|
//! | `ca=FILE` | trust the certificates of this PEM file instead of those of the system |
//! | `cert=FILE&cert_key=FILE` | show this certificate (PEM) |
//! | `sentinel_user=…&sentinel_password=…` | how to get in with the Sentinels, if they ask |
//! | `user=…&pass=…` | with a Unix socket: how to get in, as other clients spell it |
//!
//! All other parameters are for the user of the URL (the log, the bridge), which
//! [takes](Parameters::take) those that it knows, and [refuses](Parameters::refuse_the_rest) the
//! others.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use percent_encoding::percent_decode_str;
use tidings_net::{Address, InvalidUrl, Login, Parameters, ServerUrl, Tls};

/// A parsed URL. Its syntax is in `docs/scaling-out.md`. Neither `Debug` nor `Display` shows
/// passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Where to connect.
    pub servers: Servers,
    /// Whether connections are TLS.
    pub tls: Option<Tls>,
    /// The user on the servers that keep data.
    pub user: Option<String>,
    /// The password of that user, or of the server if there is no user.
    pub password: Option<String>,
    /// The number of the database; 0 in a Redis Cluster.
    pub database: u32,
    /// Parameters that have not been taken yet.
    pub parameters: Parameters,
}

/// Where to connect. `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
pub enum Servers {
    /// A single server.
    Single(Address),
    /// A single server that listens on this Unix socket.
    Socket(PathBuf),
    /// Sentinels that know which server is the master of a service.
    Sentinel {
        /// The Sentinels, in the order in which they are asked.
        sentinels: Vec<Address>,
        /// The name under which they monitor the servers.
        service: String,
        /// The user on the Sentinels.
        user: Option<String>,
        /// The password of that user.
        password: Option<String>,
    },
    /// A Redis Cluster: some of its nodes.
    Cluster(Vec<Address>),
}

/// The port of a server, and that of a Sentinel.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

impl RedisUrl {
    /// The files that hold secrets.
    pub fn secret_files(&self) -> impl Iterator<Item = &Path> {
        self.tls.iter().flat_map(|tls| &tls.own).map(|(_, key)| key.as_path())
    }
}

impl FromStr for RedisUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let url: ServerUrl = text.parse()?;
        let is_tls = url.scheme.starts_with("rediss");
        let kind = match &*url.scheme {
            "redis" | "rediss" => Kind::Single,
            "redis+unix" | "unix" => Kind::Socket,
            "redis+sentinel" | "rediss+sentinel" => Kind::Sentinel,
            "redis+cluster" | "rediss+cluster" => Kind::Cluster,
            _ => {
                return Err(InvalidUrl::new(
                    "the scheme must be redis, redis+unix, redis+sentinel or redis+cluster, or the same with rediss",
                ));
            }
        };
        let mut parameters = url.parameters.clone();
        let tls = parameters.take_tls(is_tls, "write rediss in place of redis")?;
        let (user, password) = login(&url, kind, &mut parameters)?;
        let path = url.path.strip_suffix('/').unwrap_or(&url.path);
        let (servers, database) = match kind {
            Kind::Single => {
                let [address] = <[Address; 1]>::try_from(url.addresses(PORT)?).map_err(|_| {
                    InvalidUrl::new(
                        "it names several hosts: only redis+sentinel and redis+cluster take more than one",
                    )
                })?;
                (Servers::Single(address), database(path)?)
            }
            Kind::Socket => {
                let path = decoded("path", path)?.filter(|_| url.addresses(PORT).is_err());
                let path = path.ok_or_else(|| {
                    InvalidUrl::new("it names no socket, as in redis+unix:///run/redis/redis.sock")
                })?;
                let database = parameters.take_parsed("db", "the number of a database")?;
                (Servers::Socket(PathBuf::from(format!("/{path}"))), database.unwrap_or_default())
            }
            Kind::Sentinel => {
                let sentinels = url.addresses(SENTINEL_PORT)?;
                let (service, number) = path.split_once('/').unwrap_or((path, ""));
                let service = decoded("service", service)?.ok_or_else(|| {
                    InvalidUrl::new("it does not name the service, as in redis+sentinel://host/service")
                })?;
                let user = parameters.take("sentinel_user")?;
                let password = parameters.take("sentinel_password")?;
                (Servers::Sentinel { sentinels, service, user, password }, database(number)?)
            }
            Kind::Cluster => {
                if database(path)? != 0 {
                    return Err(InvalidUrl::new("a Redis Cluster has one database only"));
                }
                (Servers::Cluster(url.addresses(PORT)?), 0)
            }
        };
        Ok(Self { servers, tls, user, password, database, parameters })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Single,
    Socket,
    Sentinel,
    Cluster,
}

/// The user and the password, as far as given.
fn login(
    url: &ServerUrl,
    kind: Kind,
    parameters: &mut Parameters,
) -> Result<(Option<String>, Option<String>), InvalidUrl> {
    let given = |text: String| (!text.is_empty()).then_some(text);
    let (mut user, mut password) = match url.login.clone() {
        Some(Login { user, password }) => (given(user), password.and_then(given)),
        None => (None, None),
    };
    if kind == Kind::Socket {
        user = parameters.take("user")?.or(user);
        password = parameters.take("pass")?.or(password);
    }
    if user.is_some() && password.is_none() {
        return Err(InvalidUrl::new(
            "it names a user without a password; write a password alone as redis://:password@host",
        ));
    }
    Ok((user, password))
}

fn decoded(what: &str, text: &str) -> Result<Option<String>, InvalidUrl> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| InvalidUrl::new(format!("the {what} is not UTF-8")))?;
    Ok((!decoded.is_empty()).then(|| decoded.into_owned()))
}

fn database(text: &str) -> Result<u32, InvalidUrl> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| InvalidUrl::new("the text after the last / is not a database number"))
}

/// The servers, without secrets and parameters.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        write!(f, "{scheme}{:?}", self.servers)?;
        match &self.servers {
            _ if self.database == 0 => Ok(()),
            Servers::Socket(_) => write!(f, "?db={}", self.database),
            _ => write!(f, "/{}", self.database),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

/// What follows `redis` in a URL, as in `+sentinel://host:26379/service`.
impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |hosts: &[Address]| hosts.iter().map(Address::to_string).collect::<Vec<_>>().join(",");
        match self {
            Self::Single(address) => write!(f, "://{address}"),
            Self::Socket(path) => write!(f, "+unix://{}", path.display()),
            Self::Sentinel { sentinels, service, .. } => {
                write!(f, "+sentinel://{}/{service}", list(sentinels))
            }
            Self::Cluster(nodes) => write!(f, "+cluster://{}", list(nodes)),
        }
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
    fn a_unix_socket_is_named_as_other_clients_name_it() {
        for (text, login, database) in [
            ("unix:///run/redis%20one.sock", (None, None), 0),
            ("redis+unix://me:mine@/run/redis one.sock?db=2", (Some("me"), Some("mine")), 2),
            ("redis+unix:///run/redis one.sock?db=2&user=me&pass=mine", (Some("me"), Some("mine")), 2),
            ("redis+unix:///run/redis one.sock?pass=mine", (None, Some("mine")), 0),
        ] {
            let url = parse(text);
            assert_eq!(url.servers, Servers::Socket("/run/redis one.sock".into()), "{text}");
            assert_eq!((url.user.as_deref(), url.password.as_deref()), login, "{text}");
            assert_eq!((url.database, url.parameters.refuse_the_rest(&[])), (database, Ok(())), "{text}");
        }
        assert_eq!(parse("unix://:p@/a/b?db=1").to_string(), "redis+unix:///a/b?db=1");
    }

    #[test]
    fn no_output_contains_a_password() {
        for text in
            ["redis://u:hidden@h/1?password=hidden", "redis+sentinel://:hidden@h/s?sentinel_password=hidden"]
        {
            let url = parse(text);
            assert!(!format!("{url} {url:?} {:?}", url.servers).contains("hidden"));
        }
        assert_eq!(
            parse("rediss+sentinel://u:p@a,[::2]:7/s/1").to_string(),
            "rediss+sentinel://a:26379,[::2]:7/s/1"
        );
        let wrong = "redis://u:hidden@h:port".parse::<RedisUrl>().unwrap_err();
        assert!(!wrong.to_string().contains("hidden"));
    }

    #[test]
    fn an_invalid_url_is_refused() {
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
            "redis+unix://",
            "redis+unix://host/run/redis.sock",
            "redis+unix:///run/redis.sock?db=x",
            "rediss+unix:///run/redis.sock",
            "redis://h?user=a&pass=b",
        ] {
            let refused = text.parse().and_then(|url: RedisUrl| url.parameters.refuse_the_rest(&[]));
            assert!(refused.is_err(), "{text}");
        }
    }
}
