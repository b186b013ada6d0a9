//! A log in files: acknowledged events survive the end of the process and, with
//! [`SyncLevel::Always`], a loss of power.
//!
//! The log is a directory of **segments**, append-only files of checksummed records. Events are
//! numbered from 1; a segment is named after its first event. One thread writes
//! (`segment/writer.rs`): it takes all waiting batches, appends them as one group, syncs once, and
//! makes them visible to readers. Every full segment has an **index** file
//! (`segment/index_file.rs`), so that reading one topic does not read the others and memory does
//! not grow with the log. **Retention** (`segment/retention.rs`) moves a front through the log:
//! events up to it are expired at once, and their bytes are freed with their segment. Deletions and
//! retention rules remove events in the middle of the log (`segment/hiding.rs`), and **compaction**
//! (`segment/compaction.rs`) frees their bytes.
//!
//! Invariants:
//! - Readers and tails see only acknowledged events, in the order of their numbers.
//! - Within an epoch a number is never reused. If events that may have been acknowledged are lost,
//!   a new epoch begins or a gap is reported.
//! - An event whose checksum does not match is never delivered.
//! - Memory is bounded by settings, independent of the size of the log.
//!
//! Only one process at a time uses a directory. All file access goes through the trait `Disk`,
//! which tests replace.

mod compaction;
mod deletion;
pub(crate) mod disk;
mod file;
mod hiding;
mod home;
mod index;
mod index_file;
mod reading;
mod record;
mod recover;
mod retention;
mod rewriting;
mod ruled;
mod scan;
mod shared;
#[cfg(test)]
mod simulated;
mod state_file;
mod tail;
#[cfg(test)]
mod tests;
pub mod tools;
mod writer;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{Semaphore, oneshot, watch},
    task::spawn_blocking,
};

use self::{
    deletion::Delete,
    disk::{Disk, RealDisk},
    shared::Shared,
    tail::SegmentTail,
    writer::{Append, Request},
};
use crate::{
    AppendError, Appended, Batch, Bounds, Clock, Cursor, Deleted, EventId, Filter, Grants, Log, MemoryLimits,
    Page, Position, RetentionRule, Tail, Topic, Unavailable,
    draft::{Draft, Plan},
    ledger::position,
    vital,
};

/// When an acknowledged event is on disk. A killed process loses nothing at any level, because the
/// operating system has the written data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncLevel {
    /// Before it is acknowledged: it survives a loss of power.
    #[default]
    Always,
    /// At most this much later: a loss of power may lose events that were acknowledged in that
    /// time, which is reported to subscribers as a gap.
    Interval(Duration),
    /// When the operating system writes it, commonly within half a minute: a loss of power may lose
    /// events of that time, which is reported to subscribers as a gap.
    Never,
}

/// The limits and the durability of a [`SegmentLog`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentSettings {
    /// When an acknowledged event is on disk. Default: before it is acknowledged.
    pub sync: SyncLevel,
    /// Most bytes of events as stored in the files. Older events expire at once; space is freed by
    /// complete segments, so the directory may be larger by one segment and the indexes. A batch
    /// that alone is larger, or larger than 256 MiB, is refused with [`AppendError::Full`]. Default
    /// 1 GiB.
    pub bytes_max: u64,
    /// Most events. A batch that alone has more is refused with [`AppendError::Full`]. Default:
    /// unlimited within the other limits.
    pub count_max: Option<u64>,
    /// Greatest age of an event by the clock. Default 7 days.
    pub age_max: Option<Duration>,
    /// Additional rules for the events of some topics; at most [`RetentionRule::COUNT_MAX`]. Events
    /// expire at once; their bytes are freed when half of their segment has expired or been
    /// deleted. Default: none.
    pub retention: Vec<RetentionRule>,
    /// For how many sets of topics the log remembers the last dropped event; see
    /// [`MemoryLimits::floors_max`]. Default 100,000.
    pub floors_max: usize,
    /// Most idempotency keys; see [`MemoryLimits::keys_max`]. They survive a restart. Default
    /// 100,000.
    pub keys_max: usize,
    /// Greatest age of an idempotency key. Default 10 minutes.
    pub keys_age_max: Duration,
    /// Size at which a segment is full, from [`SEGMENT_BYTES_MIN`](Self::SEGMENT_BYTES_MIN) to
    /// [`SEGMENT_BYTES_MAX`](Self::SEGMENT_BYTES_MAX). Default: a sixteenth of `bytes_max`, but
    /// from 1 to 64 MiB.
    pub segment_bytes: Option<u64>,
    /// Memory for the newest events, which serves live delivery. Default 8 MiB.
    pub recent_bytes_max: usize,
    /// Most batches that are queued for the writer; further calls of [`Log::append`] wait for
    /// capacity. Default 4,096.
    pub appends_waiting_max: usize,
}

