//! Writes records to a segment that nobody else writes to, and makes its index. Of a segment that is
//! rewritten with fewer events, kept events keep their number, id and time, and a short record
//! replaces removed ones. Deletions follow the events.

use std::io;

use super::{
    disk::DiskFile,
    index::{IndexedDeletion, IndexedEvent, MemoryIndex},
    record::{Commit, DeletionRecord, EventRecord, HEADER_BYTES, Header, Record, encode},
};
use crate::draft::Audience;

/// Bytes that are written at once.
const WINDOW_BYTES: usize = 1024 * 1024;

/// A segment that is being written.
pub(super) struct SegmentOutput<'a> {
    file: &'a dyn DiskFile,
    header: Header,
    index: MemoryIndex,
    buffer: Vec<u8>,
    /// The bytes of the file before the buffer.
    written: u64,
    /// The events that were removed since the last one that stays.
    removed: Option<(u64, u64)>,
}

impl<'a> SegmentOutput<'a> {
    /// A new segment.
    pub(super) fn new(file: &'a dyn DiskFile, header: Header) -> Self {
        let (index, buffer) = (MemoryIndex::new(HEADER_BYTES as u64), header.encode());
        Self { file, header, index, buffer, written: 0, removed: None }
    }

    /// A segment that is continued behind what its index covers.
    pub(super) fn continued(file: &'a dyn DiskFile, header: Header, index: MemoryIndex) -> Self {
        let written = index.summary.bytes;
        Self { file, header, index, buffer: Vec::new(), written, removed: None }
    }

    /// The next event is not there any more.
    pub(super) fn remove(&mut self, number: u64) {
        let first = self.removed.map_or(number, |(first, _)| first);
        self.removed = Some((first, number));
    }

    /// The next event is this one.
    pub(super) fn keep(&mut self, record: EventRecord<'_>) -> io::Result<()> {
        let too_large = || io::Error::new(io::ErrorKind::InvalidData, "a record no longer fits");
        self.end_removed()?;
        let start = self.buffer.len();
        let record = Record::Event(record);
        encode(&self.header, self.written, &mut self.buffer, &record).map_err(|_| too_large())?;
        let offset = u32::try_from(self.written + start as u64).map_err(|_| too_large())?;
        let length = u32::try_from(self.buffer.len() - start).map_err(|_| too_large())?;
        let Record::Event(record) = record else { return Err(too_large()) };
        let (entry, key) = record
            .restore(&self.header)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a record contains no event"))?;
        let event = (&entry.event, Audience::of(&entry.event));
        self.index.push(IndexedEvent::new(self.header.salt, (offset, length), entry.time, event, key));
        self.flush_beyond(WINDOW_BYTES)
    }

    /// Keeps a deletion. No event may follow.
    pub(super) fn keep_deletion(&mut self, record: DeletionRecord) -> io::Result<()> {
        self.end_removed()?;
        let offset = self.written + self.buffer.len() as u64;
        let offset = u32::try_from(offset).map_err(|_| io::ErrorKind::InvalidData)?;
        self.index.push_deletion(IndexedDeletion { offset, serial: record.deletion.serial });
        self.push(&Record::Deletion(record))?;
        self.flush_beyond(WINDOW_BYTES)
    }

    fn end_removed(&mut self) -> io::Result<()> {
        let Some((first, last)) = self.removed.take() else { return Ok(()) };
        self.index.push_removed(u32::try_from(last - first + 1).map_err(io::Error::other)?);
        self.push(&Record::Removed { first, last })
    }

    fn push(&mut self, record: &Record<'_>) -> io::Result<()> {
        encode(&self.header, self.written, &mut self.buffer, record)
            .map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn flush_beyond(&mut self, bytes: usize) -> io::Result<()> {
        if self.buffer.len() > bytes {
            self.file.write_all_at(&self.buffer, self.written)?;
            self.written += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Ends the segment with a record that says that all of it had been acknowledged.
    pub(super) fn commit(mut self, last: u64) -> io::Result<MemoryIndex> {
        self.end_removed()?;
        self.push(&Record::Commit(Commit { first: self.header.first, last, synced_through: last }))?;
        self.finish()
    }

    /// Ends the segment.
    pub(super) fn finish(mut self) -> io::Result<MemoryIndex> {
        self.flush_beyond(0)?;
        self.index.summary.bytes = self.written;
        Ok(self.index)
    }
}
