//! Inspecting, verifying and repairing a log without opening it.
//!
//! Nothing here changes the inspected directory or creates a log in it. A log in use can be
//! inspected and verified: data that is being written counts as unfinished, files that are freed
//! meanwhile are skipped. Repairing needs a log that is not in use.

mod files;
mod repair;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use self::{
    files::{Files, ToolFailure},
    repair::{Repair, new_directory},
};
use super::{
    deletions::{Deletion, Deletions},
    disk::Disk,
    index_file,
    new_segment::read_deletions,
    record::Record,
    record_reader::{Walked, walk},
    segment_file::{Segment, SegmentName},
    survey::Survey,
};
use crate::{EpochStart, Timestamp};

pub use self::{files::Finding, repair::Repaired};

/// Why a log cannot be inspected, verified or repaired.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", directory.display())]
pub struct ToolError {
    directory: PathBuf,
    reason: ToolFailure,
}

/// The contents of a log.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Whether a process has it open now.
    pub is_in_use: bool,
    /// Whether it was closed cleanly the last time. `None` if unknown.
    pub is_closed: Option<bool>,
    /// The epochs, oldest first.
    pub epochs: Vec<EpochStart>,
    /// The segments, oldest first.
    pub segments: Vec<SegmentInspection>,
    /// Events up to this number have expired or were deleted; their bytes are freed with their
    /// segments.
    pub hidden_through: u64,
    /// Deleted topics whose bytes are not freed yet, with the newest event that each deletion
    /// applies to.
    pub deletions: Vec<(String, u64)>,
    /// Damage that is known without reading the log completely.
    pub damage: Vec<Finding>,
}

/// A segment of a log.
#[derive(Clone, Debug)]
pub struct SegmentInspection {
    /// The file.
    pub file: String,
    /// The number of its first event.
    pub first: u64,
    /// The number of its last event; one less than the first if there is none.
    pub last: u64,
    /// Events whose records exist.
    pub events: u64,
    /// Events that compaction removed.
    pub removed: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// The earliest time of an event.
    pub earliest: Option<Timestamp>,
    /// The latest time of an event.
    pub latest: Option<Timestamp>,
}

/// The result of verifying a log.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Verified {
    /// Segments that were read.
    pub segments: u64,
    /// Complete event records.
    pub events: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Acknowledged events that are missing although they neither expired nor were deleted.
    pub lost: u64,
    /// Findings. Each was reported.
    pub damaged: u64,
    /// Bytes of an incomplete or current write at the end, which was never acknowledged.
    pub unfinished_bytes: u64,
}

