//! What a subscriber asks for, and what a grant covers.

use std::{fmt, slice};

use crate::{Topic, TopicUrls, UrlPattern};

/// Says which topics are meant. Made by a [`Validator`](crate::Validator). Cloning is cheap; equality is that of kind and text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Matcher {
    /// `*`: every topic. The Mercure protocol, "Topic matchers".
    Any,
    /// One topic, compared byte by byte, never normalised.
    Exact(Topic),
    /// A WHATWG URL Pattern.
    Pattern(UrlPattern),
}

impl Matcher {
    /// Whether this topic is meant.
    pub fn matches(&self, topic: &Topic) -> bool {
        self.matches_any(&TopicUrls::new(slice::from_ref(topic)))
    }

    /// Whether one of these topics is meant.
    pub fn matches_any(&self, topics: &TopicUrls<'_>) -> bool {
        match self {
            Self::Any => !topics.topics().is_empty(),
            Self::Exact(exact) => topics.topics().contains(exact),
            Self::Pattern(pattern) => topics.match_pattern(pattern),
        }
    }

    /// The work that comparing it with one topic can take, see [`UrlPattern::weight`].
    pub fn weight(&self) -> u32 {
        match self {
            Self::Any | Self::Exact(_) => 1,
            Self::Pattern(pattern) => pattern.weight(),
        }
    }

    /// What was asked for, as it was written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Any => "*",
            Self::Exact(topic) => topic.as_str(),
            Self::Pattern(pattern) => pattern.as_str(),
        }
    }

    /// The matcher type as the Mercure protocol names it: `exact` or `urlpattern`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Any | Self::Exact(_) => "exact",
            Self::Pattern(_) => "urlpattern",
        }
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matcher({} {:?})", self.type_name(), self.as_str())
    }
}
