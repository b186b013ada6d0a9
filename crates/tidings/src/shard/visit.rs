//! One visit to a subscriber: at most one write of its pending bytes.

use std::{io, time::Instant};

use bytes::Bytes;
use tidings_log::Cursor;

use super::{
    filters::Filters,
    snapshot::LastSnapshot,
    subscriber::{KnownOffset, Phase, Subscriber},
    wire::Wire,
};
use crate::{
    counts::{closed::CloseReason, deliveries::Delivered},
    engine::Engine,
    feed::encode::{EndReason, Notice},
    feed::feed::Offset,
    feed::frames::{Accepted, Frames},
    feed::place::LivePlace,
    jitter::jittered_millis,
    replay::ReplayRequest,
    subscriber::reader::Step,
};

/// Most bytes that are gathered for one write where they are not contiguous.
const GATHERED_BYTES_MAX: usize = 64 * 1024;

/// The outcome of a visit.
#[derive(Debug)]
pub(super) enum Visit {
    /// There was nothing to send.
    Idle,
    /// Everything has been sent.
    Sent,
    /// Something has been sent, and there is more.
    More,
    /// The socket is full: it is visited when it is writable.
    Blocked,
    /// The subscriber is behind its feeds: it needs a page of history.
    Replay(Box<ReplayRequest>),
    /// The connection has ended.
    Gone(CloseReason),
}

/// What a shard lends to the subscriber that it visits.
pub(super) struct VisitContext<'a> {
    pub(super) engine: &'a Engine,
    pub(super) filters: &'a mut Filters,
    pub(super) snapshot: &'a mut LastSnapshot,
    pub(super) gathered: &'a mut Gathered,
    pub(super) delivered: &'a mut Delivered,
}

/// Where events are gathered that are not contiguous, and where each of them ends.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    bytes: Vec<u8>,
    ends: Vec<(usize, LivePlace)>,
}

impl<W: Wire> Subscriber<W> {
    pub(super) fn visit(&mut self, context: &mut VisitContext<'_>, now: Instant) -> Visit {
        if self.is_blocked {
            return Visit::Idle;
        }
        let result = self.wire.flush().and_then(|()| self.send_next(context, now));
        match result {
            Ok(Visit::Idle | Visit::Sent)
                if self.phase == Phase::InputEnded
                    && self.pending.is_none()
                    && self.wire.unsent_bytes() == 0 =>
            {
                self.phase = Phase::Ending(CloseReason::Client);
                self.pending_mut().push(Bytes::from_static(tidings_sse::LAST_CHUNK), None);
                Visit::More
            }
            Ok(visit @ (Visit::Idle | Visit::Gone(_))) => visit,
            Ok(visit) => {
                self.sent_at = now;
                // What the wire still has of a record goes first when the socket is writable.
                let visit = if self.wire.unsent_bytes() > 0 { Visit::Blocked } else { visit };
                self.is_blocked = matches!(visit, Visit::Blocked);
                visit
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.sent_at = now;
                self.is_blocked = true;
                Visit::Blocked
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Visit::More,
            Err(error) => Visit::Gone(CloseReason::of_io(error.kind())),
        }
    }

    /// Sends the first of what is due.
    fn send_next(&mut self, context: &mut VisitContext<'_>, now: Instant) -> io::Result<Visit> {
        match (&self.pending, self.phase) {
            (Some(pending), _) if pending.has_pieces() => return self.send_piece(context.delivered),
            (_, Phase::Ending(reason)) => {
                self.wire.shut_down();
                return Ok(Visit::Gone(reason));
            }
            _ => {}
        }
        if let Some(reason) = self.due_end(context.engine, now) {
            let millis = jittered_millis(context.engine.settings.retry_millis);
            self.queue_closing_frames(reason, millis);
            return self.send_piece(context.delivered);
        }
        if let Some(notice) = self.announcement(now) {
            self.queue_notice(&notice);
            return self.send_piece(context.delivered);
        }
        match &self.pending {
            Some(pending) if pending.page.is_some() => self.send_page(context.delivered),
            Some(pending) if pending.is_reading => Ok(Visit::Idle),
            _ => self.send_from_feeds(context),
        }
    }

    /// A sign of life for a subscriber that has received nothing else for a while.
    pub(super) fn send_heartbeat(&mut self, now: Instant, delivered: &mut Delivered) -> Visit {
        const HEARTBEAT_CHUNK: &[u8] = b"5\r\n: hb\n\r\n";
        // One that only waits for a page of history receives nothing else meanwhile.
        let has_bytes = self.pending.as_ref().is_some_and(|pending| pending.has_bytes());
        if has_bytes || self.is_ending() || !self.is_silent(now) {
            return Visit::Idle;
        }
        self.sent_at = now;
        let written = loop {
            match self.wire.write(HEARTBEAT_CHUNK) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => break written,
            }
        };
        delivered.bytes += *written.as_ref().unwrap_or(&0) as u64;
        match written {
            Ok(written) if written == HEARTBEAT_CHUNK.len() && self.wire.unsent_bytes() == 0 => Visit::Sent,
            Ok(written) => {
                if written < HEARTBEAT_CHUNK.len() {
                    self.pending_mut().push(Bytes::from_static(&HEARTBEAT_CHUNK[written..]), None);
                }
                self.is_blocked = true;
                Visit::Blocked
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_blocked = true;
                Visit::Blocked
            }
            Err(error) => Visit::Gone(CloseReason::of_io(error.kind())),
        }
    }

