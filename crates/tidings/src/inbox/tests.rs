//! What a shard is notified of, and how often it is woken. `tests/wakeups.rs` tests the
//! interleavings of threads.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::task::{ArcWake, waker};

use crate::{
    inbox::{FeedNotifier, Inbox},
    lag::Lag,
};

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
    assert!(take(&inbox).0.is_empty(), "it has taken the pending feeds, and has not looked at the feed yet");
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
