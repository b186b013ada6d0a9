//! Publishing: the core that every API with publications uses.

use std::{str, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use http_body::Body;
use tidings::{ConnectionId, Event, IdempotencyKey, NewEvent, Published};
use tidings_auth::Access;
use tidings_presence::PRESENCE_SUFFIX;

use crate::{
    access::{client_address, cover_events},
    app::App,
    connection::ReadBody,
    metrics::{
        counts::{PublishApi, PublishOutcome},
        labels::LabelValue,
    },
    problem::{Problem, excerpt, sentence},
};

/// Publishes all of these valid events or none, whichever API they came through.
pub(crate) async fn publish(
    app: &App,
    api: PublishApi,
    access: &Access,
    events: Vec<Event>,
    key: Option<IdempotencyKey>,
) -> Result<Vec<Published>, Problem> {
    cover_events(access, &events)?;
    refuse_presence_topics(app, &events)?;
    let has_key = key.is_some();
    let start = Instant::now();
    let published = app.hub.publish_events(events, key).await;
    let counts = &app.counts;
    counts.publish_durations[api.place()].record(start.elapsed());
    let published = published.map_err(|error| Problem::of_publication(error, has_key))?;
    for event in &published {
        let outcome = match event {
            Published { id: None, .. } => PublishOutcome::Ephemeral,
            Published { duplicate: true, .. } => PublishOutcome::Duplicate,
            Published { .. } => PublishOutcome::Stored,
        };
        counts.events_published.count((api, outcome));
    }
    Ok(published)
}

/// Counts a request that has published nothing, as one event: the others are counted by
/// [`publish`].
pub(crate) fn counted<T>(app: &App, api: PublishApi, result: Result<T, Problem>) -> Result<T, Problem> {
    result.inspect_err(|problem| {
        let is_refused = problem.status().is_client_error();
        let outcome = if is_refused { PublishOutcome::Refused } else { PublishOutcome::Unavailable };
        app.counts.events_published.count((api, outcome));
    })
}

/// Refuses events on topics where the hub itself reports presence: subscribers take them for its own.
fn refuse_presence_topics(app: &App, events: &[Event]) -> Result<(), Problem> {
    if !app.settings.presence_events {
        return Ok(());
    }
    let mut topics = events.iter().flat_map(|event| &event.topics);
    let Some(topic) = topics.find(|topic| topic.as_str().ends_with(PRESENCE_SUFFIX)) else { return Ok(()) };
    let detail = format!(
        "The hub itself reports presence on the topic {} (`presence_events`): publish on another one.",
        excerpt(topic.as_str())
    );
    Err(Problem::forbidden("presence", detail))
}

/// Checks an event as the hub's validator does.
pub(crate) fn validate(app: &App, event: NewEvent) -> Result<Event, Problem> {
    app.hub.validator().event(event).map_err(|invalid| Problem::of_event(&invalid))
}

/// The media type and character encoding that a publisher declares.
pub(crate) struct ContentType<'a> {
    as_sent: &'a str,
    /// Without parameters; empty without the header.
    pub(crate) media_type: &'a str,
    /// No other character encoding is declared. ASCII is UTF-8.
    pub(crate) is_utf8: bool,
}

impl<'a> ContentType<'a> {
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let value = headers.get(header::CONTENT_TYPE);
        let as_sent = value.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut parts = as_sent.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let is_utf8 = parts.filter_map(|parameter| parameter.split_once('=')).all(|(name, value)| {
            let charset = value.trim().trim_matches('"');
            let known = ["utf-8", "utf8", "us-ascii", "ascii"];
            !name.trim().eq_ignore_ascii_case("charset")
                || known.iter().any(|known| charset.eq_ignore_ascii_case(known))
        });
        Self { as_sent, media_type, is_utf8 }
    }

    /// The refusal of a body of this type.
    pub(crate) fn unsupported(&self, what_to_do: &str) -> Problem {
        Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_type",
            format!("The Content-Type {} is not accepted here: {what_to_do}.", excerpt(self.as_sent)),
        )
    }
}

/// Refuses multipart bodies, whose data would be a wire format, and text in another encoding. A
/// text body of any other media type is published as it is. `example` is the correct command.
pub(crate) fn check_text(headers: &HeaderMap, example: &str) -> Result<(), Problem> {
    let content_type = ContentType::of(headers);
    let kind = content_type.media_type.split('/').next().unwrap_or_default();
    if kind.eq_ignore_ascii_case("multipart") {
        return Err(content_type.unsupported(&format!("the body itself is the data, as in `{example}`")));
    }
    if !content_type.is_utf8 {
        return Err(content_type.unsupported("send text in UTF-8"));
    }
    Ok(())
}

/// RFC 9110, section 8.4.1: the data would be the compressed bytes.
fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
    let encoded =
        values.find(|value| !value.is_empty() && !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    let Some(value) = encoded else { return Ok(()) };
    let shown = excerpt(value.to_str().unwrap_or_default());
    let problem = Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "content_encoding",
        format!("The Content-Encoding {shown} is not supported: send the body without compression."),
    );
    // RFC 9110, section 12.5.3.
    Err(problem.header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")))
}

/// The body of a request, within the limits of the settings.
pub(crate) async fn body_bytes<B: Body<Data = Bytes>>(
    app: &App,
    parts: &Parts,
    body: B,
) -> Result<ReadBody, Problem> {
    let headers = &parts.headers;
    check_encoding(headers)?;
    let limit = app.settings.body_bytes_max;
    // Checked before a byte is read, or requested with `100 Continue`.
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit) {
        return Err(body_too_large(limit));
    }
    app.bodies.read(body, Some(client_address(parts)), limit, app.settings.body_secs).await.map_err(|error| {
        match error {
            crate::BodyError::TooLarge => body_too_large(limit),
            other => other.into(),
        }
    })
}

fn body_too_large(limit: usize) -> Problem {
    Problem::too_large("body", format!("The body is larger than the {limit} bytes that this hub accepts."))
}

/// A body as text.
pub(crate) fn utf8(body: &[u8]) -> Result<&str, Problem> {
    str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        Problem::bad_request("body", format!("The body is not valid UTF-8 from byte {at} on: events are text, so encode binary data, for example as base64."))
    })
}

/// The connection that the field of this name names.
pub(crate) fn connection_id(field: &'static str, text: &str) -> Result<ConnectionId, Problem> {
    ConnectionId::parse(text).ok_or_else(|| {
        let shown = excerpt(text);
        Problem::bad_request(field, format!("The value {shown} of `{field}` is not a connection: take it from the `hello` notice of a stream."))
    })
}

/// The value of `retry`, in milliseconds.
pub(crate) fn retry_millis(app: &App, text: &str) -> Result<u64, Problem> {
    app.hub.validator().retry_millis(text).map_err(|invalid| Problem::bad_request("retry", sentence(invalid)))
}