impl Default for SegmentSettings {
    fn default() -> Self {
        let memory = MemoryLimits::default();
        Self {
            sync: SyncLevel::default(),
            bytes_max: 1024 * 1024 * 1024,
            count_max: None,
            age_max: Some(Duration::from_secs(7 * 24 * 60 * 60)),
            retention: Vec::new(),
            floors_max: memory.floors_max,
            keys_max: memory.keys_max,
            keys_age_max: memory.keys_age_max,
            segment_bytes: None,
            recent_bytes_max: 8 * 1024 * 1024,
            appends_waiting_max: 4096,
        }
    }
}

impl OpenError {
    /// Whether another process uses the directory, so that a later attempt may succeed.
    pub fn is_in_use(&self) -> bool {
        matches!(self.reason, OpenFailure::InUse)
    }
}

impl SegmentSettings {
    /// The smallest segment, in bytes. Each segment takes two files.
    pub const SEGMENT_BYTES_MIN: u64 = 512;
    /// The largest segment, in bytes. Offsets have 32 bits, and the last group of batches may
    /// exceed this size.
    pub const SEGMENT_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

    /// The limits of floors and keys.
    fn limits(&self) -> MemoryLimits {
        MemoryLimits {
            floors_max: self.floors_max,
            keys_max: self.keys_max,
            keys_age_max: self.keys_age_max,
            ..MemoryLimits::default()
        }
    }

    /// The size at which a segment is full.
    fn segment_bytes(&self) -> u64 {
        self.segment_bytes.unwrap_or((self.bytes_max / 16).clamp(1024 * 1024, 64 * 1024 * 1024))
    }
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the store in {} cannot be opened: {reason}", directory.display())]
pub struct OpenError {
    directory: PathBuf,
    reason: OpenFailure,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenFailure {
    #[error("another process uses it")]
    InUse,
    #[error("there are {count} retention rules; the limit is {}", RetentionRule::COUNT_MAX)]
    TooManyRules { count: usize },
    #[error(
        "segment_bytes is {segment_bytes}; it must be from {} to {}",
        SegmentSettings::SEGMENT_BYTES_MIN,
        SegmentSettings::SEGMENT_BYTES_MAX
    )]
    SegmentBytes { segment_bytes: u64 },
    #[error(
        "it was written by a later version of Tidings (format {version}); use that version, or another directory"
    )]
    Newer { version: u32 },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A log in a directory. Clones are handles to the same log.
///
/// [`close`](Self::close) it before the process ends. Dropping the last handle without closing does
/// not wait: the queued batches are still written and the log is closed cleanly in the background;
/// then tails end, and the directory can be opened again.
///
/// ```
/// use tidings_log::{Batch, Clock, Filter, Log, Position, SegmentLog, SegmentSettings};
/// use tidings_topic::{NewEvent, Validator};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// let log = SegmentLog::open(directory, SegmentSettings::default(), Clock::system())?;
/// let event = Validator::default().event(NewEvent::new("chat", "hello"))?;
/// log.append(Batch { events: vec![event], key: None }).await?;
/// log.close().await;
///
/// let log = SegmentLog::open(directory, SegmentSettings::default(), Clock::system())?;
/// let page = log.read(Position::BEFORE_ALL, &Filter::everything_public(), 64 * 1024).await?;
/// assert_eq!(page.entries[0].event.data, "hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SegmentLog(Arc<Handle>);

/// What is held while a log is open.
pub(crate) type Held = Box<dyn fmt::Debug + Send + Sync>;

/// What all handles share. When it is dropped nobody can ask the writer for anything any more, and
/// that closes the log.
struct Handle {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    places: Arc<Semaphore>,
    /// One deletion at a time: each counts what the others have left.
    deleting: tokio::sync::Mutex<()>,
    notifier: watch::Receiver<()>,
}

