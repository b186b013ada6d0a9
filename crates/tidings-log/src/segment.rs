//! A log in files: acknowledged events survive the end of the process and, with
//! [`SyncLevel::Always`], a loss of power.
//!
//! The log is a directory of **segments**, append-only files of checksummed records. Events are
//! numbered from 1; a segment is named after its first event. One thread writes
//! (`segment/writer.rs`): it takes all waiting batches, appends them as one group, syncs once, and
//! makes them visible to readers. Every full segment has an **index** file
//! (`segment/index_file.rs`), so that reading one topic does not read the others and memory does
//! not grow with the log. **Retention** (`segment/retention.rs`) moves a front through the log:
//! events up to it are expired at once, and their bytes are freed with their segment. **Deletions**
//! are records of the log as well (`segment/record.rs`); they and retention rules hide events in the
//! middle of the log (`segment/hiding.rs`), and **compaction** (`segment/compaction.rs`) frees their
//! bytes.
//!
//! Invariants:
//! - Readers and tails see only acknowledged events, in the order of their numbers.
//! - Within an epoch a number is never reused. If events that may have been acknowledged are lost,
//!   a new epoch begins or a gap is reported.
//! - An event whose checksum does not match is never delivered.
//! - Memory is bounded by settings, independent of the size of the log.
//! - Threads that serve connections wait for no file: what they look at is in `segment/store.rs`,
//!   and whatever reads a file runs on a thread that may block.
//!
//! Only one process at a time uses a directory. All file access goes through the trait `Disk`,
//! which tests replace.

mod acknowledged;
mod compaction;
mod deleting;
mod deletions;
pub(crate) mod disk;
mod event_reader;
mod front_file;
mod hiding;
mod home;
mod horizon;
mod index;
mod index_file;
mod maintenance;
mod new_segment;
mod open_log;
mod prepared;
mod reading;
mod record;
mod record_reader;
mod recover;
mod retention;
mod rule_retention;
mod segment_file;
mod segment_output;
mod settings;
mod small_file;
mod state_file;
mod store;
mod survey;
mod tail;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "store-tools"))]
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
    deleting::DeletionPlan,
    disk::{Disk, RealDisk},
    open_log::OpenLog,
    prepared::PreparedBatch,
    recover::OpenFailure,
    tail::SegmentTail,
    writer::Request,
};
use crate::{
    AppendError, Appended, Batch, Bounds, Clock, Cursor, Deleted, EventId, Filter, Grants, Log, LogStats,
    Page, Position, RetentionRule, Tail, Topic, Unavailable,
    draft::{Draft, Plan as ReadPlan},
    vital,
};

pub use self::settings::{SegmentSettings, SyncLevel};

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the store in {} cannot be opened: {reason}", directory.display())]
pub struct OpenError {
    directory: PathBuf,
    reason: OpenFailure,
}

impl OpenError {
    /// Whether another process uses the directory, so that a later attempt may succeed.
    pub fn is_in_use(&self) -> bool {
        matches!(self.reason, OpenFailure::InUse)
    }
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
    log: Arc<OpenLog>,
    requests: mpsc::Sender<Request>,
    /// Capacity of the queue of the writer.
    permits: Arc<Semaphore>,
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
        let permits = settings.appends_waiting_max.clamp(1, Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(permits));
        let (log, writer) = recover::open(disk, settings, clock)?;
        let notifier = writer.notifier.subscribe();
        let (requests, receiver) = mpsc::channel();
        // One wake-up is enough for everything that there is to do.
        let (wake, woken) = mpsc::sync_channel(1);
        let maintained = Arc::clone(&log);
        thread::Builder::new().name("tidings-compact".into()).spawn(move || {
            if let Err(panicked) = vital::run(|| maintenance::run(&maintained, &woken)) {
                maintained.store.note_end_of("maintenance", &panicked);
            }
        })?;
        let (written, last_notifier) = (Arc::clone(&log), writer.notifier.clone());
        thread::Builder::new().name("tidings-log".into()).spawn(move || {
            if let Err(panicked) = vital::run(|| writer.run(receiver, wake, held)) {
                written.store.note_end_of("the writer", &panicked);
            }
            // Tails end with the last of these, and then health has to report why.
            drop(last_notifier);
        })?;
        let deleting = tokio::sync::Mutex::default();
        Ok(Self(Arc::new(Handle { log, requests, permits, deleting, notifier })))
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
        let touched: Vec<_> = self.0.log.retention().touched.iter().copied().collect();
        let looked = touched.into_iter().map(|first| maintenance::compact(&self.0.log, first));
        let outcomes = looked.collect::<io::Result<Vec<_>>>()?;
        Ok(outcomes.iter().filter(|outcome| **outcome == compaction::Outcome::Compacted).count())
    }

    /// Frees what is hidden, now.
    #[cfg(test)]
    fn free(&self) {
        self.0.log.frees_segments.store(true, std::sync::atomic::Ordering::Relaxed);
        maintenance::free(&self.0.log);
    }

    /// Runs a query that may read files: at once if it can be answered from memory, otherwise on a
    /// thread that may block.
    async fn ask<T: Send + 'static>(
        &self,
        after: Position,
        question: impl Fn(&OpenLog) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let log = &self.0.log;
        if log.is_in_memory(after) {
            return question(log).map_err(|error| Unavailable(error.to_string()));
        }
        self.ask_files(question).await
    }

    /// The same, on a thread that may block.
    async fn ask_files<T: Send + 'static>(
        &self,
        question: impl Fn(&OpenLog) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let log = Arc::clone(&self.0.log);
        let front = log.store.horizon().front;
        let asked = spawn_blocking(move || {
            let answer = patiently(&log, question);
            (answer, log.store.horizon().front)
        });
        let (answer, moved_to) = asked.await.map_err(|error| Unavailable(error.to_string()))?;
        if moved_to > front {
            self.0.request(Request::Free);
        }
        answer.map_err(|error| Unavailable(error.to_string()))
    }
}

