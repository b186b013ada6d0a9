//! All feeds of a hub, and which of them an event goes to.
//!
//! The registry is locked by the one writer for a turn, and by subscribers when they come and go. The head is published after all
//! feeds have been written, so that whoever merges several feeds never sees a later event before an earlier one.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, Weak},
};

use futures_util::task::AtomicWaker;
use tidings_log::{Cursor, Entry};
use tidings_topic::{Matcher, Topic};

use crate::{
    encode::Format,
    feed::{Feed, Gathered},
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
    /// Blocks in the order in which they were written, so that the oldest is dropped first, whichever feed it is in.
    blocks: VecDeque<(Weak<Feed>, usize)>,
    bytes: usize,
}

impl Feeds {
    pub(crate) fn new(head: Cursor, bytes_max: usize) -> Self {
        Self { routes: Mutex::default(), head: Mutex::new(head), bytes_max }
    }

    /// How far the feeds have been written.
    pub(crate) fn head(&self) -> Cursor {
        *self.head.lock().expect("nothing panics while it holds the head")
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
        if feed.remove_reader(reader) > 0 {
            return;
        }
        let feeds = routes.of(&feed.matcher);
        feeds.retain(|other| !Arc::ptr_eq(other, feed));
        if let (true, Matcher::Exact(topic)) = (feeds.is_empty(), &feed.matcher) {
            routes.exact.remove(topic);
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
        let touched = {
            let mut routes = self.routes();
            let mut gathered: HashMap<*const Feed, (Arc<Feed>, Gathered)> = HashMap::new();
            for entry in entries {
                for feed in routes.feeds_of(&entry.event.topics) {
                    let (_, gathered) = gathered
                        .entry(Arc::as_ptr(feed))
                        .or_insert_with(|| (Arc::clone(feed), Gathered::default()));
                    gathered.add(entry, feed.format);
                }
            }
            let mut touched = Vec::with_capacity(gathered.len());
            for (feed, gathered) in gathered.into_values() {
                let bytes = feed.push(gathered);
                routes.blocks.push_back((Arc::downgrade(&feed), bytes));
                routes.bytes += bytes;
                touched.push(feed);
            }
            while routes.bytes > self.bytes_max {
                let Some((feed, bytes)) = routes.blocks.pop_front() else { break };
                routes.bytes -= bytes;
                if let Some(feed) = feed.upgrade() {
                    feed.drop_front();
                }
            }
            self.publish_head(last.cursor);
            touched
        };
        for feed in touched {
            feed.wake_readers();
        }
    }

    /// Begins anew after a place: the log skipped entries or started another epoch. Everybody wakes and looks where he stands.
    pub(crate) fn restart(&self, after: Cursor) {
        {
            let mut routes = self.routes();
            for feed in routes.all() {
                feed.restart(after);
            }
            routes.blocks.clear();
            routes.bytes = 0;
            self.publish_head(after);
        }
        self.wake_all();
    }

    /// Wakes every reader.
    pub(crate) fn wake_all(&self) {
        let feeds: Vec<_> = self.routes().all().cloned().collect();
        for feed in feeds {
            feed.wake_readers();
        }
    }

    fn publish_head(&self, head: Cursor) {
        *self.head.lock().expect("nothing panics while it holds the head") = head;
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().expect("nothing panics while it holds the routes")
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
}
