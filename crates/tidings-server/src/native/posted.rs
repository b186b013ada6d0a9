//! `POST /stream` and `QUERY /stream`: a subscription whose parameters are in the body, for more
//! than fit into a URL.
//!
//! A stream changes nothing at the hub, which is what QUERY (RFC 10008) says of a request: it is
//! safe and idempotent, so a client or a proxy may repeat it. POST is for those that know no QUERY.

use std::collections::BTreeMap;

use axum::{extract::Request, response::Response};
use http::HeaderMap;
use serde::Deserialize;
use tidings_auth::TICKET_PARAMETER;

use super::{
    form_or_json::{self, FormOrJson, OneOrMany},
    stream_of,
};
use crate::{
    app::App,
    problem::{Problem, excerpt},
    publishing::body_bytes,
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
    since: Option<StartOrStarts>,
    until: Option<String>,
    format: Option<String>,
    hello: Option<bool>,
}

/// Where all topics start, or where each does that is named here; the others start now.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a string, or an object with a string for each topic, is expected")]
enum StartOrStarts {
    Start(String),
    Starts(BTreeMap<String, String>),
}

/// The parameters of the URL count, too: some clients always add theirs there.
pub(super) async fn stream_of_body(app: &App, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let access = app.subscriber(&parts)?;
    // Every client may send a body here, and take its time: a stream counts from its headers on.
    let arriving = streams::slot(app, &parts)?;
    let body = body_bytes(app, &parts, body).await?;
    let parameters = Parameters::of_query(&parts)?.and(read(&parts.headers, &body)?);
    drop((body, arriving));
    stream_of(app, &parts, access, &parameters).await
}

fn read(headers: &HeaderMap, body: &[u8]) -> Result<Parameters, Problem> {
    let example = r#"{"topic":["chat","user-42"],"since":"-50"}"#;
    let body: Body = match form_or_json::read(headers, body, "The parameters of a stream are", example)? {
        FormOrJson::Form(parameters) => return without_ticket(parameters),
        FormOrJson::Json(body) => body,
    };
    let (start, mut starts) = match body.since {
        None => (None, None),
        Some(StartOrStarts::Start(text)) => (Some(text), None),
        Some(StartOrStarts::Starts(starts)) => (None, Some(starts)),
    };
    let mut pairs = Vec::new();
    for (name, texts) in [("topic", body.topic), ("channel", body.channel), ("pattern", body.pattern)] {
        for text in Vec::<String>::from(texts) {
            let since =
                starts.as_mut().map(|starts| starts.remove(&text).unwrap_or_else(|| "now".to_owned()));
            pairs.push((name.to_owned(), text));
            pairs.extend(since.map(|since| ("since".to_owned(), since)));
        }
    }
    if let Some((text, _)) = starts.and_then(|mut starts| starts.pop_first()) {
        let detail = format!(
            "The `since` of the body names {}, which is none of its topics and patterns.",
            excerpt(&text)
        );
        return Err(Problem::bad_request("since", detail));
    }
    let hello = body.hello.map(|hello| hello.to_string());
    for (name, text) in [("since", start), ("until", body.until), ("format", body.format), ("hello", hello)] {
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
