//! The open requests of one HTTP/2 connection, all polled by the connection's own task.
//!
//! hyper spawns a task for each; [`Spawner`] puts them into [`Streams`] instead, so that no task
//! outlives its connection, and the open requests of a connection are known: a connection without
//! any is idle, and a client that does not read its responses is found ([`Streams::cut_slow`]).
//!
//! A request is open until its response is written, to its last byte. hyper is done with a response
//! when it has handed the end to the library that writes the frames, and a client that makes no room
//! for it (RFC 9113, 5.2) leaves it there. So the library is given [`Piece`]s, which report what is
//! written of them, and that they are dropped.

use std::{
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures_util::{StreamExt, stream::FuturesUnordered};
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::Instant;

use super::work::{FRAME_WORK, REQUEST_WORK, Work, units};

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Streams {
    running: FuturesUnordered<Running>,
    /// Responses that have left hyper, and were not written to their end when last looked at: at
    /// most as many as a client may have open requests.
    ending: Vec<Arc<Progress>>,
    arrivals: Arc<Mutex<Arrivals>>,
}

/// What has begun since the connection was last looked at: at most as many streams as a connection
/// may have.
#[derive(Default)]
struct Arrivals {
    /// Of the request that hyper has just handed to the service, and will spawn next.
    announced: Option<Arc<Progress>>,
    running: Vec<Running>,
}

struct Running {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    progress: Arc<Progress>,
}

/// hyper's way into [`Streams`], which it does not keep alive.
#[derive(Clone)]
pub(super) struct Spawner {
    arrivals: Weak<Mutex<Arrivals>>,
    work: Arc<Work>,
}

/// How far a response is.
#[derive(Debug)]
pub(super) struct Progress {
    marks: Mutex<Marks>,
    work: Arc<Work>,
}

#[derive(Default, Debug)]
struct Marks {
    /// Pieces that have not been written to their end.
    pieces: usize,
    /// Since when nothing of them was written, if there are any.
    waits_since: Option<Instant>,
    /// When a response with an end began.
    began: Option<Instant>,
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadLimits {
    /// To make room for anything that waits for it.
    pub(super) silence: Duration,
    /// To read a response with an end.
    pub(super) response: Duration,
}

impl Streams {
    pub(super) fn spawner(&self, work: &Arc<Work>) -> Spawner {
        Spawner { arrivals: Arc::downgrade(&self.arrivals), work: Arc::clone(work) }
    }

    pub(super) fn is_empty(&mut self) -> bool {
        self.ending.retain(|progress| progress.marks().pieces > 0);
        self.running.is_empty() && self.ending.is_empty()
    }

    /// Whether a response is still being made.
    pub(super) fn has_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Polls those that have something to do; those that are done leave.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(done)) = self.running.poll_next_unpin(cx) {
            self.ending.push(done);
        }
    }

    /// Lets those in that have begun. True if there are any; they have not been polled yet.
    pub(super) fn admit(&mut self) -> bool {
        let arrived = mem::take(&mut lock(&self.arrivals).running);
        let has_arrivals = !arrived.is_empty();
        self.running.extend(arrived);
        has_arrivals
    }

    /// Resets the streams whose client reads them too slowly; those that stay have to be polled
    /// again. How many these are, and how many responses there are besides whose end cannot be
    /// taken back.
    pub(super) fn cut_slow(&mut self, now: Instant, limits: ReadLimits) -> (usize, usize) {
        let before = self.running.len();
        if self.running.iter().any(|running| running.progress.is_slow(now, limits)) {
            let running = mem::take(&mut self.running).into_iter();
            self.running = running.filter(|running| !running.progress.is_slow(now, limits)).collect();
        }
        let ends =
            self.ending.iter().filter(|ending| ending.marks().pieces > 0 && ending.is_slow(now, limits));
        (before - self.running.len(), ends.count())
    }
}

impl Spawner {
    /// The request that is spawned next makes this progress.
    pub(super) fn announce(&self) -> Arc<Progress> {
        let progress = Arc::new(Progress { marks: Mutex::default(), work: Arc::clone(&self.work) });
        if let Some(arrivals) = self.arrivals.upgrade() {
            lock(&arrivals).announced = Some(Arc::clone(&progress));
        }
        progress
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, future: F) {
        let Some(arrivals) = self.arrivals.upgrade() else { return };
        let mut arrivals = lock(&arrivals);
        let Some(progress) = arrivals.announced.take() else { return };
        arrivals.running.push(Running { future: Box::pin(future), progress });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this")
}

impl Future for Running {
    type Output = Arc<Progress>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Arc<Progress>> {
        if !self.progress.work.may_respond() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.future.as_mut().poll(cx));
        Poll::Ready(Arc::clone(&self.progress))
    }
}

impl Progress {
    /// A response begins.
    pub(super) fn begin(&self, now: Instant, has_end: bool) {
        self.work.credit(REQUEST_WORK);
        self.marks().began = has_end.then_some(now);
    }

