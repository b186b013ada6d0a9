//! The condition that a pattern sets for a text: a literal or a wildcard where possible, a bounded
//! expression otherwise.

use urlpattern::matcher::{InnerMatcher, Matcher as ParsedMatcher};

use super::expression::{Expression, LazyExpression};

/// The condition on one text.
pub(super) enum Check {
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

impl Check {
    /// `None` if an expression in it is invalid, or too large when compiled.
    pub(super) fn of(parsed: ParsedMatcher<LazyExpression>) -> Option<Self> {
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

    pub(super) fn admits_everything(&self) -> bool {
        matches!(self, Self::Wildcard { prefix, suffix, excluded: None, may_be_empty: true }
            if prefix.is_empty() && suffix.is_empty())
    }

    pub(super) fn admits(&self, text: &str) -> bool {
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

    pub(super) fn weight(&self) -> u32 {
        match self {
            Self::Literal(_) | Self::Wildcard { .. } => 0,
            Self::Expression { expression, .. } => expression.weight(),
        }
    }

    /// The literal text that begins everything that this check admits.
    pub(super) fn beginning(&self) -> &str {
        match self {
            Self::Literal(prefix) | Self::Wildcard { prefix, .. } | Self::Expression { prefix, .. } => prefix,
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>()
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
