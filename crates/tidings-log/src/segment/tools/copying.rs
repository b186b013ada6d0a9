//! Copies the undamaged events of a log into a new directory: a repair, or a backup.

use std::{collections::BTreeSet, fs, io, path::Path};

use super::{
    super::{
        disk::{Disk, RealDisk},
        front_file::SavedFront,
        index_file,
        new_segment::{NewSegment, random},
        record::{DeletionRecord, Header, Record},
        record_reader::{RecordReader, WINDOW_BYTES},
        recover::epochs,
        segment_file::SegmentName,
        segment_output::SegmentOutput,
        small_file::SmallFile,
        state_file::LogState,
    },
    files::{Files, Finding, ReadSegment, ToolFailure},
};

/// The result of a repair or a backup.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Copied {
    /// Events that were copied.
    pub events: u64,
    /// Acknowledged events that could not be copied. Each range was reported.
    pub lost: u64,
}

/// A directory for a copy: one that is empty, or is made.
pub(super) fn new_directory(directory: &Path) -> Result<RealDisk, ToolFailure> {
    let is_empty = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        entries => entries?.next().is_none(),
    };
    if !is_empty {
        return Err(ToolFailure::NotEmpty);
    }
    let (disk, _lock) = RealDisk::open(directory)?;
    Ok(disk)
}

/// A log that is being copied.
pub(super) struct Copying<'a> {
    files: &'a Files,
    output: RealDisk,
    /// The newest state of the file `front` that was read.
    front: SavedFront,
    /// The last event before those that have to be there, if that is known.
    first_known: Option<u64>,
    copied: Copied,
    /// Deletions that are not written yet.
    deletions: Vec<DeletionRecord>,
    /// The serial number of the newest deletion that was found.
    pub(super) newest_deletion: u64,
    /// The last number of each stretch that is lost.
    lost: BTreeSet<u64>,
    /// The last event that was copied or is known to be lost.
    newest: Option<u64>,
    /// The last event before those that are there.
    begins_after: u64,
    /// The headers of the segments that were copied.
    headers: Vec<Header>,
    /// The end is lost, or others may continue it: the copy begins a new epoch there.
    end_lost: bool,
}

impl<'a> Copying<'a> {
    pub(super) fn new(files: &'a Files, output: RealDisk) -> Self {
        Self {
            files,
            output,
            front: files.front.clone(),
            first_known: files.first_known,
            copied: Copied::default(),
            deletions: Vec::new(),
            newest_deletion: files.front.deletions_done_through,
            lost: BTreeSet::new(),
            newest: None,
            begins_after: 0,
            headers: Vec::new(),
            end_lost: false,
        }
    }

    /// Copies what is whole of a segment, which another one follows or not.
    pub(super) fn copy(
        &mut self,
        name: SegmentName,
        next: Option<u64>,
        report: &mut impl FnMut(Finding),
    ) -> Result<(), ToolFailure> {
        let log = name.log();
        let Some(read) = self.files.read(name, next, report)? else {
            // What it held is missing before whatever follows. At the end nobody knows how much that
            // was.
            self.end_lost |= next.is_none();
            return Ok(());
        };
        let ReadSegment { file, survey, settled, index, newest } = read;
        let header = survey.header;
        self.end_lost |= settled.end_lost;
        let mut reader = RecordReader::new(file, header)?;
        self.deletions.extend(reader.deletions(&index.deletions)?);
        // Those beyond the end of a segment that others follow were written again.
        if next.is_none() {
            self.deletions.extend(survey.deletions_beyond(&settled, newest)?);
        }
        let serials = self.deletions.iter().map(|record| record.deletion.serial);
        self.newest_deletion = serials.fold(self.newest_deletion, u64::max);
        let mut lost = Vec::new();
        // The numbers before it that no segment has any more are put in front of it.
        let first = self.newest.map_or(header.first, |newest| newest + 1);
        let expected = self.newest.max(self.first_known).map_or(header.first, |known| known + 1);
        if self.newest.is_none() {
            self.begins_after = header.first - 1;
        }
        if expected < header.first {
            lost.push((expected, header.first - 1));
        }
        lost.extend(index.summary.lost(header.first));
        if newest < first {
            return Ok(());
        }
        let out_name = SegmentName::new(first);
        let out_header = Header { first, salt: random()?, ..header };
        let out = self.output.create(&out_name.log())?;
        let mut output = SegmentOutput::new(&*out, out_header);
        for number in first..header.first {
            output.remove(number);
        }
        for (number, row) in (header.first..).zip(&index.rows) {
            let offset = u64::from(row.offset);
            let record = if offset > 0 { reader.at(offset, WINDOW_BYTES)? } else { None };
            match record {
                Some(Record::Event(record)) => {
                    output.keep(record)?;
                    self.copied.events += 1;
                }
                _ => output.remove(number),
            }
        }
        for deletion in self.deletions.drain(..) {
            output.keep_deletion(deletion)?;
        }
        let index = output.commit(newest)?;
        out.sync_data()?;
        index_file::write(&self.output, &out_name.index(), out_header.salt, &index)?;
        for (from, to) in lost {
            self.copied.lost += to - from + 1;
            self.lost.insert(to);
            report(Finding::of(&log, None, format!("events {from} to {to} are lost")));
        }
        self.headers.push(header);
        self.newest = Some(newest);
        Ok(())
    }

    /// The copy begins a new epoch: the log itself continues, and its next events have the numbers
    /// that those of the copy will have.
    pub(super) fn begin_epoch(&mut self) {
        self.end_lost = true;
    }

    /// Takes note of what a hub that uses the log has hidden since the copying began: segments of
    /// that may be gone. Deletions must not have been carried out, because events that were copied
    /// before may be among them.
    pub(super) fn follow(&mut self) -> Result<(), ToolFailure> {
        let Some(front) = self.files.front_now()? else { return Ok(()) };
        if front.deletions_done_through != self.files.front.deletions_done_through {
            return Err(ToolFailure::Compacted);
        }
        self.first_known = self.first_known.max(Some(front.front));
        self.front = front;
        Ok(())
    }

    /// Writes what stands beside the segments.
    pub(super) fn finish(mut self) -> Result<Copied, ToolFailure> {
        let state = self.files.state.clone();
        let mut saved = SavedFront { rules: Vec::new(), ..self.front.clone() };
        if saved.front < self.begins_after {
            saved.front = self.begins_after;
            saved.forgotten_through = saved.forgotten_through.max(self.begins_after);
        }
        let newest = self.newest.unwrap_or(saved.front);
        if let Some(newest_lost) = self.lost.last() {
            // Nobody knows who could have received it.
            saved.forgotten_through = saved.forgotten_through.max(*newest_lost);
        }
        saved.save(&self.output)?;
        self.end_lost |= state.as_ref().is_none_or(|state| state.closed_at.is_some_and(|at| at > newest));
        let deletions = std::mem::take(&mut self.deletions);
        let epochs = epochs(state, &self.headers, self.end_lost, newest)?;
        if !deletions.is_empty() {
            let name = SegmentName::new(newest + 1);
            let header = Header { first: name.first, epoch: epochs.current().epoch, salt: random()? };
            NewSegment::create(&self.output, name, header, 0, deletions)?;
        }
        let state = LogState {
            closed_at: Some(newest),
            deletions: self.newest_deletion,
            is_synced: true,
            boot_id: None,
            epochs,
        };
        state.save(&self.output)?;
        Ok(self.copied)
    }
}
