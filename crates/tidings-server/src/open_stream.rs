//! An open stream, and what writes it: the hub itself, to the socket, or the connection, which
//! pulls it as a body.
//!
//! A handler responds with a [`StreamBody`] and puts a [`StreamHandle`] into the extensions of its
//! response. Both refer to the one stream. A connection that can give its socket to the hub takes
//! the stream out of the handle; otherwise the body is polled. So a handler need not know which it
//! will be, and a response that loses its extensions still streams.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::Frame;
#[cfg(target_os = "linux")]
use tidings::Socket;
use tidings::{OnEnd, Subscription};

use crate::{
    http1::HubSocket,
    metrics::counts::{Counts, Transport},
    revocation::Listed,
    slots::Slot,
};

/// An open stream, and the resources that it holds.
pub(crate) struct OpenStream {
    pub(crate) subscription: Subscription,
    pub(crate) keep: StreamKeep,
    /// Where it is found when it is revoked, if it can be.
    pub(crate) listed: Option<Box<Listed>>,
    /// What learns why it has ended, if anything does.
    pub(crate) on_end: Option<OnEnd>,
}

/// Dropping it releases the slot and counts the stream as closed.
#[derive(Debug)]
pub(crate) struct StreamKeep {
    _slot: Slot,
    counts: Arc<Counts>,
    transport: Transport,
}

impl StreamKeep {
    pub(crate) fn new(slot: Slot, counts: &Arc<Counts>, transport: Transport) -> Self {
        counts.streams_opened.count(transport);
        Self { _slot: slot, counts: Arc::clone(counts), transport }
    }
}

impl Drop for StreamKeep {
    fn drop(&mut self) {
        self.counts.streams_ended.count(self.transport);
    }
}

impl OpenStream {
    /// Gives the hub the socket, on which nothing of this response was written yet; `headers` are
    /// sent first. `early_bytes`: what the client has sent behind its request. The permit lasts as
    /// long as the connection.
    #[cfg(target_os = "linux")]
    pub(crate) fn drive_socket<P: Send + 'static>(
        self,
        socket: HubSocket,
        headers: Vec<u8>,
        early_bytes: usize,
        permit: P,
    ) {
        // What a closure mentions is dropped with the connection. Most streams cannot be revoked, and then
        // nothing is kept for it.
        let kept = (self.keep, permit);
        let on_end: OnEnd = match (self.listed, self.on_end) {
            (None, None) => Box::new(move |_| _ = &kept),
            (Some(listed), None) => Box::new(move |_| _ = (&kept, &listed)),
            (listed, Some(mut on_end)) => Box::new(move |reason| {
                _ = (&kept, &listed);
                on_end(reason);
            }),
        };
        let socket = match socket.encryption {
            Some(encryption) => Socket::encrypted(socket.stream, encryption, on_end),
            None => Socket::plain(socket.stream, on_end),
        };
        self.subscription.drive_socket(socket, headers, early_bytes);
    }

    /// Here the hub drives no sockets, and `Transport::is_for_hub` is never true.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn drive_socket<P>(self, _: HubSocket, _: Vec<u8>, _: usize, _: P) {
        unreachable!("{self:?} needs no socket");
    }
}

impl fmt::Debug for OpenStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenStream").field("subscription", &self.subscription).finish_non_exhaustive()
    }
}

/// In the extensions of a response whose body is a stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// None once something writes it.
    stream: Mutex<Option<Box<OpenStream>>>,
    /// The client has ended its side: the body ends as soon as everything due has been sent.
    input_ended: AtomicBool,
}

/// In the extensions of a response that is a finite read: it is written like a stream and ends like
/// any other response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FiniteRead;

impl StreamHandle {
    pub(crate) fn of(stream: OpenStream) -> Self {
        Self(Arc::new(Shared {
            stream: Mutex::new(Some(Box::new(stream))),
            input_ended: AtomicBool::new(false),
        }))
    }

    /// The stream, unless it was taken already.
    pub(crate) fn take(&self) -> Option<Box<OpenStream>> {
        self.0.stream.lock().expect("nothing panics while it holds this").take()
    }

    /// Calls this with the reason when the stream ends, and drops it with the stream.
    pub(crate) fn on_end(&self, on_end: OnEnd) {
        if let Some(stream) = &mut *self.0.stream.lock().expect("nothing panics while it holds this") {
            stream.on_end = Some(on_end);
        }
    }

    /// The client has ended its side of the connection. The body has to be polled again.
    pub(crate) fn end_input(&self) {
        self.0.input_ended.store(true, Relaxed);
    }

    pub(crate) fn body(&self) -> StreamBody {
        StreamBody { handle: self.clone(), stream: None }
    }
}

/// The body of a stream, for a connection that pulls it. Dropping it ends the stream.
pub(crate) struct StreamBody {
    handle: StreamHandle,
    /// Taken when it is polled for the first time.
    stream: Option<Box<OpenStream>>,
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Self { handle, stream } = &mut *self;
        if stream.is_none() {
            *stream = handle.take();
        }
        let Some(stream) = stream else { return Poll::Ready(None) };
        if handle.0.input_ended.load(Relaxed) {
            stream.subscription.end_when_caught_up();
        }
        Pin::new(&mut stream.subscription).poll_frame(context)
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        if let Some(OpenStream { subscription, on_end: Some(on_end), .. }) = self.stream.as_deref_mut() {
            on_end(subscription.close_reason());
        }
    }
}
