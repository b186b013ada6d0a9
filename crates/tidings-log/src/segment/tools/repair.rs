//! Copies the undamaged events of a log into a new directory.

use std::{collections::BTreeSet, fs, io, path::Path, sync::Arc};

use super::{
    super::{
        deletion::Deletions,
        disk::{Disk, RealDisk},
        file::SegmentName,
        hiding::Hiding,
        index_file,
        record::{Header, Record},
        retention::Retention,
        rewriting::Output,
        scan::{Found, RecordReader, Survey},
        state_file::{LogState, StoredSync, load_front, save_front},
        writer::{random, random_epoch},
    },
    Files, Finding, Repaired, ToolFailure, WINDOW_BYTES,
};
use crate::{
    EpochStart, Epochs, MemoryLimits,
    ledger::{floors::Floors, keys::Keys, position},
};

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
pub(super) struct Repair<'a> {
    files: &'a Files,
    output: &'a RealDisk,
    repaired: Repaired,
    /// The last number of each stretch that is lost.
    lost: BTreeSet<u64>,
    /// The last event that was copied or is known to be lost.
    newest: Option<u64>,
    /// The last event before those that had to be there, if that is known.
    first_known: Option<u64>,
    /// The last event before those that are there.
    begins_after: u64,
    epochs: Vec<EpochStart>,
    end_lost: bool,
}

impl<'a> Repair<'a> {
    pub(super) fn new(files: &'a Files, output: &'a RealDisk, first_known: Option<u64>) -> Self {
        Self {
            files,
            output,
            repaired: Repaired::default(),
            lost: BTreeSet::new(),
            newest: None,
            first_known,
            begins_after: 0,
            epochs: Vec::new(),
            end_lost: false,
        }
    }

    /// Copies what is whole of a segment, which another one follows or not.
    pub(super) fn copy(
        &mut self,
        name: SegmentName,
        next: Option<u64>,
        state: Option<&LogState>,
        report: &mut impl FnMut(Finding),
    ) -> Result<(), ToolFailure> {
        let log = name.log();
        let header = match self.files.header(name) {
            Err(ToolFailure::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                report(Finding::of(&log, Some(0), "the header is damaged: the contents cannot be trusted"));
                // What it held is missing before whatever follows. At the end nobody knows how much
                // that was.
                self.end_lost |= next.is_none();
                return Ok(());
            }
            header => header?,
        };
        let file = self.files.disk.open(&log)?;
        let survey =
            Survey::new(Arc::clone(&file))?.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let closed_at = state.and_then(|state| state.closed_at).filter(|_| next.is_none());
        let settled = survey.settle(closed_at.unwrap_or_default(), next.map(|next| next - 1));
        self.end_lost |= settled.end_lost;
        let index = survey.index(&settled)?;
        let mut lost = Vec::new();
        // The numbers before it that no segment has any more are put in front of it.
        let first = self.newest.map_or(header.first, |newest| newest + 1);
        if self.newest.is_none() {
            self.begins_after = header.first - 1;
            let expected = self.first_known.map_or(header.first, |known| known + 1);
            if expected < header.first {
                lost.push((expected, header.first - 1));
            }
        }
        if first < header.first {
            lost.push((first, header.first - 1));
        }
        let newest = header.first + index.rows.len() as u64 - 1;
        lost.extend(
            index
                .holes
                .iter()
                .map(|(from, to)| (header.first + u64::from(*from), header.first + u64::from(*to))),
        );
        if newest < first {
            return Ok(());
        }
        let out_name = SegmentName::new(first);
        let out_header = Header { first, salt: random()?, ..header };
        let out = self.output.create(&out_name.log())?;
        let mut output = Output::new(&*out, out_header)?;
        for number in first..header.first {
            output.remove(number);
        }
        let mut reader = RecordReader::new(file, header)?;
        for (number, row) in (header.first..).zip(&index.rows) {
            let offset = u64::from(row.offset);
            let head = if offset > 0 { reader.head(offset, WINDOW_BYTES)? } else { Found::Short };
            let Found::Record(head) = head else {
                output.remove(number);
                continue;
            };
            match reader.record(offset, head, WINDOW_BYTES)? {
                Some(Record::Event(record)) => {
                    output.keep(record)?;
                    self.repaired.events += 1;
                }
                _ => output.remove(number),
            }
        }
        let (index, _) = output.finish(newest)?;
        out.sync_data()?;
        index_file::write(self.output, &out_name.index(), out_header.salt, &index)?;
        for (from, to) in lost {
            self.repaired.lost += to - from + 1;
            self.lost.insert(to);
            report(Finding::of(&log, None, format!("events {from} to {to} are lost")));
        }
        if self.epochs.last().is_none_or(|known| known.epoch != header.epoch) {
            self.epochs.push(EpochStart { epoch: header.epoch, after: position(header.first - 1) });
        }
        self.newest = Some(newest);
        Ok(())
    }

    /// Writes what stands beside the segments.
    pub(super) fn finish(mut self, state: Option<LogState>) -> Result<Repaired, ToolFailure> {
        let loaded = load_front(&self.files.disk, &MemoryLimits::default(), &[])?;
        let (mut retention, keys) = loaded.unwrap_or_else(|| {
            let hiding = Hiding::new(Deletions::default(), &[], Vec::new());
            (Retention::new(0, Floors::default(), hiding), Keys::default())
        });
        retention.begin_after(self.begins_after);
        let newest = self.newest.unwrap_or(retention.front);
        if let Some(newest_lost) = self.lost.last() {
            // Nobody knows who could have received it.
            retention.floors.forget_through(*newest_lost);
        }
        save_front(self.output, &retention, &keys)?;
        self.end_lost |= state.as_ref().is_none_or(|state| state.closed_at.is_some_and(|at| at > newest));
        let known = state.map(|state| state.epochs).or_else(|| {
            let starts = std::mem::take(&mut self.epochs);
            Epochs::from_stored(starts.split_at(starts.len().saturating_sub(Epochs::COUNT_MAX)).1.to_vec())
        });
        let epochs = match known {
            None => Epochs::starting(random_epoch()?),
            Some(known) if self.end_lost => {
                known.with(EpochStart { epoch: random_epoch()?, after: position(newest) })
            }
            Some(known) => known,
        };
        let state =
            LogState { closed_at: Some(newest), sync: StoredSync::BeforeAnswer, boot_id: None, epochs };
        state.save(self.output)?;
        Ok(self.repaired)
    }
}
