//! Web pages of other sites (CORS), and requests that are not addressed to this hub.
//!
//! A browser sends a request for any page, and decides by the response headers whether the page may
//! read the response. So the response to an origin that is not allowed lacks these headers. A
//! request with side effects is refused instead: a hub without keys does not publish for such an
//! origin. [`tidings::web`] reads from a request which page initiated it.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::response::{IntoResponse, Response};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
    header::{self, ACCESS_CONTROL_REQUEST_HEADERS},
    request::Parts,
};
use tidings::web::{HostNames, Initiator, initiator, is_loopback_name, is_same_origin, parse_origin};
use url::{Host, Url};

use crate::{
    problem::{Problem, excerpt},
    settings::{AllowedOrigin, AllowedOrigins},
};

/// What the initiator of a request may do here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// There is no initiator: the client is not a browser, or the browser navigates.
    Absent,
    /// The page comes from the hub itself.
    Same,
    /// The page may read, as the header value states; with credentials if the operator named the
    /// origin.
    Allowed { value: HeaderValue, credentials: bool },
    /// The page may not read.
    Refused,
}

/// Decides about origins.
#[derive(Debug)]
pub(crate) struct Origins {
    /// The origin of the hub's public URL, and its path.
    own: url::Origin,
    hub_path: String,
    allowed: AllowedOrigins,
    /// A hub without keys serves the pages of local development servers.
    loopback: bool,
    refused: RefusedOrigins,
}

/// Seconds for which a browser remembers the response to a preflight; Chromium caps it at two
/// hours.
const PREFLIGHT_MAX_AGE_SECS: &str = "7200";

/// Headers that known clients send; further ones are taken from the preflight itself.
const REQUEST_HEADERS: &str = "Authorization, Cache-Control, Content-Type, Last-Event-ID, X-Requested-With, Datastar-Request, Idempotency-Key";
const EXPOSED_HEADERS: &str = "Mercure-Last-Event-ID, Last-Event-ID, Link, Retry-After, Tidings-Cursor";

/// Header names that a preflight may ask for, and their bytes together. Further names are not
/// allowed, and the browser blocks the request.
const REQUESTED_HEADERS_MAX: usize = 64;
const REQUESTED_HEADER_BYTES_MAX: usize = 4_096;

impl Origins {
    pub(crate) fn new(public_url: &Url, allowed: AllowedOrigins, loopback: bool) -> Self {
        let hub_path = public_url.path().to_owned();
        Self { own: public_url.origin(), hub_path, allowed, loopback, refused: RefusedOrigins::default() }
    }

    /// Whether the page that sends these headers may read the response (Fetch standard, "CORS
    /// protocol").
    pub(crate) fn standing(&self, headers: &HeaderMap) -> Standing {
        if !headers.contains_key(header::ORIGIN) {
            return Standing::Absent;
        }
        let initiator = initiator(headers);
        let standing = self.judge(&initiator, headers);
        if standing == Standing::Refused {
            self.refused.log(&initiator, self.loopback);
        }
        standing
    }

    /// Refuses requests that a page of a foreign site makes a browser send. For requests that need
    /// no credential: any page can cause them.
    pub(crate) fn refuse_foreign(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let initiator = initiator(headers);
        if self.judge(&initiator, headers) != Standing::Refused {
            return Ok(());
        }
        Err(refusal(&initiator, "publish or delete here"))
    }

    /// Refuses requests whose credential the browser added by itself, in a cookie, unless they are
    /// from a page of the hub's own origin, or of one that the operator named. A browser states the
    /// origin of every request that writes, so a request that states neither `Origin` nor `Referer`
    /// is refused as well.
    pub(crate) fn require_allowed(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let states_page = headers.contains_key(header::ORIGIN) || headers.contains_key(header::REFERER);
        let initiator = initiator(headers);
        match self.judge(&initiator, headers) {
            Standing::Same if self.lost_tls(&initiator) => {
                Err(refusal(&initiator, "write here with a cookie"))
            }
            Standing::Same | Standing::Allowed { credentials: true, .. } if states_page => Ok(()),
            Standing::Refused | Standing::Allowed { .. } => {
                Err(refusal(&initiator, "write here with a cookie"))
            }
            Standing::Same | Standing::Absent => Err(Problem::forbidden(
                "origin",
                "A request with a credential in a cookie needs the header `Origin` or `Referer` of an allowed page: programs send the \
                 credential in `Authorization: Bearer …`.",
            )),
        }
    }

