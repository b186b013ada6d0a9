//! Compiled URL Patterns.
//!
//! The crate `urlpattern` parses a pattern by the rules of the WHATWG, but its result takes several
//! KiB and allocates for each match. A compiled pattern therefore keeps checks only for the parts
//! of a URL that it restricts: a literal or a wildcard where possible, a [bounded
//! expression](expression) otherwise. It matches URLs that are already parsed.

mod expression;

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use url::{Position, Url};
use urlpattern::{
    UrlPatternInit, UrlPatternOptions,
    component::Component,
    matcher::{InnerMatcher, Matcher as ParsedMatcher},
};

use self::expression::{Expression, LazyExpression};
use crate::brackets::has_stray_bracket;

/// A compiled URL Pattern, based on the URL of the hub. Its expressions run in time linear in the
/// length of the topic. Cloning is cheap. Two patterns are equal if their text and their hub are.
#[derive(Clone)]
pub struct UrlPattern(Arc<Compiled>);

struct Compiled {
    text: Box<str>,
    hub_url: Arc<Url>,
    /// The restricted parts. Parts that differ most between patterns come first.
    checks: Box<[(Part, Check)]>,
    beginning: Beginning,
    weight: u32,
}

/// A part of a URL that a pattern can restrict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Pathname,
    Hostname,
    Port,
    Protocol,
    Search,
    Hash,
    Username,
    Password,
}

/// The condition on one part.
enum Check {
    Literal(Box<str>),
    /// A prefix, any text without the excluded character, and a suffix.
    Wildcard {
        prefix: Box<str>,
        suffix: Box<str>,
        excluded: Option<char>,
        may_be_empty: bool,
    },
    /// A prefix, text that the expression matches, and a suffix.
    Expression {
        prefix: Box<str>,
        suffix: Box<str>,
        expression: Expression,
    },
}

/// The literal text that begins every URL that a pattern matches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Beginning {
    /// The pattern fixes scheme, host and port: these and the beginning of the path, as in
    /// `https://hub.example/users/`.
    Url(Box<str>),
    /// The pattern leaves scheme, host or port open: the beginning of the path, as in `/users/`.
    Path(Box<str>),
}

/// Longest beginning that is stored, in bytes. It bounds the depth of the pattern index.
const BEGINNING_BYTES_MAX: usize = 256;

impl UrlPattern {
    /// The [`weight`](Self::weight) of a pattern without expressions, most of which is the time to
    /// load it: there may be thousands.
    const WEIGHT_PLAIN: u32 = 10;

    /// `None` if the text is not a URL Pattern or an expression in it is too large when compiled.
    pub(crate) fn compile(text: &str, hub_url: &Arc<Url>) -> Option<Self> {
        if has_stray_bracket(text) {
            return None;
        }
        let base_url = Some(Url::clone(hub_url));
        let init = UrlPatternInit::parse_constructor_string::<LazyExpression>(text, base_url).ok()?;
        let parsed = urlpattern::UrlPattern::parse(init, UrlPatternOptions::default()).ok()?;
        let parts: [(Part, Component<LazyExpression>); 8] = [
            (Part::Pathname, parsed.pathname),
            (Part::Hostname, parsed.hostname),
            (Part::Port, parsed.port),
            (Part::Protocol, parsed.protocol),
            (Part::Search, parsed.search),
            (Part::Hash, parsed.hash),
            (Part::Username, parsed.username),
            (Part::Password, parsed.password),
        ];
        let mut checks = Vec::with_capacity(4);
        for (part, component) in parts {
            let check = Check::of(component.matcher)?;
            if !check.admits_everything() {
                checks.push((part, check));
            }
        }
        let beginning = Beginning::of(&checks);
        let weight = checks.iter().map(|(_, check)| check.weight()).sum::<u32>() + Self::WEIGHT_PLAIN;
        let checks = checks.into();
        Some(Self(Arc::new(Compiled {
            text: text.into(),
            hub_url: Arc::clone(hub_url),
            checks,
            beginning,
            weight,
        })))
    }

    /// Whether a URL matches.
    pub(crate) fn matches(&self, url: &Url) -> bool {
        self.0.checks.iter().all(|(part, check)| check.admits(part.of(url)))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The maximum cost of comparing the pattern with one topic, in units of some 6 ns.
    pub fn weight(&self) -> u32 {
        self.0.weight
    }

    pub(crate) fn hub_url(&self) -> &Arc<Url> {
        &self.0.hub_url
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
        let checks: usize = self.0.checks.iter().map(|(_, check)| check.memory_bytes()).sum();
        size_of::<Compiled>() + self.0.text.len() + self.0.beginning.text().len() + checks
    }
}

impl PartialEq for UrlPattern {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.text == other.0.text && same_url(&self.0.hub_url, &other.0.hub_url))
    }
}

impl Eq for UrlPattern {}

