//! The writer thread.
//!
//! It takes all waiting batches, writes them as one group with one call, syncs according to the
//! [`SyncLevel`], and only then makes the entries visible and acknowledges them. One sync therefore
//! serves all batches that arrived during the previous one, and no reader sees an event that is not
//! acknowledged. A deletion is the last record of its group. What does not depend on the place of
//! an event in the log was computed before (`prepared.rs`); what may take long and concerns no
//! publisher is left to maintenance.
//!
//! Invariants: the file of the last segment is valid up to `bytes`, which readers know; data beyond
//! it is ignored. A file whose sync failed is never written again: the operating system may have
//! dropped the data that it could not write, and reports that only once. The log then continues in
//! a new segment, and the outcome of the failed group is unknown to its publishers.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use tidings_topic::Cursor;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::{
    deleting::DeletionPlan,
    deletions::Deletion,
    disk::{DiskFile, TEMPORARY},
    home::Displaced,
    index::{IndexedDeletion, IndexedEvent},
    maintenance,
    new_segment::NewSegment,
    open_log::OpenLog,
    prepared::{PreparedBatch, PreparedEvent},
    record::{Body, Commit, DeletionRecord, Record, encode},
    retention::WrittenDeletion,
    segment_file::Segment,
    settings::{SegmentSettings, SyncLevel},
    small_file::SmallFile,
    state_file::LogState,
    store::Store,
};
use crate::{
    AppendError, Appended, Deleted, Entry, IdempotencyKey, Timestamp, ledger::keys::KnownKey, lock::lock,
    numbers::position,
};

/// Bytes after which a group takes no further batch.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The largest batch, in bytes of its records, whatever the log may keep.
const BATCH_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How long it takes until a disk that refused is tried again without a request.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is checked that the directory still is where it was opened.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The file with which a disk is tried.
pub(super) const PROBE_NAME: &str = "probe";
/// What has to fit on a disk for it not to be full any more.
const PROBE_BYTES: usize = 64 * 1024;

type AppendOutcome = Result<Appended, AppendError>;
type DeleteOutcome = Result<Deleted, AppendError>;

/// What the writer is asked.
#[derive(Debug)]
pub(super) enum Request {
    /// Batches of one call.
    Append {
        batches: Vec<Result<PreparedBatch, AppendError>>,
        answer: oneshot::Sender<Vec<AppendOutcome>>,
        /// Capacity of the queue, given back with the answer.
        permit: OwnedSemaphorePermit,
    },
    /// A deletion that was looked up.
    Delete { plan: Box<DeletionPlan>, answer: oneshot::Sender<DeleteOutcome> },
    /// Retention has hidden something: look whether there is a segment to free.
    Free,
    /// Close the log, and confirm it.
    Close(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) log: Arc<OpenLog>,
    pub(super) segment: Arc<Segment>,
    pub(super) file: Arc<dyn DiskFile>,
    /// The bytes of the file that are valid.
    pub(super) bytes: u64,
    pub(super) newest: u64,
    /// Everything up to here is on disk.
    pub(super) synced_through: u64,
    /// Since when something is not.
    pub(super) unsynced_since: Option<Instant>,
    /// The file must not be written again.
    pub(super) broken: bool,
    /// When it was last checked that the directory is in its place, and whether it was not.
    pub(super) checked_at: Timestamp,
    pub(super) is_displaced: bool,
    pub(super) state: LogState,
    /// Fires when something was published; dropped when the log is closed.
    pub(super) notifier: watch::Sender<()>,
}

/// Records on their way to the disk.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    entries: Vec<(Arc<Entry>, IndexedEvent)>,
    keys: HashMap<IdempotencyKey, KnownKey>,
    deletion: Option<(IndexedDeletion, WrittenDeletion)>,
}

/// The outcome of a batch or deletion.
enum Outcome<T> {
    /// This, whatever becomes of the group.
    Settled(Result<T, AppendError>),
    /// This, if the group is written.
    WithGroup(T),
}

impl<T> Outcome<T> {
    fn after(self, written: &Result<(), AppendError>) -> Result<T, AppendError> {
        match (self, written) {
            (Self::Settled(outcome), _) => outcome,
            (Self::WithGroup(outcome), Ok(())) => Ok(outcome),
            (Self::WithGroup(_), Err(error)) => Err(error.clone()),
        }
    }
}

