//! The rules of topics, matchers and permissions, written a second time and as simply as possible.

use tidings_auth::MatcherText;

/// Topics of all tenants. Those that resolve to `…/.well-known/staff-…` are private by the
/// configuration, whatever their spelling.
pub(crate) const TOPICS: [&str; 11] = [
    "chat",
    "news/1",
    "/rooms/1",
    "/rooms/2",
    "/users/1/inbox",
    "/users/2/inbox",
    "staff-1",
    "staff-2",
    "https://hub.example/.well-known/staff-1",
    "https://other.example/books/7",
    "a plain text, and no URL:\u{e9}",
];

pub(crate) const PATTERNS: [&str; 4] = [
    "/rooms/:id",
    "/users/:user/:box",
    "https://other.example/books/:id",
    "https://hub.example/.well-known/:name",
];

/// A matcher.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Match {
    Any,
    Exact(String),
    Pattern(&'static str),
}

impl Match {
    pub(crate) fn matches(&self, topic: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name == topic,
            Self::Pattern(pattern) => {
                let (pattern, topic) = (url(pattern), url(topic));
                let (pattern, topic) = (pattern.split('/'), topic.split('/'));
                pattern.clone().count() == topic.clone().count()
                    && pattern.zip(topic).all(|(part, piece)| {
                        if part.starts_with(':') { !piece.is_empty() } else { part == piece }
                    })
            }
        }
    }

    pub(crate) fn matches_any(&self, topics: &[String]) -> bool {
        topics.iter().any(|topic| self.matches(topic))
    }

    /// As it is written in a configuration or a token.
    pub(crate) fn text(&self) -> MatcherText {
        match self {
            Self::Any => "*".into(),
            Self::Exact(name) => name.as_str().into(),
            Self::Pattern(pattern) => MatcherText::Pattern((*pattern).to_owned()),
        }
    }

    /// The text of an exact topic or of `*`, or that of a pattern.
    pub(crate) fn exact_or_pattern(&self) -> Result<&str, &str> {
        match self {
            Self::Any => Ok("*"),
            Self::Exact(name) => Ok(name),
            Self::Pattern(pattern) => Err(pattern),
        }
    }
}

/// What a topic resolves to, for the topics of these tests.
fn url(topic: &str) -> String {
    if topic.starts_with("https://") {
        topic.to_owned()
    } else if topic.starts_with('/') {
        format!("https://hub.example{topic}")
    } else {
        format!("https://hub.example/.well-known/{topic}")
    }
}

/// Whether every event on the topic is private.
pub(crate) fn is_private(topic: &str) -> bool {
    url(topic).starts_with("https://hub.example/.well-known/staff-")
}

pub(crate) fn covers(grants: &[Match], topic: &str) -> bool {
    grants.iter().any(|grant| grant.matches(topic))
}

/// The permission to publish, and to delete.
pub(crate) fn cover_all(grants: &[Match], topics: &[String]) -> bool {
    topics.iter().all(|topic| covers(grants, topic))
}

/// The permission to receive a private event.
pub(crate) fn cover_any(grants: &[Match], topics: &[String]) -> bool {
    topics.iter().any(|topic| covers(grants, topic))
}
