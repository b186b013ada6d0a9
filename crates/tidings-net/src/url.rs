//! URLs that name servers: `scheme://[user[:password]@]host[:port][,host…][/path][?parameter=…]`.
//!
//! Crates for one kind of server interpret the rest: the path and the parameters. They
//! [take](Parameters::take) the parameters that they know and [refuse](Parameters::refuse_the_rest)
//! the others, so that a misspelt parameter is never ignored. No error repeats what may be a part
//! of a password.

use std::{fmt, net::Ipv6Addr, num::NonZero, path::PathBuf, str::FromStr};

use percent_encoding::percent_decode_str;

/// Most hosts in one URL.
const HOSTS_MAX: usize = 64;
/// Longest parameter name that an error repeats.
const SHOWN_NAME_BYTES_MAX: usize = 32;

/// A parsed URL. It has no `Debug`: it holds secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// The part before `://`.
    pub scheme: String,
    /// The part before the `@`.
    pub login: Option<Login>,
    /// The hosts, each with its port if it has one. May be empty.
    hosts: Vec<(String, Option<u16>)>,
    /// The part after the first `/` behind the hosts, as written.
    pub path: String,
    /// The part after the `?`.
    pub parameters: Parameters,
}

/// Credentials: a user with a password, or a single word, which some servers take for a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The part before the colon, or the single word.
    pub user: String,
    /// The part after the colon, if there is one.
    pub password: Option<String>,
}

/// A host and a port.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Address {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// TLS options.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tls {
    /// PEM file of the certificates to trust instead of the system's.
    pub trusted: Option<PathBuf>,
    /// PEM files of our own certificate and its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// Parameters that have not been taken yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Parameters {
    pairs: Vec<(String, String)>,
    /// A parameter without a value may be part of a secret, and is not repeated.
    may_be_secret: bool,
}

/// Why a URL cannot be used. The text never repeats the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidUrl(String);

impl InvalidUrl {
    /// An error for the caller that interprets the rest of a URL.
    pub fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }

    /// An error for the caller that takes parameters: the value of this one is invalid.
    pub fn parameter(name: &str, problem: impl fmt::Display) -> Self {
        Self(format!("the parameter {name} {problem}"))
    }
}

