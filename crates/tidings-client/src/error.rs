//! What can go wrong, and whether a retry can help.

use std::time::Duration;

use tidings_sse::ParseError;

/// Why a publication or a subscription failed. The text is one line for people and contains no
/// token.
///
/// ```
/// use tidings_client::ClientError;
///
/// fn advice(error: &ClientError) -> &'static str {
///     match error {
///         ClientError::Refused { status: 401 | 403, .. } => "check the token",
///         error if error.is_transient() => "try again later",
///         _ => "ask somebody",
///     }
/// }
///
/// let full = ClientError::Unavailable { status: 503, detail: "the hub is full".to_owned(), retry_after: None };
/// assert_eq!(full.to_string(), "the server answered 503: the hub is full");
/// assert_eq!((advice(&full), full.status()), ("try again later", Some(503)));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The caller's request cannot be sent.
    #[error("{0}")]
    Request(String),
    /// The server cannot be reached, or the connection broke.
    #[error("{0}")]
    Connection(String),
    /// The server refused the request; sending it again would not help.
    #[error("the server answered {status}{}", reason(.detail))]
    Refused {
        /// The status code of HTTP.
        status: u16,
        /// The reason that the server gave. May be empty.
        detail: String,
    },
    /// The server cannot answer now (408, 425, 429 or 5xx).
    #[error("the server answered {status}{}", reason(.detail))]
    Unavailable {
        /// The status code of HTTP.
        status: u16,
        /// The reason that the server gave. May be empty.
        detail: String,
        /// How long the server asked to wait.
        retry_after: Option<Duration>,
    },
    /// The answer is not an event stream.
    #[error(
        "the server answered with {content_type} where text/event-stream was expected: is the URL that of a hub?"
    )]
    NotEventStream {
        /// The Content-Type of the answer.
        content_type: String,
    },
    /// The answer cannot be parsed, although its status is that of a success: what was asked for may
    /// have been done.
    #[error("the server accepted the request, but its answer cannot be read: is the URL that of a hub?")]
    UnreadableReply,
    /// A redirect that is not followed.
    #[error("the redirect to {location} is not followed: {reason}")]
    Redirect {
        /// Where it leads.
        location: String,
        /// Why it is not followed.
        reason: &'static str,
    },
    /// The server ended the stream, as it may at any time.
    #[error("the server ended the stream")]
    Ended,
    /// Nothing arrived for too long, not even a heartbeat.
    #[error("the server was silent for {} s", .0.as_secs())]
    Silent(Duration),
    /// The stream exceeds a limit of this client.
    #[error("{0}")]
    TooLarge(#[from] ParseError),
    /// The id of the last event cannot be sent in a header, so the stream cannot be resumed without
    /// loss.
    #[error(
        "the id of the last event cannot be sent back to resume: it has {bytes} bytes or control characters"
    )]
    UnusableId {
        /// The length of the id.
        bytes: usize,
    },
}

impl ClientError {
    /// Whether the same request may succeed later. A subscription continues after such an error.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::Unavailable { .. } | Self::Ended | Self::Silent(_))
    }

    /// The status code, if the server answered with an error status.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } | Self::Unavailable { status, .. } => Some(*status),
            _ => None,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

fn reason(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

/// An excerpt of an untrusted text, on one line, safe for a terminal.
pub(crate) fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 300;
    let mut shown: String = text.trim().chars().take(CHARS_MAX).collect();
    if shown.len() < text.trim().len() {
        shown.push('…');
    }
    shown.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_untrusted_text_stays_on_one_line_and_short() {
        assert_eq!(excerpt(" a\r\n\u{1b}[31mb\u{9b} "), "a   [31mb ".trim_end().to_owned() + " ");
        assert_eq!(excerpt(&"é".repeat(1000)).chars().count(), 301);
    }
}
