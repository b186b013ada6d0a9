//! The response of the application on its way to the client.

use std::any::Any;

use axum::{body::Body, response::Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::{application::headers::for_client, relayed::Relayed};

/// What a response holds until it has ended.
pub(super) type Held = Box<dyn Any + Send>;

/// The response for the client. `held` is dropped with the last of its body.
pub(super) fn relay(response: http::Response<Incoming>, held: Held) -> Response {
    let (parts, body) = response.into_parts();
    // What a closure mentions is dropped with the body.
    let body = body.map_err(move |error| {
        _ = &held;
        error
    });
    let mut relayed = Response::new(Body::new(body));
    *relayed.status_mut() = parts.status;
    *relayed.headers_mut() = for_client(&parts.headers);
    relayed.extensions_mut().insert(Relayed);
    relayed
}
