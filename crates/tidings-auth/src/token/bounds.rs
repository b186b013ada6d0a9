//! The bounds of an issuer: what its tokens may allow at most.

use tidings_topic::{Grants, Matcher, Validator};

use super::details::Permissions;
use crate::{MatcherText, access::SubscribeDetail};

/// Most topics and patterns of each bound: every topic of a token is compared with them.
const BOUNDS_MAX: usize = 100;

/// What the tokens of an issuer may allow at most.
#[derive(Debug)]
pub(super) struct Bounds {
    publish: Grants,
    subscribe: Grants,
}

impl Bounds {
    /// Fails with the name of the setting and a reason.
    pub(super) fn new(
        publish: &[MatcherText],
        subscribe: &[MatcherText],
        validator: &Validator,
    ) -> Result<Self, (&'static str, String)> {
        let grants = |name, texts: &[MatcherText]| {
            if texts.len() > BOUNDS_MAX {
                return Err((name, format!("has {} entries; the limit is {BOUNDS_MAX}", texts.len())));
            }
            MatcherText::grants(texts, validator).map_err(|invalid| (name, invalid.to_string()))
        };
        Ok(Self { publish: grants("publish", publish)?, subscribe: grants("subscribe", subscribe)? })
    }

    /// What remains of the permissions of a token.
    pub(super) fn apply(&self, permissions: Permissions) -> Permissions {
        let details = permissions.details.into_iter().map(|detail| SubscribeDetail {
            topics: within(&self.subscribe, detail.topics),
            payload: detail.payload,
            is_for_all: detail.is_for_all,
        });
        Permissions {
            publish: within(&self.publish, permissions.publish),
            subscribe: within(&self.subscribe, permissions.subscribe),
            details: details.collect(),
        }
    }
}

/// The part of the grants within the bound. Whether one pattern includes another cannot be decided:
/// a pattern remains if it is in the bound itself. Of a grant on everything, the bound remains.
fn within(bound: &Grants, grants: Grants) -> Grants {
    if bound.is_all() {
        return grants;
    }
    if grants.is_all() {
        return bound.clone();
    }
    let is_within = |matcher: &&Matcher| match matcher {
        Matcher::Exact(topic) => bound.covers(topic),
        Matcher::Pattern(_) => bound.matchers().contains(matcher),
        Matcher::Any => false,
    };
    grants.matchers().iter().filter(is_within).cloned().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grants(texts: &[&str]) -> Grants {
        let validator = Validator::default();
        texts.iter().map(|text| MatcherText::from(*text).matcher(&validator).expect("a matcher")).collect()
    }

    #[test]
    fn only_what_the_bound_holds_remains_of_a_grant() {
        for (bound, granted, expected) in [
            (&["*"][..], &["chat", "user-*"][..], &["chat", "user-*"][..]),
            (&["chat", "user-*"], &["*"], &["chat", "user-*"]),
            (
                &["chat", "user-*"],
                &["chat", "user-42", "user-*", "news", "us*", "user-4*"],
                &["chat", "user-42", "user-*"],
            ),
            (&[], &["*", "chat"], &[]),
            (&["chat"], &["*", "news"], &["chat"]),
            (&["chat"], &[], &[]),
        ] {
            assert_eq!(within(&grants(bound), grants(granted)), grants(expected), "{bound:?} {granted:?}");
        }
    }

    proptest! {
        #[test]
        fn a_token_never_covers_what_its_issuer_may_not_grant(
            bound in prop::collection::vec("[ab*]{1,3}", 0..4),
            granted in prop::collection::vec("[ab*]{1,3}", 0..4),
            topic in "[ab]{1,3}",
        ) {
            let texts = |list: &[String]| grants(&list.iter().map(String::as_str).collect::<Vec<_>>());
            let (bound, granted) = (texts(&bound), texts(&granted));
            let topic = Validator::default().topic(&topic).expect("a topic");
            let both = within(&bound, granted.clone());
            prop_assert!(!both.covers(&topic) || (bound.covers(&topic) && granted.covers(&topic)));
        }
    }
}
