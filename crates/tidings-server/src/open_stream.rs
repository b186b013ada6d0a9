//! An open stream, and the choice of its driver: hyper, or the hub itself with the bare socket.
//!
//! A handler responds with a [`StreamBody`] and puts a [`Takeover`] into the extensions of its
//! response. Both refer to the one stream, and the first to take it drives it: the connection, if
//! it can hand over its socket to the hub, otherwise hyper, by polling the body. So a handler need
//! not know which it will be, and a response that loses its extensions still streams.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::Frame;
use tidings::Subscription;

use crate::{metrics::Metrics, slots::Slot};

/// An open stream, and the resources that it holds.
#[derive(Debug)]
pub(crate) struct OpenStream {
    pub(crate) subscription: Subscription,
    pub(crate) keep: StreamKeep,
}

/// Dropping it releases the slot and counts the stream as closed.
#[derive(Debug)]
pub(crate) struct StreamKeep {
    _slot: Slot,
    metrics: Arc<Metrics>,
}

impl StreamKeep {
    pub(crate) fn new(slot: Slot, metrics: &Arc<Metrics>) -> Self {
        metrics.streams_opened.inc();
        Self { _slot: slot, metrics: Arc::clone(metrics) }
    }
}

impl Drop for StreamKeep {
    fn drop(&mut self) {
        self.metrics.streams_closed.inc();
    }
}

/// Marks a response whose stream can be taken over.
#[derive(Clone, Debug)]
pub(crate) struct Takeover {
    stream: Arc<Mutex<Option<OpenStream>>>,
    input_end: InputEnd,
}

/// Whether the client has ended its side of the connection. From the next poll on, the body then
/// ends as soon as everything pending has been sent.
#[derive(Clone, Default, Debug)]
pub(crate) struct InputEnd(Arc<AtomicBool>);

impl InputEnd {
    pub(crate) fn set(&self) {
        self.0.store(true, Relaxed);
    }
}

impl Takeover {
    pub(crate) fn of(stream: OpenStream) -> Self {
        Self { stream: Arc::new(Mutex::new(Some(stream))), input_end: InputEnd::default() }
    }

    /// The stream, unless it was taken already.
    pub(crate) fn take(&self) -> Option<OpenStream> {
        self.stream.lock().expect("nothing panics while it holds this").take()
    }

    pub(crate) fn input_end(&self) -> InputEnd {
        self.input_end.clone()
    }

    pub(crate) fn body(&self) -> StreamBody {
        StreamBody::Offered(self.clone())
    }
}

/// The body of a stream that hyper drives. Dropping it ends the stream.
pub(crate) enum StreamBody {
    /// Not polled yet.
    Offered(Takeover),
    /// Driven by hyper; none if it was taken over.
    Carried(InputEnd, Option<Box<OpenStream>>),
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Self::Offered(takeover) = &*self {
            let stream = takeover.take().map(Box::new);
            *self = Self::Carried(takeover.input_end(), stream);
        }
        match &mut *self {
            Self::Carried(input_end, Some(stream)) => {
                if input_end.0.load(Relaxed) {
                    stream.subscription.end_when_caught_up();
                }
                Pin::new(&mut stream.subscription).poll_frame(context)
            }
            Self::Carried(_, None) | Self::Offered(_) => Poll::Ready(None),
        }
    }
}
