//! All feeds of a hub, and which of them an event goes to.
//!
//! The [`FeedWriter`] takes entries from the tail of the log, and ephemeral events between them, one
//! after the other: it looks up the feeds of an entry under the lock of the routes, and compares the entry with patterns, encodes it
//! and appends it without. Subscribers join and leave at the same time and wait for neither.
//!
//! Two positions tell how far the writer is:
//! - **routed**: the feeds of every entry up to here have been looked up. A feed that is made now
//!   receives every later entry, so it begins here. The position moves under the same lock as feeds
//!   are added under, so no entry is looked up before and none is missed after.
//! - the **head**: every entry up to here is in all its feeds. It is published after they have been
//!   written, so that a reader that merges several feeds never sees a later event before an earlier
//!   one.

use std::{
    borrow::Borrow,
    collections::{HashMap, VecDeque},
    sync::{Arc, PoisonError, Weak},
};

use tidings_log::{Cursor, Entry};
use tidings_topic::{Matcher, PatternIndex, PatternLimits, PatternsFull, Topic, TopicUrls};

use crate::{
    feed::encode::Format,
    feed::feed::{Feed, SEGMENT_BYTES_MAX},
    feed::frames::Frames,
    feed::place::LivePlace,
    feed::sampling::{Sampled, Sampler},
    sync::{
        AtomicWaker, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The work of comparing with patterns, in their [weight](tidings_topic::Pattern::weight), that
/// the writer does before other tasks have their turn: a fraction of a millisecond.
const WRITE_WEIGHT_MAX: u64 = 8_192;

/// Memory of a segment in addition to its frames: its records in the feed and in the list of all
/// segments, and the shell of a feed that is gone, which lasts as long as its segments are in that
/// list.
const SEGMENT_OVERHEAD_BYTES: usize = 256;

/// The feeds of a hub, as subscribers see them.
#[derive(Debug)]
pub(crate) struct Feeds {
    routes: Mutex<Routes>,
    progress: Mutex<WriterProgress>,
    /// The memory of all feeds together.
    memory_bytes: Arc<AtomicUsize>,
    memory_bytes_max: usize,
    pattern_limits: PatternLimits,
    /// The last entry that is followed on its way.
    pub(crate) sampled: Sampled,
}

/// Writes the feeds of a hub: the only one that does.
#[derive(Debug, Default)]
pub(crate) struct FeedWriter {
    encoder: Encoder,
    /// The feeds of the entry that is being written.
    targets: Vec<Arc<Feed>>,
    /// Feeds whose readers have yet to be notified.
    grown: Vec<Arc<Feed>>,
    /// Segments in the order in which they were begun, so that the oldest is dropped first,
    /// whichever feed it is in. The list is bounded because each entry in it counts
    /// ([`SEGMENT_OVERHEAD_BYTES`]) until it is removed.
    segments: VecDeque<Weak<Feed>>,
    /// How many ephemeral events have been written.
    ephemeral_count: u64,
    sampler: Sampler,
}

/// A reader's membership in a feed.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) feed: Arc<Feed>,
    /// The number of the reader.
    pub(crate) reader: u64,
    /// The feed receives everything after this.
    pub(crate) after: LivePlace,
}

#[derive(Debug)]
struct WriterProgress {
    routed: LivePlace,
    head: LivePlace,
}

#[derive(Debug, Default)]
struct Routes {
    exact: HashMap<Topic, FeedsByFormat>,
    /// Those of `*`.
    any: FeedsByFormat,
    patterns: PatternIndex<FeedsByFormat>,
    feed_count: usize,
}

/// The feeds of one matcher.
#[derive(Clone, Debug, Default)]
struct FeedsByFormat([Option<Arc<Feed>>; Format::COUNT]);

impl Feeds {
    /// No feeds, at this head.
    pub(crate) fn new(
        head: Cursor,
        memory_bytes_max: usize,
        pattern_limits: PatternLimits,
    ) -> (Self, FeedWriter) {
        let feeds = Self {
            routes: Mutex::default(),
            progress: Mutex::new(WriterProgress { routed: head.into(), head: head.into() }),
            memory_bytes: Arc::default(),
            memory_bytes_max,
            pattern_limits,
            sampled: Sampled::default(),
        };
        (feeds, FeedWriter::default())
    }

    /// How far all feeds have been written.
    pub(crate) fn head(&self) -> LivePlace {
        self.progress().head
    }

    /// Where a feed would begin that was made now; at or after the head.
    pub(crate) fn routed(&self) -> LivePlace {
        self.progress().routed
    }

    /// Adds a reader to the feed of this matcher, which is made if need be. Fails for a pattern
    /// beyond the limits.
    pub(crate) fn join(
        &self,
        matcher: &Matcher,
        format: Format,
        waker: &Arc<AtomicWaker>,
    ) -> Result<Joined, PatternsFull> {
        let mut routes = self.routes();
        let after = self.routed();
        let feed = if let Some(feed) = routes.get(matcher).and_then(|feeds| feeds.0[format as usize].as_ref())
        {
            Arc::clone(feed)
        } else {
            let memory = Arc::clone(&self.memory_bytes);
            let feed = Arc::new(Feed::new(matcher.clone(), format, after.log, memory));
            routes.add(&feed, self.pattern_limits)?;
            feed
        };
        let reader = feed.add_reader(Arc::clone(waker));
        Ok(Joined { feed, reader, after })
    }

    /// Removes a reader, and the feed with its last one.
    pub(crate) fn leave(&self, feed: &Arc<Feed>, reader: u64) {
        let is_unread = {
            let mut routes = self.routes();
            let is_unread = feed.remove_reader(reader) == 0;
            if is_unread {
                routes.remove(feed);
            }
            is_unread
        };
        if is_unread {
            // The writer may be about to append to it.
            feed.close();
        }
    }

    /// How many readers the feeds have that such an event goes to. A reader of two of them counts
    /// twice; grants are not looked at.
    pub(crate) fn reader_count(&self, topics: &[Topic]) -> usize {
        let mut targets = Vec::new();
        let patterns = self.routes().look_up(topics, &mut targets);
        match_patterns(patterns.as_ref(), topics, &mut targets);
        targets.iter().map(|feed| feed.reader_count()).sum()
    }

    /// How many distinct patterns are subscribed to.
    pub(crate) fn pattern_count(&self) -> usize {
        self.routes().patterns.len()
    }

    /// How many feeds there are and how many bytes they hold.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.routes().feed_count, self.memory_bytes.load(Ordering::Relaxed))
    }

    /// Wakes every reader.
    pub(crate) fn wake_all(&self) {
        let feeds = self.routes().all();
        for feed in feeds {
            feed.wake_readers();
        }
    }

    fn progress(&self) -> MutexGuard<'_, WriterProgress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FeedWriter {
    /// Writes entries to every feed that they go to, then moves the head, then wakes. Returns how
    /// many of them it has written: all, or as many as comparing with patterns leaves time for
    /// while other tasks wait.
    pub(crate) fn write(&mut self, feeds: &Feeds, entries: &[Arc<Entry>]) -> usize {
        self.write_numbered(feeds, entries, |_| 0)
    }

    /// Writes ephemeral events, as [`write`](Self::write) does entries: after the head, which does
    /// not move in the log.
    pub(crate) fn write_ephemeral(&mut self, feeds: &Feeds, events: &[Entry]) -> usize {
        self.write_numbered(feeds, events, |ephemeral_count| {
            *ephemeral_count += 1;
            *ephemeral_count
        })
    }

    fn write_numbered<E: Borrow<Entry>>(
        &mut self,
        feeds: &Feeds,
        entries: &[E],
        next_number: impl Fn(&mut u64) -> u64,
    ) -> usize {
        let (mut written, mut work) = (0, 0);
        while let Some(entry) = entries.get(written).map(Borrow::<Entry>::borrow)
            && work < WRITE_WEIGHT_MAX
        {
            let ephemeral = next_number(&mut self.ephemeral_count);
            work += self.route(feeds, entry, ephemeral);
            self.append(feeds, entry, ephemeral);
            written += 1;
        }
        if let Some(last) = written.checked_sub(1) {
            self.shrink(feeds);
            let last: &Entry = entries[last].borrow();
            feeds.progress().head = LivePlace { log: last.cursor, ephemeral: self.ephemeral_count };
        }
        for feed in self.grown.drain(..) {
            feed.announce();
        }
        written
    }

    /// Begins anew after a place: the log skipped entries or started another epoch. Every reader
    /// wakes and looks where it is.
    pub(crate) fn restart(&mut self, feeds: &Feeds, after: Cursor) {
        let all = {
            let routes = feeds.routes();
            feeds.progress().routed.log = after;
            routes.all()
        };
        for feed in all {
            feed.restart(after);
        }
        self.forget_segments(feeds);
        feeds.progress().head.log = after;
        feeds.wake_all();
    }

    /// Drops everything that was written: a reader that has not read it finds in the log what is
    /// left of it.
    pub(crate) fn forget(&mut self, feeds: &Feeds) {
        for feed in self.segments.iter().filter_map(Weak::upgrade) {
            feed.clear();
        }
        self.forget_segments(feeds);
    }

    /// Finds the feeds that an entry goes to, or the ephemeral event with this number; one may come
    /// twice. Returns the work of comparing with patterns.
    fn route(&mut self, feeds: &Feeds, entry: &Entry, ephemeral: u64) -> u64 {
        let topics = &entry.event.topics;
        let patterns = {
            let routes = feeds.routes();
            let mut progress = feeds.progress();
            let ephemeral = progress.routed.ephemeral.max(ephemeral);
            progress.routed = LivePlace { log: entry.cursor, ephemeral };
            drop(progress);
            routes.look_up(topics, &mut self.targets)
        };
        match_patterns(patterns.as_ref(), topics, &mut self.targets)
    }

    /// Appends an entry to the feeds that were found, or the ephemeral event with this number.
    fn append(&mut self, feeds: &Feeds, entry: &Entry, ephemeral: u64) {
        self.encoder.begin();
        let is_followed = ephemeral == 0 && !self.targets.is_empty();
        let mark = if is_followed { self.sampler.choose(entry, &feeds.sampled) } else { None };
        for feed in self.targets.drain(..) {
            if feed.append(self.encoder.encode(entry, ephemeral, feed.format)) {
                feeds.memory_bytes.fetch_add(SEGMENT_OVERHEAD_BYTES, Ordering::Relaxed);
                self.segments.push_back(Arc::downgrade(&feed));
            }
            if let Some(mark) = mark {
                feed.mark.set(mark);
            }
            if feed.mark_grown() {
                self.grown.push(feed);
            }
        }
    }

    /// Drops the oldest segments until the rest needs no more memory than it may.
    fn shrink(&mut self, feeds: &Feeds) {
        while feeds.memory_bytes.load(Ordering::Relaxed) > feeds.memory_bytes_max {
            let Some(feed) = self.segments.pop_front() else { break };
            feeds.memory_bytes.fetch_sub(SEGMENT_OVERHEAD_BYTES, Ordering::Relaxed);
            if let Some(feed) = feed.upgrade() {
                feed.drop_front();
            }
        }
    }

    fn forget_segments(&mut self, feeds: &Feeds) {
        let overhead_bytes = self.segments.len() * SEGMENT_OVERHEAD_BYTES;
        feeds.memory_bytes.fetch_sub(overhead_bytes, Ordering::Relaxed);
        self.segments.clear();
    }
}

