//! What the operator learns of refused requests: counters, and log lines that clients cannot flood.

use std::{fmt, time::Duration};

use axum::response::Response;
use http::{Method, StatusCode};

use crate::{
    ClientAddress,
    forwarded::MalformedAddresses,
    limit_log::LimitLog,
    metrics::{counts::Counts, labels::LabelValue},
    problem::{APPLICATION, Refused},
    throttled_log::{Summary, ThrottledLog},
};

/// The throttled log of refusals.
pub(crate) struct RefusalLog {
    unserved: ThrottledLog<Occasion>,
    failed_credentials: ThrottledLog<Occasion>,
    failed_applications: ThrottledLog<FailedApplication>,
    failed_upstream: ThrottledLog<FailedApplication>,
    malformed_addresses: ThrottledLog<Occasion>,
    limits: LimitLog,
}

impl Default for RefusalLog {
    fn default() -> Self {
        Self {
            unserved: ThrottledLog::new(UNSERVED_INTERVAL, log_unserved),
            failed_credentials: ThrottledLog::new(FAILED_CREDENTIALS_INTERVAL, log_failed_credentials),
            failed_applications: ThrottledLog::new(FAILED_APPLICATIONS_INTERVAL, log_failed_applications),
            failed_upstream: ThrottledLog::new(FAILED_APPLICATIONS_INTERVAL, log_failed_upstream),
            malformed_addresses: ThrottledLog::new(MALFORMED_ADDRESSES_INTERVAL, log_malformed_addresses),
            limits: LimitLog::default(),
        }
    }
}

impl RefusalLog {
    /// Logs that an application has not decided about a stream.
    pub(crate) fn application_failed(&self, reason: &'static str, url: String, cause: String) {
        self.failed_applications.record(reason, FailedApplication { url, cause });
    }

    /// Logs that the application behind the hub has not answered a request.
    pub(crate) fn upstream_failed(&self, reason: &'static str, url: String, cause: String) {
        self.failed_upstream.record(reason, FailedApplication { url, cause });
    }

    /// Counts and logs a response, if it is a refusal.
    pub(crate) fn report(
        &self,
        counts: &Counts,
        method: &Method,
        path: &str,
        client: Option<ClientAddress>,
        response: &Response,
    ) {
        let status = response.status();
        let refused = response.extensions().get::<Refused>();
        // A browser may be refused by an empty stream.
        let failed_credential = refused.and_then(|refused| refused.failed_credential);
        if let Some(why) = failed_credential {
            counts.authentication_failures.count(why);
        }
        let limit = refused.and_then(|refused| refused.limit);
        if let Some(limit) = limit {
            self.limits.reached(*limit, client);
        }
        if !(status.is_client_error() || status.is_server_error()) {
            return;
        }
        let occasion = || Occasion {
            method: method.clone(),
            path: path.chars().take(LOGGED_PATH_CHARS_MAX).collect(),
            status,
            reason: refused.map_or("", |refused| refused.reason),
            cause: refused.and_then(|refused| refused.cause.clone()),
            client,
        };
        if status.is_server_error() {
            if limit.is_some() || refused.is_some_and(|refused| refused.reason == APPLICATION) {
                return;
            }
            self.unserved.record(refused.map_or("other", |refused| refused.reason), occasion());
            return;
        }
        if let Some(why) = failed_credential {
            self.failed_credentials.record(why.as_str(), occasion());
        }
        if refused.is_some_and(|refused| refused.reason == MalformedAddresses::REASON) {
            self.malformed_addresses.record(MalformedAddresses::REASON, occasion());
        }
        if tracing::enabled!(tracing::Level::DEBUG) {
            let refused = occasion();
            tracing::debug!(
                request = %refused,
                status = status.as_u16(),
                reason = refused.reason,
                cause = refused.cause,
                client = refused.client(),
                "a request was refused"
            );
        }
    }
}

/// Longest part of a path that is logged, in characters.
const LOGGED_PATH_CHARS_MAX: usize = 256;
/// While the log is unreachable, every publication is one of these.
const UNSERVED_INTERVAL: Duration = Duration::from_secs(1);
/// An operator wants to know about clients with a wrong key, or that try keys.
const FAILED_CREDENTIALS_INTERVAL: Duration = Duration::from_secs(60);

/// While an application is down, everything that it is asked is one of these.
const FAILED_APPLICATIONS_INTERVAL: Duration = Duration::from_secs(10);

/// What the log records of an application that has not decided.
struct FailedApplication {
    url: String,
    cause: String,
}
/// An operator wants to know about a proxy that is configured wrongly.
const MALFORMED_ADDRESSES_INTERVAL: Duration = Duration::from_secs(60);

/// What the log records of a refused request. The query is left out: it may contain data and, from
/// misconfigured clients, tokens.
struct Occasion {
    method: Method,
    path: String,
    status: StatusCode,
    reason: &'static str,
    cause: Option<String>,
    client: Option<ClientAddress>,
}

impl Occasion {
    fn client(&self) -> Option<impl tracing::Value + use<>> {
        self.client.map(tracing::field::display)
    }
}

impl fmt::Display for Occasion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path.escape_debug())
    }
}

fn log_unserved(summary: &Summary<Occasion>) {
    let last = &summary.last;
    tracing::warn!(
        request = %last,
        status = last.status.as_u16(),
        reason = last.reason,
        cause = last.cause,
        client = last.client(),
        count = summary.count(),
        "requests could not be served; this was the last one"
    );
}

fn log_failed_credentials(summary: &Summary<Occasion>) {
    let last = &summary.last;
    tracing::warn!(
        count = summary.count(),
        reasons = summary.reasons(),
        client = last.client(),
        request = %last,
        cause = last.cause,
        "credentials were refused; client, request and cause are those of the last one"
    );
}

fn log_failed_applications(summary: &Summary<FailedApplication>) {
    let FailedApplication { url, cause } = &summary.last;
    tracing::warn!(
        count = summary.count(),
        reasons = summary.reasons(),
        url,
        cause = %cause.escape_debug(),
        "an application has not decided about streams, which were refused; url and cause are those of the last one"
    );
}

fn log_failed_upstream(summary: &Summary<FailedApplication>) {
    let FailedApplication { url, cause } = &summary.last;
    tracing::warn!(
        count = summary.count(),
        reasons = summary.reasons(),
        url,
        cause = %cause.escape_debug(),
        "requests have no response of the application; url and cause are those of the last one"
    );
}

fn log_malformed_addresses(summary: &Summary<Occasion>) {
    let last = &summary.last;
    tracing::warn!(
        count = summary.count(),
        cause = last.cause,
        request = %last,
        "requests of trusted proxies were refused, because their lists of addresses cannot be read; cause and request are those of the last one"
    );
}
