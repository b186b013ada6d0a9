//! One request to the application, and its response.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header, request::Parts};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::{
    failure::Failure,
    response::{Held, relay},
    settings::{Shared, Upstream},
    upload::{Upload, UploadFailure},
};
use crate::{
    access::client_address,
    app::App,
    application::{
        client::ClientError,
        grant::granted,
        headers::{for_application, for_client},
    },
    connection::admission::SharedPermit,
    http1::{client_left, has_connection_option},
    methods,
    metrics::counts::UpstreamOutcome,
    problem::{APPLICATION, Problem},
    relayed::{Relayed, Tunnel},
    revocation::Issued,
    streams,
};

/// The only protocol that a connection may change to. To pass on `h2c` would let a client send
/// requests past the hub.
const WEBSOCKET: &str = "websocket";

/// Answers a request for the application.
pub(crate) async fn answer(app: &App, upstream: &Upstream, parts: &Parts, body: Body) -> Response {
    if parts.method == Method::TRACE {
        // It would show a page the headers of its own requests, cookies included.
        return methods::not_allowed(&parts.method);
    }
    let issued = Issued::After(app.revocations.count());
    let asked = tokio::select! {
        biased;
        asked = ask(app, upstream, parts, body) => asked,
        () = client_left(parts) => return abandoned(app).into_response(),
    };
    let answered = match asked {
        Ok((response, permits)) => match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => tunnel(app, parts, response, permits).await,
            _ => respond(app, parts, response, permits, issued).await,
        },
        Err(failure) => Err(failure),
    };
    answered.unwrap_or_else(|failure| failure.answer(app, upstream, parts).into_response())
}

/// The permits of a request, until its response has ended.
fn permits(app: &App, upstream: &Upstream, parts: &Parts) -> Result<Held, Failure> {
    let permit = Arc::clone(&upstream.shared().requests).try_acquire_owned().map_err(|_| Failure::Busy)?;
    let share = app.slots.upstream(client_address(parts)).ok_or(Failure::BusyForAddress)?;
    // The hub has nothing to do for it while it waits.
    parts.extensions.get::<SharedPermit>().inspect(|permit| permit.give_back());
    Ok(Box::new((permit, share)))
}

async fn ask(
    app: &App,
    upstream: &Upstream,
    parts: &Parts,
    body: Body,
) -> Result<(http::Response<Incoming>, Held), Failure> {
    let permits = permits(app, upstream, parts)?;
    let Shared { address, settings, client, reachability, .. } = upstream.shared();
    let upload = Upload::new(body, Duration::from_secs(app.settings.body_secs));
    let start = Instant::now();
    let until = start + settings.wait;
    // A request that may be sent again if nobody can say whether it was received (RFC 9110, 9.2.2).
    let mut may_repeat = parts.method.is_idempotent() && upload.is_empty();
    loop {
        if !upload.is_begun() && !reachability.wait(address, until).await {
            let cause = format!("nothing listens at its address for {} s", settings.wait.as_secs());
            return Err(Failure::Unreachable(cause));
        }
        let request = forwarded(app, upstream, parts, upload.clone())?;
        let sending = client.forward(request);
        let Some(answered) = while_it_moves(&upload, settings.time, sending).await else {
            return Err(Failure::TimedOut);
        };
        let error = match answered {
            Ok(response) => {
                app.counts.upstream_duration.record(start.elapsed());
                return Ok((response, permits));
            }
            Err(error) => error,
        };
        match (&error, upload.failure()) {
            (_, Some(UploadFailure::Late)) => return Err(Failure::UploadLate),
            (_, Some(UploadFailure::Broken)) => return Err(Failure::UploadBroken),
            (ClientError::Unreachable { is_down: true, .. }, _) if !upload.is_begun() => {
                reachability.is_refused();
            }
            (ClientError::Broken { ended_early: true, .. }, _) if may_repeat => may_repeat = false,
            _ => return Err(error.into()),
        }
    }
}

