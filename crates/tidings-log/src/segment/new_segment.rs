//! Beginning a segment.

use std::{io, sync::Arc};

use tidings_topic::Epoch;

use super::{
    disk::{Disk, DiskFile, TEMPORARY, write_full},
    index::{IndexedDeletion, MemoryIndex},
    record::{DeletionRecord, HEADER_BYTES, Header, Record, encode},
    record_reader::RecordReader,
    segment_file::{Segment, SegmentName},
};

/// Bytes that are read at once where deletions are read: they follow each other, or are far apart.
const AHEAD_BYTES: usize = 64 * 1024;

/// A segment without events, and its file.
#[derive(Debug)]
pub(super) struct NewSegment {
    pub(super) segment: Segment,
    pub(super) file: Arc<dyn DiskFile>,
}

impl NewSegment {
    /// Begins a segment after so many bytes of the log, and syncs it.
    pub(super) fn create(disk: &dyn Disk, header: Header, base: u64) -> io::Result<Self> {
        Self::with_deletions(disk, SegmentName::new(header.first), header, base, Vec::new())
    }

    /// Begins the same segment again, with its deletions. Of the two the new one is valid; the
    /// caller removes the old one.
    pub(super) fn create_in_place_of(disk: &dyn Disk, old: &Segment, epoch: Epoch) -> io::Result<Self> {
        let places = old.deletions(disk)?;
        let deletions = if places.is_empty() { Vec::new() } else { read_deletions(disk, old, &places)? };
        let name = SegmentName { generation: old.name.generation + 1, ..old.name };
        let header = Header { epoch, salt: random()?, ..old.header };
        Self::with_deletions(disk, name, header, old.base(), deletions)
    }

    fn with_deletions(
        disk: &dyn Disk,
        name: SegmentName,
        header: Header,
        base: u64,
        deletions: Vec<DeletionRecord>,
    ) -> io::Result<Self> {
        let mut bytes = header.encode();
        let mut index = MemoryIndex::new(HEADER_BYTES as u64);
        push_deletions(&header, 0, &mut bytes, &mut index, deletions)?;
        // It gets its name as a whole.
        let temporary = format!("{}{TEMPORARY}", name.log());
        let file = disk.create(&temporary)?;
        write_full(&*file, &bytes, 0)?;
        file.sync_data()?;
        disk.rename(&temporary, &name.log())?;
        disk.sync_directory()?;
        Ok(Self { segment: Segment::with_memory(name, header, base, index), file })
    }
}

/// Appends deletions to a buffer whose first byte will be at this offset of the segment, and adds
/// them to its index.
pub(super) fn push_deletions(
    header: &Header,
    buffer_offset: u64,
    buffer: &mut Vec<u8>,
    index: &mut MemoryIndex,
    deletions: Vec<DeletionRecord>,
) -> io::Result<()> {
    for deletion in deletions {
        let offset = buffer_offset + buffer.len() as u64;
        let offset = u32::try_from(offset).map_err(|_| io::ErrorKind::InvalidData)?;
        index.push_deletion(IndexedDeletion { offset, serial: deletion.serial });
        encode(header, buffer_offset, buffer, &Record::Deletion(deletion))
            .map_err(|_| io::ErrorKind::InvalidData)?;
    }
    index.summary.bytes = buffer_offset + buffer.len() as u64;
    Ok(())
}

/// The deletions of a segment at these places. One that is damaged is left out.
pub(super) fn read_deletions(
    disk: &dyn Disk,
    segment: &Segment,
    places: &[IndexedDeletion],
) -> io::Result<Vec<DeletionRecord>> {
    let mut reader = RecordReader::new(disk.open(&segment.name.log())?, segment.header)?;
    let mut deletions = Vec::with_capacity(places.len());
    for place in places {
        if let Some(Record::Deletion(deletion)) = reader.at(u64::from(place.offset), AHEAD_BYTES)?
            && deletion.serial == place.serial
        {
            deletions.push(deletion);
        }
    }
    Ok(deletions)
}

/// A number that nobody can guess.
pub(super) fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}
