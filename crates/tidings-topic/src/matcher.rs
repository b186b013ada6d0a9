//! Matchers: what a subscriber requests and what a grant covers.

use std::{fmt, slice};

use crate::{Pattern, PatternSyntax, Topic, TopicUrls};

/// Selects topics. Created by a [`Validator`](crate::Validator). Cloning is cheap. Two matchers are
/// equal if their kind and text are.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Matcher {
    /// `*`: every topic. The Mercure protocol, "Topic matchers".
    Any,
    /// One topic, compared byte by byte, never normalised.
    Exact(Topic),
    /// A URL Pattern or a URI Template.
    Pattern(Pattern),
}

impl Matcher {
    /// Whether it matches this topic.
    pub fn matches(&self, topic: &Topic) -> bool {
        self.matches_any(&TopicUrls::new(slice::from_ref(topic)))
    }

    /// Whether it matches at least one of these topics.
    pub fn matches_any(&self, topics: &TopicUrls<'_>) -> bool {
        match self {
            Self::Any => !topics.topics().is_empty(),
            Self::Exact(exact) => topics.topics().contains(exact),
            Self::Pattern(pattern) => topics.match_pattern(pattern),
        }
    }

    /// The maximum cost of comparing it with one topic; see [`Pattern::weight`].
    pub fn weight(&self) -> u32 {
        match self {
            Self::Any | Self::Exact(_) => 1,
            Self::Pattern(pattern) => pattern.weight(),
        }
    }

    /// The text as the client sent it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Any => "*",
            Self::Exact(topic) => topic.as_str(),
            Self::Pattern(pattern) => pattern.as_str(),
        }
    }

    /// The matcher type as the Mercure protocol names it: `exact` or `urlpattern`; and
    /// `uritemplate`, for which it has no name.
    pub fn type_name(&self) -> &'static str {
        matcher_type(self.syntax())
    }

    /// How the text is read if it is that of a pattern.
    pub fn syntax(&self) -> Option<PatternSyntax> {
        match self {
            Self::Any | Self::Exact(_) => None,
            Self::Pattern(pattern) => Some(pattern.syntax()),
        }
    }
}

/// How the text of a matcher may be read; `None` is that of a topic. Hubs exchange places in this
/// list, so a new one comes last.
pub const MATCHER_SYNTAXES: [Option<PatternSyntax>; 3] =
    [None, Some(PatternSyntax::UrlPattern), Some(PatternSyntax::UriTemplate)];

/// How the text of a matcher of this type is read; the reverse of [`matcher_type`].
pub fn matcher_syntax(type_name: &str) -> Option<Option<PatternSyntax>> {
    MATCHER_SYNTAXES.into_iter().find(|syntax| matcher_type(*syntax) == type_name)
}

/// The type of a matcher whose text is read so; see [`Matcher::type_name`].
pub fn matcher_type(syntax: Option<PatternSyntax>) -> &'static str {
    match syntax {
        None => "exact",
        Some(PatternSyntax::UrlPattern) => "urlpattern",
        Some(PatternSyntax::UriTemplate) => "uritemplate",
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matcher({} {:?})", self.type_name(), self.as_str())
    }
}
