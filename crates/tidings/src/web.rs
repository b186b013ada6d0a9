//! The host that a browser's request is meant for and the page that caused it: two checks for every
//! server that embeds a hub.
//!
//! Browsers send requests for any page that they show, also to servers that only their user can
//! reach. So a server that trusts every client that can reach it, or that lets anonymous clients
//! read, has to check two things:
//!
//! - **The host** ([`HostNames`]). A page of `evil.example` can make that name point to the address
//!   of the server (DNS rebinding), and is then of the same origin. The `Host` header still
//!   contains the name that the browser asked for.
//! - **The initiator** ([`initiator`]). A page can send a request whose response it cannot read; a
//!   publication has taken effect by then (cross-site request forgery).
//!
//! This module knows no sockets and no settings: both checks are functions of the request alone.

use std::{borrow::Cow, fmt, net::Ipv4Addr, str::FromStr};

use http::{HeaderMap, Uri, header, uri::Authority};
use url::{Host, Url};

/// The host names that a server answers to.
///
/// Addresses always pass, since rebinding needs a name, and so do `localhost` and the names below
/// it, which an attacker cannot make point elsewhere in a browser (RFC 6761, section 6.3).
///
/// ```
/// use http::{HeaderMap, Uri, header};
/// use tidings::web::HostNames;
///
/// let names: HostNames = [("*.example.com".parse()?)].into_iter().collect();
/// let mut headers = HeaderMap::new();
/// headers.insert(header::HOST, "app.example.com:8080".parse()?);
/// assert!(names.check(&Uri::default(), &headers).is_ok());
/// headers.insert(header::HOST, "example.net".parse()?);
/// assert!(names.check(&Uri::default(), &headers).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostNames(Vec<HostName>);

impl FromIterator<HostName> for HostNames {
    fn from_iter<I: IntoIterator<Item = HostName>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}

impl Extend<HostName> for HostNames {
    fn extend<I: IntoIterator<Item = HostName>>(&mut self, names: I) {
        self.0.extend(names);
    }
}

impl HostNames {
    /// Refuses a request for a host that this server does not answer to (RFC 9110, section 15.5.20:
    /// 421). HTTP/1.0 needs no Host, and no browser that runs scripts uses it: a request without
    /// one passes.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), UnknownHost> {
        let Some(named) = authority(uri, headers) else { return Ok(()) };
        let unknown = || UnknownHost(String::from_utf8_lossy(named).into_owned());
        let host = std::str::from_utf8(named).ok().and_then(host_of).ok_or_else(unknown)?;
        // Nearly every request passes here, without the parser of international names.
        if host == "localhost" || host.parse::<Ipv4Addr>().is_ok() {
            return Ok(());
        }
        match Host::parse(host) {
            Ok(Host::Ipv4(_) | Host::Ipv6(_)) => Ok(()),
            Ok(Host::Domain(name)) if is_loopback_name(without_dot(&name)) => Ok(()),
            Ok(Host::Domain(name)) if self.0.iter().any(|known| known.matches(without_dot(&name))) => Ok(()),
            _ => Err(unknown()),
        }
    }
}

/// A host name, or all names below one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostName {
    name: String,
    /// `*.name`: every name below it, at any depth, and not the name itself.
    is_wildcard: bool,
}

impl HostName {
    /// Whether this host is included, a name in lower case without a port.
    pub fn matches(&self, host: &str) -> bool {
        if !self.is_wildcard {
            return self.name == host;
        }
        let label = host.strip_suffix(&self.name).and_then(|rest| rest.strip_suffix('.'));
        label.is_some_and(|label| !label.is_empty())
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.is_wildcard { "*." } else { "" }, self.name)
    }
}

