//! The body of a request on its way to the application.
//!
//! It is shared between the request that is being sent and what waits for the response, which has to
//! know whether the body was begun, since then the request cannot be sent again, and when it last
//! moved.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// The body of a request. Clones are the same body.
#[derive(Clone, Debug)]
pub(super) struct Upload(Option<Arc<Mutex<Arriving>>>);

/// A body with data.
#[derive(Debug)]
struct Arriving {
    body: Body,
    /// How long the client may send nothing of it.
    pause_max: Duration,
    /// Armed while it does.
    pause: Option<Pin<Box<Sleep>>>,
    is_begun: bool,
    moved_at: Instant,
    failure: Option<UploadFailure>,
}

/// What the client has done wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum UploadFailure {
    /// It has sent nothing for too long.
    Late,
    /// It has disconnected, or its framing is malformed.
    Broken,
}

impl Upload {
    pub(super) fn new(body: Body, pause_max: Duration) -> Self {
        if body.is_end_stream() {
            return Self(None);
        }
        Self(Some(Arc::new(Mutex::new(Arriving {
            body,
            pause_max,
            pause: None,
            is_begun: false,
            moved_at: Instant::now(),
            failure: None,
        }))))
    }

    /// There is no body.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// A part of it was read.
    pub(super) fn is_begun(&self) -> bool {
        self.arriving().is_some_and(|arriving| arriving.is_begun)
    }

    /// When a part of it was last passed on.
    pub(super) fn moved_at(&self) -> Option<Instant> {
        self.arriving().map(|arriving| arriving.moved_at)
    }

    /// Why it has ended before its end.
    pub(super) fn failure(&self) -> Option<UploadFailure> {
        self.arriving().and_then(|arriving| arriving.failure)
    }

    fn arriving(&self) -> Option<MutexGuard<'_, Arriving>> {
        self.0.as_ref().map(|arriving| arriving.lock().expect("nothing panics while it holds this"))
    }
}

impl Arriving {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.is_begun = true;
        if self.failure.is_some() {
            return Poll::Ready(Some(Err(not_sent_to_its_end())));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let failure = match polled {
            Poll::Ready(frame) => {
                self.pause = None;
                self.moved_at = Instant::now();
                match frame {
                    Some(Err(_)) => UploadFailure::Broken,
                    frame => return Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other))),
                }
            }
            Poll::Pending => {
                let pause_max = self.pause_max;
                let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(pause_max)));
                if pause.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                UploadFailure::Late
            }
        };
        self.failure = Some(failure);
        Poll::Ready(Some(Err(not_sent_to_its_end())))
    }
}

fn not_sent_to_its_end() -> io::Error {
    io::Error::other("the client has not sent the body to its end")
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.arriving() {
            Some(mut arriving) => arriving.poll_data(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.arriving().is_none_or(|arriving| arriving.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.arriving().map_or(SizeHint::with_exact(0), |arriving| arriving.body.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt, stream};
    use http_body_util::BodyExt;

    use super::*;

    const PAUSE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_client_that_pauses_for_too_long_fails_and_one_that_sends_slowly_does_not() {
        let piece = || Ok::<_, io::Error>(Bytes::from_static(b"x"));
        let slow = stream::iter(0..3).then(move |_| async move {
            tokio::time::sleep(PAUSE / 2).await;
            piece()
        });
        let mut upload = Upload::new(Body::from_stream(slow.chain(stream::pending())), PAUSE);
        let watched = upload.clone();
        assert!(!watched.is_begun() && !watched.is_empty());
        for _ in 0..3 {
            upload.frame().await.expect("a piece").expect("no failure");
        }
        assert!(watched.is_begun());
        assert_eq!(watched.failure(), None);
        let moved_at = watched.moved_at().expect("it has");
        upload.frame().await.expect("an end").expect_err("a failure");
        assert_eq!(watched.failure(), Some(UploadFailure::Late));
        upload.frame().await.expect("no end").expect_err("the same failure");
        assert_eq!(watched.moved_at(), Some(moved_at));
        assert_eq!(moved_at.elapsed(), PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_application_that_reads_slowly_is_not_the_clients_fault() {
        let pieces = stream::iter([1, 2]).map(|_| Ok::<_, io::Error>(Bytes::from_static(b"x")));
        let mut upload = Upload::new(Body::from_stream(pieces), PAUSE);
        upload.frame().await.expect("a piece").expect("no failure");
        tokio::time::advance(10 * PAUSE).await;
        upload.frame().await.expect("a piece").expect("no failure");
    }

    #[tokio::test]
    async fn a_body_without_data_is_none() {
        let mut upload = Upload::new(Body::empty(), PAUSE);
        assert!(upload.is_empty() && upload.is_end_stream() && !upload.is_begun());
        assert_eq!(upload.size_hint().exact(), Some(0));
        assert!(upload.frame().now_or_never().expect("at once").is_none());
    }
}
