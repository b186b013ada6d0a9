//! Beginning a segment.

use std::{io, sync::Arc};

use tidings_topic::Epoch;

use super::{
    disk::{Disk, DiskFile, TEMPORARY},
    index::IndexedDeletion,
    record::{DeletionRecord, Header, Record},
    record_reader::RecordReader,
    segment_file::{Segment, SegmentName},
    segment_output::SegmentOutput,
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
        // It gets its name as a whole.
        let temporary = format!("{}{TEMPORARY}", name.log());
        let file = disk.create(&temporary)?;
        let mut output = SegmentOutput::new(&*file, header);
        deletions.into_iter().try_for_each(|deletion| output.keep_deletion(deletion))?;
        let index = output.finish()?;
        file.sync_data()?;
        disk.rename(&temporary, &name.log())?;
        disk.sync_directory()?;
        Ok(Self { segment: Segment::with_memory(name, header, base, index), file })
    }
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
        if let Some(Record::Deletion(record)) = reader.at(u64::from(place.offset), AHEAD_BYTES)?
            && record.deletion.serial == place.serial
        {
            deletions.push(record);
        }
    }
    Ok(deletions)
}

/// A number that nobody can guess.
pub(super) fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}
