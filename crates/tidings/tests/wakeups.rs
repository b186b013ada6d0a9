//! Every interleaving of the writer, publishers, subscribers and a shard, checked by loom: no
//! wake-up is lost, nothing waits forever, and a feed misses nothing.
//!
//! The modules are compiled here with loom's primitives (`wakeups/sync.rs` in place of
//! `src/sync.rs`), and without their unit tests, which need the real ones: so this test has no
//! harness. A model in which a thread waits forever fails as a deadlock.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the models use a part of the modules, and none of their unit tests"
)]

#[path = "../src/counts"]
mod counts {
    pub(crate) mod deliveries;
}
#[path = "../src/feed"]
mod feed {
    pub(crate) mod encode;
    #[expect(clippy::module_inception, reason = "as in the crate")]
    pub(crate) mod feed;
    pub(crate) mod feeds;
    pub(crate) mod frames;
    pub(crate) mod place;
    pub(crate) mod sampling;
}
#[path = "../src/shard"]
mod shard {
    pub(crate) mod inbox;
    pub(crate) mod lag;
}
#[path = "wakeups/sync.rs"]
mod sync;

use std::sync::Arc;

use loom::{future::block_on, model::Builder, thread};
use tidings_log::{Cursor, Entry, Epoch, Position, Timestamp};
use tidings_topic::{Matcher, NewEvent, PatternLimits, Validator};

use self::{
    feed::{
        encode::Format,
        feed::{Feed, Offset, Peek},
        feeds::{FeedWriter, Feeds},
    },
    shard::{
        inbox::{FeedNotifier, Inbox},
        lag::{Lag, PENDING_FEEDS_MAX, ShardProgress},
    },
    sync::AtomicWaker,
};

/// Most times that a model preempts a runnable thread. Two are enough for nearly every bug of this
/// kind, according to the literature.
const PREEMPTIONS_MAX: usize = 3;

fn main() {
    let models: [(&str, fn()); 7] = [
        ("a_feed_misses_nothing_after_its_place", a_feed_misses_nothing_after_its_place),
        (
            "a_reader_of_two_feeds_never_sees_a_later_event_first",
            a_reader_of_two_feeds_never_sees_a_later_event_first,
        ),
        ("a_shard_sends_everything_from_its_snapshots", a_shard_sends_everything_from_its_snapshots),
        (
            "no_publisher_waits_for_feeds_that_the_shard_has_read",
            no_publisher_waits_for_feeds_that_the_shard_has_read,
        ),
        (
            "no_publisher_waits_for_a_shard_that_has_caught_up_or_ended",
            no_publisher_waits_for_a_shard_that_has_caught_up_or_ended,
        ),
        (
            "no_shard_misses_a_message_or_a_feed_that_has_grown",
            no_shard_misses_a_message_or_a_feed_that_has_grown,
        ),
        (
            "a_feed_that_grows_after_the_shard_looked_notifies_again",
            a_feed_that_grows_after_the_shard_looked_notifies_again,
        ),
    ];
    let filter = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    for (name, model) in models {
        if filter.as_ref().is_none_or(|filter| name.contains(filter)) {
            println!("{name}");
            model();
        }
    }
}

fn in_every_interleaving(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX);
    builder.check(model);
}

fn new_shard(lag: &Arc<Lag>) -> (ShardProgress, Arc<Inbox<u32>>) {
    let progress = lag.add_shard();
    let inbox = Arc::new(Inbox::new(progress.pending_feeds()));
    (progress, inbox)
}

/// Takes what is there, as the driver of a shard does.
fn look(progress: &ShardProgress, inbox: &Inbox<u32>, grown: &mut Vec<u32>, messages: &mut Vec<u32>) {
    let before = grown.len();
    inbox.take(grown, messages);
    progress.take_feeds(grown.len() - before);
}

fn no_publisher_waits_for_feeds_that_the_shard_has_read() {
    in_every_interleaving(|| {
        let lag = Arc::<Lag>::default();
        let (progress, inbox) = new_shard(&lag);
        // As many as may wait, so that the next one makes publishers wait.
        let notifiers: Vec<_> = (0..)
            .take(PENDING_FEEDS_MAX + 1)
            .map(|group| Arc::new(FeedNotifier::new(&inbox, group)))
            .collect();
        for notifier in &notifiers[..PENDING_FEEDS_MAX] {
            notifier.notify();
        }
        let writer = thread::spawn({
            let last = Arc::clone(&notifiers[PENDING_FEEDS_MAX]);
            move || last.notify()
        });
        let publisher = thread::spawn({
            let lag = Arc::clone(&lag);
            move || block_on(lag.wait_until_below(0))
        });
        let mut grown = Vec::new();
        while grown.len() < notifiers.len() {
            block_on(inbox.notified());
            look(&progress, &inbox, &mut grown, &mut Vec::new());
        }
        writer.join().unwrap();
        publisher.join().unwrap();
    });
}