/// Waits for a response, for at most this time after the body has last moved.
async fn while_it_moves<T>(upload: &Upload, time: Duration, answer: impl Future<Output = T>) -> Option<T> {
    let mut answer = pin!(answer);
    let start = Instant::now();
    let mut moved_at = start;
    loop {
        if let Ok(answer) = timeout_at(moved_at + time, &mut answer).await {
            return Some(answer);
        }
        let moved = upload.moved_at().unwrap_or(start).max(start);
        if moved == moved_at {
            return None;
        }
        moved_at = moved;
    }
}

/// The request as the application receives it.
fn forwarded(
    app: &App,
    upstream: &Upstream,
    parts: &Parts,
    upload: Upload,
) -> Result<http::Request<Upload>, Failure> {
    let target = parts.uri.path_and_query().cloned();
    let target = target.ok_or_else(|| Failure::Malformed("the request has no path".to_owned()))?;
    let mut request = http::Request::new(upload);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = upstream.shared().address.url(target);
    *request.headers_mut() = for_application(parts, app.hub.validator().hub_url().scheme(), None);
    if asks_for_websocket(parts) {
        upgrade(request.headers_mut());
    }
    Ok(request)
}

/// RFC 6455, 4.1: a GET over HTTP/1.1 with this one protocol.
fn asks_for_websocket(parts: &Parts) -> bool {
    parts.method == Method::GET
        && parts.version == Version::HTTP_11
        && has_connection_option(&parts.headers, "upgrade")
        && is_to_websocket(&parts.headers)
}

fn is_to_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    let is_websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes());
    protocols.next().is_some_and(is_websocket) && protocols.next().is_none()
}

fn upgrade(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
}

/// The response to a client whose connection is continued as a tunnel.
async fn tunnel(
    app: &App,
    parts: &Parts,
    mut response: http::Response<Incoming>,
    held: Held,
) -> Result<Response, Failure> {
    if !asks_for_websocket(parts) || !is_to_websocket(response.headers()) {
        return Err(Failure::Malformed("it answered 101 to a request that did not ask for it".to_owned()));
    }
    let upgraded = hyper::upgrade::on(&mut response).await;
    let upgraded = upgraded.map_err(|error| Failure::Broken(format!("its connection ended: {error}")))?;
    app.counts.upstream_requests.count(UpstreamOutcome::Upgraded);
    let mut switching = Response::new(Body::empty());
    *switching.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switching.headers_mut() = for_client(response.headers());
    upgrade(switching.headers_mut());
    switching.extensions_mut().insert(Relayed);
    switching.extensions_mut().insert(Tunnel::to(upgraded, held));
    Ok(switching)
}

/// The response to a client: a stream, if the application grants one.
async fn respond(
    app: &App,
    parts: &Parts,
    response: http::Response<Incoming>,
    held: Held,
    issued: Issued,
) -> Result<Response, Failure> {
    let Some(granted) = granted(response.status(), response.headers()) else {
        app.counts.upstream_requests.count(UpstreamOutcome::Answered);
        return Ok(relay(response, held));
    };
    let granted = granted.map_err(Failure::Malformed)?;
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(Failure::Malformed(format!(
            "it answered {} with the header `Tidings-Subscribe`: a stream needs GET",
            parts.method
        )));
    }
    drop((response, held));
    let opened = match streams::slot(app, parts) {
        Ok(slot) => granted.open(app, parts, slot, issued).await,
        Err(rejection) => Ok(rejection.into_response()),
    };
    let response = opened.map_err(Failure::Malformed)?;
    app.counts.upstream_requests.count(UpstreamOutcome::Subscribed);
    Ok(response)
}

/// The response for a client that has left, in case that it has not.
fn abandoned(app: &App) -> Problem {
    app.counts.upstream_requests.count(UpstreamOutcome::Abandoned);
    let detail = "You have ended your side of the connection while the application was making its response: keep it open.";
    Problem::bad_request(APPLICATION, detail)
}
