//! Settings of the HTTP APIs. Every limit is documented here with its unit, its default and the
//! response when it is exceeded.

use std::{fmt, num::NonZeroU32, str::FromStr, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use tidings::{
    Matcher, PatternLimits,
    web::{HostName, HostNames},
};
use tidings_presence::{PresenceIndex, SubscriptionIndex};
use url::Url;

use crate::{
    Applications, Component, ConnectionMetrics, HttpChallenges, Leaving, Reload, RevocationFile,
    SharedRevocations, Upstream, slots::SlotLimits,
};

/// Settings of the [`router`](crate::router()). The limits on events and matchers themselves are
/// those of the hub's [`Validator`](tidings::Validator).
#[derive(Clone, Debug)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct Settings {
    /// What `/stream` streams when the request names no topic. Default: nothing; such a request is
    /// answered with 400.
    pub default_topics: Vec<Matcher>,
    /// Whether subscribers without a credential receive public events. Default: yes; otherwise they
    /// are answered with 401. It has no effect on a hub without keys.
    pub anonymous_subscribers: bool,
    /// Serves the older revision (0.x) of the Mercure protocol next to the current one: the parameter
    /// `topic`, the parameter `authorization` and the cookie `mercureAuthorization`. Tokens of that
    /// revision need an issuer of it. Default: no.
    pub older_mercure_revision: bool,
    /// Which clients a hub without keys serves. Default: [`Keyless::Loopback`].
    pub keyless: Keyless,
    /// Web pages of these origins may read responses, with credentials. A hub without keys also
    /// lets them publish. Default: none.
    pub allow_origins: AllowedOrigins,
    /// The hosts that requests may be addressed to, with keys or without; `/healthz` and `/readyz`
    /// are answered in any case. Default: the host of the hub's public URL, addresses and loopback
    /// names.
    pub allow_hosts: AllowedHosts,
    /// Streams that are open at the same time. One more is answered with 503 and `Retry-After`; a
    /// native EventSource, which would give up for good, with an empty stream that makes it
    /// reconnect later. Default: 100,000.
    pub streams_max: usize,
    /// Streams of one address (of IPv6, one /64 network), loopback excepted. One more is answered
    /// with 429 and `Retry-After`; a native EventSource with an empty stream. Default: 1,000.
    pub streams_per_address_max: usize,
    /// Streams of one subject: the `sub` of tokens of one issuer, or the label of tickets and of
    /// applications' answers; keys have none. One more is answered with 429 and `Retry-After`; a
    /// native EventSource with a notice and an end. Default: no limit.
    pub streams_per_subject_max: Option<NonZeroU32>,
    /// Distinct URL Patterns of one address, loopback excepted. A stream with one more is answered
    /// with 429 and `Retry-After`; a native EventSource with an empty stream. Default: 1,000. Those
    /// of all addresses are bounded by
    /// [`HubSettings::patterns_max`](tidings::HubSettings::patterns_max), with 503.
    pub patterns_per_address_max: usize,
    /// Work of comparing one topic with the patterns of one address, loopback excepted, as in
    /// [`HubSettings::pattern_weight_max`](tidings::HubSettings::pattern_weight_max), and answered
    /// like that with 429. Default: 600.
    pub pattern_weight_per_address_max: u32,
    /// Bytes of all patterns of one request. More are answered with 400. Default: 16 KiB.
    pub pattern_bytes_max: usize,
    /// Seconds that a rejected client is asked to wait, spread by ± 50 % so that clients do not
    /// return together. Default: 30.
    pub retry_after_secs: u64,
    /// Bytes of a request body. A longer one is answered with 413. Default: 1 MiB.
    pub body_bytes_max: usize,
    /// Bytes of memory that request bodies may take while they arrive, all together. Beyond, a body
    /// is answered with 503 and `Retry-After`, unless it arrived complete with its headers. Those
    /// of one address, loopback excepted, may take a quarter of it, and always as much as one body;
    /// beyond, a body is answered with 429. Default: 64 MiB.
    pub bodies_bytes_max: usize,
    /// Bytes of memory that responses may take until their clients have read them, all together:
    /// summaries of topics, and what applications that decide about streams have answered. Beyond,
    /// a request is answered with 503 and `Retry-After`. Those of one address, loopback excepted,
    /// may take a quarter of it, and always as much as one response; beyond, a request is answered
    /// with 429. Default: 64 MiB.
    pub responses_bytes_max: usize,
    /// Seconds that a request body may take to arrive. A slower one is answered with 408. Default:
    /// 30.
    pub body_secs: u64,
    /// Events of one `POST /topics`. More are answered with 413. Default: 1,000.
    pub batch_events_max: usize,
    /// Applications that decide about the streams of some paths. One of `/stream` replaces that of
    /// the hub. Default: none.
    pub authorize: Applications,
    /// The application that answers what is not the hub's on listeners for clients
    /// ([`ListenerRole`](crate::ListenerRole)): the hub then answers there its APIs for topics, the
    /// Mercure API, and `/stream` where a request says what it wants. Default: none.
    pub upstream: Option<Upstream>,
    /// Where revocations are kept, if they are to survive a restart of a hub whose cluster does
    /// not. Default: nowhere.
    pub revocation_file: Option<Arc<RevocationFile>>,
    /// What other hubs of the cluster have revoked. Default: `None`, and then a clustered hub reads
    /// it while it already serves, and answers 503 to tickets and tokens meanwhile.
    pub shared_revocations: Option<SharedRevocations>,
    /// Most events in the JSON summary of a topic, the newest ones. Default: 50.
    pub summary_events_max: usize,
    /// Who is subscribed to which topic, at all hubs of the cluster; then
    /// `GET /topics/{topic}/presence` shows it. Default: nothing is known, and such a path is one of
    /// a topic like others.
    pub presence: Option<Arc<PresenceIndex>>,
    /// Whether the hub publishes changes of presence as events on topics that end with `/presence`.
    /// Publications on these topics are then answered with 403. Default: no.
    pub presence_events: bool,
    /// The subscriptions at all hubs of the cluster; then the Mercure API shows them below
    /// `/subscriptions` (the Mercure protocol, "Active subscriptions"). Default: nothing is known, and
    /// these paths are answered 404.
    pub mercure_subscriptions: Option<Arc<SubscriptionIndex>>,
    /// Writes `text/event-stream; charset=utf-8` instead of the bare media type. The stream is
    /// UTF-8 either way: some old clients (`sseclient` 0.0.27) need the parameter, others compare
    /// the bare type. Default: no.
    pub charset_utf8: bool,
    /// Metrics of the connections, for `/metrics`. Default: nothing.
    pub connection_metrics: Option<Arc<ConnectionMetrics>>,
    /// Components of the hub, for `/metrics` and `/readyz`. Default: none.
    pub components: Vec<Arc<dyn Component>>,
    /// Challenges of certificate authorities (HTTP-01), which [`apis`](crate::apis) answers while they
    /// are pending. Default: none.
    pub http_challenges: HttpChallenges,
    /// What `POST /reload` calls. Default: nothing; it is answered 404.
    pub reload: Option<Arc<dyn Reload>>,
    /// Logs each request that the service of [`apis`](crate::apis) answers, with the target
    /// `tidings::access`. Responses then name the request (`X-Request-Id`). Default: no.
    pub access_log: bool,
    /// Makes the hub not ready once the process was asked to stop. Default: nothing does.
    pub leaving: Leaving,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            default_topics: Vec::new(),
            anonymous_subscribers: true,
            older_mercure_revision: false,
            keyless: Keyless::Loopback,
            allow_origins: AllowedOrigins::default(),
            allow_hosts: AllowedHosts::Listed(HostNames::default()),
            streams_max: 100_000,
            streams_per_address_max: 1_000,
            streams_per_subject_max: None,
            patterns_per_address_max: 1_000,
            pattern_weight_per_address_max: 600,
            pattern_bytes_max: 16 * 1024,
            retry_after_secs: 30,
            body_bytes_max: 1024 * 1024,
            bodies_bytes_max: 64 * 1024 * 1024,
            responses_bytes_max: 64 * 1024 * 1024,
            body_secs: 30,
            batch_events_max: 1_000,
            authorize: Applications::default(),
            upstream: None,
            revocation_file: None,
            shared_revocations: None,
            summary_events_max: 50,
            presence: None,
            presence_events: false,
            mercure_subscriptions: None,
            charset_utf8: false,
            connection_metrics: None,
            components: Vec::new(),
            http_challenges: HttpChallenges::default(),
            reload: None,
            access_log: false,
            leaving: Leaving::default(),
        }
    }
}

