//! The body of a request: what its handler reads.
//!
//! Nearly every body has arrived together with its headers, and is then a slice of the same bytes.
//! One that has not is read by its connection whenever the handler asks for more ([`Upload`] is the
//! connection's side). Both sides may be polled by different tasks.
//!
//! Invariant: at most the data of one read from the socket waits for the handler. The connection
//! reads no more before the handler has taken it.

use std::{
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// The body of a request, see [`serve`](crate::serve).
pub struct RequestBody(Source);

enum Source {
    Complete(Bytes),
    Arriving(Arriving),
    /// Of HTTP/2.
    Http2(Incoming),
}

/// Why a body ended before its end: the client closed the connection, or the framing is malformed.
#[derive(Debug, thiserror::Error)]
#[error("the request body ended early or its framing is malformed")]
pub struct RequestBodyError {
    source: Option<hyper::Error>,
}

/// The handler's side of a body that is still arriving.
struct Arriving(Arc<Shared>);

/// The connection's side of a body that is still arriving. Dropping it ends the body as broken.
#[derive(Debug)]
pub(super) struct Upload(Arc<Shared>);

#[derive(Debug)]
struct Shared(Mutex<Slot>);

#[derive(Debug)]
struct Slot {
    /// What has arrived and was not taken yet.
    data: Bytes,
    /// How much is still to come, as far as is known, besides `data`.
    remaining: Option<u64>,
    end: End,
    /// The handler has begun to read.
    is_begun: bool,
    /// The handler has found nothing, and waits for more.
    is_wanted: bool,
    /// The handler has dropped the body.
    is_dropped: bool,
    handler: Option<Waker>,
    connection: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    NotYet,
    Complete,
    Broken,
}

/// What a handler makes of a body before its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Usage {
    /// It may read on.
    Held,
    /// It has dropped the body without reading it.
    Ignored,
    /// It has dropped the body while it read it, such as one that is too large or too slow.
    GivenUp,
}

/// A body of which `first` has arrived, and `remaining` bytes are still to come, if that is known.
pub(super) fn arriving(first: Bytes, remaining: Option<u64>) -> (Upload, RequestBody) {
    let shared = Arc::new(Shared(Mutex::new(Slot {
        data: first,
        remaining,
        end: End::NotYet,
        is_begun: false,
        is_wanted: false,
        is_dropped: false,
        handler: None,
        connection: None,
    })));
    (Upload(Arc::clone(&shared)), RequestBody(Source::Arriving(Arriving(shared))))
}

impl RequestBody {
    pub(super) fn complete(bytes: Bytes) -> Self {
        Self(Source::Complete(bytes))
    }

    /// Whether all of it has arrived.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.0, Source::Complete(_))
    }
}

impl From<Incoming> for RequestBody {
    fn from(incoming: Incoming) -> Self {
        Self(Source::Http2(incoming))
    }
}

impl Upload {
    /// Ready when the handler waits for more. The task is woken when it does.
    pub(super) fn poll_wanted(&self, cx: &Context<'_>) -> Poll<()> {
        let mut slot = self.0.lock();
        if slot.is_wanted && slot.end == End::NotYet {
            return Poll::Ready(());
        }
        register(&mut slot.connection, cx);
        Poll::Pending
    }

    /// Gives the handler what has arrived; `remaining` bytes are still to come, if that is known.
    pub(super) fn give(&self, data: Bytes, remaining: Option<u64>, cx: &Context<'_>) {
        let mut slot = self.0.lock();
        slot.remaining = remaining;
        if data.is_empty() {
            return;
        }
        slot.data = data;
        slot.is_wanted = false;
        wake(slot.handler.take(), cx);
    }

    /// All data has been given.
    pub(super) fn complete(self, cx: &Context<'_>) {
        self.0.end(End::Complete, |handler| wake(handler, cx));
    }

    /// What the handler has made of the body so far.
    pub(super) fn usage(&self) -> Usage {
        let slot = self.0.lock();
        match (slot.is_dropped, slot.is_begun) {
            (false, _) => Usage::Held,
            (true, false) => Usage::Ignored,
            (true, true) => Usage::GivenUp,
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.end(End::Broken, |handler| {
            handler.inspect(Waker::wake_by_ref);
        });
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().expect("nothing panics while it holds this")
    }

    fn end(&self, end: End, wake: impl FnOnce(Option<Waker>)) {
        let mut slot = self.lock();
        if slot.end == End::NotYet {
            slot.end = end;
            // Who forwards a broken body must not take what has arrived for all of it.
            slot.remaining = (end == End::Complete).then_some(0);
            wake(slot.handler.take());
        }
    }
}

/// Wakes the other side, unless it is the task that is being polled: the connection polls the
/// handler again after it has given it something, and looks at the body after the handler.
fn wake(waker: Option<Waker>, cx: &Context<'_>) {
    if let Some(waker) = waker.filter(|waker| !waker.will_wake(cx.waker())) {
        waker.wake();
    }
}

fn register(waker: &mut Option<Waker>, cx: &Context<'_>) {
    if waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
        *waker = Some(cx.waker().clone());
    }
}

