//! `GET /topics/{topic}` as JSON: how things stand with a topic.

use axum::Json;
use serde::Serialize;
use tidings::{Filter, Matcher, log::Entry};
use tidings_auth::Access;

use crate::{problem::Problem, router::App};

/// A topic at one moment. Subscribing with `since` of the cursor misses nothing and repeats nothing.
#[derive(Serialize)]
pub(crate) struct Summary {
    topic: String,
    /// Streams of this hub that an event on this topic reaches.
    subscribers: usize,
    /// The id of the newest event.
    newest: Option<String>,
    cursor: String,
    /// The newest events, oldest first.
    events: Vec<SummaryEvent>,
}

/// An event in the same form in which `format=json` streams it.
#[derive(Serialize)]
struct SummaryEvent {
    topic: String,
    id: String,
    r#type: String,
    time: String,
    data: String,
}

/// The summary of what this reader may see.
pub(crate) async fn summary(app: &App, access: &Access, matcher: Matcher) -> Result<Json<Summary>, Problem> {
    let topic = matcher.as_str().to_owned();
    let subscribers = match &matcher {
        Matcher::Exact(topic) => app.hub.subscribers(topic),
        Matcher::Any | Matcher::Pattern(_) => app.hub.stats().subscribers,
    };
    let filter = Filter { matchers: vec![matcher], grants: access.subscribe.clone() };
    let snapshot = app.hub.last_events(app.settings.summary_events_max, &filter).await?;
    let events: Vec<_> = snapshot.entries.iter().map(|entry| SummaryEvent::new(entry)).collect();
    let newest = events.last().map(|event| event.id.clone());
    Ok(Json(Summary { topic, subscribers, newest, cursor: snapshot.end.to_string(), events }))
}

impl SummaryEvent {
    fn new(entry: &Entry) -> Self {
        let event = &entry.event;
        let millis = i64::try_from(entry.time.to_millis()).unwrap_or(i64::MAX);
        Self {
            topic: event.topics.first().map(ToString::to_string).unwrap_or_default(),
            id: entry.id.to_string(),
            r#type: event.event_type.as_ref().map_or("message", |event_type| event_type.as_str()).to_owned(),
            time: jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX).to_string(),
            data: event.data.clone(),
        }
    }
}
