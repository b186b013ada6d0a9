//! The Mercure API: the native API in the terms of the Mercure protocol.
//!
//! This module parses the parameters of the Mercure protocol into the same requests as the native
//! API; from there on both share one core. It implements the current revision, and the older one
//! (0.x) where it is switched on: both kinds of clients use one path, one log and one order. The
//! parameters of both are read here, and credentials are found by `tidings-auth`. Active
//! subscriptions: [`subscriptions`]. To extend it: further methods join [`hub`], and further paths the
//! [`router`](crate::router()).

pub(crate) mod metadata;
pub(crate) mod subscriptions;

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use http_body::Body;
use tidings::{Event, Format, Matcher, NewEvent, Requested};
use tidings_auth::{Access, CREDENTIAL_PARAMETERS, TICKET_PARAMETER};

use crate::{
    accept::accepts_stream,
    app::App,
    idempotency::idempotency_key,
    methods::not_allowed_besides,
    metrics::counts::PublishApi,
    problem::{Problem, excerpt},
    publishing::{self, ContentType, body_bytes, counted, retry_millis, utf8, validate},
    query::Parameters,
    streams::{self, StreamRequest, nothing_named, stream},
};

/// The methods of the hub's path, in the form of the header `Allow`.
const METHODS: &str = "GET,HEAD,POST,QUERY";

/// The media type of every body here.
const FORM: &str = "application/x-www-form-urlencoded";

/// Everything at the path of the hub's URL. The router knows no QUERY, and passes on all methods.
pub(crate) async fn hub(State(app): State<App>, request: Request) -> Response {
    let method = request.method().clone();
    let mut response = match method {
        Method::GET | Method::HEAD => return subscribe(&app, request).await.into_response(),
        Method::POST => {
            let (parts, body) = request.into_parts();
            return publish_one(&app, parts, body).await;
        }
        Method::QUERY => subscribe_by_form(&app, request).await.into_response(),
        _ => not_allowed_besides(METHODS, &method),
    };
    // RFC 10008: the media type that a QUERY of this path has.
    let accept_query = HeaderName::from_static("accept-query");
    response.headers_mut().insert(accept_query, HeaderValue::from_static(FORM));
    response
}

/// `GET`: subscribes.
async fn subscribe(app: &App, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let access = streams::subscriber(app, &parts)?;
    check_accept(&parts.headers)?;
    let parameters = Parameters::of_query(&parts)?;
    stream_of(app, &parts, access, &parameters).await
}

/// `QUERY`: subscribes with parameters in a form, for more of them than fit into a URL. Those of the
/// URL count, too; of two ids to resume from, the one in the URL counts, which is why it comes last.
async fn subscribe_by_form(app: &App, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let access = app.subscriber(&parts)?;
    check_accept(&parts.headers)?;
    check_form(&parts.headers)?;
    // Every client may send a body here, and take its time: a stream counts from its headers on.
    let arriving = streams::slot(app, &parts)?;
    let body = body_bytes(app, &parts, body).await?;
    // Too many matchers are 400, wherever they are.
    let fields = read_fields(&body, StatusCode::BAD_REQUEST)?;
    let parameters = without_credential(fields)?.and(Parameters::of_query(&parts)?);
    drop((body, arriving));
    stream_of(app, &parts, access, &parameters).await
}

/// The stream that these parameters request.
async fn stream_of(
    app: &App,
    parts: &Parts,
    access: Access,
    parameters: &Parameters,
) -> Result<Response, Problem> {
    let request = stream_request(app, parts, &access, parameters).await?;
    stream(app, parts, access, request).await
}

fn check_accept(headers: &HeaderMap) -> Result<(), Problem> {
    if accepts_stream(headers) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::NOT_ACCEPTABLE,
        "accept",
        "The header `Accept` excludes `text/event-stream`, the only format here: name it, or leave the header out.",
    ))
}

/// A credential in a form is not read: the client would receive less than it allows, without a word.
fn without_credential(parameters: Parameters) -> Result<Parameters, Problem> {
    let names = CREDENTIAL_PARAMETERS.iter().chain(&[TICKET_PARAMETER]);
    let Some(name) = names.copied().find(|name| parameters.contains(name)) else { return Ok(parameters) };
    let detail = format!(
        "The body contains the parameter `{name}`, and no credential is read there: send it in the header `Authorization: Bearer …`."
    );
    Err(Problem::bad_request("parameter", detail))
}

/// `POST`: publishes. The response is the id.
pub(crate) fn publish_one<B: Body<Data = Bytes>>(
    app: &App,
    parts: Parts,
    body: B,
) -> impl Future<Output = Response> {
    published(app, parts, body).map(|result| counted(app, PublishApi::Mercure, result).into_response())
}

async fn published<B: Body<Data = Bytes>>(app: &App, parts: Parts, body: B) -> Result<Response, Problem> {
    let access = app.publisher(&parts)?;
    check_form(&parts.headers)?;
    let key = idempotency_key(&parts.headers, &access)?;
    let event = read_event(app, &parts, body).await?;
    let published = publishing::publish(app, PublishApi::Mercure, &access, vec![event], key).await?;
    let id = published.into_iter().find_map(|published| published.id).expect("a stored event has an id");
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], id.to_string()).into_response())
}

/// The header of the current revision, and that of the older one.
const BOTH_CURSOR_HEADERS: [&str; 2] = ["mercure-last-event-id", "last-event-id"];

async fn stream_request(
    app: &App,
    parts: &Parts,
    access: &Access,
    parameters: &Parameters,
) -> Result<StreamRequest, Problem> {
    Ok(StreamRequest {
        matchers: matchers(app, parts, access, parameters).await?,
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

/// The Mercure protocol, "Publication" and "Subscription": the body is a form, in UTF-8.
fn check_form(headers: &HeaderMap) -> Result<(), Problem> {
    let content_type = ContentType::of(headers);
    if content_type.media_type.eq_ignore_ascii_case(FORM) && content_type.is_utf8 {
        return Ok(());
    }
    Err(content_type.unsupported("send `application/x-www-form-urlencoded` in UTF-8"))
}

/// Most fields of one form.
const FIELDS_MAX: usize = 1_000;

/// `excess` is the status of a form with more fields.
fn read_fields(body: &[u8], excess: StatusCode) -> Result<Parameters, Problem> {
    utf8(body)?;
    // Counted before they take memory.
    let count = body.split(|&byte| byte == b'&').filter(|field| !field.is_empty()).count();
    if count > FIELDS_MAX {
        let detail = format!("The form has {count} fields; the limit is {FIELDS_MAX}.");
        return Err(Problem::new(excess, "body", detail));
    }
    Parameters::parse(body)
}

async fn read_event<B: Body<Data = Bytes>>(app: &App, parts: &Parts, body: B) -> Result<Event, Problem> {
    let fields = read_fields(&body_bytes(app, parts, body).await?, StatusCode::PAYLOAD_TOO_LARGE)?;
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
