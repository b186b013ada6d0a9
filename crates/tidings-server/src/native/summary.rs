//! `GET /topics/{topic}` as JSON: the current state of a topic.

use axum::response::Response;
use http::request::Parts;
use serde::Serialize;
use tidings::{Filter, JsonEvent, Matcher};
use tidings_auth::Access;

use super::json::large_json_line;
use crate::{app::App, problem::Problem, streams::cursor_header};

/// A topic at one moment. Subscribing with `since` of the cursor misses nothing and repeats
/// nothing.
#[derive(Serialize)]
struct Summary<'a> {
    topic: &'a str,
    /// Streams of this hub that an event on this topic reaches. Omitted for readers whose
    /// credential does not cover the topic: the number also counts subscribers of its private
    /// events.
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribers: Option<usize>,
    /// The id of the newest event.
    newest: Option<&'a str>,
    cursor: &'a str,
    /// The newest events, oldest first, in the form in which `format=json` streams them.
    events: Vec<JsonEvent<'a>>,
}

/// The summary, restricted to the events that this reader may receive.
pub(crate) async fn summary(
    app: &App,
    parts: &Parts,
    access: &Access,
    matcher: Matcher,
) -> Result<Response, Problem> {
    let filter = Filter { matchers: vec![matcher], grants: access.subscribe.clone() };
    let snapshot = app.hub.last_events(app.settings.summary_events_max, filter.clone()).await?;
    let matcher = &filter.matchers[0];
    let summary = Summary {
        topic: matcher.as_str(),
        subscribers: subscribers(app, access, matcher),
        newest: snapshot.entries.last().map(|entry| entry.id.as_str()),
        cursor: snapshot.end.as_str(),
        events: snapshot.entries.iter().map(|entry| JsonEvent::from(&**entry)).collect(),
    };
    let mut response = large_json_line(app, parts, &summary)?;
    response.headers_mut().extend([cursor_header(&snapshot.end)]);
    Ok(response)
}

fn subscribers(app: &App, access: &Access, matcher: &Matcher) -> Option<usize> {
    match matcher {
        Matcher::Exact(topic) => access.subscribe.covers(topic).then(|| app.hub.subscribers_of(topic)),
        Matcher::Any | Matcher::Pattern(_) => access.subscribe.is_all().then(|| app.hub.stats().subscribers),
    }
}
