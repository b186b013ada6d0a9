//! JSON responses of the native API.

use axum::{body::Body, response::Response};
use http::{HeaderValue, header};
use serde::Serialize;

/// Capacity for most JSON responses: the receipt of one event.
const JSON_BYTES_EXPECTED: usize = 128;

/// JSON that ends with a line feed, for terminals.
pub(super) fn json_line(value: &impl Serialize) -> Response {
    let mut json = Vec::with_capacity(JSON_BYTES_EXPECTED);
    serde_json::to_writer(&mut json, value).expect("responses consist of strings and numbers");
    json.push(b'\n');
    let mut response = Response::new(Body::from(json));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