impl Arriving {
    fn poll_data(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, RequestBodyError>>> {
        let mut slot = self.0.lock();
        slot.is_begun = true;
        if !slot.data.is_empty() {
            return Poll::Ready(Some(Ok(mem::take(&mut slot.data))));
        }
        match slot.end {
            End::Complete => Poll::Ready(None),
            End::Broken => {
                // An error is reported once.
                slot.end = End::Complete;
                Poll::Ready(Some(Err(RequestBodyError { source: None })))
            }
            End::NotYet => {
                slot.is_wanted = true;
                register(&mut slot.handler, cx);
                wake(slot.connection.take(), cx);
                Poll::Pending
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        let slot = self.0.lock();
        let arrived = slot.data.len() as u64;
        match slot.remaining {
            Some(remaining) => SizeHint::with_exact(arrived + remaining),
            None => SizeHint::default(),
        }
    }

    fn is_end(&self) -> bool {
        let slot = self.0.lock();
        slot.data.is_empty() && slot.end == End::Complete
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let mut slot = self.0.lock();
        slot.is_dropped = true;
        slot.is_wanted = false;
        slot.data = Bytes::new();
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        match &mut self.0 {
            Source::Complete(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Complete(bytes) => Poll::Ready(Some(Ok(Frame::data(mem::take(bytes))))),
            Source::Arriving(arriving) => {
                Poll::Ready(ready!(arriving.poll_data(cx)).map(|data| data.map(Frame::data)))
            }
            Source::Http2(incoming) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                Poll::Ready(
                    frame.map(|frame| frame.map_err(|error| RequestBodyError { source: Some(error) })),
                )
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Complete(bytes) => bytes.is_empty(),
            Source::Arriving(arriving) => arriving.is_end(),
            Source::Http2(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Complete(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Arriving(arriving) => arriving.size_hint(),
            Source::Http2(incoming) => incoming.size_hint(),
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match &self.0 {
            Source::Complete(_) => "complete",
            Source::Arriving(_) => "arriving",
            Source::Http2(_) => "HTTP/2",
        };
        f.debug_tuple("RequestBody").field(&source).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn poll(body: &mut RequestBody, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ()>>> {
        Pin::new(body).poll_frame(cx).map(|frame| {
            frame.map(|frame| frame.map(|frame| frame.into_data().expect("data")).map_err(|_| ()))
        })
    }

    #[test]
    fn the_connection_reads_only_what_the_handler_waits_for() {
        let (of_handler, of_connection) = (Arc::<Wakes>::default(), Arc::<Wakes>::default());
        let (handler, connection) =
            (Waker::from(Arc::clone(&of_handler)), Waker::from(Arc::clone(&of_connection)));
        let (mut handler, connection) = (Context::from_waker(&handler), Context::from_waker(&connection));
        let (upload, mut body) = arriving(Bytes::from_static(b"first"), Some(6));
        assert_eq!(body.size_hint().exact(), Some(11));
        assert!(upload.poll_wanted(&connection).is_pending());
        assert_eq!(poll(&mut body, &mut handler), Poll::Ready(Some(Ok(Bytes::from_static(b"first")))));
        assert!(upload.poll_wanted(&connection).is_pending(), "taken, but no more is asked for");
        assert!(poll(&mut body, &mut handler).is_pending());
        assert_eq!(of_connection.0.load(Relaxed), 1);
        assert!(upload.poll_wanted(&connection).is_ready());
        upload.give(Bytes::from_static(b"second"), Some(0), &connection);
        assert_eq!(of_handler.0.load(Relaxed), 1);
        assert!(upload.poll_wanted(&connection).is_pending());
        upload.complete(&connection);
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(6), false));
        assert_eq!(poll(&mut body, &mut handler), Poll::Ready(Some(Ok(Bytes::from_static(b"second")))));
        assert!(body.is_end_stream());
        assert_eq!(poll(&mut body, &mut handler), Poll::Ready(None));
    }

    #[test]
    fn a_body_whose_connection_is_gone_is_broken_once() {
        let of_handler = Arc::<Wakes>::default();
        let waker = Waker::from(Arc::clone(&of_handler));
        let mut handler = Context::from_waker(&waker);
        let (upload, mut body) = arriving(Bytes::new(), Some(5));
        assert!(poll(&mut body, &mut handler).is_pending());
        drop(upload);
        assert_eq!(of_handler.0.load(Relaxed), 1);
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (None, false));
        assert_eq!(poll(&mut body, &mut handler), Poll::Ready(Some(Err(()))));
        assert_eq!(poll(&mut body, &mut handler), Poll::Ready(None));
    }

    #[test]
    fn a_body_that_is_polled_by_its_connection_wakes_nobody() {
        let count = Arc::<Wakes>::default();
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let (upload, mut body) = arriving(Bytes::new(), None);
        assert!(upload.poll_wanted(&cx).is_pending());
        assert!(poll(&mut body, &mut cx).is_pending());
        upload.give(Bytes::from_static(b"data"), None, &cx);
        assert!(poll(&mut body, &mut cx).is_ready());
        assert!(poll(&mut body, &mut cx).is_pending());
        upload.complete(&cx);
        assert_eq!(count.0.load(Relaxed), 0);
        assert_eq!(poll(&mut body, &mut cx), Poll::Ready(None));
    }
}
