//! `POST /stream` and `QUERY /stream`: a subscription whose parameters are in the body, for more
//! than fit into a URL.
//!
//! A stream changes nothing at the hub, which is what QUERY (RFC 10008) says of a request: it is
//! safe and idempotent, so a client or a proxy may repeat it. POST is for those that know no QUERY.

use axum::{extract::Request, response::Response};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use tidings_auth::TICKET_PARAMETER;

use super::{query, stream_of};
use crate::{
    app::App,
    json_body::read_object,
    problem::Problem,
    publishing::{ContentType, body_bytes, utf8},
    query::Parameters,
    streams,
};

/// A body in JSON. That of a form has the same names, repeated where there are several values.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default)]
    topic: OneOrMany,
    #[serde(default)]
    channel: OneOrMany,
    #[serde(default)]
    pattern: OneOrMany,
    since: Option<String>,
    format: Option<String>,
    hello: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a string or a list of strings")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

/// The media types of the body, as the field `Accept-Query` lists them.
pub(super) const MEDIA_TYPES: &str = "application/x-www-form-urlencoded, application/json";

/// The parameters of the URL count, too: some clients always add theirs there.
pub(super) async fn stream(app: &App, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let access = app.subscriber(&parts)?;
    // Every client may send a body here, and take its time: a stream counts from its headers on.
    let arriving = match streams::slot(app, &parts) {
        Ok(slot) => slot,
        Err(problem) => return Ok(streams::reject(app, &parts, problem)),
    };
    let body = body_bytes(app, &parts, body).await?;
    let parameters = query(&parts)?.and(read(&parts.headers, &body)?);
    drop((body, arriving));
    stream_of(app, &parts, access, &parameters).await
}

fn read(headers: &HeaderMap, body: &[u8]) -> Result<Parameters, Problem> {
    // RFC 10008: a QUERY without it fails, whatever its body looks like.
    if !headers.contains_key(header::CONTENT_TYPE) {
        return Err(Problem::bad_request(
            "content_type",
            format!("The request has no `Content-Type`: it says which form its body has, {MEDIA_TYPES}."),
        ));
    }
    let content_type = ContentType::of(headers);
    let is = |name: &str| content_type.media_type.eq_ignore_ascii_case(name) && content_type.is_utf8;
    if is("application/x-www-form-urlencoded") {
        return Parameters::parse(body).and_then(without_ticket);
    }
    if !is("application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_type",
            "The parameters of a stream are a form (`application/x-www-form-urlencoded`) or JSON (`application/json`), in UTF-8.",
        ));
    }
    let body: Body = read_object(utf8(body)?, r#"{"topic":["chat","user-42"],"since":"-50"}"#)?;
    let mut pairs = Vec::new();
    for (name, texts) in [("topic", body.topic), ("channel", body.channel), ("pattern", body.pattern)] {
        let texts = match texts {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        };
        pairs.extend(texts.into_iter().map(|text| (name.to_owned(), text)));
    }
    let hello = body.hello.map(|hello| hello.to_string());
    for (name, text) in [("since", body.since), ("format", body.format), ("hello", hello)] {
        pairs.extend(text.map(|text| (name.to_owned(), text)));
    }
    Ok(pairs.into_iter().collect())
}

/// A ticket here is no credential: the client would receive less than its ticket allows, without a
/// word.
fn without_ticket(parameters: Parameters) -> Result<Parameters, Problem> {
    if parameters.contains(TICKET_PARAMETER) {
        return Err(Problem::bad_request(
            "parameter",
            "The body contains a `ticket`; a ticket is read in the URL, or in `Authorization: Bearer …`.",
        ));
    }
    Ok(parameters)
}
