//! All feeds of a hub, and which of them an event goes to.
//!
//! The registry is locked by the one writer for a turn, and by subscribers when they come and go. The head is published after all
//! feeds have been written, so that whoever merges several feeds never sees a later event before an earlier one.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use futures_util::task::AtomicWaker;
use tidings_log::{Cursor, Entry};
use tidings_topic::{Matcher, Topic};

use crate::{
    encode::Format,
    feed::{Feed, SEGMENT_OVERHEAD_BYTES},
};

/// The feeds of a hub.
#[derive(Debug)]
pub(crate) struct Feeds {
    routes: Mutex<Routes>,
    head: Mutex<Cursor>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Routes {
    exact: HashMap<Topic, Vec<Arc<Feed>>>,
    /// `*` and patterns, each evaluated once per event.
    others: Vec<Arc<Feed>>,
    /// Segments in the order in which they were begun, so that the oldest is dropped first, whichever feed it is in.
    /// The list is bounded because each place in it counts ([`SEGMENT_OVERHEAD_BYTES`]) until it is taken out.
    segments: VecDeque<Weak<Feed>>,
    bytes: usize,
}

impl Feeds {
    pub(crate) fn new(head: Cursor, bytes_max: usize) -> Self {
        Self { routes: Mutex::default(), head: Mutex::new(head), bytes_max }
    }

