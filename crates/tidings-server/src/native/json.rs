//! JSON responses of the native API.

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header, request::Parts};
use serde::Serialize;

use crate::{BodyError, access::client_address, app::App, limit_log::Limit, problem::Problem};

/// Capacity for most JSON responses: the receipt of one event.
const JSON_BYTES_EXPECTED: usize = 128;

/// Responses of at most this many bytes need no share of `responses_bytes_max`: a connection takes
/// as much.
const UNCOUNTED_BYTES_MAX: usize = 4 * 1024;

/// The `Retry-After` of a client that hits the limit, in seconds.
const RETRY_AFTER_SECS: u64 = 1;

/// JSON that ends with a line feed, for terminals.
pub(super) fn json_line(value: &impl Serialize) -> Response {
    of_bytes(line(value).into())
}

/// The same for JSON of any size. What the client does not read takes its share of the memory for
/// responses.
pub(super) fn large_json_line(app: &App, parts: &Parts, value: &impl Serialize) -> Result<Response, Problem> {
    large_json(app, parts, line(value))
}

/// The same for JSON that is written already.
pub(crate) fn large_json(app: &App, parts: &Parts, json: Vec<u8>) -> Result<Response, Problem> {
    // Without what it has grown for.
    let bytes = Bytes::from(json.into_boxed_slice());
    if bytes.len() <= UNCOUNTED_BYTES_MAX {
        return Ok(of_bytes(bytes));
    }
    app.responses.hold(bytes, Some(client_address(parts))).map(of_bytes).map_err(|error| {
        let (status, of_whom) = match error {
            BodyError::NoMemoryForAddress => (StatusCode::TOO_MANY_REQUESTS, "your address has"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "clients have"),
        };
        let detail = format!(
            "Responses that {of_whom} not read yet use all of the memory reserved for them: read them, or try again in a moment."
        );
        Problem::new(status, "responses", detail)
            .limit(&Limit::Setting("responses_bytes_max"))
            .retry_after(RETRY_AFTER_SECS)
    })
}

/// JSON, and a line feed.
pub(crate) fn line(value: &impl Serialize) -> Vec<u8> {
    let mut json = Vec::with_capacity(JSON_BYTES_EXPECTED);
    serde_json::to_writer(&mut json, value).expect("responses consist of strings and numbers");
    json.push(b'\n');
    json
}

fn of_bytes(json: Bytes) -> Response {
    let mut response = Response::new(Body::from(json));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
