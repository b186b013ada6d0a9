//! Problem details: one shape for every refused request.
//!
//! A [`Problem`] is answered as the problem details of RFC 9457. Its detail is one sentence for the
//! user of the client: it names the field, the value and the remedy, and no internals. What only
//! the operator should know is the cause, which is logged and never sent.

use std::{fmt, num::NonZeroU64};

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use tidings::{Error, Invalid, ParseSinceError, Subscription, Unavailable};
use tidings_auth::AuthError;

use crate::{BodyError, limit_log::Limit, metrics::counts::CredentialFailure};

/// The reason of a problem whose cause is an application: its failures have log lines of their own.
pub(crate) const APPLICATION: &str = "application";

/// A request that is refused.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    refused: Refused,
    notice: Option<StreamNotice>,
    /// Sent as a stream that ends at once, and that the client requests again after this time.
    stream_retry_millis: Option<NonZeroU64>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What a native EventSource, which cannot read a status, receives in its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StreamNotice {
    /// The credential has expired.
    Expired,
    /// The credential was revoked.
    Revoked,
    /// The credential is at its own limit of streams.
    OverLimit,
}

impl StreamNotice {
    /// The data of the event, as that of every notice of a stream.
    fn data(self) -> &'static str {
        match self {
            Self::Expired => r#"{"kind":"expired"}"#,
            Self::Revoked => r#"{"kind":"revoked"}"#,
            Self::OverLimit => r#"{"kind":"over-limit"}"#,
        }
    }
}

