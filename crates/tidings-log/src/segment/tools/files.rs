//! The files of a log that is not opened: looked at, and not changed.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::super::{
    disk::{Disk, DiskFile, FileIdentity, LOCK_NAME, read_full},
    front_file::{FRONT_NAME, SavedFront},
    record::{HEADER_BYTES, Header, NoHeader},
    recover::{DAMAGED, LOST_DELETION, foreign},
    segment_file::SegmentName,
    state_file::{LogState, STATE_NAME},
};

/// Why files cannot be looked at or repaired.
#[derive(Debug, thiserror::Error)]
pub(super) enum ToolFailure {
    #[error("there is no log in this directory")]
    NoLog,
    #[error("a hub uses it; stop the hub first")]
    InUse,
    #[error("{}", foreign(*.0))]
    Foreign(u32),
    #[error("it is not empty; use a directory that is empty or does not exist")]
    NotEmpty,
    #[error(transparent)]
    Io(#[from] io::Error),
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
    pub(super) disk: ReadOnlyDisk,
    pub(super) names: Vec<String>,
    pub(super) is_in_use: bool,
}

/// What the file `front` says.
#[derive(Default)]
pub(super) struct Front {
    is_damaged: bool,
    pub(super) hidden_through: u64,
    pub(super) deletions_done_through: u64,
}

impl Front {
    /// The last event before those that have to be there.
    pub(super) fn first_known(&self) -> Option<u64> {
        (!self.is_damaged).then_some(self.hidden_through)
    }
}

impl Files {
    /// The files of the log in a directory.
    pub(super) fn of(directory: &Path) -> Result<Self, ToolFailure> {
        let disk = ReadOnlyDisk(directory.to_owned());
        let names = disk.list()?;
        let files = Self { is_in_use: is_in_use(directory)?, disk, names };
        let is_log = files.names.iter().any(|name| {
            [STATE_NAME, FRONT_NAME].contains(&name.as_str()) || SegmentName::parse(name).is_some()
        });
        if is_log { Ok(files) } else { Err(ToolFailure::NoLog) }
    }

    /// The segments that hold, oldest first.
    pub(super) fn segments(&self) -> Vec<SegmentName> {
        let mut all: Vec<_> = self.names.iter().filter_map(|name| SegmentName::parse(name)).collect();
        all.sort_unstable();
        all.reverse();
        all.dedup_by_key(|name| name.first);
        all.reverse();
        all
    }

    /// What was set aside when the log was opened.
    pub(super) fn set_aside(&self) -> Vec<Finding> {
        let names = self.names.iter().filter(|name| name.ends_with(DAMAGED));
        let what = "was set aside because its header is damaged: its contents cannot be trusted";
        names.map(|name| Finding::of(name, Some(0), what)).collect()
    }

    pub(super) fn state(&self, damage: &mut Vec<Finding>) -> Result<Option<LogState>, ToolFailure> {
        let state = LogState::load(&self.disk)?.map_err(ToolFailure::Foreign)?;
        if state.is_none() {
            damage.push(Finding::of(
                STATE_NAME,
                None,
                "is missing or damaged: the log will begin a new epoch",
            ));
        }
        Ok(state)
    }

    /// What is reported if the log was closed with a newer deletion than this.
    pub(super) fn lost_deletion(&self, state: Option<&LogState>, newest: u64) -> Option<Finding> {
        let closed = state.filter(|state| state.closed_at.is_some() && !self.is_in_use)?;
        (closed.deletions > newest).then(|| Finding::of(STATE_NAME, None, LOST_DELETION))
    }

    pub(super) fn front(&self, damage: &mut Vec<Finding>) -> Result<Front, ToolFailure> {
        let saved = SavedFront::load(&self.disk, &[])?.map_err(ToolFailure::Foreign)?;
        let is_damaged = saved.is_none() && self.names.iter().any(|name| name == FRONT_NAME);
        if is_damaged {
            damage.push(Finding::of(FRONT_NAME, None, "is damaged: which events have expired is unknown"));
        }
        let saved = saved.unwrap_or_default();
        let SavedFront { front: hidden_through, deletions_done_through, .. } = saved;
        Ok(Front { is_damaged, hidden_through, deletions_done_through })
    }

    pub(super) fn header(&self, name: SegmentName) -> Result<Header, ToolFailure> {
        let file = self.disk.open(&name.log())?;
        let mut bytes = [0; HEADER_BYTES];
        let read = read_full(&*file, &mut bytes, 0)?;
        match Header::decode(&bytes[..read]) {
            Ok(header) => Ok(header),
            Err(NoHeader::Foreign(format)) => Err(ToolFailure::Foreign(format)),
            Err(NoHeader::Damaged) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "the header is damaged").into())
            }
        }
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

/// A directory of the system that is looked at and not changed, nor locked.
#[derive(Debug)]
pub(super) struct ReadOnlyDisk(PathBuf);

impl Disk for ReadOnlyDisk {
    fn create(&self, _name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File::open(self.0.join(name))?))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn boot_id(&self) -> Option<String> {
        None
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        Ok(FileIdentity::of(&fs::metadata(&self.0)?))
    }

    fn identity_of(&self, name: &str) -> io::Result<FileIdentity> {
        Ok(FileIdentity::of(&fs::metadata(self.0.join(name))?))
    }
}
