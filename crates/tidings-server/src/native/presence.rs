//! `GET /topics/{topic}/presence`: who is subscribed to a topic, at all hubs of the cluster.
//!
//! The path is that of a topic, whose name is that of the other one and `/presence`. So there is no
//! permission of a new kind: to see who is present on `chat`, a credential has to cover the
//! subscription to `chat/presence`. One that covers `chat` alone does not, because labels name users.

use std::sync::Arc;

use axum::response::Response;
use http::request::Parts;
use serde::Serialize;
use tidings::Matcher;
use tidings_auth::{Access, TICKET_PARAMETER, private_topic};
use tidings_presence::{PRESENCE_SUFFIX, PresenceIndex};

use super::json::large_json_line;
use crate::{
    accept::{Form, names},
    access::stay_within_ticket,
    app::App,
    problem::Problem,
    query::Parameters,
    streams::vary_accept,
};

/// Labels of a response, unless the request names another number.
const LABELS_DEFAULT: usize = 100;

/// Most labels of a response.
const LABELS_MAX: usize = 1_000;

const PARAMETERS: [&str; 3] = ["after", "limit", TICKET_PARAMETER];

/// A request for the presence on a topic.
pub(super) struct Asked<'a> {
    index: &'a Arc<PresenceIndex>,
    /// The topic that reports it.
    reporting: &'a str,
    /// The topic that it is about.
    topic: &'a str,
}

/// The presence that a request for this topic asks for: it accepts JSON, or does not say what it
/// accepts. An EventSource asks for the events of the topic.
pub(super) fn asked<'a>(app: &'a App, parts: &Parts, form: Form, topic: &'a str) -> Option<Asked<'a>> {
    let index = app.settings.presence.as_ref()?;
    let about = topic.strip_suffix(PRESENCE_SUFFIX)?;
    let names_stream = || names(&parts.headers, "text/event-stream");
    let is_for_json = form == Form::Json || (form == Form::Stream && !names_stream());
    is_for_json.then_some(Asked { index, reporting: topic, topic: about })
}

/// Those who are present, as far as they fit into one response.
#[derive(Serialize)]
struct Present<'a> {
    topic: &'a str,
    /// Streams of the topic, those without a label included.
    subscribers: usize,
    /// Different labels of these streams.
    labels: usize,
    /// Some of the labels, in the order of their bytes.
    members: Vec<Member<'a>>,
    /// What `after` is for the labels that follow; null after the last ones.
    next: Option<&'a str>,
}

#[derive(Serialize)]
struct Member<'a> {
    label: &'a str,
    subscribers: usize,
}

pub(super) fn presence(
    app: &App,
    parts: &Parts,
    access: &Access,
    parameters: &Parameters,
    asked: &Asked<'_>,
) -> Result<Response, Problem> {
    let Asked { index, reporting, topic } = *asked;
    let validator = app.hub.validator();
    let reporting = validator.topic(reporting).map_err(|invalid| Problem::of_matcher(&invalid))?;
    validator.topic(topic).map_err(|invalid| Problem::of_matcher(&invalid))?;
    stay_within_ticket(access, &[Matcher::Exact(reporting.clone())])?;
    if !access.subscribe.covers(&reporting) {
        return Err(private_topic(&access.subject, &reporting).into());
    }
    parameters.refuse_unknown(&PARAMETERS, &[])?;
    let after = parameters.single("after")?;
    let labels_max = parameters.number("limit", "a number", LABELS_MAX)?.unwrap_or(LABELS_DEFAULT);
    let page = index.page(topic, after, labels_max);
    let members = page.labels.iter().map(|(label, subscribers)| Member { label, subscribers: *subscribers });
    let present = Present {
        topic,
        subscribers: page.subscribers,
        labels: page.labels_count,
        members: members.collect(),
        next: page.labels.last().filter(|_| page.has_more).map(|(label, _)| &**label),
    };
    let mut response = large_json_line(app, parts, &present)?;
    vary_accept(response.headers_mut());
    Ok(response)
}
