//! Pages of history that were read a moment ago, shared by subscribers that need the same.
//!
//! After a restart thousands of clients resume from the same few positions. The log is read, and
//! the page encoded, for the first of them; the others share it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tidings_log::{Cursor, Epoch, Page, Position};
use tidings_topic::Filter;
use tokio::time::Instant;

use crate::{feed::encode::Format, feed::frames::Frames};

/// A page is shared for this long after it was read: an event that expires meanwhile is still sent,
/// as to a subscriber that asked a moment earlier.
const SHARED_FOR: Duration = Duration::from_secs(1);
/// Bytes of all shared pages together. Beyond, the oldest are dropped.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Approximate memory of a shared page in addition to its frames.
const PAGE_OVERHEAD_BYTES: usize = 512;

/// A page of the log, encoded.
#[derive(Debug)]
pub(crate) struct EncodedPage {
    pub(crate) epoch: Epoch,
    pub(crate) through: Position,
    pub(crate) at_end: bool,
    pub(crate) floor: Option<Position>,
    pub(crate) frames: Arc<Frames>,
}

impl EncodedPage {
    pub(crate) fn new(page: &Page, format: Format) -> Self {
        let mut frames = Frames::default();
        for entry in &page.entries {
            frames.push(entry, format);
        }
        frames.shrink();
        Self {
            epoch: page.epoch,
            through: page.through,
            at_end: page.at_end,
            floor: page.floor,
            frames: Arc::new(frames),
        }
    }
}

/// What a page depends on: who may read it, in which format, and from where.
pub(crate) type PageKey = (Arc<Filter>, Format, Cursor);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    known: HashMap<PageKey, Arc<EncodedPage>>,
    /// In the order in which they were read.
    read: VecDeque<(Instant, PageKey)>,
    bytes: usize,
    /// How often all pages were dropped. Read it before reading a page, and pass it to
    /// [`put`](Self::put).
    pub(crate) cleared: u64,
}

impl Pages {
    /// A page that was read a moment ago, unless it does not help this reader: the page ends at an
    /// end of the log that may be before the beginning of the feeds, which the reader is behind.
    pub(crate) fn get(&mut self, key: &PageKey, routed: Cursor, now: Instant) -> Option<Arc<EncodedPage>> {
        self.forget(now, BYTES_MAX);
        let page = self.known.get(key)?;
        let leads_on = page.epoch == routed.epoch && (!page.at_end || page.through >= routed.position);
        leads_on.then(|| Arc::clone(page))
    }

    /// Drops every page, also those that are being read.
    pub(crate) fn clear(&mut self) {
        *self = Self { cleared: self.cleared + 1, ..Self::default() };
    }

    /// Shares a page, unless all pages were dropped since it was read.
    pub(crate) fn put(&mut self, key: PageKey, page: Arc<EncodedPage>, cleared: u64, now: Instant) {
        let bytes = bytes_of(&page);
        if bytes > BYTES_MAX || cleared != self.cleared {
            return;
        }
        if let Some(before) = self.known.insert(key.clone(), page) {
            // Its entry in the order stays: the page is dropped a little early then.
            self.bytes = self.bytes + bytes - bytes_of(&before);
        } else {
            self.bytes += bytes;
            self.read.push_back((now, key));
        }
        self.forget(now, BYTES_MAX);
    }

    fn forget(&mut self, now: Instant, bytes_max: usize) {
        while let Some((read_at, key)) = self.read.front() {
            if self.bytes <= bytes_max && now.duration_since(*read_at) < SHARED_FOR {
                return;
            }
            if let Some(page) = self.known.remove(key) {
                self.bytes -= bytes_of(&page);
            }
            self.read.pop_front();
        }
    }
}