impl SegmentLog {
    /// Opens the log in a directory, which is created if it does not exist. Reads files, and blocks
    /// the thread meanwhile.
    pub fn open(directory: &Path, settings: SegmentSettings, clock: Clock) -> Result<Self, OpenError> {
        let open = || {
            let (disk, lock) = RealDisk::open(directory).map_err(|error| match error.kind() {
                io::ErrorKind::ResourceBusy => OpenFailure::InUse,
                _ => OpenFailure::Io(error),
            })?;
            disk.tighten(recover::is_of_a_log);
            Self::open_on(Arc::new(disk), Box::new(lock), settings, clock)
        };
        open().map_err(|reason| OpenError { directory: directory.to_owned(), reason })
    }

    pub(crate) fn open_on(
        disk: Arc<dyn Disk>,
        held: Held,
        settings: SegmentSettings,
        clock: Clock,
    ) -> Result<Self, OpenFailure> {
        if settings.retention.len() > RetentionRule::COUNT_MAX {
            return Err(OpenFailure::TooManyRules { count: settings.retention.len() });
        }
        let segment_bytes = settings.segment_bytes();
        let possible = SegmentSettings::SEGMENT_BYTES_MIN..=SegmentSettings::SEGMENT_BYTES_MAX;
        if !possible.contains(&segment_bytes) {
            return Err(OpenFailure::SegmentBytes { segment_bytes });
        }
        let places = Arc::new(Semaphore::new(settings.appends_waiting_max.clamp(1, Semaphore::MAX_PERMITS)));
        let (shared, writer) = recover::open(disk, settings, clock)?;
        let notifier = writer.notifier.subscribe();
        let (requests, receiver) = mpsc::channel();
        let (is_open, closed) = mpsc::channel();
        let compacted = Arc::clone(&shared);
        thread::Builder::new().name("tidings-compact".into()).spawn(move || {
            if let Err(panicked) = vital::run(|| compaction::run(&compacted, &closed)) {
                compacted.note_end_of("compaction", &panicked);
            }
        })?;
        let (written, last_notifier) = (Arc::clone(&shared), writer.notifier.clone());
        thread::Builder::new().name("tidings-log".into()).spawn(move || {
            if let Err(panicked) = vital::run(|| writer.run(receiver, (is_open, held))) {
                written.note_end_of("the writer", &panicked);
            }
            // Tails end with the last of these, and then health has to know why.
            drop(last_notifier);
        })?;
        let deleting = tokio::sync::Mutex::default();
        Ok(Self(Arc::new(Handle { shared, requests, places, deleting, notifier })))
    }

    /// Closes the log cleanly, even if other handles exist: writes the queued batches, syncs all
    /// files, and releases the directory. Afterwards appends fail, and tails yield the remaining
    /// entries and end; events can be read as long as no other process opens the directory.
    pub async fn close(&self) {
        let (closed, is_closed) = oneshot::channel();
        if self.0.request(Request::Close(closed)) {
            // Without an answer it has been closed already.
            let _ = is_closed.await;
        }
    }

    /// Compacts what is due, now.
    #[cfg(test)]
    fn compact(&self) -> io::Result<usize> {
        let looked =
            self.0.shared.touched().into_iter().map(|first| compaction::look_at(&self.0.shared, first));
        let outcomes = looked.collect::<io::Result<Vec<_>>>()?;
        Ok(outcomes.iter().filter(|outcome| **outcome == compaction::Outcome::Compacted).count())
    }

    /// Runs a query that may read files: at once if it can be answered from memory, otherwise on a
    /// thread that may block.
    async fn ask<T: Send + 'static>(
        &self,
        after: Position,
        question: impl Fn(&Shared) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let shared = &self.0.shared;
        let answer = if shared.is_in_memory(after) {
            question(shared)
        } else {
            let shared = Arc::clone(shared);
            let front = shared.retention().front;
            let asked = spawn_blocking(move || {
                let answer = patiently(&shared, question);
                (answer, shared.retention().front)
            });
            let (answer, moved_to) = asked.await.map_err(|error| Unavailable(error.to_string()))?;
            if moved_to > front {
                self.0.request(Request::Free);
            }
            answer
        };
        answer.map_err(|error| Unavailable(error.to_string()))
    }
}