/// Adds the feeds of the patterns that one of these topics matches. Returns the work of comparing.
fn match_patterns(
    patterns: Option<&PatternIndex<FeedsByFormat>>,
    topics: &[Topic],
    targets: &mut Vec<Arc<Feed>>,
) -> u64 {
    let Some(patterns) = patterns else { return 0 };
    patterns.for_each_match(&TopicUrls::new(topics), |feeds| targets.extend(feeds.all().cloned()))
}

/// Encodes an entry once for each format, in memory that is used again.
#[derive(Debug, Default)]
struct Encoder([Encoded; Format::COUNT]);

#[derive(Debug, Default)]
struct Encoded {
    frame: Arc<Frames>,
    is_current: bool,
}

impl Encoder {
    /// Another entry comes.
    fn begin(&mut self) {
        for encoded in &mut self.0 {
            encoded.is_current = false;
        }
    }

    fn encode(&mut self, entry: &Entry, ephemeral: u64, format: Format) -> &Arc<Frames> {
        let encoded = &mut self.0[format as usize];
        if !std::mem::replace(&mut encoded.is_current, true) {
            let frame = encoded.empty();
            frame.push_numbered(entry, ephemeral, format);
        }
        &encoded.frame
    }
}

impl Encoded {
    fn empty(&mut self) -> &mut Frames {
        // A large event is not copied: the feeds keep it.
        let is_kept = Arc::get_mut(&mut self.frame).is_none();
        if is_kept || self.frame.capacity() > SEGMENT_BYTES_MAX {
            self.frame = Arc::default();
        }
        let frame = Arc::get_mut(&mut self.frame).expect("nobody else has it");
        frame.clear();
        frame
    }
}

