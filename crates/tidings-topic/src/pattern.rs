//! Compiled patterns: URL Patterns and URI Templates.
//!
//! Both are compiled to [checks](check) whose expressions run in time linear in the length of the
//! topic. A [URL Pattern](url) is compared with the URL that a topic resolves to, a [URI
//! Template](template) with the text of the topic.

mod check;
mod expression;
mod template;
mod url;

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use ::url::Url;

pub(crate) use self::template::is_template;
use self::{
    check::Check,
    template::template_check,
    url::{Part, UrlChecks},
};

/// How the text of a pattern is read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PatternSyntax {
    /// A URL Pattern (WHATWG), compared with the URL that a topic resolves to.
    UrlPattern,
    /// A URI Template (RFC 6570), which matches the topics that it could be expanded to, and the
    /// topic of the same text. The older revision of the Mercure protocol has these.
    UriTemplate,
}

/// A compiled pattern. Its expressions run in time linear in the length of the topic. Cloning is
/// cheap. Two patterns are equal if their syntax, their text and, for URL Patterns, their hub are.
#[derive(Clone)]
pub struct Pattern(Arc<Compiled>);

struct Compiled {
    text: Box<str>,
    compared: Compared,
    beginning: Beginning,
    weight: u32,
}

/// What of a topic is compared.
enum Compared {
    /// The URL that it resolves to, based on that of the hub.
    Url { hub_url: Arc<Url>, checks: UrlChecks },
    /// Its text.
    Text(Check),
}

/// The literal text that begins everything that a pattern matches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Beginning {
    /// The pattern fixes scheme, host and port: these and the beginning of the path, as in
    /// `https://hub.example/users/`.
    Url(Box<str>),
    /// The pattern leaves scheme, host or port open: the beginning of the path, as in `/users/`.
    Path(Box<str>),
    /// The pattern is compared with the text of a topic: its beginning.
    Text(Box<str>),
}

/// Longest beginning that is stored, in bytes. It bounds the depth of the pattern index.
const BEGINNING_BYTES_MAX: usize = 256;

impl Pattern {
    /// The [`weight`](Self::weight) of a pattern without expressions, most of which is the time to
    /// load it: there may be thousands.
    const WEIGHT_PLAIN: u32 = 10;

    /// `None` if the text is no pattern of this syntax, or an expression in it is too large when
    /// compiled.
    pub(crate) fn compile(syntax: PatternSyntax, text: &str, hub_url: &Arc<Url>) -> Option<Self> {
        let compared = match syntax {
            PatternSyntax::UrlPattern => {
                Compared::Url { checks: UrlChecks::compile(text, hub_url)?, hub_url: Arc::clone(hub_url) }
            }
            PatternSyntax::UriTemplate => Compared::Text(template_check(text)?),
        };
        let (beginning, weight) = match &compared {
            Compared::Url { checks, .. } => (Beginning::of(checks), checks.weight()),
            Compared::Text(check) => (Beginning::Text(shortened(check.beginning())), check.weight()),
        };
        let weight = weight + Self::WEIGHT_PLAIN;
        Some(Self(Arc::new(Compiled { text: text.into(), compared, beginning, weight })))
    }

    /// Whether a topic with this URL matches: never, if the pattern is compared with the text.
    pub(crate) fn matches_url(&self, url: &Url) -> bool {
        matches!(&self.0.compared, Compared::Url { checks, .. } if checks.admit(url))
    }

