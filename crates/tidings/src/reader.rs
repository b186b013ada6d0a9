//! The cursor of one subscriber: what it gets next.
//!
//! A [`Reader`] is plain data and does no I/O: it looks at feeds and says what follows. Drivers move the bytes: the pulled stream
//! ([`Subscription`](crate::Subscription)) for HTTP and library users; a driver for sockets stands on the same three answers.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tidings_log::{Cursor, Entry, Epoch, Position};
use tidings_topic::{ConnectionId, Filter};

use crate::{
    encode::Format,
    feed::{Feed, FeedFrame, Peek},
    feeds::Feeds,
    replay::Replayed,
};

/// A subscriber's place, and everything that decides what it receives from there.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) filter: Arc<Filter>,
    pub(crate) format: Format,
    pub(crate) connection: ConnectionId,
    /// Everything up to here has been delivered or was not for this subscriber.
    pub(crate) place: Cursor,
    /// What is known to be missing up to here has been told. `None` before the first page, for a start that promises nothing.
    pub(crate) told: Option<Position>,
    feeds: Vec<(Arc<Feed>, u64)>,
    /// The epoch of the feeds when this reader last looked, which is before the page that it may be waiting for is read.
    looked_in: Epoch,
    /// The log is in a later epoch than the feeds, and has been read to its end: wait until the feeds leave this epoch.
    waiting_in: Option<Epoch>,
}

/// What a reader's driver has to do.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send this event.
    Send(Bytes),
    /// Read the log from the reader's place and hand the page to [`Reader::replayed`].
    Replay,
    /// Nothing now: the waker is woken when there is more.
    Wait,
}

impl Reader {
    /// A reader at the head of the feeds: it receives what comes from now on.
    pub(crate) fn join(
        feeds: &Feeds,
        filter: Arc<Filter>,
        format: Format,
        connection: ConnectionId,
        waker: &Arc<AtomicWaker>,
    ) -> Self {
        let joined = filter.matchers.iter().map(|matcher| feeds.join(matcher, format, waker)).collect();
        let place = feeds.head();
        Self {
            filter,
            format,
            connection,
            place,
            told: Some(place.position),
            feeds: joined,
            looked_in: place.epoch,
            waiting_in: None,
        }
    }

    /// Gives the places in the feeds back.
    pub(crate) fn leave(&mut self, feeds: &Feeds) {
        for (feed, reader) in self.feeds.drain(..) {
            feeds.leave(&feed, reader);
        }
    }

    /// What follows. An event comes once, however many of the matchers it matches.
    pub(crate) fn step(&mut self, feeds: &Feeds) -> Step {
        // The head first: what it covers is in every feed, so the smallest position found is the next of all.
        let head = feeds.head();
        self.looked_in = head.epoch;
        if self.place.epoch != head.epoch {
            return if self.waiting_in == Some(head.epoch) { Step::Wait } else { Step::Replay };
        }
        self.waiting_in = None;
        loop {
            match self.peek_all(head.position) {
                Peek::Behind => return Step::Replay,
                Peek::Nothing => {
                    self.place.position = self.place.position.max(head.position);
                    return Step::Wait;
                }
                Peek::Frame(frame) => {
                    self.place.position = frame.position;
                    if frame.restricted.is_none_or(|entry| self.may_receive(&entry)) {
                        return Step::Send(frame.event);
                    }
                }
            }
        }
    }

    /// Whether an event that matches may be delivered to this subscriber.
    pub(crate) fn may_receive(&self, entry: &Entry) -> bool {
        let granted = !entry.event.private || self.filter.grants.cover_any(&entry.event.topics);
        granted && entry.event.except.as_ref() != Some(&self.connection)
    }

    /// Takes over the place that a replay has reached.
    pub(crate) fn replayed(&mut self, page: &Replayed) {
        self.place = page.place;
        self.told = page.told;
        // The page is at least as new as what the feeds were then. What they are by now may be newer than the page.
        let ahead = page.place.epoch != self.looked_in;
        self.waiting_in = (page.at_end && ahead).then_some(self.looked_in);
    }

    fn peek_all(&self, head: Position) -> Peek {
        let mut first: Option<FeedFrame> = None;
        for (feed, _) in &self.feeds {
            match feed.peek(self.place, head) {
                Peek::Behind => return Peek::Behind,
                Peek::Nothing => {}
                Peek::Frame(frame) => {
                    if first.as_ref().is_none_or(|first| frame.position < first.position) {
                        first = Some(frame);
                    }
                }
            }
        }
        first.map_or(Peek::Nothing, Peek::Frame)
    }
}
