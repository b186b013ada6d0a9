//! The open requests of one HTTP/2 connection, all polled by the connection's own task.
//!
//! hyper spawns a task for each; [`Spawner`] puts them into [`Streams`] instead, so that no task
//! outlives its connection, and the open requests of a connection are known: a connection without
//! any is idle, and a client that does not read its responses is found ([`Streams::cut_stalled`]).

use std::{
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::Instant;

use super::work::Work;

/// Most bytes of an answer that are given to hyper at a time. It asks for the next ones when the
/// client has made room for these.
const PIECE_BYTES: usize = 16 * 1024;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Streams {
    running: FuturesUnordered<Running>,
    arrivals: Arc<Mutex<Arrivals>>,
    work: Arc<Work>,
}

/// What has begun since the connection was last looked at: at most as many streams as a connection
/// may have.
#[derive(Default)]
struct Arrivals {
    /// The pace of the request that hyper has just handed to the service, and will spawn next.
    announced: Option<Arc<Pace>>,
    running: Vec<Running>,
}

struct Running {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    pace: Arc<Pace>,
    work: Arc<Work>,
}

/// hyper's way into [`Streams`], which it does not keep alive.
#[derive(Clone)]
pub(super) struct Spawner {
    arrivals: Weak<Mutex<Arrivals>>,
    work: Arc<Work>,
}

/// How fast a client takes an answer.
#[derive(Default, Debug)]
pub(super) struct Pace(Mutex<Marks>);

#[derive(Default, Debug)]
struct Marks {
    /// Since when the client has made no room for the next piece, if there is one.
    waits_since: Option<Instant>,
    /// When an answer with an end began.
    began: Option<Instant>,
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// To make room for one piece.
    pub(super) piece: Duration,
    /// To take an answer with an end.
    pub(super) answer: Duration,
}

impl Streams {
    pub(super) fn new(work: &Arc<Work>) -> Self {
        Self { work: Arc::clone(work), ..Self::default() }
    }

    pub(super) fn spawner(&self) -> Spawner {
        Spawner { arrivals: Arc::downgrade(&self.arrivals), work: Arc::clone(&self.work) }
    }

    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Polls those that have something to do; those that are done leave.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(())) = self.running.poll_next_unpin(cx) {}
    }

    /// Lets those in that have begun. True if there are any; they have not been polled yet.
    pub(super) fn admit(&mut self) -> bool {
        let arrived = mem::take(&mut lock(&self.arrivals).running);
        let has_arrivals = !arrived.is_empty();
        self.running.extend(arrived);
        has_arrivals
    }

    /// Drops the streams whose client takes them too slowly, and says how many there are; those
    /// that stay have to be polled again.
    pub(super) fn cut_stalled(&mut self, now: Instant, limits: Limits) -> usize {
        let is_stalled = |running: &Running| running.pace.is_too_slow(now, limits);
        if !self.running.iter().any(is_stalled) {
            return 0;
        }
        let before = self.running.len();
        let running = mem::take(&mut self.running);
        self.running = running.into_iter().filter(|running| !is_stalled(running)).collect();
        before - self.running.len()
    }
}

impl Spawner {
    /// The request that is spawned next has this pace.
    pub(super) fn announce(&self, pace: &Arc<Pace>) {
        if let Some(arrivals) = self.arrivals.upgrade() {
            lock(&arrivals).announced = Some(Arc::clone(pace));
        }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, future: F) {
        let Some(arrivals) = self.arrivals.upgrade() else { return };
        let mut arrivals = lock(&arrivals);
        let pace = arrivals.announced.take().unwrap_or_default();
        let work = Arc::clone(&self.work);
        arrivals.running.push(Running { future: Box::pin(future), pace, work });
    }
}

fn lock(arrivals: &Mutex<Arrivals>) -> MutexGuard<'_, Arrivals> {
    arrivals.lock().expect(NO_PANIC)
}

const NO_PANIC: &str = "nothing panics while it holds this";

impl Future for Running {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.work.may_answer() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.future.as_mut().poll(cx)
    }
}

impl Pace {
    /// An answer that has an end begins.
    pub(super) fn begin(&self, now: Instant) {
        self.0.lock().expect(NO_PANIC).began = Some(now);
    }

