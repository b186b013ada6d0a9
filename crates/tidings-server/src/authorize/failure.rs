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
    /// There is no connection to it, or its response is broken.
    #[error(transparent)]
    Client(#[from] ClientError),
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
            Self::Client(ClientError::Unreachable { .. }) => "unreachable",
            Self::Client(ClientError::Broken { .. }) => "broken",
            Self::NoMemory => "no_memory",
            Self::Malformed(_) => "malformed",
        }
    }
}
