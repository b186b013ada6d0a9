//! Finding and reading events of one segment: the newest from memory, the others from its files.

use std::{io, sync::Arc, vec};

use super::{
    index::{Direction, Row, Wanted, find},
    record::Record,
    record_reader::RecordReader,
    segment_file::Segment,
    store::Store,
};
use crate::{Entry, numbers::number};

/// Events that are looked up at a time.
pub(super) const LOOKUP_MAX: u32 = 256;
/// The same where the search goes backwards.
const LOOKUP_BACKWARDS_MAX: u32 = 32;
/// Bytes that are read at once where events are far from each other.
const SPARSE_BYTES: usize = 4 * 1024;
/// Bytes that are read at once where events follow each other.
const DENSE_BYTES: usize = 128 * 1024;

/// Events of a segment by their numbers, with what its index knows of each. They are looked up some
/// at a time.
pub(super) struct FoundEvents<'a> {
    store: &'a Store,
    segment: &'a Segment,
    wanted: &'a Wanted,
    direction: Direction,
    /// The indexes that are left.
    range: (u32, u32),
    found: vec::IntoIter<(u32, Row)>,
    may_be_more: bool,
}

impl<'a> FoundEvents<'a> {
    /// The wanted events after one number and up to another. An event with the same hash may be
    /// among them.
    pub(super) fn new(
        (store, segment): (&'a Store, &'a Segment),
        wanted: &'a Wanted,
        range: (u64, u64),
        direction: Direction,
    ) -> Self {
        let (range, found) = (segment.range(range), Vec::new().into_iter());
        Self { store, segment, wanted, direction, range, found, may_be_more: true }
    }

    fn look_up(&mut self) -> io::Result<Vec<(u32, Row)>> {
        let max = match self.direction {
            Direction::OldestFirst => LOOKUP_MAX,
            Direction::NewestFirst => LOOKUP_BACKWARDS_MAX,
        };
        let found: Vec<_> = self.segment.look(&*self.store.disk, |places| {
            let salt = self.segment.header.salt;
            let found = find(places, self.wanted, salt, self.range, (self.direction, max))?;
            found.into_iter().map(|index| Ok((index, places.row(index)?))).collect()
        })?;
        if let Some((last, _)) = found.last() {
            match self.direction {
                Direction::OldestFirst => self.range.0 = last + 1,
                Direction::NewestFirst => self.range.1 = *last,
            }
        }
        self.may_be_more = found.len() == max as usize;
        Ok(found)
    }
}

impl Iterator for FoundEvents<'_> {
    type Item = io::Result<(u64, Row)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.found.len() == 0 && std::mem::take(&mut self.may_be_more) {
            match self.look_up() {
                Ok(found) => self.found = found.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
        self.found.next().map(|(index, row)| Ok((self.segment.first() + u64::from(index), row)))
    }
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

    /// The entry with this number, whose record is at this offset, whether or not it is hidden.
    /// `None` if it is lost or removed.
    pub(super) fn get(&mut self, wanted: u64, offset: u32) -> io::Result<Option<Arc<Entry>>> {
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
