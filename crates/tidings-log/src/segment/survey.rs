//! Surveying a segment: reads it completely, and decides which of its records are valid.
//!
//! [`Survey`] finds every complete record, even after damaged ones. [`Survey::settle`] decides: an
//! event is valid if its group is complete, or if there is proof that it was acknowledged (a later
//! commit or deletion record, or a clean close of the log). Missing events among those are lost,
//! which is reported as a gap; events beyond them were never acknowledged, and the log ends before
//! them. A deletion is valid wherever its record is complete; if the log ends before it, it has to
//! be written again.

use std::{io, sync::Arc};

use super::{
    disk::DiskFile,
    index::{IndexedDeletion, IndexedEvent, MemoryIndex},
    record::{Commit, DeletionRecord, EventRecord, HEADER_BYTES, Header, Record},
    record_reader::{HeadFound, RecordReader, WINDOW_BYTES},
};
use crate::draft::Audience;

/// Every whole record of a segment.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) header: Header,
    file: Arc<dyn DiskFile>,
    file_bytes: u64,
    events: Vec<SurveyedEvent>,
    /// With where each ends.
    commits: Vec<(Commit, u64)>,
    deletions: Vec<SurveyedDeletion>,
    /// How many records of events there are.
    #[cfg_attr(not(feature = "store-tools"), allow(dead_code, reason = "for the store tools"))]
    pub(super) event_count: u64,
    /// From where to where there is no record although the file goes on.
    pub(super) damaged: Vec<(u64, u64)>,
    /// The same where the file ends before the record does.
    #[cfg_attr(not(feature = "store-tools"), allow(dead_code, reason = "for the store tools"))]
    pub(super) short: Option<(u64, u64)>,
    /// The first and the last offset at which a deletion may be damaged.
    deletions_damaged: Option<(u64, u64)>,
}

/// A deletion as far as it matters here.
#[derive(Clone, Copy, Debug)]
struct SurveyedDeletion {
    place: IndexedDeletion,
    through: u64,
    synced_through: u64,
    end: u64,
}

/// Where an event is, or the record of some that were removed.
#[derive(Clone, Copy, Debug)]
struct SurveyedEvent {
    number: u64,
    /// The same, or the last of those that were removed.
    last: u64,
    is_removed: bool,
    offset: u64,
    end: u64,
}

/// What is valid of a segment.
#[derive(Debug)]
pub(super) struct Settled {
    events: Vec<SurveyedEvent>,
    deletions: Vec<IndexedDeletion>,
    /// The deletions beyond the end.
    beyond: Vec<IndexedDeletion>,
    /// Everything else that is valid is before this offset.
    pub(super) end: u64,
    /// Events at the end are gone that had been acknowledged.
    pub(super) end_lost: bool,
    /// Something is cut off, and it is not just a write that broke off.
    pub(super) end_damaged: bool,
    /// The first and the last offset at which a deletion may be damaged.
    deletions_damaged: Option<(u64, u64)>,
    /// There is nothing after the end.
    pub(super) whole: bool,
}

impl Settled {
    /// Whether a deletion may be damaged before the end.
    pub(super) fn is_deletion_damaged(&self) -> bool {
        self.deletions_damaged.is_some_and(|(first, _)| first < self.end)
    }

    /// The same beyond the end, unless it is just a write that broke off.
    pub(super) fn is_deletion_damaged_beyond(&self) -> bool {
        self.deletions_damaged.is_some_and(|(_, last)| last >= self.end)
    }
}

impl Survey {
    /// Reads a segment from end to end, also behind damage.
    pub(super) fn new(file: Arc<dyn DiskFile>, header: Header) -> io::Result<Self> {
        let mut reader = RecordReader::new(Arc::clone(&file), header)?;
        let mut survey = Self {
            header,
            file,
            file_bytes: reader.file_bytes,
            events: Vec::new(),
            commits: Vec::new(),
            deletions: Vec::new(),
            event_count: 0,
            damaged: Vec::new(),
            short: None,
            deletions_damaged: None,
        };
        let mut offset = HEADER_BYTES as u64;
        while offset < survey.file_bytes {
            let mut end = offset + 1;
            match reader.head(offset, WINDOW_BYTES)? {
                HeadFound::Whole(head) => {
                    end = offset + head.bytes as u64;
                    match reader.record(offset, head, WINDOW_BYTES)? {
                        Some(record) => survey.note(record, offset, end),
                        None => survey.note_damage(offset, end, head.is_deletion()),
                    }
                }
                HeadFound::Damaged => {
                    while end < survey.file_bytes && reader.at(end, WINDOW_BYTES)?.is_none() {
                        end += 1;
                    }
                    survey.note_damage(offset, end, true);
                }
                HeadFound::Short => {
                    end = survey.file_bytes;
                    survey.short = Some((offset, end));
                }
            }
            offset = end;
        }
        Ok(survey)
    }

