//! One segment of the log: its number range, its index, and its lost events.
//!
//! The last segment is active and has its index in memory; all others are immutable and have an
//! index file. The index only locates records. Records have their own checksums, and a record whose
//! checksum does not match counts as lost.

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use super::{
    disk::Disk,
    index::{Lists, MemoryIndex, Places, Row, Summary},
    index_file::{self, IndexFile, ROW_BYTES},
    record::{DeletionRecord, Header},
    record_reader::RecordReader,
    survey::Survey,
};
use crate::{Timestamp, draft::Audience, lock::lock};

/// A segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: SegmentName,
    pub(super) header: Header,
    /// The bytes of all segments before it, as far as they are known. They become fewer when one of
    /// those is compacted.
    base: AtomicU64,
    index: RwLock<Index>,
    /// How often the index was made anew.
    rebuilt: AtomicU32,
    /// One more than the serial of the newest deletion of which nothing is left here.
    clean: AtomicU64,
    sealing: Mutex<()>,
    /// Events that turned out to be damaged when they were read, at most [`DAMAGED_MAX`].
    damaged: Mutex<BTreeSet<u64>>,
}

/// How many damaged events of one segment are remembered. Where there are more, every event of the
/// segment counts as lost: a gap is reported to each reader that passes one.
const DAMAGED_MAX: usize = 10_000;

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each segment, and these are few")]
enum Index {
    Memory(MemoryIndex),
    File(Summary),
}

/// What the files of a segment are named after: its first event, and how often it was compacted. Of
/// two that begin with the same event the later one holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct SegmentName {
    pub(super) first: u64,
    pub(super) generation: u32,
}

impl SegmentName {
    pub(super) fn new(first: u64) -> Self {
        Self { first, generation: 0 }
    }

    /// `00000000000000000001.log`, and `00000000000000000001-1.log` when it was compacted once.
    pub(super) fn log(self) -> String {
        self.with_ending("log")
    }

    /// The name of its index.
    pub(super) fn index(self) -> String {
        self.with_ending("index")
    }

    /// The segments that hold of those with these names, in order, and those that were replaced by
    /// others.
    pub(super) fn all_of(names: &[String]) -> (Vec<Self>, Vec<Self>) {
        let mut all: Vec<_> = names.iter().filter_map(|name| Self::parse(name)).collect();
        all.sort_unstable();
        let firsts: Vec<_> = all.iter().skip(1).map(|name| name.first).collect();
        let mut following = firsts.into_iter();
        all.into_iter().partition(|name| following.next() != Some(name.first))
    }

    fn with_ending(self, ending: &str) -> String {
        match self.generation {
            0 => format!("{:020}.{ending}", self.first),
            generation => format!("{:020}-{generation}.{ending}", self.first),
        }
    }

    /// What the name of a segment says.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (first, generation) =
            name.strip_suffix(".log").map(|name| name.split_once('-').unwrap_or((name, "0")))?;
        let name_of = Self { first: first.parse().ok()?, generation: generation.parse().ok()? };
        (name_of.log() == name).then_some(name_of)
    }
}

impl Segment {
    /// A segment whose index is in memory.
    pub(super) fn with_memory(name: SegmentName, header: Header, base: u64, index: MemoryIndex) -> Self {
        Self::new(name, header, base, Index::Memory(index))
    }

    fn new(name: SegmentName, header: Header, base: u64, index: Index) -> Self {
        let (index, base) = (RwLock::new(index), AtomicU64::new(base));
        let (rebuilt, clean) = (AtomicU32::default(), AtomicU64::default());
        Self {
            name,
            header,
            base,
            index,
            rebuilt,
            clean,
            sealing: Mutex::default(),
            damaged: Mutex::default(),
        }
    }

