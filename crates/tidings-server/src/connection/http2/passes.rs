//! Serves a connection in passes, so that one with much to do does not delay others.
//!
//! A pass ends where its budget ([`Work`]) does. A connection with more to do than fits into its
//! first pass joins one queue with all such connections, and between two passes of the queue every
//! other task that is ready is polled: connections with little work wait for one pass, however many
//! busy ones there are.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll};

use tokio::{runtime::Handle, sync::Semaphore, task::yield_now, time::Instant};

use super::work::{FIRST_PASS_WORK, PASS_WORK, Work};

/// How often all other tasks are polled between two passes: a publication is read by one task,
/// written to feeds by another and answered after all that has come with it is read, and should
/// wait for one pass and not for one before each step.
const HOPS: usize = 4;

/// The connections that have more to do than fits into a pass.
#[derive(Clone, Debug)]
pub(in super::super) struct PassQueue(Arc<Semaphore>);

impl PassQueue {
    /// As many may be busy as there are threads to serve on. To be called within a tokio runtime.
    pub(in super::super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(Handle::current().metrics().num_workers())))
    }

    /// Polls `conversation` to its end, in passes.
    pub(super) async fn run<T>(&self, work: &Work, mut conversation: Pin<&mut impl Future<Output = T>>) -> T {
        loop {
            let first = poll_fn(|cx| {
                work.begin_pass(FIRST_PASS_WORK, Instant::now());
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
                let _permit = self.0.acquire().await;
                let pass = poll_fn(|cx| {
                    work.begin_pass(PASS_WORK, Instant::now());
                    Poll::Ready(conversation.as_mut().poll(cx))
                });
                if let Poll::Ready(ended) = pass.await {
                    return ended;
                }
                // With the permit in hand, so that the next one in the queue comes behind the tasks
                // that wait for the thread already.
                for _ in 0..HOPS {
                    let_all_pass().await;
                }
            }
        }
    }
}

/// Waits until every task has been polled that is ready, sockets that have become ready included.
/// [`yield_now`] in this task would come back as soon as anything wakes it, and what it has polled
/// just now may have done so.
async fn let_all_pass() {
    let _ = tokio::spawn(yield_now()).await;
}
