//! What an operator decides about the HTTP faces. Every limit stands here with its unit, its default and the answer that whoever
//! exceeds it gets.

use std::{fmt, str::FromStr, sync::Arc};

use tidings::Matcher;
use url::Url;

use crate::{Companion, ConnectionMetrics};

/// Settings of the [`router`](crate::router()). The limits on events and matchers themselves are those of the hub's
/// [`Validator`](tidings::Validator).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// What `/stream` streams when the request names nothing. Default: nothing; such a request is answered with 400.
    pub default_topics: Vec<Matcher>,
    /// Whether subscribers without a credential receive what is public. Default: yes; otherwise they are answered with 401. It means
    /// nothing on a hub without keys.
    pub anonymous_subscribers: bool,
    /// Whom a hub without keys serves. Default: [`Keyless::Loopback`].
    pub keyless: Keyless,
    /// Web pages of these origins may read answers, with credentials. A hub without keys also lets them publish. Default: none.
    pub allow_origins: Vec<AllowedOrigin>,
    /// Streams that are open at the same time. One more is answered with 503 and `Retry-After`; a native EventSource, which would give up for
    /// ever, with an empty stream that makes it come back later. Default: 100,000.
    pub streams_max: usize,
    /// Streams of one address (of IPv6, one /64 network), loopback excepted. One more is answered with 429 and `Retry-After`; a native
    /// EventSource with an empty stream. Default: 1,000.
    pub streams_per_address_max: usize,
    /// Seconds that whoever is turned away is asked to wait, spread by ± 50 % so that they do not come back together. Default: 30.
    pub retry_after_secs: u64,
    /// Bytes of a request body. A longer one is answered with 413. Default: 1 MiB.
    pub body_bytes_max: usize,
    /// Seconds that a request body may take to arrive. A slower one is answered with 408. Default: 30.
    pub body_secs: u64,
    /// Events of one `POST /topics`. More are answered with 413. Default: 1,000.
    pub batch_events_max: usize,
    /// Newest events that the JSON summary of a topic holds at most. Default: 50.
    pub summary_events_max: usize,
    /// Writes `text/event-stream; charset=utf-8` instead of the bare media type. The wire is UTF-8 either way: some old clients
    /// (`sseclient` 0.0.27) need it said, others compare the bare type. Default: no.
    pub charset_utf8: bool,
    /// What the connections below have to tell, for `/metrics`. Default: nothing.
    pub connection_metrics: Option<Arc<ConnectionMetrics>>,
    /// What runs beside the hub, for `/metrics` and `/readyz`. Default: nothing.
    pub companions: Vec<Arc<dyn Companion>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            default_topics: Vec::new(),
            anonymous_subscribers: true,
            keyless: Keyless::Loopback,
            allow_origins: Vec::new(),
            streams_max: 100_000,
            streams_per_address_max: 1_000,
            retry_after_secs: 30,
            body_bytes_max: 1024 * 1024,
            body_secs: 30,
            batch_events_max: 1_000,
            summary_events_max: 50,
            charset_utf8: false,
            connection_metrics: None,
            companions: Vec::new(),
        }
    }
}

/// Whom a hub serves that knows no keys and no issuer of tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Keyless {
    /// This machine alone, which the listener has to see to: everybody may do everything, private events included. Requests whose `Host`
    /// is neither a loopback name nor that of the public URL are answered with 421, because a web page can make a name of its own
    /// point here (DNS rebinding).
    #[default]
    Loopback,
    /// Whoever can reach it (`--no-auth`): everybody may publish and receive what is public; nobody receives what is private.
    Anywhere,
}

/// An origin of web pages that is allowed: `https://app.example.com`, or `*` for all of them, then without credentials.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AllowedOrigin {
    /// Every origin except `null`.
    Any,
    /// This one.
    Exact(String),
}

/// The text does not name an origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "is not an origin: write it as `https://app.example.com`, with the port if it is not the usual one and without a path, or `*` for all"
)]
pub struct ParseOriginError;

impl FromStr for AllowedOrigin {
    type Err = ParseOriginError;

    fn from_str(text: &str) -> Result<Self, ParseOriginError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let url = Url::parse(text).map_err(|_| ParseOriginError)?;
        let is_bare = matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let host = url.host_str().filter(|host| is_bare && !host.is_empty()).ok_or(ParseOriginError)?;
        // The origin of other schemes, such as that of an application's own web view, is opaque to WHATWG URL, but is sent like this.
        Ok(Self::Exact(match (url.origin().is_tuple(), url.port()) {
            (true, _) => url.origin().ascii_serialization(),
            (false, Some(port)) => format!("{}://{host}:{port}", url.scheme()),
            (false, None) => format!("{}://{host}", url.scheme()),
        }))
    }
}

impl fmt::Display for AllowedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "*",
            Self::Exact(origin) => origin,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_kept_as_browsers_send_it() {
        for (written, sent) in [
            ("https://app.example.com", "https://app.example.com"),
            ("https://APP.example.com:443/", "https://app.example.com"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("capacitor://localhost", "capacitor://localhost"),
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
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "null",
            "app.example.com",
            "https://a.example/path",
            "https://a.example?q",
            "https://user@a.example",
            "https://",
        ] {
            assert_eq!(text.parse::<AllowedOrigin>(), Err(ParseOriginError), "{text}");
        }
    }
}