    fn send_piece(&mut self, delivered: &mut Delivered) -> io::Result<Visit> {
        let pending = self.pending.as_mut().expect("there is a piece");
        if !pending.write_piece(&mut self.wire, delivered)? {
            return Ok(Visit::Blocked);
        }
        let sent = pending.sent;
        if self.reader.place.epoch == sent.epoch {
            // The piece was the rest of an event from a feed.
            self.reader.place.position = self.reader.place.position.max(sent.position);
        }
        if pending.is_empty() && !matches!(self.phase, Phase::Ending(_)) {
            self.pending = None;
        }
        Ok(Visit::More)
    }

    /// The stream continues after this.
    fn queue_notice(&mut self, notice: &Notice) {
        let mut bytes = Vec::new();
        tidings_sse::chunk(&notice.encode(self.sent(), None), &mut bytes);
        self.pending_mut().push(bytes.into(), None);
    }

    /// Nothing of the stream comes after this but the end of the response.
    fn queue_closing_frames(&mut self, reason: EndReason, retry_millis: u64) {
        let sent = self.sent();
        let mut bytes = Vec::new();
        tidings_sse::chunk(&reason.notice().encode(sent, Some(retry_millis)), &mut bytes);
        bytes.extend_from_slice(tidings_sse::LAST_CHUNK);
        let pending = self.pending_mut();
        pending.page = None;
        pending.push(bytes.into(), None);
        self.phase = Phase::Ending(reason.into());
    }

    fn send_page(&mut self, delivered: &mut Delivered) -> io::Result<Visit> {
        let Self { wire, pending, .. } = self;
        let pending = pending.as_mut().expect("there is a page");
        let page = pending.page.as_mut().expect("there is a page");
        let epoch = page.epoch;
        let progress = page.frames.write_all(page.offset, |bytes| wire.write(bytes))?;
        page.offset = progress.offset;
        *delivered += progress.delivered;
        if let Some(position) = progress.position {
            pending.sent = Cursor { epoch, position };
        }
        if let Some(partial) = progress.partial {
            let rest = Frames::bytes_of(&page.frames, partial.rest);
            if page.offset == page.frames.len() {
                pending.page = None;
            }
            pending.push_rest(rest, Cursor { epoch, position: partial.position });
        } else if page.offset == page.frames.len() {
            self.pending = None;
        }
        Ok(if progress.accepted == Accepted::Part { Visit::Blocked } else { Visit::More })
    }

    fn send_from_feeds(&mut self, context: &mut VisitContext<'_>) -> io::Result<Visit> {
        if let Some(offset) = self.offset
            && let Some(visit) = self.send_from_one(offset.get(), context)?
        {
            return Ok(visit);
        }
        self.send_merged(context)
    }

