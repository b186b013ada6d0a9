//! One subscriber of a shard: plain data, so that it could be moved to another shard with its
//! socket.

use std::{
    io,
    num::NonZeroU64,
    time::{Duration, Instant},
};

use smallvec::SmallVec;
use tidings_log::Cursor;

use super::{
    groups::{Member, Moved},
    pending::Pending,
    wire::{INPUT_BYTES_MAX, Wire},
};
use crate::{
    counts::closed::CloseReason,
    engine::Engine,
    feed::encode::{EndReason, Notice},
    feed::feed::Offset,
    feed::feeds::Feeds,
    presence::Membership,
    replay::Replayed,
    subscriber::backlog::Backlog,
    subscriber::end::End,
    subscriber::parts::Parts,
    subscriber::reader::Reader,
};

/// A subscriber that comes from HTTP.
pub(crate) struct NewSubscriber<W> {
    /// The response headers, to be sent before everything.
    pub(crate) headers: Vec<u8>,
    /// Bytes that the client has sent unasked.
    pub(crate) input_bytes: usize,
    pub(crate) parts: Parts,
    /// Dropped last, as in [`Subscriber`].
    pub(crate) wire: W,
}

pub(super) struct Subscriber<W> {
    pub(super) reader: Reader,
    /// Where in its feed the reader is, if it has one feed and that is known. Never while it has a
    /// page or waits for one.
    pub(super) offset: Option<KnownOffset>,
    /// What [`Filters`](super::filters::Filters) calls its filter.
    pub(super) filter_number: u64,
    /// Distinguishes this subscriber from those that had its slot before.
    pub(super) serial: u32,
    /// In the group of each of its feeds.
    pub(super) members: SmallVec<[Member; 2]>,
    /// When the socket last accepted something, or first accepted nothing.
    pub(super) sent_at: Instant,
    heartbeat_millis: u32,
    input_bytes: u32,
    /// The first of its ends; few have one.
    end: Option<Box<End>>,
    /// The socket accepts nothing now.
    pub(super) is_blocked: bool,
    /// In the queue of those that are visited out of turn.
    pub(super) is_queued: bool,
    pub(super) phase: Phase,
    pub(super) pending: Option<Box<Pending>>,
    pub(super) membership: Membership,
    /// Dropped last: once the connection has ended, nothing counts this subscriber any more.
    pub(super) wire: W,
}

/// An offset, of which an [`Option`] takes no more memory than the offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownOffset(NonZeroU64);

impl KnownOffset {
    pub(super) fn new(offset: Offset) -> Self {
        Self(NonZeroU64::new(!offset).expect("no feed ever has as many bytes as that"))
    }

    pub(super) fn get(self) -> Offset {
        !self.0.get()
    }
}

/// How near the end of its stream a subscriber is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Live,
    /// The client sends nothing more: the stream ends when everything due has been sent.
    InputEnded,
    /// The closing frames have been queued: nothing comes after them.
    Ending(CloseReason),
}

impl<W: Wire> Subscriber<W> {
    pub(super) fn new(
        new_subscriber: NewSubscriber<W>,
        serial: u32,
        filter_number: u64,
        members: SmallVec<[Member; 2]>,
        now: Instant,
    ) -> Self {
        let NewSubscriber { headers, input_bytes, parts, wire } = new_subscriber;
        Self {
            reader: parts.reader,
            offset: None,
            filter_number,
            serial,
            members,
            sent_at: now,
            heartbeat_millis: u32::try_from(parts.heartbeat.as_millis()).unwrap_or(u32::MAX),
            end: parts.ends.into_iter().min_by_key(|end| end.at).map(Box::new),
            input_bytes: u32::try_from(input_bytes).unwrap_or(u32::MAX),
            is_blocked: false,
            is_queued: false,
            phase: Phase::Live,
            pending: Some(Box::new(Pending::begin(headers, parts.backlog, parts.sent))),
            membership: parts.membership,
            wire,
        }
    }

