//! What a subscriber is sent before anything from its feeds. An idle subscriber has none of it.

use std::{collections::VecDeque, io};

use bytes::Bytes;
use tidings_log::Cursor;

use super::wire::Wire;
use crate::{
    counts::deliveries::Delivered,
    subscriber::backlog::{Backlog, PageProgress},
};

/// See the module's documentation. Bounded by one page of history, one event and a few notices.
#[derive(Debug)]
pub(super) struct Pending {
    /// Goes first, whatever happens: response headers, notices, the rest of an event whose beginning
    /// has been sent.
    pieces: VecDeque<Piece>,
    pub(super) page: Option<PageProgress>,
    /// Everything up to here has been sent; the reader may be ahead of it by the page.
    pub(super) sent: Cursor,
    /// A page is on its way.
    pub(super) is_reading: bool,
    /// That page was requested for the topics that the subscriber had before: it is dropped.
    pub(super) is_outdated: bool,
}

/// Bytes that have to be sent whole.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    /// Where they move the subscriber to.
    place: Option<Cursor>,
    /// They end an event.
    ends_event: bool,
}

impl Pending {
    pub(super) fn new(sent: Cursor) -> Self {
        Self { pieces: VecDeque::new(), page: None, sent, is_reading: false, is_outdated: false }
    }

    /// Response headers and the frames of the hub itself, in one piece. Then the page.
    pub(super) fn begin(headers: Vec<u8>, backlog: Backlog, sent: Cursor) -> Self {
        let mut pending = Self::new(sent);
        pending.take(headers, backlog);
        pending
    }

    /// Adds a backlog after bytes that go in front of it.
    pub(super) fn take(&mut self, mut bytes: Vec<u8>, backlog: Backlog) {
        let mut place = None;
        for frame in backlog.control_frames {
            tidings_sse::chunk(&frame.bytes, &mut bytes);
            place = frame.place.or(place);
        }
        self.push(bytes.into(), place);
        self.page = backlog.page;
    }

    pub(super) fn push(&mut self, bytes: Bytes, place: Option<Cursor>) {
        if !bytes.is_empty() {
            self.pieces.push_back(Piece { bytes, place, ends_event: false });
        }
    }

    /// Adds the rest of an event whose beginning has been sent.
    pub(super) fn push_rest(&mut self, bytes: Bytes, place: Cursor) {
        self.pieces.push_back(Piece { bytes, place: Some(place), ends_event: true });
    }

    /// Memory that this holds or keeps alive.
    pub(super) fn bytes(&self) -> usize {
        let pieces: usize = self.pieces.iter().map(|piece| piece.bytes.len()).sum();
        pieces + self.page.as_ref().map_or(0, |page| page.frames.len())
    }

    /// What has not been sent.
    pub(super) fn unsent_bytes(&self) -> usize {
        let pieces: usize = self.pieces.iter().map(|piece| piece.bytes.len()).sum();
        pieces + self.page.as_ref().map_or(0, |page| page.frames.len() - page.offset)
    }

    pub(super) fn has_pieces(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// There is something to send, and not only a page on its way.
    pub(super) fn has_bytes(&self) -> bool {
        self.has_pieces() || self.page.is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.has_bytes() && !self.is_reading
    }

    /// Where the subscriber is once the pieces have been sent.
    pub(super) fn place_after_pieces(&self) -> Cursor {
        self.pieces.iter().rev().find_map(|piece| piece.place).unwrap_or(self.sent)
    }

    /// Writes the first piece; whether the socket accepted all of it.
    pub(super) fn write_piece(
        &mut self,
        wire: &mut impl Wire,
        delivered: &mut Delivered,
    ) -> io::Result<bool> {
        let Some(piece) = self.pieces.front_mut() else { return Ok(true) };
        let written = wire.write(&piece.bytes)?;
        delivered.bytes += written as u64;
        if written < piece.bytes.len() {
            drop(piece.bytes.split_to(written));
            return Ok(false);
        }
        self.sent = piece.place.unwrap_or(self.sent);
        delivered.events += u64::from(piece.ends_event);
        self.pieces.pop_front();
        Ok(true)
    }
}
