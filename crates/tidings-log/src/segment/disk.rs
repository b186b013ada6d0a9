//! The file system operations of the segment log, behind a trait so that tests can inject faults.
//!
//! A disk is one flat directory. Written data survives a loss of power only after
//! [`DiskFile::sync_data`]; creating, renaming or removing a file only after
//! [`Disk::sync_directory`]. Everything blocks, so nothing here is called on a thread that serves
//! connections.

use std::{
    fmt,
    fs::{self, File, Metadata, TryLockError},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags, chmodat, fchmod, fstat, openat, renameat, statat, unlinkat},
    io::retry_on_intr,
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
    /// Removes a file. A reader that has it open can continue to read.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes sure of everything that was created, renamed and removed so far.
    fn sync_directory(&self) -> io::Result<()>;
    /// Names the time since the machine was started: while it is the same, nothing that was written
    /// can be gone. `None` if nobody knows.
    fn boot_id(&self) -> Option<String>;
    /// What the path of the directory leads to now. Every other operation goes to the directory
    /// that was opened, wherever that is now.
    fn identity(&self) -> io::Result<FileIdentity>;
    /// Which file has this name now.
    fn identity_of(&self, name: &str) -> io::Result<FileIdentity>;
}

/// Tells a file or directory from every other, as long as it is open or has a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileIdentity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl FileIdentity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// An open file.
pub(crate) trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// How long it is, in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reads what there is at this offset: fewer bytes at the end of the file, none beyond it.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of these bytes. After an error some may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts or extends it.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes sure of everything that was written so far.
    fn sync_data(&self) -> io::Result<()>;
    /// Which file it is.
    fn identity(&self) -> io::Result<FileIdentity>;
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

/// What the name of a file ends with that is not whole yet.
pub(super) const TEMPORARY: &str = ".new";

/// A directory of the system. It is held open: what is done in it is done there, also when its path
/// leads elsewhere by now, as after `rm -r`, `mv` or `mount`.
pub(super) struct RealDisk {
    path: PathBuf,
    directory: File,
    is_read_only: bool,
}

impl fmt::Debug for RealDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

/// Private events are in it: its owner alone may enter the directory and read the files.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// The permissions of everybody but the owner.
const OTHERS: Mode = Mode::RWXG.union(Mode::RWXO);
/// What a file system has in its topmost directory.
const LOST_AND_FOUND: &str = "lost+found";

impl RealDisk {
    /// Makes the directory if there is none, and takes the lock on it, which other processes cannot
    /// take until the file is closed.
    pub(super) fn open(directory: &Path) -> io::Result<(Self, File)> {
        let is_new = !directory.is_dir();
        if is_new {
            fs::create_dir_all(directory)?;
            if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        let disk =
            Self { path: directory.to_owned(), directory: File::open(directory)?, is_read_only: false };
        if is_new {
            fchmod(&disk.directory, Mode::RWXU)?;
        }
        let file = disk.file(LOCK_NAME, OFlags::WRONLY | OFlags::CREATE)?;
        match file.try_lock() {
            Ok(()) => Ok((disk, file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// A directory that is looked at and not changed, nor locked.
    #[cfg(any(test, feature = "store-tools"))]
    pub(super) fn read_only(directory: &Path) -> io::Result<Self> {
        Ok(Self { path: directory.to_owned(), directory: File::open(directory)?, is_read_only: true })
    }

    /// The directory, to be changed.
    fn writable(&self) -> io::Result<&File> {
        if self.is_read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(&self.directory) }
    }

    /// Takes away what others may do with a store that an earlier version or somebody else made.
    /// Where that is not allowed, a warning says so.
    pub(super) fn tighten(&self, is_of_a_log: impl Fn(&str) -> bool) {
        if let Err(error) = self.try_tighten(is_of_a_log) {
            tracing::warn!(
                store = %self.path.display(),
                %error,
                "other users of this machine may be able to read the events: make the directory accessible to its owner only (chmod 700)"
            );
        }
    }

    fn try_tighten(&self, is_of_a_log: impl Fn(&str) -> bool) -> io::Result<()> {
        // A directory that also holds other things than a log may be one like /tmp.
        let mut is_ours = true;
        for name in self.list()? {
            if is_of_a_log(&name) {
                let mode = Mode::from_raw_mode(statat(&self.directory, &*name, AtFlags::empty())?.st_mode);
                if let Some(tight) = tightened(mode) {
                    chmodat(&self.directory, &*name, tight, AtFlags::empty())?;
                }
            } else {
                is_ours &= name == LOST_AND_FOUND;
            }
        }
        let others = tightened(Mode::from_raw_mode(fstat(&self.directory)?.st_mode));
        match others {
            None => Ok(()),
            Some(tight) if is_ours => Ok(fchmod(&self.directory, tight)?),
            Some(_) => Err(io::Error::other(
                "the directory also contains other files, so its permissions were not changed",
            )),
        }
    }

    /// Opens a file. A new one is for its owner alone, whatever the umask.
    fn file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let open = || openat(&self.directory, name, flags | OFlags::CLOEXEC, FILE_MODE);
        let file = File::from(retry_on_intr(open)?);
        if flags.contains(OFlags::CREATE) {
            let mode = Mode::from_raw_mode(fstat(&file)?.st_mode);
            if !mode.contains(FILE_MODE) {
                fchmod(&file, mode | FILE_MODE)?;
            }
        }
        Ok(file)
    }
}

/// A mode without the permissions of others, if they have any.
fn tightened(mode: Mode) -> Option<Mode> {
    mode.intersects(OTHERS).then(|| mode - OTHERS)
}

/// The file that a process holds locked. It stays empty.
pub(super) const LOCK_NAME: &str = "lock";

impl Disk for RealDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.writable()?;
        Ok(Arc::new(self.file(name, OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let access = if self.is_read_only { OFlags::RDONLY } else { OFlags::RDWR };
        Ok(Arc::new(self.file(name, access)?))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            // Whatever is not named in UTF-8 is not ours.
            if let Ok(name) = entry?.file_name().to_str()
                && ![".", ".."].contains(&name)
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(self.writable()?, from, &self.directory, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(self.writable()?, name, AtFlags::empty())?)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn boot_id(&self) -> Option<String> {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(id.trim().to_owned())
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        Ok(FileIdentity::of(&fs::metadata(&self.path)?))
    }

    fn identity_of(&self, name: &str) -> io::Result<FileIdentity> {
        let stat = statat(&self.directory, name, AtFlags::empty())?;
        #[allow(clippy::unnecessary_cast, reason = "their types differ between systems")]
        Ok(FileIdentity { device: stat.st_dev as u64, inode: stat.st_ino as u64 })
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        Ok(FileIdentity::of(&self.metadata()?))
    }
}