/// Returns the contents of a log, without reading it completely.
pub fn inspect(directory: &Path) -> Result<Inspection, ToolError> {
    look(directory, |files| {
        let mut damage = files.set_aside();
        let (state, front) = (files.state(&mut damage)?, files.front(&mut damage)?);
        let mut segments = Vec::new();
        let mut deletions = Deletions::default();
        deletions.serial = front.deletions_done_through;
        for name in files.segments() {
            match files.summary(name, front.deletions_done_through, &mut deletions) {
                Ok((segment, lost)) => {
                    if lost > 0 {
                        damage.push(Finding::of(&name.log(), None, format!("{lost} events are lost")));
                    }
                    segments.push(segment);
                }
                Err(ToolFailure::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Err(ToolFailure::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    damage.push(Finding::of(&name.log(), Some(0), "the header is damaged"));
                }
                Err(other) => return Err(other),
            }
        }
        let mut last_before = front.first_known();
        for segment in &segments {
            let lost = last_before.and_then(|last| missing(last, segment.first));
            damage.extend(lost.map(|(finding, _)| finding));
            last_before = Some(segment.last);
        }
        damage.extend(files.lost_deletion(state.as_ref(), deletions.serial));
        Ok(Inspection {
            is_in_use: files.is_in_use,
            is_closed: state.as_ref().map(|state| state.closed_at.is_some()),
            epochs: state.map(|state| state.epochs.iter().copied().collect()).unwrap_or_default(),
            segments,
            hidden_through: front.hidden_through,
            deletions: deletions
                .iter()
                .map(|(topic, deletion)| (topic.as_str().to_owned(), deletion.through))
                .collect(),
            damage,
        })
    })
}

/// Reads a log completely, and reports everything that is damaged.
pub fn verify(directory: &Path, mut report: impl FnMut(Finding)) -> Result<Verified, ToolError> {
    look(directory, |files| {
        let mut verified = Verified::default();
        let mut found = |verified: &mut Verified, finding| {
            verified.damaged += 1;
            report(finding);
        };
        let mut small = files.set_aside();
        let state = files.state(&mut small)?;
        let front = files.front(&mut small)?;
        for finding in small {
            found(&mut verified, finding);
        }
        let names = files.segments();
        let mut last_before = front.first_known();
        let mut newest_deletion = front.deletions_done_through;
        for (place, name) in names.iter().enumerate() {
            let next = names.get(place + 1).map(|next| next.first);
            let closed_at = state.as_ref().and_then(|state| state.closed_at).filter(|_| !files.is_in_use);
            let mut findings = Vec::new();
            let read = match files.read_through(*name, next, closed_at, &mut verified, &mut findings) {
                Err(ToolFailure::Io(error)) if error.kind() == io::ErrorKind::NotFound => continue,
                read => read?,
            };
            if let Some((finding, count)) = last_before.and_then(|last| missing(last, name.first)) {
                verified.lost += count;
                found(&mut verified, finding);
            }
            for finding in findings {
                found(&mut verified, finding);
            }
            if let Some((last, deletion)) = read {
                last_before = Some(last);
                newest_deletion = newest_deletion.max(deletion);
            }
        }
        if let Some(finding) = files.lost_deletion(state.as_ref(), newest_deletion) {
            found(&mut verified, finding);
        }
        Ok(verified)
    })
}

/// Copies every undamaged event of a log into a new directory, where it keeps its position, id and
/// time. Lost events are reported here, and as a gap to readers that pass them. Deletions are kept
/// if they are known.
pub fn repair(from: &Path, to: &Path, mut report: impl FnMut(Finding)) -> Result<Repaired, ToolError> {
    look(from, |files| {
        if files.is_in_use {
            return Err(ToolFailure::InUse);
        }
        let output = new_directory(to)?;
        let mut findings = files.set_aside();
        let (state, front) = (files.state(&mut findings)?, files.front(&mut findings)?);
        findings.into_iter().for_each(&mut report);
        let mut repair = Repair::new(files, &output, front.first_known(), front.deletions_done_through);
        let names = files.segments();
        for (place, name) in names.iter().enumerate() {
            let next = names.get(place + 1).map(|next| next.first);
            repair.copy(*name, next, state.as_ref(), &mut report)?;
        }
        files.lost_deletion(state.as_ref(), repair.newest_deletion()).into_iter().for_each(&mut report);
        repair.finish(state)
    })
    .map_err(|mut error| {
        if matches!(error.reason, ToolFailure::NotEmpty) {
            to.clone_into(&mut error.directory);
        }
        error
    })
}

fn look<T>(directory: &Path, look: impl FnOnce(&Files) -> Result<T, ToolFailure>) -> Result<T, ToolError> {
    let looked = || look(&Files::of(directory)?);
    looked().map_err(|reason| ToolError { directory: directory.to_owned(), reason })
}

/// Numbers between two segments that belong to neither, and how many they are.
fn missing(last: u64, next_first: u64) -> Option<(Finding, u64)> {
    let count = next_first.checked_sub(last + 1).filter(|count| *count > 0)?;
    let what = format!("events {} to {} before it are lost", last + 1, next_first - 1);
    Some((Finding::of(&SegmentName::new(next_first).log(), None, what), count))
}

impl Files {
    /// What a segment holds by its index, or by reading it if there is none, and how many events
    /// are lost. Adds its deletions after this one.
    fn summary(
        &self,
        name: SegmentName,
        deletions_after: u64,
        deletions: &mut Deletions,
    ) -> Result<(SegmentInspection, u64), ToolFailure> {
        let header = self.header(name)?;
        let bytes = self.disk.open(&name.log())?.len()?;
        let with_file = Segment::with_file(&self.disk, name, header, 0, bytes);
        let segment = if let Ok(Some(segment)) = with_file {
            segment
        } else {
            let survey = Survey::new(self.disk.open(&name.log())?)?;
            let survey = survey.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            Segment::with_memory(name, header, 0, survey.index(&survey.settle(0, None))?)
        };
        let mut places = segment.deletions(&self.disk)?;
        places.retain(|place| place.serial > deletions_after);
        for record in read_deletions(&self.disk, &segment, &places)? {
            let (serial, through) = (record.serial, record.through);
            deletions.add(&record.topic, Deletion { serial, through, protecting: record.protecting });
        }
        Ok(Self::summary_of(name, &segment, bytes))
    }

    fn summary_of(name: SegmentName, segment: &Segment, bytes: u64) -> (SegmentInspection, u64) {
        let (earliest, latest) = segment.times();
        let lost = segment.lost_count();
        let removed = segment.removed_count();
        let inspection = SegmentInspection {
            file: name.log(),
            first: segment.first(),
            last: segment.last(),
            events: (segment.last() + 1 - segment.first()).saturating_sub(removed + lost),
            removed,
            bytes,
            earliest,
            latest: earliest.map(|_| latest),
        };
        (inspection, lost)
    }

    /// Reads a segment and its index from end to end. Returns its last event and deletion.
    fn read_through(
        &self,
        name: SegmentName,
        next: Option<u64>,
        closed_at: Option<u64>,
        verified: &mut Verified,
        findings: &mut Vec<Finding>,
    ) -> Result<Option<(u64, u64)>, ToolFailure> {
        let log = name.log();
        let header = match self.header(name) {
            Err(ToolFailure::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                findings.push(Finding::of(
                    &log,
                    Some(0),
                    "the header is damaged: the contents cannot be trusted",
                ));
                return Ok(None);
            }
            header => header?,
        };
        let file = self.disk.open(&log)?;
        let survey =
            Survey::new(Arc::clone(&file))?.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let known_last = next.map(|next| next - 1);
        let settled = survey.settle(closed_at.unwrap_or_default(), known_last);
        let index = survey.index(&settled)?;
        let is_last = next.is_none();
        verified.segments += 1;
        verified.bytes += file.len()?;
        let mut newest_deletion = 0;
        walk(&file, header, |walked| match walked {
            Walked::Record { record: Record::Event(_), .. } => verified.events += 1,
            Walked::Record { record: Record::Deletion(deletion), .. } => newest_deletion = deletion.serial,
            Walked::Record { .. } => {}
            Walked::Damaged { offset, end, .. } | Walked::Short { offset, end } => {
                let is_unfinished =
                    is_last && offset >= settled.end && closed_at.is_none() && !settled.end_lost;
                if is_unfinished {
                    verified.unfinished_bytes += end - offset;
                } else {
                    findings.push(Finding::of(
                        &log,
                        Some(offset),
                        format!("{} bytes are damaged", end - offset),
                    ));
                }
            }
        })?;
        let newest = header.first + index.rows.len() as u64 - 1;
        let lost: u64 = index.holes.iter().map(|(from, to)| u64::from(to - from) + 1).sum();
        for (from, to) in &index.holes {
            let (from, to) = (header.first + u64::from(*from), header.first + u64::from(*to));
            findings.push(Finding::of(&log, None, format!("events {from} to {to} are lost")));
        }
        verified.lost += lost;
        if settled.end_lost {
            findings.push(Finding::of(&log, None, "acknowledged events at its end are lost"));
        }
        if self.names.contains(&name.index())
            && let Err(error) = index_file::verify(&self.disk, &name.index(), header.salt)
            && error.kind() != io::ErrorKind::NotFound
        {
            let what = format!("{error}; it will be rebuilt, and no event is lost");
            findings.push(Finding::of(&name.index(), None, what));
        }
        Ok(Some((newest, newest_deletion)))
    }
}
