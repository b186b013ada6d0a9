//! Web pages of other sites: what their browsers are told (CORS), and what they may not do.
//!
//! A browser sends a request for whatever page asks it to, and then decides by our answer whether the page may read it. So an
//! origin that is not allowed is served without the headers that would let it read, except where the request itself would do
//! something: a hub without keys refuses to publish for it.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Mutex,
};

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts, uri::Authority};
use url::{Host, Url};

use crate::{
    problem::{Problem, excerpt},
    settings::AllowedOrigin,
};

/// What a request's `Origin` means here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// There is none: not a browser, or a navigation.
    Absent,
    /// The page comes from the hub itself.
    Same,
    /// The page may read, and the value says so; with credentials if the operator named the origin.
    Allowed { value: HeaderValue, credentials: bool },
    /// The page may not read.
    Refused,
}

/// Decides about origins.
#[derive(Debug)]
pub(crate) struct Origins {
    /// That of the hub's public URL.
    own: url::Origin,
    allowed: Vec<AllowedOrigin>,
    /// A hub without keys serves the pages of local development servers.
    loopback: bool,
    refused: Mutex<HashSet<String>>,
}

/// Refused origins that are logged, each once. What comes after them is refused without a word.
const REFUSED_LOGGED_MAX: usize = 100;

/// Longest origin that is looked at, in bytes; a host name has 253 at most.
const ORIGIN_BYTES_MAX: usize = 300;

/// Seconds for which a browser remembers the answer to a preflight; Chromium takes two hours at most.
const PREFLIGHT_MAX_AGE_SECS: &str = "7200";

const METHODS: &str = "GET, HEAD, POST, DELETE";
const REQUEST_HEADERS: &str = "Authorization, Cache-Control, Content-Type, Last-Event-ID, X-Requested-With, Datastar-Request, Idempotency-Key";
const EXPOSED_HEADERS: &str = "Mercure-Last-Event-ID, Last-Event-ID, Link, Retry-After";

impl Origins {
    pub(crate) fn new(public_url: &Url, allowed: Vec<AllowedOrigin>, loopback: bool) -> Self {
        Self { own: public_url.origin(), allowed, loopback, refused: Mutex::default() }
    }

    pub(crate) fn standing(&self, headers: &HeaderMap) -> Standing {
        let mut values = headers.get_all(header::ORIGIN).iter();
        let Some(value) = values.next() else { return Standing::Absent };
        let origin = value.to_str().ok().filter(|origin| origin.len() <= ORIGIN_BYTES_MAX);
        let (Some(origin), None) = (origin, values.next()) else { return Standing::Refused };
        // `null` is what a sandboxed frame or a local file sends: anybody at all.
        if origin == "null" {
            return Standing::Refused;
        }
        if self.is_same(origin, headers) {
            return Standing::Same;
        }
        let is_named =
            |allowed: &AllowedOrigin| matches!(allowed, AllowedOrigin::Exact(exact) if exact == origin);
        if self.allowed.iter().any(is_named) {
            return Standing::Allowed { value: value.clone(), credentials: true };
        }
        if self.allowed.contains(&AllowedOrigin::Any) {
            return Standing::Allowed { value: HeaderValue::from_static("*"), credentials: false };
        }
        if self.loopback && is_loopback_origin(origin) {
            return Standing::Allowed { value: value.clone(), credentials: false };
        }
        self.log_refused(origin);
        Standing::Refused
    }

