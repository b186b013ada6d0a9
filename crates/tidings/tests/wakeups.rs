//! Every interleaving of publishers and a shard in the inbox and in the lag, checked by loom: no
//! wake-up is lost, and nothing waits forever.
//!
//! The two modules are compiled here with loom's primitives (`src/sync.rs`). A model in which a
//! thread waits forever fails as a deadlock.

#![allow(dead_code, reason = "the models use a part of the two modules")]

#[path = "../src/inbox.rs"]
mod inbox;
#[path = "../src/lag.rs"]
mod lag;
#[path = "wakeups/sync.rs"]
mod sync;

use std::sync::Arc;

use loom::{future::block_on, model::Builder, thread};

use self::{
    inbox::{Inbox, Seat},
    lag::{Lag, NEWS_MAX, Served},
};

/// Most times that a model preempts a runnable thread. Two are enough for nearly every bug of this
/// kind, according to the literature.
const PREEMPTIONS_MAX: usize = 3;

fn in_every_interleaving(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX);
    builder.check(model);
}

fn shard(lag: &Arc<Lag>) -> (Served, Arc<Inbox<u32>>) {
    let served = lag.add_shard();
    let inbox = Arc::new(Inbox::new(served.news()));
    (served, inbox)
}

/// Takes what is there, as the driver of a shard does.
fn look(served: &Served, inbox: &Inbox<u32>, grown: &mut Vec<u32>, messages: &mut Vec<u32>) {
    let before = grown.len();
    inbox.take(grown, messages);
    served.looked(grown.len() - before);
}

#[test]
fn no_publisher_waits_for_feeds_that_the_shard_has_read() {
    in_every_interleaving(|| {
        let lag = Arc::<Lag>::default();
        let (served, inbox) = shard(&lag);
        // As many as may wait, so that the next one makes publishers wait.
        let seats: Vec<_> =
            (0..).take(NEWS_MAX + 1).map(|group| Arc::new(Seat::new(&inbox, group))).collect();
        for seat in &seats[..NEWS_MAX] {
            seat.ring();
        }
        let writer = thread::spawn({
            let last = Arc::clone(&seats[NEWS_MAX]);
            move || last.ring()
        });
        let publisher = thread::spawn({
            let lag = Arc::clone(&lag);
            move || block_on(lag.wait_until_below(0))
        });
        let mut grown = Vec::new();
        while grown.len() < seats.len() {
            block_on(inbox.notified());
            look(&served, &inbox, &mut grown, &mut Vec::new());
        }
        writer.join().unwrap();
        publisher.join().unwrap();
    });
}

#[test]
fn no_publisher_waits_for_a_shard_that_has_caught_up_or_ended() {
    for ends in [false, true] {
        in_every_interleaving(move || {
            let lag = Arc::<Lag>::default();
            let (served, _inbox) = shard(&lag);
            lag.add_written(10);
            served.set(Some(0));
            let publisher = thread::spawn({
                let lag = Arc::clone(&lag);
                move || block_on(lag.wait_until_below(5))
            });
            if ends {
                drop(served);
            } else {
                served.set(Some(3));
                served.set(None);
            }
            publisher.join().unwrap();
        });
    }
}

#[test]
fn no_shard_misses_a_message_or_a_feed_that_has_grown() {
    in_every_interleaving(|| {
        let lag = Arc::<Lag>::default();
        let (served, inbox) = shard(&lag);
        let seat = Arc::new(Seat::new(&inbox, 7));
        let writer = thread::spawn({
            let seat = Arc::clone(&seat);
            move || {
                seat.ring();
                seat.ring();
            }
        });
        let sender = thread::spawn({
            let inbox = Arc::clone(&inbox);
            move || inbox.send(1).unwrap()
        });
        let (mut grown, mut messages) = (Vec::new(), Vec::new());
        while grown.is_empty() || messages.is_empty() {
            block_on(inbox.notified());
            look(&served, &inbox, &mut grown, &mut messages);
        }
        writer.join().unwrap();
        sender.join().unwrap();
        assert_eq!((grown, messages), (vec![7], vec![1]));
    });
}

#[test]
fn a_feed_that_grows_after_the_shard_looked_notifies_again() {
    in_every_interleaving(|| {
        let lag = Arc::<Lag>::default();
        let (served, inbox) = shard(&lag);
        let seat = Arc::new(Seat::new(&inbox, 7));
        // The contents of the feed: written before the notifier fires.
        let written = Arc::new(loom::sync::atomic::AtomicUsize::new(0));
        let writer = thread::spawn({
            let (seat, written) = (Arc::clone(&seat), Arc::clone(&written));
            move || {
                for length in 1..=2 {
                    written.store(length, loom::sync::atomic::Ordering::Release);
                    seat.ring();
                }
            }
        });
        let mut seen = 0;
        while seen < 2 {
            block_on(inbox.notified());
            let mut grown = Vec::new();
            look(&served, &inbox, &mut grown, &mut Vec::new());
            for _ in grown {
                seat.answer();
                seen = written.load(loom::sync::atomic::Ordering::Acquire);
            }
        }
        writer.join().unwrap();
    });
}
