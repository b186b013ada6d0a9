//! Reading the records of a segment at known offsets.

use std::{io, sync::Arc};

use super::{
    disk::{DiskFile, read_full},
    index::IndexedDeletion,
    record::{DeletionRecord, HEAD_BYTES, Header, Record, RecordHead},
};

/// Bytes that are read at once where everything is read.
pub(super) const WINDOW_BYTES: usize = 1024 * 1024;
/// The same where deletions are read: they follow each other, or are far apart.
const DELETIONS_BYTES: usize = 64 * 1024;

/// Reads records of a segment through a window that moves on.
#[derive(Debug)]
pub(super) struct RecordReader {
    file: Arc<dyn DiskFile>,
    header: Header,
    pub(super) file_bytes: u64,
    window: Vec<u8>,
    window_offset: u64,
}

/// What is at an offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeadFound {
    Whole(RecordHead),
    Damaged,
    /// The file ends before the record does.
    Short,
}

impl RecordReader {
    pub(super) fn new(file: Arc<dyn DiskFile>, header: Header) -> io::Result<Self> {
        let file_bytes = file.len()?;
        Ok(Self { file, header, file_bytes, window: Vec::new(), window_offset: 0 })
    }

    /// The record at this offset, whose beginning may be damaged as well. Reads so many bytes ahead
    /// if there is need to read.
    pub(super) fn at(&mut self, offset: u64, ahead: usize) -> io::Result<Option<Record<'_>>> {
        match self.head(offset, ahead)? {
            HeadFound::Whole(head) => self.record(offset, head, ahead),
            HeadFound::Damaged | HeadFound::Short => Ok(None),
        }
    }

    /// The deletions at these places. One that is damaged is left out.
    pub(super) fn deletions(&mut self, places: &[IndexedDeletion]) -> io::Result<Vec<DeletionRecord>> {
        let mut deletions = Vec::with_capacity(places.len());
        for place in places {
            if let Some(Record::Deletion(record)) = self.at(u64::from(place.offset), DELETIONS_BYTES)?
                && record.deletion.serial == place.serial
            {
                deletions.push(record);
            }
        }
        Ok(deletions)
    }

    /// Looks at the beginning of a record, and reads so many bytes ahead if there is need to read.
    pub(super) fn head(&mut self, offset: u64, ahead: usize) -> io::Result<HeadFound> {
        let bytes = self.bytes(offset, HEAD_BYTES, ahead)?;
        let Some(bytes) = bytes.and_then(|bytes| bytes.first_chunk().copied()) else {
            return Ok(HeadFound::Short);
        };
        let Some(head) = RecordHead::decode(&self.header, offset, bytes) else {
            return Ok(HeadFound::Damaged);
        };
        let fits = offset + head.bytes as u64 <= self.file_bytes;
        Ok(if fits { HeadFound::Whole(head) } else { HeadFound::Short })
    }

    /// The record with this head. `None` if it is damaged.
    pub(super) fn record(
        &mut self,
        offset: u64,
        head: RecordHead,
        ahead: usize,
    ) -> io::Result<Option<Record<'_>>> {
        let bytes = self.bytes(offset, head.bytes, ahead)?;
        Ok(bytes.and_then(|bytes| head.record(&bytes[HEAD_BYTES..])))
    }

    fn bytes(&mut self, offset: u64, count: usize, ahead: usize) -> io::Result<Option<&[u8]>> {
        let start = offset.checked_sub(self.window_offset).and_then(|start| usize::try_from(start).ok());
        let inside = start.filter(|start| start + count <= self.window.len());
        let start = if let Some(start) = inside {
            start
        } else {
            // Not more than there is: a window is cleared before it is read into.
            let left = usize::try_from(self.file_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
            self.window.clear();
            self.window.resize(count.max(ahead).min(left), 0);
            let read = read_full(&*self.file, &mut self.window, offset)?;
            self.window.truncate(read);
            self.window_offset = offset;
            0
        };
        Ok(self.window.get(start..start + count))
    }
}
