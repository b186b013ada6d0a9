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
    problem::{OUTAGE_SECS, Problem, excerpt},
    publishing::{body_bytes, connection_id, utf8},
};

/// Longest label or id, in bytes, an issuer included: the shared state has it in a key.
const NAME_BYTES_MAX: usize = 1_000;

/// What names something to revoke, for a request that names nothing, or more than one thing.
const NAME_ONE: &str =
    "Name what to revoke: one of `label`, `id`, `ticket`, `connection`, and `jti` with its `issuer`.";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    label: Option<String>,
    id: Option<String>,
    ticket: Option<String>,
    jti: Option<String>,
    issuer: Option<String>,
    connection: Option<String>,
    expires_secs: Option<u64>,
}

/// Revokes a label, a credential or a connection. The response means that this hub and the state of
/// the cluster have it.
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
    let Body { label, id, ticket, jti, issuer, connection, .. } = body;
    let mut named: Vec<Result<Mark, Problem>> = Vec::new();
    named.extend(label.map(|label| name("label", label).map(Mark::Label)));
    named.extend(id.map(|id| name("id", id).map(Mark::Id)));
    named.extend(ticket.map(|ticket| name("ticket", ticket).map(Mark::Ticket)));
    named.extend(connection.map(|connection| {
        connection_id("connection", &connection)?;
        Ok(Mark::Connection(connection.into()))
    }));
    match (jti, issuer) {
        (Some(jti), Some(issuer)) => named.push(token(issuer, jti)),
        (None, None) => {}
        _ => return Err(Problem::bad_request("revoke", NAME_ONE)),
    }
    let (Some(mark), None) = (named.pop(), named.pop()) else {
        return Err(Problem::bad_request("revoke", NAME_ONE));
    };
    let mark = mark?;
    // A connection never comes back.
    let secs = if mark.connection().is_some() { CONNECTION_SECS } else { secs };
    app.revocations.revoke(mark, secs).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn token(issuer: String, jti: String) -> Result<Mark, Problem> {
    let (issuer, jti) = (name("issuer", issuer)?, name("jti", jti)?);
    let bytes = issuer.len() + jti.len();
    if bytes > NAME_BYTES_MAX {
        let detail = format!(
            "The `issuer` and the `jti` have {bytes} bytes together: {NAME_BYTES_MAX} are possible. Revoke the `id` instead."
        );
        return Err(Problem::bad_request("jti", detail));
    }
    Ok(Mark::Token { issuer, jti })
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
                .revoked(),
            Withheld::Unknown => Self::unavailable(
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
            NotRevoked::Cluster(_) => Self::unavailable(
                "revocations",
                "This may or may not have been revoked at other hubs: the state that they share cannot be reached. Repeat the request.",
            )
            .caused_by(error)
            .retry_after(1),
        }
    }
}
