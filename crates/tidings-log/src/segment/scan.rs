//! Scanning a segment: reads it completely, and decides which events are valid.
//!
//! [`Survey`] finds every complete record, even after damaged ones. [`Survey::settle`] decides: an
//! event is valid if its group is complete, or if there is proof that it was acknowledged (a later
//! commit record, or a clean close of the log). Missing events among those are lost, which is
//! reported as a gap; events beyond them were never acknowledged, and the log ends before them.

use std::{io, ops::RangeInclusive, sync::Arc};

use super::{
    disk::{DiskFile, read_full},
    file::restore,
    index::MemoryIndex,
    record::{Commit, HEAD_BYTES, HEADER_BYTES, Head, Header, NoHeader, Record},
};

/// Bytes that are read at once where everything is read.
const WINDOW_BYTES: usize = 1024 * 1024;

/// Reads records of a segment through a window that moves on.
#[derive(Debug)]
pub(super) struct RecordReader {
    file: Arc<dyn DiskFile>,
    header: Header,
    file_bytes: u64,
    window: Vec<u8>,
    window_offset: u64,
}

/// What stands at an offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    Record(Head),
    Damaged,
    /// The file ends before the record does.
    Short,
}

impl RecordReader {
    pub(super) fn new(file: Arc<dyn DiskFile>, header: Header) -> io::Result<Self> {
        let file_bytes = file.len()?;
        Ok(Self { file, header, file_bytes, window: Vec::new(), window_offset: 0 })
    }

    /// Looks at the beginning of a record, and reads so many bytes ahead if there is need to read.
    pub(super) fn head(&mut self, offset: u64, ahead: usize) -> io::Result<Found> {
        let bytes = self.bytes(offset, HEAD_BYTES, ahead)?;
        let Some(bytes) = bytes.and_then(|bytes| bytes.first_chunk().copied()) else {
            return Ok(Found::Short);
        };
        let Some(head) = Head::decode(&self.header, offset, bytes) else { return Ok(Found::Damaged) };
        let fits = offset + head.bytes as u64 <= self.file_bytes;
        Ok(if fits { Found::Record(head) } else { Found::Short })
    }

    /// The record with this head. `None` if it is damaged.
    pub(super) fn record(&mut self, offset: u64, head: Head, ahead: usize) -> io::Result<Option<Record<'_>>> {
        let header = self.header;
        let bytes = self.bytes(offset, head.bytes, ahead)?;
        Ok(bytes.and_then(|bytes| head.record(&header, offset, &bytes[HEAD_BYTES..])))
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

/// What stands in a segment, from one end to the other.
#[derive(Debug)]
pub(super) enum Walked<'a> {
    Record {
        record: Record<'a>,
        offset: u64,
        end: u64,
    },
    /// No record can be read here; the next one begins at the end.
    Damaged {
        offset: u64,
        end: u64,
    },
    /// The file ends before the record does.
    Short {
        offset: u64,
        end: u64,
    },
}

/// Goes through a segment, also behind damage.
pub(super) fn walk(
    file: &Arc<dyn DiskFile>,
    header: Header,
    mut look: impl FnMut(Walked<'_>),
) -> io::Result<()> {
    let mut reader = RecordReader::new(Arc::clone(file), header)?;
    let file_bytes = reader.file_bytes;
    let mut offset = HEADER_BYTES as u64;
    while offset < file_bytes {
        let end = match reader.head(offset, WINDOW_BYTES)? {
            Found::Short => {
                look(Walked::Short { offset, end: file_bytes });
                break;
            }
            Found::Record(head) => {
                let end = offset + head.bytes as u64;
                match reader.record(offset, head, WINDOW_BYTES)? {
                    Some(record) => look(Walked::Record { record, offset, end }),
                    None => look(Walked::Damaged { offset, end }),
                }
                end
            }
            Found::Damaged => {
                let mut end = offset + 1;
                while end < file_bytes && !is_record(&mut reader, end)? {
                    end += 1;
                }
                look(Walked::Damaged { offset, end });
                end
            }
        };
        offset = end;
    }
    Ok(())
}

/// Every whole record of a segment.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) header: Header,
    file: Arc<dyn DiskFile>,
    file_bytes: u64,
    events: Vec<Place>,
    /// With where each ends.
    commits: Vec<(Commit, u64)>,
    /// The last offset at which no record stands although the file goes on.
    damaged_at: Option<u64>,
}

/// Where an event stands, or what was left in the place of some.
#[derive(Clone, Copy, Debug)]
struct Place {
    number: u64,
    /// The same, or the last of those that were removed.
    last: u64,
    is_removed: bool,
    offset: u64,
    end: u64,
}

/// What counts of a segment.
#[derive(Debug)]
pub(super) struct Settled {
    events: Vec<Place>,
    /// Everything that counts stands before this offset.
    pub(super) end: u64,
    /// Events at the end are gone that had been acknowledged.
    pub(super) end_lost: bool,
    /// Something is cut off, and it is not just a write that broke off.
    pub(super) end_damaged: bool,
    /// There is nothing behind the end.
    pub(super) whole: bool,
}

