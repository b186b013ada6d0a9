//! How the rest of the hub reaches a shard: a list of feeds that have grown, a list of messages, and
//! a waker that is used only if the shard sleeps.

use std::{
    future::poll_fn,
    sync::{Arc, PoisonError},
    task::{Poll, Waker},
};

use crate::{
    shard::lag::PendingFeeds,
    sync::{
        AtomicWaker, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

/// What waits for a shard. Its length is bounded by what the shard has asked for: one entry a feed,
/// a page a subscriber, a new subscriber a connection.
#[derive(Debug)]
pub(crate) struct Inbox<M> {
    /// None once the shard is gone.
    messages: Mutex<Option<Vec<M>>>,
    notifier: Arc<ShardNotifier>,
}

/// The part of an inbox that feeds know.
#[derive(Debug)]
struct ShardNotifier {
    /// Groups of the shard whose feed has grown.
    grown: Mutex<Vec<u32>>,
    /// How many they are, for publishers.
    pending_feeds: PendingFeeds,
    waker: AtomicWaker,
    /// Something is here that the shard has not taken. The one that finds it set need not wake
    /// the shard.
    is_notified: AtomicBool,
}

/// How a feed notifies a shard that reads it: once, until the shard has looked at the feed.
#[derive(Debug)]
pub(crate) struct FeedNotifier {
    shard: Arc<ShardNotifier>,
    group: u32,
    is_pending: AtomicBool,
}

impl FeedNotifier {
    pub(crate) fn new<M>(inbox: &Inbox<M>, group: u32) -> Self {
        Self { shard: Arc::clone(&inbox.notifier), group, is_pending: AtomicBool::new(false) }
    }

    /// The feed has grown.
    pub(crate) fn notify(&self) {
        if !self.is_pending.swap(true, Ordering::AcqRel) {
            // Counted before it can be taken: a shard that takes off what is not counted yet would
            // turn the count below zero, and publishers would wait for a number that nobody takes
            // off any more.
            self.shard.pending_feeds.add();
            self.shard.grown().push(self.group);
            self.shard.notify();
        }
    }

    /// The shard is about to look at the feed: what grows from now on notifies again.
    pub(crate) fn rearm(&self) {
        // A swap and not a store: if the writer found the mark still set, everything that it wrote
        // before has to be seen from here on.
        self.is_pending.swap(false, Ordering::AcqRel);
    }
}

impl ShardNotifier {
    fn notify(&self) {
        if !self.is_notified.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    fn grown(&self) -> MutexGuard<'_, Vec<u32>> {
        self.grown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M> Inbox<M> {
    pub(crate) fn new(pending_feeds: PendingFeeds) -> Self {
        let notifier = ShardNotifier {
            grown: Mutex::default(),
            pending_feeds,
            waker: AtomicWaker::new(),
            is_notified: AtomicBool::new(false),
        };
        Self { messages: Mutex::new(Some(Vec::new())), notifier: Arc::new(notifier) }
    }

    /// Fails, and gives the message back, if the shard is gone.
    pub(crate) fn send(&self, message: M) -> Result<(), M> {
        match &mut *self.messages() {
            Some(messages) => messages.push(message),
            None => return Err(message),
        }
        self.notifier.notify();
        Ok(())
    }

    /// The shard is gone: what waits for it is dropped, and nothing more is accepted.
    pub(crate) fn close(&self) {
        // The lock is released before anything is dropped.
        let waiting = self.messages().take();
        drop(waiting);
    }

    /// What is to be woken from now on.
    pub(crate) fn register(&self, waker: &Waker) {
        self.notifier.waker.register(waker);
    }

    /// Waits until something has come.
    pub(crate) async fn notified(&self) {
        poll_fn(|context| {
            // Before looking, so that what comes between looking and sleeping wakes us.
            self.register(context.waker());
            if self.is_notified() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Whether something has come since it was emptied.
    pub(crate) fn is_notified(&self) -> bool {
        self.notifier.is_notified.load(Ordering::Acquire)
    }

    /// Takes everything: which groups have a feed that has grown, and the messages.
    pub(crate) fn take(&self, grown: &mut Vec<u32>, messages: &mut Vec<M>) {
        // First, so that what comes while we look notifies again.
        self.notifier.is_notified.store(false, Ordering::Release);
        grown.append(&mut self.notifier.grown());
        if let Some(sent) = &mut *self.messages() {
            messages.append(sent);
        }
    }

    fn messages(&self) -> MutexGuard<'_, Option<Vec<M>>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures_util::task::{ArcWake, waker};

    use super::*;
    use crate::shard::lag::Lag;

    struct Sleeper(AtomicUsize);

    impl ArcWake for Sleeper {
        fn wake_by_ref(sleeper: &Arc<Self>) {
            sleeper.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn take(inbox: &Inbox<&'static str>) -> (Vec<u32>, Vec<&'static str>) {
        let (mut grown, mut messages) = Default::default();
        inbox.take(&mut grown, &mut messages);
        (grown, messages)
    }

    fn inbox() -> Inbox<&'static str> {
        Inbox::new(Arc::<Lag>::default().add_shard().pending_feeds())
    }

    #[test]
    fn a_feed_is_named_once_however_often_it_grows_before_the_shard_looks_at_it() {
        let inbox = inbox();
        let notifiers = [1, 2].map(|group| FeedNotifier::new(&inbox, group));
        for notifier in [&notifiers[0], &notifiers[1], &notifiers[0], &notifiers[0]] {
            notifier.notify();
        }
        assert_eq!(take(&inbox).0, [1, 2]);
        notifiers[0].notify();
        assert!(
            take(&inbox).0.is_empty(),
            "it has taken the pending feeds, and has not looked at the feed yet"
        );
        notifiers[0].rearm();
        notifiers[0].notify();
        assert_eq!(take(&inbox).0, [1]);
    }

    #[test]
    fn a_shard_is_woken_once_until_it_has_taken_everything() {
        let inbox = inbox();
        let notifier = FeedNotifier::new(&inbox, 1);
        let send = |message| inbox.send(message).expect("it is open");
        let sleeper = Arc::new(Sleeper(AtomicUsize::new(0)));
        for woken in 1..=2 {
            let events: [&dyn Fn(); 3] = [&|| send("a"), &|| notifier.notify(), &|| send("b")];
            for event in events {
                inbox.register(&waker(Arc::clone(&sleeper)));
                event();
                assert!(inbox.is_notified());
                assert_eq!(sleeper.0.load(Ordering::SeqCst), woken);
            }
            assert_eq!(take(&inbox), (vec![1], vec!["a", "b"]));
            assert!(!inbox.is_notified());
            notifier.rearm();
        }
    }

    #[test]
    fn a_closed_inbox_drops_what_waits_and_takes_nothing_more() {
        let inbox = Inbox::new(Arc::<Lag>::default().add_shard().pending_feeds());
        let message = Arc::new(());
        inbox.send(Arc::clone(&message)).expect("it is open");
        inbox.close();
        assert_eq!(Arc::strong_count(&message), 1);
        assert!(inbox.send(message).is_err());
    }
}
