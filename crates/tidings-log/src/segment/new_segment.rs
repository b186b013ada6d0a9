//! Beginning a segment.

use std::{io, sync::Arc};

use tidings_topic::Epoch;

use super::{
    disk::{Disk, DiskFile, TEMPORARY},
    record::{DeletionRecord, Header},
    segment_file::{Segment, SegmentName},
    segment_output::SegmentOutput,
};

/// A segment without events, and its file.
#[derive(Debug)]
pub(super) struct NewSegment {
    pub(super) segment: Segment,
    pub(super) file: Arc<dyn DiskFile>,
    /// It is the last segment begun again. Of the two the new one is valid; the caller removes the
    /// old one.
    pub(super) replaces_last: bool,
}

impl NewSegment {
    /// Begins the first segment of a log whose next event has this number.
    pub(super) fn first(disk: &dyn Disk, first: u64, epoch: Epoch) -> io::Result<Self> {
        let header = Header { first, epoch, salt: random()? };
        Self::create(disk, SegmentName::new(first), header, 0, Vec::new())
    }

    /// Begins the segment after the last one. If that has no events, it is begun again, with its
    /// deletions.
    pub(super) fn after(disk: &dyn Disk, last: &Segment, epoch: Epoch) -> io::Result<Self> {
        let header = Header { first: last.last() + 1, epoch, salt: random()? };
        if header.first > last.first() {
            let (name, base) = (SegmentName::new(header.first), last.base() + last.bytes());
            return Self::create(disk, name, header, base, Vec::new());
        }
        let name = SegmentName { generation: last.name.generation + 1, ..last.name };
        let (deletions, _) = last.deletions_after(disk, 0)?;
        let new = Self::create(disk, name, header, last.base(), deletions)?;
        Ok(Self { replaces_last: true, ..new })
    }

    /// Writes a segment with these deletions, and syncs it.
    pub(super) fn create(
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
        let segment = Segment::with_memory(name, header, base, index);
        Ok(Self { segment, file, replaces_last: false })
    }
}

/// A number that nobody can guess.
pub(super) fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}