    /// A full segment of so many bytes, if there is an index beside it that covers them.
    pub(super) fn with_file(
        disk: &dyn Disk,
        name: SegmentName,
        header: Header,
        base: u64,
        bytes: u64,
    ) -> io::Result<Option<Self>> {
        let summary = match Self::summary_of(disk, name, &header) {
            Ok(summary) => summary,
            Err(error) if is_no_index(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok((summary.bytes == bytes).then(|| Self::new(name, header, base, Index::File(summary))))
    }

    fn summary_of(disk: &dyn Disk, name: SegmentName, header: &Header) -> io::Result<Summary> {
        IndexFile::open(disk, &name.index(), header.salt)?.summary()
    }

    /// Looks at what is in memory of its index.
    pub(super) fn summary<T>(&self, look: impl FnOnce(&Summary) -> T) -> T {
        match &*self.read() {
            Index::Memory(index) => look(&index.summary),
            Index::File(summary) => look(summary),
        }
    }

    /// The first event that it has or could have.
    pub(super) fn first(&self) -> u64 {
        self.header.first
    }

    /// The last event; one less than the first if there is none.
    pub(super) fn last(&self) -> u64 {
        self.first() + self.summary(|summary| u64::from(summary.count)) - 1
    }

    /// The bytes that count. What was removed still takes a row of the index; counting that bounds
    /// how many such rows there can be.
    pub(super) fn bytes(&self) -> u64 {
        self.summary(|summary| summary.bytes + u64::from(summary.removed.count) * ROW_BYTES)
    }

    /// The bytes of its file that count.
    pub(super) fn file_bytes(&self) -> u64 {
        self.summary(|summary| summary.bytes)
    }

    /// The newest event that compaction took out.
    pub(super) fn newest_removed(&self) -> Option<u64> {
        let until = self.summary(|summary| summary.removed.until);
        until.checked_sub(1).map(|last| self.first() + u64::from(last))
    }

    /// The bytes of all segments before it.
    pub(super) fn base(&self) -> u64 {
        self.base.load(Ordering::Relaxed)
    }

    /// The segments before it were compacted. The caller holds the lock on the work of retention.
    pub(super) fn set_base(&self, base: u64) {
        self.base.store(base, Ordering::Relaxed);
    }

    /// Nothing is left here of what was deleted up to this deletion.
    pub(super) fn note_clean(&self, serial: u64) {
        self.clean.fetch_max(serial + 1, Ordering::Relaxed);
    }

    /// Whether nothing is left here of what this deletion took.
    pub(super) fn is_clean(&self, serial: u64) -> bool {
        self.clean.load(Ordering::Relaxed) > serial
    }

    /// How often the index was made anew: the places of audiences may be others since.
    pub(super) fn rebuilt(&self) -> u32 {
        self.rebuilt.load(Ordering::Relaxed)
    }

    /// How many audiences there are.
    pub(super) fn audiences_count(&self) -> usize {
        self.summary(|summary| summary.audiences as usize)
    }

    /// Who can receive what is in it, from this place of the list on.
    pub(super) fn audiences_from(&self, disk: &dyn Disk, place: usize) -> io::Result<Vec<Arc<Audience>>> {
        let of = |(audience, _): &(Arc<Audience>, u32)| Arc::clone(audience);
        if let Index::Memory(index) = &*self.read() {
            return Ok(index.audiences.iter().skip(place).map(of).collect());
        }
        Ok(self.lists(disk)?.1.iter().skip(place).map(of).collect())
    }

    /// The index of the first event after one number, and that behind the last one up to another.
    pub(super) fn range(&self, (after, through): (u64, u64)) -> (u32, u32) {
        let behind = |number: u64| number.saturating_add(1).saturating_sub(self.first());
        let index = |number| u32::try_from(behind(number)).unwrap_or(u32::MAX);
        (index(after), index(through))
    }

    /// What is known of the events after one number and up to another, as far as there are so many.
    pub(super) fn rows(&self, disk: &dyn Disk, range: (u64, u64)) -> io::Result<Vec<(u64, Row)>> {
        let (from, until) = self.range(range);
        self.look(disk, |places| {
            let range = from..until.min(places.count());
            range.map(|index| Ok((self.first() + u64::from(index), places.row(index)?))).collect()
        })
    }

    /// The earliest and the latest time of an event.
    pub(super) fn times(&self) -> (Option<Timestamp>, Timestamp) {
        self.summary(|summary| (summary.earliest, summary.latest))
    }

    /// The newest event that is lost after one event and up to another.
    pub(super) fn newest_lost(&self, after: u64, through: u64) -> Option<u64> {
        if through <= after {
            return None;
        }
        let within = |(from, to)| (from <= through && to > after).then(|| through.min(to));
        let hole = self.summary(|summary| summary.lost(self.first()).filter_map(within).max());
        let last = self.last();
        let damaged = lock(&self.damaged);
        hole.max(if damaged.len() < DAMAGED_MAX {
            damaged.range(after + 1..=through).next_back().copied()
        } else {
            within((self.first(), last))
        })
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
        let in_file =
            IndexFile::open(disk, &self.name.index(), self.header.salt).and_then(|mut file| look(&mut file));
        match in_file {
            Err(error) if is_no_index(&error) => look(&mut &self.rebuild(disk)?),
            answer => answer,
        }
    }

    /// The answer to several questions that the same index has to answer: they are asked again if it
    /// was made anew between them.
    pub(super) fn of_one_index<T>(&self, mut ask: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let rebuilt = self.rebuilt();
        let answer = ask()?;
        // Where the new index cannot be written, each question makes the same one again.
        if self.rebuilt() == rebuilt { Ok(answer) } else { ask() }
    }

    /// The deletions in it after the one with this serial number, in their order, and whether all
    /// of them can be read.
    pub(super) fn deletions_after(
        &self,
        disk: &dyn Disk,
        serial: u64,
    ) -> io::Result<(Vec<DeletionRecord>, bool)> {
        if self.summary(|summary| summary.deletions) == 0 {
            return Ok((Vec::new(), true));
        }
        let mut places = self.look(disk, |places| places.deletions())?;
        places.retain(|place| place.serial > serial);
        let deletions = RecordReader::new(disk.open(&self.name.log())?, self.header)?.deletions(&places)?;
        let are_whole = deletions.len() == places.len();
        Ok((deletions, are_whole))
    }

    /// The keys of its batches, and who can receive what.
    pub(super) fn lists(&self, disk: &dyn Disk) -> io::Result<Lists> {
        self.look(disk, |places| places.lists())
    }

    /// Makes the index anew from the segment and puts it in its place.
    fn rebuild(&self, disk: &dyn Disk) -> io::Result<MemoryIndex> {
        let survey = Survey::new(disk.open(&self.name.log())?, self.header)?;
        let index = survey.index(&survey.settle(0, Some(self.last())))?;
        self.rebuilt.fetch_add(1, Ordering::Relaxed);
        // Without it the next question makes it anew again: slow, and right.
        if index_file::write(disk, &self.name.index(), self.header.salt, &index).is_ok()
            && let Ok(summary) = Self::summary_of(disk, self.name, &self.header)
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

    /// Whether its index is in a file.
    pub(super) fn is_sealed(&self) -> bool {
        matches!(&*self.read(), Index::File(_))
    }

    /// Moves the index from memory into its file. Nothing may be added to it afterwards.
    pub(super) fn seal(&self, disk: &dyn Disk) -> io::Result<()> {
        let _one_at_a_time = lock(&self.sealing);
        if let Index::Memory(index) = &*self.read() {
            index_file::write(disk, &self.name.index(), self.header.salt, index)?;
        } else {
            return Ok(());
        }
        let summary = Self::summary_of(disk, self.name, &self.header)?;
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

/// Whether there is no index, or none that can be used.
fn is_no_index(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound)
}