fn bytes_of(page: &EncodedPage) -> usize {
    page.frames.memory_bytes() + PAGE_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use tidings_log::{Entry, Timestamp};
    use tidings_topic::{NewEvent, Validator};

    use super::*;

    fn cursor(epoch: u64, number: u128) -> Cursor {
        let position = Position::from_bytes(number.to_be_bytes());
        Cursor { epoch: Epoch::from_u64(epoch), position }
    }

    fn page(through: u128, at_end: bool) -> Arc<EncodedPage> {
        let through = cursor(1, through);
        let frames = Arc::default();
        Arc::new(EncodedPage { epoch: through.epoch, through: through.position, at_end, floor: None, frames })
    }

    fn key(number: u128) -> PageKey {
        (Arc::new(Filter::everything_public()), Format::Plain, cursor(1, number))
    }

    #[test]
    fn a_page_is_shared_with_an_equal_filter_for_a_moment() {
        let mut pages = Pages::default();
        let now = Instant::now();
        // Two subscribers have read it at the same time.
        for _ in 0..2 {
            pages.put(key(5), page(7, false), 0, now);
        }
        assert!(pages.get(&key(5), cursor(1, 9), now).is_some());
        assert!(pages.get(&key(6), cursor(1, 9), now).is_none());
        let nothing = (Arc::new(Filter::default()), Format::Plain, cursor(1, 5));
        assert!(pages.get(&nothing, cursor(1, 9), now).is_none());
        assert!(pages.get(&key(5), cursor(1, 9), now + SHARED_FOR).is_none());
        assert_eq!((pages.bytes, pages.read.len(), pages.known.len()), (0, 0, 0));
    }

    #[test]
    fn a_page_read_before_a_deletion_is_not_shared_after_it() {
        let mut pages = Pages::default();
        let now = Instant::now();
        let begun = pages.cleared;
        pages.put(key(5), page(7, false), begun, now);
        pages.clear();
        assert!(pages.get(&key(5), cursor(1, 9), now).is_none());
        pages.put(key(6), page(7, false), begun, now);
        assert!(pages.get(&key(6), cursor(1, 9), now).is_none());
        pages.put(key(6), page(7, false), pages.cleared, now);
        assert!(pages.get(&key(6), cursor(1, 9), now).is_some());
    }

    #[test]
    fn a_page_that_does_not_advance_the_reader_is_not_shared() {
        let mut pages = Pages::default();
        let now = Instant::now();
        pages.put(key(5), page(7, true), 0, now);
        assert!(pages.get(&key(5), cursor(1, 7), now).is_some());
        assert!(pages.get(&key(5), cursor(1, 8), now).is_none(), "the end is not there any more");
        assert!(pages.get(&key(5), cursor(2, 7), now).is_none(), "the log is another");
    }

    #[test]
    fn a_page_that_is_too_large_to_be_shared_displaces_no_other() {
        let mut pages = Pages::default();
        let now = Instant::now();
        pages.put(key(5), page(7, false), 0, now);
        let mut large = Arc::into_inner(page(8, false)).expect("nobody else has it");
        large.frames = Arc::new(Frames::with_capacity(BYTES_MAX));
        pages.put(key(6), Arc::new(large), 0, now);
        assert!(pages.get(&key(6), cursor(1, 9), now).is_none());
        assert!(pages.get(&key(5), cursor(1, 9), now).is_some());
    }

    /// The budget of full sockets counts the bytes of pages, so these must be all that a page takes.
    #[test]
    fn a_page_takes_no_more_memory_than_its_events() {
        let event = Validator::default().event(NewEvent::new("chat", "x".repeat(100))).expect("valid");
        let entry =
            |number| Arc::new(Entry::new(cursor(1, number), Timestamp::from_millis(0), event.clone()));
        let page = Page {
            epoch: cursor(1, 0).epoch,
            after: cursor(1, 0).position,
            entries: (1..=9).map(entry).collect(),
            through: cursor(1, 9).position,
            at_end: true,
            floor: None,
        };
        let frames = EncodedPage::new(&page, Format::Plain).frames;
        assert_eq!(frames.capacity(), frames.len());
    }

    #[test]
    fn shared_pages_are_bounded() {
        let mut pages = Pages::default();
        let now = Instant::now();
        for number in 0..20_000 {
            pages.put(key(number), page(number + 1, false), 0, now);
            assert!(pages.bytes <= BYTES_MAX);
        }
        assert!(pages.get(&key(19_999), cursor(1, 30_000), now).is_some());
        assert!(pages.get(&key(0), cursor(1, 30_000), now).is_none());
    }
}
