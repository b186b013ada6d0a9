//! The few things that the segment log asks of a file system, so that tests can put a worse one in its place.
//!
//! A disk is one flat directory. What was written is sure to survive a loss of power only after [`DiskFile::sync_data`]; that a file was created,
//! renamed or removed only after [`Disk::sync_directory`]. Everything blocks: nothing here is called on a thread that serves.

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A directory of files.
pub(crate) trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes a file for reading and writing, empty, whatever stood there.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Gives a file another name, in place of whatever had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Whoever has it open can go on reading.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes sure of everything that was created, renamed and removed so far.
    fn sync_directory(&self) -> io::Result<()>;
    /// Names the time since the machine was started: while it is the same, nothing that was written can be gone. `None` if nobody knows.
    fn boot_id(&self) -> Option<String>;
}

/// An open file.
pub(crate) trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// How long it is, in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reads what there is at this offset: fewer bytes at the end of the file, none beyond it.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some of these bytes, at least one.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Cuts or extends it.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes sure of everything that was written so far.
    fn sync_data(&self) -> io::Result<()>;
}

/// Reads as much as the buffer holds, or all there is.
pub(super) fn read_full(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Writes all of it.
pub(super) fn write_full(file: &dyn DiskFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        match file.write_at(&bytes[written..], offset + written as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Puts a small file in the place of another, whole: after a crash there is the one or the other.
pub(super) fn replace(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}{TEMPORARY}");
    let file = disk.create(&temporary)?;
    write_full(&*file, bytes, 0)?;
    file.sync_data()?;
    disk.rename(&temporary, name)?;
    disk.sync_directory()
}

/// All of a file, or `None` if it does not exist or has more than so many bytes.
pub(super) fn read_small(disk: &dyn Disk, name: &str, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let Some(len) = usize::try_from(file.len()?).ok().filter(|len| *len <= bytes_max) else {
        return Ok(None);
    };
    let mut bytes = vec![0; len];
    let read = read_full(&*file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// What the name of a file ends with that is not whole yet.
pub(super) const TEMPORARY: &str = ".new";

/// A directory of the system.
#[derive(Debug)]
pub(super) struct RealDisk(PathBuf);

/// The right to use a directory, held against other processes until it is dropped or the process ends.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

impl RealDisk {
    /// Makes the directory if there is none, and takes the lock on it.
    pub(super) fn open(directory: &Path) -> io::Result<(Self, DirectoryLock)> {
        if !directory.is_dir() {
            fs::create_dir_all(directory)?;
            if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        let file =
            OpenOptions::new().create(true).write(true).truncate(false).open(directory.join(LOCK_NAME))?;
        match file.try_lock() {
            Ok(()) => Ok((Self(directory.to_owned()), DirectoryLock { _file: file })),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Whether a process holds the lock on a directory. Changes nothing in it.
pub(super) fn is_in_use(directory: &Path) -> io::Result<bool> {
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
pub(super) struct ReadOnlyDisk(pub(super) PathBuf);

impl Disk for ReadOnlyDisk {
    fn create(&self, _name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File::open(self.0.join(name))?))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        list(&self.0)
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
}

fn list(directory: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
    names.filter_map(Result::transpose).collect()
}

/// The file that a process holds locked. It stays empty.
pub(super) const LOCK_NAME: &str = "lock";

impl Disk for RealDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.0.join(name))?;
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(self.0.join(name))?))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        list(&self.0)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    fn boot_id(&self) -> Option<String> {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(id.trim().to_owned())
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }
}
