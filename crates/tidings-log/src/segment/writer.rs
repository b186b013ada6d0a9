//! The writer thread.
//!
//! It takes all waiting batches, writes them as one group with one call, syncs according to the
//! [`SyncLevel`], and only then makes the entries visible and acknowledges them. One sync therefore
//! serves all batches that arrived during the previous one, and no reader sees an event that is not
//! acknowledged.
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
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use tidings_topic::{Cursor, Epoch, Event, EventId, StoredEvent};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::{
    SyncLevel,
    deletion::Delete,
    disk::{Disk, DiskFile, TEMPORARY, write_full},
    file::{Segment, SegmentName},
    home::Displaced,
    index::MemoryIndex,
    record::{COMMIT_BYTES, Commit, EventRecord, HEADER_BYTES, Header, Record, encode},
    shared::Shared,
    state_file::LogState,
};
use crate::{
    AppendError, Appended, Batch, Entry, IdempotencyKey, MemoryLimits, Timestamp, ledger::position,
    memory::lock,
};

/// Bytes after which a group takes no further batch.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The largest batch, in bytes of its records, whatever the log may keep.
pub(super) const BATCH_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How long it takes until a disk that refused is tried again without anybody asking.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is checked that the directory still is where it was opened.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The file with which a disk is tried.
pub(super) const PROBE_NAME: &str = "probe";
/// What has to fit on a disk for it not to be full any more.
const PROBE_BYTES: usize = 64 * 1024;

/// What the writer is asked.
#[derive(Debug)]
pub(super) enum Request {
    Append(Append),
    Delete(Delete),
    /// Retention has hidden something: look whether there is a segment to free.
    Free,
    /// Close the log, and say so.
    Close(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(super) struct Append {
    pub(super) batches: Vec<Batch>,
    pub(super) answer: oneshot::Sender<Vec<Result<Appended, AppendError>>>,
    /// A place in the queue, given back with the answer.
    pub(super) place: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) segment: Arc<Segment>,
    pub(super) file: Arc<dyn DiskFile>,
    /// The bytes of the file that count.
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
    pub(super) limits: MemoryLimits,
    pub(super) state: LogState,
    /// Fires when something was published; dropped when the log is closed.
    pub(super) notifier: watch::Sender<()>,
}

/// Batches on their way to the disk.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    entries: Vec<Written>,
    /// First ids of what this group appends under a key.
    keys: HashMap<IdempotencyKey, EventId>,
}

/// What becomes of a batch.
enum Planned {
    /// This, whatever becomes of the group.
    Settled(Result<Appended, AppendError>),
    /// This, if the group is written.
    WithGroup(Appended),
}

struct Written {
    entry: Arc<Entry>,
    /// Offset and length.
    place: (u32, u32),
    key: Option<IdempotencyKey>,
}

