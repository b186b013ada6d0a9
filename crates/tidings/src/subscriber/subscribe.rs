//! What a subscriber requests.

use std::time::Duration;

use tidings_log::Unavailable;
use tidings_topic::{Filter, Grants, Invalid, Matcher, ParseSinceError, PatternsFull, Since};

use crate::feed::encode::Format;

/// A request to subscribe. Topics and patterns become matchers through
/// [`Hub::validator`](crate::Hub::validator), which refuses invalid ones.
#[derive(Clone, Debug, Default)]
pub struct Subscribe {
    pub(crate) filter: Filter,
    pub(crate) since: Since,
    pub(crate) format: Format,
    pub(crate) hello: bool,
    pub(crate) label: Option<String>,
    pub(crate) expires_in: Option<Duration>,
    pub(crate) lifetime_max: Option<Duration>,
    pub(crate) requested_id: Option<String>,
    /// A request to resume that could not be parsed: [`Hub::subscribe`](crate::Hub::subscribe)
    /// refuses it.
    pub(crate) misread: Option<ParseSinceError>,
}

impl Subscribe {
    /// A subscription to all matching public events from now on.
    pub fn new(matchers: impl IntoIterator<Item = Matcher>) -> Self {
        let mut distinct = Vec::new();
        for matcher in matchers {
            if !distinct.contains(&matcher) {
                distinct.push(matcher);
            }
        }
        Self { filter: Filter { matchers: distinct, grants: Grants::NONE }, ..Self::default() }
    }

    /// Where to start; by default with events that are published from now on.
    #[must_use]
    pub fn since(mut self, since: Since) -> Self {
        self.requested_id = match &since {
            Since::Id(id) => Some(id.clone()),
            _ => None,
        };
        self.since = since;
        self
    }

    /// Which private events may be received.
    #[must_use]
    pub fn grants(mut self, grants: Grants) -> Self {
        self.filter.grants = grants;
        self
    }

    /// How events are written.
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Begins with a notice of kind `hello` that names the connection.
    #[must_use]
    pub fn hello(mut self, hello: bool) -> Self {
        self.hello = hello;
        self
    }

    /// A name for this subscriber, which the [presence hook](crate::HubBuilder::on_presence) is
    /// given.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Ends the stream after this time, because the credential expires then.
    #[must_use]
    pub fn expires_in(mut self, expires_in: Duration) -> Self {
        self.expires_in = Some(expires_in);
        self
    }

    /// Ends the stream with a `reconnect` notice when it is older than this, jittered by up to a
    /// quarter downwards, unless
    /// [`HubSettings::lifetime_max`](crate::HubSettings::lifetime_max) ends it earlier.
    #[must_use]
    pub fn lifetime_max(mut self, lifetime: Duration) -> Self {
        self.lifetime_max = Some(lifetime);
        self
    }
}

/// Why a subscription was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The request has no matcher.
    #[error("a subscription needs at least one topic or pattern")]
    NoMatchers,
    /// Too many matchers.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The request's start cannot be parsed.
    #[error(transparent)]
    Since(#[from] ParseSinceError),
    /// The hub has as many patterns as its settings allow. Try again later.
    #[error("the hub has reached its limit of URL Patterns")]
    TooManyPatterns(PatternsFull),
    /// The log cannot be reached.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<PatternsFull> for SubscribeError {
    fn from(full: PatternsFull) -> Self {
        Self::TooManyPatterns(full)
    }
}