impl FromStr for ServerUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| InvalidUrl::new("the scheme is missing, as in redis://host or nats://host"))?;
        if rest.contains('#') {
            return Err(InvalidUrl::new("it has a fragment: write a # in a password as %23"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // It may be the end of a password with a / or a ? in it, whose beginning was then taken for
        // a host.
        if path.contains('@') || query.contains('@') {
            return Err(InvalidUrl::new(
                "there is an @ after the hosts: write it as %40; in a password, write /, ? and @ as %2F, %3F and %40",
            ));
        }
        // A password may hold an unencoded @; a host never does.
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        if login.is_some_and(|login| login.split_once('@').is_some_and(|(_, rest)| rest.contains(','))) {
            let problem = "it has a login for each host: write one login, before the first host; write a comma in a password as %2C";
            return Err(InvalidUrl::new(problem));
        }
        let hosts: Vec<_> = match hosts {
            "" => Vec::new(),
            hosts => hosts.split(',').map(host).collect::<Result<_, _>>()?,
        };
        if hosts.len() > HOSTS_MAX {
            return Err(InvalidUrl(format!("it names {} hosts; the maximum is {HOSTS_MAX}", hosts.len())));
        }
        Ok(Self {
            scheme: scheme.to_owned(),
            login: login.map(Login::parse).transpose()?,
            hosts,
            path: path.to_owned(),
            parameters: Parameters {
                pairs: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
                may_be_secret: query.split('&').any(|pair| !pair.contains('=')),
            },
        })
    }
}

impl ServerUrl {
    /// The hosts, at least one. Those without a port get the default port.
    pub fn addresses(&self, port_default: u16) -> Result<Vec<Address>, InvalidUrl> {
        let hosts = self.hosts.iter().cloned();
        let addresses: Vec<_> =
            hosts.map(|(host, port)| Address { host, port: port.unwrap_or(port_default) }).collect();
        if addresses.is_empty() { Err(InvalidUrl::new("it names no host")) } else { Ok(addresses) }
    }
}

impl Parameters {
    /// The value of a parameter, which counts as known from then on. A parameter that is given
    /// twice is an error.
    pub fn take(&mut self, name: &str) -> Result<Option<String>, InvalidUrl> {
        let mut value = None;
        while let Some(at) = self.pairs.iter().position(|(key, _)| key == name) {
            if value.replace(self.pairs.remove(at).1).is_some() {
                return Err(InvalidUrl::parameter(name, "is given twice"));
            }
        }
        Ok(value)
    }

    /// The value of a parameter, parsed. `what` describes the expected value in the error.
    pub fn take_parsed<T: FromStr>(&mut self, name: &str, what: &str) -> Result<Option<T>, InvalidUrl> {
        let parsed = self.take(name)?.map(|text| text.parse()).transpose();
        parsed.map_err(|_| InvalidUrl::parameter(name, format!("should be {what}")))
    }

    /// `ca`, `cert` and `cert_key`. `advice` names the scheme that has TLS.
    pub fn take_tls(&mut self, is_tls: bool, advice: &str) -> Result<Option<Tls>, InvalidUrl> {
        let trusted = self.take("ca")?.map(PathBuf::from);
        let own = match (self.take("cert")?, self.take("cert_key")?) {
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (None, None) => None,
            _ => return Err(InvalidUrl::new("cert and cert_key must be given together")),
        };
        let tls = Tls { trusted, own };
        if !is_tls && tls != Tls::default() {
            return Err(InvalidUrl(format!("ca, cert and cert_key are for TLS: {advice}")));
        }
        Ok(is_tls.then_some(tls))
    }

    /// An error if a parameter is left that was not taken. `known` lists the valid ones for that
    /// error.
    pub fn refuse_the_rest(&self, known: &[&str]) -> Result<(), InvalidUrl> {
        let Some((name, _)) = self.pairs.first() else { return Ok(()) };
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        let shown = is_plain && name.len() <= SHOWN_NAME_BYTES_MAX && !self.may_be_secret;
        let name = if shown { format!("the parameter {name}") } else { "one of its parameters".to_owned() };
        Err(InvalidUrl(format!("{name} is unknown; the known ones are {}", known.join(", "))))
    }
}

impl Login {
    fn parse(text: &str) -> Result<Self, InvalidUrl> {
        let decoded = |text: &str| match percent_decode_str(text).decode_utf8() {
            Ok(decoded) => Ok(decoded.into_owned()),
            Err(_) => Err(InvalidUrl::new("the user or the password is not UTF-8")),
        };
        Ok(match text.split_once(':') {
            Some((user, password)) => Self { user: decoded(user)?, password: Some(decoded(password)?) },
            None => Self { user: decoded(text)?, password: None },
        })
    }
}

fn host(text: &str) -> Result<(String, Option<u16>), InvalidUrl> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let bracketed = rest.split_once(']').filter(|(host, _)| {
                host.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
            });
            let (host, rest) = bracketed.ok_or_else(|| {
                InvalidUrl::new("the host in brackets is not an IPv6 address, as in [::1]:6379")
            })?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').unwrap_or("")) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err(InvalidUrl::new("it names no host, or one of its hosts is empty"));
    }
    if host.contains(|character: char| character.is_whitespace() || character.is_control()) {
        return Err(InvalidUrl::new("a host name contains a space"));
    }
    let port = port.map(str::parse::<NonZero<u16>>).transpose();
    let port = port.map_err(|_| InvalidUrl::new("the text after the colon of a host is not a port"))?;
    Ok((host.to_owned(), port.map(NonZero::get)))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ServerUrl {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn shown(text: &str) -> Vec<String> {
        parse(text).addresses(1234).unwrap().iter().map(Address::to_string).collect()
    }

    #[test]
    fn a_url_names_hosts_with_ports_and_a_path() {
        assert_eq!(shown("s://one:4222,two"), ["one:4222", "two:1234"]);
        assert_eq!(shown("s://[::1]:7,[fe80::1%eth0]/a/b"), ["[::1]:7", "[fe80::1%eth0]:1234"]);
        let socket = parse("s:///run/a.sock?db=1");
        assert_eq!((&*socket.scheme, &*socket.path), ("s", "run/a.sock"));
        assert!(socket.addresses(1).is_err());
    }

    #[test]
    fn a_login_is_decoded_and_may_hold_what_a_host_does_not() {
        let login = |text| parse(text).login.map(|Login { user, password }| (user, password));
        assert_eq!(login("s://h"), None);
        assert_eq!(login("s://t%40ken@h"), Some(("t@ken".to_owned(), None)));
        assert_eq!(login("s://me:s%2Fcret@h"), Some(("me".to_owned(), Some("s/cret".to_owned()))));
        assert_eq!(login("s://:a@b@h"), Some((String::new(), Some("a@b".to_owned()))));
    }

    #[test]
    fn an_unknown_parameter_is_refused() {
        let mut parameters = parse("s://h?name=a&wait=1&nmae=b").parameters;
        assert_eq!(parameters.take("name"), Ok(Some("a".to_owned())));
        assert_eq!(parameters.take("name"), Ok(None));
        assert_eq!(parameters.take_parsed::<u32>("wait", "a number"), Ok(Some(1)));
        assert!(parameters.refuse_the_rest(&["name"]).unwrap_err().to_string().contains("nmae"));
        assert!(parse("s://h?wait=x").parameters.take_parsed::<u32>("wait", "a number").is_err());
        assert!(parse("s://h?a=1&a=2").parameters.take("a").is_err());
        assert!(parse("s://h?cert=x").parameters.take_tls(true, "").is_err());
        assert!(parse("s://h?ca=x").parameters.take_tls(false, "").is_err());
    }

    #[test]
    fn an_invalid_url_is_refused_and_not_repeated() {
        for text in [
            "5ecret",
            "s://u:5ecret@h:port",
            "s://u:5ecret@h:0",
            "s://u:5ecret@[::1",
            "s://u:5ecret@[::1]7",
            "s://u:5ecret@a,,b",
            "s://u:5ecret@a b",
            "s://%ff:5ecret@h",
            "s://5ecret@a,5ecret@b",
            "s://u:1/5ecret@h",
            "s://u:1#5ecret@h",
            "s://u:1?5ecret@h",
            "s://u:1?5ecret=x@h",
            "s://u:@5ecret?@h",
            "s://u:5ecret/x@h",
        ] {
            let refused = text.parse::<ServerUrl>().err().unwrap_or_else(|| panic!("{text}")).to_string();
            assert!(!refused.contains("5ecret"), "{text}: {refused}");
        }
        for text in ["s://h?5ecret", "s://h?%35ecret%40=x"] {
            let refused = parse(text).parameters.refuse_the_rest(&["name"]).unwrap_err().to_string();
            assert!(!refused.contains("5ecret"), "{text}: {refused}");
        }
    }
}
