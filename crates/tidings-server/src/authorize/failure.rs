//! Why an application has not decided.

use crate::application::client::ClientError;

/// Why an application has not decided. [`Display`](std::fmt::Display) is for the operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// As many requests as may wait for it do.
    #[error("as many requests wait for it as may (authorize_requests_max)")]
    Busy,
    /// This address has its share of them.
    #[error("one client address has its share of the requests that may wait for it (authorize_requests_max)")]
    BusyForAddress,
    /// It has not answered in time.
    #[error("it has not answered in time")]
    TimedOut,
    /// There is no connection to it.
    #[error("{0}")]
    Unreachable(String),
    /// Its response ends early, or is not one of HTTP.
    #[error("{0}")]
    Broken(String),
    /// There is no memory for its response now.
    #[error("there is no memory for its response (responses_bytes_max)")]
    NoMemory,
    /// It has answered something that has no meaning.
    #[error("{0}")]
    Malformed(String),
}

impl Failure {
    /// One word for the log.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::BusyForAddress => "busy_for_address",
            Self::TimedOut => "timed_out",
            Self::Unreachable(_) => "unreachable",
            Self::Broken(_) => "broken",
            Self::NoMemory => "no_memory",
            Self::Malformed(_) => "malformed",
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unreachable { .. } => Self::Unreachable(error.to_string()),
            ClientError::Broken { .. } => Self::Broken(error.to_string()),
        }
    }
}
