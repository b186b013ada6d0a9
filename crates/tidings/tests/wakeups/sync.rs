//! The primitives of `src/sync.rs` on loom, with the guarantees that the documentation of the real
//! ones gives.

use std::{
    future::poll_fn,
    task::{Poll, Waker},
};

pub(crate) use loom::sync::{Mutex, MutexGuard, RwLock, atomic};

/// Like that of `futures-util`.
#[derive(Debug)]
pub(crate) struct AtomicWaker(loom::future::AtomicWaker);

impl AtomicWaker {
    pub(crate) fn new() -> Self {
        Self(loom::future::AtomicWaker::new())
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.0.register_by_ref(waker);
    }

    pub(crate) fn wake(&self) {
        self.0.wake();
    }
}

/// Like that of Tokio: a future is woken by every call of `notify_waiters` after its creation.
#[derive(Debug, Default)]
pub(crate) struct Notify(Mutex<Waiters>);

#[derive(Debug, Default)]
struct Waiters {
    calls: usize,
    wakers: Vec<Waker>,
}

impl Notify {
    pub(crate) fn notified(&self) -> impl Future<Output = ()> {
        let calls = self.0.lock().unwrap().calls;
        poll_fn(move |context| {
            let mut waiters = self.0.lock().unwrap();
            if waiters.calls != calls {
                return Poll::Ready(());
            }
            waiters.wakers.push(context.waker().clone());
            Poll::Pending
        })
    }

    pub(crate) fn notify_waiters(&self) {
        let wakers = {
            let mut waiters = self.0.lock().unwrap();
            waiters.calls += 1;
            std::mem::take(&mut waiters.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}
