//! Load shedding: one rule for streams beyond a limit, for connections beyond the capacity, and for
//! credentials that have expired.
//!
//! Browsers close a native EventSource for good on any error, so it gets a stream with a `retry`
//! time that ends at once, and a notice of what its page can do. Every other client gets the error
//! itself, with Retry-After if it is temporary. All times are jittered, so that rejected clients do
//! not return together.

use std::time::Duration;

use http::{HeaderName, Method, header, request::Parts};
use tidings_net::Spread;

use crate::{
    NoCapacity,
    app::App,
    problem::{Problem, StreamNotice},
};

/// Seconds that a native EventSource with an expired credential is asked to wait: it cannot succeed
/// before its page, or the application that sets its cookie, renews the credential. A page that
/// renews it opens another EventSource and does not wait.
const EXPIRED_RETRY_SECS: u64 = 300;

/// Endpoints for operators, answered even without capacity: their responses need no stream and hold
/// nothing.
const ALWAYS_ANSWERED: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// The problem in the form after which this client reconnects.
pub(crate) fn shed(app: &App, parts: &Parts, problem: Problem) -> Problem {
    if !is_native_event_source(parts) {
        return problem;
    }
    let retry_secs = match problem.notice() {
        Some(StreamNotice::Expired | StreamNotice::Revoked) => EXPIRED_RETRY_SECS,
        Some(StreamNotice::OverLimit) | None => app.settings.retry_after_secs,
    };
    problem.sent_as_stream(spread_millis(retry_secs).max(1_000))
}

/// Refuses a request on a connection beyond the capacity, unless the endpoint is always answered.
pub(crate) fn check_capacity(app: &App, parts: &Parts) -> Result<(), Problem> {
    if parts.extensions.get::<NoCapacity>().is_none() || ALWAYS_ANSWERED.contains(&parts.uri.path()) {
        return Ok(());
    }
    let detail = "The hub has as many connections as it can hold. Try again later.";
    let problem = Problem::unavailable("connections", detail);
    Err(shed(app, parts, problem.retry_after(retry_after_secs(app))))
}

/// The `Retry-After` of a rejected client, in seconds.
pub(crate) fn retry_after_secs(app: &App) -> u64 {
    spread_millis(app.settings.retry_after_secs).div_ceil(1_000).max(1)
}

/// The headers that Chromium and Firefox send, and few other clients do.
fn is_native_event_source(parts: &Parts) -> bool {
    let is_only = |name: HeaderName, expected: &str| {
        let mut values = parts.headers.get_all(name).iter();
        values.next().is_some_and(|value| value.as_bytes() == expected.as_bytes()) && values.next().is_none()
    };
    parts.method == Method::GET
        && is_only(header::ACCEPT, "text/event-stream")
        && is_only(header::CACHE_CONTROL, "no-cache")
        && !parts.headers.contains_key(header::AUTHORIZATION)
}

/// Between 50 % and 150 % of this many seconds, in milliseconds.
fn spread_millis(secs: u64) -> u64 {
    u64::try_from(Spread::AROUND.of(Duration::from_secs(secs)).as_millis()).unwrap_or(u64::MAX)
}