    fn is_slow(&self, now: Instant, limits: ReadLimits) -> bool {
        let Marks { waits_since, began, .. } = *self.marks();
        let is_over = |since: Option<Instant>, limit| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= limit)
        };
        is_over(waits_since, limits.silence) || is_over(began, limits.response)
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        lock(&self.marks)
    }
}

/// A piece of a body, on its way to the client.
pub(super) struct Piece {
    bytes: Bytes,
    progress: Arc<Progress>,
}

impl Piece {
    fn new(bytes: Bytes, progress: &Arc<Progress>) -> Self {
        let mut marks = progress.marks();
        marks.pieces += 1;
        marks.waits_since.get_or_insert_with(Instant::now);
        drop(marks);
        Self { bytes, progress: Arc::clone(progress) }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, written: usize) {
        self.bytes.advance(written);
        self.progress.work.credit(FRAME_WORK + units(written));
        self.progress.marks().waits_since = Some(Instant::now());
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut marks = self.progress.marks();
        marks.pieces -= 1;
        if marks.pieces == 0 {
            marks.waits_since = None;
        }
    }
}

/// The body of a response, in pieces.
pub(super) struct PacedBody<B> {
    /// None if the response has no body, or none that is sent.
    inner: Option<B>,
    progress: Arc<Progress>,
}

impl<B> PacedBody<B> {
    pub(super) fn new(inner: Option<B>, progress: Arc<Progress>) -> Self {
        Self { inner, progress }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for PacedBody<B> {
    type Data = Piece;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, B::Error>>> {
        let Self { inner, progress } = &mut *self;
        let Some(inner) = inner else { return Poll::Ready(None) };
        Pin::new(inner).poll_frame(cx).map_ok(|frame| frame.map_data(|bytes| Piece::new(bytes, progress)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn, ready};

    use http_body_util::{BodyExt, Full};

    use super::{super::work::PASS_WORK, *};

    const LIMITS: ReadLimits =
        ReadLimits { silence: Duration::from_secs(30), response: Duration::from_secs(60) };

    fn streams() -> (Streams, Spawner) {
        let work = Arc::new(Work::new(Instant::now()));
        work.begin_pass(PASS_WORK, Instant::now());
        let streams = Streams::default();
        let spawner = streams.spawner(&work);
        (streams, spawner)
    }

    async fn poll_once(streams: &mut Streams) {
        poll_fn(|cx| {
            streams.poll(cx);
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_waits_for_its_client_until_every_piece_is_written() {
        let (_streams, spawner) = streams();
        let progress = spawner.announce();
        let is_slow = |secs| progress.is_slow(Instant::now() + Duration::from_secs(secs), LIMITS);
        let mut body = PacedBody::new(Some(Full::from("hello")), Arc::clone(&progress));
        assert!(!is_slow(30));
        let mut piece =
            body.frame().await.expect("a piece").expect("no error").into_data().ok().expect("data");
        assert!(is_slow(30));
        tokio::time::advance(Duration::from_secs(29)).await;
        piece.advance(1);
        assert!(!is_slow(29) && is_slow(30));
        drop(piece);
        assert!(!is_slow(30));
    }

    #[tokio::test]
    async fn responses_beyond_the_work_of_a_pass_wait_for_the_next_one() {
        let (mut streams, spawner) = streams();
        for _ in 0..100 {
            spawner.announce();
            spawner.execute(ready(()));
        }
        assert!(streams.admit());
        poll_once(&mut streams).await;
        assert_eq!(streams.running.len(), 100 - 32);
    }

    #[tokio::test(start_paused = true)]
    async fn only_streams_that_are_read_too_slowly_are_cut() {
        let (mut streams, spawner) = streams();
        let progress = [(); 3].map(|()| {
            let progress = spawner.announce();
            spawner.execute(pending());
            progress
        });
        assert!(streams.admit() && !streams.admit());
        let _unread = Piece::new(Bytes::from_static(b"x"), &progress[1]);
        let now = Instant::now();
        assert_eq!(streams.cut_slow(now + LIMITS.silence / 2, LIMITS), (0, 0));
        assert_eq!(streams.cut_slow(now + LIMITS.silence, LIMITS), (1, 0));
        assert_eq!(streams.cut_slow(now + LIMITS.silence, LIMITS), (0, 0));
        // A client that makes room again and again, and only a little.
        progress[0].begin(now, true);
        progress[2].begin(now, false);
        assert_eq!(streams.cut_slow(now + LIMITS.response / 2, LIMITS), (0, 0));
        assert_eq!(streams.cut_slow(now + LIMITS.response, LIMITS), (1, 0));
        assert_eq!(streams.running.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_open_until_the_end_of_its_response_is_written() {
        let (mut streams, spawner) = streams();
        let progress = spawner.announce();
        spawner.execute(ready(()));
        let end = Piece::new(Bytes::from_static(b"x"), &progress);
        assert!(streams.admit());
        poll_once(&mut streams).await;
        assert!(!streams.has_running() && !streams.is_empty());
        assert_eq!(streams.cut_slow(Instant::now() + LIMITS.silence, LIMITS), (0, 1));
        drop(end);
        assert!(streams.is_empty());
    }
}
