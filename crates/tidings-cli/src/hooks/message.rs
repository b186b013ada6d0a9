//! What a receiver gets: a batch of changes, signed as the Standard Webhooks specification says.

use std::{fmt, str::FromStr, sync::Arc};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;

use super::change::{Kind, Member, Recorded};

/// What a secret begins with (Standard Webhooks, "Signature scheme").
const PREFIX: &str = "whsec_";

/// Bytes that a secret decodes to (Standard Webhooks, "Signature scheme").
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret that messages are signed with. `Debug` does not show it.
#[derive(Clone)]
pub(crate) struct SigningSecret(Arc<[u8]>);

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

impl PartialEq for SigningSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl FromStr for SigningSecret {
    type Err = String;

    /// The error does not repeat the text.
    fn from_str(text: &str) -> Result<Self, String> {
        let advice =
            "write `whsec_` and the base64 of 24 to 64 random bytes, as `openssl rand -base64 32` prints";
        let encoded =
            text.strip_prefix(PREFIX).ok_or_else(|| format!("does not begin with `whsec_`: {advice}"))?;
        let bytes =
            BASE64_STANDARD.decode(encoded).map_err(|_| format!("is not base64 after `whsec_`: {advice}"))?;
        if !SECRET_BYTES.contains(&bytes.len()) {
            return Err(format!("has {} bytes: {advice}", bytes.len()));
        }
        Ok(Self(bytes.into()))
    }
}

/// A message, complete but for the time of the attempt, which is part of its signature.
#[derive(Debug)]
pub(super) struct Message {
    /// The same for each attempt.
    pub(super) id: String,
    pub(super) body: String,
}

/// Standard Webhooks, "Payload structure".
#[derive(Serialize)]
struct Payload<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    /// When the first of the changes happened.
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    events: Vec<Reported<'a>>,
}

/// A change, as receivers and subscribers see it.
#[derive(Serialize)]
pub(super) struct Reported<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: Kind,
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    time: String,
}

impl<'a> Reported<'a> {
    /// `None` for a change of something else than presence.
    pub(super) fn of(recorded: &'a Recorded) -> Option<Self> {
        let Member::Presence(member) = &recorded.change.member else { return None };
        Some(Self {
            id: &recorded.id,
            kind: recorded.change.kind(),
            topic: &member.topic,
            label: member.label.as_deref(),
            time: recorded.time_text(),
        })
    }
}

impl Message {
    /// The message of these changes, of which there is at least one.
    pub(super) fn new(changes: &[Arc<Recorded>]) -> Self {
        let first = &changes[0];
        let payload = Payload {
            kind: "presence.changed",
            timestamp: first.time_text(),
            data: Data { events: changes.iter().filter_map(|change| Reported::of(change)).collect() },
        };
        Self {
            // The signed text separates its parts with dots.
            id: format!("{}-{}", first.id.replace('.', "-"), changes.len()),
            body: serde_json::to_string(&payload).expect("texts serialize"),
        }
    }

    /// The value of `webhook-signature` for an attempt at this time, in seconds since 1970: one
    /// signature for each secret (Standard Webhooks, "Signature scheme").
    pub(super) fn signatures(&self, secrets: &[SigningSecret], unix_secs: u64) -> String {
        let signed = format!("{}.{unix_secs}.{}", self.id, self.body);
        let signature = |secret: &SigningSecret| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &secret.0);
            format!("v1,{}", BASE64_STANDARD.encode(hmac::sign(&key, signed.as_bytes())))
        };
        secrets.iter().map(signature).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use tidings::log::{Cursor, Epoch, Position, Timestamp};

    use super::*;
    use crate::hooks::change::Change;

    fn recorded(label: Option<&str>) -> Arc<Recorded> {
        let member = tidings_presence::Member { topic: "chat".into(), label: label.map(Into::into) };
        Arc::new(Recorded {
            cursor: Cursor { epoch: Epoch::from_u64(1), position: Position::BEFORE_ALL },
            id: "e.1".to_owned(),
            time: Timestamp::from_millis(1_700_000_000_500),
            change: Change { member: Member::Presence(member), is_here: true },
        })
    }

    #[test]
    fn a_message_says_what_happened_in_order() {
        let message = Message::new(&[recorded(None), recorded(Some("ann"))]);
        assert_eq!(message.id, "e-1-2");
        assert_eq!(
            message.body,
            r#"{"type":"presence.changed","timestamp":"2023-11-14T22:13:20.5Z","data":{"events":[{"id":"e.1","type":"topic.occupied","topic":"chat","time":"2023-11-14T22:13:20.5Z"},{"id":"e.1","type":"presence.joined","topic":"chat","label":"ann","time":"2023-11-14T22:13:20.5Z"}]}}"#
        );
    }

    /// The example of the specification's libraries: the same secret, id, time and body.
    #[test]
    fn standard_webhooks_signature_scheme() {
        let secret: SigningSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let message = Message {
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(),
            body: r#"{"test": 2432232314}"#.to_owned(),
        };
        let one = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(message.signatures(std::slice::from_ref(&secret), 1_614_265_330), one);
        let both = message.signatures(&[secret.clone(), secret], 1_614_265_330);
        assert_eq!(both, format!("{one} {one}"));
    }

    #[test]
    fn a_secret_that_no_library_would_accept_is_refused_without_showing_it() {
        let short = format!("whsec_{}", BASE64_STANDARD.encode([7; 23]));
        for (text, part) in [
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "begin with `whsec_`"),
            ("whsec_!!", "not base64"),
            (&short, "has 23 bytes"),
        ] {
            let refused = text.parse::<SigningSecret>().unwrap_err();
            assert!(refused.contains(part) && !refused.contains(text), "{refused}");
        }
        let secret: SigningSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        assert!(!format!("{secret:?}").contains("MfKQ"));
    }
}
