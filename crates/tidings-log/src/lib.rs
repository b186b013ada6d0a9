//! The log behind a hub: one ordered sequence of events, out of which everything that a subscriber sees comes.
//!
//! [`Log`] is replay-to-live between the hub and whatever keeps events: memory, segment files, Redis Streams, JetStream. One
//! [conformance suite](mod@conformance) holds for all of them.
//!
//! What every log promises:
//! - **One order.** Positions grow with each append, every reader sees the same order, and [`Log::read`] and [`Log::tail`] agree on it.
//! - **All or nothing.** A [`Batch`] is appended whole, at consecutive places, or not at all.
//! - **Acknowledged means kept.** What [`Log::append`] acknowledged is found by the next read, until retention or an epoch change takes it.
//! - **No silent loss.** What retention or a deletion takes is accounted for in a floor ([`Page::floor`]); what a crash or a failover takes
//!   starts a new [`Epoch`].

mod clock;
pub mod cluster;
pub mod conformance;
mod delayed;
mod draft;
mod epochs;
mod ledger;
mod memory;
mod pace;
pub mod parts;
#[cfg(unix)]
mod rules;
#[cfg(unix)]
pub mod segment;
pub mod vital;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
pub use tidings_topic::{Cursor, Epoch, Event, EventId, Filter, Grants, Position, Topic};

pub use clock::{Clock, Timestamp};
pub use delayed::{DelayedLog, Faults};
pub use epochs::{EpochStart, Epochs, Located};
pub use memory::{MemoryLimits, MemoryLog};
#[cfg(unix)]
pub use rules::RetentionRule;
#[cfg(unix)]
pub use segment::{SegmentLog, SegmentSettings, SyncLevel};

/// An event as it stands in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The log that it was appended to, and its place there.
    pub cursor: Cursor,
    /// When it was appended. For people and for `since=10m`; order never depends on it.
    pub time: Timestamp,
    /// The id that subscribers see: the publisher's own, or the generated one of [`cursor`](Self::cursor).
    pub id: EventId,
    /// What was published.
    pub event: Event,
}

impl Entry {
    /// An entry at its place in the log.
    pub fn new(cursor: Cursor, time: Timestamp, event: Event) -> Self {
        let id = event.id.clone().unwrap_or_else(|| cursor.to_event_id());
        Self { cursor, time, id, event }
    }

    /// The memory that this entry holds, in bytes, near enough for limits.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() - size_of::<Event>() + self.event.memory_bytes() + self.id.as_str().len()
    }
}

/// Events that are appended together or not at all.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The events, in order; at least one.
    pub events: Vec<Event>,
    /// A repeat of this key within the log's window appends nothing.
    pub key: Option<IdempotencyKey>,
}

/// A publisher's name for one batch, so that it can be sent again without being published twice.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    /// Longest key, in bytes.
    pub const BYTES_MAX: usize = 255;

    /// 1 to 255 visible ASCII characters; anything else is `None`.
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=Self::BYTES_MAX).contains(&text.len());
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        (fits && visible).then(|| Self(text.into()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What became of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Appended {
    /// It is in the log, as durably as the log promises.
    New {
        /// The id of each event, in order.
        ids: Vec<EventId>,
        /// The place of the last one.
        last: Cursor,
    },
    /// A batch with this key was appended before; nothing was appended now.
    Duplicate {
        /// The id of the first event of that batch.
        first_id: EventId,
    },
}

/// What a deletion did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deleted {
    /// How many events it hid.
    pub count: u64,
    /// How many events of the topic stay, because they also bear a topic that the grants do not cover.
    pub kept: u64,
    /// The number of the newest deletion, this one if it hid anything. They grow; [`TailItem::Deleted`] names them.
    pub serial: u64,
}

/// Why a batch, or a deletion, was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// There is no room and the log does not make any: nothing was appended. HTTP answers 507.
    #[error("the log is full: {0}")]
    Full(String),
    /// The log cannot be reached or does not accept now: nothing was appended. HTTP answers 503.
    #[error("the log is unavailable: {0}")]
    Unavailable(String),
    /// What the log is kept in is not where it was when the log was opened: nothing was appended. HTTP answers 503, and says what happened.
    #[error("{0}")]
    Displaced(String),
    /// It may or may not have been appended; sending it again with the same idempotency key settles it. HTTP answers 503.
    #[error("whether the event was stored is unknown: {0}")]
    OutcomeUnknown(String),
}

/// The log cannot answer now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the log is unavailable: {0}")]
pub struct Unavailable(pub String);