/// How often a question is asked again whose files were freed meanwhile.
const FREED_MAX: usize = 3;

/// A segment may be freed while it is read. Asked again, the front has passed it.
fn patiently<T>(shared: &Shared, question: impl Fn(&Shared) -> io::Result<T>) -> io::Result<T> {
    let mut asked = 1;
    loop {
        match question(shared) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && asked < FREED_MAX => asked += 1,
            answer => return answer,
        }
    }
}

impl Handle {
    fn request(&self, request: Request) -> bool {
        self.requests.send(request).is_ok()
    }
}

impl fmt::Debug for SegmentLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentLog").field("disk", &self.0.shared.disk).finish_non_exhaustive()
    }
}

#[async_trait]
impl Log for SegmentLog {
    async fn append_all(&self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>> {
        let count = batches.len();
        let all = |error: AppendError| vec![Err(error); count];
        let closed = || all(AppendError::Unavailable("the writer has stopped".into()));
        let Ok(place) = Arc::clone(&self.0.places).acquire_owned().await else { return closed() };
        let (answer, answered) = oneshot::channel();
        if !self.0.request(Request::Append(Append { batches, answer, place })) {
            return closed();
        }
        let unknown = || all(AppendError::OutcomeUnknown("the writer stopped before it answered".into()));
        answered.await.unwrap_or_else(|_| unknown())
    }

    async fn delete(&self, topic: &Topic, grants: &Grants) -> Result<Deleted, AppendError> {
        let _turn = self.0.deleting.lock().await;
        let (shared, topic, grants) = (Arc::clone(&self.0.shared), topic.clone(), grants.clone());
        let look = move || patiently(&shared, |shared| shared.taken_with(&topic, &grants));
        let looked = spawn_blocking(look).await;
        let unavailable = |error: String| AppendError::Unavailable(error);
        let taken = looked
            .map_err(|error| unavailable(error.to_string()))?
            .map_err(|error| unavailable(error.to_string()))?;
        if taken.count == 0 {
            let serial = self.0.shared.state().hiding.deletions.serial;
            return Ok(Deleted { count: 0, kept: taken.kept, serial });
        }
        let (answer, answered) = oneshot::channel();
        if !self.0.request(Request::Delete(Delete { taken, answer })) {
            return Err(unavailable("the writer has stopped".into()));
        }
        let unknown = |_| AppendError::OutcomeUnknown("the writer stopped before it answered".into());
        answered.await.map_err(unknown)?
    }

    async fn read(&self, after: Position, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        let asked = filter.clone();
        let draft = self.ask(after, move |shared| shared.read(after, &Plan::new(&asked), bytes_max)).await?;
        Ok(Draft::finish(draft, filter).await)
    }

    async fn last(&self, count: usize, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        let asked = filter.clone();
        let question = move |shared: &Shared| shared.last(count, &Plan::new(&asked), bytes_max);
        let draft = self.ask(Position::BEFORE_ALL, question).await?;
        Ok(Draft::finish(draft, filter).await)
    }

    async fn resolve(&self, id: &EventId, grants: &Grants) -> Result<Option<Position>, Unavailable> {
        let (id, grants) = (id.clone(), grants.clone());
        self.ask(Position::BEFORE_ALL, move |shared| shared.resolve(&id, &grants)).await
    }

    async fn position_ago(&self, ago: Duration) -> Result<Position, Unavailable> {
        self.ask(Position::BEFORE_ALL, move |shared| shared.position_ago(ago)).await
    }

    async fn bounds(&self) -> Result<Bounds, Unavailable> {
        self.ask(Position::from_bytes([0xff; 16]), Shared::bounds).await
    }

    async fn tail(&self) -> Result<(Cursor, Box<dyn Tail>), Unavailable> {
        let notifier = self.0.notifier.clone();
        let shared = Arc::clone(&self.0.shared);
        let newest = shared.state().newest;
        let cursor = Cursor { epoch: shared.epochs.current().epoch, position: position(newest) };
        Ok((cursor, Box::new(SegmentTail::new(shared, notifier, cursor))))
    }

    async fn health(&self) -> Result<(), Unavailable> {
        self.0.shared.health()
    }
}