impl Settings {
    pub(crate) fn slot_limits(&self) -> SlotLimits {
        SlotLimits {
            total_max: self.streams_max,
            per_address_max: self.streams_per_address_max,
            per_subject_max: self.streams_per_subject_max,
            patterns: PatternLimits {
                count_max: self.patterns_per_address_max,
                weight_max: self.pattern_weight_per_address_max,
            },
            authorizing_max: self.authorize.requests_per_address_max(),
            upstream_max: self.upstream.as_ref().map_or(0, |upstream| upstream.settings().per_address_max()),
        }
    }
}

/// Which clients a hub without keys and without an issuer of tokens serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Keyless {
    /// Only this machine, which the address of the listener has to ensure: every client may do
    /// everything, private events included. Requests with a header that only proxies add are
    /// answered with 403, because every client of the proxy would count as local.
    #[default]
    Loopback,
    /// Every client that can reach the hub (`--no-auth`): each may publish, and receive public
    /// events; private events are delivered to no client.
    Anywhere,
}

/// The origins of web pages that are allowed. Clones share them, so that they can be replaced while
/// a server uses them.
#[derive(Clone, Default, Debug)]
pub struct AllowedOrigins(Arc<ArcSwap<Vec<AllowedOrigin>>>);

impl AllowedOrigins {
    /// These are allowed from now on, instead of all before.
    pub fn replace(&self, origins: Vec<AllowedOrigin>) {
        self.0.store(Arc::new(origins));
    }