    /// Whether a topic of this text matches: never, if the pattern is compared with the URL.
    pub(crate) fn matches_text(&self, topic: &str) -> bool {
        matches!(&self.0.compared, Compared::Text(check) if topic == self.as_str() || check.admits(topic))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// How its text is read.
    pub fn syntax(&self) -> PatternSyntax {
        match self.0.compared {
            Compared::Url { .. } => PatternSyntax::UrlPattern,
            Compared::Text(_) => PatternSyntax::UriTemplate,
        }
    }

    /// The maximum cost of comparing the pattern with one topic, in units of some 6 ns.
    pub fn weight(&self) -> u32 {
        self.0.weight
    }

    /// The URL that topics are resolved against, if the pattern is compared with URLs.
    pub(crate) fn hub_url(&self) -> Option<&Arc<Url>> {
        match &self.0.compared {
            Compared::Url { hub_url, .. } => Some(hub_url),
            Compared::Text(_) => None,
        }
    }

    pub(crate) fn beginning(&self) -> &Beginning {
        &self.0.beginning
    }

    /// Whether there are other handles to this pattern.
    pub(crate) fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    #[cfg(test)]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The approximate memory of the pattern.
    pub(crate) fn memory_bytes(&self) -> usize {
        let checks = match &self.0.compared {
            Compared::Url { checks, .. } => checks.memory_bytes(),
            Compared::Text(check) => check.memory_bytes(),
        };
        size_of::<Compiled>() + self.0.text.len() + self.0.beginning.text().len() + checks
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        let same_base = || match (self.hub_url(), other.hub_url()) {
            (Some(one), Some(other)) => same_url(one, other),
            (None, None) => true,
            _ => false,
        };
        Arc::ptr_eq(&self.0, &other.0) || (self.0.text == other.0.text && same_base())
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.syntax().hash(state);
        self.0.text.hash(state);
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:?})", self.syntax(), self.as_str())
    }
}

/// Patterns of one hub share one URL, so comparing two is usually a pointer comparison.
pub(crate) fn same_url(one: &Arc<Url>, other: &Arc<Url>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

impl Beginning {
    fn of(checks: &UrlChecks) -> Self {
        let literal = |part| match checks.check(part) {
            Some(Check::Literal(literal)) => Some(&**literal),
            _ => None,
        };
        let path = checks.check(Part::Pathname).map_or("", Check::beginning);
        match (literal(Part::Protocol), literal(Part::Hostname), literal(Part::Port)) {
            (Some(protocol), Some(host), Some(port)) if !host.is_empty() => {
                let colon = if port.is_empty() { "" } else { ":" };
                Self::Url(shortened(&[protocol, "://", host, colon, port, path].concat()))
            }
            _ => Self::Path(shortened(path)),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Url(text) | Self::Path(text) | Self::Text(text) => text,
        }
    }
}

fn shortened(text: &str) -> Box<str> {
    let end = (0..=text.len().min(BEGINNING_BYTES_MAX)).rev().find(|&end| text.is_char_boundary(end));
    text[..end.unwrap_or_default()].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(text: &str) -> Pattern {
        let hub_url = "https://hub.example/.well-known/mercure".parse().expect("a URL");
        Pattern::compile(PatternSyntax::UrlPattern, text, &Arc::new(hub_url)).expect(text)
    }

    #[test]
    fn the_literal_beginning_of_a_pattern_is_extracted() {
        for (text, beginning) in [
            ("/users/:id", "https://hub.example/users/"),
            ("/users/:id(\\d+)/x", "https://hub.example/users"),
            ("/:a(\\d+)x", "https://hub.example"),
            ("user-*", "https://hub.example/.well-known/user-"),
            ("https://a.example:8443/b", "https://a.example:8443/b"),
        ] {
            assert_eq!(*compile(text).beginning(), Beginning::Url(beginning.into()), "{text}");
        }
        for (text, beginning) in [("http{s}?://a.example/b/*", "/b/"), ("*://*/*", "/")] {
            assert_eq!(*compile(text).beginning(), Beginning::Path(beginning.into()), "{text}");
        }
    }

    #[test]
    fn a_pattern_without_expressions_is_small_and_light() {
        for text in ["/users/:id", "/a/*.txt", "https://a.example/b?c=*"] {
            let pattern = compile(text);
            assert_eq!(pattern.weight(), Pattern::WEIGHT_PLAIN, "{text}");
            assert!(pattern.memory_bytes() < 700, "{text}: {}", pattern.memory_bytes());
        }
    }

    #[test]
    fn a_large_expression_weighs_more_than_a_small_one() {
        let [small, large] = ["/:a(\\d+)x", "/:a([\\w.+-]{1,64})x"].map(compile);
        assert!(Pattern::WEIGHT_PLAIN < small.weight() && small.weight() < large.weight());
        assert!(small.memory_bytes() < 3_000, "{}", small.memory_bytes());
    }
}