impl Writer {
    /// Works until nobody can ask any more or somebody asks for the end, then closes the log, and
    /// lets go what is held as long as it is open.
    pub(super) fn run<T>(mut self, requests: Receiver<Request>, held: T) {
        let closed = loop {
            match requests.recv_timeout(self.patience()) {
                Ok(first) => {
                    if let Some(closed) = self.serve(first, &requests) {
                        break Some(closed);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.check_if_due() {
                        self.complain(&error);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break None,
            }
            self.sync_if_due();
            self.heal_if_troubled();
        };
        self.close();
        drop(held);
        // The one that asks from here on is notified that nobody answers.
        drop(requests);
        if let Some(closed) = closed {
            // The one that does not wait any more does not want to know.
            let _ = closed.send(());
        }
    }

    /// How long to wait for a request.
    fn patience(&self) -> Duration {
        if self.shared.state().trouble.is_some() {
            return RETRY;
        }
        match (self.shared.settings.sync, self.unsynced_since) {
            (SyncLevel::Interval(interval), Some(since)) => {
                interval.saturating_sub(since.elapsed()).min(CHECK_EVERY)
            }
            _ => CHECK_EVERY,
        }
    }

    /// Fails if what would be written is not found where the log was opened; looks once a second,
    /// and each time while it is not.
    fn check_if_due(&mut self) -> io::Result<()> {
        let now = self.shared.clock.now();
        // A clock that went back says nothing.
        let is_fresh = self.checked_at > now.earlier_by(CHECK_EVERY) && self.checked_at <= now;
        if is_fresh && !self.is_displaced { Ok(()) } else { self.check_place() }
    }

    /// The same, now.
    pub(super) fn check_place(&mut self) -> io::Result<()> {
        self.checked_at = self.shared.clock.now();
        let Shared { home, disk, .. } = &*self.shared;
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

    /// Answers this request and all that wait behind it, but for the one that asks to close the
    /// log, which it returns.
    fn serve(&mut self, first: Request, requests: &Receiver<Request>) -> Option<oneshot::Sender<()>> {
        let mut next = Some(first);
        let mut appends = Vec::new();
        let mut bytes = 0;
        let mut deletes = Vec::new();
        let mut close = None;
        while let Some(request) = next.take() {
            match request {
                Request::Append(append) => {
                    let events = append.batches.iter().flat_map(|batch| &batch.events);
                    bytes += events.map(Event::memory_bytes).sum::<usize>();
                    appends.push(append);
                }
                Request::Delete(delete) => deletes.push(delete),
                Request::Free => {}
                Request::Close(closed) => close = Some(closed),
            }
            if bytes < GROUP_BYTES_MAX {
                next = requests.try_recv().ok();
            }
        }
        let mut batches = Vec::new();
        let mut answers = Vec::with_capacity(appends.len());
        for append in appends {
            answers.push((append.answer, append.place, append.batches.len()));
            batches.extend(append.batches);
        }
        let mut outcomes = self.append(batches).into_iter();
        // Retention has the first word: what is acknowledged is what stays.
        if let Err(error) = self.shared.expire().map(drop) {
            self.complain(&error);
        }
        for (answer, _place, count) in answers {
            // The one that does not wait any more does not want to know.
            let _ = answer.send(outcomes.by_ref().take(count).collect());
        }
        // A deletion takes what was there when it was asked for, so it does not matter what was
        // appended meanwhile.
        for Delete { taken, answer } in deletes {
            let _ = answer.send(self.delete(taken));
        }
        self.free();
        close
    }

    fn append(&mut self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>> {
        if batches.is_empty() {
            return Vec::new();
        }
        let now = self.shared.clock.now();
        self.shared.keys().expire(now, &self.limits);
        if let Err(error) = self.check_if_due().and_then(|()| self.make_writable()) {
            self.complain(&error);
            return batches.iter().map(|_| Err(refused(&error))).collect();
        }
        let mut group = Group::default();
        let planned: Vec<_> = batches.into_iter().map(|batch| self.plan(&mut group, now, batch)).collect();
        let written = self.write(group);
        let outcome = |planned: Planned| match (&written, planned) {
            (_, Planned::Settled(outcome)) => outcome,
            (Ok(()), Planned::WithGroup(appended)) => Ok(appended),
            (Err(error), Planned::WithGroup(_)) => Err(error.clone()),
        };
        planned.into_iter().map(outcome).collect()
    }

    fn plan(&self, group: &mut Group, now: Timestamp, batch: Batch) -> Planned {
        if let Some(first_id) = batch.key.as_ref().and_then(|key| self.shared.keys().get(key).cloned()) {
            return Planned::Settled(Ok(Appended::Duplicate { first_id }));
        }
        if let Some(first_id) = batch.key.as_ref().and_then(|key| group.keys.get(key)) {
            return Planned::WithGroup(Appended::Duplicate { first_id: first_id.clone() });
        }
        let (bytes_before, entries_before) = (group.bytes.len(), group.entries.len());
        match self.add(group, now, batch) {
            Ok(appended) => {
                if let Some(Written { entry, key: Some(key), .. }) = group.entries.get(entries_before) {
                    group.keys.insert(key.clone(), entry.id.clone());
                }
                Planned::WithGroup(appended)
            }
            Err(reason) => {
                group.bytes.truncate(bytes_before);
                group.entries.truncate(entries_before);
                Planned::Settled(Err(AppendError::Full(reason)))
            }
        }
    }

    /// Adds a batch to a group, or says why there is no room for it; what was added of it then does
    /// not count.
    fn add(&self, group: &mut Group, now: Timestamp, mut batch: Batch) -> Result<Appended, String> {
        let count = batch.events.len() as u64;
        if let Some(count_max) = self.shared.settings.count_max.filter(|count_max| count > *count_max) {
            return Err(format!("the batch has {count} events and the log keeps at most {count_max}"));
        }
        let bytes_before = group.bytes.len();
        let bytes_max = self.shared.settings.bytes_max.min(BATCH_BYTES_MAX);
        let mut last = Cursor { epoch: self.segment.header.epoch, position: position(self.newest) };
        let mut ids = Vec::with_capacity(batch.events.len());
        for event in batch.events {
            let number = self.newest + group.entries.len() as u64 + 1;
            last.position = position(number);
            let entry = Arc::new(Entry::new(last, now, event));
            let start = group.bytes.len();
            let offset = u32::try_from(self.bytes + start as u64);
            let key = batch.key.take();
            let record = Record::Event(EventRecord {
                number,
                time: now,
                key: key.as_ref().map(IdempotencyKey::as_str),
                event: StoredEvent::of(&entry.event),
            });
            let encoded = encode(&self.segment.header, self.bytes, &mut group.bytes, &record);
            let length = u32::try_from(group.bytes.len() - start);
            let (Ok(()), Ok(offset), Ok(length)) = (encoded, offset, length) else {
                return Err("the event is too large for a record".into());
            };
            let bytes = (group.bytes.len() - bytes_before + COMMIT_BYTES) as u64;
            if bytes > bytes_max {
                return Err(format!(
                    "the batch takes {bytes} bytes or more and the log keeps at most {bytes_max}"
                ));
            }
            ids.push(entry.id.clone());
            group.entries.push(Written { entry, place: (offset, length), key });
        }
        Ok(Appended::New { ids, last })
    }

    /// Writes a group, makes sure of it and publishes it.
    fn write(&mut self, mut group: Group) -> Result<(), AppendError> {
        if group.entries.is_empty() {
            return Ok(());
        }
        let last = self.newest + group.entries.len() as u64;
        let commit = Commit { first: self.newest + 1, last, synced_through: self.synced_through };
        encode(&self.segment.header, self.bytes, &mut group.bytes, &Record::Commit(commit))
            .expect("a commit record is short");
        if let Err(error) = write_full(&*self.file, &group.bytes, self.bytes) {
            // Without its last record the group does not count, but its beginning must not stand
            // behind what is written next.
            self.broken = self.file.set_len(self.bytes).is_err();
            self.complain(&error);
            return Err(refused(&error));
        }
        if self.shared.settings.sync == SyncLevel::Always {
            if let Err(error) = self.file.sync_data() {
                self.give_up_file(&error);
                return Err(AppendError::OutcomeUnknown(format!("it could not be synced: {error}")));
            }
            self.synced_through = last;
        } else {
            self.unsynced_since.get_or_insert_with(Instant::now);
        }
        self.publish(group, last);
        Ok(())
    }

    fn publish(&mut self, group: Group, last: u64) {
        self.bytes += group.bytes.len() as u64;
        self.newest = last;
        let bytes = self.bytes;
        for written in &group.entries {
            if let Some(key) = &written.key {
                let (id, time) = (written.entry.id.clone(), written.entry.time);
                self.shared.keys().insert(key.clone(), id, time, last, &self.limits);
            }
        }
        self.segment.extend(|index| {
            for Written { entry, place, key } in &group.entries {
                index.push(*place, entry.time, &entry.event, key.as_ref());
            }
            index.bytes = bytes;
        });
        let mut state = self.shared.state();
        state.newest = last;
        state.trouble = None;
        for written in group.entries {
            state.recent.push(written.entry, self.shared.settings.recent_bytes_max);
        }
        drop(state);
        self.notifier.send_replace(());
    }

    /// After a failed sync: what the file holds beyond its acknowledged end must not come back, and
    /// nothing is written to it any more.
    fn give_up_file(&mut self, error: &io::Error) {
        self.broken = true;
        // If this fails, the next segment says where this one ends.
        let _ = self.file.set_len(self.bytes);
        self.complain(error);
    }

    /// A file that can be written, with room in its segment.
    fn make_writable(&mut self) -> io::Result<()> {
        let ends =
            self.shared.ends_segment.swap(false, Ordering::Relaxed) && self.newest >= self.segment.first();
        if !self.broken && !ends && self.bytes < self.shared.settings.segment_bytes() {
            return Ok(());
        }
        self.check_place()?;
        if !self.broken
            && let Err(error) = self.file.sync_data()
        {
            self.give_up_file(&error);
        }
        let header = Header { first: self.newest + 1, salt: random()?, ..self.segment.header };
        if header.first == self.segment.first() {
            // Nothing in it was acknowledged: its name is free.
            let (segment, file) = create(&*self.shared.disk, header, self.segment.base())?;
            self.start(segment, file, true);
            return Ok(());
        }
        self.segment.seal(&*self.shared.disk)?;
        let (segment, file) = create(&*self.shared.disk, header, self.segment.base() + self.segment.bytes())?;
        self.start(segment, file, false);
        Ok(())
    }

    fn start(&mut self, segment: Segment, file: Arc<dyn DiskFile>, replaces_last: bool) {
        if !self.broken {
            self.synced_through = self.newest;
            self.unsynced_since = None;
        }
        self.segment = Arc::new(segment);
        self.file = file;
        self.bytes = HEADER_BYTES as u64;
        self.broken = false;
        let mut state = self.shared.state();
        let mut segments = state.segments.to_vec();
        if replaces_last {
            segments.pop();
        }
        segments.push(Arc::clone(&self.segment));
        state.segments = Arc::new(segments);
    }

    fn sync_if_due(&mut self) {
        let SyncLevel::Interval(interval) = self.shared.settings.sync else { return };
        if self.broken || self.unsynced_since.is_none_or(|since| since.elapsed() < interval) {
            return;
        }
        match self.file.sync_data() {
            Ok(()) => {
                self.synced_through = self.newest;
                self.unsynced_since = None;
            }
            Err(error) => self.give_up_file(&error),
        }
    }

    /// Health has to come back by itself: the one that asks for it may have stopped publishing
    /// because of it.
    fn heal_if_troubled(&mut self) {
        if self.shared.state().trouble.is_none() {
            return;
        }
        match self.check_place().and_then(|()| self.probe()).and_then(|()| self.make_writable()) {
            Ok(()) => self.shared.state().trouble = None,
            Err(error) => self.complain(&error),
        }
    }

    fn probe(&self) -> io::Result<()> {
        let name = format!("{PROBE_NAME}{TEMPORARY}");
        let file = self.shared.disk.create(&name)?;
        let written = write_full(&*file, &vec![0; PROBE_BYTES], 0).and_then(|()| file.sync_data());
        self.shared.disk.remove(&name)?;
        written
    }

    pub(super) fn complain(&self, error: &io::Error) {
        self.shared.state().trouble = Some(error.to_string());
    }

    /// Frees segments of which everything is hidden.
    fn free(&mut self) {
        let hidden = {
            let retention = self.shared.retention();
            let segments = Arc::clone(&self.shared.state().segments);
            let full = &segments[..segments.len() - 1];
            let count = full.partition_point(|segment| segment.last() <= retention.front);
            if count == 0 {
                return;
            }
            // On a full disk there may be no room for this. Freeing makes room; floors that are not
            // saved are notified as a gap after a restart.
            match self.shared.save_front(&retention) {
                Err(error) if !is_full(&error) => return self.complain(&error),
                _ => {}
            }
            self.shared.state().segments = Arc::new(segments[count..].to_vec());
            segments[..count].to_vec()
        };
        // What stays behind is removed when the log is opened the next time.
        for segment in hidden {
            let _ = self.shared.disk.remove(&segment.name.log());
            let _ = self.shared.disk.remove(&segment.name.index());
        }
        let _ = self.shared.disk.sync_directory();
    }

    /// Makes sure of everything and writes down that nothing is missing. A log that cannot be
    /// closed is opened as after a crash.
    fn close(mut self) {
        self.shared.state().trouble = Some("it has been closed".to_owned());
        // What is being compacted is given up, and nothing changes any more.
        self.shared.closing.store(true, Ordering::Relaxed);
        drop(lock(&self.shared.compacting));
        if self.broken || self.file.sync_data().is_err() {
            return;
        }
        let saved = self.shared.save_front(&self.shared.retention());
        if saved.is_ok() {
            self.state.closed_at = Some(self.newest);
            let _ = self.state.save(&*self.shared.disk);
        }
    }
}

/// Makes a new segment, and makes sure of it.
pub(super) fn create(disk: &dyn Disk, header: Header, base: u64) -> io::Result<(Segment, Arc<dyn DiskFile>)> {
    let name = SegmentName::new(header.first);
    let file = disk.create(&name.log())?;
    write_full(&*file, &header.encode(), 0)?;
    file.sync_data()?;
    disk.sync_directory()?;
    let index = MemoryIndex::new(header.salt, HEADER_BYTES as u64);
    Ok((Segment::with_memory(name, header, base, index), file))
}

/// A number that nobody can guess.
pub(super) fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}

/// An epoch that no other log has.
pub(super) fn random_epoch() -> io::Result<Epoch> {
    random().map(Epoch::from_u64)
}

pub(super) fn refused(error: &io::Error) -> AppendError {
    let reason = error.to_string();
    match error.get_ref() {
        Some(inner) if inner.is::<Displaced>() => AppendError::Displaced(reason),
        _ if is_full(error) => AppendError::Full(reason),
        _ => AppendError::Unavailable(reason),
    }
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
