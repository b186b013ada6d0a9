//! Inspecting, verifying, repairing and backing up a log without opening it.
//!
//! Nothing here changes the inspected directory or creates a log in it. A log in use can be
//! inspected, verified and backed up: data that is being written counts as unfinished, files that are freed
//! meanwhile are skipped. Repairing needs a log that is not in use.

mod copying;
mod files;

use std::{
    io,
    path::{Path, PathBuf},
};

use self::{
    copying::{Copying, new_directory},
    files::{Files, ReadSegment, ToolFailure},
};
use super::{
    deletions::Deletions,
    disk::{Disk, RealDisk},
    index_file,
    segment_file::{Segment, SegmentName},
    survey::Survey,
};
use crate::{EpochStart, Timestamp};

pub use self::{copying::Copied, files::Finding};

/// Why a log cannot be inspected, verified or copied.
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
        let Files { state, front, .. } = &files;
        let mut damage = files.damage.clone();
        let mut segments = Vec::new();
        let mut deletions = Deletions::default();
        deletions.serial = front.deletions_done_through;
        let mut last_before = files.first_known;
        for (listed, _) in files.segments() {
            match files.current(listed, |name| files.summary(name, &mut deletions)) {
                Ok(Some((segment, lost))) => {
                    let before = last_before.and_then(|last| missing(last, segment.first));
                    damage.extend(before.map(|(finding, _)| finding));
                    if lost > 0 {
                        damage.push(Finding::of(&segment.file, None, format!("{lost} events are lost")));
                    }
                    last_before = Some(segment.last);
                    segments.push(segment);
                }
                Ok(None) => last_before = files.hidden_through_now()?.max(last_before),
                Err(ToolFailure::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    damage.push(Finding::of(&listed.log(), Some(0), "the header is damaged"));
                }
                Err(other) => return Err(other),
            }
        }
        damage.extend(files.lost_deletion(deletions.serial));
        Ok(Inspection {
            is_in_use: files.is_in_use,
            is_closed: state.as_ref().map(|state| state.closed_at.is_some()),
            epochs: state.iter().flat_map(|state| state.epochs.iter().copied()).collect(),
            segments,
            hidden_through: front.front,
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
        let (mut verified, mut damaged) = (Verified::default(), 0);
        let mut report = |finding| {
            damaged += 1;
            report(finding);
        };
        files.damage.iter().cloned().for_each(&mut report);
        let mut last_before = files.first_known;
        let mut newest_deletion = files.front.deletions_done_through;
        for (listed, next) in files.segments() {
            let mut findings = Vec::new();
            let read =
                files.current(listed, |name| files.read_through(name, next, &mut verified, &mut findings))?;
            let Some(read) = read else {
                last_before = files.hidden_through_now()?.max(last_before);
                continue;
            };
            if let Some((finding, count)) = last_before.and_then(|last| missing(last, listed.first)) {
                verified.lost += count;
                report(finding);
            }
            findings.into_iter().for_each(&mut report);
            if let Some((last, deletion)) = read {
                last_before = Some(last);
                newest_deletion = newest_deletion.max(deletion);
            }
        }
        files.lost_deletion(newest_deletion).into_iter().for_each(&mut report);
        Ok(Verified { damaged, ..verified })
    })
}

/// Copies every undamaged event of a log into a new directory, where it keeps its position, id and
/// time. Lost events are reported here, and as a gap to readers that pass them. Deletions are kept
/// if they are known.
pub fn repair(from: &Path, to: &Path, mut report: impl FnMut(Finding)) -> Result<Copied, ToolError> {
    copy(from, to, |files, output| {
        if files.is_in_use {
            return Err(ToolFailure::InUse);
        }
        files.damage.iter().cloned().for_each(&mut report);
        let mut copying = Copying::new(files, output()?);
        for (name, next) in files.segments() {
            copying.copy(name, next, &mut report)?;
        }
        files.lost_deletion(copying.newest_deletion).into_iter().for_each(&mut report);
        copying.finish()
    })
}