/// What the log line and the page for a browser need of a refusal. It is an extension of the
/// response, whatever form that has.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    /// One word: the field or the component that caused the refusal.
    pub(crate) reason: &'static str,
    /// The internal cause, where the response does not contain it.
    pub(crate) cause: Option<String>,
    /// Why the credential was not accepted.
    pub(crate) failed_credential: Option<CredentialFailure>,
    /// The limit that was reached.
    pub(crate) limit: Option<&'static Limit>,
    /// The detail that the client receives.
    pub(crate) detail: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, reason: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            refused: Refused {
                reason,
                cause: None,
                failed_credential: None,
                limit: None,
                detail: detail.into(),
            },
            notice: None,
            stream_retry_millis: None,
            headers: Vec::new(),
        }
    }

    pub(crate) fn bad_request(reason: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason, detail)
    }

    pub(crate) fn forbidden(reason: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, reason, detail)
    }

    pub(crate) fn unavailable(reason: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason, detail)
    }

    pub(crate) fn too_large(reason: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, reason, detail)
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn retry_after(self, secs: u64) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(secs))
    }

    pub(crate) fn detail(&self) -> &str {
        &self.refused.detail
    }

    /// Whether the same request may succeed later.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
    }

    /// One word: the field or the component that caused the refusal.
    pub(crate) fn reason(&self) -> &'static str {
        self.refused.reason
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The credential is one that was valid before it was revoked.
    pub(crate) fn revoked(mut self) -> Self {
        self.refused.failed_credential = Some(CredentialFailure::Revoked);
        self.noticed(StreamNotice::Revoked)
    }

    pub(crate) fn noticed(self, notice: StreamNotice) -> Self {
        Self { notice: Some(notice), ..self }
    }

    pub(crate) fn notice(&self) -> Option<StreamNotice> {
        self.notice
    }

    /// For a native EventSource: an empty stream, which it requests again after this time.
    pub(crate) fn sent_as_stream(self, retry_millis: u64) -> Self {
        Self { stream_retry_millis: NonZeroU64::new(retry_millis), ..self }
    }

    /// Adds the part of the request in which the problem was found.
    pub(crate) fn within(mut self, place: impl fmt::Display) -> Self {
        self.refused.detail = format!("{place}: {}", self.refused.detail);
        self
    }

    /// Another detail for the client. The log gets the one before.
    pub(crate) fn with_detail(mut self, detail: &str) -> Self {
        self.refused.cause = Some(std::mem::replace(&mut self.refused.detail, detail.to_owned()));
        self
    }

    /// The refusal is due to a limit, which an operator may want to raise.
    pub(crate) fn limit(mut self, limit: &'static Limit) -> Self {
        self.refused.limit = Some(limit);
        self
    }

    pub(crate) fn caused_by(mut self, cause: impl fmt::Display) -> Self {
        self.refused.cause = Some(cause.to_string());
        self
    }

    /// The refusal of an event. An exceeded limit is 413 (the Mercure protocol, "Publication").
    pub(crate) fn of_event(invalid: &Invalid) -> Self {
        let status =
            if invalid.is_excess() { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
        Self::new(status, invalid.field(), sentence(invalid))
    }

    /// Why nothing was published, or why the outcome is unknown. A retry must not publish twice:
    /// where the outcome is unknown, a safe retry needs an idempotency key.
    pub(crate) fn of_publication(error: Error, has_key: bool) -> Self {
        match error {
            Error::Invalid(invalid) => Self::of_event(&invalid),
            Error::EphemeralWithKey => Self::bad_request(
                "ephemeral",
                "Ephemeral events cannot be published under an `Idempotency-Key`: they are not stored, so a repeat would \
                 not be recognised. Leave the header out.",
            ),
            Error::Overloaded => Self::unavailable(
                "overload",
                "Nothing was published: too many events are being published at once. Try again in a moment.",
            )
            .retry_after(MOMENT_SECS),
            Error::OutcomeUnknown(cause) if has_key => Self::unavailable(
                "outcome",
                "This may or may not have been published. Repeat the request with the same `Idempotency-Key`: it is published at most once.",
            )
            .caused_by(cause)
            .retry_after(MOMENT_SECS),
            Error::OutcomeUnknown(cause) => Self::unavailable(
                "outcome",
                "This may or may not have been published, and repeating the request may publish it twice. A request with the \
                     header `Idempotency-Key` can be repeated safely.",
            )
            .caused_by(cause),
            other => Self::of_log(&other, "published", "for further events"),
        }
    }

    /// Why nothing was deleted, or why the outcome is unknown. Deletion is idempotent.
    pub(crate) fn of_deletion(error: Error) -> Self {
        let Error::OutcomeUnknown(cause) = error else {
            return Self::of_log(&error, "deleted", "to record the deletion");
        };
        let detail = "This may or may not have been deleted. Repeat the request to be sure.";
        Self::unavailable("outcome", detail).caused_by(cause).retry_after(MOMENT_SECS)
    }

    /// Why the log has not `done` anything. `purpose`: what storage would be needed for.
    fn of_log(error: &Error, done: &str, purpose: &str) -> Self {
        let unavailable = |why: &dyn fmt::Display, cause: &dyn fmt::Display| {
            let detail = format!("Nothing was {done}: {why}.");
            Self::unavailable("log", detail).caused_by(cause).retry_after(OUTAGE_SECS)
        };
        let unreachable = &"the hub cannot reach its log. Try again later";
        match error {
            Error::Full(cause) => {
                let detail = format!("Nothing was {done}: the hub has no storage left {purpose}.");
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "storage", detail).caused_by(cause)
            }
            Error::Displaced(what) => unavailable(what, what),
            Error::Unavailable(cause) => unavailable(unreachable, cause),
            other => unavailable(unreachable, other),
        }
    }

    /// The refusal of a matcher. Too many are 400, like an invalid one (the Mercure protocol,
    /// "Subscription").
    pub(crate) fn of_matcher(invalid: &Invalid) -> Self {
        Self::bad_request(invalid.field(), sentence(invalid))
    }
}

/// Turns the message of a library, which begins with a lower-case letter, into a sentence.
pub(crate) fn sentence(message: impl fmt::Display) -> String {
    let message = message.to_string();
    let mut characters = message.chars();
    let Some(first) = characters.next() else { return message };
    let stop = if message.ends_with(['.', '!', '?', '…']) { "" } else { "." };
    format!("{}{}{stop}", first.to_uppercase(), characters.as_str())
}

/// Longest part of a client's input that a response repeats, in characters.
const EXCERPT_CHARS_MAX: usize = 64;