    /// How far the feeds have been written.
    pub(crate) fn head(&self) -> Cursor {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The feed of this matcher, made if need be, with a new reader in it. Returns the number of the reader.
    pub(crate) fn join(
        &self,
        matcher: &Matcher,
        format: Format,
        waker: &Arc<AtomicWaker>,
    ) -> (Arc<Feed>, u64) {
        let mut routes = self.routes();
        let feeds = routes.of(matcher);
        let known = feeds.iter().find(|feed| feed.matcher == *matcher && feed.format == format);
        let feed = if let Some(feed) = known {
            Arc::clone(feed)
        } else {
            let feed = Arc::new(Feed::new(matcher.clone(), format, self.head()));
            feeds.push(Arc::clone(&feed));
            feed
        };
        let reader = feed.add_reader(Arc::clone(waker));
        (feed, reader)
    }

    /// Takes a reader out, and the feed with its last one.
    pub(crate) fn leave(&self, feed: &Arc<Feed>, reader: u64) {
        let mut routes = self.routes();
        if feed.remove_reader(reader) == 0 {
            routes.remove(feed);
        }
    }

    /// How many readers the feeds have that such an event goes to. Who reads two of them counts twice; grants are not looked at.
    pub(crate) fn reader_count(&self, topics: &[Topic]) -> usize {
        self.routes().feeds_of(topics).map(|feed| feed.reader_count()).sum()
    }

    /// How many feeds there are and how many bytes they hold.
    pub(crate) fn size(&self) -> (usize, usize) {
        let routes = self.routes();
        (routes.exact.values().map(Vec::len).sum::<usize>() + routes.others.len(), routes.bytes)
    }

    /// Writes entries to every feed that they go to, then moves the head, then wakes.
    pub(crate) fn write(&self, entries: &[Arc<Entry>]) {
        let Some(last) = entries.last() else { return };
        let mut touched: Vec<Arc<Feed>> = Vec::new();
        {
            let mut routes = self.routes();
            for entry in entries {
                routes.push(entry, &mut touched);
            }
            routes.shrink(self.bytes_max);
            self.publish_head(last.cursor);
        }
        for feed in touched {
            feed.announce();
        }
    }

    /// Begins anew after a place: the log skipped entries or started another epoch. Everybody wakes and looks where he stands.
    pub(crate) fn restart(&self, after: Cursor) {
        {
            let mut routes = self.routes();
            for feed in routes.all() {
                feed.restart(after);
            }
            routes.segments.clear();
            routes.bytes = 0;
            self.publish_head(after);
        }
        self.wake_all();
    }

    /// Gives up everything that was written: whoever has not read it finds in the log what is left of it.
    pub(crate) fn forget(&self) {
        let mut routes = self.routes();
        for feed in routes.all() {
            feed.clear();
        }
        routes.segments.clear();
        routes.bytes = 0;
    }

    /// Wakes every reader.
    pub(crate) fn wake_all(&self) {
        let feeds: Vec<_> = self.routes().all().cloned().collect();
        for feed in feeds {
            feed.wake_readers();
        }
    }

    fn publish_head(&self, head: Cursor) {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = head;
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Routes {
    /// Where feeds of such a matcher stand.
    fn of(&mut self, matcher: &Matcher) -> &mut Vec<Arc<Feed>> {
        match matcher {
            Matcher::Exact(topic) => self.exact.entry(topic.clone()).or_default(),
            Matcher::Any | Matcher::Pattern(_) => &mut self.others,
        }
    }

    /// The feeds that an event with these topics goes to; one may come twice.
    fn feeds_of(&self, topics: &[Topic]) -> impl Iterator<Item = &Arc<Feed>> {
        let exact = topics.iter().filter_map(|topic| self.exact.get(topic)).flatten();
        exact.chain(self.others.iter().filter(move |feed| feed.matcher.matches_any(topics)))
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Feed>> {
        self.exact.values().flatten().chain(&self.others)
    }

    /// Writes an entry to the feeds that it goes to, and notes which of them were not touched before.
    fn push(&mut self, entry: &Entry, touched: &mut Vec<Arc<Feed>>) {
        let exact = entry.event.topics.iter().filter_map(|topic| self.exact.get(topic)).flatten();
        let others = self.others.iter().filter(|feed| feed.matcher.matches_any(&entry.event.topics));
        for feed in exact.chain(others) {
            let grown = feed.push(entry);
            self.bytes += grown.bytes;
            if grown.begins_segment {
                self.segments.push_back(Arc::downgrade(feed));
            }
            if feed.touch() {
                touched.push(Arc::clone(feed));
            }
        }
    }

    /// Drops the oldest segments until the rest holds no more than this.
    fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let Some(feed) = self.segments.pop_front() else { break };
            let dropped = feed.upgrade().map_or(0, |feed| feed.drop_front());
            self.bytes -= SEGMENT_OVERHEAD_BYTES + dropped;
        }
    }

    /// Takes out a feed that nobody reads.
    fn remove(&mut self, feed: &Arc<Feed>) {
        self.bytes -= feed.clear();
        let feeds = self.of(&feed.matcher);
        feeds.retain(|other| !Arc::ptr_eq(other, feed));
        if let (true, Matcher::Exact(topic)) = (feeds.is_empty(), &feed.matcher) {
            self.exact.remove(topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::task::ArcWake;
    use tidings_log::{Epoch, Position, Timestamp};
    use tidings_topic::{NewEvent, Validator};

    use super::*;
    use crate::feed::Peek;

    fn cursor(number: u128) -> Cursor {
        let position = Position::from_bytes(number.to_be_bytes());
        Cursor { epoch: Epoch::from_u64(1), position }
    }

    fn entry(number: u128, topics: &[&str]) -> Arc<Entry> {
        let topics = topics.iter().map(ToString::to_string).collect();
        let new = NewEvent { topics, data: "x".repeat(100), ..NewEvent::default() };
        let event = Validator::default().event(new).expect("valid");
        Arc::new(Entry::new(cursor(number), Timestamp::from_millis(0), event))
    }

    fn exact(topic: &str) -> Matcher {
        Validator::default().exact(topic).expect("valid")
    }

    struct Bell(AtomicUsize);

    impl ArcWake for Bell {
        fn wake_by_ref(bell: &Arc<Self>) {
            bell.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn one_matcher_in_one_format_has_one_feed_until_its_last_reader_leaves() {
        let feeds = Feeds::new(cursor(0), 1 << 20);
        let waker = Arc::default();
        let (first, first_reader) = feeds.join(&exact("a"), Format::Plain, &waker);
        let (second, second_reader) = feeds.join(&exact("a"), Format::Plain, &waker);
        let (json, json_reader) = feeds.join(&exact("a"), Format::Json, &waker);
        assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&first, &json));
        assert_eq!(feeds.size().0, 2);
        assert_eq!(feeds.reader_count(&entry(1, &["a"]).event.topics), 3);
        feeds.leave(&first, first_reader);
        assert_eq!(feeds.size().0, 2);
        feeds.leave(&second, second_reader);
        feeds.leave(&json, json_reader);
        assert_eq!(feeds.size().0, 0);
    }

    #[test]
    fn a_new_feed_knows_nothing_of_what_was_before_it() {
        let feeds = Feeds::new(cursor(0), 1 << 20);
        feeds.write(&[entry(1, &["a"])]);
        let (feed, _) = feeds.join(&exact("a"), Format::Plain, &Arc::default());
        assert!(matches!(feed.peek(cursor(0), cursor(1).position), Peek::Behind));
        assert!(matches!(feed.peek(cursor(1), cursor(1).position), Peek::Nothing));
    }

    #[test]
    fn all_feeds_together_hold_no_more_than_they_may_and_the_oldest_goes_first() {
        let bytes_max = 3_000;
        let feeds = Feeds::new(cursor(0), bytes_max);
        let waker = Arc::default();
        let joined = ["a", "b", "c"].map(|topic| feeds.join(&exact(topic), Format::Plain, &waker).0);
        for number in 1..=60 {
            feeds.write(&[entry(number, &[["a", "b", "c"][(number % 3) as usize]])]);
            assert!(feeds.size().1 <= bytes_max);
        }
        let kept = |place| {
            let head = feeds.head().position;
            joined.iter().filter(|feed| !matches!(feed.peek(cursor(place), head), Peek::Behind)).count()
        };
        assert_eq!((kept(0), kept(59)), (0, 3));
        let kept: Vec<_> = (0..60).map(kept).collect();
        assert!(kept.is_sorted(), "a newer place is lost before an older one: {kept:?}");
    }

    #[test]
    fn what_belongs_to_a_feed_that_is_gone_makes_room_in_its_turn() {
        let feeds = Feeds::new(cursor(0), 2_000);
        for number in 1..=50 {
            let (feed, reader) = feeds.join(&exact("a"), Format::Plain, &Arc::default());
            feeds.write(&[entry(number, &["a"])]);
            feeds.leave(&feed, reader);
            assert!(feeds.size().1 <= 2_000);
        }
    }

    #[test]
    fn what_is_remembered_of_a_private_entry_counts() {
        let bytes_of = |private: bool| {
            let feeds = Feeds::new(cursor(0), 1 << 20);
            let _joined = feeds.join(&exact("a"), Format::Plain, &Arc::default());
            let mut entry = Arc::unwrap_or_clone(entry(1, &["a", &"long".repeat(100)]));
            entry.event.private = private;
            feeds.write(&[Arc::new(entry)]);
            feeds.size().1
        };
        assert!(bytes_of(true) >= bytes_of(false) + 400);
    }

    #[test]
    fn a_feed_that_is_gone_leaves_nothing_but_its_place_in_the_list() {
        let feeds = Feeds::new(cursor(0), 1 << 20);
        let (feed, reader) = feeds.join(&exact("a"), Format::Plain, &Arc::default());
        for number in 1..=1_000 {
            feeds.write(&[entry(number, &["a"])]);
        }
        feeds.leave(&feed, reader);
        assert!(feeds.size().1 <= 20 * SEGMENT_OVERHEAD_BYTES, "{}", feeds.size().1);
    }

    /// A reader that is about to sleep again whenever it is woken.
    struct LightSleeper(Arc<AtomicWaker>, AtomicUsize);

    impl ArcWake for LightSleeper {
        fn wake_by_ref(sleeper: &Arc<Self>) {
            sleeper.1.fetch_add(1, Ordering::SeqCst);
            sleeper.0.register(&futures_util::task::waker(Arc::clone(sleeper)));
        }
    }

    #[test]
    fn readers_are_woken_once_for_all_that_was_written_together() {
        let feeds = Feeds::new(cursor(0), 1 << 20);
        let waker = Arc::<AtomicWaker>::default();
        let sleeper = Arc::new(LightSleeper(Arc::clone(&waker), AtomicUsize::new(0)));
        waker.register(&futures_util::task::waker(Arc::clone(&sleeper)));
        feeds.join(&exact("a"), Format::Plain, &waker);
        feeds.write(&[entry(1, &["a"]), entry(2, &["a"]), entry(3, &["a"])]);
        assert_eq!(sleeper.1.load(Ordering::SeqCst), 1);
        feeds.write(&[entry(4, &["a"])]);
        assert_eq!(sleeper.1.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn only_readers_of_what_was_written_are_woken_and_all_of_them_by_a_restart() {
        let feeds = Feeds::new(cursor(0), 1 << 20);
        let bells = ["a", "b"].map(|topic| {
            let (bell, waker) = (Arc::new(Bell(AtomicUsize::new(0))), Arc::<AtomicWaker>::default());
            waker.register(&futures_util::task::waker(Arc::clone(&bell)));
            feeds.join(&exact(topic), Format::Plain, &waker);
            (bell, waker)
        });
        let rung = || bells.each_ref().map(|(bell, _)| bell.0.load(Ordering::SeqCst));
        feeds.write(&[entry(1, &["a"])]);
        assert_eq!(rung(), [1, 0]);
        bells[0].1.register(&futures_util::task::waker(Arc::clone(&bells[0].0)));
        feeds.restart(cursor(5));
        assert_eq!(rung(), [2, 1]);
    }
}
