//! What it means that a request to Redis has no reply.

use redis::{ErrorKind, RedisError, ServerErrorKind};
use tidings_log::{AppendError, Unavailable, cluster::ClusterError};

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// Nothing was done.
    #[error("{0}")]
    Away(String),
    /// It may have been done.
    #[error("{0}")]
    Unknown(String),
    /// Redis is full, or the batch is larger than the log.
    #[error("{0}")]
    Full(String),
}

impl Trouble {
    /// A reply that none of our scripts gives.
    pub(crate) fn strange(what: &str) -> Self {
        Self::Unknown(format!("unexpected reply from Redis to {what}"))
    }

    /// For a call that appends.
    pub(crate) fn of_append(self) -> AppendError {
        match self {
            Self::Away(problem) => AppendError::Unavailable(problem),
            Self::Unknown(problem) => AppendError::OutcomeUnknown(problem),
            Self::Full(problem) => AppendError::Full(problem),
        }
    }

    /// For a call that does what an earlier one may have done, or the rest of something.
    pub(crate) fn of_repetition(self) -> Self {
        match self {
            Self::Away(problem) => Self::Unknown(problem),
            // If Redis is full the key was not there: nothing has been appended by the first call
            // either.
            Self::Unknown(_) | Self::Full(_) => self,
        }
    }
}

impl From<Trouble> for Unavailable {
    fn from(trouble: Trouble) -> Self {
        Self(trouble.to_string())
    }
}

impl From<Trouble> for ClusterError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Full(problem) => Self::Full(problem),
            Trouble::Away(problem) | Trouble::Unknown(problem) => Self::Unavailable(problem),
        }
    }
}

/// What an error means, and whether the connection is unusable.
pub(crate) fn judge(error: &RedisError) -> (Trouble, bool) {
    let problem = error.to_string();
    match error.kind() {
        ErrorKind::Server(
            ServerErrorKind::ReadOnly
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::BusyLoading,
        )
        | ErrorKind::AuthenticationFailed
        | ErrorKind::InvalidClientConfig => (Trouble::Away(problem), true),
        // Other errors of the server come before it does anything: our scripts fail at their first
        // command or not at all.
        ErrorKind::Server(_) | ErrorKind::Extension => match error.code() {
            Some("OOM") => (Trouble::Full(problem), false),
            _ => (Trouble::Away(problem), false),
        },
        // The request may have arrived: the connection broke, or no reply arrived in time.
        _ => (Trouble::Unknown(problem), true),
    }
}
