//! The state that the writer updates and all other threads read.
//!
//! One mutex guards the acknowledged state and is held only for a few instructions. Another guards
//! the front of the log and may be held while reading files. Lock order: never take the second
//! while holding the first.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicBool},
};

use super::{
    SegmentSettings, disk::Disk, file::Segment, hiding::Hiding, home::Home, retention::Retention,
    state_file::save_front,
};
use crate::{
    Clock, Entry, Epochs, Unavailable,
    ledger::{keys::Keys, number},
    memory::lock,
    vital::Panicked,
};

/// The log, for readers.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) home: Home,
    pub(super) settings: SegmentSettings,
    pub(super) clock: Clock,
    pub(super) epochs: Epochs,
    pub(super) state: Mutex<State>,
    pub(super) retention: Mutex<Retention>,
    /// The window of idempotency keys. Nobody takes another lock while holding it.
    pub(super) keys: Mutex<Keys>,
    /// The log is being closed: what takes long is given up.
    pub(super) closing: AtomicBool,
    /// The segment that grows has something to take out and ought to end.
    pub(super) ends_segment: AtomicBool,
    /// One compaction at a time.
    pub(super) compacting: Mutex<()>,
}

/// What is acknowledged.
#[derive(Debug)]
pub(super) struct State {
    pub(super) segments: Segments,
    /// The newest acknowledged event.
    pub(super) newest: u64,
    pub(super) recent: Recent,
    pub(super) hiding: Hiding,
    /// Why nothing can be appended at present.
    pub(super) trouble: Option<String>,
    /// What is damaged. It stays until the log is opened again.
    pub(super) damage: Option<String>,
}

/// All segments, oldest first; the last one grows. There is always one. Cloning is cheap.
pub(super) type Segments = Arc<Vec<Arc<Segment>>>;

/// The newest entries, kept in memory.
#[derive(Debug, Default)]
pub(super) struct Recent {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
}

impl Recent {
    /// Adds the newest entry, and forgets the oldest beyond so many bytes.
    pub(super) fn push(&mut self, entry: Arc<Entry>, bytes_max: usize) {
        self.bytes += entry.memory_bytes();
        self.entries.push_back(entry);
        while self.bytes > bytes_max
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.memory_bytes();
        }
    }

    /// The entry with this number, if it is here.
    pub(super) fn get(&self, wanted: u64) -> Option<&Arc<Entry>> {
        let index = wanted.checked_sub(self.first()?)?;
        self.entries.get(usize::try_from(index).ok()?)
    }

    /// The oldest number that is here.
    pub(super) fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| number(entry.cursor.position))
    }

    /// Entries after this number, of about `bytes_max` bytes, at least one, if they are here.
    pub(super) fn after(&self, after: u64, bytes_max: usize) -> Option<Vec<Arc<Entry>>> {
        let start = usize::try_from((after + 1).checked_sub(self.first()?)?).ok()?;
        let mut bytes = 0;
        let mut taken = Vec::new();
        for entry in self.entries.range(start.min(self.entries.len())..) {
            if bytes >= bytes_max && !taken.is_empty() {
                break;
            }
            bytes += entry.memory_bytes();
            taken.push(Arc::clone(entry));
        }
        Some(taken)
    }
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn keys(&self) -> MutexGuard<'_, Keys> {
        lock(&self.keys)
    }

    pub(super) fn retention(&self) -> MutexGuard<'_, Retention> {
        lock(&self.retention)
    }

    /// Hides what retention does not allow any more.
    pub(super) fn expire(&self) -> io::Result<MutexGuard<'_, Retention>> {
        let mut retention = self.retention();
        retention.advance(self, self.clock.now())?;
        Ok(retention)
    }

    /// The segments in which something may have been hidden, by their first events, oldest first.
    pub(super) fn touched(&self) -> Vec<u64> {
        self.retention().touched.iter().copied().collect()
    }

    /// Saves what must outlive segments and events that were freed.
    pub(super) fn save_front(&self, retention: &Retention) -> io::Result<()> {
        save_front(&*self.disk, retention, &self.keys())
    }

    /// Remembers that an event is damaged, and says so from now on.
    pub(super) fn note_damage(&self, segment: &Segment, number: u64) {
        segment.note_damaged(number);
        let name = segment.name.log();
        self.state().damage.get_or_insert_with(|| format!("event {number} in {name} is damaged"));
    }

    /// Remembers that one of the threads of this log is gone, which has to be opened anew.
    pub(super) fn note_end_of(&self, what: &str, panicked: &Panicked) {
        self.state().damage.get_or_insert_with(|| format!("{what} of the log has ended: {panicked}"));
    }

    /// Whether appends are accepted and nothing is damaged.
    pub(super) fn health(&self) -> Result<(), Unavailable> {
        let state = self.state();
        match state.trouble.as_ref().or(state.damage.as_ref()) {
            Some(reason) => Err(Unavailable(reason.clone())),
            None => Ok(()),
        }
    }
}

impl State {
    /// The segment that grows.
    pub(super) fn active(&self) -> &Arc<Segment> {
        self.segments.last().expect("there is always a segment")
    }

    /// Where the log ends, in bytes.
    pub(super) fn end(&self) -> u64 {
        let active = self.active();
        active.base() + active.bytes()
    }
}

/// The segments that have events after this number, with the place of the first of them in the
/// list.
pub(super) fn segments_after(segments: &[Arc<Segment>], after: u64) -> &[Arc<Segment>] {
    let beyond = segments.partition_point(|segment| segment.first() <= after.saturating_add(1));
    &segments[beyond.saturating_sub(1)..]
}