/// A short, escaped form of a client's input.
pub(crate) fn excerpt(text: &str) -> String {
    let shown: String = text.chars().take(EXCERPT_CHARS_MAX).collect();
    let dots = if shown.len() < text.len() { "…" } else { "" };
    format!("`{}{dots}`", shown.escape_debug())
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        if let AuthError::KeysUnavailable(_) = error {
            return Self::new(error.status(), "issuer", sentence(error)).retry_after(OUTAGE_SECS);
        }
        let mut problem = Self::new(error.status(), "credential", sentence(&error))
            .header(header::WWW_AUTHENTICATE, error.www_authenticate());
        problem.refused.failed_credential = Some(match &error {
            AuthError::Missing(_) => CredentialFailure::Missing,
            AuthError::InvalidRequest(_) => CredentialFailure::InvalidRequest,
            AuthError::Expired(_) => CredentialFailure::Expired,
            AuthError::InsufficientScope(_) => CredentialFailure::InsufficientScope,
            _ => CredentialFailure::InvalidToken,
        });
        problem.notice = matches!(error, AuthError::Expired(_)).then_some(StreamNotice::Expired);
        // The sentence names no secret.
        problem.caused_by(error)
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let status = match error {
            BodyError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::TimedOut => StatusCode::REQUEST_TIMEOUT,
            BodyError::Broken => StatusCode::BAD_REQUEST,
            BodyError::NoMemory => StatusCode::SERVICE_UNAVAILABLE,
            BodyError::NoMemoryForAddress => StatusCode::TOO_MANY_REQUESTS,
        };
        let problem = Self::new(status, "body", sentence(error));
        match error {
            BodyError::NoMemory | BodyError::NoMemoryForAddress => {
                problem.limit(&Limit::Setting("bodies_bytes_max")).retry_after(MOMENT_SECS)
            }
            BodyError::TooLarge | BodyError::TimedOut | BodyError::Broken => problem,
        }
    }
}

/// The `Retry-After` of a publisher that hits a limit of the moment, in seconds.
const MOMENT_SECS: u64 = 1;

/// The `Retry-After` while the log, the shared state or an issuer is unreachable, in seconds.
pub(crate) const OUTAGE_SECS: u64 = 5;

impl From<ParseSinceError> for Problem {
    fn from(error: ParseSinceError) -> Self {
        Self::bad_request("since", sentence(error))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(invalid) => Self::of_matcher(&invalid),
            Error::Unavailable(unavailable) => unavailable.into(),
            Error::Since(error) => error.into(),
            Error::UntilUnknown => Self::bad_request(
                "until",
                "The id of `until` is not known: it is of another log, after the end of this one, or of an event that is gone. \
                 Use `until=now`, or a newer id.",
            ),
            other => Self::bad_request("topic", sentence(other)),
        }
    }
}

impl From<Unavailable> for Problem {
    fn from(error: Unavailable) -> Self {
        Self::unavailable("log", "The hub cannot reach its log. Try again later.")
            .caused_by(error)
            .retry_after(OUTAGE_SECS)
    }
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = match self.stream_retry_millis {
            Some(retry_millis) => self.stream(retry_millis),
            None => self.document(),
        };
        response.extensions_mut().insert(self.refused);
        response
    }
}

impl Problem {
    fn document(&self) -> Response {
        let document = Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.refused.detail,
        };
        let mut json = serde_json::to_string(&document).expect("a struct of strings is always JSON");
        json.push('\n');
        let mut response =
            (self.status, [(header::CONTENT_TYPE, "application/problem+json")], json).into_response();
        response.headers_mut().extend(self.headers.iter().cloned());
        response
    }

    /// Without an id, so that the cursor of the client does not move.
    fn stream(&self, retry_millis: NonZeroU64) -> Response {
        let body = match self.notice {
            Some(notice) => format!("event: tidings\nretry: {retry_millis}\ndata: {}\n\n", notice.data()),
            None => format!(": try again later\nretry: {retry_millis}\n\n"),
        };
        let mut headers = Subscription::headers();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        (headers, body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use tidings::log::AppendError;

    use super::*;

    #[test]
    fn a_full_log_is_507_and_its_cause_is_logged_not_sent() {
        let problem = Problem::of_publication(
            AppendError::Full("/var/lib/tidings: no space left".to_owned()).into(),
            false,
        );
        assert_eq!(problem.status, StatusCode::INSUFFICIENT_STORAGE);
        assert!(!problem.detail().contains("/var"), "{problem:?}");
        let response = problem.into_response();
        let refused = response.extensions().get::<Refused>().expect("a refusal");
        assert_eq!(refused.cause.as_deref(), Some("the log is full: /var/lib/tidings: no space left"));
    }

    #[test]
    fn a_sentence_is_capitalised_and_ends_with_a_full_stop() {
        assert_eq!(sentence("the topic is empty"), "The topic is empty.");
        assert_eq!(sentence("Done!"), "Done!");
        assert_eq!(sentence(""), "");
    }

    #[test]
    fn an_excerpt_is_short_and_on_one_line() {
        assert_eq!(excerpt("a\nb\u{1b}"), r"`a\nb\u{1b}`");
        assert_eq!(excerpt(&"x".repeat(1_000)).chars().count(), EXCERPT_CHARS_MAX + 3);
    }
}
