//! `POST /revoke`.

use axum::extract::{Request, State};
use http::StatusCode;
use serde::Deserialize;
use tidings::log::cluster::ClusterError;
use tidings_auth::AuthError;

use super::{
    CONNECTION_SECS, NotRevoked, REVOCATION_SECS_DEFAULT, REVOCATION_SECS_MAX, Withheld, mark::Mark,
};
use crate::{
    app::App,
    json_body::read_object,
    problem::{OUTAGE_SECS, Problem, StreamNotice, excerpt},
    publishing::{body_bytes, connection_id, utf8},
};

/// Longest label or id, in bytes: the shared state has it in a key.
const NAME_BYTES_MAX: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    label: Option<String>,
    id: Option<String>,
    connection: Option<String>,
    expires_secs: Option<u64>,
}

/// Revokes a label, an id or a connection. The response means that this hub and the state of the
/// cluster have it.
pub(crate) async fn revoke(State(app): State<App>, request: Request) -> Result<StatusCode, Problem> {
    let (parts, body) = request.into_parts();
    app.authorizer.administrator(&parts, &app.origins)?;
    let body = body_bytes(&app, &parts, body).await?;
    let body: Body = read_object(utf8(&body)?, r#"{"label":"user-42"}"#)?;
    let secs = body.expires_secs.unwrap_or(REVOCATION_SECS_DEFAULT);
    if !(1..=REVOCATION_SECS_MAX).contains(&secs) {
        return Err(Problem::bad_request(
            "expires_secs",
            format!(
                "The `expires_secs` is {secs}: a revocation is kept for 1 to {REVOCATION_SECS_MAX} seconds."
            ),
        ));
    }
    let (mark, secs) = match (body.label, body.id, body.connection) {
        (Some(label), None, None) => (Mark::Label(name("label", label)?), secs),
        (None, Some(id), None) => (Mark::Id(name("id", id)?), secs),
        (None, None, Some(connection)) => {
            connection_id("connection", &connection)?;
            // It never comes back.
            (Mark::Connection(connection.into()), CONNECTION_SECS)
        }
        _ => {
            return Err(Problem::bad_request(
                "revoke",
                "Name what to revoke: one of `label`, `id` and `connection`.",
            ));
        }
    };
    app.revocations.revoke(mark, secs).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn name(field: &'static str, name: String) -> Result<std::sync::Arc<str>, Problem> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Problem::bad_request(
            field,
            format!(
                "The `{field}` {} has {} bytes: it needs 1 to {NAME_BYTES_MAX}.",
                excerpt(&name),
                name.len()
            ),
        ));
    }
    Ok(name.into())
}

impl From<Withheld> for Problem {
    fn from(withheld: Withheld) -> Self {
        match withheld {
            Withheld::Revoked => Self::from(AuthError::InvalidToken("the credential was revoked".to_owned()))
                .noticed(StreamNotice::Revoked),
            Withheld::Unknown => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "revocations",
                "The hub has just started and does not know yet which credentials were revoked. Try again later.",
            )
            .retry_after(OUTAGE_SECS),
        }
    }
}

impl From<NotRevoked> for Problem {
    fn from(error: NotRevoked) -> Self {
        match error {
            NotRevoked::TooMany => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "revocations",
                "Nothing was revoked: the hub keeps as many revocations as it can. Revoke a label instead of many ids.",
            ),
            NotRevoked::Cluster(ClusterError::Full(_)) => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "revocations",
                "Nothing was revoked at other hubs: the state that they share has no room.",
            )
            .caused_by(error),
            NotRevoked::File(_) => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "revocations",
                "Nothing was revoked: the hub cannot write its revocations to its store.",
            )
            .caused_by(error),
            NotRevoked::Cluster(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "revocations",
                "This may or may not have been revoked at other hubs: the state that they share cannot be reached. Repeat the request.",
            )
            .caused_by(error)
            .retry_after(1),
        }
    }
}