    /// Whether nothing comes after what is pending.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending(_))
    }

    /// How many encoded bytes of events this subscriber lacks, at least: one that reads history lacks
    /// its page and what the feeds hold, and perhaps more of the log between them. One that can be
    /// sent to counts as having everything: it has, or is about to.
    pub(super) fn lag_bytes(&self) -> u64 {
        if !self.is_blocked && self.pending.is_none() {
            return 0;
        }
        let in_feeds: u64 = if let Some(offset) = self.offset {
            self.reader.first_feed().bytes_after_offset(offset.get())
        } else {
            let place = self.reader.live_place();
            self.reader.feeds().map(|feed| feed.bytes_after(place)).sum()
        };
        let unsent = self.pending.as_ref().map_or(0, |pending| pending.unsent_bytes());
        in_feeds + (self.wire.unsent_bytes() + unsent) as u64
    }

    /// Everything up to here has been sent.
    pub(super) fn sent(&self) -> Cursor {
        self.pending.as_ref().map_or(self.reader.place, |pending| pending.sent)
    }

    pub(super) fn pending_mut(&mut self) -> &mut Pending {
        let sent = self.reader.place;
        self.pending.get_or_insert_with(|| Box::new(Pending::new(sent)))
    }

    /// Memory that waits for a socket that accepts nothing.
    pub(super) fn blocked_bytes(&self) -> usize {
        if !self.is_blocked {
            return 0;
        }
        self.wire.unsent_bytes() + self.pending.as_ref().map_or(0, |pending| pending.bytes())
    }

    /// A page of history has come.
    pub(super) fn take_page(&mut self, page: Replayed) {
        if self.is_ending() {
            return;
        }
        let pending = self.pending_mut();
        pending.is_reading = false;
        if std::mem::take(&mut pending.is_outdated) {
            if pending.is_empty() {
                self.pending = None;
            }
            return;
        }
        let unread = self.reader.replayed(&page);
        let mut backlog = Backlog::default();
        backlog.take_page(page, unread, None);
        let pending = self.pending_mut();
        pending.take(Vec::new(), backlog);
        if pending.is_empty() {
            self.pending = None;
        }
    }

    /// Drops a page that the socket does not accept, to read it again when it does.
    pub(super) fn give_page_back(&mut self) {
        let Some(pending) = &mut self.pending else { return };
        if let Some(page) = pending.page.take() {
            self.reader.unread(pending.place_after_pieces(), page.unread);
        }
        if pending.is_empty() {
            self.pending = None;
        }
    }

    /// Moves the reader to the place from which a change of its topics counts: after what has been
    /// sent, and what has to be sent whole.
    pub(super) fn settle(&mut self, feeds: &Feeds) {
        self.give_page_back();
        if self.offset.take().is_some() {
            // Sent straight from the feed. What is left of its ephemeral events is dropped.
            self.reader.ephemeral = self.reader.ephemeral.max(self.reader.first_feed().last_ephemeral());
        }
        if let Some(pending) = &mut self.pending {
            pending.is_outdated = pending.is_reading;
            let place = pending.place_after_pieces();
            if self.reader.place.epoch == place.epoch {
                self.reader.place.position = self.reader.place.position.max(place.position);
            }
        }
        self.reader.settle(feeds);
    }

    /// The end of this stream that is known in advance, if there is one.
    pub(super) fn end(&self) -> Option<&End> {
        self.end.as_deref()
    }

    /// The announcement of its end, if it is due.
    pub(super) fn announcement(&mut self, now: Instant) -> Option<Notice> {
        self.end.as_deref_mut()?.announcement(now)
    }

    /// Why the connection is cut when its time is over, if it is not ended with a notice: nobody may
    /// stay connected beyond its credential because it reads nothing.
    pub(super) fn cut_at_its_end(&self) -> Option<EndReason> {
        let reason = self.end.as_deref().map(|end| end.reason)?;
        (self.is_blocked && !self.is_ending() && reason.is_of_credential()).then_some(reason)
    }

    /// The stream ends now. Returns the end that it would have had, if any.
    pub(super) fn end_at_once(&mut self, reason: EndReason, now: Instant) -> Option<End> {
        self.end.replace(Box::new(End::new(now, reason))).map(|end| *end)
    }

    /// Whether its end has been requested, and is yet to come.
    pub(super) fn is_to_end(&self, engine: &Engine) -> bool {
        !self.is_ending()
            && self.end.as_deref().is_none_or(|end| end.reason != EndReason::Revoked)
            && engine.endings.is_requested(&self.reader.connection)
    }

    /// Why this stream ends now, if it does.
    pub(super) fn due_end(&self, engine: &Engine, now: Instant) -> Option<EndReason> {
        if let Some(end) = self.end.as_deref().filter(|end| end.at <= now) {
            return Some(end.reason);
        }
        let now = now.into();
        let closing = &engine.closing;
        let is_due =
            closing.is_closed(now) || closing.ends_at(self.closing_share()).is_some_and(|at| at <= now);
        is_due.then_some(EndReason::Shutdown)
    }

    /// When in the time that a hub takes to close this stream ends: multiples of the golden ratio
    /// spread evenly, however many there are.
    fn closing_share(&self) -> f64 {
        const GOLDEN_RATIO: f64 = 0.618_033_988_749_894_9;
        (f64::from(self.serial) * GOLDEN_RATIO).fract()
    }

    /// The socket has accepted nothing for so long.
    pub(super) fn is_stalled(&self, now: Instant, stalled_max: Duration) -> bool {
        self.is_blocked && now.duration_since(self.sent_at) >= stalled_max
    }

    /// A heartbeat is due.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        let heartbeat = Duration::from_millis(self.heartbeat_millis.into());
        !self.is_blocked && now.duration_since(self.sent_at) >= heartbeat
    }

    /// Reads what has arrived, which is of no use: the point is to see the end. A client may send
    /// its request and shut its side: it is still sent what is due.
    pub(super) fn read_input(&mut self) -> io::Result<()> {
        let mut buffer = [0; INPUT_BYTES_MAX];
        loop {
            match self.wire.read(&mut buffer) {
                Ok(0) => {
                    if self.phase == Phase::Live {
                        self.phase = Phase::InputEnded;
                    }
                    return Ok(());
                }
                Ok(read) => {
                    let read = u32::try_from(read).unwrap_or(u32::MAX);
                    self.input_bytes = self.input_bytes.saturating_add(read);
                    if self.input_bytes as usize > INPUT_BYTES_MAX {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A member that left its group has given this one another index.
    pub(super) fn has_moved(&mut self, moved: Moved) {
        if let Some(member) = self.members.iter_mut().find(|member| member.group == moved.to.group) {
            *member = moved.to;
        }
    }
}
