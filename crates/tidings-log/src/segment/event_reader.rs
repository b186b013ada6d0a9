//! Reading single events: the newest from memory, the others from the files of their segment.

use std::{io, sync::Arc};

use super::{
    index::{Places, Row},
    record::Record,
    record_reader::RecordReader,
    segment_file::Segment,
    store::Store,
};
use crate::{Entry, numbers::number};

/// Places that are looked up at a time.
pub(super) const LOOKUP_MAX: usize = 256;
/// Bytes that are read at once where events are far from each other.
const SPARSE_BYTES: usize = 4 * 1024;
/// Bytes that are read at once where events follow each other.
const DENSE_BYTES: usize = 128 * 1024;

/// Looks up events of a segment by their indexes, and what its index knows of each.
pub(super) fn rows(
    store: &Store,
    segment: &Segment,
    range: (u32, u32),
    find: impl Fn(&mut dyn Places, (u32, u32)) -> io::Result<Vec<u32>>,
) -> io::Result<Vec<(u32, Row)>> {
    segment.look(&*store.disk, |places| {
        let found = find(places, range)?;
        found.into_iter().map(|index| Ok((index, places.row(index)?))).collect()
    })
}

/// The index of the first event after a number.
pub(super) fn index_after(segment: &Segment, after: u64) -> u32 {
    u32::try_from(after.saturating_add(1).saturating_sub(segment.first())).unwrap_or(u32::MAX)
}

/// The index behind the last event up to a number.
pub(super) fn until(segment: &Segment, through: u64) -> u32 {
    u32::try_from((through + 1).saturating_sub(segment.first())).unwrap_or(u32::MAX)
}

/// Reads events of one segment.
pub(super) struct EventReader<'a> {
    store: &'a Store,
    segment: &'a Segment,
    reader: Option<RecordReader>,
    last_offset: u64,
}

impl<'a> EventReader<'a> {
    pub(super) fn new(store: &'a Store, segment: &'a Segment) -> Self {
        Self { store, segment, reader: None, last_offset: 0 }
    }

    /// The entry of this index, whose record is at this offset, whether or not it is hidden. `None`
    /// if it is lost or removed.
    pub(super) fn get(&mut self, index: u32, offset: u32) -> io::Result<Option<Arc<Entry>>> {
        let wanted = self.segment.first() + u64::from(index);
        // What was removed may still be in memory.
        if offset == 0 {
            return Ok(None);
        }
        if let Some(entry) = self.store.acknowledged().recent.get(wanted) {
            return Ok(Some(Arc::clone(entry)));
        }
        let entry = self.read_file(u64::from(offset))?;
        let entry = entry.filter(|entry| number(entry.cursor.position) == wanted);
        if entry.is_none() {
            self.store.note_damage(self.segment, wanted);
        }
        Ok(entry.map(Arc::new))
    }

    fn read_file(&mut self, offset: u64) -> io::Result<Option<Entry>> {
        let near = offset.abs_diff(self.last_offset) < SPARSE_BYTES as u64;
        let ahead = if near { DENSE_BYTES } else { SPARSE_BYTES };
        self.last_offset = offset;
        let header = self.segment.header;
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => {
                let file = self.store.disk.open(&self.segment.name.log())?;
                none.insert(RecordReader::new(file, header)?)
            }
        };
        Ok(match reader.at(offset, ahead)? {
            Some(Record::Event(record)) => record.restore(&header).map(|(entry, _)| entry),
            _ => None,
        })
    }
}