/// A stretch of the log, filtered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// The epoch in which this page was read, the newest that the log has.
    pub epoch: Epoch,
    /// Where this page begins: nothing that it leaves out lies between here and [`through`](Self::through). What was asked for, or of
    /// [`Log::last`] a place right before the first entry.
    pub after: Position,
    /// Entries that the filter accepts, in order.
    pub entries: Vec<Arc<Entry>>,
    /// Everything up to and including this position has been considered: go on from here. Never before the position that was asked for.
    pub through: Position,
    /// Whether `through` was the end of the log at the time of reading.
    pub at_end: bool,
    /// The newest event that the log no longer has, that lies after the position that was asked for and that the filter would have
    /// accepted: a reader who stands at that position has missed it. Where the log cannot tell any more, it names the newest that may have
    /// been. For [`Log::last`] every position counts.
    pub floor: Option<Position>,
}

/// How far the log reaches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// The epochs that the log knows, oldest first; the last is the current one.
    pub epochs: Epochs,
    /// The oldest event that is kept.
    pub oldest: Option<Position>,
    /// The end of the log: the newest acknowledged event, kept or not, or where the current epoch began.
    pub newest: Position,
    /// What the log keeps at most, in bytes, if it is bounded by them.
    pub retention_bytes: Option<u64>,
}

impl Bounds {
    /// The end of the log.
    pub fn newest_cursor(&self) -> Cursor {
        Cursor { epoch: self.epochs.current().epoch, position: self.newest }
    }
}

/// What a [`Tail`] brings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TailItem {
    /// Acknowledged entries, in order, following on what came before without a hole; at least one.
    Entries(Vec<Arc<Entry>>),
    /// Entries up to here were dropped or deleted before this tail read them. It goes on behind them.
    Skipped {
        /// The last dropped position.
        through: Position,
    },
    /// Events were deleted that this tail may have brought: the one that keeps copies of what it brought gives them up. It comes before whatever
    /// was appended after the deletion.
    Deleted {
        /// The newest [deletion](Deleted::serial) that is reported.
        serial: u64,
    },
    /// The log starts a new epoch: what was read beyond `after` is not in it any more. It goes on after `after`.
    NewEpoch(EpochStart),
}

/// The live end of a log. It outlives outages: while the log is away, [`next`](Self::next) waits.
#[async_trait]
pub trait Tail: Send {
    /// The next item, of about `bytes_max` at most (at least one entry). Waits until there is one. Cancel safe: an item that was not returned
    /// comes again. `None` once the log is closed for good.
    async fn next(&mut self, bytes_max: usize) -> Option<TailItem>;
}

/// An ordered, bounded log of events. See the [crate documentation](crate) for what each implementation promises.
#[async_trait]
pub trait Log: Send + Sync + fmt::Debug + 'static {
    /// Appends a batch, all or nothing. Cancelling the future leaves the outcome unknown.
    async fn append(&self, batch: Batch) -> Result<Appended, AppendError>;

    /// Deletes every event that bears this topic, as its first or as another, and of which these grants cover all topics: from now on no call finds one,
    /// not by its id either, and the floor tells those who have missed them. It is as durable as an append. Idempotency keys keep their
    /// meaning: to send a deleted batch again is still a repeat. Cancelling the future leaves the outcome unknown; deleting again settles it.
    async fn delete(&self, topic: &Topic, grants: &Grants) -> Result<Deleted, AppendError>;

    /// Reads accepted entries after a position of the current epoch, looking at about `bytes_max` bytes of the log (at least one entry), so that one
    /// call is bounded whatever the filter. A position beyond the end yields an empty page at the end of the log.
    async fn read(&self, after: Position, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable>;

    /// The newest `count` accepted entries, in log order, of the newest `bytes_max` bytes or so of the log. `through` is the end of the
    /// log; reading after `after` yields these entries and whatever follows them.
    async fn last(&self, count: usize, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable>;

    /// The place of the oldest kept event with this id that these grants may see: public, or private and covered. Generated ids are places
    /// already ([`Cursor::parse`]); they are not looked up here.
    async fn resolve(&self, id: &EventId, grants: &Grants) -> Result<Option<Position>, Unavailable>;

    /// The last position that was appended more than `ago` before now: reading after it yields everything since. [`Position::BEFORE_ALL`] if there is
    /// none.
    async fn position_ago(&self, ago: Duration) -> Result<Position, Unavailable>;

    /// How far the log reaches.
    async fn bounds(&self) -> Result<Bounds, Unavailable>;

    /// The live end, from now on: everything after the returned cursor.
    async fn tail(&self) -> Result<(Cursor, Box<dyn Tail>), Unavailable>;

    /// Whether the log accepts appends and answers reads: readiness probes ask this.
    async fn health(&self) -> Result<(), Unavailable>;

    /// How often this process has read something in the log that no hub can have written, such as an event of a type that is reserved for notices. It is not
    /// delivered. Only a log that others can write to has such things.
    fn rejected_count(&self) -> u64 {
        0
    }
}
