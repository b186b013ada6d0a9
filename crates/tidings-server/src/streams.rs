//! Subscribing: the one core behind every face that streams.
//!
//! A face reads its own spelling into a [`StreamRequest`]; from there on there is one path: rights, a slot, the hub, the answer. A slot
//! belongs to the open stream and is given back with it, however the stream ends and whoever carries it (`open_stream`).

use std::{convert::Infallible, net::IpAddr};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use tidings::{
    Format, Matcher, Requested, Subscribe, SubscribeError, Subscription, log::Cursor, log::Position,
};
use tidings_auth::Access;

use crate::{
    PeerAddress,
    access::expires_in,
    open_stream::{OpenStream, StreamKeep, Takeover},
    problem::Problem,
    router::App,
    shedding::{retry_after_secs, shed},
    slots::NoSlot,
};

/// What somebody wants to receive, whichever way it was said.
#[derive(Debug)]
pub(crate) struct StreamRequest {
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) start: Requested,
    pub(crate) format: Format,
    /// Begin with a notice that names the connection.
    pub(crate) hello: bool,
    /// Tell in a header where the stream goes on (the Mercure protocol, "Reconciliation").
    pub(crate) tells_cursor: bool,
}

/// Answers a subscription.
pub(crate) async fn stream(
    app: &App,
    parts: &Parts,
    access: Access,
    request: StreamRequest,
) -> Result<Response, Problem> {
    app.hub
        .validator()
        .matchers_count(request.matchers.len())
        .map_err(|invalid| Problem::of_matcher(&invalid))?;
    let mut headers = Subscription::headers();
    if app.settings.charset_utf8 {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    }
    // RFC 9110, section 9.3.2: HEAD answers as GET does, so it claims no length. Nobody would read a stream, so none is opened.
    if parts.method == Method::HEAD {
        let unread = futures_util::stream::empty::<Result<Bytes, Infallible>>();
        return Ok((headers, Body::from_stream(unread)).into_response());
    }

    let slot = match app.slots.take(peer_address(parts)) {
        Ok(slot) => slot,
        Err(reason) => return Ok(turn_away(app, parts, no_slot(app, reason))),
    };
    let tells_cursor = request.tells_cursor && request.start != Requested::Nothing;
    let mut subscribe = Subscribe::new(request.matchers)
        .since(request.start.since())
        .format(request.format)
        .hello(request.hello)
        .grants(access.subscribe.clone());
    if let Some(expires_in) = expires_in(&access) {
        subscribe = subscribe.expires_in(expires_in);
    }
    let subscription = match app.hub.subscribe(subscribe).await {
        Ok(subscription) => subscription,
        Err(error @ SubscribeError::Unavailable(_)) => return Ok(turn_away(app, parts, error.into())),
        Err(error) => return Err(error.into()),
    };
    if tells_cursor {
        headers.extend(resumed_from(&subscription));
    }
    let keep = StreamKeep::new(slot, &app.metrics);
    let takeover = Takeover::of(OpenStream { subscription, keep });
    let mut response = (headers, Body::new(takeover.body())).into_response();
    response.extensions_mut().insert(takeover);
    Ok(response)
}

/// The matchers of exact names and patterns.
pub(crate) fn matchers(app: &App, exact: &[&str], patterns: &[&str]) -> Result<Vec<Matcher>, Problem> {
    let validator = app.hub.validator();
    // Counted before anything is compiled.
    let matchers = validator.matchers_count(exact.len() + patterns.len()).and_then(|()| {
        let exact = exact.iter().map(|text| validator.exact(text));
        exact.chain(patterns.iter().map(|text| validator.pattern(text))).collect()
    });
    matchers.map_err(|invalid| Problem::of_matcher(&invalid))
}

/// The Mercure protocol, "Reconciliation": the id before the first event that is sent, `earliest` if there is none. Ids have no control
/// characters, so their bytes can stand in a header as they are.
fn resumed_from(subscription: &Subscription) -> Option<(HeaderName, HeaderValue)> {
    let place = subscription.place();
    let is_before_all =
        Cursor::parse(place.as_str()).is_ok_and(|cursor| cursor.position == Position::BEFORE_ALL);
    let id = match subscription.resumed_from() {
        Some(resumed) => resumed.as_str(),
        None if is_before_all => "earliest",
        None => place.as_str(),
    };
    let value = HeaderValue::from_bytes(id.as_bytes()).ok()?;
    Some((HeaderName::from_static("mercure-last-event-id"), value))
}

fn peer_address(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<PeerAddress>().map(|peer| peer.0.ip())
}

fn no_slot(app: &App, reason: NoSlot) -> Problem {
    let problem = match reason {
        NoSlot::Total => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "streams",
            format!(
                "The hub has all the {} streams open that it may have. Try again later.",
                app.slots.total_max()
            ),
        ),
        NoSlot::Address => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "streams_per_address",
            format!(
                "Your address has {} streams open and may have no more: one stream can carry many topics, as in `/stream?topic=a&topic=b`.",
                app.slots.per_address_max()
            ),
        ),
    };
    problem.retry_after(retry_after_secs(app))
}

fn turn_away(app: &App, parts: &Parts, problem: Problem) -> Response {
    app.metrics.streams_shed.inc();
    shed(app, parts, problem)
}

/// What a subscriber who names nothing is told.
pub(crate) fn nothing_named(example: &str) -> Problem {
    Problem::bad_request(
        "topic",
        format!("Nothing is subscribed to: name at least one topic, as in `{example}`."),
    )
}

/// The headers of an answer that depends on what the client accepts.
pub(crate) fn vary_accept(headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("Accept"));
}
