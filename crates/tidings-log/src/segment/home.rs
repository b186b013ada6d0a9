//! Checks that the directory of a log is still the one that was opened.
//!
//! A directory can be deleted, moved, or hidden by a mount while its log is open. Writes still
//! succeed then, but their data is missing when the path is opened the next time. The writer
//! therefore compares the identities of the directory, the lock and the current file with those
//! that it opened: once a second, and before each new segment. While they differ, no events are
//! accepted. When the same directory is back with the same files, the log continues.

use std::io;

use super::disk::{Disk, DiskFile, FileIdentity, LOCK_NAME};

/// The directory that was opened.
#[derive(Debug)]
pub(super) struct Home {
    directory: FileIdentity,
    /// Without it another process can use the directory.
    lock: Option<FileIdentity>,
}

impl Home {
    pub(super) fn of(disk: &dyn Disk) -> io::Result<Self> {
        let lock = match disk.identity_of(LOCK_NAME) {
            // A simulated disk has none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            lock => Some(lock?),
        };
        Ok(Self { directory: disk.identity()?, lock })
    }

    /// Fails if what is written would not be found where the log was opened, to a file that was
    /// opened under this name, if one is written.
    pub(super) fn check(&self, disk: &dyn Disk, written: Option<(&str, &dyn DiskFile)>) -> io::Result<()> {
        is_still("the directory of the store", self.directory, disk.identity())?;
        if let Some(lock) = self.lock {
            is_still("the lock of the store", lock, disk.identity_of(LOCK_NAME))?;
        }
        let Some((name, file)) = written else { return Ok(()) };
        is_still("the newest segment of the store", file.identity()?, disk.identity_of(name))
    }
}

/// What is not where it was.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Displaced(String);

/// Fails if something is not what was opened.
fn is_still(what: &str, opened: FileIdentity, now: io::Result<FileIdentity>) -> io::Result<()> {
    let reason = match now {
        Ok(now) if now == opened => return Ok(()),
        Ok(_) => "was replaced, or another file system is mounted over it".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => "was deleted or moved".to_owned(),
        Err(error) => format!("cannot be found: {error}"),
    };
    Err(io::Error::other(Displaced(format!("{what} {reason}; put it back, or restart the hub"))))
}
