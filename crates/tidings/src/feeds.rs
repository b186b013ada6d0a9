//! All feeds of a hub, and which of them an event goes to.
//!
//! The registry is locked by the one writer for a batch, and by subscribers when they join or
//! leave. The head is published after all feeds have been written, so that a reader that merges
//! several feeds never sees a later event before an earlier one.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use futures_util::task::AtomicWaker;
use smallvec::SmallVec;
use tidings_log::{Cursor, Entry};
use tidings_topic::{Matcher, PatternIndex, PatternLimits, PatternsFull, Topic, TopicUrls};

use crate::{
    encode::Format,
    feed::{Feed, SEGMENT_OVERHEAD_BYTES},
};

/// The work of comparing with patterns, in their [weight](tidings_topic::UrlPattern::weight), that
/// the writer does before it lets others have the routes: a fraction of a millisecond.
const WRITE_WEIGHT_MAX: u64 = 8_192;

/// The feeds of a hub.
#[derive(Debug)]
pub(crate) struct Feeds {
    routes: Mutex<Routes>,
    head: Mutex<Cursor>,
    bytes_max: usize,
    pattern_limits: PatternLimits,
}

#[derive(Debug, Default)]
struct Routes {
    exact: HashMap<Topic, Vec<Arc<Feed>>>,
    /// Those of `*`.
    any: Vec<Arc<Feed>>,
    /// Those of each pattern, never none.
    patterns: PatternIndex<Vec<Arc<Feed>>>,
    /// Segments in the order in which they were begun, so that the oldest is dropped first,
    /// whichever feed it is in. The list is bounded because each place in it counts
    /// ([`SEGMENT_OVERHEAD_BYTES`]) until it is taken out.
    segments: VecDeque<Weak<Feed>>,
    bytes: usize,
}

impl Feeds {
    pub(crate) fn new(head: Cursor, bytes_max: usize, pattern_limits: PatternLimits) -> Self {
        Self { routes: Mutex::default(), head: Mutex::new(head), bytes_max, pattern_limits }
    }

