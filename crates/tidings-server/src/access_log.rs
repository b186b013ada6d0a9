//! The access log (`--access-log`): a line for each request, with the target `tidings::access`.
//!
//! A request is logged when its response has ended, whatever ends it. A stream, or a connection that
//! has become a tunnel, is logged twice: when it is opened, and when it has ended. The [`Record`] is
//! held with the response, by the hub or a connection, and is logged when it is dropped, so nothing
//! of it is kept without the log.
//!
//! What is not logged: paths and queries, since topics, tickets and tokens are in them (the
//! route is a template), and headers, except for two that name a request and are checked ([`ids`]).

mod ids;

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    body::{Body, HttpBody},
    response::Response,
};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body::{Frame, SizeHint};
use tidings::CloseReason;

use self::ids::{REQUEST_ID, RequestId, TraceId};
use crate::{
    Client, ClientAddress, app::App, http1::Refusal, open_stream::StreamHandle, relayed::Tunnel, route::route,
};

/// In the extensions of a request whose connection comes from a trusted proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FromTrustedProxy;

/// What is logged of one request.
#[derive(Debug)]
pub(crate) struct Record {
    request: Requested,
    status: StatusCode,
    /// What was sent of the body.
    bytes: u64,
    kind: Kind,
    is_complete: bool,
    /// Why it has ended, of a stream.
    reason: Option<CloseReason>,
}

/// What is known of a request before it is answered.
#[derive(Debug)]
pub(crate) struct Requested {
    begin: Instant,
    /// The template of its path.
    route: &'static str,
    method: Method,
    client: Option<ClientAddress>,
    request_id: RequestId,
    trace_id: Option<TraceId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Response,
    Stream,
    Tunnel,
}

/// Logs a message with the fields of every one. It is named like that of `tracing`, so that
/// `tools/log-messages.mjs` finds the messages.
macro_rules! info {
    ($record:ident, $($more:tt)*) => {
        tracing::info!(
            target: "tidings::access",
            method = $record.request.method.as_str(),
            route = $record.request.route,
            status = $record.status.as_u16(),
            client = $record.request.client.map(tracing::field::display),
            request_id = $record.request.request_id.as_str(),
            trace_id = $record.request.trace_id.as_ref().map(TraceId::as_str),
            $($more)*
        )
    };
}

impl Requested {
    /// Reads a request, and gives it the id that is logged, so that an application that it is
    /// forwarded to can log the same.
    pub(crate) fn of<B>(app: &App, request: Request<B>) -> (Self, Request<B>) {
        let (mut parts, body) = request.into_parts();
        let is_trusted = parts.extensions.get::<FromTrustedProxy>().is_some();
        let request_id = RequestId::of(&parts.headers, is_trusted);
        let requested = Self {
            begin: Instant::now(),
            route: route(app, &parts),
            method: parts.method.clone(),
            client: parts.extensions.get::<Client>().map(|client| client.address),
            trace_id: TraceId::of(&parts.headers),
            request_id,
        };
        parts.headers.insert(REQUEST_ID, requested.request_id.header());
        (requested, Request::from_parts(parts, body))
    }

    /// Follows the response to its end. It names the request, unless an application has done so.
    pub(crate) fn follow(self, mut response: Response) -> Response {
        response.headers_mut().entry(REQUEST_ID).or_insert(self.request_id.header());
        let status = response.status();
        let has_no_body = self.method == Method::HEAD
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let stream = response.extensions().get::<StreamHandle>().cloned();
        let tunnel = response.extensions().get::<Tunnel>().cloned();
        let kind = match (&stream, &tunnel) {
            (Some(_), _) => Kind::Stream,
            (_, Some(_)) => Kind::Tunnel,
            _ => Kind::Response,
        };
        let record = Record { request: self, status, bytes: 0, kind, is_complete: has_no_body, reason: None };
        match kind {
            Kind::Stream => info!(record, "stream opened"),
            Kind::Tunnel => info!(record, "tunnel opened"),
            Kind::Response => {}
        }
        if let Some(stream) = stream {
            let mut record = record;
            stream.on_end(Box::new(move |reason| record.set_reason(reason)));
            return response;
        }
        if let Some(tunnel) = tunnel {
            tunnel.hold(Box::new(record));
            return response;
        }
        response.map(|body| Body::new(FollowedBody { body, record }))
    }
}

impl Record {
    fn set_reason(&mut self, reason: CloseReason) {
        self.reason = Some(reason);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let record = &*self;
        let duration_ms = record.request.begin.elapsed().as_secs_f64() * 1_000.0;
        // To the microsecond.
        let duration_ms = (duration_ms * 1_000.0).round() / 1_000.0;
        match record.kind {
            Kind::Response => {
                info!(record, duration_ms, bytes = record.bytes, complete = record.is_complete, "request");
            }
            Kind::Stream => {
                let reason = record.reason.map(CloseReason::as_str);
                info!(record, duration_ms, reason, "stream ended");
            }
            Kind::Tunnel => info!(record, duration_ms, "tunnel ended"),
        }
    }
}

/// Logs a request that no handler sees, because it cannot be understood or has not arrived in time.
pub(crate) fn refused(peer: ClientAddress, refusal: Refusal) {
    tracing::info!(
        target: "tidings::access",
        status = refusal.status().as_u16(),
        reason = ?refusal,
        client = %peer,
        "request refused"
    );
}

/// The body of a response, which knows when it has ended.
struct FollowedBody {
    body: Body,
    record: Record,
}

impl HttpBody for FollowedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.record.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(None) => self.record.is_complete = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for FollowedBody {
    fn drop(&mut self) {
        // A connection need not ask for the end of a body that it knows the length of.
        self.record.is_complete |= self.body.is_end_stream();
    }
}
