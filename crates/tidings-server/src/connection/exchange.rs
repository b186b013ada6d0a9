//! State shared by a connection and the handler of its request: what the connection must know about
//! the response, and the handler about the connection.

use std::{
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use http_body::{Body, Frame, SizeHint};
use tower::{Service, ServiceExt};

use super::{
    admission::Turn,
    takeover::{Taken, may_take_over, take_from},
};
use crate::open_stream::{InputEnd, Takeover};

/// Whom a request came from: the other end of its connection. The server puts it in the extensions
/// of every request. An IPv4 address that arrived on an IPv6 socket is an IPv4 address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PeerAddress(pub SocketAddr);

/// How far the current answer is: written by the service and its body, read by the gated socket and
/// the connection. All of them are polled by the connection's one task, so the flags order nothing
/// between threads.
#[derive(Default, Debug)]
pub(super) struct Exchange {
    body_done: AtomicBool,
    streaming: AtomicBool,
    /// The socket can be given to the hub.
    is_raw: AtomicBool,
    /// The stream that hyper carries, if it can be notified that its client has ended its side.
    carried: Mutex<Option<InputEnd>>,
    /// The stream that it is to be given to the hub with.
    taken: Mutex<Option<Taken>>,
    /// What the first head waited for, until it is answered.
    turn: Mutex<Turn>,
}

impl Exchange {
    /// What holds from now on, before the first request.
    pub(super) fn begin(&self, is_raw: bool, turn: Turn) {
        self.is_raw.store(is_raw, Relaxed);
        *self.turn.lock().expect(NO_PANIC) = turn;
    }

    /// Gives back what the first head waited for, where no request has come to be answered.
    pub(super) fn end_turn(&self) {
        *self.turn.lock().expect(NO_PANIC) = None;
    }

    /// The last byte of the answer's body has been handed to hyper; true once per answer.
    pub(super) fn take_body_done(&self) -> bool {
        if !self.body_done.load(Relaxed) {
            return false;
        }
        self.streaming.store(false, Relaxed);
        self.body_done.swap(false, Relaxed)
    }

    /// The answer has no end of its own: it lasts as long as the client listens.
    pub(super) fn is_streaming(&self) -> bool {
        self.streaming.load(Relaxed)
    }

    /// The client has ended its side. True if the stream that hyper carries then ends by itself.
    pub(super) fn end_input(&self) -> bool {
        self.carried.lock().expect(NO_PANIC).as_ref().inspect(|carried| carried.set()).is_some()
    }

    /// The stream with which this connection is to leave hyper.
    pub(super) fn take_taken(&self) -> Option<Taken> {
        self.taken.lock().expect(NO_PANIC).take()
    }
}

const NO_PANIC: &str = "nothing panics while it holds this";

/// Answers one request with `service`. An answer that is taken over never comes: the connection
/// leaves hyper.
pub(super) async fn answer<S, I, B>(
    service: S,
    mut request: Request<I>,
    peer: PeerAddress,
    exchange: Arc<Exchange>,
) -> Response<AnswerBody<B>>
where
    S: Service<Request<I>, Response = Response<B>, Error = Infallible>,
    I: Body,
{
    name_host_once(&mut request);
    request.extensions_mut().insert(peer);
    let may_take_over = exchange.is_raw.load(Relaxed) && may_take_over(&request);
    let asks_to_close = asks_to_close(request.headers());
    let Ok(mut response) = service.oneshot(request).await;
    if may_take_over {
        if asks_to_close {
            // As hyper answers it.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        match take_from(response) {
            Ok(taken) => {
                *exchange.taken.lock().expect(NO_PANIC) = Some(taken);
                return pending().await;
            }
            Err(ordinary) => response = ordinary,
        }
    }
    exchange.end_turn();
    *exchange.carried.lock().expect(NO_PANIC) =
        response.extensions().get::<Takeover>().map(Takeover::input_end);
    exchange.streaming.store(is_stream(response.headers()), Relaxed);
    response.map(|inner| AnswerBody { inner, _done: Done(exchange) })
}

/// Whether an answer with these headers lasts as long as its client listens.
pub(super) fn is_stream(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

/// RFC 9112, 9.3: the client will not ask again.
pub(super) fn asks_to_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("close"))
}

/// RFC 9112, 3.2.2: the host of an absolute-form target replaces the Host header. Handlers then
/// need to look at one place, and see the same target for the same resource.
fn name_host_once<I>(request: &mut Request<I>) {
    let Some(authority) = request.uri().authority() else { return };
    let Ok(host) = HeaderValue::from_str(authority.as_str()) else { return };
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let Ok(uri) = Uri::try_from(format!("{}{query}", request.uri().path())) else { return };
    request.headers_mut().insert(header::HOST, host);
    *request.uri_mut() = uri;
}

/// An answer's body that says when hyper is done with it.
pub(super) struct AnswerBody<B> {
    inner: B,
    _done: Done,
}

struct Done(Arc<Exchange>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.body_done.store(true, Relaxed);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for AnswerBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
