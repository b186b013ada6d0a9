//! The native API, for curl and EventSource.
//!
//! `/stream` streams the topics that the query names; `/topics/…` is one topic: its stream and
//! summary, publishing and deletion; `/connections/…` is an open stream. Unknown parameters are refused, except those that existing
//! clients add to a subscription: a misspelt `since` must not silently lose history, nor a misspelt
//! `private` publish a public event.

mod batch;
mod delete;
mod edit;
mod form_or_json;
pub(crate) mod json;
mod posted;
mod presence;
mod publish;
mod starts;
mod stream;
mod summary;
mod ticket;

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::request::Parts;
use tidings::{Format, Matcher, ParseUntilError, Requested, Until};
use tidings_auth::{Access, TICKET_PARAMETER};

use self::json::json_line;
pub(crate) use self::{
    batch::publish_batch,
    delete::delete,
    edit::edit,
    publish::{publish, publish_one},
    starts::starts,
    stream::stream,
    ticket::make_ticket,
};
use crate::{
    accept::{Form, wanted_form},
    access::cover_subscription,
    app::App,
    pages,
    problem::{Problem, excerpt, sentence},
    query::{Parameters, Plus, percent_decode},
    streams::{self, StreamRequest, nothing_named, vary_accept},
};

/// Parameters that name topics.
pub(crate) const TOPIC_PARAMETERS: [&str; 3] = ["topic", "channel", "pattern"];

/// Parameters of a subscription.
const STREAM_PARAMETERS: [&str; 8] =
    ["topic", "channel", "pattern", "since", "until", "format", "hello", TICKET_PARAMETER];

/// Parameters of a subscription whose topic is in the path.
const TOPIC_STREAM_PARAMETERS: [&str; 5] = ["since", "until", "format", "hello", TICKET_PARAMETER];

/// Parameters that existing clients add to a subscription: the id to resume from, each under its
/// own name ([`Requested::id`]), hints for servers that buffer, and the signals of a page with
/// Datastar.
const HARMLESS_PARAMETERS: [&str; 10] = [
    "lastEventId",
    "Last-Event-ID",
    "lastEventID",
    "last_event_id",
    "evs_last_event_id",
    "evs_preamble",
    "evs_buffer_size_limit",
    "padding",
    "_",
    "datastar",
];

/// `GET /stream?topic=a&topic=b&pattern=…`.
async fn stream_of_query(app: &App, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let form = wanted_form(&parts.headers);
    let access = access(app, &parts, form)?;
    let parameters = Parameters::of_query(&parts)?;
    if form == Form::Page {
        matchers_of_stream(app, &parts, &access, &parameters).await?;
        return Ok(pages::viewer(app, "stream", None));
    }
    stream_of(app, &parts, access, &parameters).await
}

/// The stream that these parameters request.
async fn stream_of(
    app: &App,
    parts: &Parts,
    access: Access,
    parameters: &Parameters,
) -> Result<Response, Problem> {
    let matchers = matchers_of_stream(app, parts, &access, parameters).await?;
    cover_subscription(&app.hub, &access, &matchers)?;
    let request = stream_request(parts, parameters, matchers)?;
    let mut response = streams::stream(app, parts, access, request).await?;
    vary_accept(response.headers_mut());
    Ok(response)
}

/// `GET /topics/{topic}`: the stream, the summary or the page of one topic.
pub(crate) async fn topic(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let form = wanted_form(&parts.headers);
    let access = access(&app, &parts, form)?;
    let topic = topic_of(&parts)?;
    if let Some(present) = presence::asked(&app, &parts, form, &topic) {
        return presence::presence(&app, &parts, &access, &Parameters::of_query(&parts)?, &present);
    }
    let matcher = app.hub.validator().exact(&topic).map_err(|invalid| Problem::of_matcher(&invalid))?;
    let parameters = Parameters::of_query(&parts)?;
    if TOPIC_PARAMETERS.iter().any(|name| parameters.contains(name)) {
        return Err(Problem::bad_request(
            "topic",
            "The path names the one topic of this stream: for several, use `/stream?topic=a&topic=b`.",
        ));
    }
    parameters.refuse_unknown(&TOPIC_STREAM_PARAMETERS, &HARMLESS_PARAMETERS)?;
    if form == Form::Page {
        return Ok(pages::viewer(&app, &topic, Some(&topic)));
    }
    parameters.single("since")?;
    cover_subscription(&app.hub, &access, std::slice::from_ref(&matcher))?;
    let mut response = if form == Form::Json {
        refuse_for_summary(&parameters)?;
        summary::summary(&app, &parts, &access, matcher).await?.into_response()
    } else {
        let request = stream_request(&parts, &parameters, vec![matcher])?;
        streams::stream(&app, &parts, access, request).await?
    };
    vary_accept(response.headers_mut());
    Ok(response)
}