    /// The response to a preflight request (Fetch standard, "CORS-preflight request"); `None` if
    /// the request is not a preflight.
    pub(crate) fn preflight(&self, parts: &Parts) -> Option<Response> {
        let is_preflight = parts.method == Method::OPTIONS
            && parts.headers.contains_key(header::ORIGIN)
            && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !is_preflight {
            return None;
        }
        let initiator = initiator(&parts.headers);
        if self.judge(&initiator, &parts.headers) == Standing::Refused {
            return Some(refusal(&initiator, "use this hub").into_response());
        }
        let methods = match parts.uri.path() {
            "/stream" => "GET, HEAD, POST, QUERY",
            path if path == self.hub_path => "GET, HEAD, POST, QUERY",
            path if path.starts_with("/topics/") => "GET, HEAD, POST, DELETE",
            path if path.starts_with("/connections/") => "PATCH",
            _ => "GET, HEAD, POST",
        };
        let headers = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods)),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers(&parts.headers)),
            (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_MAX_AGE_SECS)),
            (header::VARY, HeaderValue::from_static("Access-Control-Request-Headers")),
        ];
        Some((StatusCode::NO_CONTENT, headers).into_response())
    }

    /// Whether the page has the hub's host, but came without TLS, although the hub has TLS: anyone
    /// between the hub and the browser can write such a page. Browsers treat it as one of another
    /// site, too. Pages of the machine itself take no network.
    fn lost_tls(&self, initiator: &Initiator<'_>) -> bool {
        let Initiator::Origin(origin) = initiator else { return false };
        let Some(page) = parse_origin(origin) else { return false };
        let is_named = || self.allowed.current().iter().any(|allowed| allowed.names(origin, &page));
        let has_tls = matches!(&self.own, url::Origin::Tuple(scheme, ..) if scheme == "https");
        has_tls && page.scheme() == "http" && !is_loopback_origin(&page) && !is_named()
    }

    /// The one decision about pages, for reading as for writing.
    fn judge(&self, initiator: &Initiator<'_>, headers: &HeaderMap) -> Standing {
        let any = || Standing::Allowed { value: HeaderValue::from_static("*"), credentials: false };
        let origin = match initiator {
            Initiator::Unstated => return Standing::Absent,
            Initiator::SameOrigin => return Standing::Same,
            Initiator::Origin(origin) => &**origin,
            _ if self.allowed.current().contains(&AllowedOrigin::Any) => return any(),
            _ => return Standing::Refused,
        };
        let Some(url) = parse_origin(origin) else { return Standing::Refused };
        if url.origin() == self.own || is_same_origin(origin, &Uri::default(), headers) {
            return Standing::Same;
        }
        let Ok(value) = HeaderValue::from_str(origin) else { return Standing::Refused };
        let allowed = self.allowed.current();
        if allowed.iter().any(|allowed| allowed.names(origin, &url)) {
            return Standing::Allowed { value, credentials: true };
        }
        if allowed.contains(&AllowedOrigin::Any) {
            return any();
        }
        if self.loopback && is_loopback_origin(&url) {
            return Standing::Allowed { value, credentials: false };
        }
        Standing::Refused
    }
}

/// The problem for a page: what it may not do, and which setting allows it.
fn refusal(initiator: &Initiator<'_>, action: &str) -> Problem {
    let detail = match initiator {
        Initiator::Origin(origin) => {
            let remedy = advice(origin).map(|flag| format!(": start the hub with `{flag}` to allow this"));
            format!(
                "Web pages of the origin {} may not {action}{}.",
                excerpt(origin),
                remedy.unwrap_or_default()
            )
        }
        _ => format!("A web page of unknown origin may not {action}. {FROM_FILE}"),
    };
    Problem::forbidden("origin", detail)
}

/// The header names that a preflight asks for, after those that are always allowed. An allowed
/// origin may send any header, such as those of tracing libraries.
fn allowed_headers(headers: &HeaderMap) -> HeaderValue {
    let mut allowed = REQUEST_HEADERS.to_owned();
    let requested = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let names = requested.flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    let mut bytes_left = REQUESTED_HEADER_BYTES_MAX;
    for name in names.take(REQUESTED_HEADERS_MAX) {
        // RFC 9110, 5.1: a field name is a token.
        let Ok(name) = HeaderName::from_bytes(name.trim_ascii()) else { continue };
        let Some(rest) = bytes_left.checked_sub(name.as_str().len()) else { break };
        bytes_left = rest;
        allowed.extend([", ", name.as_str()]);
    }
    HeaderValue::try_from(allowed).expect("names of headers are ASCII")
}

/// What to do with a page that was opened from a file.
const FROM_FILE: &str = "If it was opened from a file, serve it over HTTP instead, for example with `python3 -m http.server 8000`, and open \
     http://localhost:8000; `--allow-origin '*'` allows every page, without credentials.";

/// The flag that allows an origin; none if no flag can.
fn advice(origin: &str) -> Option<String> {
    let allowed: AllowedOrigin = origin.parse().ok()?;
    Some(format!("--allow-origin {allowed}"))
}