/// The text is not a host name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseHostNameError {
    /// It contains more than a host.
    #[error("is not a host name: leave out the scheme, the port and the path, as in hub.example.com")]
    NotBare,
    /// There is a `*` where none is allowed.
    #[error("is not a host name: a * may only stand for everything before a domain, as in *.example.com")]
    Wildcard,
    /// No host can have this name.
    #[error("is not a host name: write hub.example.com, or *.example.com for every name below it")]
    Malformed,
}

impl FromStr for HostName {
    type Err = ParseHostNameError;

    fn from_str(text: &str) -> Result<Self, ParseHostNameError> {
        let (rest, is_wildcard) = text.strip_prefix("*.").map_or((text, false), |rest| (rest, true));
        if rest.contains('*') {
            return Err(ParseHostNameError::Wildcard);
        }
        if rest.contains(['/', '@', '?', '#']) || (rest.contains(':') && !rest.starts_with('[')) {
            return Err(ParseHostNameError::NotBare);
        }
        match Host::parse(rest).map_err(|_| ParseHostNameError::Malformed)? {
            Host::Domain(name) => {
                let name = without_dot(&name);
                let is_label = |label: &str| {
                    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
                    !label.is_empty() && label.bytes().all(is_allowed)
                };
                if !name.split('.').all(is_label) {
                    return Err(ParseHostNameError::Malformed);
                }
                Ok(Self { name: name.to_owned(), is_wildcard })
            }
            // An address has nothing below it.
            _ if is_wildcard => Err(ParseHostNameError::Wildcard),
            address => Ok(Self { name: address.to_string(), is_wildcard }),
        }
    }
}

/// A request is addressed to a host that this server does not answer to.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this server does not answer to the host {0:?}")]
pub struct UnknownHost(String);

impl UnknownHost {
    /// The host as the request names it, with its port.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The page that made a browser send a request.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Initiator<'a> {
    /// The request names none: a program, or a user who entered the address.
    Unstated,
    /// A page of the origin that the request goes to, according to the browser.
    SameOrigin,
    /// A page of this origin, which may be the one that the request goes to: see
    /// [`is_same_origin`].
    Origin(Cow<'a, str>),
    /// A page whose origin is not disclosed, and which may be anyone's.
    Opaque,
}

/// Longest `Origin` and `Referer` that are parsed, in bytes. A longer one counts as opaque.
const INITIATOR_BYTES_MAX: usize = 2_048;

/// The page that made the browser send a request with these headers.
///
/// Browsers send `Origin` with every request that is neither GET nor HEAD. A request without it may
/// still be from an old browser, or from one behind a proxy that removes the header: then
/// `Sec-Fetch-Site` and `Referer` count.
pub fn initiator(headers: &HeaderMap) -> Initiator<'_> {
    match single(headers, &header::ORIGIN) {
        Ok(None) => {}
        Ok(Some(origin)) if parse_origin(origin).is_some() => return Initiator::Origin(origin.into()),
        _ => return Initiator::Opaque,
    }
    // Fetch Metadata, 2.3: `none` means that the user initiated the request.
    let is_same_origin = match single(headers, "sec-fetch-site") {
        Ok(Some("same-origin")) => true,
        Ok(None | Some("none")) => false,
        _ => return Initiator::Opaque,
    };
    match single(headers, &header::REFERER) {
        Ok(None | Some("")) if is_same_origin => Initiator::SameOrigin,
        Ok(None | Some("")) => Initiator::Unstated,
        Ok(Some(referer)) => match Url::parse(referer).map(|url| url.origin()) {
            Ok(origin) if origin.is_tuple() => Initiator::Origin(origin.ascii_serialization().into()),
            _ => Initiator::Opaque,
        },
        Err(NotOne) => Initiator::Opaque,
    }
}

