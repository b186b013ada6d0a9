//! `DELETE /topics/{topic}`: deletes the events of a topic.

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::json;
use tidings::Deletion;

use super::topic_of;
use crate::{
    accept::{Form, wanted_form},
    access::cover_topic,
    app::App,
    problem::{Problem, excerpt},
    query::Parameters,
};

/// Deletes the events on the topic whose other topics the credential covers too: like publishing,
/// deleting an event needs permission for all of its topics. The response counts the events that
/// were deleted and kept if some are kept, or if the client asks for JSON. A topic without events is
/// no error: a request that is repeated because its response was lost succeeds.
pub(crate) async fn delete(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let access = app.publisher(&parts)?;
    let topic = topic_of(&parts)?;
    let topic = app.hub.validator().topic(&topic).map_err(|invalid| Problem::of_matcher(&invalid))?;
    // An unknown condition must not be ignored.
    if let Some((name, _)) = Parameters::of_query(&parts)?.iter().next() {
        return Err(Problem::bad_request(
            "parameter",
            format!(
                "The parameter {} is unknown: everything on the topic is deleted, without conditions.",
                excerpt(name)
            ),
        ));
    }
    cover_topic(&access, &topic)?;
    let deletion = app.hub.delete_covered(&topic, &access.publish).await.map_err(Problem::of_deletion)?;
    let Deletion { deleted, kept, .. } = deletion;
    let (name, subject) = (topic.as_str().escape_debug(), &access.subject);
    tracing::info!(topic = %name, count = deleted, kept, %subject, "a topic was deleted");
    if kept == 0 && wanted_form(&parts.headers) != Form::Json {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(Json(json!({ "deleted": deleted, "kept": kept })).into_response())
}
