//! `authorization_details`: the permissions of a token (RFC 9396; the Mercure protocol,
//! "Authorization").

use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};
use tidings_topic::{Grants, Matcher, Validator};

use crate::member::not_null;
use crate::{AuthError, access::SubscribeDetail};

/// The type of the details for a hub; all others are ignored.
pub(crate) const DETAIL_TYPE: &str = "https://mercure.rocks/authorization-detail";

/// Most topics that the details of one token may name together. A token with more is answered with
/// 401 `invalid_token`.
pub(super) const GRANTS_MAX: usize = 1_000;

/// The combined permissions of all details of a token.
#[derive(Default, Debug)]
pub(super) struct Permissions {
    pub(super) publish: Grants,
    pub(super) subscribe: Grants,
    pub(super) details: Vec<SubscribeDetail>,
}

#[derive(Deserialize)]
struct Typed {
    r#type: String,
}

// A member of the wrong type, `null` included, or a duplicate member makes a detail invalid.
#[derive(Deserialize)]
struct Detail {
    actions: Vec<String>,
    topics: Vec<TopicGrant>,
    #[serde(default, deserialize_with = "not_null")]
    payload: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct TopicGrant {
    r#match: String,
    #[serde(default)]
    match_type: MatchType,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum MatchType {
    #[default]
    Exact,
    UrlPattern,
}

/// Reads all details. An invalid detail for a hub invalidates the token; details of another type
/// are not checked.
pub(super) fn permissions(
    details: &[Box<RawValue>],
    validator: &Validator,
) -> Result<Permissions, AuthError> {
    let mut publish = Vec::new();
    let mut subscribe = Vec::new();
    let mut subscribe_details = Vec::new();
    let mut grants = 0;
    for text in details {
        let Some(detail) = read(text)? else { continue };
        grants += detail.topics.len();
        if grants > GRANTS_MAX {
            return Err(AuthError::invalid_token(format!("the token names more than {GRANTS_MAX} topics")));
        }
        let matchers =
            detail.topics.iter().map(|topic| topic.matcher(validator)).collect::<Result<Vec<_>, _>>()?;
        let allows = |action: &str| detail.actions.iter().any(|allowed| allowed == action);
        if allows("publish") {
            publish.extend_from_slice(&matchers);
        }
        if allows("subscribe") {
            subscribe.extend_from_slice(&matchers);
            let topics = matchers.into_iter().collect();
            subscribe_details.push(SubscribeDetail { topics, payload: detail.payload, is_for_all: false });
        }
    }
    Ok(Permissions {
        publish: publish.into_iter().collect(),
        subscribe: subscribe.into_iter().collect(),
        details: subscribe_details,
    })
}

fn read(text: &RawValue) -> Result<Option<Detail>, AuthError> {
    let typed: Typed = serde_json::from_str(text.get())
        .map_err(|_| AuthError::invalid_token("an authorization detail of the token has no `type`"))?;
    if typed.r#type != DETAIL_TYPE {
        return Ok(None);
    }
    let detail: Detail =
        serde_json::from_str(text.get()).map_err(|_| bad_detail("is not of the required form"))?;
    if detail.actions.is_empty() || detail.actions.iter().any(String::is_empty) {
        return Err(bad_detail("has no `actions`, or an empty one"));
    }
    if detail.topics.is_empty() {
        return Err(bad_detail("has no `topics`"));
    }
    Ok(Some(detail))
}

impl TopicGrant {
    fn matcher(&self, validator: &Validator) -> Result<Matcher, AuthError> {
        match self.match_type {
            MatchType::Exact => validator.exact(&self.r#match),
            MatchType::UrlPattern => validator.pattern(&self.r#match),
        }
        .map_err(|invalid| bad_detail(&format!("cannot be used: {invalid}")))
    }
}

fn bad_detail(reason: &str) -> AuthError {
    AuthError::invalid_token(format!("an authorization detail of the token {reason}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn details(topics: usize) -> Vec<Box<RawValue>> {
        let topics = vec![json!({ "match": "a" }); topics];
        let ours = json!({ "type": DETAIL_TYPE, "actions": ["publish"], "topics": topics });
        let foreign = json!({ "type": "other", "topics": vec![1; 5000] });
        [ours, foreign]
            .iter()
            .map(|detail| serde_json::value::to_raw_value(detail).expect("plain JSON"))
            .collect()
    }

    // The limit on the size of a token is hit earlier; this limit remains if that one is raised.
    #[test]
    fn a_token_names_at_most_a_thousand_topics() {
        let validator = Validator::default();
        assert!(permissions(&details(GRANTS_MAX), &validator).is_ok());
        assert!(permissions(&details(GRANTS_MAX + 1), &validator).is_err());
    }
}
