//! Errors of authentication, with a sentence for people and the header that RFC 6750 requires.

use http::{HeaderValue, StatusCode};
use tidings_topic::{Matcher, Topic};

use crate::Subject;

/// Why a request is refused. [`Display`](std::fmt::Display) is a sentence for people that names no
/// secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// A credential is required and missing, or in a place that a hub does not read: 401 with a
    /// bare challenge.
    #[error("{0}")]
    Missing(String),
    /// The credential is presented in a malformed way: 400 `invalid_request`.
    #[error("{0}")]
    InvalidRequest(String),
    /// The credential is invalid: 401 `invalid_token`.
    #[error("{0}")]
    InvalidToken(String),
    /// The credential was valid and has expired: 401 `invalid_token`. A client that cannot read a
    /// status, such as a native EventSource, has to learn this in another way.
    #[error("{0}")]
    Expired(String),
    /// The credential is valid but does not allow this: 403 `insufficient_scope`.
    #[error("{0}")]
    InsufficientScope(String),
    /// The keys that could verify the credential have not been fetched yet: 503. The same request
    /// may succeed later.
    #[error("{0}")]
    KeysUnavailable(String),
}

impl AuthError {
    /// The HTTP status of this error (RFC 6750, section 3.1).
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Missing(_) | Self::InvalidToken(_) | Self::Expired(_) => StatusCode::UNAUTHORIZED,
            Self::InvalidRequest(_) => StatusCode::BAD_REQUEST,
            Self::InsufficientScope(_) => StatusCode::FORBIDDEN,
            Self::KeysUnavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The error code of RFC 6750. A request without a credential has none, and neither has one
    /// whose credential cannot be judged.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Missing(_) | Self::KeysUnavailable(_) => None,
            Self::InvalidRequest(_) => Some("invalid_request"),
            Self::InvalidToken(_) | Self::Expired(_) => Some("invalid_token"),
            Self::InsufficientScope(_) => Some("insufficient_scope"),
        }
    }

    /// The value of the header `WWW-Authenticate`.
    pub fn www_authenticate(&self) -> HeaderValue {
        let Some(code) = self.code() else {
            return HeaderValue::from_static("Bearer");
        };
        let description = quotable(&self.to_string());
        let value = format!("Bearer error=\"{code}\", error_description=\"{description}\"");
        HeaderValue::try_from(value).expect("only printable ASCII remains")
    }

    pub(crate) fn invalid_request(sentence: impl Into<String>) -> Self {
        Self::InvalidRequest(sentence.into())
    }

    pub(crate) fn invalid_token(sentence: impl Into<String>) -> Self {
        Self::InvalidToken(sentence.into())
    }
}

/// The error for a request that writes, without a credential.
pub fn credential_missing() -> AuthError {
    AuthError::Missing(
        "a credential is needed: send the header `Authorization: Bearer …` with a key or a token".to_owned(),
    )
}

/// The error for a subscription without a required credential.
pub fn subscriber_credential_missing() -> AuthError {
    AuthError::Missing(
        "a credential is needed: send the header `Authorization: Bearer …` with a key or a token, or the parameter `ticket` with a ticket"
            .to_owned(),
    )
}

/// The error for a credential that does not cover this topic. `action` is `publish` or `subscribe`.
pub fn insufficient_scope(action: &str, topic: &Topic) -> AuthError {
    AuthError::InsufficientScope(format!(
        "the credential has no {action} permission for the topic {}",
        quoted(topic.as_str())
    ))
}

/// The error for a subscription that names this private topic without permission.
pub fn private_topic(subject: &Subject, topic: &Topic) -> AuthError {
    let topic = quoted(topic.as_str());
    match subject {
        Subject::Anonymous => AuthError::Missing(format!(
            "the topic {topic} is private: send the header `Authorization: Bearer …` with a key or a token that may subscribe to it, or the \
             parameter `ticket` with a ticket for it"
        )),
        Subject::Everybody => AuthError::InsufficientScope(format!(
            "the topic {topic} is private, and this hub has no keys, so no client may subscribe to it"
        )),
        Subject::Key(_) | Subject::Token(_) | Subject::Ticket(_) | Subject::Application => {
            AuthError::InsufficientScope(format!(
                "the topic {topic} is private, and the credential may not subscribe to it"
            ))
        }
    }
}

/// The error for a subscription with a ticket to a topic or pattern that is not in it.
pub fn outside_of_ticket(matcher: &Matcher) -> AuthError {
    let kind = if matches!(matcher, Matcher::Pattern(_)) { "pattern" } else { "topic" };
    AuthError::InsufficientScope(format!(
        "the ticket does not allow the {kind} {}: leave it out to receive what the ticket allows",
        quoted(matcher.as_str())
    ))
}

/// The error for a request that writes with a ticket.
pub fn ticket_writes() -> AuthError {
    AuthError::InsufficientScope("a ticket only allows to subscribe: use a key or a token".to_owned())
}

/// The error for a ticket that is bound to another client address.
pub fn other_address() -> AuthError {
    AuthError::InsufficientScope("the ticket is for a client at another address".to_owned())
}

fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(TOPIC_CHARS_MAX).collect();
    let dots = if shown.len() < text.len() { "…" } else { "" };
    format!("`{}{dots}`", shown.escape_debug())
}

/// Longest part of a topic that a sentence repeats, in characters.
const TOPIC_CHARS_MAX: usize = 64;

// RFC 6750, section 3: `error_description` has no `"`, no `\` and nothing but printable ASCII.
fn quotable(sentence: &str) -> String {
    sentence
        .chars()
        .map(|character| match character {
            '"' | '`' => '\'',
            '\\' => '/',
            ' '..='~' => character,
            _ => '?',
        })
        .collect()
}

/// An invalid or insecure configuration: the setting, what is wrong and the remedy. It names no
/// secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct ConfigError {
    setting: String,
    reason: String,
}

impl ConfigError {
    pub(crate) fn new(setting: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { setting: setting.into(), reason: reason.into() }
    }

    /// The setting that is wrong, such as `key.ci.secret` or `issuer.https://app.example.audience`.
    pub fn setting(&self) -> &str {
        &self.setting
    }

    /// What is wrong with the setting, without its name.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}