    /// Refuses what a page of a foreign site makes a browser do. To be asked where nothing but the request itself gives the right.
    pub(crate) fn refuse_foreign(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.standing(headers) != Standing::Refused {
            return Ok(());
        }
        let origin = headers.get(header::ORIGIN).and_then(|value| value.to_str().ok()).unwrap_or("null");
        let shown = excerpt(origin);
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "origin",
            format!(
                "Web pages of the origin {shown} may not publish or delete here: start the hub with `--allow-origin` and that origin to let them."
            ),
        ))
    }

    /// The answer to a preflight request (Fetch standard, "CORS-preflight request"); `None` if it is none.
    pub(crate) fn preflight(&self, parts: &Parts) -> Option<Response> {
        let is_preflight = parts.method == Method::OPTIONS
            && parts.headers.contains_key(header::ORIGIN)
            && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !is_preflight {
            return None;
        }
        if self.standing(&parts.headers) == Standing::Refused {
            let detail = "Web pages of this origin may not use this hub: start it with `--allow-origin` and the origin to let them.";
            return Some(Problem::new(StatusCode::FORBIDDEN, "origin", detail).into_response());
        }
        let headers = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
            (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE_SECS),
        ];
        Some((StatusCode::NO_CONTENT, headers).into_response())
    }

    /// The page is ours if it came from where the request goes to. The scheme is not compared: behind a proxy that ends TLS we cannot
    /// know it.
    fn is_same(&self, origin: &str, headers: &HeaderMap) -> bool {
        let Some(url) = parse_origin(origin) else { return false };
        if url.origin() == self.own {
            return true;
        }
        let Some(authority) = authority(headers) else { return false };
        let default_port = match url.scheme() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let port = authority.port_u16().or(default_port);
        url.host_str().is_some_and(|host| host.eq_ignore_ascii_case(authority.host()))
            && port == url.port_or_known_default()
    }

    fn log_refused(&self, origin: &str) {
        let mut refused = self.refused.lock().expect("nothing panics while it holds this");
        if refused.len() < REFUSED_LOGGED_MAX && refused.insert(origin.to_owned()) {
            tracing::warn!(
                origin,
                "a web page of this origin was refused; --allow-origin {} lets it in",
                origin.escape_debug()
            );
        }
    }
}

/// Says in the answer what its reader may do with it.
pub(crate) fn mark(standing: &Standing, answer: &mut HeaderMap) {
    answer.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Standing::Allowed { value, credentials } = standing {
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, value.clone());
        answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
        if *credentials {
            answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

/// Refuses requests for a name that is not ours. A page of `evil.example` can make that name point to 127.0.0.1 and would then be of the
/// same origin as a hub there; its browser still says which name it asked for.
pub(crate) fn check_host(headers: &HeaderMap, public_url: &Url) -> Result<(), Problem> {
    // HTTP/1.0 needs no Host, and no browser that runs scripts speaks it.
    let Some(named) = headers.get(header::HOST) else { return Ok(()) };
    // Nearly everybody names it as the URL does, and then there is nothing to take apart.
    if named.as_bytes() == public_url.authority().as_bytes() {
        return Ok(());
    }
    let authority = authority(headers);
    let host = authority.as_ref().map(Authority::host);
    let is_ours = host.is_some_and(|host| {
        public_url.host_str().is_some_and(|own| own.eq_ignore_ascii_case(host)) || is_loopback_host(host)
    });
    if is_ours {
        return Ok(());
    }
    let shown = excerpt(host.unwrap_or_default());
    Err(Problem::new(
        StatusCode::MISDIRECTED_REQUEST,
        "host",
        format!(
            "This hub does not answer to the name {shown}: without keys it serves this machine only, as `localhost` or `127.0.0.1`. A public \
             URL with that name, or keys, would change that."
        ),
    ))
}

fn authority(headers: &HeaderMap) -> Option<Authority> {
    Authority::try_from(headers.get(header::HOST)?.as_bytes()).ok()
}

/// An origin is a scheme, a host and a port, and nothing else.
fn parse_origin(origin: &str) -> Option<Url> {
    let url = Url::parse(origin).ok()?;
    (url.origin().ascii_serialization() == origin).then_some(url)
}

fn is_loopback_origin(origin: &str) -> bool {
    let url = parse_origin(origin).filter(|url| matches!(url.scheme(), "http" | "https"));
    url.and_then(|url| url.host_str().map(is_loopback_host)).unwrap_or(false)
}

/// Names and addresses of this machine itself. Nobody else can make `localhost`, or a name below it, point elsewhere in a browser (RFC
/// 6761, section 6.3).
fn is_loopback_host(host: &str) -> bool {
    // What nearly every request says needs no parser of international names.
    if host == "localhost" || host.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback()) {
        return true;
    }
    match Host::parse(host) {
        Ok(Host::Ipv4(address)) => Ipv4Addr::is_loopback(&address),
        Ok(Host::Ipv6(address)) => Ipv6Addr::is_loopback(&address),
        Ok(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Err(_) => false,
    }
}
