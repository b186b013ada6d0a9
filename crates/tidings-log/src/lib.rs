//! The log behind a hub: one ordered sequence of events, the source of everything that subscribers
//! receive.
//!
//! [`Log`] is the interface between the hub and its store: memory, segment files, Redis Streams or
//! JetStream. Every implementation passes the conformance suite of `tidings-log-conformance`.
//!
//! Every log guarantees:
//! - **One order.** Positions grow with each append, every reader sees the same order, and
//!   [`Log::read`] and [`Log::tail`] agree on it.
//! - **All or nothing.** A [`Batch`] is appended completely, at consecutive positions, or not at
//!   all. Batches of one call are independent: each has an outcome of its own.
//! - **Acknowledged means kept.** The next read finds what [`Log::append_all`] acknowledged, until
//!   retention, a deletion or an epoch change removes it.
//! - **No silent loss.** Retention and deletions raise a floor ([`Page::floor`]); a crash or a
//!   failover that loses events starts a new [`Epoch`].

mod clock;
pub mod cluster;
pub mod codec;
mod draft;
mod epochs;
pub mod histogram;
mod ledger;
mod limits;
mod lock;
mod memory;
mod numbers;
mod pace;
pub mod parts;
#[cfg(unix)]
mod rules;
#[cfg(unix)]
pub mod segment;
mod stats;
pub mod vital;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
pub use tidings_topic::{Cursor, Epoch, Event, EventId, Filter, Grants, Position, Topic};

pub use clock::{Clock, Timestamp};
pub use epochs::{EpochStart, Epochs, Located};
pub use limits::MemoryLimits;
pub use memory::MemoryLog;
#[cfg(unix)]
pub use rules::RetentionRule;
#[cfg(unix)]
pub use segment::{SegmentLog, SegmentSettings, SyncLevel};
pub use stats::LogStats;

/// An event as it is stored in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The log that it was appended to, and its position there.
    pub cursor: Cursor,
    /// When it was appended. For display and for `since=10m`; the order of events never depends on
    /// it.
    pub time: Timestamp,
    /// The id that subscribers see: the publisher's own, or the id generated from
    /// [`cursor`](Self::cursor).
    pub id: EventId,
    /// What was published.
    pub event: Event,
}

impl Entry {
    /// An entry at its position in the log.
    pub fn new(cursor: Cursor, time: Timestamp, event: Event) -> Self {
        let id = event.id.clone().unwrap_or_else(|| cursor.to_event_id());
        Self { cursor, time, id, event }
    }

    /// The approximate memory of this entry, in bytes, for limits.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() - size_of::<Event>() + self.event.memory_bytes() + self.id.as_str().len()
    }
}

/// Events that are appended together or not at all.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The events, in order; at least one.
    pub events: Vec<Event>,
    /// A batch whose key is still in the log's window appends nothing.
    pub key: Option<IdempotencyKey>,
}

/// A publisher's name for one batch, which makes it safe to send the batch again.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    /// Longest key, in bytes.
    pub const BYTES_MAX: usize = 255;

    /// A key of 1 to 255 visible ASCII characters; `None` for anything else.
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

/// The outcome of an append.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Appended {
    /// The batch is in the log, as durably as the log guarantees.
    New {
        /// The id of each event, in order.
        ids: Vec<EventId>,
        /// The cursor of the last event.
        last: Cursor,
    },
    /// A batch with this key was appended before; nothing was appended now.
    Duplicate {
        /// The id of the first event of that batch.
        first_id: EventId,
    },
}

/// The outcome of a deletion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deleted {
    /// How many events it deleted.
    pub count: u64,
    /// How many events of the topic were kept because they also have a topic that the grants do not
    /// cover.
    pub kept: u64,
    /// The serial number of the newest deletion, which is this one if it deleted anything. Serial
    /// numbers grow; [`TailItem::Deleted`] refers to them.
    pub serial: u64,
}

/// Why a batch, or a deletion, was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The log has no capacity for the batch: nothing was appended. HTTP answers 507.
    #[error("the log is full: {0}")]
    Full(String),
    /// The log is unreachable or does not accept appends now: nothing was appended. HTTP answers
    /// 503.
    #[error("the log is unavailable: {0}")]
    Unavailable(String),
    /// The storage of the log was moved, replaced or deleted since the log was opened: nothing was
    /// appended. HTTP answers 503 with this reason.
    #[error("{0}")]
    Displaced(String),
    /// The batch may or may not have been appended. Sending it again with the same idempotency key
    /// is safe. HTTP answers 503.
    #[error("whether the event was stored is unknown: {0}")]
    OutcomeUnknown(String),
}

/// The log cannot answer now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the log is unavailable: {0}")]
pub struct Unavailable(pub String);

/// A range of the log, filtered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// The epoch in which this page was read, the newest that the log has.
    pub epoch: Epoch,
    /// Where this page begins: it contains every accepted entry between here and
    /// [`through`](Self::through). The requested position, or for [`Log::last`] the position right
    /// before the first entry.
    pub after: Position,
    /// Entries that the filter accepts, in order.
    pub entries: Vec<Arc<Entry>>,
    /// The log was read up to and including this position: continue from here. Never before the
    /// requested position.
    pub through: Position,
    /// Whether `through` was the end of the log at the time of reading.
    pub at_end: bool,
    /// The newest event after the requested position that the log no longer has and that the filter
    /// would have accepted: a reader at that position has missed it. If the log no longer knows the
    /// topics of the events that it dropped, this is the newest one that the filter might have
    /// accepted. For [`Log::last`] every position counts.
    pub floor: Option<Position>,
}

