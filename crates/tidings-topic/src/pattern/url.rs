//! URL Patterns (WHATWG), compared with the parts of a URL.
//!
//! The crate `urlpattern` parses a pattern by the rules of the WHATWG, but its result takes several
//! KiB and allocates for each match. Checks are therefore kept only for the parts of a URL that the
//! pattern restricts. They are compared with URLs that are already parsed.

use url::{Position, Url};
use urlpattern::{UrlPattern, UrlPatternInit, UrlPatternOptions, component::Component};

use super::{check::Check, expression::LazyExpression};
use crate::brackets::has_stray_bracket;

/// The checks of a pattern on the parts of a URL that it restricts. Parts that differ most between
/// patterns come first.
pub(super) struct UrlChecks(Box<[(Part, Check)]>);

/// A part of a URL that a pattern can restrict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Pathname,
    Hostname,
    Port,
    Protocol,
    Search,
    Hash,
    Username,
    Password,
}

impl UrlChecks {
    /// `None` if the text is not a URL Pattern or an expression in it is too large when compiled.
    pub(super) fn compile(text: &str, hub_url: &Url) -> Option<Self> {
        if has_stray_bracket(text) {
            return None;
        }
        let base_url = Some(hub_url.clone());
        let init = UrlPatternInit::parse_constructor_string::<LazyExpression>(text, base_url).ok()?;
        let parsed = UrlPattern::parse(init, UrlPatternOptions::default()).ok()?;
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
        Some(Self(checks.into()))
    }

    /// Whether a URL matches.
    pub(super) fn admit(&self, url: &Url) -> bool {
        self.0.iter().all(|(part, check)| check.admits(part.of(url)))
    }

    pub(super) fn check(&self, wanted: Part) -> Option<&Check> {
        self.0.iter().find_map(|(part, check)| (*part == wanted).then_some(check))
    }

    pub(super) fn weight(&self) -> u32 {
        self.0.iter().map(|(_, check)| check.weight()).sum()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.0.iter().map(|(_, check)| size_of::<Part>() + check.memory_bytes()).sum()
    }
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
