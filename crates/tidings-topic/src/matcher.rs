//! What a subscriber asks for, and what a grant covers.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use regex::bytes::RegexBuilder;
use url::Url;
use urlpattern::{
    UrlPatternInit, UrlPatternMatchInput, UrlPatternOptions, parser::RegexSyntax, regexp::RegExp,
};

use crate::{Topic, brackets::has_stray_bracket};

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
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == topic,
            Self::Pattern(pattern) => pattern.matches(topic),
        }
    }

    /// Whether one of these topics is meant.
    pub fn matches_any(&self, topics: &[Topic]) -> bool {
        topics.iter().any(|topic| self.matches(topic))
    }

    /// What was asked for, as it was written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Any => "*",
            Self::Exact(topic) => topic.as_str(),
            Self::Pattern(pattern) => &pattern.0.text,
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

/// A compiled URL Pattern, based on the URL of the hub. It compiles to automata that run in time linear in the topic.
#[derive(Clone)]
pub struct UrlPattern(Arc<Compiled>);

struct Compiled {
    text: String,
    pattern: urlpattern::UrlPattern<BoundedRegex>,
    hub_url: Url,
}

impl UrlPattern {
    /// `None` when the text is not a URL Pattern or a component compiles to too much.
    pub(crate) fn compile(text: &str, hub_url: &Url) -> Option<Self> {
        if has_stray_bracket(text) {
            return None;
        }
        let init =
            UrlPatternInit::parse_constructor_string::<BoundedRegex>(text, Some(hub_url.clone())).ok()?;
        let mut pattern = urlpattern::UrlPattern::parse(init, UrlPatternOptions::default()).ok()?;
        drop_unused(&mut pattern);
        Some(Self(Arc::new(Compiled { text: text.to_owned(), pattern, hub_url: hub_url.clone() })))
    }

    // The Mercure protocol, "Topic matchers": a relative topic is resolved against the URL of the hub; a topic that is not a URL
    // matches no URL Pattern.
    fn matches(&self, topic: &Topic) -> bool {
        self.0
            .hub_url
            .join(topic.as_str())
            .is_ok_and(|url| self.0.pattern.test(UrlPatternMatchInput::Url(url)).unwrap_or(false))
    }
}

impl PartialEq for UrlPattern {
    fn eq(&self, other: &Self) -> bool {
        let same = |other: &Compiled| self.0.text == other.text && self.0.hub_url == other.hub_url;
        Arc::ptr_eq(&self.0, &other.0) || same(&other.0)
    }
}

impl Eq for UrlPattern {}

impl Hash for UrlPattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

/// Every component holds its expression twice: one matches, the other only answers questions that we never ask. Dropping that one
/// halves the memory of a pattern.
fn drop_unused(pattern: &mut urlpattern::UrlPattern<BoundedRegex>) {
    let components = [
        &mut pattern.protocol,
        &mut pattern.username,
        &mut pattern.password,
        &mut pattern.hostname,
        &mut pattern.port,
        &mut pattern.pathname,
        &mut pattern.search,
        &mut pattern.hash,
    ];
    for component in components {
        component.regexp = Err(urlpattern::Error::RegExp(()));
    }
}

/// The memory that one component of a pattern may compile to: this much, and more in proportion to its text. So a long text is
/// no reason to refuse a pattern, and a short one cannot be made to grow. What would be larger is refused like a broken pattern.
const COMPILED_BYTES_BASE: usize = 16 * 1024;
/// What each byte of the text adds; a plain character needs about half of it.
const COMPILED_BYTES_PER_BYTE: usize = 64;

/// A regular expression whose compiled size is bounded, so that `((?:a{1000}){1000})` is refused and not paid for.
///
/// The components of a parsed URL are ASCII, and the classes of a URL Pattern are those of JavaScript, where `\d` and `\w` are
/// ASCII too. So it works on bytes and without Unicode tables, which would make `\w` alone larger than the bound.
struct BoundedRegex(regex::bytes::Regex);

impl RegExp for BoundedRegex {
    fn syntax() -> RegexSyntax {
        RegexSyntax::Rust
    }

    fn parse(pattern: &str, _flags: &str, _force_eval: bool) -> Result<Self, ()> {
        let bytes_max = COMPILED_BYTES_BASE + COMPILED_BYTES_PER_BYTE * pattern.len();
        let compiled =
            RegexBuilder::new(pattern).unicode(false).size_limit(bytes_max).dfa_size_limit(bytes_max).build();
        compiled.map(Self).map_err(|_| ())
    }

    // Nobody asks what the groups captured, and without captures matching is much cheaper.
    fn matches<'a>(&self, text: &'a str) -> Option<Vec<Option<&'a str>>> {
        self.0.is_match(text.as_bytes()).then(Vec::new)
    }

    fn pattern_string(&self) -> &str {
        self.0.as_str()
    }
}