    fn note(&mut self, record: Record<'_>, offset: u64, end: u64) {
        match record {
            Record::Event(EventRecord { number, .. }) => {
                self.event_count += 1;
                self.note_event(SurveyedEvent { number, last: number, is_removed: false, offset, end });
            }
            Record::Removed { first, last } => {
                self.note_event(SurveyedEvent { number: first, last, is_removed: true, offset, end });
            }
            Record::Commit(commit) => self.commits.push((commit, end)),
            Record::Deletion(DeletionRecord { deletion, synced_through, .. }) => {
                let Ok(offset) = u32::try_from(offset) else { return };
                let place = IndexedDeletion { offset, serial: deletion.serial };
                let through = deletion.through;
                self.deletions.push(SurveyedDeletion { place, through, synced_through, end });
            }
        }
    }

    fn note_event(&mut self, event: SurveyedEvent) {
        let next = self.events.last().map_or(self.header.first, |before| before.last + 1);
        if event.number >= next {
            self.events.push(event);
        }
    }

    fn note_damage(&mut self, offset: u64, end: u64, may_be_deletion: bool) {
        self.damaged.push((offset, end));
        if may_be_deletion {
            let first = self.deletions_damaged.map_or(offset, |(first, _)| first);
            self.deletions_damaged = Some((first, offset));
        }
    }

    /// The serial number of the newest deletion.
    #[cfg(any(test, feature = "store-tools"))]
    pub(super) fn newest_deletion(&self) -> Option<u64> {
        self.deletions.last().map(|deletion| deletion.place.serial)
    }

    /// The newest event that, by what this segment says, had been synced.
    pub(super) fn synced_through(&self) -> u64 {
        let of_groups = self.commits.iter().map(|(commit, _)| commit.synced_through);
        let of_deletions = self.deletions.iter().map(|deletion| deletion.synced_through);
        of_groups.chain(of_deletions).max().unwrap_or_default()
    }

    /// Decides what is valid, where everything up to `acknowledged` is known to have been
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
        let mut rejected_at = u64::MAX;
        for place in &self.events {
            let (gap_end, number) = (place.number - 1, place.last);
            let beyond = known_last.is_some_and(|known| number > known);
            let unproven = number > acknowledged && (!in_group(number) || gap_end > last.max(acknowledged));
            if beyond || unproven {
                rejected_at = place.offset;
                break;
            }
            events.push(*place);
            last = number;
        }
        let commits_end = self.commits.iter().filter(|(commit, _)| commit.last <= last).map(|(_, end)| *end);
        let end = events.last().map_or(HEADER_BYTES as u64, |place| place.end);
        let end = commits_end.fold(end, u64::max);
        // Where others follow, the numbers of lost events at the end are not used again.
        let numbered_through = last.max(known_last.unwrap_or_default());
        let is_in_place = |deletion: &&SurveyedDeletion| {
            deletion.through <= numbered_through && u64::from(deletion.place.offset) < rejected_at
        };
        let (in_place, beyond): (Vec<&SurveyedDeletion>, Vec<_>) =
            self.deletions.iter().partition(is_in_place);
        let end = in_place.iter().map(|deletion| deletion.end).fold(end, u64::max);
        let end_lost = known_last.is_none() && acknowledged > last && acknowledged >= first;
        Settled {
            events,
            deletions: in_place.into_iter().map(|deletion| deletion.place).collect(),
            beyond: beyond.into_iter().map(|deletion| deletion.place).collect(),
            end,
            end_lost,
            end_damaged: self.damaged.last().is_some_and(|(offset, _)| *offset >= end),
            deletions_damaged: self.deletions_damaged,
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

    /// The deletions beyond the end, in their order, as they are in a log that ends with this event.
    pub(super) fn deletions_beyond(&self, settled: &Settled, last: u64) -> io::Result<Vec<DeletionRecord>> {
        let mut reader = RecordReader::new(Arc::clone(&self.file), self.header)?;
        let mut deletions = reader.deletions(&settled.beyond)?;
        for deletion in &mut deletions {
            deletion.end_with(last);
        }
        Ok(deletions)
    }

    /// Makes the index of what is valid.
    pub(super) fn index(&self, settled: &Settled) -> io::Result<MemoryIndex> {
        let mut index = MemoryIndex::new(settled.end);
        for deletion in &settled.deletions {
            index.push_deletion(*deletion);
        }
        let mut reader = RecordReader::new(Arc::clone(&self.file), self.header)?;
        let mut next = self.header.first;
        for place in &settled.events {
            push_hole(&mut index, place.number - next);
            next = place.last + 1;
            if place.is_removed {
                index.push_removed(u32::try_from(next - place.number).unwrap_or(HOLE_MAX).min(HOLE_MAX));
                continue;
            }
            let restored = match reader.at(place.offset, WINDOW_BYTES)? {
                Some(Record::Event(record)) => record.restore(&self.header),
                _ => None,
            };
            let (offset, length) = (u32::try_from(place.offset), u32::try_from(place.end - place.offset));
            match (restored, offset, length) {
                (Some((entry, key)), Ok(offset), Ok(length)) => {
                    let event = (&entry.event, Audience::of(&entry.event));
                    let salt = self.header.salt;
                    index.push(IndexedEvent::new(salt, (offset, length), entry.time, event, key));
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