/// Whether a page of this origin was served by the host that the request goes to. The scheme is not
/// compared: behind a proxy that terminates TLS a server cannot know it.
pub fn is_same_origin(origin: &str, uri: &Uri, headers: &HeaderMap) -> bool {
    let Some(url) = parse_origin(origin) else { return false };
    let authority = authority(uri, headers).and_then(|named| Authority::try_from(named).ok());
    let Some(authority) = authority else { return false };
    let default_port = match url.scheme() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    url.host_str().is_some_and(|host| host.eq_ignore_ascii_case(authority.host()))
        && authority.port_u16().or(default_port) == url.port_or_known_default()
}

/// An origin as browsers send it: a scheme, a host and a port, and nothing else. `null` is not one.
pub fn parse_origin(origin: &str) -> Option<Url> {
    let url = Url::parse(origin).ok()?;
    let host = url.host_str().filter(|host| !host.is_empty())?;
    let is_bare = match (url.origin().is_tuple(), url.port()) {
        (true, _) => url.origin().ascii_serialization() == origin,
        // Other schemes, such as that of an application's own web view, are opaque to WHATWG URL
        // and yet sent like this.
        (false, Some(port)) => format!("{}://{host}:{port}", url.scheme()) == origin,
        (false, None) => format!("{}://{host}", url.scheme()) == origin,
    };
    is_bare.then_some(url)
}

