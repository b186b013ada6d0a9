//! The application's own route decides: a request for a stream is forwarded to the application,
//! whose response names the topics, or is passed on to the client.
//!
//! ```text
//! client ─► hub ─► GET of the application ─► 200 with `Tidings-Subscribe` ─► a stream
//!                                         └► anything else ─► the client, as it is
//! ```
//!
//! - [`path`]: a path, its application, and how long that may take; [`applications`]: all of them.
//! - [`request`]: what the application receives.
//! - [`client`]: asking it; [`turns`]: how it is read.
//! - [`answer`]: what its response means.
//!
//! Invariants: what the application does not allow is not streamed, and its answer is valid for one
//! stream alone: nothing is cached. Every failure refuses the stream. An application that hangs,
//! lies or floods takes a bounded number of requests, a bounded time and bounded memory; other
//! paths are served as if it were not there.

mod answer;
mod applications;
mod client;
mod path;
mod request;
mod turns;

use std::{future::pending, sync::Arc};

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, StatusCode, header, request::Parts};
use tidings::Requested;
use tidings_auth::Access;
use url::form_urlencoded;

pub(crate) use self::applications::Application;
use self::{
    answer::{Answer, Granted},
    client::Failure,
};
pub use self::{
    applications::Applications,
    path::{AuthorizedPath, InvalidAuthorizedPath},
};
use crate::{
    access::{client_address, unix_secs},
    app::App,
    http1::InputEnd,
    methods, native,
    problem::{APPLICATION, Problem},
    query::Parameters,
    revocation::Issued,
    shedding::retry_after_secs,
    streams::{self, StreamRequest},
};

/// Answers a request for a path that an application decides about.
pub(crate) async fn answer(app: &App, application: Arc<Application>, request: Request) -> Response {
    match *request.method() {
        Method::GET | Method::HEAD => stream(app, &application, request).await.into_response(),
        _ => methods::not_allowed_besides("GET,HEAD", request.method()),
    }
}

async fn stream(app: &App, application: &Application, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    // Before the application is asked: what cannot be streamed need not be decided.
    let slot = match streams::slot(app, &parts) {
        Ok(slot) => slot,
        Err(problem) => return Ok(streams::reject(app, &parts, problem)),
    };
    let issued = Issued::After(app.revocations.count());
    let asked = tokio::select! {
        biased;
        asked = ask(app, application, &parts) => asked,
        () = client_left(&parts) => return Err(abandoned(app)),
    };
    let answer = match asked {
        Ok(answer) => answer,
        Err(failure) => return failed(app, application, &parts, &failure),
    };
    match answer {
        Answer::Other(response) => {
            app.metrics.count_authorization("other");
            Ok(response)
        }
        Answer::Subscribe(granted) => {
            let Granted { parameters, cookies } = granted;
            let (access, request) = match stream_request(app, &parts, &parameters).await {
                Ok(understood) => understood,
                // The limits of patterns are those of this client, and of this moment.
                Err(problem) if problem.is_temporary() => return streams::refused(app, &parts, problem),
                Err(problem) => return failed(app, application, &parts, &answer::malformed(&problem)),
            };
            app.metrics.count_authorization("subscribed");
            let mut response = if parts.method == Method::HEAD {
                streams::without_stream(app)
            } else {
                streams::open(app, &parts, slot, access, request, issued).await?
            };
            let cookies = cookies.into_iter().map(|cookie| (header::SET_COOKIE, cookie));
            response.headers_mut().extend(cookies.collect::<HeaderMap>());
            Ok(response)
        }
    }
}

/// Waits until the client has left, or for ever. A page that is closed and opened again would
/// otherwise take one more permit each time.
async fn client_left(parts: &Parts) {
    match parts.extensions.get::<InputEnd>() {
        Some(input_end) => input_end.ended().await,
        None => pending().await,
    }
}

