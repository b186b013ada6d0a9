//! Why a request has no response of the application, and what its client receives instead.

use http::{StatusCode, request::Parts};

use super::settings::Upstream;
use crate::{
    app::App,
    application::client::ClientError,
    metrics::counts::UpstreamOutcome,
    problem::{APPLICATION, OUTAGE_SECS, Problem},
    shedding::shed,
};

/// [`Display`](std::fmt::Display) is for the operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// As many requests as may be are under way.
    #[error("as many requests are under way as may be (upstream_requests_max)")]
    Busy,
    /// This address has its share of them.
    #[error("one client address has its share of the requests that may be under way (upstream_requests_max)")]
    BusyForAddress,
    /// The headers of its response have not come in time.
    #[error("it has not answered in time (upstream_secs)")]
    TimedOut,
    /// There is no connection to it.
    #[error("{0}")]
    Unreachable(String),
    /// Its response ends early, or is not one of HTTP.
    #[error("{0}")]
    Broken(String),
    /// It has answered something that has no meaning.
    #[error("{0}")]
    Malformed(String),
    /// The client has not sent its body in time.
    #[error("the client has not sent its body in time (body_secs)")]
    UploadLate,
    /// The client has not sent its body to the end.
    #[error("the client has not sent its body to the end")]
    UploadBroken,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unreachable { .. } => Self::Unreachable(error.to_string()),
            ClientError::Broken { .. } => Self::Broken(error.to_string()),
        }
    }
}

impl Failure {
    /// One word for the log, if it is not the client's failure.
    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Busy => Some("busy"),
            Self::BusyForAddress => Some("busy_for_address"),
            Self::TimedOut => Some("timed_out"),
            Self::Unreachable(_) => Some("unreachable"),
            Self::Broken(_) => Some("broken"),
            Self::Malformed(_) => Some("malformed"),
            Self::UploadLate | Self::UploadBroken => None,
        }
    }

    /// The response. A native EventSource, which would give up for good, receives an empty stream
    /// where it makes sense to try again.
    pub(super) fn answer(&self, app: &App, upstream: &Upstream, parts: &Parts) -> Problem {
        app.counts.upstream_requests.count(UpstreamOutcome::Failed);
        if let Some(reason) = self.reason() {
            app.refusals.upstream_failed(reason, upstream.to_string(), self.to_string());
        }
        let (status, detail) = match self {
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many requests to the application are under way. Try again later.",
            ),
            Self::BusyForAddress => (
                StatusCode::TOO_MANY_REQUESTS,
                "Too many requests of your address to the application are under way. Try again later.",
            ),
            Self::TimedOut => {
                (StatusCode::GATEWAY_TIMEOUT, "The application has not answered in time. Try again later.")
            }
            Self::Unreachable(_) => (
                StatusCode::BAD_GATEWAY,
                "The application cannot be reached: it may be restarting. Try again in a moment.",
            ),
            Self::Broken(_) => (
                StatusCode::BAD_GATEWAY,
                "The response of the application is broken: it may be restarting. Try again in a moment.",
            ),
            Self::Malformed(_) => (
                StatusCode::BAD_GATEWAY,
                "The hub cannot use the response of the application; the log of the hub says why.",
            ),
            Self::UploadLate => (StatusCode::REQUEST_TIMEOUT, "The request body did not arrive in time."),
            Self::UploadBroken => {
                (StatusCode::BAD_REQUEST, "The request body ended early, or its chunks are malformed.")
            }
        };
        let problem = Problem::new(status, APPLICATION, detail);
        match self {
            // It stays malformed until the application is repaired.
            Self::Malformed(_) | Self::UploadLate | Self::UploadBroken => problem,
            _ => shed(app, parts, problem.retry_after(OUTAGE_SECS)),
        }
    }
}
