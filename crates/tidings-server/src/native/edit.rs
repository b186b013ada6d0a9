//! `PATCH /connections/{id}`: adds topics to an open stream and removes others.
//!
//! The request presents the credential that the stream was opened with. A stream that was opened
//! without one has a secret instead, which only its `hello` notice contains.

use axum::{
    extract::{Request, State},
    response::Response,
};
use http::{HeaderMap, StatusCode, request::Parts};
use serde::{Deserialize, Serialize};
use tidings::{ConnectionId, EditError, EditProof, Edited, Matcher, TopicEdit};
use tidings_auth::{TICKET_PARAMETER, proof_of_secret};

use super::{
    form_or_json::{self, FormOrJson, OneOrMany},
    json::large_json_line,
};
use crate::{
    access::cover_subscription, app::App, problem::Problem, publishing::body_bytes, query::Parameters,
    streams::cursor_header,
};

/// Changes the topics of a stream. The response says what it is subscribed to now, and from which
/// position on.
pub(crate) async fn edit(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let access = app.subscriber(&parts)?;
    Parameters::of_query(&parts)?.refuse_unknown(&[TICKET_PARAMETER], &[])?;
    let body = body_bytes(&app, &parts, body).await?;
    let Wanted { add, remove, secret } = read(&parts.headers, &body)?;
    drop(body);
    let edit = TopicEdit { add: topics(&app, add)?, remove: topics(&app, remove)? };
    cover_subscription(&app.hub, &access, &edit.add)?;
    let proof = proof(&app, &parts, secret)?;
    let name = parts.uri.path().rsplit('/').next().unwrap_or_default();
    let connection = ConnectionId::parse(name).ok_or_else(|| refusal(&EditError::Unknown))?;
    let edited = app.hub.edit(connection, proof, edit).await.map_err(|error| refusal(&error))?;
    let Edited { topics, patterns, cursor } = &edited;
    let answer = Answer { connection: name, topics, patterns, cursor: cursor.as_str() };
    let mut response = large_json_line(&app, &parts, &answer)?;
    response.headers_mut().extend([cursor_header(&edited.cursor)]);
    Ok(response)
}

/// What is to change. A form has the same names, `add` and `remove` repeated.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default)]
    add: OneOrMany,
    #[serde(default)]
    remove: OneOrMany,
    secret: Option<String>,
}

#[derive(Serialize)]
struct Answer<'a> {
    connection: &'a str,
    topics: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    patterns: &'a [String],
    /// The change counts after this id.
    cursor: &'a str,
}

fn read(headers: &HeaderMap, body: &[u8]) -> Result<Wanted, Problem> {
    let example = r#"{"add":["chat"],"remove":["news"]}"#;
    let fields = match form_or_json::read(headers, body, "The topics to add and to remove are", example)? {
        FormOrJson::Json(wanted) => return Ok(wanted),
        FormOrJson::Form(fields) => fields,
    };
    fields.refuse_unknown(&["add", "remove", "secret"], &[])?;
    let all = |name| OneOrMany::Many(fields.values(&[name]).into_iter().map(str::to_owned).collect());
    let secret = fields.single("secret")?.map(str::to_owned);
    Ok(Wanted { add: all("add"), remove: all("remove"), secret })
}

fn topics(app: &App, named: OneOrMany) -> Result<Vec<Matcher>, Problem> {
    let validator = app.hub.validator();
    let named = Vec::<String>::from(named);
    let matchers = validator
        .matchers_count(named.len())
        .and_then(|()| named.iter().map(|topic| validator.exact(topic)).collect());
    matchers.map_err(|invalid| Problem::of_matcher(&invalid))
}

/// What proves that the request is of the stream's client.
fn proof(app: &App, parts: &Parts, secret: Option<String>) -> Result<EditProof, Problem> {
    match (app.authorizer.proof(parts), secret) {
        (Some(proof), None) => Ok(EditProof(proof)),
        (None, Some(secret)) => Ok(EditProof(proof_of_secret(&secret))),
        (Some(_), Some(_)) => Err(Problem::forbidden(
            "secret",
            "The request has a credential and a `secret`: a stream that was opened with a credential has no secret, and one that was \
             opened without one is changed without one.",
        )),
        (None, None) => Err(Problem::forbidden(
            "secret",
            "The request proves nothing: send the credential that the stream was opened with, or, if it was opened without one, the \
             `secret` of its `hello` notice.",
        )),
    }
}

fn refusal(error: &EditError) -> Problem {
    match error {
        EditError::Unknown => Problem::new(
            StatusCode::NOT_FOUND,
            "connection",
            "No open stream that can be changed has this name: the path is `/connections/` and the `connection` of the `hello` notice \
             (`hello=true`), which finite reads and streams that an application decides about do not offer. Open another stream.",
        ),
        EditError::Denied => Problem::forbidden(
            "connection",
            "The stream was opened with another credential: send the one that it was opened with, or, if it was opened without one, the \
             `secret` of its `hello` notice.",
        ),
        EditError::Pattern => Problem::bad_request(
            "topic",
            "A pattern cannot be added to an open stream: open another stream.",
        ),
        EditError::NoTopics => Problem::bad_request(
            "topic",
            "The stream would have no topic left: close it, or add one with the same request.",
        ),
        EditError::TooManyTopics { count, count_max } => Problem::bad_request(
            "matchers_max",
            format!(
                "The stream would have {count} topics and patterns; the limit is {count_max} (`--matchers-max`): remove some, or open another stream."
            ),
        ),
        EditError::TooOften => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "edits",
            "The topics of this stream are changed too often: one request can add and remove many. Try again in a second.",
        )
        .retry_after(1),
        EditError::NotRead => Problem::unavailable(
            "connection",
            "Nothing was changed, because the client does not read the stream. Try again.",
        )
        .retry_after(1),
        EditError::Overloaded => Problem::unavailable(
            "connection",
            "Nothing was changed: too many requests wait for the other hubs of the cluster. Try again.",
        )
        .retry_after(1),
        _ => Problem::unavailable(
            "connection",
            "Another hub of the cluster does not answer, so it is unknown whether the stream was changed. Repeat the request.",
        )
        .retry_after(1),
    }
}
