//! Turning away somebody who may come back: one rule for streams beyond a limit, and for connections that found no room.
//!
//! Browsers close a native EventSource for ever on any error, so it gets an empty stream that says when to come back. Everybody else
//! gets the error itself, with Retry-After. Either time is spread, so that those who leave together do not come back together.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use tidings::Subscription;

use crate::{NoRoom, problem::Problem, router::App};

/// What an operator's machines ask also when there is no room: their answers cost no stream and keep nothing.
const ALWAYS_ANSWERED: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Answers with `problem`, in the words that this client survives. Without an id, so that its cursor stays where it was.
pub(crate) fn shed(app: &App, parts: &Parts, problem: Problem) -> Response {
    if !is_native_event_source(parts) {
        return problem.into_response();
    }
    let retry_millis = jittered(app.settings.retry_after_secs.saturating_mul(1_000), 1_000);
    let body = format!(": the hub is full\nretry: {retry_millis}\n\n");
    let mut headers = Subscription::headers();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    (headers, body).into_response()
}

/// The answer to a request whose connection found no room, unless it is one that is always answered.
pub(crate) fn shed_for_want_of_room(app: &App, parts: &Parts) -> Option<Response> {
    parts.extensions.get::<NoRoom>()?;
    if ALWAYS_ANSWERED.contains(&parts.uri.path()) {
        return None;
    }
    let detail = "The hub has as many connections as it can hold. Try again later.";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "connections", detail);
    Some(shed(app, parts, problem.retry_after(retry_after_secs(app))))
}

/// How long somebody is asked to wait, in seconds.
pub(crate) fn retry_after_secs(app: &App) -> u64 {
    jittered(app.settings.retry_after_secs, 1)
}

/// What Chromium and Firefox send, and hardly anybody else does.
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

/// Between 50 % and 150 % of a time, at least `least`. Where the system has no randomness the time itself: jitter is then lost, and nothing else.
fn jittered(time: u64, least: u64) -> u64 {
    let share = getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX));
    let spread = Duration::from_millis(time).mul_f64(0.5 + share);
    u64::try_from(spread.as_millis()).unwrap_or(time).max(least)
}
