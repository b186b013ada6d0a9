//! One segment of the log: its place in it, its index, and what is known to be lost of it.
//!
//! The last segment grows and has its index in memory; all others are immutable and have theirs in a file. What the index says is only a way to the
//! records: these have checksums of their own, and a record that fails is counted among the lost.

use std::{
    collections::BTreeSet,
    io,
    sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tidings_topic::Cursor;

use super::{
    disk::Disk,
    index::{MemoryIndex, Places},
    index_file::{self, IndexFile},
    record::{EventRecord, Header},
    scan::Survey,
};
use crate::{Entry, IdempotencyKey, Timestamp, draft::Audience, ledger::position, memory::lock};

/// A segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: Header,
    /// The bytes of all segments before it, as far as they are known.
    pub(super) base: u64,
    index: RwLock<Index>,
    /// Events that turned out to be damaged when they were read, at most [`DAMAGED_MAX`].
    damaged: Mutex<BTreeSet<u64>>,
}

/// How many damaged events of one segment are remembered. Whatever is damaged beyond is still found, and told, when it is read.
const DAMAGED_MAX: usize = 10_000;

#[derive(Debug)]
enum Index {
    Memory(MemoryIndex),
    File(Summary),
}

/// What is kept in memory of an index in a file.
#[derive(Clone, Debug)]
struct Summary {
    count: u32,
    bytes: u64,
    earliest: Option<Timestamp>,
    latest: Timestamp,
    holes: Vec<(u32, u32)>,
}

/// The name of the segment that begins with this event.
pub(super) fn segment_name(first: u64) -> String {
    format!("{first:020}.log")
}

/// The name of its index.
pub(super) fn index_name(first: u64) -> String {
    format!("{first:020}.index")
}