/// Whether this is a name of the machine itself.
pub fn is_loopback_name(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// RFC 9112, 3.2.2 and RFC 9113, 8.3.1: the authority of the target counts, if there is one,
/// otherwise Host.
fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a [u8]> {
    match uri.authority() {
        Some(authority) => Some(authority.as_str().as_bytes()),
        None => headers.get(header::HOST).map(http::HeaderValue::as_bytes),
    }
}

/// RFC 9110, 7.2: `uri-host [ ":" port ]`.
fn host_of(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => authority.split_at(rest.find(']')? + 2),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(host)
}

/// A name may end with the dot of the DNS root.
fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// A header has several values, or one that is too long or not text.
struct NotOne;

fn single<K: header::AsHeaderName>(headers: &HeaderMap, name: K) -> Result<Option<&str>, NotOne> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| text.len() <= INITIATOR_BYTES_MAX);
    match (text, values.next()) {
        (Some(text), None) => Ok(Some(text)),
        _ => Err(NotOne),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).expect("a field value");
        let mut headers = HeaderMap::new();
        for (name, text) in lines {
            headers.append(HeaderName::from_static(name), value(text));
        }
        headers
    }

    fn admits(names: &[&str], host: &str) -> bool {
        let names: HostNames = names.iter().map(|name| name.parse().expect("a host name")).collect();
        names.check(&Uri::default(), &headers(&[("host", host)])).is_ok()
    }

    #[test]
    fn addresses_and_loopback_names_are_admitted_without_a_setting() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "app.localhost:1",
            "127.0.0.1:8080",
            "192.0.2.1",
            "0.0.0.0:8080",
            "[::1]:8080",
            "[2001:db8::1]",
            "2130706433",
        ] {
            assert!(admits(&[], host), "{host}");
        }
    }

    #[test]
    fn other_names_are_refused_unless_they_are_listed() {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "notlocalhost",
            "",
            ":80",
            "user@localhost",
            "localhost:evil.example",
            "[::1",
            "a b",
        ] {
            assert!(!admits(&["hub.example"], host), "{host}");
        }
        for host in ["hub.example", "HUB.example:8443", "hub.example."] {
            assert!(admits(&["hub.example"], host), "{host}");
        }
        assert!(admits(&["grüße.example"], "xn--gre-6ka8l.example"));
        assert!(admits(&["my_service"], "my_service:8080"));
    }

    #[test]
    fn a_wildcard_admits_names_below_at_any_depth_and_not_the_name_itself() {
        for (host, is_admitted) in [
            ("a.example.com", true),
            ("a.b.example.com:1", true),
            ("example.com", false),
            (".example.com", false),
            ("badexample.com", false),
            ("a.example.com.evil", false),
        ] {
            assert_eq!(admits(&["*.example.com"], host), is_admitted, "{host}");
        }
    }

    #[test]
    fn the_authority_of_the_target_counts_and_no_host_at_all_passes() {
        let names = HostNames::default();
        let ours = headers(&[("host", "localhost")]);
        assert!(names.check(&Uri::from_static("http://evil.example/x"), &ours).is_err());
        let foreign = headers(&[("host", "evil.example")]);
        assert!(names.check(&Uri::from_static("http://localhost/x"), &foreign).is_ok());
        assert!(names.check(&Uri::from_static("/x"), &HeaderMap::new()).is_ok());
    }

    #[test]
    fn a_text_that_no_host_header_can_match_is_refused() {
        for text in [
            "",
            ".",
            "*",
            "*.",
            "a.*.example",
            "**.example",
            "a*.example",
            "https://hub.example",
            "hub.example:8080",
            "hub.example/",
            "user@hub.example",
            "a b",
            "!",
            "a..b",
            "*.192.0.2.1",
            "*.[::1]",
            "hub.example,other.example",
        ] {
            assert!(text.parse::<HostName>().is_err(), "{text}");
        }
        for text in ["hub.example", "*.example.com", "localhost", "192.0.2.1", "[::1]", "my_service"] {
            assert_eq!(text.parse::<HostName>().map(|name| name.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn the_initiator_comes_from_origin_or_else_from_the_other_headers() {
        use Initiator::{Opaque, Origin, SameOrigin, Unstated};
        let origin = |text: &'static str| Origin(text.into());
        for (lines, expected) in [
            (&[][..], Unstated),
            (&[("sec-fetch-site", "none")], Unstated),
            (&[("referer", "")], Unstated),
            (&[("sec-fetch-site", "same-origin")], SameOrigin),
            (&[("origin", "https://a.example")], origin("https://a.example")),
            (
                &[("origin", "https://a.example"), ("sec-fetch-site", "cross-site")],
                origin("https://a.example"),
            ),
            (&[("origin", "capacitor://localhost")], origin("capacitor://localhost")),
            (&[("referer", "https://a.example:8443/b?c")], origin("https://a.example:8443")),
            (&[("referer", "http://a.example/"), ("sec-fetch-site", "none")], origin("http://a.example")),
            (&[("sec-fetch-site", "cross-site")], Opaque),
            (&[("sec-fetch-site", "same-site")], Opaque),
            (&[("sec-fetch-site", "anything")], Opaque),
            (&[("sec-fetch-site", "none"), ("sec-fetch-site", "none")], Opaque),
            (&[("sec-fetch-site", "cross-site"), ("referer", "http://localhost/")], Opaque),
            (&[("origin", "null")], Opaque),
            (&[("origin", "")], Opaque),
            (&[("origin", "nonsense")], Opaque),
            (&[("origin", "https://a.example/")], Opaque),
            (&[("origin", "https://user@a.example")], Opaque),
            (&[("origin", "file://")], Opaque),
            (&[("origin", "https://a.example"), ("origin", "https://a.example")], Opaque),
            (&[("referer", "nonsense")], Opaque),
            (&[("referer", "file:///x")], Opaque),
            (&[("referer", "about:blank")], Opaque),
        ] {
            assert_eq!(initiator(&headers(lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_page_is_of_the_same_origin_however_its_port_is_spelled() {
        for (origin, host, is_same) in [
            ("http://localhost:8080", "localhost:8080", true),
            ("https://hub.example", "hub.example", true),
            ("https://hub.example", "hub.example:443", true),
            ("https://hub.example:444", "hub.example", false),
            ("http://hub.example", "hub.example:443", false),
            ("http://hub.example:8080@evil.example", "hub.example:8080", false),
            ("null", "null", false),
        ] {
            let headers = headers(&[("host", host)]);
            assert_eq!(is_same_origin(origin, &Uri::default(), &headers), is_same, "{origin} {host}");
        }
    }
}
