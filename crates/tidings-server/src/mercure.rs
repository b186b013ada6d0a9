//! The Mercure API: the native API in the terms of the Mercure protocol.
//!
//! This module parses the parameters of the Mercure protocol into the same requests as the native
//! API; from there on both share one core. It implements the current revision, and the older one
//! (0.x) where it is switched on: both kinds of clients use one path, one log and one order. The
//! parameters of both are read here, and credentials are found by `tidings-auth`. To extend it:
//! further methods and paths join the [`router`](crate::router()).

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header, request::Parts};
use http_body::Body;
use tidings::{Event, Format, Matcher, NewEvent, Requested};
use tidings_auth::Access;

use crate::{
    accept::accepts_stream,
    app::App,
    idempotency::idempotency_key,
    metrics::counts::PublishApi,
    problem::{Problem, excerpt},
    publishing::{self, ContentType, PublishRequest, body_bytes, counted, retry_millis, utf8, validate},
    query::Parameters,
    streams::{self, StreamRequest, nothing_named, stream},
};

/// `GET`: subscribes.
pub(crate) async fn subscribe(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let access = match app.subscriber(&parts) {
        Ok(access) => access,
        Err(problem) => return streams::refused(&app, &parts, problem),
    };
    if !accepts_stream(&parts.headers) {
        return Err(Problem::new(
            StatusCode::NOT_ACCEPTABLE,
            "accept",
            "The header `Accept` excludes `text/event-stream`, the only format here: name it, or leave the header out.",
        ));
    }
    let request = match stream_request(&app, &parts, &access).await {
        Ok(request) => request,
        Err(problem) => return streams::refused(&app, &parts, problem),
    };
    stream(&app, &parts, access, request).await
}

/// The handler of the router: calls [`publish_one`].
pub(crate) async fn publish(State(app): State<App>, request: Request) -> Response {
    publish_one(&app, request).await.into_response()
}

/// `POST`: publishes. The response is the id.
pub(crate) async fn publish_one<B: Body<Data = Bytes>>(
    app: &App,
    request: http::Request<B>,
) -> Result<Response, Problem> {
    counted(app, PublishApi::Mercure, published(app, request).await)
}

async fn published<B: Body<Data = Bytes>>(app: &App, request: http::Request<B>) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let access = app.publisher(&parts)?;
    check_form(&parts.headers)?;
    let key = idempotency_key(&parts.headers, &access)?;
    let event = read_event(app, &parts, body).await?;
    let request = PublishRequest { events: vec![event], key };
    let published = publishing::publish(app, PublishApi::Mercure, &access, request).await?;
    let id = published.into_iter().find_map(|published| published.id).expect("a stored event has an id");
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], id.to_string()).into_response())
}

/// The header of the current revision, and that of the older one.
const BOTH_CURSOR_HEADERS: [&str; 2] = ["mercure-last-event-id", "last-event-id"];

async fn stream_request(app: &App, parts: &Parts, access: &Access) -> Result<StreamRequest, Problem> {
    let parameters = Parameters::parse(parts.uri.query().unwrap_or_default().as_bytes())?;
    Ok(StreamRequest {
        matchers: matchers(app, parts, access, &parameters).await?,
        start: Requested::id(&parts.headers, parameters.iter()),
        starts: Vec::new(),
        until: None,
        format: Format::Plain,
        hello: false,
        cursor_headers: if app.settings.older_mercure_revision {
            &BOTH_CURSOR_HEADERS
        } else {
            &BOTH_CURSOR_HEADERS[..1]
        },
    })
}

/// The Mercure protocol, "Subscription": names are case-sensitive; a name that begins with `match`,
/// in any case, and is no known type is refused, because a subscriber that uses a future type would
/// otherwise receive the wrong events.
async fn matchers(
    app: &App,
    parts: &Parts,
    access: &Access,
    parameters: &Parameters,
) -> Result<Vec<Matcher>, Problem> {
    let known = ["match", "match_exact", "match_urlpattern"];
    let is_matcher = |name: &str| name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("match"));
    if let Some((name, _)) = parameters.iter().find(|(name, _)| is_matcher(name) && !known.contains(name)) {
        let shown = excerpt(name);
        return Err(Problem::bad_request(
            "matcher",
            format!(
                "The parameter {shown} is not a matcher type: use `match`, `match_exact` or `match_urlpattern`."
            ),
        ));
    }
    let exact = parameters.values(&["match", "match_exact"]);
    let patterns = parameters.values(&["match_urlpattern"]);
    // The older revision: each is `*`, one topic or a URI Template.
    let selectors = parameters.values(&["topic"]);
    if !selectors.is_empty() && !app.settings.older_mercure_revision {
        return Err(Problem::bad_request(
            "topic",
            "The parameter `topic` is of the older revision of the Mercure protocol, which this hub serves with \
             `mercure_revisions = [\"1.0\", \"0.x\"]`: use `match`, or `match_urlpattern` for a pattern.",
        ));
    }
    let matchers = streams::matchers(app, parts, &exact, &patterns, &selectors).await?;
    if !matchers.is_empty() {
        return Ok(matchers);
    }
    access.ticket_matchers().map(<[_]>::to_vec).ok_or_else(|| nothing_named("?match=NAME"))
}

/// The Mercure protocol, "Publication": the body is a form, in UTF-8.
fn check_form(headers: &HeaderMap) -> Result<(), Problem> {
    let content_type = ContentType::of(headers);
    if content_type.media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        && content_type.is_utf8
    {
        return Ok(());
    }
    Err(content_type.unsupported("send `application/x-www-form-urlencoded` in UTF-8"))
}

/// Most fields of one form.
const FIELDS_MAX: usize = 1_000;

async fn read_event<B: Body<Data = Bytes>>(app: &App, parts: &Parts, body: B) -> Result<Event, Problem> {
    let body = body_bytes(app, parts, body).await?;
    utf8(&body)?;
    let fields = Parameters::parse(&body)?;
    if fields.len() > FIELDS_MAX {
        return Err(Problem::too_large(
            "body",
            format!("The form has {} fields; the limit is {FIELDS_MAX}.", fields.len()),
        ));
    }
    // A receipt of this protocol is an id, and an ephemeral event has none.
    if fields.contains("ephemeral") {
        return Err(Problem::bad_request(
            "ephemeral",
            "The Mercure protocol has no ephemeral events: publish this one with `POST /topics/{topic}?ephemeral=true`.",
        ));
    }
    // Unknown fields are ignored; `private` counts when it is present, whatever its value. An empty
    // id or type is ignored.
    let text =
        |name| Ok::<_, Problem>(fields.single(name)?.filter(|value| !value.is_empty()).map(str::to_owned));
    validate(
        app,
        NewEvent {
            topics: fields.values(&["topic"]).into_iter().map(str::to_owned).collect(),
            data: fields.single("data")?.unwrap_or_default().to_owned(),
            id: text("id")?,
            event_type: text("type")?,
            retry_millis: fields.single("retry")?.map(|text| retry_millis(app, text)).transpose()?,
            private: fields.contains("private"),
            except: None,
            key: None,
            ephemeral: false,
        },
    )
}