impl Hash for UrlPattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

impl fmt::Debug for UrlPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UrlPattern({:?})", self.as_str())
    }
}

/// Patterns of one hub share one URL, so comparing two is usually a pointer comparison.
pub(crate) fn same_url(one: &Arc<Url>, other: &Arc<Url>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

impl Part {
    /// URL Pattern, "Match": the components of a URL record; a missing one is empty.
    fn of(self, url: &Url) -> &str {
        match self {
            Self::Pathname => url.path(),
            Self::Hostname => url.host_str().unwrap_or_default(),
            Self::Port => &url[Position::BeforePort..Position::AfterPort],
            Self::Protocol => url.scheme(),
            Self::Search => url.query().unwrap_or_default(),
            Self::Hash => url.fragment().unwrap_or_default(),
            Self::Username => url.username(),
            Self::Password => url.password().unwrap_or_default(),
        }
    }
}

impl Check {
    fn of(parsed: ParsedMatcher<LazyExpression>) -> Option<Self> {
        let (prefix, suffix): (Box<str>, Box<str>) = (parsed.prefix.into(), parsed.suffix.into());
        Some(match parsed.inner {
            InnerMatcher::Literal { literal } => {
                Self::Literal([&*prefix, &*literal, &*suffix].concat().into())
            }
            InnerMatcher::SingleCapture { filter, allow_empty } => {
                Self::Wildcard { prefix, suffix, excluded: filter, may_be_empty: allow_empty }
            }
            InnerMatcher::RegExp { regexp } => {
                Self::Expression { prefix, suffix, expression: regexp.ok()?.into_expression()? }
            }
        })
    }

    fn admits_everything(&self) -> bool {
        matches!(self, Self::Wildcard { prefix, suffix, excluded: None, may_be_empty: true }
            if prefix.is_empty() && suffix.is_empty())
    }

    fn admits(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => text == &**literal,
            Self::Wildcard { prefix, suffix, excluded, may_be_empty } => between(text, prefix, suffix)
                .is_some_and(|text| {
                    (*may_be_empty || !text.is_empty())
                        && excluded.is_none_or(|excluded| !text.contains(excluded))
                }),
            Self::Expression { prefix, suffix, expression } => {
                between(text, prefix, suffix).is_some_and(|text| expression.matches(text))
            }
        }
    }

    fn weight(&self) -> u32 {
        match self {
            Self::Literal(_) | Self::Wildcard { .. } => 0,
            Self::Expression { expression, .. } => expression.weight(),
        }
    }

    /// The literal text that begins everything that this check admits.
    fn beginning(&self) -> &str {
        match self {
            Self::Literal(prefix) | Self::Wildcard { prefix, .. } | Self::Expression { prefix, .. } => prefix,
        }
    }

    fn memory_bytes(&self) -> usize {
        size_of::<(Part, Self)>()
            + match self {
                Self::Literal(literal) => literal.len(),
                Self::Wildcard { prefix, suffix, .. } => prefix.len() + suffix.len(),
                Self::Expression { prefix, suffix, expression } => {
                    prefix.len() + suffix.len() + expression.memory_bytes()
                }
            }
    }
}

fn between<'t>(text: &'t str, prefix: &str, suffix: &str) -> Option<&'t str> {
    text.strip_prefix(prefix)?.strip_suffix(suffix)
}

impl Beginning {
    fn of(checks: &[(Part, Check)]) -> Self {
        let check = |wanted| checks.iter().find_map(|(part, check)| (*part == wanted).then_some(check));
        let literal = |part| match check(part) {
            Some(Check::Literal(literal)) => Some(&**literal),
            _ => None,
        };
        let path = check(Part::Pathname).map_or("", Check::beginning);
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
            Self::Url(text) | Self::Path(text) => text,
        }
    }
}

fn shortened(text: &str) -> Box<str> {
    // The components of a pattern are ASCII, so every index is a character boundary.
    text.get(..BEGINNING_BYTES_MAX).unwrap_or(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(text: &str) -> UrlPattern {
        let hub_url = "https://hub.example/.well-known/mercure".parse().expect("a URL");
        UrlPattern::compile(text, &Arc::new(hub_url)).expect(text)
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
            assert_eq!(pattern.weight(), UrlPattern::WEIGHT_PLAIN, "{text}");
            assert!(pattern.memory_bytes() < 700, "{text}: {}", pattern.memory_bytes());
        }
    }

    #[test]
    fn a_large_expression_weighs_more_than_a_small_one() {
        let [small, large] = ["/:a(\\d+)x", "/:a([\\w.+-]{1,64})x"].map(compile);
        assert!(UrlPattern::WEIGHT_PLAIN < small.weight() && small.weight() < large.weight());
        assert!(small.memory_bytes() < 3_000, "{}", small.memory_bytes());
    }
}