/// How often a question is asked again whose files were freed meanwhile. On a busy machine a reader
/// may be slower than compaction several times in a row.
const FREED_MAX: usize = 30;

/// A segment may be freed while it is read. Asked again, the front has passed it.
fn patiently<T>(log: &OpenLog, question: impl Fn(&OpenLog) -> io::Result<T>) -> io::Result<T> {
    let mut asked = 1;
    loop {
        match question(log) {
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
        f.debug_struct("SegmentLog").field("disk", &self.0.log.store.disk).finish_non_exhaustive()
    }
}

impl From<SegmentLog> for Arc<dyn Log> {
    fn from(log: SegmentLog) -> Self {
        Arc::new(log)
    }
}

#[async_trait]
impl Log for SegmentLog {
    async fn append_all(&self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>> {
        let count = batches.len();
        let all = |error: AppendError| vec![Err(error); count];
        let closed = || all(AppendError::Unavailable("the writer has stopped".into()));
        let too_large = |_| AppendError::Full("an event is too large for a record".into());
        let batches = batches.into_iter().map(|batch| PreparedBatch::new(batch).map_err(too_large)).collect();
        let Ok(permit) = Arc::clone(&self.0.permits).acquire_owned().await else { return closed() };
        let (answer, answered) = oneshot::channel();
        if !self.0.request(Request::Append { batches, answer, permit }) {
            return closed();
        }
        let unknown = || all(AppendError::OutcomeUnknown("the writer stopped before it answered".into()));
        answered.await.unwrap_or_else(|_| unknown())
    }

    async fn delete(&self, topic: &Topic, grants: &Grants) -> Result<Deleted, AppendError> {
        let _one_at_a_time = self.0.deleting.lock().await;
        let (topic, grants) = (topic.clone(), grants.clone());
        let looked = self.ask_files(move |log| DeletionPlan::new(log, &topic, &grants));
        let plan = looked.await.map_err(|Unavailable(reason)| AppendError::Unavailable(reason))?;
        if plan.count == 0 {
            let serial = self.0.log.store.horizon().hiding.deletions.serial;
            return Ok(Deleted { count: 0, kept: plan.kept, serial });
        }
        let (answer, answered) = oneshot::channel();
        if !self.0.request(Request::Delete { plan: Box::new(plan), answer }) {
            return Err(AppendError::Unavailable("the writer has stopped".into()));
        }
        let unknown = |_| AppendError::OutcomeUnknown("the writer stopped before it answered".into());
        answered.await.map_err(unknown)?
    }

    async fn read(&self, after: Position, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        let asked = filter.clone();
        let draft = self.ask(after, move |log| log.read(after, &ReadPlan::new(&asked), bytes_max)).await?;
        Ok(Draft::finish(draft, filter).await)
    }

    async fn last(&self, count: usize, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        let asked = filter.clone();
        let question = move |log: &OpenLog| log.last(count, &ReadPlan::new(&asked), bytes_max);
        let draft = self.ask(Position::BEFORE_ALL, question).await?;
        Ok(Draft::finish(draft, filter).await)
    }

    async fn resolve(&self, id: &EventId, grants: &Grants) -> Result<Option<Position>, Unavailable> {
        let (id, grants) = (id.clone(), grants.clone());
        self.ask(Position::BEFORE_ALL, move |log| log.resolve(&id, &grants)).await
    }

    async fn position_ago(&self, ago: Duration) -> Result<Position, Unavailable> {
        self.ask(Position::BEFORE_ALL, move |log| log.position_ago(ago)).await
    }

    async fn bounds(&self) -> Result<Bounds, Unavailable> {
        self.ask(Position::from_bytes([0xff; 16]), OpenLog::bounds).await
    }

    async fn tail(&self) -> Result<(Cursor, Box<dyn Tail>), Unavailable> {
        let notifier = self.0.notifier.clone();
        let log = Arc::clone(&self.0.log);
        let newest = log.store.acknowledged().newest;
        let cursor = log.store.cursor(newest);
        Ok((cursor, Box::new(SegmentTail::new(log, notifier, cursor))))
    }

    async fn health(&self) -> Result<(), Unavailable> {
        self.0.log.store.health()
    }

    fn stats(&self) -> Option<LogStats> {
        Some(self.0.log.store.stats())
    }
}