/// The range of positions in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// The epochs that the log knows, oldest first; the last is the current one.
    pub epochs: Epochs,
    /// The oldest event in the log.
    pub oldest: Option<Position>,
    /// The end of the log: the newest acknowledged event, even if it was dropped since, or the
    /// start of the current epoch.
    pub newest: Position,
    /// The limit of the log in bytes, if it has one.
    pub retention_bytes: Option<u64>,
}

impl Bounds {
    /// The end of the log.
    pub fn newest_cursor(&self) -> Cursor {
        Cursor { epoch: self.epochs.current().epoch, position: self.newest }
    }
}

/// An item that a [`Tail`] yields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TailItem {
    /// Acknowledged entries, in order and without a hole after the previous item; at least one.
    Entries(Vec<Arc<Entry>>),
    /// Entries up to here were dropped or deleted before this tail read them. The tail continues
    /// after them.
    Skipped {
        /// The last dropped position.
        through: Position,
    },
    /// Events that this tail may have yielded were deleted: the reader must discard its copies of
    /// them. This item comes before entries that were appended after the deletion.
    Deleted {
        /// The serial number of the newest [deletion](Deleted::serial).
        serial: u64,
    },
    /// The log starts a new epoch: entries beyond `after` are no longer in it. The tail continues
    /// after `after`.
    NewEpoch(EpochStart),
}

/// The live end of a log. It survives outages: while the log is unreachable, [`next`](Self::next)
/// waits.
#[async_trait]
pub trait Tail: Send {
    /// The next item, of about `bytes_max` at most (but at least one entry). Waits until there is
    /// one. Cancel safe: the next call returns an item that was not returned before. `None` once
    /// the log is closed.
    async fn next(&mut self, bytes_max: usize) -> Option<TailItem>;
}

/// An ordered, bounded log of events. See the [crate documentation](crate) for the guarantees of
/// every implementation.
#[async_trait]
pub trait Log: Send + Sync + fmt::Debug + 'static {
    /// Appends batches of several publishers with as little work as one takes: one sync, one call,
    /// one message. Each batch is appended all or nothing, and has an outcome of its own, returned in
    /// the order of the batches. Of two batches with one key the second is a repeat. The log may put
    /// them in any order. Cancelling the future leaves all outcomes unknown.
    async fn append_all(&self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>>;

    /// Appends one batch.
    async fn append(&self, batch: Batch) -> Result<Appended, AppendError> {
        self.append_all(vec![batch]).await.pop().expect("one batch, one outcome")
    }

    /// Appends one batch at once, if this log never waits: then nothing is gained by appending
    /// several together. Other logs return the batch.
    fn append_now(&self, batch: Batch) -> Result<Result<Appended, AppendError>, Batch> {
        Err(batch)
    }

    /// Deletes every event that has this topic, canonical or alternate, and all of whose topics
    /// these grants cover. From then on no call finds these events, not even by id, and the floor
    /// reports them to readers that missed them. A deletion is as durable as an append. Idempotency
    /// keys stay in effect: sending a deleted batch again is still a repeat. Cancelling the future
    /// leaves the outcome unknown; deleting again is safe.
    async fn delete(&self, topic: &Topic, grants: &Grants) -> Result<Deleted, AppendError>;

    /// Reads the entries after a position of the current epoch that the filter accepts. Reads about
    /// `bytes_max` bytes of the log (but at least one entry), so that the work of a call is bounded
    /// for every filter. A position beyond the end yields an empty page at the end of the log.
    async fn read(&self, after: Position, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable>;

    /// The newest `count` accepted entries, in log order, among about the newest `bytes_max` bytes
    /// of the log. `through` is the end of the log; reading after `after` yields these entries and
    /// those that follow.
    async fn last(&self, count: usize, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable>;

    /// The position of the oldest event in the log with this id that is public or covered by these
    /// grants. Generated ids contain their cursor ([`Cursor::parse`]) and are not looked up here.
    async fn resolve(&self, id: &EventId, grants: &Grants) -> Result<Option<Position>, Unavailable>;

    /// The position of the last event that was appended more than `ago` before now: reading after
    /// it yields everything since then. [`Position::BEFORE_ALL`] if there is none.
    async fn position_ago(&self, ago: Duration) -> Result<Position, Unavailable>;

    /// The range of positions in the log.
    async fn bounds(&self) -> Result<Bounds, Unavailable>;

    /// Opens a tail, which yields everything after the returned cursor.
    async fn tail(&self) -> Result<(Cursor, Box<dyn Tail>), Unavailable>;

    /// Whether the log accepts appends and answers reads. Readiness probes call this.
    async fn health(&self) -> Result<(), Unavailable>;

    /// How many entries this process has read and rejected because no hub can have written them,
    /// such as events of a type that is reserved for notices. They are not delivered. Only logs
    /// that other programs can write to contain such entries.
    fn rejected_count(&self) -> u64 {
        0
    }

    /// What this process knows of the log, for metrics: asks nobody and reads no file, so that it
    /// can be called for each scrape, whatever the store does. `None` from a log that knows nothing.
    fn stats(&self) -> Option<LogStats> {
        None
    }
}