impl Survey {
    /// Reads a segment from end to end.
    pub(super) fn new(file: Arc<dyn DiskFile>) -> io::Result<Result<Self, NoHeader>> {
        let mut bytes = [0; HEADER_BYTES];
        let read = read_full(&*file, &mut bytes, 0)?;
        let header = match Header::decode(&bytes[..read]) {
            Ok(header) => header,
            Err(none) => return Ok(Err(none)),
        };
        let (events, commits) = (Vec::new(), Vec::new());
        let (known, file_bytes) = (Arc::clone(&file), file.len()?);
        let mut survey = Self { header, file, file_bytes, events, commits, damaged_at: None };
        walk(&known, header, |walked| match walked {
            Walked::Record { record: Record::Event(event), offset, end } => {
                survey.note(event.number..=event.number, false, offset, end);
            }
            Walked::Record { record: Record::Removed { first, last }, offset, end } => {
                survey.note(first..=last, true, offset, end);
            }
            Walked::Record { record: Record::Commit(commit), end, .. } => survey.commits.push((commit, end)),
            Walked::Record { record: Record::Other, .. } | Walked::Short { .. } => {}
            Walked::Damaged { offset, .. } => survey.damaged_at = Some(offset),
        })?;
        Ok(Ok(survey))
    }

    fn note(&mut self, numbers: RangeInclusive<u64>, is_removed: bool, offset: u64, end: u64) {
        let (number, last) = numbers.into_inner();
        let next = self.events.last().map_or(self.header.first, |before| before.last + 1);
        if number >= next {
            self.events.push(Place { number, last, is_removed, offset, end });
        }
    }

    /// The newest event that, by what this segment says, had been synced.
    pub(super) fn synced_through(&self) -> u64 {
        self.commits.iter().map(|(commit, _)| commit.synced_through).max().unwrap_or_default()
    }

    /// Decides what counts, where everything up to `acknowledged` is known to have been
    /// acknowledged. A segment that others follow also ends with a known event.
    pub(super) fn settle(&self, acknowledged: u64, known_last: Option<u64>) -> Settled {
        let first = self.header.first;
        let acknowledged = acknowledged.max(self.synced_through()).max(known_last.unwrap_or_default());
        let groups: Vec<_> =
            self.commits.iter().map(|(commit, _)| *commit).filter(|commit| self.is_whole(commit)).collect();
        let in_group = |number| {
            let place = groups.partition_point(|commit| commit.last < number);
            groups.get(place).is_some_and(|commit| commit.first <= number)
        };
        let mut last = first - 1;
        let mut events = Vec::new();
        for place in &self.events {
            let (gap_end, number) = (place.number - 1, place.last);
            let beyond = known_last.is_some_and(|known| number > known);
            let unproven = number > acknowledged && (!in_group(number) || gap_end > last.max(acknowledged));
            if beyond || unproven {
                break;
            }
            events.push(*place);
            last = number;
        }
        let commits_end = self.commits.iter().filter(|(commit, _)| commit.last <= last).map(|(_, end)| *end);
        let end = events.last().map_or(HEADER_BYTES as u64, |place| place.end);
        let end = commits_end.fold(end, u64::max);
        let end_lost = known_last.is_none() && acknowledged > last && acknowledged >= first;
        Settled {
            events,
            end,
            end_lost,
            end_damaged: self.damaged_at.is_some_and(|offset| offset >= end),
            whole: end == self.file_bytes,
        }
    }

    fn is_whole(&self, commit: &Commit) -> bool {
        let start = self.events.partition_point(|place| place.number < commit.first);
        let count = commit.last.checked_sub(commit.first).and_then(|more| usize::try_from(more).ok());
        let last = count.and_then(|more| self.events.get(start.checked_add(more)?));
        self.events.get(start).is_some_and(|place| place.number == commit.first)
            && last.is_some_and(|place| place.last == commit.last)
    }

    /// Makes the index of what counts.
    pub(super) fn index(&self, settled: &Settled) -> io::Result<MemoryIndex> {
        let mut index = MemoryIndex::new(self.header.salt, settled.end);
        let mut reader = RecordReader::new(Arc::clone(&self.file), self.header)?;
        let mut next = self.header.first;
        for place in &settled.events {
            push_hole(&mut index, place.number - next);
            next = place.last + 1;
            if place.is_removed {
                index.push_removed(u32::try_from(next - place.number).unwrap_or(HOLE_MAX).min(HOLE_MAX));
                continue;
            }
            let restored = match reader.head(place.offset, WINDOW_BYTES)? {
                Found::Record(head) => match reader.record(place.offset, head, WINDOW_BYTES)? {
                    Some(Record::Event(record)) => restore(&self.header, record),
                    _ => None,
                },
                Found::Damaged | Found::Short => None,
            };
            let (offset, length) = (u32::try_from(place.offset), u32::try_from(place.end - place.offset));
            match (restored, offset, length) {
                (Some((entry, key)), Ok(offset), Ok(length)) => {
                    index.push((offset, length), entry.time, &entry.event, key.as_ref());
                }
                _ => index.push_hole(1),
            }
        }
        Ok(index)
    }
}

/// As many as a segment can have: if its neighbours claim that there are more between them, then
/// these are wrong.
fn push_hole(index: &mut MemoryIndex, count: u64) {
    index.push_hole(u32::try_from(count).unwrap_or(HOLE_MAX).min(HOLE_MAX));
}

/// Most lost events in one stretch of one segment.
const HOLE_MAX: u32 = 1 << 26;

fn is_record(reader: &mut RecordReader, offset: u64) -> io::Result<bool> {
    match reader.head(offset, WINDOW_BYTES)? {
        Found::Record(head) => Ok(reader.record(offset, head, WINDOW_BYTES)?.is_some()),
        Found::Damaged | Found::Short => Ok(false),
    }
}
