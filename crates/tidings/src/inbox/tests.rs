//! What a shard is notified of, and how often it is woken. `tests/wakeups.rs` tests the
//! interleavings of threads.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::task::{ArcWake, waker};

use crate::{
    inbox::{Inbox, Seat},
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
    assert!(take(&inbox).0.is_empty(), "it has taken the pending feeds, and has not looked at the feed yet");
    seats[0].answer();
    seats[0].ring();
    assert_eq!(take(&inbox).0, [1]);
}

#[test]
fn a_shard_is_woken_once_until_it_has_taken_everything() {
    let inbox = inbox();
    let seat = Seat::new(&inbox, 1);
    let send = |message| inbox.send(message).expect("it is open");
    let sleeper = Arc::new(Sleeper(AtomicUsize::new(0)));
    for woken in 1..=2 {
        let news: [&dyn Fn(); 3] = [&|| send("a"), &|| seat.ring(), &|| send("b")];
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

#[test]
fn a_closed_inbox_drops_what_waits_and_takes_nothing_more() {
    let inbox = Inbox::new(Arc::<Lag>::default().add_shard().news());
    let message = Arc::new(());
    inbox.send(Arc::clone(&message)).expect("it is open");
    inbox.close();
    assert_eq!(Arc::strong_count(&message), 1);
    assert!(inbox.send(message).is_err());
}