fn no_publisher_waits_for_a_shard_that_has_caught_up_or_ended() {
    for ends in [false, true] {
        in_every_interleaving(move || {
            let lag = Arc::<Lag>::default();
            let (progress, _inbox) = new_shard(&lag);
            lag.add_written(10);
            progress.set_served(Some(0));
            let publisher = thread::spawn({
                let lag = Arc::clone(&lag);
                move || block_on(lag.wait_until_below(5))
            });
            if ends {
                drop(progress);
            } else {
                progress.set_served(Some(3));
                progress.set_served(None);
            }
            publisher.join().unwrap();
        });
    }
}

fn no_shard_misses_a_message_or_a_feed_that_has_grown() {
    in_every_interleaving(|| {
        let lag = Arc::<Lag>::default();
        let (progress, inbox) = new_shard(&lag);
        let notifier = Arc::new(FeedNotifier::new(&inbox, 7));
        let writer = thread::spawn({
            let notifier = Arc::clone(&notifier);
            move || {
                notifier.notify();
                notifier.notify();
            }
        });
        let sender = thread::spawn({
            let inbox = Arc::clone(&inbox);
            move || inbox.send(1).unwrap()
        });
        let (mut grown, mut messages) = (Vec::new(), Vec::new());
        while grown.is_empty() || messages.is_empty() {
            block_on(inbox.notified());
            look(&progress, &inbox, &mut grown, &mut messages);
        }
        writer.join().unwrap();
        sender.join().unwrap();
        assert_eq!((grown, messages), (vec![7], vec![1]));
    });
}

fn a_feed_that_grows_after_the_shard_looked_notifies_again() {
    in_every_interleaving(|| {
        let lag = Arc::<Lag>::default();
        let (progress, inbox) = new_shard(&lag);
        let notifier = Arc::new(FeedNotifier::new(&inbox, 7));
        // The contents of the feed: written before the notifier fires.
        let written = Arc::new(loom::sync::atomic::AtomicUsize::new(0));
        let writer = thread::spawn({
            let (notifier, written) = (Arc::clone(&notifier), Arc::clone(&written));
            move || {
                for length in 1..=2 {
                    written.store(length, loom::sync::atomic::Ordering::Release);
                    notifier.notify();
                }
            }
        });
        let mut seen = 0;
        while seen < 2 {
            block_on(inbox.notified());
            let mut grown = Vec::new();
            look(&progress, &inbox, &mut grown, &mut Vec::new());
            for _ in grown {
                notifier.rearm();
                seen = written.load(loom::sync::atomic::Ordering::Acquire);
            }
        }
        writer.join().unwrap();
    });
}

fn cursor(number: u128) -> Cursor {
    Cursor { epoch: Epoch::from_u64(1), position: Position::from_bytes(number.to_be_bytes()) }
}

fn entry(number: u128, topics: &[&str]) -> Arc<Entry> {
    let topics = topics.iter().map(ToString::to_string).collect();
    let new = NewEvent { topics, data: number.to_string(), ..NewEvent::default() };
    let event = Validator::default().event(new).expect("valid");
    Arc::new(Entry::new(cursor(number), Timestamp::from_millis(0), event))
}

fn matcher(topic: &str) -> Matcher {
    Validator::default().exact(topic).expect("valid")
}

fn new_feeds() -> (Arc<Feeds>, FeedWriter) {
    let (feeds, writer) = Feeds::new(cursor(0), 1 << 20, PatternLimits { count_max: 1, weight_max: 1 });
    (Arc::new(feeds), writer)
}

/// The writer writes these, one after the other.
fn write(feeds: &Arc<Feeds>, mut writer: FeedWriter, entries: &[Arc<Entry>]) -> thread::JoinHandle<()> {
    let (feeds, entries) = (Arc::clone(feeds), entries.to_vec());
    thread::spawn(move || {
        for entry in entries {
            assert_eq!(writer.write(&feeds, &[entry]), 1);
        }
    })
}

