//! The files of a log that is not opened: looked at, and not changed.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
    sync::Arc,
};

use super::super::{
    disk::{Disk, DiskFile, LOCK_NAME, RealDisk},
    front_file::SavedFront,
    index::MemoryIndex,
    record::{Header, ReadFailure},
    recover::{DAMAGED, LOST_DELETION},
    segment_file::SegmentName,
    small_file::SmallFile,
    state_file::LogState,
    survey::{Settled, Survey},
};

/// Why files cannot be looked at or copied.
#[derive(Debug, thiserror::Error)]
pub(super) enum ToolFailure {
    #[error("there is no log in this directory")]
    NoLog,
    #[error("a hub uses it; stop the hub first")]
    InUse,
    #[error("events were deleted while it was copied; run the backup again")]
    Compacted,
    #[error("it is not empty; use a directory that is empty or does not exist")]
    NotEmpty,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Read(#[from] ReadFailure),
}

/// A damaged or missing part of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// The offset in the file, in bytes.
    pub offset: Option<u64>,
    /// A description, for people.
    pub what: String,
}

impl Finding {
    pub(super) fn of(file: &str, offset: Option<u64>, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), offset, what: what.into() }
    }
}

/// The files of a directory, to be read.
pub(super) struct Files {
    pub(super) disk: RealDisk,
    pub(super) names: Vec<String>,
    pub(super) is_in_use: bool,
    pub(super) state: Option<LogState>,
    pub(super) front: SavedFront,
    /// The last event before those that have to be there, if that is known.
    pub(super) first_known: Option<u64>,
    /// What is wrong with the files next to the segments.
    pub(super) damage: Vec<Finding>,
}

/// A segment that was read from end to end, and what is valid of it.
pub(super) struct ReadSegment {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) survey: Survey,
    pub(super) settled: Settled,
    pub(super) index: MemoryIndex,
    /// Its last event; one less than the first if there is none.
    pub(super) newest: u64,
}

impl Files {
    /// The files of the log in a directory.
    pub(super) fn of(directory: &Path) -> Result<Self, ToolFailure> {
        let disk = RealDisk::read_only(directory)?;
        let names = disk.list()?;
        let is_log = names.iter().any(|name| {
            [LogState::NAME, SavedFront::NAME].contains(&name.as_str()) || SegmentName::parse(name).is_some()
        });
        if !is_log {
            return Err(ToolFailure::NoLog);
        }
        let set_aside = names.iter().filter(|name| name.ends_with(DAMAGED));
        let what = "was set aside because its header is damaged: its contents cannot be trusted";
        let mut damage: Vec<_> = set_aside.map(|name| Finding::of(name, Some(0), what)).collect();
        let state = LogState::load(&disk)?;
        if state.is_none() {
            let what = "is missing or damaged: the log will begin a new epoch";
            damage.push(Finding::of(LogState::NAME, None, what));
        }
        let front = SavedFront::load(&disk)?;
        let is_damaged = front.is_none() && names.iter().any(|name| name == SavedFront::NAME);
        if is_damaged {
            let what = "is damaged: which events have expired is unknown";
            damage.push(Finding::of(SavedFront::NAME, None, what));
        }
        let (is_in_use, front) = (is_in_use(directory)?, front.unwrap_or_default());
        let first_known = (!is_damaged).then_some(front.front);
        Ok(Self { disk, names, is_in_use, state, front, first_known, damage })
    }

    /// The segments that hold, oldest first, each with the first event of the next one.
    pub(super) fn segments(&self) -> Vec<(SegmentName, Option<u64>)> {
        let (names, _) = SegmentName::all_of(&self.names);
        let nexts = names.iter().skip(1).map(|next| Some(next.first)).chain([None]);
        names.iter().copied().zip(nexts).collect()
    }

    /// Reads a segment that was listed. In a log in use it may have been compacted since, and has
    /// another name; or it has expired: `None`.
    pub(super) fn current<T>(
        &self,
        listed: SegmentName,
        mut read: impl FnMut(SegmentName) -> Result<T, ToolFailure>,
    ) -> Result<Option<T>, ToolFailure> {
        let mut name = listed;
        loop {
            match read(name) {
                Err(ToolFailure::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                    let (names, _) = SegmentName::all_of(&self.disk.list()?);
                    let now = names.into_iter().find(|now| now.first == name.first && *now != name);
                    let Some(now) = now else { return Ok(None) };
                    name = now;
                }
                read => return read.map(Some),
            }
        }
    }

    /// The file `front` as it is now, if there is one that can be used.
    pub(super) fn front_now(&self) -> Result<Option<SavedFront>, ToolFailure> {
        Ok(SavedFront::load(&self.disk)?)
    }

    /// Up to which event everything has expired or was deleted by now, if it is known.
    pub(super) fn hidden_through_now(&self) -> Result<Option<u64>, ToolFailure> {
        Ok(self.front_now()?.map(|front| front.front).max(self.first_known))
    }

    /// The newest event when the log was closed, if that was so and nobody has it open now.
    pub(super) fn closed_at(&self) -> Option<u64> {
        self.state.as_ref().and_then(|state| state.closed_at).filter(|_| !self.is_in_use)
    }

    /// Reads a segment, which another one follows or not. `None` if its header is damaged, which is
    /// reported.
    pub(super) fn read(
        &self,
        name: SegmentName,
        next: Option<u64>,
        report: &mut impl FnMut(Finding),
    ) -> Result<Option<ReadSegment>, ToolFailure> {
        let header = match self.header(name) {
            Err(ToolFailure::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                let what = "the header is damaged: the contents cannot be trusted";
                report(Finding::of(&name.log(), Some(0), what));
                return Ok(None);
            }
            header => header?,
        };
        let file = self.disk.open(&name.log())?;
        let survey = Survey::new(Arc::clone(&file), header)?;
        let closed_at = self.closed_at().filter(|_| next.is_none());
        let settled = survey.settle(closed_at.unwrap_or_default(), next.map(|next| next - 1));
        let index = survey.index(&settled)?;
        let newest = survey.header.first + u64::from(index.summary.count) - 1;
        Ok(Some(ReadSegment { file, survey, settled, index, newest }))
    }

    /// What is reported if the log was closed with a newer deletion than this.
    pub(super) fn lost_deletion(&self, newest: u64) -> Option<Finding> {
        self.closed_at()?;
        let closed = self.state.as_ref().filter(|state| state.deletions > newest);
        closed.map(|_| Finding::of(LogState::NAME, None, LOST_DELETION))
    }

    pub(super) fn header(&self, name: SegmentName) -> Result<Header, ToolFailure> {
        let header = Header::of_file(&*self.disk.open(&name.log())?)?;
        header.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the header is damaged").into())
    }
}

/// Whether a process holds the lock on a directory. Changes nothing in it.
fn is_in_use(directory: &Path) -> io::Result<bool> {
    let file = match File::open(directory.join(LOCK_NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
