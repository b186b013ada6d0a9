//! How the rest of the hub reaches a shard: a list of pending feeds and messages, and a notifier
//! that fires only if the shard sleeps.

use std::{
    future::poll_fn,
    sync::{Arc, PoisonError},
    task::{Poll, Waker},
};

use crate::{
    lag::News,
    sync::{
        AtomicWaker, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

/// What waits for a shard. Its length is bounded by what the shard has asked for: one entry a feed,
/// a page a subscriber, a new_reader a connection.
#[derive(Debug)]
pub(crate) struct Inbox<M> {
    /// None once the shard is gone.
    messages: Mutex<Option<Vec<M>>>,
    notifier: Arc<Notifier>,
}

/// The half that feeds know.
#[derive(Debug)]
struct Notifier {
    /// Groups of the shard whose feed has grown.
    grown: Mutex<Vec<u32>>,
    /// How many they are, for publishers.
    news: News,
    waker: AtomicWaker,
    /// Something is here that the shard has not taken. The one that finds it set need not wake
    /// anybody.
    notified: AtomicBool,
}

/// A shard's place among those that a feed wakes. It rings once until the shard has looked.
#[derive(Debug)]
pub(crate) struct Seat {
    notifier: Arc<Notifier>,
    group: u32,
    marked: AtomicBool,
}

impl Seat {
    pub(crate) fn new<M>(inbox: &Inbox<M>, group: u32) -> Self {
        Self { notifier: Arc::clone(&inbox.notifier), group, marked: AtomicBool::new(false) }
    }

    /// The feed has grown.
    pub(crate) fn ring(&self) {
        if !self.marked.swap(true, Ordering::AcqRel) {
            // Counted before it can be taken: a shard that takes off what is not counted yet would
            // turn the count below zero, and publishers would wait for a number that nobody takes
            // off any more.
            self.notifier.news.add();
            self.notifier.grown().push(self.group);
            self.notifier.ring();
        }
    }

    /// The shard is about to look at the feed: what grows from now on rings again.
    pub(crate) fn answer(&self) {
        // A swap and not a store: if the writer found the mark still set, everything that it wrote
        // before has to be seen from here on.
        self.marked.swap(false, Ordering::AcqRel);
    }
}

impl Notifier {
    fn ring(&self) {
        if !self.notified.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    fn grown(&self) -> MutexGuard<'_, Vec<u32>> {
        self.grown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M> Inbox<M> {
    pub(crate) fn new(news: News) -> Self {
        let notifier = Notifier {
            grown: Mutex::default(),
            news,
            waker: AtomicWaker::new(),
            notified: AtomicBool::new(false),
        };
        Self { messages: Mutex::new(Some(Vec::new())), notifier: Arc::new(notifier) }
    }

    /// Fails, and gives the message back, if the shard is gone.
    pub(crate) fn send(&self, message: M) -> Result<(), M> {
        match &mut *self.messages() {
            Some(messages) => messages.push(message),
            None => return Err(message),
        }
        self.notifier.ring();
        Ok(())
    }

    /// The shard is gone: what waits for it is dropped, and nothing more is taken.
    pub(crate) fn close(&self) {
        // The lock is released before anything is dropped.
        let waiting = self.messages().take();
        drop(waiting);
    }

    /// Who is to be woken from now on.
    pub(crate) fn register(&self, waker: &Waker) {
        self.notifier.waker.register(waker);
    }

    /// Waits until something has come.
    pub(crate) async fn notified(&self) {
        poll_fn(|context| {
            // Before looking, so that what comes between looking and sleeping wakes us.
            self.register(context.waker());
            if self.has_rung() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Whether something has come since the last look.
    pub(crate) fn has_rung(&self) -> bool {
        self.notifier.notified.load(Ordering::Acquire)
    }

    /// Takes everything: which groups have something new, and the messages.
    pub(crate) fn take(&self, grown: &mut Vec<u32>, messages: &mut Vec<M>) {
        // First, so that what comes while we look rings again.
        self.notifier.notified.store(false, Ordering::Release);
        grown.append(&mut self.notifier.grown());
        if let Some(sent) = &mut *self.messages() {
            messages.append(sent);
        }
    }

    fn messages(&self) -> MutexGuard<'_, Option<Vec<M>>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