impl Routes {
    /// Finds the feeds that an event with these topics goes to, except those of patterns: these are
    /// to be compared with what is returned, a snapshot, without the lock.
    fn look_up(&self, topics: &[Topic], targets: &mut Vec<Arc<Feed>>) -> Option<PatternIndex<FeedsByFormat>> {
        let exact = topics.iter().filter_map(|topic| self.exact.get(topic));
        targets.extend(exact.chain([&self.any]).flat_map(FeedsByFormat::all).cloned());
        (!self.patterns.is_empty()).then(|| self.patterns.clone())
    }

    fn all(&self) -> Vec<Arc<Feed>> {
        let matchers = self.exact.values().chain([&self.any]).chain(self.patterns.values());
        matchers.flat_map(FeedsByFormat::all).cloned().collect()
    }

    fn get(&self, matcher: &Matcher) -> Option<&FeedsByFormat> {
        match matcher {
            Matcher::Exact(topic) => self.exact.get(topic),
            Matcher::Any => Some(&self.any),
            Matcher::Pattern(pattern) => self.patterns.get(pattern),
        }
    }

    fn add(&mut self, feed: &Arc<Feed>, limits: PatternLimits) -> Result<(), PatternsFull> {
        let feeds = match &feed.matcher {
            Matcher::Exact(topic) => self.exact.entry(topic.clone()).or_default(),
            Matcher::Any => &mut self.any,
            Matcher::Pattern(pattern) => {
                if self.patterns.get(pattern).is_none() {
                    self.patterns.insert(pattern.clone(), FeedsByFormat::default(), limits)?;
                }
                self.patterns.get_mut(pattern).expect("it is there now")
            }
        };
        feeds.0[feed.format as usize] = Some(Arc::clone(feed));
        self.feed_count += 1;
        Ok(())
    }

