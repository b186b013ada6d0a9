//! Places in the feeds.
//!
//! A feed is a cache of the log by position, and holds ephemeral events besides, which have no
//! position of their own. They are **numbered** instead, in the order in which this hub writes
//! them, from 1 on and for as long as the hub runs. An ephemeral event is at the position of the
//! newest entry that was written before it, and comes after that entry.

use tidings_log::{Cursor, Position};

/// Where a frame is among all that a hub writes. The order of these is that of delivery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct FrameKey {
    /// Of the entry, or of the newest entry before an ephemeral event.
    pub(crate) position: Position,
    /// The number of an ephemeral event. 0 for an entry of the log.
    pub(crate) ephemeral: u64,
}

/// How far the feeds of a hub have been written, or a reader has read them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LivePlace {
    /// Up to this entry of the log,
    pub(crate) log: Cursor,
    /// and up to the ephemeral event with this number. The ones before it count as read wherever
    /// they are, since nobody receives an ephemeral event later than others do.
    pub(crate) ephemeral: u64,
}

impl LivePlace {
    /// The key of the newest frame up to here.
    pub(crate) fn key(self) -> FrameKey {
        FrameKey { position: self.log.position, ephemeral: self.ephemeral }
    }

    /// Whether a frame comes after this.
    pub(crate) fn is_before(self, frame: FrameKey) -> bool {
        frame > self.key() && (frame.ephemeral == 0 || frame.ephemeral > self.ephemeral)
    }
}

impl From<Cursor> for LivePlace {
    /// Before all ephemeral events.
    fn from(log: Cursor) -> Self {
        Self { log, ephemeral: 0 }
    }
}