    pub(crate) fn current(&self) -> Guard<Arc<Vec<AllowedOrigin>>> {
        self.0.load()
    }
}

impl From<Vec<AllowedOrigin>> for AllowedOrigins {
    fn from(origins: Vec<AllowedOrigin>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(origins)))
    }
}

/// An origin of web pages that is allowed.
///
/// `https://app.example.com`, or `https://*.example.com` for every name below that domain, at any
/// depth, and not the domain itself. Scheme and port must be equal. `*` is every origin, including
/// that of pages opened from a file (`null`), without credentials.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AllowedOrigin {
    /// Every origin.
    Any,
    /// This one.
    Exact(String),
    /// The origins of all names below a domain.
    Below(OriginsBelow),
}

/// The origins of all names below a domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OriginsBelow {
    /// The origin of the domain itself, which is not included.
    base: Url,
    names: HostName,
}

impl OriginsBelow {
    fn contains(&self, origin: &Url) -> bool {
        origin.scheme() == self.base.scheme()
            && origin.port_or_known_default() == self.base.port_or_known_default()
            && origin.host_str().is_some_and(|host| self.names.matches(host))
    }
}

impl AllowedOrigin {
    /// Whether this origin is allowed by name, and may send credentials. `url` is the same, parsed.
    pub(crate) fn names(&self, origin: &str, url: &Url) -> bool {
        match self {
            Self::Any => false,
            Self::Exact(exact) => exact == origin,
            Self::Below(below) => below.contains(url),
        }
    }
}

/// The text is not an origin that a browser could send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseOriginError {
    /// It has no scheme.
    #[error("is not an origin: write it with its scheme, as in https://app.example.com, or * for all")]
    NoScheme,
    /// Pages have no origin with this scheme.
    #[error("is not an origin: pages are served by http or https, as in https://app.example.com")]
    Scheme,
    /// There is something after the host and the port.
    #[error(
        "is not an origin: leave out what follows the host and the port, a final slash too, as in https://app.example.com"
    )]
    NotBare,
    /// There is a user before the host.
    #[error("is not an origin: leave out what precedes the host, as in https://app.example.com")]
    UserInfo,
    /// There is a `*` where none can be.
    #[error(
        "is not an origin: a * stands alone for all, or for everything before a domain, as in https://*.example.com (the domain itself is \
         named separately)"
    )]
    Wildcard,
    /// `null`, the origin of pages from files and of sandboxed pages.
    #[error(
        "is not an origin: browsers send null for pages opened from a file and for sandboxed pages of any site; * allows them too, without \
         credentials"
    )]
    Null,
    /// The host or port is malformed.
    #[error(
        "is not an origin: write it as https://app.example.com, with the port if it is not the usual one, or * for all"
    )]
    Malformed,
}

/// Schemes of URLs that are never the origin of a page.
const SCHEMES_WITHOUT_PAGES: [&str; 9] =
    ["about", "blob", "data", "file", "ftp", "javascript", "mailto", "ws", "wss"];

impl FromStr for AllowedOrigin {
    type Err = ParseOriginError;

