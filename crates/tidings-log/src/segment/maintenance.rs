//! Maintenance: a thread that writes the indexes of full segments, frees the segments that
//! retention has hidden, and compacts others.
//!
//! It saves the front of the log before segments are freed or compacted, and nothing else waits
//! for that: events are appended, read and deleted meanwhile. What fails, for example on a full
//! disk, is tried again later.

use std::{
    io,
    sync::{
        Arc, MutexGuard,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use super::{
    acknowledged::Segments,
    compaction::{self, Outcome},
    front_file::{SavedFront, SavedRule},
    open_log::OpenLog,
    small_file::SmallFile,
    store::Store,
};
use crate::{ledger::keys::KnownKey, lock::lock};

/// How often maintenance looks for something to compact.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How much longer than a compaction the pause after it is.
const PAUSE: u32 = 4;
/// Floors and keys that are copied at a time, so that readers and the writer do not wait.
const COPIED_MAX: usize = 1_000;

/// Works until the log is closed.
pub(super) fn run(log: &OpenLog, wakes: &Receiver<()>) {
    let mut next_look = Instant::now() + LOOK_EVERY;
    loop {
        match wakes.recv_timeout(next_look.saturating_duration_since(Instant::now())) {
            Ok(()) => {
                free(log);
                let _maintaining = lock(&log.maintaining);
                if !log.closing.load(Ordering::Relaxed) {
                    seal(&log.store);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                free(log);
                next_look = Instant::now() + look(log);
            }
        }
    }
}

/// Compacts one segment, if one is due. Returns how long to wait until the next look.
fn look(log: &OpenLog) -> Duration {
    let touched: Vec<_> = log.retention().touched.iter().copied().collect();
    for first in touched {
        let began = Instant::now();
        // What could not be written now is tried again at the next look.
        if let Ok(Outcome::Compacted) = compact(log, first) {
            return began.elapsed() * PAUSE;
        }
    }
    LOOK_EVERY
}

/// Looks at a segment, given by its first event, and compacts it if that is due.
pub(super) fn compact(log: &OpenLog, first: u64) -> io::Result<Outcome> {
    let _maintaining = lock(&log.maintaining);
    let outcome = compaction::look_at(log, first, &|| free_if_due(log), &|| save_front(log).map(drop));
    forget_done_deletions(log);
    outcome
}

/// Frees the segments of which everything is hidden.
pub(super) fn free(log: &OpenLog) {
    let _maintaining = lock(&log.maintaining);
    free_if_due(log);
}

fn free_if_due(log: &OpenLog) {
    let is_due = log.frees_segments.swap(false, Ordering::Relaxed);
    if !is_due || log.closing.load(Ordering::Relaxed) {
        return;
    }
    let store = &log.store;
    let front = match save_front(log) {
        Ok(front) => front,
        // On a full disk there may be no room for this. Freeing makes room; floors that are not
        // saved are reported as a gap after a restart.
        Err(error) if is_full(&error) => store.horizon().front,
        Err(error) => {
            log.frees_segments.store(true, Ordering::Relaxed);
            return store.note_trouble(&error);
        }
    };
    let freed = {
        let mut acknowledged = store.acknowledged();
        let segments = Arc::clone(&acknowledged.segments);
        let count = hidden_count(&segments, front);
        acknowledged.segments = Arc::new(segments[count..].to_vec());
        segments[..count].to_vec()
    };
    // What stays behind is removed when the log is opened the next time.
    for segment in freed {
        let _ = store.disk.remove(&segment.name.log());
        let _ = store.disk.remove(&segment.name.index());
    }
    let _ = store.disk.sync_directory();
    forget_done_deletions(log);
}

/// Moves the indexes of full segments from memory into files. One that could not be written is
/// tried again at the next occasion. The caller holds the lock on maintenance.
pub(super) fn seal(store: &Store) {
    let (segments, _) = store.segments();
    for segment in &segments[..segments.len() - 1] {
        let _ = segment.seal(&*store.disk);
    }
}

/// Whether there is a segment to free.
pub(super) fn has_hidden_segment(store: &Store) -> bool {
    let front = store.horizon().front;
    hidden_count(&store.acknowledged().segments, front) > 0
}

/// How many segments are hidden; the one that grows is not one of them.
fn hidden_count(segments: &Segments, front: u64) -> usize {
    segments[..segments.len() - 1].partition_point(|segment| segment.last() <= front)
}

/// Saves the fronts of retention rules if they moved, before a deletion is written: what they
/// have hidden cannot be counted again once other events of the rule are deleted.
pub(super) fn save_rules(log: &OpenLog) -> io::Result<()> {
    let saving = lock(&log.saving);
    if !log.store.rules_unsaved.load(Ordering::Relaxed) {
        return Ok(());
    }
    save(log, &saving).map(drop)
}

/// Saves what must outlive segments and events that are freed. Returns the front: everything up to
/// it may be freed.
pub(super) fn save_front(log: &OpenLog) -> io::Result<u64> {
    save(log, &lock(&log.saving))
}

fn save(log: &OpenLog, _saving: &MutexGuard<'_, ()>) -> io::Result<u64> {
    let store = &log.store;
    store.rules_unsaved.store(false, Ordering::Relaxed);
    let (front, hiding) = store.hidden();
    // Floors only rise: one that moves behind what was copied is copied again.
    let floors = in_parts(|last: Option<&(u64, _)>| {
        store.horizon().floors.after(last.map_or(0, |(number, _)| *number), COPIED_MAX)
    });
    let forgotten_through = store.horizon().floors.known().0;
    let keys = in_parts(|last: Option<&KnownKey>| {
        store.keys().of_batches(last.map_or(0, |known| known.last), front, COPIED_MAX)
    });
    let deletions_done_through = hiding.deletions.done_through(front);
    let rules = hiding.rules.iter().zip(&*hiding.fronts).map(|(rule, front)| SavedRule::of(rule, *front));
    let rules = rules.collect();
    let saved = SavedFront { front, deletions_done_through, forgotten_through, floors, keys, rules };
    let saved = saved.save(&*store.disk);
    if saved.is_err() {
        store.rules_unsaved.store(true, Ordering::Relaxed);
    }
    saved.map(|()| front)
}

/// What follows an item, and again what follows that, until there are fewer than at most.
fn in_parts<T>(copy: impl Fn(Option<&T>) -> Vec<T>) -> Vec<T> {
    let mut all = copy(None);
    let mut count = all.len();
    while count == COPIED_MAX {
        let more = copy(all.last());
        count = more.len();
        all.extend(more);
    }
    all
}

/// Forgets the deletions of which nothing is left, neither in the files nor in memory.
fn forget_done_deletions(log: &OpenLog) {
    let store = &log.store;
    let deletions = store.horizon().hiding.deletions.clone();
    if deletions.is_empty() {
        return;
    }
    let (segments, in_memory_from) = {
        let acknowledged = store.acknowledged();
        (Arc::clone(&acknowledged.segments), acknowledged.recent.first().unwrap_or(u64::MAX))
    };
    let is_done = |through: u64, serial: u64| {
        let mut holding = segments.iter().take_while(|segment| segment.first() <= through);
        through < in_memory_from && holding.all(|segment| segment.is_clean(serial))
    };
    let done: Vec<_> = deletions
        .iter()
        .filter(|(_, deletion)| is_done(deletion.through, deletion.serial))
        .map(|(topic, deletion)| (topic.clone(), deletion.serial))
        .collect();
    if !done.is_empty() {
        log.retention().forget_deletions(store, &done);
    }
}

/// Whether an error says that there is no room on the disk.
pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
