//! The methods of `/stream`. The router knows no QUERY, and passes on all of them.

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, Method};

use super::{form_or_json::MEDIA_TYPES, posted::stream_of_body, stream_of_query};
use crate::{app::App, methods::not_allowed_besides};

const METHODS: &str = "GET,HEAD,POST,QUERY";

const ACCEPT_QUERY: HeaderName = HeaderName::from_static("accept-query");

/// A stream, with its parameters in the query of the URL, or in the body of POST and QUERY.
pub(crate) async fn stream(State(app): State<App>, request: Request) -> Response {
    let method = request.method().clone();
    let mut response = match method {
        Method::GET | Method::HEAD => return stream_of_query(&app, request).await.into_response(),
        Method::POST | Method::QUERY => stream_of_body(&app, request).await.into_response(),
        _ => not_allowed_besides(METHODS, &method),
    };
    // RFC 10008: the media types that a QUERY of this path may have.
    response.headers_mut().insert(ACCEPT_QUERY, HeaderValue::from_static(MEDIA_TYPES));
    response
}
