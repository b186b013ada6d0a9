//! `POST /tickets`: makes a ticket for a browser, whose plain EventSource can send no header.

use std::{net::IpAddr, num::NonZeroU32, str::FromStr};

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use tidings_auth::{MintTicketError, MintedTicket, NewTicket, TICKET_SECS_DEFAULT};

use super::{
    form_or_json::{self, FormOrJson, OneOrMany},
    json::json_line,
};
use crate::{
    accept::{Form, wanted_form},
    access::unix_secs,
    app::App,
    problem::{Problem, excerpt, sentence},
    publishing::body_bytes,
    query::Parameters,
    streams::vary_accept,
};

/// Makes a ticket, of which the key must cover each topic and hold each pattern. The response is the
/// ticket as text, or JSON with its id and expiry for a client that accepts JSON.
pub(crate) async fn make_ticket(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let access = app.publisher(&parts)?;
    Parameters::of_query(&parts)?.refuse_any("the body says what the ticket allows")?;
    let body = body_bytes(&app, &parts, body).await?;
    let wanted = read(&parts.headers, &body)?;
    let minted = app.authorizer.mint_ticket(&access, &wanted.ticket(unix_secs())).map_err(refusal)?;
    let mut response = if wanted_form(&parts.headers) == Form::Json {
        json_line(&Answer::from(&minted))
    } else {
        ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], minted.ticket).into_response()
    };
    vary_accept(response.headers_mut());
    Ok(response)
}

#[derive(Serialize)]
struct Answer<'a> {
    ticket: &'a str,
    id: &'a str,
    expires_at: u64,
}

impl<'a> From<&'a MintedTicket> for Answer<'a> {
    fn from(minted: &'a MintedTicket) -> Self {
        Self { ticket: &minted.ticket, id: &minted.id, expires_at: minted.expires_at }
    }
}

/// The ticket that a client requests. A form has the same names, `topic` and `pattern` repeated.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    topic: OneOrMany,
    pattern: OneOrMany,
    label: Option<String>,
    /// Seconds from now.
    expires: Option<u64>,
    streams_max: Option<NonZeroU32>,
    address: Option<IpAddr>,
}

impl Wanted {
    fn ticket(self, now_unix_secs: u64) -> NewTicket {
        NewTicket {
            topics: self.topic.into(),
            patterns: self.pattern.into(),
            label: self.label,
            issued_at: now_unix_secs,
            expires_at: now_unix_secs.saturating_add(self.expires.unwrap_or(TICKET_SECS_DEFAULT)),
            streams_max: self.streams_max,
            address: self.address,
        }
    }
}

fn read(headers: &HeaderMap, body: &[u8]) -> Result<Wanted, Problem> {
    let example = r#"{"topic":"user-42","label":"user-42"}"#;
    match form_or_json::read(headers, body, "What a ticket allows is", example)? {
        FormOrJson::Form(fields) => read_form(&fields),
        FormOrJson::Json(wanted) => Ok(wanted),
    }
}

const FIELDS: [&str; 6] = ["topic", "pattern", "label", "expires", "streams_max", "address"];

fn read_form(fields: &Parameters) -> Result<Wanted, Problem> {
    fields.refuse_unknown(&FIELDS, &[])?;
    let all = |name| OneOrMany::Many(fields.values(&[name]).into_iter().map(str::to_owned).collect());
    Ok(Wanted {
        topic: all("topic"),
        pattern: all("pattern"),
        label: fields.single("label")?.map(str::to_owned),
        expires: parsed(fields, "expires", "a number of seconds, such as 3600")?,
        streams_max: parsed(fields, "streams_max", "a number of streams, at least 1")?,
        address: parsed(fields, "address", "an IPv4 or IPv6 address")?,
    })
}

fn parsed<T: FromStr>(fields: &Parameters, name: &'static str, expected: &str) -> Result<Option<T>, Problem> {
    let Some(text) = fields.single(name)? else { return Ok(None) };
    let refuse =
        |_| Problem::bad_request(name, format!("The field `{name}` is {}: write {expected}.", excerpt(text)));
    text.parse().map(Some).map_err(refuse)
}

fn refusal(error: MintTicketError) -> Problem {
    let (status, reason) = match error {
        // The path exists on hubs that are configured for it.
        MintTicketError::NoSecret => (StatusCode::NOT_FOUND, "ticket_secret"),
        MintTicketError::NotAKey | MintTicketError::NotCovered(_) => (StatusCode::FORBIDDEN, "credential"),
        _ => (StatusCode::BAD_REQUEST, "ticket"),
    };
    Problem::new(status, reason, sentence(error))
}