impl Writer {
    /// Works until no handle is left or one of them closes the log, then closes it, and drops what
    /// is held as long as it is open.
    pub(super) fn run<T>(mut self, requests: Receiver<Request>, maintenance: SyncSender<()>, held: T) {
        let closed = loop {
            match requests.recv_timeout(self.patience()) {
                Ok(first) => {
                    if let Some(closed) = self.serve(first, &requests) {
                        break Some(closed);
                    }
                    self.wake(&maintenance);
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.check_if_due() {
                        self.log.store.note_trouble(&error);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break None,
            }
            self.sync_if_due();
            self.heal_if_troubled();
        };
        self.close();
        drop(maintenance);
        drop(held);
        // A request that is sent from here on fails.
        drop(requests);
        if let Some(closed) = closed {
            // A caller that no longer waits does not need the answer.
            let _ = closed.send(());
        }
    }

    /// Wakes maintenance if there is a segment to free or to seal.
    fn wake(&self, maintenance: &SyncSender<()>) {
        let is_hidden = maintenance::has_hidden_segment(&self.log.store);
        if is_hidden {
            self.log.frees_segments.store(true, Ordering::Relaxed);
        }
        if is_hidden || self.previous().is_some_and(|segment| !segment.is_sealed()) {
            // If it is full, maintenance is about to look.
            let _ = maintenance.try_send(());
        }
    }

    /// The segment before the one that grows: the only one whose index may still be in memory.
    fn previous(&self) -> Option<Arc<Segment>> {
        self.log.store.acknowledged().segments.iter().nth_back(1).cloned()
    }

    /// How long to wait for a request.
    fn patience(&self) -> Duration {
        if self.log.store.acknowledged().trouble.is_some() {
            return RETRY;
        }
        match (self.log.store.settings.sync, self.unsynced_since) {
            (SyncLevel::Interval(interval), Some(since)) => {
                interval.saturating_sub(since.elapsed()).min(CHECK_EVERY)
            }
            _ => CHECK_EVERY,
        }
    }

    /// Fails if what would be written is not found where the log was opened; looks once a second,
    /// and each time while it is not.
    fn check_if_due(&mut self) -> io::Result<()> {
        let now = self.log.store.clock.now();
        // A clock that went back says nothing.
        let is_fresh = self.checked_at > now.earlier_by(CHECK_EVERY) && self.checked_at <= now;
        if is_fresh && !self.is_displaced { Ok(()) } else { self.check_place() }
    }

    /// The same, now.
    fn check_place(&mut self) -> io::Result<()> {
        self.checked_at = self.log.store.clock.now();
        let Store { home, disk, .. } = &self.log.store;
        // A file that is given up may be replaced.
        let name = (!self.broken).then(|| self.segment.name.log());
        let checked = home.check(&**disk, name.as_deref().map(|name| (name, &*self.file)));
        let was_displaced = std::mem::replace(&mut self.is_displaced, checked.is_err());
        match &checked {
            Err(error) if !was_displaced => tracing::error!(%error, store = ?disk, "no events are accepted"),
            Ok(()) if was_displaced => tracing::info!(store = ?disk, "events are accepted again"),
            _ => {}
        }
        checked
    }

    /// Answers this request and those that wait behind it, up to a deletion, except the one that
    /// closes the log, which it returns.
    fn serve(&mut self, first: Request, requests: &Receiver<Request>) -> Option<oneshot::Sender<()>> {
        let mut next = Some(first);
        let (mut batches, mut answers, mut bytes) = (Vec::new(), Vec::new(), 0);
        let (mut delete, mut close) = (None, None);
        while let Some(request) = next.take() {
            match request {
                Request::Append { batches: of_call, answer, permit } => {
                    bytes += of_call.iter().flatten().map(|batch| batch.bytes).sum::<usize>();
                    answers.push((answer, permit, of_call.len()));
                    batches.extend(of_call);
                }
                // One in a group: of two whose writing was interrupted the first could be damaged
                // and the second not, as if the first had been acknowledged.
                Request::Delete { plan, answer } => delete = Some((plan, answer)),
                Request::Free => {}
                Request::Close(closed) => close = Some(closed),
            }
            if bytes < GROUP_BYTES_MAX && delete.is_none() {
                next = requests.try_recv().ok();
            }
        }
        let (plan, delete_answer) = delete.unzip();
        let (appended, deleted) = self.commit(batches, plan);
        // Retention comes first: what is acknowledged is what stays.
        if let Err(error) = self.log.expire() {
            self.log.store.note_trouble(&error);
        }
        let mut appended = appended.into_iter();
        // A caller that no longer waits does not need the answer.
        for (answer, _permit, count) in answers {
            let _ = answer.send(appended.by_ref().take(count).collect());
        }
        if let Some((answer, deleted)) = delete_answer.zip(deleted) {
            let _ = answer.send(deleted);
        }
        close
    }

    /// Writes batches and a deletion as one group.
    fn commit(
        &mut self,
        batches: Vec<Result<PreparedBatch, AppendError>>,
        plan: Option<Box<DeletionPlan>>,
    ) -> (Vec<AppendOutcome>, Option<DeleteOutcome>) {
        if batches.is_empty() && plan.is_none() {
            return (Vec::new(), None);
        }
        let now = self.log.store.clock.now();
        self.log.store.keys().expire(now, &self.log.store.limits);
        let checked = if plan.is_some() {
            self.check_place().and_then(|()| maintenance::save_rules(&self.log))
        } else {
            self.check_if_due()
        };
        if let Err(error) = checked.and_then(|()| self.make_writable()) {
            self.log.store.note_trouble(&error);
            let appended = batches.iter().map(|_| Err(refused(&error))).collect();
            return (appended, plan.map(|_| Err(refused(&error))));
        }
        let mut group = Group::default();
        let appended: Vec<_> = batches.into_iter().map(|batch| self.add(&mut group, now, batch)).collect();
        self.end_batches(&mut group);
        let deleted = plan.map(|plan| self.add_deletion(&mut group, plan));
        let written = self.write(group);
        let appended = appended.into_iter().map(|outcome| outcome.after(&written)).collect();
        (appended, deleted.map(|outcome| outcome.after(&written)))
    }

    fn add(
        &self,
        group: &mut Group,
        now: Timestamp,
        batch: Result<PreparedBatch, AppendError>,
    ) -> Outcome<Appended> {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => return Outcome::Settled(Err(error)),
        };
        if let Some(key) = &batch.key {
            if let Some(first_id) = self.log.store.keys().get(key) {
                return Outcome::Settled(Ok(Appended::Duplicate { first_id: first_id.clone() }));
            }
            if let Some(known) = group.keys.get(key) {
                return Outcome::WithGroup(Appended::Duplicate { first_id: known.first_id.clone() });
            }
        }
        match self.refusal(&batch, group) {
            Some(reason) => Outcome::Settled(Err(AppendError::Full(reason))),
            None => Outcome::WithGroup(self.add_events(group, now, batch)),
        }
    }

    /// Why there is no capacity for a batch, if there is none.
    fn refusal(&self, batch: &PreparedBatch, group: &Group) -> Option<String> {
        let SegmentSettings { count_max, bytes_max, .. } = self.log.store.settings;
        let count = batch.events.len() as u64;
        if let Some(count_max) = count_max.filter(|count_max| count > *count_max) {
            return Some(format!("the batch has {count} events and the log keeps at most {count_max}"));
        }
        let (bytes, bytes_max) = (batch.bytes as u64, bytes_max.min(BATCH_BYTES_MAX));
        if bytes > bytes_max {
            return Some(format!("the batch takes {bytes} bytes and the log keeps at most {bytes_max}"));
        }
        let end = self.bytes + group.bytes.len() as u64 + bytes;
        (end > u64::from(u32::MAX)).then(|| format!("the segment has {end} bytes with the batch"))
    }

    fn add_events(&self, group: &mut Group, now: Timestamp, batch: PreparedBatch) -> Appended {
        let header = &self.segment.header;
        let mut last = Cursor { epoch: header.epoch, position: position(self.newest) };
        let mut ids = Vec::with_capacity(batch.events.len());
        let mut key = batch.key.clone();
        let first = self.newest + group.entries.len() as u64 + 1;
        for (number, PreparedEvent { event, audience, body }) in (first..).zip(batch.events) {
            last.position = position(number);
            let offset =
                u32::try_from(self.bytes + group.bytes.len() as u64).expect("a segment is not as long");
            let length = u32::try_from(body.record_bytes()).expect("a record is not as long");
            body.push(header, self.bytes, &mut group.bytes, (number, now.to_millis()));
            let entry = Arc::new(Entry::new(last, now, event));
            let event = (&entry.event, audience);
            let indexed = IndexedEvent::new(header.salt, (offset, length), now, event, key.take());
            ids.push(entry.id.clone());
            group.entries.push((entry, indexed));
        }
        if let (Some(key), Some(first_id)) = (batch.key, ids.first().cloned()) {
            let last = self.newest + group.entries.len() as u64;
            group.keys.insert(key.clone(), KnownKey { key, first_id, time: now, last });
        }
        Appended::New { ids, last }
    }

    fn end_batches(&self, group: &mut Group) {
        if group.entries.is_empty() {
            return;
        }
        let last = self.newest + group.entries.len() as u64;
        let commit = Commit { first: self.newest + 1, last, synced_through: self.synced_through };
        encode(&self.segment.header, self.bytes, &mut group.bytes, &Record::Commit(commit))
            .expect("a commit record is short");
    }

    fn add_deletion(&self, group: &mut Group, plan: Box<DeletionPlan>) -> Outcome<Deleted> {
        let full = |reason| Outcome::Settled(Err(AppendError::Full(reason)));
        if let Some(reason) = plan.refusal() {
            return full(reason);
        }
        let DeletionPlan { topic, through, count, kept, protecting, floors, segments, under_rules } = *plan;
        let mut deletions = self.log.store.horizon().hiding.deletions.clone();
        let serial = deletions.serial + 1;
        let record = DeletionRecord {
            deletion: Deletion { serial, through, protecting: protecting.into_iter().collect() },
            synced_through: self.synced_through,
            topic,
            forgotten_through: floors.known().0,
            floors: floors.after(0, usize::MAX),
        };
        deletions.add(&record.topic, record.deletion.clone());
        if let Some(reason) = deletions.excess(&record.topic) {
            return full(reason);
        }
        let offset = self.bytes + group.bytes.len() as u64;
        let Ok(body) = Body::of_deletion(&record) else {
            return full("the deletion is too large for a record".to_owned());
        };
        let place = match u32::try_from(offset) {
            Ok(offset)
                if u64::from(offset) + body.record_bytes() as u64 <= SegmentSettings::SEGMENT_BYTES_MAX =>
            {
                IndexedDeletion { offset, serial }
            }
            _ => return full("the segment is full of deletions; publish an event first".to_owned()),
        };
        body.push(&self.segment.header, self.bytes, &mut group.bytes, (serial, through));
        group.deletion = Some((place, WrittenDeletion { record, segments, under_rules }));
        Outcome::WithGroup(Deleted { count, kept, serial })
    }

    /// Writes a group, syncs it and publishes it.
    fn write(&mut self, group: Group) -> Result<(), AppendError> {
        if group.bytes.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.file.write_all_at(&group.bytes, self.bytes) {
            // Without its last record the group is not valid, but its beginning must not precede
            // what is written next.
            self.broken = self.file.set_len(self.bytes).is_err();
            self.log.store.note_trouble(&error);
            return Err(refused(&error));
        }
        if self.log.store.settings.sync == SyncLevel::Always {
            if let Err(error) = self.sync() {
                self.give_up_file(&error);
                return Err(AppendError::OutcomeUnknown(format!("it could not be synced: {error}")));
            }
            self.synced_through = self.newest + group.entries.len() as u64;
        } else {
            self.unsynced_since.get_or_insert_with(Instant::now);
        }
        self.publish(group);
        Ok(())
    }

    fn publish(&mut self, group: Group) {
        let Group { bytes, entries, keys, deletion } = group;
        self.bytes += bytes.len() as u64;
        self.newest += entries.len() as u64;
        let (bytes, newest, store) = (self.bytes, self.newest, &self.log.store);
        let mut keys: Vec<_> = keys.into_values().collect();
        keys.sort_unstable_by_key(|known| known.last);
        for known in keys {
            store.keys().insert(known, &store.limits);
        }
        let (entries, indexed): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        self.segment.extend(|index| {
            for event in indexed {
                index.push(event);
            }
            if let Some((place, _)) = &deletion {
                index.push_deletion(*place);
            }
            index.summary.bytes = bytes;
        });
        let segment_bytes = self.segment.bytes();
        {
            let mut acknowledged = store.acknowledged();
            acknowledged.newest = newest;
            acknowledged.end = self.segment.base() + segment_bytes;
            acknowledged.trouble = None;
            for entry in entries {
                acknowledged.recent.push(entry, store.settings.recent_bytes_max);
            }
        }
        if let Some((_, written)) = deletion {
            self.log.retention().delete(store, written);
        }
        self.notifier.send_replace(());
    }

    /// Syncs what was written, and counts how long that took.
    fn sync(&self) -> io::Result<()> {
        let began = Instant::now();
        let synced = self.file.sync_data();
        self.log.store.syncs.record(began.elapsed());
        synced
    }

    /// After a failed sync: what the file holds beyond its acknowledged end must not come back, and
    /// nothing is written to it any more.
    fn give_up_file(&mut self, error: &io::Error) {
        self.broken = true;
        // If this fails, the next segment states where this one ends.
        let _ = self.file.set_len(self.bytes);
        self.log.store.note_trouble(error);
    }

    /// A file that can be written, with room in its segment.
    fn make_writable(&mut self) -> io::Result<()> {
        let has_events = self.newest >= self.segment.first();
        let ends = self.log.ends_segment.swap(false, Ordering::Relaxed);
        let is_full = self.bytes >= self.log.store.settings.segment_bytes();
        if !self.broken && !(has_events && (ends || is_full)) {
            return Ok(());
        }
        self.check_place()?;
        if !self.broken
            && let Err(error) = self.sync()
        {
            self.give_up_file(&error);
        }
        let disk = &*self.log.store.disk;
        // One index more is in memory until maintenance has written it.
        if let Some(previous) = self.previous() {
            previous.seal(disk)?;
        }
        let new = NewSegment::after(disk, &self.segment, self.segment.header.epoch)?;
        self.start(new);
        Ok(())
    }

    fn start(&mut self, new: NewSegment) {
        if !self.broken {
            self.synced_through = self.newest;
            self.unsynced_since = None;
        }
        let NewSegment { segment, file, replaces_last } = new;
        segment.note_clean(self.log.store.horizon().hiding.deletions.serial);
        let old = std::mem::replace(&mut self.segment, Arc::new(segment));
        self.file = file;
        self.bytes = self.segment.file_bytes();
        self.broken = false;
        let segment_bytes = self.segment.bytes();
        {
            let mut acknowledged = self.log.store.acknowledged();
            let mut segments = acknowledged.segments.to_vec();
            if replaces_last {
                segments.pop();
            }
            segments.push(Arc::clone(&self.segment));
            acknowledged.end = self.segment.base() + segment_bytes;
            acknowledged.segments = Arc::new(segments);
        }
        if replaces_last {
            // What stays behind is removed when the log is opened the next time.
            let _ = self.log.store.disk.remove(&old.name.log());
        }
    }

    fn sync_if_due(&mut self) {
        let SyncLevel::Interval(interval) = self.log.store.settings.sync else { return };
        if self.broken || self.unsynced_since.is_none_or(|since| since.elapsed() < interval) {
            return;
        }
        match self.sync() {
            Ok(()) => {
                self.synced_through = self.newest;
                self.unsynced_since = None;
            }
            Err(error) => self.give_up_file(&error),
        }
    }

    /// Health has to return without a request: publishers may have stopped because of it.
    fn heal_if_troubled(&mut self) {
        if self.log.store.acknowledged().trouble.is_none() {
            return;
        }
        match self.check_place().and_then(|()| self.probe()).and_then(|()| self.make_writable()) {
            Ok(()) => self.log.store.acknowledged().trouble = None,
            Err(error) => self.log.store.note_trouble(&error),
        }
    }

    fn probe(&self) -> io::Result<()> {
        let disk = &self.log.store.disk;
        let name = format!("{PROBE_NAME}{TEMPORARY}");
        let file = disk.create(&name)?;
        let written = file.write_all_at(&vec![0; PROBE_BYTES], 0).and_then(|()| file.sync_data());
        disk.remove(&name)?;
        written
    }

    /// Syncs everything and stores that nothing is missing. A log that cannot be closed is opened
    /// as after a crash.
    fn close(mut self) {
        self.log.store.note_trouble(&"it has been closed");
        // What is being compacted is given up, and nothing changes any more.
        self.log.closing.store(true, Ordering::Relaxed);
        let _maintaining = lock(&self.log.maintaining);
        if self.broken || self.sync().is_err() {
            return;
        }
        maintenance::seal(&self.log.store);
        if maintenance::save_front(&self.log).is_ok() {
            self.state.closed_at = Some(self.newest);
            self.state.deletions = self.log.store.horizon().hiding.deletions.serial;
            let _ = self.state.save(&*self.log.store.disk);
        }
    }
}

fn refused(error: &io::Error) -> AppendError {
    let reason = error.to_string();
    match error.get_ref() {
        Some(inner) if inner.is::<Displaced>() => AppendError::Displaced(reason),
        _ if maintenance::is_full(error) => AppendError::Full(reason),
        _ => AppendError::Unavailable(reason),
    }
}
