//! `DELETE /topics/{topic}`: what was published on a topic is gone.

use axum::extract::{Request, State};
use http::StatusCode;

use super::{query, topic_of};
use crate::{
    access::cover_topic,
    problem::{Problem, excerpt},
    router::App,
};

/// Deletes everything that bears the topic. That there is nothing is no mistake: who repeats a request whose answer was lost is answered alike.
pub(crate) async fn delete(State(app): State<App>, request: Request) -> Result<StatusCode, Problem> {
    let (parts, _) = request.into_parts();
    let access = app.door.publisher(&parts, &app.origins)?;
    let topic = topic_of(&parts)?;
    let topic = app.hub.validator().topic(&topic).map_err(|invalid| Problem::of_matcher(&invalid))?;
    // A condition that is not understood must not be taken for none.
    if let Some((name, _)) = query(&parts)?.iter().next() {
        return Err(Problem::bad_request(
            "parameter",
            format!(
                "The parameter {} is unknown: everything on the topic is deleted, without conditions.",
                excerpt(name)
            ),
        ));
    }
    cover_topic(&access, &topic)?;
    let count = app.hub.delete(&topic).await.map_err(Problem::of_deletion)?;
    tracing::info!(topic = %topic.as_str().escape_debug(), count, subject = %access.subject, "a topic was deleted");
    Ok(StatusCode::NO_CONTENT)
}