    /// Removes a feed that nobody reads.
    fn remove(&mut self, feed: &Feed) {
        self.feed_count -= 1;
        match &feed.matcher {
            Matcher::Any => {
                self.any.remove(feed.format);
            }
            Matcher::Exact(topic) => {
                if self.exact.get_mut(topic).is_some_and(|feeds| feeds.remove(feed.format)) {
                    self.exact.remove(topic);
                }
            }
            Matcher::Pattern(pattern) => {
                if self.patterns.get_mut(pattern).is_some_and(|feeds| feeds.remove(feed.format)) {
                    self.patterns.remove(pattern);
                }
            }
        }
    }
}

impl FeedsByFormat {
    fn all(&self) -> impl Iterator<Item = &Arc<Feed>> {
        self.0.iter().flatten()
    }

    /// Whether none are left.
    fn remove(&mut self, format: Format) -> bool {
        self.0[format as usize] = None;
        self.all().next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::ArcWake;
    use tidings_log::{Epoch, Position, Timestamp};
    use tidings_topic::{NewEvent, Validator};

    use super::*;
    use crate::feed::feed::Peek;

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

    fn feeds_of(bytes_max: usize) -> (Feeds, FeedWriter) {
        Feeds::new(cursor(0), bytes_max, PATTERN_LIMITS)
    }

    fn join(feeds: &Feeds, matcher: &Matcher, format: Format, waker: &Arc<AtomicWaker>) -> (Arc<Feed>, u64) {
        let joined = feeds.join(matcher, format, waker).expect("within the limits");
        (joined.feed, joined.reader)
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
        let (feeds, _) = feeds_of(1 << 20);
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
        assert!(feeds.routes().exact.is_empty(), "a topic that nobody reads leaves nothing behind");
    }

    #[test]
    fn a_new_feed_knows_nothing_of_what_was_before_it() {
        let (feeds, mut writer) = feeds_of(1 << 20);
        writer.write(&feeds, &[entry(1, &["a"])]);
        let (feed, _) = join(&feeds, &exact("a"), Format::Plain, &Arc::default());
        assert!(matches!(feed.peek(cursor(0).into(), cursor(1).into()), Peek::Behind));
        assert!(matches!(feed.peek(cursor(1).into(), cursor(1).into()), Peek::Nothing));
    }

    #[test]
    fn all_feeds_together_hold_no_more_than_they_may_and_the_oldest_goes_first() {
        let bytes_max = 3_000;
        let (feeds, mut writer) = feeds_of(bytes_max);
        let waker = Arc::default();
        let joined = ["a", "b", "c"].map(|topic| join(&feeds, &exact(topic), Format::Plain, &waker).0);
        for number in 1..=60 {
            writer.write(&feeds, &[entry(number, &[["a", "b", "c"][(number % 3) as usize]])]);
            assert!(feeds.size().1 <= bytes_max);
        }
        let kept = |place| {
            let head = feeds.head();
            joined
                .iter()
                .filter(|feed| !matches!(feed.peek(cursor(place).into(), head), Peek::Behind))
                .count()
        };
        assert_eq!((kept(0), kept(59)), (0, 3));
        let kept: Vec<_> = (0..60).map(kept).collect();
        assert!(kept.is_sorted(), "a newer position is lost before an older one: {kept:?}");
    }

    #[test]
    fn a_topic_that_has_been_quiet_for_longer_is_dropped_before_a_busy_one() {
        let (feeds, mut writer) = feeds_of(3_000);
        let waker = Arc::default();
        let [quiet, busy] = ["a", "b"].map(|topic| join(&feeds, &exact(topic), Format::Plain, &waker).0);
        for (number, topic) in [(1, "a"), (2, "b")] {
            let mut large = Arc::unwrap_or_clone(entry(number, &[topic]));
            large.event.data = "x".repeat(1_500);
            writer.write(&feeds, &[Arc::new(large)]);
        }
        let peek = |feed: &Feed| feed.peek(cursor(0).into(), feeds.head());
        assert!(matches!((peek(&quiet), peek(&busy)), (Peek::Behind, Peek::Frame(_))));
    }

    #[test]
    fn ephemeral_events_alone_take_no_more_memory_than_feeds_may() {
        let bytes_max = 3_000;
        let (feeds, mut writer) = feeds_of(bytes_max);
        let _joined = join(&feeds, &exact("a"), Format::Plain, &Arc::default());
        let event = Arc::unwrap_or_clone(entry(1, &["a"]));
        for _ in 0..60 {
            writer.write_ephemeral(&feeds, std::slice::from_ref(&event));
            assert!(feeds.size().1 <= bytes_max);
        }
    }

    #[test]
    fn what_a_restart_or_a_deletion_drops_takes_no_memory() {
        type DropAll = fn(&mut FeedWriter, &Feeds);
        let restart: DropAll = |writer, feeds| writer.restart(feeds, cursor(9));
        let forget: DropAll = FeedWriter::forget;
        for drop_all in [restart, forget] {
            let (feeds, mut writer) = feeds_of(1 << 20);
            let _joined = join(&feeds, &exact("a"), Format::Plain, &Arc::default());
            writer.write(&feeds, &[entry(1, &["a"])]);
            assert!(feeds.size().1 > 0);
            drop_all(&mut writer, &feeds);
            assert_eq!(feeds.size().1, 0);
        }
    }

    #[test]
    fn what_belongs_to_a_feed_that_is_gone_is_dropped_in_its_turn() {
        let (feeds, mut writer) = feeds_of(2_000);
        for number in 1..=50 {
            let (feed, reader) = join(&feeds, &exact("a"), Format::Plain, &Arc::default());
            writer.write(&feeds, &[entry(number, &["a"])]);
            feeds.leave(&feed, reader);
            assert!(feeds.size().1 <= 2_000);
        }
    }

    #[test]
    fn what_is_remembered_of_a_private_entry_counts() {
        let bytes_of = |private: bool| {
            let (feeds, mut writer) = feeds_of(1 << 20);
            let _joined = join(&feeds, &exact("a"), Format::Plain, &Arc::default());
            let mut entry = Arc::unwrap_or_clone(entry(1, &["a", &"long".repeat(100)]));
            entry.event.private = private;
            writer.write(&feeds, &[Arc::new(entry)]);
            feeds.size().1
        };
        assert!(bytes_of(true) >= bytes_of(false) + 400);
    }

    #[test]
    fn a_feed_that_is_gone_leaves_nothing_but_its_place_in_the_list() {
        let (feeds, mut writer) = feeds_of(1 << 20);
        let (feed, reader) = join(&feeds, &exact("a"), Format::Plain, &Arc::default());
        for number in 1..=1_000 {
            writer.write(&feeds, &[entry(number, &["a"])]);
        }
        feeds.leave(&feed, reader);
        assert!((1..20).contains(&writer.segments.len()), "{writer:?}");
        assert_eq!(feeds.size().1, writer.segments.len() * SEGMENT_OVERHEAD_BYTES);
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
        let (feeds, mut writer) = feeds_of(1 << 20);
        let waker = Arc::<AtomicWaker>::default();
        let sleeper = Arc::new(LightSleeper(Arc::clone(&waker), AtomicUsize::new(0)));
        waker.register(&futures_util::task::waker(Arc::clone(&sleeper)));
        join(&feeds, &exact("a"), Format::Plain, &waker);
        writer.write(&feeds, &[entry(1, &["a"]), entry(2, &["a"]), entry(3, &["a"])]);
        assert_eq!(sleeper.1.load(Ordering::SeqCst), 1);
        writer.write(&feeds, &[entry(4, &["a"])]);
        assert_eq!(sleeper.1.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn only_readers_of_what_was_written_are_woken_and_all_of_them_by_a_restart() {
        let (feeds, mut writer) = feeds_of(1 << 20);
        let notifiers = ["a", "b"].map(|topic| {
            let (notifier, waker) = (Arc::new(Notifier(AtomicUsize::new(0))), Arc::<AtomicWaker>::default());
            waker.register(&futures_util::task::waker(Arc::clone(&notifier)));
            join(&feeds, &exact(topic), Format::Plain, &waker);
            (notifier, waker)
        });
        let notified = || notifiers.each_ref().map(|(notifier, _)| notifier.0.load(Ordering::SeqCst));
        writer.write(&feeds, &[entry(1, &["a"])]);
        assert_eq!(notified(), [1, 0]);
        notifiers[0].1.register(&futures_util::task::waker(Arc::clone(&notifiers[0].0)));
        writer.restart(&feeds, cursor(5));
        assert_eq!(notified(), [2, 1]);
    }

    fn pattern(text: &str) -> Matcher {
        Validator::default().pattern(text).expect("valid")
    }

    #[test]
    fn distinct_patterns_are_bounded_whatever_the_formats_and_readers() {
        let (feeds, _) = feeds_of(1 << 20);
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
    fn the_writer_lets_other_tasks_run_when_patterns_take_long() {
        let limits = PatternLimits { count_max: 10_000, weight_max: u32::MAX };
        let (feeds, mut writer) = Feeds::new(cursor(0), 1 << 20, limits);
        let waker = Arc::default();
        let joined: Vec<_> = (0..200)
            .map(|number| join(&feeds, &pattern(&format!("/:a(\\d+)x{number}")), Format::Plain, &waker))
            .collect();
        let entries: Vec<_> = (1..=100).map(|number| entry(number, &["/1x7"])).collect();
        let (mut written, mut turns) = (0, 0);
        while written < entries.len() {
            written += writer.write(&feeds, &entries[written..]);
            turns += 1;
            assert_eq!(
                feeds.head().log,
                cursor(written as u128),
                "the head is the last position that was written"
            );
        }
        assert!((10..=100).contains(&turns), "{turns}");
        assert_eq!(feeds.reader_count(&entries[0].event.topics), 1);
        let (feed, _) = &joined[7];
        assert!(
            matches!(feed.peek(cursor(99).into(), cursor(100).into()), Peek::Frame(frame) if frame.position() == cursor(100).position)
        );

        let ephemeral = vec![Entry::clone(&entries[99]); 100];
        let (mut rest, mut turns) = (&*ephemeral, 0);
        while !rest.is_empty() {
            rest = &rest[writer.write_ephemeral(&feeds, rest)..];
            turns += 1;
        }
        assert!((10..=100).contains(&turns), "{turns}");
    }

    /// It is at the position of an entry, whose readers would be measured by it.
    #[test]
    fn an_ephemeral_event_is_not_followed() {
        let (feeds, mut writer) = feeds_of(1 << 20);
        let (feed, _) = join(&feeds, &exact("a"), Format::Plain, &Arc::default());
        let mut event = Arc::unwrap_or_clone(entry(1, &["a"]));
        event.time = Timestamp::from_millis(1_000);
        writer.write_ephemeral(&feeds, std::slice::from_ref(&event));
        assert_eq!(feed.mark.get(), None);
        writer.write(&feeds, &[Arc::new(event)]);
        assert!(feed.mark.get().is_some());
    }

    #[test]
    fn an_event_is_encoded_once_for_all_feeds_and_a_large_one_is_kept_once() {
        let (feeds, mut writer) = feeds_of(1 << 30);
        let waker = Arc::default();
        let joined = [exact("a"), exact("*")].map(|matcher| join(&feeds, &matcher, Format::Plain, &waker).0);
        for number in 1..=2 {
            let mut large = Arc::unwrap_or_clone(entry(number, &["a"]));
            large.event.data = "x".repeat(1 << 20);
            writer.write(&feeds, &[Arc::new(large)]);
            let frames = joined.each_ref().map(|feed| {
                match feed.peek(cursor(number - 1).into(), cursor(number).into()) {
                    Peek::Frame(frame) => frame.chunk().as_ptr(),
                    other => panic!("it was written: {other:?}"),
                }
            });
            assert_eq!(frames[0], frames[1]);
        }
    }

    #[test]
    fn the_memory_of_a_large_event_that_is_gone_is_not_kept_for_the_next() {
        let (feeds, mut writer) = feeds_of(0);
        let _joined = join(&feeds, &exact("a"), Format::Plain, &Arc::default());
        let mut large = Arc::unwrap_or_clone(entry(1, &["a"]));
        large.event.data = "x".repeat(1 << 20);
        writer.write(&feeds, &[Arc::new(large)]);
        writer.write(&feeds, &[entry(2, &["a"])]);
        assert!(writer.encoder.0[Format::Plain as usize].frame.capacity() <= SEGMENT_BYTES_MAX);
    }

    #[test]
    fn a_feed_that_was_removed_while_the_writer_had_it_keeps_nothing() {
        let (feeds, mut writer) = feeds_of(1 << 20);
        let (feed, reader) = join(&feeds, &exact("a"), Format::Plain, &Arc::default());
        let entry = entry(1, &["a"]);
        writer.route(&feeds, &entry, 0);
        feeds.leave(&feed, reader);
        writer.append(&feeds, &entry, 0);
        assert_eq!(feeds.size(), (0, 0));
    }

    #[test]
    fn a_feed_made_after_a_restart_begins_where_the_writer_goes_on() {
        let (feeds, mut writer) = feeds_of(1 << 20);
        let restarted = Cursor { epoch: Epoch::from_u64(2), ..cursor(3) };
        writer.restart(&feeds, restarted);
        let joined = feeds.join(&exact("a"), Format::Plain, &Arc::default()).expect("an exact matcher");
        assert_eq!(joined.after, restarted.into());
        assert!(matches!(joined.feed.peek(restarted.into(), feeds.head()), Peek::Nothing));
    }

    #[test]
    fn a_feed_made_while_an_entry_is_written_begins_after_it() {
        let (feeds, mut writer) = feeds_of(1 << 20);
        let entry = entry(1, &["a"]);
        writer.route(&feeds, &entry, 0);
        let joined = feeds.join(&exact("a"), Format::Plain, &Arc::default()).expect("an exact matcher");
        writer.append(&feeds, &entry, 0);
        assert_eq!((feeds.head(), joined.after), (cursor(0).into(), cursor(1).into()));
        assert!(matches!(joined.feed.peek(cursor(0).into(), cursor(1).into()), Peek::Behind));
        assert!(matches!(joined.feed.peek(cursor(1).into(), cursor(1).into()), Peek::Nothing));
    }
}
