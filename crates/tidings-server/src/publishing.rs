//! Publishing: the one core behind every face that takes events.

use std::str;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use tidings::{ConnectionId, Event, IdempotencyKey, NewEvent, Published};
use tidings_auth::Access;

use crate::{
    access::cover_events,
    connection::read_body,
    problem::{Problem, excerpt, sentence},
    router::App,
};

/// Events that somebody wants to publish together, checked already, whichever way they were said.
#[derive(Debug)]
pub(crate) struct PublishRequest {
    pub(crate) events: Vec<Event>,
    pub(crate) key: Option<IdempotencyKey>,
}

/// Publishes all of them or none.
pub(crate) async fn publish(
    app: &App,
    access: &Access,
    request: PublishRequest,
) -> Result<Vec<Published>, Problem> {
    cover_events(access, &request.events)?;
    let has_key = request.key.is_some();
    let published = app.hub.publish_events(request.events, request.key).await;
    published.map_err(|error| Problem::of_publication(error, has_key))
}

/// Checks an event as the hub's validator does.
pub(crate) fn validate(app: &App, event: NewEvent) -> Result<Event, Problem> {
    app.hub.validator().event(event).map_err(|invalid| Problem::of_event(&invalid))
}

/// The body of a request, within the limits of the settings.
pub(crate) async fn body_bytes<B: Body<Data = Bytes>>(
    app: &App,
    headers: &HeaderMap,
    body: B,
) -> Result<Bytes, Problem> {
    let limit = app.settings.body_bytes_max;
    // Before a byte of it is read, or asked for with `100 Continue`.
    let declared = headers
        .get(http::header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit) {
        return Err(body_too_large(limit));
    }
    read_body(body, limit, app.settings.body_secs).await.map_err(|error| match error {
        crate::BodyError::TooLarge => body_too_large(limit),
        other => other.into(),
    })
}

fn body_too_large(limit: usize) -> Problem {
    Problem::too_large("body", format!("The body is larger than the {limit} bytes that this hub takes."))
}

/// A body as text.
pub(crate) fn utf8(body: &[u8]) -> Result<&str, Problem> {
    str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        Problem::bad_request("body", format!("The body is not valid UTF-8 from byte {at} on: events are text, so encode binary data, for example as base64."))
    })
}

/// The connection that `except` names.
pub(crate) fn connection_id(text: &str) -> Result<ConnectionId, Problem> {
    ConnectionId::parse(text).ok_or_else(|| {
        let shown = excerpt(text);
        Problem::bad_request("except", format!("The value {shown} of `except` names no connection: take the one from the `hello` notice of a stream."))
    })
}

/// The milliseconds that `retry` asks for.
pub(crate) fn retry_millis(app: &App, text: &str) -> Result<u64, Problem> {
    app.hub.validator().retry_millis(text).map_err(|invalid| Problem::bad_request("retry", sentence(invalid)))
}