/// Copies a log, which a hub may be using, into a new directory: every event that had been
/// acknowledged when this was called and has neither expired nor been deleted, with its position, id
/// and time, and perhaps some that were appended meanwhile. A hub that is started with the copy
/// begins a new epoch, so that nothing that it appends is mistaken for what the other hub has
/// appended since: readers that know newer events than the copy get a gap. What is damaged in the
/// log is reported and left out, as by [`repair`].
///
/// # Errors
///
/// If the log or the directory cannot be read or written, if the directory is not empty, and if
/// deletions were carried out meanwhile: what was copied may then contain deleted events, so remove
/// it and try again.
pub fn backup(from: &Path, to: &Path, mut report: impl FnMut(Finding)) -> Result<Copied, ToolError> {
    copy(from, to, |files, output| {
        let mut copying = Copying::new(files, output()?);
        copying.begin_epoch();
        for (listed, next) in files.segments() {
            if files.current(listed, |name| copying.copy(name, next, &mut report))?.is_none() {
                copying.follow()?;
            }
        }
        copying.follow()?;
        copying.finish()
    })
}

/// Copies a log into a new directory, which is made when it is asked for.
fn copy(
    from: &Path,
    to: &Path,
    copy: impl FnOnce(&Files, &dyn Fn() -> Result<RealDisk, ToolFailure>) -> Result<Copied, ToolFailure>,
) -> Result<Copied, ToolError> {
    look(from, |files| copy(&files, &|| new_directory(to))).map_err(|mut error| {
        if matches!(error.reason, ToolFailure::NotEmpty) {
            to.clone_into(&mut error.directory);
        }
        error
    })
}

fn look<T>(directory: &Path, look: impl FnOnce(Files) -> Result<T, ToolFailure>) -> Result<T, ToolError> {
    let looked = || look(Files::of(directory)?);
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
    /// are lost. Adds its deletions of which something may be left.
    fn summary(
        &self,
        name: SegmentName,
        deletions: &mut Deletions,
    ) -> Result<(SegmentInspection, u64), ToolFailure> {
        let header = self.header(name)?;
        let bytes = self.disk.open(&name.log())?.len()?;
        let with_file = Segment::with_file(&self.disk, name, header, 0, bytes);
        let segment = if let Ok(Some(segment)) = with_file {
            segment
        } else {
            let survey = Survey::new(self.disk.open(&name.log())?, header)?;
            Segment::with_memory(name, header, 0, survey.index(&survey.settle(0, None))?)
        };
        let done_through = self.front.deletions_done_through;
        for record in segment.deletions_after(&self.disk, done_through)?.0 {
            deletions.add(&record.topic, record.deletion);
        }
        let (earliest, latest) = segment.times();
        let (lost, removed) =
            segment.summary(|summary| (summary.lost_count(), u64::from(summary.removed.count)));
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
        Ok((inspection, lost))
    }

    /// Reads a segment and its index from end to end. Returns its last event and deletion.
    fn read_through(
        &self,
        name: SegmentName,
        next: Option<u64>,
        verified: &mut Verified,
        findings: &mut Vec<Finding>,
    ) -> Result<Option<(u64, u64)>, ToolFailure> {
        let log = name.log();
        let Some(read) = self.read(name, next, &mut |finding| findings.push(finding))? else {
            return Ok(None);
        };
        let ReadSegment { file, survey, settled, index, newest } = &read;
        let may_be_unfinished = next.is_none() && self.closed_at().is_none() && !settled.end_lost;
        verified.segments += 1;
        verified.bytes += file.len()?;
        verified.events += survey.event_count;
        for (offset, end) in survey.damaged.iter().chain(&survey.short) {
            if may_be_unfinished && *offset >= settled.end {
                verified.unfinished_bytes += end - offset;
            } else {
                let what = format!("{} bytes are damaged", end - offset);
                findings.push(Finding::of(&log, Some(*offset), what));
            }
        }
        for (from, to) in index.summary.lost(survey.header.first) {
            findings.push(Finding::of(&log, None, format!("events {from} to {to} are lost")));
        }
        verified.lost += index.summary.lost_count();
        if settled.end_lost {
            findings.push(Finding::of(&log, None, "acknowledged events at its end are lost"));
        }
        if self.names.contains(&name.index())
            && let Err(error) = index_file::verify(&self.disk, &name.index(), survey.header.salt)
            && error.kind() != io::ErrorKind::NotFound
        {
            let what = format!("{error}; it will be rebuilt, and no event is lost");
            findings.push(Finding::of(&name.index(), None, what));
        }
        Ok(Some((*newest, survey.newest_deletion().unwrap_or_default())))
    }
}