/// The origins that were refused and logged, so that a page that retries does not fill the log.
#[derive(Debug, Default)]
struct RefusedOrigins(Mutex<Logged>);

#[derive(Debug, Default)]
struct Logged {
    origins: HashSet<String>,
    opaque_at: Option<Instant>,
}

/// Refused origins that are logged, each once. Further ones are refused without a log line.
const REFUSED_LOGGED_MAX: usize = 100;

/// The shortest time between two log lines about pages whose origin is `null`: they cannot be
/// distinguished.
const OPAQUE_INTERVAL: Duration = Duration::from_secs(60);

impl RefusedOrigins {
    fn log(&self, initiator: &Initiator<'_>, loopback: bool) {
        match initiator {
            Initiator::Origin(origin) if self.is_new(origin) => {
                let remedy = advice(origin)
                    .map_or("no setting allows it".to_owned(), |flag| format!("{flag} allows it"));
                let remedy = remedy.escape_debug();
                tracing::warn!(origin = &**origin, "a web page of this origin was refused; {remedy}");
            }
            Initiator::Opaque if self.is_due(Instant::now()) => {
                let further = if loopback {
                    ""
                } else {
                    ", and start the hub with --allow-origin http://localhost:8000"
                };
                tracing::warn!(
                    origin = "null",
                    "a web page that was opened from a file, or in a sandbox, was refused: serve it over HTTP, for example with \
                     `python3 -m http.server 8000`, open http://localhost:8000{further}; --allow-origin '*' allows every page, \
                     without credentials"
                );
            }
            _ => {}
        }
    }

    fn is_new(&self, origin: &str) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logged.origins.len() < REFUSED_LOGGED_MAX && logged.origins.insert(origin.to_owned())
    }

    fn is_due(&self, now: Instant) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = logged.opaque_at.is_none_or(|at| now.duration_since(at) >= OPAQUE_INTERVAL);
        if is_due {
            logged.opaque_at = Some(now);
        }
        is_due
    }
}

/// Adds the CORS headers of this decision to the response.
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

/// Refuses requests for an unknown host (DNS rebinding). A page of `evil.example` can make that
/// name resolve to 127.0.0.1 and would then have the same origin as a hub there; its browser still
/// sends the name in `Host`.
pub(crate) fn check_host(known: &HostNames, parts: &Parts) -> Result<(), Problem> {
    known.check(&parts.uri, &parts.headers).map_err(|unknown| {
        // The flag takes the name without a port.
        let host = unknown.as_str();
        let name = host.rsplit_once(':').filter(|_| !host.ends_with(']')).map_or(host, |(name, _)| name);
        Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "host",
            format!(
                "This hub does not serve the host {}. If the name is correct, start the hub with `--allow-host NAME`, or with a `--public-url` \
             that has this host; addresses such as `127.0.0.1`, and `localhost`, are always served.",
                excerpt(name)
            ),
        )
    })
}

/// Refuses requests that a proxy forwards to a hub without keys. Such a hub relies on loopback:
/// only users of this machine reach it, which a proxy breaks. A proxy that adds no header, such as
/// nginx with a bare `proxy_pass`, cannot be detected.
pub(crate) fn check_no_proxy(headers: &HeaderMap) -> Result<(), Problem> {
    let is_of_a_proxy = |name: &&HeaderName| {
        let name = name.as_str();
        matches!(name, "forwarded" | "via" | "x-real-ip") || name.starts_with("x-forwarded-")
    };
    let Some(name) = headers.keys().find(is_of_a_proxy) else { return Ok(()) };
    Err(Problem::forbidden(
        "proxy",
        format!(
            "This request passed through a proxy (it has the header {}), and the hub has no keys: every client of the proxy could \
                 publish and receive everything. Create a key (`tidings key new`), or start the hub with `--no-auth` if that is intended.",
            excerpt(name.as_str())
        ),
    ))
}

fn is_loopback_origin(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.host().is_some_and(|host| match host {
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
            Host::Domain(name) => is_loopback_name(name),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_only_what_the_flag_accepts() {
        assert_eq!(
            advice("https://app.example:8443").as_deref(),
            Some("--allow-origin https://app.example:8443")
        );
        for origin in ["null", "file://", "nonsense"] {
            assert_eq!(advice(origin), None, "{origin}");
        }
    }

    #[test]
    fn refusals_of_null_are_logged_once_a_minute() {
        let refused = RefusedOrigins::default();
        let start = Instant::now();
        let at = |secs| refused.is_due(start + Duration::from_secs(secs));
        assert_eq!([at(0), at(1), at(59), at(60), at(61)], [true, false, false, true, false]);
    }
}