    /// How far the feeds have been written.
    pub(crate) fn head(&self) -> Cursor {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The feed of this matcher, made if need be, with a new reader in it. Returns the number of
    /// the reader. Fails for a pattern beyond the limits.
    pub(crate) fn join(
        &self,
        matcher: &Matcher,
        format: Format,
        waker: &Arc<AtomicWaker>,
    ) -> Result<(Arc<Feed>, u64), PatternsFull> {
        let mut routes = self.routes();
        let known = routes.of(matcher).and_then(|feeds| feeds.iter().find(|feed| feed.format == format));
        let feed = if let Some(feed) = known {
            Arc::clone(feed)
        } else {
            let feed = Arc::new(Feed::new(matcher.clone(), format, self.head()));
            routes.add(&feed, self.pattern_limits)?;
            feed
        };
        let reader = feed.add_reader(Arc::clone(waker));
        Ok((feed, reader))
    }

    /// Takes a reader out, and the feed with its last one.
    pub(crate) fn leave(&self, feed: &Arc<Feed>, reader: u64) {
        let mut routes = self.routes();
        if feed.remove_reader(reader) == 0 {
            routes.remove(feed);
        }
    }

    /// How many readers the feeds have that such an event goes to. Who reads two of them counts
    /// twice; grants are not looked at.
    pub(crate) fn reader_count(&self, topics: &[Topic]) -> usize {
        let mut count = 0;
        self.routes().for_each_feed(topics, |feed| count += feed.reader_count());
        count
    }

    /// How many distinct patterns are subscribed to.
    pub(crate) fn pattern_count(&self) -> usize {
        self.routes().patterns.len()
    }

    /// How many feeds there are and how many bytes they hold.
    pub(crate) fn size(&self) -> (usize, usize) {
        let routes = self.routes();
        (routes.all().count(), routes.bytes)
    }

    /// Writes entries to every feed that they go to, then moves the head, then wakes. Returns how
    /// many of them it has written: all, or as many as comparing with patterns leaves time for
    /// while others wait for the routes.
    pub(crate) fn write(&self, entries: &[Arc<Entry>]) -> usize {
        let mut touched: Vec<Arc<Feed>> = Vec::new();
        let mut written = 0;
        {
            let mut routes = self.routes();
            let mut work = 0;
            while let Some(entry) = entries.get(written)
                && work < WRITE_WEIGHT_MAX
            {
                work += routes.push(entry, &mut touched);
                written += 1;
                if written == entries.len() || work >= WRITE_WEIGHT_MAX {
                    routes.shrink(self.bytes_max);
                    self.publish_head(entry.cursor);
                }
            }
        }
        for feed in touched {
            feed.announce();
        }
        written
    }

    /// Begins anew after a place: the log skipped entries or started another epoch. Everybody wakes
    /// and looks where he stands.
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

    /// Gives up everything that was written: the one that has not read it finds in the log what is
    /// left of it.
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
    /// The feeds of this matcher, one for each format.
    fn of(&mut self, matcher: &Matcher) -> Option<&mut Vec<Arc<Feed>>> {
        match matcher {
            Matcher::Exact(topic) => self.exact.get_mut(topic),
            Matcher::Any => Some(&mut self.any),
            Matcher::Pattern(pattern) => self.patterns.get_mut(pattern),
        }
    }

    fn add(&mut self, feed: &Arc<Feed>, limits: PatternLimits) -> Result<(), PatternsFull> {
        match (self.of(&feed.matcher), &feed.matcher) {
            (Some(feeds), _) => feeds.push(Arc::clone(feed)),
            (None, Matcher::Pattern(pattern)) => {
                self.patterns.insert(pattern.clone(), vec![Arc::clone(feed)], limits)?;
            }
            (None, Matcher::Exact(topic)) => {
                self.exact.insert(topic.clone(), vec![Arc::clone(feed)]);
            }
            (None, Matcher::Any) => unreachable!("the feeds of `*` have a list of their own"),
        }
        Ok(())
    }

    /// Hands over the feeds that an event with these topics goes to; one may come twice. Returns
    /// the work of comparing with patterns.
    fn for_each_feed<'a>(&'a self, topics: &[Topic], mut visit: impl FnMut(&'a Arc<Feed>)) -> u64 {
        let exact = topics.iter().filter_map(|topic| self.exact.get(topic)).flatten();
        exact.chain(&self.any).for_each(&mut visit);
        self.patterns.for_each_match(&TopicUrls::new(topics), |feeds| feeds.iter().for_each(&mut visit))
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Feed>> {
        self.exact.values().flatten().chain(&self.any).chain(self.patterns.values().flatten())
    }

    /// Writes an entry to the feeds that it goes to, and notes which of them were not touched
    /// before. Returns the work of comparing with patterns.
    fn push(&mut self, entry: &Entry, touched: &mut Vec<Arc<Feed>>) -> u64 {
        let (mut bytes, mut begun) = (0, SmallVec::<[Weak<Feed>; 4]>::new());
        let work = self.for_each_feed(&entry.event.topics, |feed| {
            let grown = feed.push(entry);
            bytes += grown.bytes;
            if grown.begins_segment {
                begun.push(Arc::downgrade(feed));
            }
            if feed.touch() {
                touched.push(Arc::clone(feed));
            }
        });
        self.bytes += bytes;
        self.segments.extend(begun);
        work
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
        let Some(feeds) = self.of(&feed.matcher) else { return };
        feeds.retain(|other| !Arc::ptr_eq(other, feed));
        if !feeds.is_empty() {
            return;
        }
        match &feed.matcher {
            Matcher::Exact(topic) => drop(self.exact.remove(topic)),
            Matcher::Pattern(pattern) => drop(self.patterns.remove(pattern)),
            Matcher::Any => {}
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

    const PATTERN_LIMITS: PatternLimits = PatternLimits { count_max: 2, weight_max: 100 };

    fn feeds_of(bytes_max: usize) -> Feeds {
        Feeds::new(cursor(0), bytes_max, PATTERN_LIMITS)
    }

    fn join(feeds: &Feeds, matcher: &Matcher, format: Format, waker: &Arc<AtomicWaker>) -> (Arc<Feed>, u64) {
        feeds.join(matcher, format, waker).expect("within the limits")
    }

    fn exact(topic: &str) -> Matcher {
        Validator::default().exact(topic).expect("valid")
    }

    struct Notifier(AtomicUsize);

    impl ArcWake for Notifier {
        fn wake_by_ref(notifier: &Arc<Self>) {
            notifier.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn one_matcher_in_one_format_has_one_feed_until_its_last_reader_leaves() {
        let feeds = feeds_of(1 << 20);
        let waker = Arc::default();
        let (first, first_reader) = join(&feeds, &exact("a"), Format::Plain, &waker);
        let (second, second_reader) = join(&feeds, &exact("a"), Format::Plain, &waker);
        let (json, json_reader) = join(&feeds, &exact("a"), Format::Json, &waker);
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
        let feeds = feeds_of(1 << 20);
        feeds.write(&[entry(1, &["a"])]);
        let (feed, _) = join(&feeds, &exact("a"), Format::Plain, &Arc::default());
        assert!(matches!(feed.peek(cursor(0), cursor(1).position), Peek::Behind));
        assert!(matches!(feed.peek(cursor(1), cursor(1).position), Peek::Nothing));
    }

    #[test]
    fn all_feeds_together_hold_no_more_than_they_may_and_the_oldest_goes_first() {
        let bytes_max = 3_000;
        let feeds = feeds_of(bytes_max);
        let waker = Arc::default();
        let joined = ["a", "b", "c"].map(|topic| join(&feeds, &exact(topic), Format::Plain, &waker).0);
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
        assert!(kept.is_sorted(), "a newer position is lost before an older one: {kept:?}");
    }

    #[test]
    fn what_belongs_to_a_feed_that_is_gone_makes_room_in_its_turn() {
        let feeds = feeds_of(2_000);
        for number in 1..=50 {
            let (feed, reader) = join(&feeds, &exact("a"), Format::Plain, &Arc::default());
            feeds.write(&[entry(number, &["a"])]);
            feeds.leave(&feed, reader);
            assert!(feeds.size().1 <= 2_000);
        }
    }

    #[test]
    fn what_is_remembered_of_a_private_entry_counts() {
        let bytes_of = |private: bool| {
            let feeds = feeds_of(1 << 20);
            let _joined = join(&feeds, &exact("a"), Format::Plain, &Arc::default());
            let mut entry = Arc::unwrap_or_clone(entry(1, &["a", &"long".repeat(100)]));
            entry.event.private = private;
            feeds.write(&[Arc::new(entry)]);
            feeds.size().1
        };
        assert!(bytes_of(true) >= bytes_of(false) + 400);
    }

    #[test]
    fn a_feed_that_is_gone_leaves_nothing_but_its_place_in_the_list() {
        let feeds = feeds_of(1 << 20);
        let (feed, reader) = join(&feeds, &exact("a"), Format::Plain, &Arc::default());
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
        let feeds = feeds_of(1 << 20);
        let waker = Arc::<AtomicWaker>::default();
        let sleeper = Arc::new(LightSleeper(Arc::clone(&waker), AtomicUsize::new(0)));
        waker.register(&futures_util::task::waker(Arc::clone(&sleeper)));
        join(&feeds, &exact("a"), Format::Plain, &waker);
        feeds.write(&[entry(1, &["a"]), entry(2, &["a"]), entry(3, &["a"])]);
        assert_eq!(sleeper.1.load(Ordering::SeqCst), 1);
        feeds.write(&[entry(4, &["a"])]);
        assert_eq!(sleeper.1.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn only_readers_of_what_was_written_are_woken_and_all_of_them_by_a_restart() {
        let feeds = feeds_of(1 << 20);
        let notifiers = ["a", "b"].map(|topic| {
            let (notifier, waker) = (Arc::new(Notifier(AtomicUsize::new(0))), Arc::<AtomicWaker>::default());
            waker.register(&futures_util::task::waker(Arc::clone(&notifier)));
            join(&feeds, &exact(topic), Format::Plain, &waker);
            (notifier, waker)
        });
        let notified = || notifiers.each_ref().map(|(notifier, _)| notifier.0.load(Ordering::SeqCst));
        feeds.write(&[entry(1, &["a"])]);
        assert_eq!(notified(), [1, 0]);
        notifiers[0].1.register(&futures_util::task::waker(Arc::clone(&notifiers[0].0)));
        feeds.restart(cursor(5));
        assert_eq!(notified(), [2, 1]);
    }

    fn pattern(text: &str) -> Matcher {
        Validator::default().pattern(text).expect("valid")
    }

    #[test]
    fn distinct_patterns_are_bounded_whatever_the_formats_and_readers() {
        let feeds = feeds_of(1 << 20);
        let waker = Arc::default();
        let joined = [Format::Plain, Format::Json, Format::Plain]
            .map(|format| join(&feeds, &pattern("/a/:id"), format, &waker));
        let (other, reader) = join(&feeds, &pattern("/b/:id"), Format::Plain, &waker);
        let refused = feeds.join(&pattern("/c/:id"), Format::Plain, &waker).map(|_| ());
        assert_eq!(refused, Err(PatternsFull::Count));
        assert_eq!((feeds.pattern_count(), feeds.size().0), (2, 3));
        feeds.leave(&other, reader);
        join(&feeds, &pattern("/c/:id"), Format::Plain, &waker);
        for (feed, reader) in joined {
            feeds.leave(&feed, reader);
        }
        assert_eq!((feeds.pattern_count(), feeds.size().0), (1, 1));
    }

    #[test]
    fn the_writer_lets_others_have_the_routes_when_patterns_take_long() {
        let limits = PatternLimits { count_max: 10_000, weight_max: u32::MAX };
        let feeds = Feeds::new(cursor(0), 1 << 20, limits);
        let waker = Arc::default();
        let joined: Vec<_> = (0..200)
            .map(|number| join(&feeds, &pattern(&format!("/:a(\\d+)x{number}")), Format::Plain, &waker))
            .collect();
        let entries: Vec<_> = (1..=100).map(|number| entry(number, &["/1x7"])).collect();
        let (mut written, mut turns) = (0, 0);
        while written < entries.len() {
            written += feeds.write(&entries[written..]);
            turns += 1;
            assert_eq!(
                feeds.head(),
                cursor(written as u128),
                "the head is the last position that was written"
            );
        }
        assert!((10..=100).contains(&turns), "{turns}");
        assert_eq!(feeds.reader_count(&entries[0].event.topics), 1);
        let (feed, _) = &joined[7];
        assert!(
            matches!(feed.peek(cursor(99), cursor(100).position), Peek::Frame(frame) if frame.position == cursor(100).position)
        );
    }
}