    fn from_str(text: &str) -> Result<Self, ParseOriginError> {
        match text {
            "*" => return Ok(Self::Any),
            "null" => return Err(ParseOriginError::Null),
            _ => {}
        }
        let (scheme, rest) = text.split_once("://").ok_or(ParseOriginError::NoScheme)?;
        if SCHEMES_WITHOUT_PAGES.iter().any(|other| scheme.eq_ignore_ascii_case(other)) {
            return Err(ParseOriginError::Scheme);
        }
        let (host, is_wildcard) = rest.strip_prefix("*.").map_or((rest, false), |host| (host, true));
        if host.contains('*') {
            return Err(ParseOriginError::Wildcard);
        }
        if host.contains(['/', '\\', '?', '#']) {
            return Err(ParseOriginError::NotBare);
        }
        if host.contains('@') {
            return Err(ParseOriginError::UserInfo);
        }
        let url = Url::parse(&format!("{scheme}://{host}")).map_err(|_| ParseOriginError::Malformed)?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(ParseOriginError::Malformed)?;
        if is_wildcard {
            // An address has no names below it, and for other schemes their meaning is unknown.
            let is_web = matches!(url.scheme(), "http" | "https");
            let names = format!("*.{host}").parse().ok().filter(|_| is_web);
            let names = names.ok_or(ParseOriginError::Wildcard)?;
            return Ok(Self::Below(OriginsBelow { base: url, names }));
        }
        // The origin of other schemes, such as that of an application's own web view, is opaque to
        // WHATWG URL, but is sent like this.
        Ok(Self::Exact(match (url.origin().is_tuple(), url.port()) {
            (true, _) => url.origin().ascii_serialization(),
            (false, Some(port)) => format!("{}://{host}:{port}", url.scheme()),
            (false, None) => format!("{}://{host}", url.scheme()),
        }))
    }
}

impl fmt::Display for AllowedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(origin) => f.write_str(origin),
            Self::Below(OriginsBelow { base, names }) => {
                write!(f, "{}://{names}", base.scheme())?;
                base.port().map_or(Ok(()), |port| write!(f, ":{port}"))
            }
        }
    }
}

/// The hosts that requests may be addressed to. Others are answered with 421.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AllowedHosts {
    /// Every host. A web page can then make a name of its own resolve to the hub (DNS rebinding),
    /// and read what anonymous clients may.
    Any,
    /// Addresses, loopback names, the host of the hub's public URL, and these.
    Listed(HostNames),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_kept_as_browsers_send_it() {
        for (written, sent) in [
            ("https://app.example.com", "https://app.example.com"),
            ("https://APP.example.com:443", "https://app.example.com"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("https://grüße.example", "https://xn--gre-6ka8l.example"),
            ("https://*.Example.com:443", "https://*.example.com"),
            ("http://*.example.com:8080", "http://*.example.com:8080"),
            ("*", "*"),
        ] {
            assert_eq!(
                written.parse::<AllowedOrigin>().map(|origin| origin.to_string()),
                Ok(sent.to_owned()),
                "{written}"
            );
        }
    }

    #[test]
    fn a_text_that_is_no_origin_is_refused_with_the_reason() {
        use ParseOriginError::{Malformed, NoScheme, NotBare, Null, Scheme, UserInfo, Wildcard};
        for (text, reason) in [
            ("", NoScheme),
            ("null", Null),
            ("app.example.com", NoScheme),
            ("*.example.com", NoScheme),
            ("https://a.example/", NotBare),
            ("https://a.example/path", NotBare),
            ("https://a.example?q", NotBare),
            ("https://*.a.example/", NotBare),
            ("https://user@a.example", UserInfo),
            ("https://", Malformed),
            ("https://a.example:port", Malformed),
            ("wss://a.example", Scheme),
            ("file:///", Scheme),
            ("https://*", Wildcard),
            ("https://a.*.example", Wildcard),
            ("https://a*.example", Wildcard),
            ("https://*.*.example", Wildcard),
            ("https://a.example:*", Wildcard),
            ("https://*.192.0.2.1", Wildcard),
            ("https://*.[::1]", Wildcard),
            ("capacitor://*.localhost", Wildcard),
            ("*://a.example", Malformed),
        ] {
            assert_eq!(text.parse::<AllowedOrigin>(), Err(reason), "{text}");
        }
    }

    #[test]
    fn a_wildcard_covers_names_at_any_depth_and_not_the_domain_itself() {
        let names = |allowed: &str, origin: &str| {
            let url = Url::parse(origin).unwrap();
            allowed.parse::<AllowedOrigin>().unwrap().names(origin, &url)
        };
        for (origin, is_covered) in [
            ("https://a.example.com", true),
            ("https://a.b.example.com", true),
            ("https://example.com", false),
            ("https://badexample.com", false),
            ("https://.example.com", false),
            ("https://a.example.com.evil", false),
            ("http://a.example.com", false),
            ("https://a.example.com:8443", false),
        ] {
            assert_eq!(names("https://*.example.com", origin), is_covered, "{origin}");
        }
        assert!(names("http://*.example.com:8080", "http://a.example.com:8080"));
        assert!(!names("http://*.example.com:8080", "http://a.example.com"));
    }
}
