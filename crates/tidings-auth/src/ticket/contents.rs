//! The JSON object in a ticket, and its rules.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc};

use serde::{Deserialize, Serialize};
use tidings_topic::{Grants, Invalid, Matcher, Validator};

use crate::{Access, AuthError, Subject, member::not_null};

/// Longest lifetime of a ticket, in seconds: a day. A ticket with a longer one is answered with 401
/// `invalid_token`.
pub const TICKET_SECS_MAX: u64 = 24 * 60 * 60;

/// The usual lifetime of a ticket, in seconds: an hour.
pub const TICKET_SECS_DEFAULT: u64 = 60 * 60;

/// Tolerated clock skew between the machine that made a ticket and the hub, in seconds. There is no
/// tolerance after its expiry.
const ISSUED_AT_LEEWAY_SECS: u64 = 60;

/// Longest id of a ticket, in bytes.
const ID_BYTES_MAX: usize = 128;
/// Longest label, in bytes.
const LABEL_BYTES_MAX: usize = 256;

/// Longest message of the JSON parser that is passed on, in characters.
const MESSAGE_CHARS_MAX: usize = 160;
/// Longest part of a topic that a sentence repeats, in characters.
const TOPIC_CHARS_MAX: usize = 64;

/// A member that is unknown, duplicate, `null` or of the wrong type makes the contents invalid.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contents {
    pub(super) id: String,
    /// In seconds since 1970, like the expiry.
    pub(super) issued_at: u64,
    pub(super) expires_at: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) topics: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) patterns: Vec<String>,
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    pub(super) label: Option<String>,
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    pub(super) streams_max: Option<NonZeroU32>,
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<IpAddr>,
}

/// Why the contents of an authentic ticket are refused.
#[derive(Debug)]
pub(super) enum Refusal {
    Expired,
    /// Completes the sentence "the ticket …".
    Invalid(String),
}

impl From<Refusal> for AuthError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Expired => Self::Expired("the ticket has expired".to_owned()),
            Refusal::Invalid(reason) => Self::invalid_token(format!("the ticket {reason}")),
        }
    }
}

impl Contents {
    pub(super) fn parse(json: &[u8]) -> Result<Self, Refusal> {
        // The ticket is authentic, so the reason helps the application that made it.
        let malformed = |reason: &str| {
            let reason: String = reason.chars().take(MESSAGE_CHARS_MAX).collect();
            Refusal::Invalid(format!("has contents that are not as documented: {}", reason.escape_debug()))
        };
        // The parser would also take an array of the values in their order.
        if json.trim_ascii_start().first() != Some(&b'{') {
            return Err(malformed("expected a JSON object"));
        }
        serde_json::from_slice(json).map_err(|error| malformed(&error.to_string()))
    }

    /// Checks everything but the time.
    pub(super) fn check(&self, validator: &Validator) -> Result<Vec<Matcher>, Refusal> {
        let invalid = |reason: String| Err(Refusal::Invalid(reason));
        for (name, text, bytes_max) in
            [("id", Some(&self.id), ID_BYTES_MAX), ("label", self.label.as_ref(), LABEL_BYTES_MAX)]
        {
            let Some(text) = text else { continue };
            if text.is_empty() || text.len() > bytes_max || text.chars().any(char::is_control) {
                return invalid(format!(
                    "has an unsuitable `{name}`: it has 1 to {bytes_max} bytes and no control characters"
                ));
            }
        }
        if self.expires_at <= self.issued_at {
            return invalid("expires before it is issued".to_owned());
        }
        if self.expires_at - self.issued_at > TICKET_SECS_MAX {
            return invalid(format!(
                "is valid for longer than a day ({TICKET_SECS_MAX} seconds): make a new one before it expires"
            ));
        }
        if self.topics.is_empty() && self.patterns.is_empty() {
            return invalid("allows nothing: it needs `topics`, or `patterns`".to_owned());
        }
        let topics = self.topics.iter().map(|text| matcher("topic", text, validator.exact(text)));
        let patterns = self.patterns.iter().map(|text| matcher("pattern", text, validator.pattern(text)));
        topics.chain(patterns).collect()
    }

    /// What a ticket with these contents allows at this time.
    pub(super) fn access(self, now_unix_secs: u64, validator: &Validator) -> Result<Access, Refusal> {
        // First, since a browser that comes back with an old ticket is to learn just that.
        if now_unix_secs >= self.expires_at {
            return Err(Refusal::Expired);
        }
        let matchers = self.check(validator)?;
        if now_unix_secs.saturating_add(ISSUED_AT_LEEWAY_SECS) < self.issued_at {
            return Err(Refusal::Invalid(
                "is not valid yet: compare the clocks of the hub and of the machine that made it".to_owned(),
            ));
        }
        let label = self.label.map(Arc::from);
        let mut access =
            Access::new(Subject::Ticket(label.clone()), Grants::NONE, matchers.into_iter().collect())
                .with_id(Some(self.id))
                .until(Some(self.expires_at), Vec::new());
        access.issued_at = Some(self.issued_at);
        access.label = label;
        access.limits.streams_max = self.streams_max;
        access.limits.address = self.address;
        Ok(access)
    }
}

fn matcher(kind: &str, text: &str, checked: Result<Matcher, Invalid>) -> Result<Matcher, Refusal> {
    checked.map_err(|invalid| {
        let shown: String = text.chars().take(TOPIC_CHARS_MAX).collect();
        Refusal::Invalid(format!(
            "names the {kind} `{}`, which cannot be used: {invalid}",
            shown.escape_debug()
        ))
    })
}
