//! `POST /topics/{topic}`: the body is the data.

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::FutureExt;
use http::request::Parts;
use http_body::Body;
use serde::Serialize;
use tidings::{EventId, NewEvent, Published};

use super::{json_line, topic_of};
use crate::{
    app::App,
    idempotency::idempotency_key,
    metrics::counts::PublishApi,
    problem::Problem,
    publishing::{self, body_bytes, check_text, connection_id, counted, retry_millis, utf8, validate},
    query::Parameters,
};

/// The handler of the router: calls [`publish_one`].
pub(crate) async fn publish(State(app): State<App>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    publish_one(&app, parts, body).await
}

/// Publishes the body, verbatim and, as long as it is text, whatever its Content-Type, so that
/// `curl -d` works.
pub(crate) fn publish_one<B: Body<Data = Bytes>>(
    app: &App,
    parts: Parts,
    body: B,
) -> impl Future<Output = Response> {
    published(app, parts, body).map(|result| counted(app, PublishApi::Native, result).into_response())
}

async fn published<B: Body<Data = Bytes>>(app: &App, parts: Parts, body: B) -> Result<Response, Problem> {
    let access = app.publisher(&parts)?;
    let envelope = envelope(app, &parts)?;
    check_text(&parts.headers, "curl --data-binary @FILE URL")?;
    let key = idempotency_key(&parts.headers, &access)?;
    let body = body_bytes(app, &parts, body).await?;
    let event = NewEvent { data: utf8(&body)?.to_owned(), ..envelope };
    let events = vec![validate(app, event)?];
    let published = publishing::publish(app, PublishApi::Native, &access, events, key).await?;
    let receipt = published.first().map(Receipt::from).expect("one event, one receipt");
    Ok(json_line(&receipt))
}

/// The response to a publisher about one event.
#[derive(Serialize)]
pub(crate) struct Receipt<'a> {
    /// None for an ephemeral event.
    id: Option<&'a str>,
    /// The event was published before, with the same idempotency key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

impl<'a> From<&'a Published> for Receipt<'a> {
    fn from(published: &'a Published) -> Self {
        Self { id: published.id.as_ref().map(EventId::as_str), duplicate: published.duplicate }
    }
}

/// The event without its data.
fn envelope(app: &App, parts: &Parts) -> Result<NewEvent, Problem> {
    let topic = topic_of(parts)?;
    let parameters = Parameters::of_query(parts)?;
    parameters.refuse_unknown(&["type", "id", "retry", "private", "except", "ephemeral"], &["event"])?;
    let event_type = match (parameters.single("type")?, parameters.single("event")?) {
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request(
                "type",
                "The parameters `type` and `event` are aliases: give one.",
            ));
        }
        (event_type, event) => event_type.or(event),
    };
    Ok(NewEvent {
        topics: vec![topic],
        data: String::new(),
        id: parameters.single("id")?.map(str::to_owned),
        event_type: event_type.map(str::to_owned),
        retry_millis: parameters.single("retry")?.map(|text| retry_millis(app, text)).transpose()?,
        private: parameters.switch("private")?,
        except: parameters.single("except")?.map(|text| connection_id("except", text)).transpose()?,
        key: None,
        ephemeral: parameters.switch("ephemeral")?,
    })
}
