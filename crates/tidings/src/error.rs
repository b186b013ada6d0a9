//! Everything that can go wrong with a hub, as one type.

use std::io;

use tidings_log::{AppendError, Unavailable};
use tidings_topic::{Invalid, ParseSinceError, PatternsFull};

/// Why a hub could not do something.
///
/// With the feature `axum` it is a response: 400 or 413 where the caller has to change the request,
/// 507 where the log has no space left, 503 with `Retry-After` where another attempt may succeed.
/// Its text is for the caller; what the store reported is the [`source`](std::error::Error::source),
/// for the log of the application.
///
/// ```
/// use tidings::{Error, Hub, NewEvent};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let hub = Hub::in_memory().await;
/// match hub.publish(NewEvent::new("", "a topic is never empty")).await {
///     Err(Error::Invalid(reason)) => assert_eq!(reason.field(), "topic"),
///     Err(Error::Full(_)) => panic!("delete something, or keep less"),
///     other => panic!("{other:?}"),
/// }
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A topic, pattern, id, type or time is not valid. The caller has to change it.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The subscription has neither a topic nor a pattern.
    #[error("a subscription needs at least one topic or pattern")]
    NoTopics,
    /// Where the subscription is to start cannot be parsed.
    #[error(transparent)]
    Since(#[from] ParseSinceError),
    /// One topic or pattern of a subscription is to start after an id.
    #[error(
        "an id is where a whole subscription starts: a topic of it starts with `now`, `earliest`, the last events, or a time"
    )]
    TopicSinceId,
    /// The id where a subscription is to [end](crate::Subscribe::until) is not known: it is of
    /// another log, after the end of this one, or of an event that is gone.
    #[error("the hub does not know the id where the subscription is to end; it can end with `now`")]
    UntilUnknown,
    /// The idempotency key is not valid.
    #[error(
        "an idempotency key has 1 to 255 visible ASCII characters; that of a batch is the key of its first event, and of no other"
    )]
    Key,
    /// Ephemeral events alone were to be published under an idempotency key.
    #[error(
        "ephemeral events cannot be published under an idempotency key: they are not stored, so a repeat would not be recognised"
    )]
    EphemeralWithKey,
    /// More is being published, or compiled, than the hub can accept: nothing was done. Try again a
    /// little later.
    #[error("the hub has too much to do at once; try again in a moment")]
    Overloaded,
    /// The hub has as many patterns as its settings allow. Try again later.
    #[error("the hub has reached its limit of URL Patterns")]
    TooManyPatterns(PatternsFull),
    /// The log has no space left: nothing was stored.
    #[error("nothing was stored: the log has no space left")]
    Full(#[source] AppendError),
    /// The log's storage is not where it was, as after its directory was deleted: nothing was
    /// stored.
    #[error("nothing was stored: the storage of the log is not where it was")]
    Displaced(#[source] AppendError),
    /// It may or may not have been stored. Publish it again with the same
    /// [key](crate::NewEvent::key) to find out.
    #[error("this may or may not have been stored; with the same idempotency key it can be repeated")]
    OutcomeUnknown(#[source] AppendError),
    /// The log cannot be reached: nothing was done. Try again later.
    #[error("the log cannot be reached; try again later")]
    Unavailable(#[from] Unavailable),
    /// The hub is [closed](crate::Hub::close).
    #[error("the hub is shutting down")]
    Closed,
    /// An essential part of the hub has ended, and the hub with it
    /// ([`Hub::failure`](crate::Hub::failure)).
    #[error("the hub has failed: {0}")]
    Failed(String),
    /// A setting of [`HubBuilder`](crate::HubBuilder) has a value that it cannot have.
    #[error("`{name}`: {problem}")]
    Setting {
        /// The setting, by the name of the method that sets it.
        name: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// The system gives no thread or no file descriptor to the fan-out.
    #[error("cannot start a thread for the fan-out")]
    Threads(#[source] io::Error),
}

impl From<AppendError> for Error {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Unavailable(reason) => Unavailable(reason).into(),
            AppendError::Full(_) => Self::Full(error),
            AppendError::Displaced(_) => Self::Displaced(error),
            _ => Self::OutcomeUnknown(error),
        }
    }
}

impl From<PatternsFull> for Error {
    fn from(full: PatternsFull) -> Self {
        Self::TooManyPatterns(full)
    }
}
