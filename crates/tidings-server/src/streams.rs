//! Subscribing: the one core behind every api that streams.
//!
//! A api reads its own spelling into a [`StreamRequest`]; from there on there is one path: rights, a slot, the hub, the answer. A slot
//! belongs to the open stream and is given back with it, however the stream ends and the one that carries it (`open_stream`).

use std::{convert::Infallible, net::IpAddr};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use tidings::{
    Format, Matcher, PatternError, PatternsFull, Requested, Subscribe, SubscribeError, Subscription,
    log::Cursor, log::Position,
};
use tidings_auth::Access;

use crate::{
    PeerAddress,
    access::expires_in,
    open_stream::{OpenStream, StreamKeep, Takeover},
    problem::Problem,
    router::App,
    shedding::{retry_after_secs, shed},
    slots::{COMPILING_PER_ADDRESS_MAX, NoSlot},
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

    let slot = app.slots.take(peer_address(parts)).and_then(|mut slot| {
        slot.take_patterns(&request.matchers)?;
        Ok(slot)
    });
    let slot = match slot {
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
        Err(SubscribeError::TooManyPatterns(full)) => {
            return Ok(turn_away(app, parts, too_many_patterns(app, full)));
        }
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
pub(crate) async fn matchers(
    app: &App,
    parts: &Parts,
    exact: &[&str],
    patterns: &[&str],
) -> Result<Vec<Matcher>, Problem> {
    let validator = app.hub.validator();
    // Counted before anything is compiled.
    validator
        .matchers_count(exact.len() + patterns.len())
        .map_err(|invalid| Problem::of_matcher(&invalid))?;
    let bytes: usize = patterns.iter().map(|text| text.len()).sum();
    let bytes_max = app.settings.pattern_bytes_max;
    if bytes > bytes_max {
        return Err(Problem::bad_request(
            "pattern_bytes_max",
            format!(
                "The patterns have {bytes} bytes together; the limit is {bytes_max}: use shorter ones, or several streams."
            ),
        ));
    }
    let exact = exact.iter().map(|text| validator.exact(text));
    let mut matchers: Vec<_> =
        exact.collect::<Result<_, _>>().map_err(|invalid| Problem::of_matcher(&invalid))?;
    for text in patterns {
        let _waiting = match validator.known_pattern(text) {
            Some(_) => None,
            None => {
                Some(app.slots.compiling(peer_address(parts), text).map_err(|reason| no_slot(app, reason))?)
            }
        };
        matchers.push(app.hub.pattern(text).await.map_err(|error| {
            match error {
                PatternError::Invalid(invalid) => Problem::of_matcher(&invalid),
                _ => Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "patterns",
                    "The hub is asked for more new patterns at once than it compiles. Try again later.",
                )
                .retry_after(retry_after_secs(app)),
            }
        })?);
    }
    Ok(matchers)
}

/// A refusal in the words that this client survives, if it is to come back.
pub(crate) fn refused(app: &App, parts: &Parts, problem: Problem) -> Result<Response, Problem> {
    if problem.is_temporary() { Ok(turn_away(app, parts, problem)) } else { Err(problem) }
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

fn too_many_patterns(app: &App, full: PatternsFull) -> Problem {
    let (limit, detail) = match full {
        PatternsFull::Count => (
            "patterns_max",
            "The hub has as many distinct patterns subscribed to as it may have (`patterns_max`). Try again later.",
        ),
        PatternsFull::Weight => (
            "pattern_weight_max",
            "The hub has as many patterns with this literal beginning as it may compare with one topic (`pattern_weight_max`). Try again \
             later, or use a pattern that begins with more text, as `/users/:id` does.",
        ),
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, limit, detail).retry_after(retry_after_secs(app))
}

fn no_slot(app: &App, reason: NoSlot) -> Problem {
    let limits = app.slots.limits();
    let problem = match reason {
        NoSlot::Total => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "streams",
            format!(
                "The hub has all the {} streams open that it may have. Try again later.",
                limits.total_max
            ),
        ),
        NoSlot::Address => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "streams_per_address",
            format!(
                "Your address has {} streams open and may have no more: one stream can carry many topics, as in `/stream?topic=a&topic=b`.",
                limits.per_address_max
            ),
        ),
        NoSlot::Patterns(PatternsFull::Count) => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "patterns_per_address_max",
            format!(
                "Your address may have {} distinct patterns subscribed to (`patterns_per_address_max`), and these would be more: one pattern can match many topics, as `/users/:id` does.",
                limits.patterns.count_max
            ),
        ),
        NoSlot::Patterns(PatternsFull::Weight) => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "pattern_weight_per_address_max",
            format!(
                "Comparing one topic with the patterns of your address may take {} units of work (`pattern_weight_per_address_max`), and with these it would take more: use patterns that begin with more text, as `/users/:id` does, or without regular expressions.",
                limits.patterns.weight_max
            ),
        ),
        NoSlot::Compiling => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "patterns",
            format!(
                "Your address has {COMPILING_PER_ADDRESS_MAX} new patterns under way and may have no more at a time."
            ),
        ),
    };
    problem.retry_after(retry_after_secs(app))
}

fn turn_away(app: &App, parts: &Parts, problem: Problem) -> Response {
    app.metrics.streams_shed.inc();
    shed(app, parts, problem)
}

/// What a subscriber who names nothing is reported.
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