    fn set(&self, waits_since: Option<Instant>) {
        self.0.lock().expect(NO_PANIC).waits_since = waits_since;
    }

    fn is_too_slow(&self, now: Instant, limits: Limits) -> bool {
        let Marks { waits_since, began } = *self.0.lock().expect(NO_PANIC);
        let is_over = |since: Option<Instant>, limit| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= limit)
        };
        is_over(waits_since, limits.piece) || is_over(began, limits.answer)
    }
}

/// The body of an answer in pieces of a size, which keeps the pace of its reader. hyper asks for a
/// piece when the one before has been taken.
pub(super) struct PacedBody<B> {
    /// None if the answer has no body, or none that is sent.
    inner: Option<B>,
    rest: Bytes,
    pace: Arc<Pace>,
}

impl<B> PacedBody<B> {
    pub(super) fn new(inner: Option<B>, pace: Arc<Pace>) -> Self {
        Self { inner, rest: Bytes::new(), pace }
    }

    /// A body of its own.
    pub(super) fn of(bytes: impl Into<Bytes>) -> Self {
        Self { inner: None, rest: bytes.into(), pace: Arc::default() }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for PacedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        this.pace.set(None);
        while this.rest.is_empty() {
            let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
            match ready!(Pin::new(inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end_or_error => return Poll::Ready(end_or_error),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES));
        this.pace.set(Some(Instant::now()));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest + inner.lower());
        if let Some(upper) = inner.upper() {
            hint.set_upper(rest + upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::{BodyExt, Full};

    use super::{super::work::TURN_WORK, *};

    const LIMITS: Limits = Limits { piece: Duration::from_secs(30), answer: Duration::from_secs(60) };

    #[tokio::test]
    async fn a_large_answer_is_given_out_in_pieces_and_says_how_much_is_left() {
        let whole = Bytes::from(vec![b'x'; 2 * PIECE_BYTES + 1]);
        let mut body = PacedBody::new(Some(Full::from(whole.clone())), Arc::default());
        let mut read = Vec::new();
        for length in [PIECE_BYTES, PIECE_BYTES, 1] {
            assert_eq!(body.size_hint().exact(), Some((whole.len() - read.len()) as u64));
            assert!(!body.is_end_stream());
            let piece = body.frame().await.expect("a piece").expect("no error").into_data().expect("data");
            assert_eq!(piece.len(), length);
            read.extend_from_slice(&piece);
        }
        assert_eq!(read, whole);
        assert!(body.is_end_stream());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_waits_for_nobody_unless_it_has_left_a_piece() {
        let pace = Arc::<Pace>::default();
        let mut body = PacedBody::new(Some(Full::from("hello")), Arc::clone(&pace));
        let later = Instant::now() + LIMITS.piece;
        assert!(!pace.is_too_slow(later, LIMITS));
        body.frame().await;
        assert!(pace.is_too_slow(later, LIMITS));
        assert!(body.frame().now_or_never().expect("at once").is_none());
        assert!(!pace.is_too_slow(later, LIMITS));
    }

    #[tokio::test(start_paused = true)]
    async fn only_streams_that_have_stalled_are_cut() {
        let work = Arc::<Work>::default();
        work.begin(TURN_WORK);
        let mut streams = Streams::new(&work);
        let spawner = streams.spawner();
        let paces = [Arc::<Pace>::default(), Arc::default()];
        for pace in &paces {
            spawner.announce(pace);
            spawner.execute(std::future::pending());
        }
        assert!(streams.admit() && !streams.admit());
        paces[1].set(Some(Instant::now()));
        assert_eq!(streams.cut_stalled(Instant::now() + LIMITS.piece / 2, LIMITS), 0);
        assert_eq!(streams.cut_stalled(Instant::now() + LIMITS.piece, LIMITS), 1);
        assert_eq!(streams.len(), 1);
        assert_eq!(streams.cut_stalled(Instant::now() + LIMITS.piece, LIMITS), 0);
        // A client that makes room again and again, and only a little.
        paces[0].begin(Instant::now());
        assert_eq!(streams.cut_stalled(Instant::now() + LIMITS.answer / 2, LIMITS), 0);
        assert_eq!(streams.cut_stalled(Instant::now() + LIMITS.answer, LIMITS), 1);
    }
}