async fn ask(app: &App, application: &Application, parts: &Parts) -> Result<Answer, Failure> {
    let _permit = application.in_flight.try_acquire().map_err(|_| Failure::Busy)?;
    let address = client_address(parts);
    let _share = app.slots.authorizing(address).map_err(|_| Failure::BusyForAddress)?;
    let scheme = app.hub.validator().hub_url().scheme();
    let forwarded =
        request::forwarded(&application.path, parts, address.ip(), scheme).map_err(Failure::Malformed)?;
    let asking = async {
        let response = application.client.ask(forwarded).await?;
        answer::read(app, response, address, application.path.time()).await
    };
    tokio::time::timeout(application.path.time(), asking).await.unwrap_or(Err(Failure::TimedOut))
}

/// The stream that the application has granted: exactly these topics and patterns, private events
/// included.
async fn stream_request(
    app: &App,
    parts: &Parts,
    parameters: &Parameters,
) -> Result<(Access, StreamRequest), Problem> {
    let exact = parameters.values(&["topic"]);
    let matchers = streams::matchers(app, parts, &exact, &parameters.values(&["pattern"])).await?;
    if matchers.is_empty() {
        return Err(Problem::bad_request("topic", "It names no topic."));
    }
    app.hub.validator().matchers_count(matchers.len()).map_err(|invalid| Problem::of_matcher(&invalid))?;
    // Where the client is wins over where the application lets it begin: a browser that reconnects
    // continues, whatever the application says each time.
    let query = parts.uri.query().unwrap_or_default();
    let query: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    let query = query.iter().map(|(name, value)| (&**name, &**value)).filter(|(name, _)| *name != "since");
    let begin = parameters.iter().filter(|(name, _)| *name == "since");
    let start = Requested::id_or_word(&parts.headers, query.chain(begin))?;
    let expires_at = answer::expires_secs(parameters)?.map(|secs| unix_secs().saturating_add(secs));
    let access = Access::of_application(
        matchers.iter().cloned().collect(),
        expires_at,
        answer::label(parameters)?.map(Into::into),
    );
    let request = StreamRequest {
        matchers,
        start,
        format: native::format(parameters)?,
        hello: parameters.switch("hello")?,
        tells_cursor: false,
    };
    Ok((access, request))
}

/// The response for a client that has left, in case that it has not.
fn abandoned(app: &App) -> Problem {
    app.metrics.count_authorization("abandoned");
    let detail = "You have ended your side of the connection while the application was asked about this stream: keep it open.";
    Problem::bad_request("connection", detail)
}

/// The response where the application could not decide.
fn failed(
    app: &App,
    application: &Application,
    parts: &Parts,
    failure: &Failure,
) -> Result<Response, Problem> {
    app.metrics.count_authorization("failed");
    app.refusals.application_failed(failure.reason(), application.path.shown(), failure.to_string());
    let (status, detail) = match failure {
        Failure::Busy | Failure::NoMemory => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many streams wait for the application to decide about them. Try again later.",
        ),
        Failure::BusyForAddress => (
            StatusCode::TOO_MANY_REQUESTS,
            "Too many streams of your address wait for the application to decide about them. Try again later.",
        ),
        Failure::TimedOut => (
            StatusCode::GATEWAY_TIMEOUT,
            "The application that decides about this stream has not answered in time. Try again later.",
        ),
        Failure::Unreachable(_) => (
            StatusCode::BAD_GATEWAY,
            "The application that decides about this stream cannot be reached. Try again later.",
        ),
        Failure::Broken(_) => (
            StatusCode::BAD_GATEWAY,
            "The response of the application that decides about this stream is broken. Try again later.",
        ),
        Failure::Malformed(_) => (
            StatusCode::BAD_GATEWAY,
            "The hub cannot use the response of the application that decides about this stream; the log of the hub says why.",
        ),
    };
    let problem = Problem::new(status, APPLICATION, detail);
    // A malformed response stays malformed until the application is repaired.
    if matches!(failure, Failure::Malformed(_)) {
        return Err(problem);
    }
    Ok(streams::reject(app, parts, problem.retry_after(retry_after_secs(app))))
}
