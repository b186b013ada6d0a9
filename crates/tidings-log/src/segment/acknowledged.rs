//! What is acknowledged: the segments, the end of the log, and the newest events in memory.

use std::{collections::VecDeque, sync::Arc};

use super::segment_file::Segment;
use crate::{Entry, draft::Gathered, numbers::number};

/// What is acknowledged, and whether more can be.
#[derive(Debug)]
pub(super) struct Acknowledged {
    pub(super) segments: Segments,
    /// The newest acknowledged event.
    pub(super) newest: u64,
    /// The bytes of all segments.
    pub(super) end: u64,
    pub(super) recent: RecentEntries,
    /// Why nothing can be appended at present.
    pub(super) trouble: Option<String>,
    /// What is damaged. It stays until the log is opened again.
    pub(super) damage: Option<String>,
}

/// All segments, oldest first; the last one grows. There is always one. Cloning is cheap.
pub(super) type Segments = Arc<Vec<Arc<Segment>>>;

/// How far the log reaches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) newest: u64,
    /// The bytes of the log before its oldest segment.
    pub(super) start: u64,
    /// The same with the bytes of all segments.
    pub(super) end: u64,
}

impl Acknowledged {
    pub(super) fn extent(&self) -> Extent {
        Extent { newest: self.newest, start: self.segments[0].base(), end: self.end }
    }

    /// The segment that grows.
    pub(super) fn active(&self) -> &Arc<Segment> {
        self.segments.last().expect("there is always a segment")
    }

    /// Replaces a segment, if it is still there. Returns whether it was.
    pub(super) fn replace(&mut self, old: &Arc<Segment>, new: Arc<Segment>) -> bool {
        let Some(place) = self.segments.iter().position(|segment| Arc::ptr_eq(segment, old)) else {
            return false;
        };
        let mut segments = self.segments.to_vec();
        let (added, freed) = (new.bytes(), old.bytes());
        segments[place] = new;
        for behind in &segments[place + 1..] {
            behind.set_base(behind.base() + added - freed);
        }
        self.end = self.end + added - freed;
        self.segments = Arc::new(segments);
        true
    }
}

/// The segments that have events after this number.
pub(super) fn segments_after(segments: &[Arc<Segment>], after: u64) -> &[Arc<Segment>] {
    let beyond = segments.partition_point(|segment| segment.first() <= after.saturating_add(1));
    &segments[beyond.saturating_sub(1)..]
}

/// The newest entries, kept in memory.
#[derive(Debug, Default)]
pub(super) struct RecentEntries {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
}

impl RecentEntries {
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
        let mut page = Gathered::new(bytes_max);
        for entry in self.entries.range(start.min(self.entries.len())..) {
            if page.is_full() {
                break;
            }
            page.add(Arc::clone(entry));
        }
        Some(page.entries)
    }
}
