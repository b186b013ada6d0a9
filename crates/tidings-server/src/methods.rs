//! Requests with a method that their path does not take.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};

use crate::problem::{Problem, excerpt};

/// The answer to a method that a path does not take. The router adds the header `Allow`.
pub(crate) fn not_allowed(method: &Method) -> Response {
    // RFC 9110, section 9.3.7: the response to OPTIONS is that header.
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let shown = excerpt(method.as_str());
    let detail =
        format!("The method {shown} is not allowed here; the header `Allow` lists the allowed methods.");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", detail).into_response()
}

/// The same for a path whose methods the router does not know.
pub(crate) fn not_allowed_besides(allowed: &'static str, method: &Method) -> Response {
    let mut response = not_allowed(method);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}