    /// The way of a subscriber that reads one feed and is not behind it: straight from the feed to
    /// the socket. `None` if the feed does not reach back to this offset.
    fn send_from_one(&mut self, offset: Offset, context: &mut VisitContext<'_>) -> io::Result<Option<Visit>> {
        let Self { wire, reader, filter_number, members, .. } = self;
        let VisitContext { filters, snapshot, delivered, .. } = context;
        let Some(snapshot) = snapshot.of(members[0].group, reader.first_feed(), offset) else {
            self.offset = None;
            return Ok(None);
        };
        let may_receive =
            |audience: &_| filters.may_receive(audience, &reader.connection, &reader.filter, *filter_number);
        let Some(progress) = snapshot.send(offset, may_receive, |bytes| wire.write(bytes))? else {
            return Ok(Some(Visit::Idle));
        };
        **delivered += progress.delivered;
        self.offset = Some(KnownOffset::new(progress.offset));
        if let Some(position) = progress.position {
            self.reader.place.position = position;
        }
        if let Some((position, rest)) = progress.partial {
            let place = Cursor { position, ..self.reader.place };
            self.pending_mut().push_rest(rest, place);
        }
        Ok(Some(match (progress.accepted, progress.at_end) {
            (Accepted::Part, _) => Visit::Blocked,
            (Accepted::Nothing, true) => Visit::Idle,
            (Accepted::All, true) => Visit::Sent,
            (_, false) => Visit::More,
        }))
    }

    /// The way of all others: events of several feeds in the order of the log, and subscribers that
    /// are new or have to be sent back to the log.
    fn send_merged(&mut self, context: &mut VisitContext<'_>) -> io::Result<Visit> {
        let VisitContext { engine, gathered: Gathered { bytes, ends }, delivered, .. } = context;
        bytes.clear();
        ends.clear();
        let before = self.reader.live_place();
        let last = loop {
            match self.reader.step(&engine.feeds) {
                Step::Send(frame) => {
                    bytes.extend_from_slice(frame.chunk());
                    ends.push((bytes.len(), self.reader.live_place()));
                    if bytes.len() >= GATHERED_BYTES_MAX {
                        break Visit::More;
                    }
                }
                Step::Wait => break Visit::Sent,
                Step::Replay if bytes.is_empty() => {
                    self.pending_mut().is_reading = true;
                    return Ok(Visit::Replay(Box::new(self.reader.replay_request(&engine.feeds))));
                }
                Step::Replay => break Visit::More,
            }
        };
        if bytes.is_empty() {
            self.find_offset(engine);
            return Ok(Visit::Idle);
        }
        let written = match self.wire.write(bytes) {
            Ok(written) => written,
            Err(error) => {
                self.reader.go_back(before);
                return Err(error);
            }
        };
        delivered.bytes += written as u64;
        if written == bytes.len() {
            delivered.events += ends.len() as u64;
            self.find_offset(engine);
            return Ok(last);
        }
        // Back to the event that was cut.
        let cut = ends.partition_point(|(end, _)| *end <= written);
        delivered.events += cut as u64;
        let (begin, whole) = cut.checked_sub(1).map_or((0, before), |whole| ends[whole]);
        self.reader.go_back(whole);
        if written > begin {
            let (end, place) = ends[cut];
            // The rest of it goes next, so it is not sent again.
            self.reader.ephemeral = place.ephemeral;
            let rest = Bytes::copy_from_slice(&bytes[written..end]);
            self.pending_mut().push_rest(rest, place.log);
        }
        Ok(Visit::Blocked)
    }

    /// From here on this subscriber may be sent straight from its feed, if it has just one.
    fn find_offset(&mut self, engine: &Engine) {
        // One that begins at the end of the log may be ahead of the feeds: what is yet to be written
        // there is not for it.
        let head = engine.feeds.head().log;
        let place = self.reader.live_place();
        let is_written = head.epoch == place.log.epoch && head.position >= place.log.position;
        if self.members.len() == 1 && is_written {
            self.offset = self.reader.first_feed().locate(place).map(KnownOffset::new);
        }
    }
}
