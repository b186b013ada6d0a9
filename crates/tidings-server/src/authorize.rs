//! The application's own route decides: a request for a stream is forwarded to the application,
//! whose response names the topics, or is passed on to the client.
//!
//! ```text
//! client ─► hub ─► GET of the application ─► 200 with `Tidings-Subscribe` ─► a stream
//!                                         └► anything else ─► the client, as it is
//! ```
//!
//! - [`path`]: a path, its application, and how long that may take; [`applications`]: all of them.
//! - [`request`]: what the application receives; `crate::application`: how.
//! - [`answer`]: what its response means; [`failure`]: why there is none.
//!
//! Invariants: what the application does not allow is not streamed, and its answer is valid for one
//! stream alone: nothing is cached. Every failure refuses the stream. An application that hangs,
//! lies or floods takes a bounded number of requests, a bounded time and bounded memory; other
//! paths are served as if it were not there.

mod answer;
mod applications;
mod failure;
mod path;
mod request;

use std::sync::Arc;

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, request::Parts};

pub(crate) use self::applications::Application;
use self::{answer::Answer, failure::Failure};
pub use self::{
    applications::Applications,
    path::{AuthorizedPath, InvalidAuthorizedPath},
};
use crate::{
    access::client_address,
    app::App,
    application::client::ClientError,
    http1::client_left,
    methods,
    metrics::counts::Authorization,
    problem::{APPLICATION, Problem},
    revocation::Issued,
    shedding::retry_after_secs,
    streams,
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
    let slot = streams::slot(app, &parts)?;
    let issued = Issued::After(app.revocations.count());
    let asked = tokio::select! {
        biased;
        asked = ask(app, application, &parts) => asked,
        () = client_left(&parts) => return Err(abandoned(app)),
    };
    let answered = match asked {
        Ok(Answer::Other(response)) => Ok((response, Authorization::Other)),
        Ok(Answer::Subscribe(granted)) => {
            let opened = granted.open(app, &parts, slot, issued).await;
            opened.map(|response| (response, Authorization::Subscribed)).map_err(Failure::Malformed)
        }
        Err(failure) => Err(failure),
    };
    let (response, outcome) = answered.map_err(|failure| failed(app, application, &parts, &failure))?;
    app.counts.authorizations.count(outcome);
    Ok(response)
}

async fn ask(app: &App, application: &Application, parts: &Parts) -> Result<Answer, Failure> {
    let _permit = application.in_flight.try_acquire().map_err(|_| Failure::Busy)?;
    let address = client_address(parts);
    let _share = app.slots.authorizing(address).ok_or(Failure::BusyForAddress)?;
    let scheme = app.hub.validator().hub_url().scheme();
    let forwarded = request::forwarded(&application.path, parts, scheme).map_err(Failure::Malformed)?;
    let asking = async {
        let response = application.client.forward_repeatable(forwarded).await?;
        answer::read(app, response, address, application.path.time()).await
    };
    tokio::time::timeout(application.path.time(), asking).await.unwrap_or(Err(Failure::TimedOut))
}

/// The response for a client that has left, in case that it has not.
fn abandoned(app: &App) -> Problem {
    app.counts.authorizations.count(Authorization::Abandoned);
    let detail = "You have ended your side of the connection while the application was asked about this stream: keep it open.";
    Problem::bad_request("connection", detail)
}

/// The response where the application could not decide.
fn failed(app: &App, application: &Application, parts: &Parts, failure: &Failure) -> Problem {
    app.counts.authorizations.count(Authorization::Failed);
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
        Failure::Client(ClientError::Unreachable { .. }) => (
            StatusCode::BAD_GATEWAY,
            "The application that decides about this stream cannot be reached. Try again later.",
        ),
        Failure::Client(ClientError::Broken { .. }) => (
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
        return problem;
    }
    streams::reject(app, parts, problem.retry_after(retry_after_secs(app)))
}
