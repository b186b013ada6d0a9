//! The response of the application on its way to the client.

use std::{
    any::Any,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use crate::{application::headers::for_client, relayed::Relayed};

/// What a response holds until it has ended.
pub(super) type Held = Box<dyn Any + Send>;

/// The response for the client. `held` is dropped with the last of its body.
pub(super) fn relay(response: http::Response<Incoming>, held: Held) -> Response {
    let (parts, body) = response.into_parts();
    let mut relayed = Response::new(Body::new(RelayedBody { body, _held: held }));
    *relayed.status_mut() = parts.status;
    *relayed.headers_mut() = for_client(&parts.headers);
    relayed.extensions_mut().insert(Relayed);
    relayed
}

struct RelayedBody {
    body: Incoming,
    _held: Held,
}

impl http_body::Body for RelayedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
