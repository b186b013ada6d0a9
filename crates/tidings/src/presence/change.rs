//! What a presence hook is notified of.

use std::sync::Arc;

use tidings_topic::{ConnectionId, Matcher};

/// A subscriber connected or disconnected, or its topics changed while it was connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Whether it connected, is in a presence list, or is here already and has other
    /// [`matchers`](Self::matchers) now; otherwise it disconnected.
    pub here: bool,
    /// Whether it is a subscriber of this hub. A hub reports its own only; the crate
    /// `tidings-presence` reports those of other hubs too.
    pub is_local: bool,
    /// The connection. Its name is unique in the cluster.
    pub connection: ConnectionId,
    /// What it is subscribed to.
    pub matchers: Arc<[PresenceMatcher]>,
    /// The name that was set with [`Subscribe::label`](crate::Subscribe::label).
    pub label: Option<Arc<str>>,
}

/// One of the matchers of a subscriber, as text: a hub does not need to parse the matchers of
/// another hub's subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceMatcher {
    /// Whether the text is a URL Pattern; otherwise it is a topic, or `*` for all of them.
    pub is_pattern: bool,
    /// The topic or pattern.
    pub text: Arc<str>,
}

impl From<&Matcher> for PresenceMatcher {
    fn from(matcher: &Matcher) -> Self {
        Self { is_pattern: matches!(matcher, Matcher::Pattern(_)), text: matcher.as_str().into() }
    }
}
