//! How the rest of the hub reaches a shard: a list of what has changed, and a bell that rings only where somebody sleeps.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use futures_util::task::AtomicWaker;

use crate::lag::News;

/// What waits for a shard. Its length is bounded by what the shard has asked for: one entry a feed, a page a subscriber, a newcomer a
/// connection.
#[derive(Debug)]
pub(crate) struct Inbox<M> {
    messages: Mutex<Vec<M>>,
    bell: Arc<Bell>,
}

/// The half that feeds know.
#[derive(Debug)]
struct Bell {
    /// Groups of the shard whose feed has grown.
    grown: Mutex<Vec<u32>>,
    /// How many they are, for publishers.
    news: News,
    waker: AtomicWaker,
    /// Something is here that the shard has not taken. Whoever finds it set need not wake anybody.
    rung: AtomicBool,
}

/// A shard's place among those that a feed wakes. It rings once until the shard has looked.
#[derive(Debug)]
pub(crate) struct Seat {
    bell: Arc<Bell>,
    group: u32,
    marked: AtomicBool,
}

impl Seat {
    pub(crate) fn new<M>(inbox: &Inbox<M>, group: u32) -> Self {
        Self { bell: Arc::clone(&inbox.bell), group, marked: AtomicBool::new(false) }
    }

    /// The feed has grown.
    pub(crate) fn ring(&self) {
        if !self.marked.swap(true, Ordering::AcqRel) {
            self.bell.grown().push(self.group);
            self.bell.news.add();
            self.bell.ring();
        }
    }

    /// The shard is about to look at the feed: what grows from now on rings again.
    pub(crate) fn answer(&self) {
        self.marked.store(false, Ordering::Release);
    }
}

impl Bell {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    fn grown(&self) -> MutexGuard<'_, Vec<u32>> {
        self.grown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M> Inbox<M> {
    pub(crate) fn new(news: News) -> Self {
        let bell =
            Bell { grown: Mutex::default(), news, waker: AtomicWaker::new(), rung: AtomicBool::new(false) };
        Self { messages: Mutex::default(), bell: Arc::new(bell) }
    }

    pub(crate) fn send(&self, message: M) {
        self.messages().push(message);
        self.bell.ring();
    }

    /// Who is to be woken from now on.
    pub(crate) fn register(&self, waker: &Waker) {
        self.bell.waker.register(waker);
    }

    /// Whether something has come since the last look.
    pub(crate) fn has_rung(&self) -> bool {
        self.bell.rung.load(Ordering::Acquire)
    }

    /// Takes everything: which groups have something new, and the messages.
    pub(crate) fn take(&self, grown: &mut Vec<u32>, messages: &mut Vec<M>) {
        // First, so that what comes while we look rings again.
        self.bell.rung.store(false, Ordering::Release);
        grown.append(&mut self.bell.grown());
        messages.append(&mut self.messages());
    }

    fn messages(&self) -> MutexGuard<'_, Vec<M>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures_util::task::{ArcWake, waker};

    use super::*;
    use crate::lag::Lag;

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
        Inbox::new(Arc::<Lag>::default().add_shard().news())
    }

    #[test]
    fn a_feed_is_named_once_however_often_it_grows_before_the_shard_looks_at_it() {
        let inbox = inbox();
        let seats = [1, 2].map(|group| Seat::new(&inbox, group));
        for seat in [&seats[0], &seats[1], &seats[0], &seats[0]] {
            seat.ring();
        }
        assert_eq!(take(&inbox).0, [1, 2]);
        seats[0].ring();
        assert!(take(&inbox).0.is_empty(), "it has taken the news, and has not looked at the feed yet");
        seats[0].answer();
        seats[0].ring();
        assert_eq!(take(&inbox).0, [1]);
    }

    #[test]
    fn a_shard_is_woken_once_until_it_has_taken_everything() {
        let inbox = inbox();
        let seat = Seat::new(&inbox, 1);
        let sleeper = Arc::new(Sleeper(AtomicUsize::new(0)));
        for woken in 1..=2 {
            let news: [&dyn Fn(); 3] = [&|| inbox.send("a"), &|| seat.ring(), &|| inbox.send("b")];
            for news in news {
                inbox.register(&waker(Arc::clone(&sleeper)));
                news();
                assert!(inbox.has_rung());
                assert_eq!(sleeper.0.load(Ordering::SeqCst), woken);
            }
            assert_eq!(take(&inbox), (vec![1], vec!["a", "b"]));
            assert!(!inbox.has_rung());
            seat.answer();
        }
    }
}
