//! What the response of an application means: a stream, or a response for the client.

use std::time::Duration;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::header;
use hyper::body::Incoming;

use super::failure::Failure;
use crate::{
    BodyError, ClientAddress,
    app::App,
    application::{
        client::ClientError,
        grant::{Granted, granted},
        headers::for_client,
    },
};

/// Most bytes of the body of a response for the client. A larger one is answered with 502.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// What an application has answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// The client receives a stream.
    Subscribe(Granted),
    /// The client receives this.
    Other(Response),
}

/// Reads a response for this client. `time` bounds its body.
pub(super) async fn read(
    app: &App,
    response: http::Response<Incoming>,
    client: ClientAddress,
    time: Duration,
) -> Result<Answer, Failure> {
    let (parts, body) = response.into_parts();
    if parts.status.is_informational() {
        return Err(Failure::Malformed(format!(
            "it answered {}, which is not the end of an answer",
            parts.status
        )));
    }
    if let Some(granted) = granted(parts.status, &parts.headers) {
        return granted.map(Answer::Subscribe).map_err(Failure::Malformed);
    }
    let secs = time.as_secs().max(1);
    let body = app.responses.read(body, Some(client), BODY_BYTES_MAX, secs).await;
    let body = body.map_err(|error| match error {
        BodyError::TooLarge => {
            Failure::Malformed(format!("its response has more than {BODY_BYTES_MAX} bytes"))
        }
        BodyError::TimedOut => Failure::TimedOut,
        BodyError::NoMemory | BodyError::NoMemoryForAddress => Failure::NoMemory,
        BodyError::Broken => {
            ClientError::Broken { cause: "its body ends early".to_owned(), ended_early: false }.into()
        }
    })?;
    let mut passed_on = Response::new(Body::from(Bytes::from_owner(body)));
    *passed_on.status_mut() = parts.status;
    *passed_on.headers_mut() = for_client(&parts.headers);
    let headers = passed_on.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    // Which pages may read a response of the hub, only the hub decides.
    let cors: Vec<_> =
        headers.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
    for name in cors {
        headers.remove(name);
    }
    Ok(Answer::Other(passed_on))
}