/// The next event of these feeds up to the head, as a reader finds it that merges them.
fn next(feeds: &Feeds, joined: &[Arc<Feed>], after: Cursor) -> Option<Cursor> {
    let head = feeds.head();
    let found = joined.iter().filter_map(|feed| match feed.peek(after.into(), head) {
        Peek::Frame(frame) => Some(frame.position()),
        Peek::Nothing => None,
        Peek::Behind => panic!("the feed has everything after {after:?}"),
    });
    let found = found.min();
    assert!(
        found.is_some() || head.log.position <= after.position,
        "nothing of what the head {head:?} covers"
    );
    found.map(|position| Cursor { position, ..after })
}

/// A subscriber joins while the writer writes: each entry after its place is found, and none that
/// the head covers is missing.
fn a_feed_misses_nothing_after_its_place() {
    let entries = [entry(1, &["a"]), entry(2, &["a"])];
    let topic = matcher("a");
    in_every_interleaving(move || {
        let (feeds, writer) = new_feeds();
        let writing = write(&feeds, writer, &entries);
        let joined = feeds.join(&topic, Format::Plain, &Arc::new(AtomicWaker::new())).unwrap();
        let (joined, mut place) = ([joined.feed], joined.after.log);
        let mut expected = u128::from_be_bytes(place.position.to_bytes());
        let mut find = |place: &mut Cursor| {
            if let Some(found) = next(&feeds, &joined, *place) {
                expected += 1;
                *place = found;
                assert_eq!(found, cursor(expected));
            }
        };
        find(&mut place);
        writing.join().unwrap();
        find(&mut place);
        find(&mut place);
        assert_eq!(place, cursor(2));
    });
}

fn a_reader_of_two_feeds_never_sees_a_later_event_first() {
    let entries = [entry(1, &["a"]), entry(2, &["b"])];
    let topics = ["a", "b"].map(matcher);
    in_every_interleaving(move || {
        let (feeds, writer) = new_feeds();
        let joined = topics.each_ref().map(|topic| {
            let joined = feeds.join(topic, Format::Plain, &Arc::new(AtomicWaker::new())).unwrap();
            joined.feed
        });
        let writing = write(&feeds, writer, &entries);
        let mut found = Vec::new();
        let find = |found: &mut Vec<Cursor>| {
            found.extend(next(&feeds, &joined, found.last().copied().unwrap_or(cursor(0))));
        };
        find(&mut found);
        writing.join().unwrap();
        find(&mut found);
        find(&mut found);
        assert_eq!(found, [cursor(1), cursor(2)]);
    });
}

/// The shard keeps its snapshot until it takes the next one, so the writer finds the end of the feed
/// in use.
fn a_shard_sends_everything_from_its_snapshots() {
    let entries = [1, 2, 3].map(|number| entry(number, &["a"]));
    let topic = matcher("a");
    in_every_interleaving(move || {
        let lag = Arc::<Lag>::default();
        let (progress, inbox) = new_shard(&lag);
        let (feeds, writer) = new_feeds();
        let feed = feeds.join(&topic, Format::Plain, &Arc::new(AtomicWaker::new())).unwrap().feed;
        let notifier = Arc::new(FeedNotifier::new(&inbox, 7));
        feed.add_shard(Arc::clone(&notifier));
        let writing = write(&feeds, writer, &entries);
        let mut sent = Vec::new();
        let mut offset: Offset = 0;
        let mut snapshot = None;
        while sent.split(|byte| *byte == b'#').count() <= entries.len() {
            block_on(inbox.notified());
            let mut grown = Vec::new();
            look(&progress, &inbox, &mut grown, &mut Vec::new());
            if grown.is_empty() {
                continue;
            }
            notifier.rearm();
            drop(snapshot.take());
            let snapshot = snapshot.insert(feed.snapshot(offset).unwrap());
            let write = |bytes: &[u8]| {
                sent.extend_from_slice(bytes);
                Ok(bytes.len())
            };
            // What it was notified of may have been in the snapshot before.
            if let Some(progress) = snapshot.send(offset, |_| true, write).unwrap() {
                assert!(progress.at_end, "in one call");
                offset = progress.offset;
            }
        }
        writing.join().unwrap();
        let all = feed.snapshot(0).unwrap();
        let mut whole = Vec::new();
        let copy = |bytes: &[u8]| {
            whole.extend_from_slice(bytes);
            Ok(bytes.len())
        };
        all.send(0, |_| true, copy).unwrap();
        assert_eq!(sent, whole);
    });
}