/// What the client may receive. A page needs no permission, since it contains no event: its script
/// requests the stream with the credential that the user pastes, and shows a refusal.
fn access(app: &App, parts: &Parts, form: Form) -> Result<Access, Problem> {
    if form == Form::Page { Ok(Access::anonymous()) } else { streams::subscriber(app, parts) }
}

/// Refuses parameters that only apply to a stream.
fn refuse_for_summary(parameters: &Parameters) -> Result<(), Problem> {
    let refused = ["since", "until", "hello"].into_iter().find(|name| parameters.contains(name));
    refused.map_or(Ok(()), |name| {
        Err(Problem::bad_request(
            name,
            format!("The parameter `{name}` has no effect on a summary: for the stream, send `Accept: text/event-stream`."),
        ))
    })
}

/// `/topics/` without a topic.
pub(crate) async fn topic_missing() -> Problem {
    Problem::bad_request(
        "topic",
        "The topic is missing: it is everything after `/topics/`, as in `/topics/chat`.",
    )
}

/// Everything after `/topics/`, decoded once.
fn topic_of(parts: &Parts) -> Result<String, Problem> {
    let path = parts.uri.path();
    let encoded = path.strip_prefix("/topics/").unwrap_or(path);
    percent_decode(encoded.as_bytes(), Plus::IsPlus)
        .map_err(|error| error.problem("topic", "the topic in the path"))
}

/// What the request names, otherwise what its ticket allows, otherwise what the hub is configured
/// to stream.
async fn matchers_of_stream(
    app: &App,
    parts: &Parts,
    access: &Access,
    parameters: &Parameters,
) -> Result<Vec<Matcher>, Problem> {
    parameters.refuse_unknown(&STREAM_PARAMETERS, &HARMLESS_PARAMETERS)?;
    let exact = parameters.values(&["topic", "channel"]);
    let matchers = streams::matchers(app, parts, &exact, &parameters.values(&["pattern"]), &[]).await?;
    if !matchers.is_empty() {
        return Ok(matchers);
    }
    if let Some(allowed) = access.ticket_matchers() {
        return Ok(allowed.to_vec());
    }
    if app.settings.default_topics.is_empty() {
        return Err(nothing_named("/stream?topic=NAME"));
    }
    Ok(app.settings.default_topics.clone())
}

fn stream_request(
    parts: &Parts,
    parameters: &Parameters,
    matchers: Vec<Matcher>,
) -> Result<StreamRequest, Problem> {
    Ok(StreamRequest {
        matchers,
        start: Requested::id_or_word(&parts.headers, parameters.iter())?,
        starts: starts(parameters)?,
        until: until(parameters)?,
        format: format(parameters)?,
        hello: parameters.switch("hello")?,
        cursor_headers: &[],
    })
}

/// Where a finite read ends.
pub(crate) fn until(parameters: &Parameters) -> Result<Option<Until>, Problem> {
    let parsed = parameters.single("until")?.map(str::parse).transpose();
    parsed.map_err(|error: ParseUntilError| Problem::bad_request("until", sentence(error)))
}

/// How events are written.
pub(crate) fn format(parameters: &Parameters) -> Result<Format, Problem> {
    match parameters.single("format")? {
        None | Some("" | "plain") => Ok(Format::Plain),
        Some("json") => Ok(Format::Json),
        Some(other) => Err(Problem::bad_request(
            "format",
            format!("The format {} is unknown: write `format=json`, or leave it out.", excerpt(other)),
        )),
    }
}
