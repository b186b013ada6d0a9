//! Bounds the work that a connection may do in one pass.
//!
//! One task serves all requests of a connection, up to 128 that arrive in one packet, and its
//! thread serves no other connection meanwhile. So the work of a pass is counted: frames and fields
//! that are read, responses that continue. When the budget is used up, the rest waits: the
//! connection yields to all ready tasks, and connections with more work than fits into a pass wait
//! in one queue, so that connections with little work are served between two passes, however many
//! busy ones there are.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake},
};

use futures_util::task::AtomicWaker;
use tokio::{runtime::Handle, sync::Semaphore, task::yield_now};

/// Work that a connection may do whenever something happens to it: two requests, or a publication
/// with its body.
pub(super) const FIRST_TURN_WORK: u32 = 512;
/// Work of each turn in line.
pub(super) const TURN_WORK: u32 = 2_048;
/// What any frame costs. The unit is a byte of header fields: one may stand for a whole field.
pub(super) const FRAME_WORK: u32 = 16;
/// What the head of a request costs besides its bytes: all that answering it takes.
pub(super) const REQUEST_WORK: u32 = 200;
/// What it costs to go on with an answer that has something to do.
pub(super) const ANSWER_WORK: u32 = 64;
/// Bytes of a body, which are copied and not looked at, that cost as much as one of header fields.
pub(super) const BODY_BYTES_PER_WORK: usize = 64;

/// What one connection may do yet in this turn. It belongs to one task: the atomics order nothing.
#[derive(Default, Debug)]
pub(super) struct Work {
    reading: AtomicU32,
    answering: AtomicU32,
    /// Something waits for the next turn.
    is_cut_short: AtomicBool,
}

/// The connections that have more to do than fits into a turn.
#[derive(Clone, Debug)]
pub(in super::super) struct BusyLine(Arc<Semaphore>);

impl BusyLine {
    /// As many may be busy as there are threads to serve on. To be called within a tokio runtime.
    pub(in super::super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(Handle::current().metrics().num_workers())))
    }

    /// Polls `conversation` to its end, in turns.
    pub(super) async fn take_turns<T>(
        &self,
        work: &Work,
        mut conversation: Pin<&mut impl Future<Output = T>>,
    ) -> T {
        loop {
            let first = poll_fn(|cx| {
                work.begin(FIRST_TURN_WORK);
                match conversation.as_mut().poll(cx) {
                    Poll::Ready(ended) => Poll::Ready(Some(ended)),
                    Poll::Pending if work.is_cut_short() => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                }
            });
            if let Some(ended) = first.await {
                return ended;
            }
            while work.is_cut_short() {
                let _turn = self.0.acquire().await;
                let turn = poll_fn(|cx| {
                    work.begin(TURN_WORK);
                    Poll::Ready(conversation.as_mut().poll(cx))
                });
                if let Poll::Ready(ended) = turn.await {
                    return ended;
                }
                // With the turn in hand, so that the next one in line comes behind those who wait
                // for the thread already.
                let_all_pass().await;
            }
        }
    }
}

/// Waits until everybody has been polled who is ready, sockets that have become ready included.
/// [`yield_now`] alone comes back as soon as anything wakes this task, and what it has polled just
/// now may have done so.
async fn let_all_pass() {
    let passed = Arc::<Passed>::default();
    let mut is_waiting = false;
    poll_fn(|cx| {
        passed.task.register(cx.waker());
        if !std::mem::replace(&mut is_waiting, true) {
            return pin!(yield_now()).poll(&mut Context::from_waker(&Arc::clone(&passed).into()));
        }
        if passed.has_come.load(Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[derive(Default)]
struct Passed {
    has_come: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Passed {
    fn wake(self: Arc<Self>) {
        self.has_come.store(true, Relaxed);
        self.task.wake();
    }
}

impl Work {
    pub(super) fn begin(&self, work: u32) {
        self.reading.store(work, Relaxed);
        self.answering.store(work, Relaxed);
        self.is_cut_short.store(false, Relaxed);
    }

    fn is_cut_short(&self) -> bool {
        self.is_cut_short.load(Relaxed)
    }

    /// Whether anything may be read in this turn. If not, there will be another one.
    pub(super) fn may_read(&self) -> bool {
        self.may(&self.reading, 1)
    }

    /// Whether this much may be read in this turn, which is then counted. If not, there will be
    /// another one. What is larger than a turn has one to itself.
    pub(super) fn may_read_next(&self, work: u32) -> bool {
        let may = self.may(&self.reading, work.min(TURN_WORK));
        if may {
            self.count_reading(work);
        }
        may
    }

    pub(super) fn count_reading(&self, work: u32) {
        self.reading.store(self.reading.load(Relaxed).saturating_sub(work), Relaxed);
    }

    /// Whether one more answer may go on in this turn, which is then counted. If not, there will be
    /// another turn.
    pub(super) fn may_answer(&self) -> bool {
        let may = self.may(&self.answering, ANSWER_WORK);
        self.answering.store(self.answering.load(Relaxed).saturating_sub(ANSWER_WORK), Relaxed);
        may
    }

    fn may(&self, left: &AtomicU32, work: u32) -> bool {
        let may = left.load(Relaxed) >= work;
        if !may {
            self.is_cut_short.store(true, Relaxed);
        }
        may
    }
}