/// The number in such a name.
pub(super) fn number_in(name: &str, ending: &str) -> Option<u64> {
    let digits = name.strip_suffix(ending)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The entry that was written down, and the key of the batch that begins with it.
pub(super) fn restore(header: &Header, record: EventRecord<'_>) -> Option<(Entry, Option<IdempotencyKey>)> {
    let cursor = Cursor { epoch: header.epoch, position: position(record.number) };
    let key = record.key.map_or(Some(None), |key| IdempotencyKey::new(key).map(Some))?;
    Some((Entry::new(cursor, record.time, record.event.restore()?), key))
}

impl Segment {
    /// A segment whose index is in memory.
    pub(super) fn with_memory(header: Header, base: u64, index: MemoryIndex) -> Self {
        Self { header, base, index: RwLock::new(Index::Memory(index)), damaged: Mutex::default() }
    }

    /// A full segment of so many bytes, if there is an index beside it that covers them.
    pub(super) fn with_file(
        disk: &dyn Disk,
        header: Header,
        base: u64,
        bytes: u64,
    ) -> io::Result<Option<Self>> {
        let summary = match Self::summary(disk, &header) {
            Ok(summary) => summary,
            Err(error) if is_no_index(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok((summary.bytes == bytes).then(|| Self {
            header,
            base,
            index: RwLock::new(Index::File(summary)),
            damaged: Mutex::default(),
        }))
    }

    fn summary(disk: &dyn Disk, header: &Header) -> io::Result<Summary> {
        let mut file = IndexFile::open(disk, &index_name(header.first), header.salt)?;
        Ok(Summary {
            count: file.count(),
            bytes: file.segment_bytes(),
            earliest: file.earliest()?,
            latest: file.latest(),
            holes: file.holes()?,
        })
    }

    /// The first event that it has or could have.
    pub(super) fn first(&self) -> u64 {
        self.header.first
    }

    /// The last event; one less than the first if there is none.
    pub(super) fn last(&self) -> u64 {
        let count = match &*self.read() {
            Index::Memory(index) => index.offsets.len() as u64,
            Index::File(summary) => u64::from(summary.count),
        };
        self.first() + count - 1
    }

    /// The bytes that count.
    pub(super) fn bytes(&self) -> u64 {
        match &*self.read() {
            Index::Memory(index) => index.bytes,
            Index::File(summary) => summary.bytes,
        }
    }

    /// The earliest and the latest time of an event.
    pub(super) fn times(&self) -> (Option<Timestamp>, Timestamp) {
        match &*self.read() {
            Index::Memory(index) => (index.times.first().map(|(_, time)| *time), index.latest),
            Index::File(summary) => (summary.earliest, summary.latest),
        }
    }

    /// The newest event that is lost after one event and up to another.
    pub(super) fn newest_lost(&self, after: u64, through: u64) -> Option<u64> {
        if through <= after {
            return None;
        }
        let first = self.first();
        let newest_of = |holes: &[(u32, u32)]| {
            let within = |(from, to): &(u32, u32)| {
                let (from, to) = (first + u64::from(*from), first + u64::from(*to));
                (from <= through && to > after).then(|| to.min(through))
            };
            holes.iter().filter_map(within).max()
        };
        let hole = match &*self.read() {
            Index::Memory(index) => newest_of(&index.holes),
            Index::File(summary) => newest_of(&summary.holes),
        };
        hole.max(lock(&self.damaged).range(after + 1..=through).next_back().copied())
    }

    /// Whether anything is lost.
    pub(super) fn has_lost(&self) -> bool {
        self.newest_lost(0, u64::MAX).is_some()
    }

    /// Counts an event among the lost: its record is damaged.
    pub(super) fn note_damaged(&self, number: u64) {
        let mut damaged = lock(&self.damaged);
        if damaged.len() < DAMAGED_MAX {
            damaged.insert(number);
        }
    }

    /// Looks something up.
    pub(super) fn look<T>(
        &self,
        disk: &dyn Disk,
        look: impl Fn(&mut dyn Places) -> io::Result<T>,
    ) -> io::Result<T> {
        if let Index::Memory(index) = &*self.read() {
            return look(&mut { index });
        }
        let in_file = IndexFile::open(disk, &index_name(self.first()), self.header.salt)
            .and_then(|mut file| look(&mut file));
        match in_file {
            Err(error) if is_no_index(&error) => look(&mut &self.rebuild(disk)?),
            answer => answer,
        }
    }

    /// The keys of its batches, oldest first, and the newest event of each audience, oldest first.
    pub(super) fn lists(&self, disk: &dyn Disk) -> io::Result<index_file::Lists> {
        if let Index::Memory(index) = &*self.read() {
            return Ok(lists(index));
        }
        let in_file = IndexFile::open(disk, &index_name(self.first()), self.header.salt)
            .and_then(|mut file| file.lists());
        match in_file {
            Err(error) if is_no_index(&error) => Ok(lists(&self.rebuild(disk)?)),
            answer => answer,
        }
    }

    /// Makes the index anew from the segment and puts it in its place.
    fn rebuild(&self, disk: &dyn Disk) -> io::Result<MemoryIndex> {
        let survey = Survey::new(disk.open(&segment_name(self.first()))?)?
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the segment lost its header"))?;
        let index = survey.index(&survey.settle(0, Some(self.last())))?;
        // Without it the next question makes it anew again: slow, and right.
        if index_file::write(disk, &index_name(self.first()), self.header.salt, &index).is_ok()
            && let Ok(summary) = Self::summary(disk, &self.header)
        {
            *self.write() = Index::File(summary);
        }
        Ok(index)
    }

    /// Adds to the index in memory what was written.
    pub(super) fn extend(&self, extend: impl FnOnce(&mut MemoryIndex)) {
        if let Index::Memory(index) = &mut *self.write() {
            extend(index);
        }
    }

    /// Moves the index from memory into its file.
    pub(super) fn seal(&self, disk: &dyn Disk) -> io::Result<()> {
        if let Index::Memory(index) = &*self.read() {
            index_file::write(disk, &index_name(self.first()), self.header.salt, index)?;
        } else {
            return Ok(());
        }
        let summary = Self::summary(disk, &self.header)?;
        *self.write() = Index::File(summary);
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lists(index: &MemoryIndex) -> index_file::Lists {
    let copy = |(audience, newest): (&std::sync::Arc<Audience>, &u32)| (*newest, Audience::clone(audience));
    let mut audiences: Vec<_> = index.audiences.iter().map(copy).collect();
    audiences.sort_unstable_by_key(|(newest, _)| *newest);
    (index.keys.clone(), audiences)
}

/// Whether there is no index, or none that can be used.
fn is_no_index(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound)
}
