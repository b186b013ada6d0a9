//! The revocations of a hub whose store is a directory: a file of lines, each a revocation in JSON,
//! that is appended to and synced before a revocation is acknowledged.
//!
//! A line that was interrupted is the last one, and was never acknowledged: the next one is written
//! over it. When the file is opened, and when it has grown to twice its lines, it is rewritten
//! without the lines that have expired or that another of the same mark replaces. What is rewritten
//! is read from the file itself: others may have added lines that this process has not yet applied.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::mark::{Mark, Times, unix_secs};

/// The file is rewritten beyond this many lines, if most of them have expired.
const LINES_MIN: usize = 10_000;

/// A file that keeps revocations over restarts.
#[derive(Debug)]
pub struct RevocationFile(Mutex<Open>);

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    /// Its folder, until that is synced: a power failure could bring the file before this one back.
    folder: Option<File>,
    /// Up to here everything is valid.
    bytes: u64,
    lines: usize,
    lines_max: usize,
    /// What was in the file when it was opened, until it is taken.
    found: Vec<(Mark, Times)>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    mark: Mark,
    #[serde(flatten)]
    times: Times,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenRevocationsError {
    /// The system refuses.
    #[error("cannot open the revocations in {0}: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// Something in it is no revocation. A hub without a revocation would admit what was revoked.
    #[error("line {1} of {0} is not a revocation: restore the file, or remove the line if that is safe")]
    Damaged(PathBuf, usize),
}

impl RevocationFile {
    /// Opens or creates the file at this path. One process at a time may use it.
    pub fn open(path: &Path) -> Result<Self, OpenRevocationsError> {
        let failed = |error| OpenRevocationsError::Io(path.to_owned(), error);
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.map_err(failed)?,
        };
        let found = read(&text).map_err(|line| OpenRevocationsError::Damaged(path.to_owned(), line))?;
        let mut open = Open::written(path, found).map_err(failed)?;
        open.sync_folder().map_err(failed)?;
        Ok(Self(Mutex::new(open)))
    }

    /// What was in the file when it was opened. The second time: nothing.
    pub(super) fn take_found(&self) -> Vec<(Mark, Times)> {
        std::mem::take(&mut self.open_file().found)
    }

    /// Adds a revocation, which survives power failures when this returns.
    pub(super) fn add(&self, added: &(Mark, Times)) -> io::Result<()> {
        let mut open = self.open_file();
        if open.lines >= open.lines_max {
            *open = open.rewritten()?;
            open.found.clear();
        }
        open.sync_folder()?;
        let line = encode(added);
        let bytes = open.bytes;
        open.file.set_len(bytes)?;
        open.file.seek(SeekFrom::Start(bytes))?;
        open.file.write_all(&line)?;
        open.file.sync_data()?;
        open.bytes += line.len() as u64;
        open.lines += 1;
        Ok(())
    }

    fn open_file(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// The same file without what is no longer needed.
    fn rewritten(&mut self) -> io::Result<Self> {
        let mut text = String::new();
        self.file.seek(SeekFrom::Start(0))?;
        Read::take(&mut self.file, self.bytes).read_to_string(&mut text)?;
        let damaged = |line| io::Error::other(format!("its line {line} is no longer a revocation"));
        Self::written(&self.path, read(&text).map_err(damaged)?)
    }

    /// Replaces the file by one with these revocations, whole or not at all. It is in use from then
    /// on, also if its folder cannot be synced yet.
    fn written(path: &Path, found: Vec<(Mark, Times)>) -> io::Result<Self> {
        let bytes: Vec<u8> = found.iter().flat_map(encode).collect();
        let new = path.with_extension("new");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&new)?;
        // A umask can have taken permissions of the owner, and a file that was left may have
        // others.
        #[cfg(unix)]
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        // Before the file is replaced, after which nothing may fail.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = if cfg!(unix) { Some(File::open(folder.unwrap_or(Path::new(".")))?) } else { None };
        fs::rename(&new, path)?;
        let lines = found.len();
        let lines_max = (2 * lines).max(LINES_MIN);
        Ok(Self { path: path.to_owned(), file, folder, bytes: bytes.len() as u64, lines, lines_max, found })
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        if let Some(folder) = &self.folder {
            folder.sync_all()?;
            self.folder = None;
        }
        Ok(())
    }
}

/// The revocations in this text that have not expired, one for each mark; or the line that is none.
fn read(text: &str) -> Result<Vec<(Mark, Times)>, usize> {
    let now = unix_secs();
    let mut found: Vec<(Mark, Times)> = Vec::new();
    let mut places = HashMap::new();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        // The last line was interrupted.
        let Some(line) = line.strip_suffix('\n') else { break };
        let Line { mark, times } = serde_json::from_str(line).map_err(|_| index + 1)?;
        if times.until <= now {
            continue;
        }
        let place = *places.entry(mark.clone()).or_insert(found.len());
        match found.get_mut(place) {
            Some((_, before)) => *before = times.after(*before),
            None => found.push((mark, times)),
        }
    }
    Ok(found)
}

fn encode((mark, times): &(Mark, Times)) -> Vec<u8> {
    let line = Line { mark: mark.clone(), times: *times };
    let mut line = serde_json::to_vec(&line).expect("a text and two numbers are JSON");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, until: u64) -> (Mark, Times) {
        (Mark::label(name), Times { at: 1, until, number: 0 })
    }

    #[test]
    fn revocations_survive_and_expired_ones_do_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("revocations");
        let file = RevocationFile::open(&path).expect("created");
        let later = unix_secs() + 1_000;
        for line in [line("a", later), line("b", 5), line("é \"/\n", later)] {
            file.add(&line).expect("written");
        }
        drop(file);
        let file = RevocationFile::open(&path).expect("there");
        assert_eq!(file.take_found(), [line("a", later), line("é \"/\n", later)]);
        assert_eq!(fs::read_to_string(&path).expect("text").lines().count(), 2);
    }

    #[test]
    fn a_file_that_has_grown_is_rewritten_with_all_that_was_acknowledged() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("revocations");
        let file = RevocationFile::open(&path).expect("created");
        let later = unix_secs() + 1_000;
        for line in [line("a", later), line("b", 5), line("c", later), line("a", later + 1)] {
            file.add(&line).expect("written");
        }
        file.open_file().lines_max = 4;
        for name in ["d", "e"] {
            file.add(&line(name, later)).expect("written");
        }
        assert_eq!(fs::read_to_string(&path).expect("text").lines().count(), 4);
        let expected = [line("a", later + 1), line("c", later), line("d", later), line("e", later)];
        assert_eq!(RevocationFile::open(&path).expect("there").take_found(), expected);
    }

    #[test]
    fn of_two_lines_of_a_mark_the_longer_time_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("revocations");
        let file = RevocationFile::open(&path).expect("created");
        let later = unix_secs() + 1_000;
        for until in [later + 1, later] {
            file.add(&line("a", until)).expect("written");
        }
        assert_eq!(RevocationFile::open(&path).expect("there").take_found(), [line("a", later + 1)]);
    }

    /// As after a sync that has failed.
    #[test]
    fn what_a_failed_write_has_left_is_not_behind_the_next_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("revocations");
        let file = RevocationFile::open(&path).expect("created");
        let later = unix_secs() + 1_000;
        file.add(&line("a", later)).expect("written");
        let mut end = OpenOptions::new().append(true).open(&path).expect("there");
        end.write_all(&encode(&line("with a long name", later))).expect("written");
        file.add(&line("b", later)).expect("written");
        let file = RevocationFile::open(&path).expect("it is not damaged");
        assert_eq!(file.take_found(), [line("a", later), line("b", later)]);
    }

    #[test]
    fn an_interrupted_line_is_written_over_and_a_damaged_one_is_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("revocations");
        let later = unix_secs() + 1_000;
        let whole = String::from_utf8(encode(&line("a", later))).expect("text");
        for cut in 0..whole.len() {
            fs::write(&path, format!("{whole}{}", &whole[..cut])).expect("written");
            let file = RevocationFile::open(&path).expect("there");
            file.add(&line("b", later)).expect("written");
            let file = RevocationFile::open(&path).expect("there");
            assert_eq!(file.take_found(), [line("a", later), line("b", later)], "{cut}");
        }
        fs::write(&path, format!("{whole}nonsense\n{whole}")).expect("written");
        let refused = RevocationFile::open(&path).expect_err("it is damaged").to_string();
        assert!(refused.contains("line 2 of ") && refused.contains("revocations"), "{refused}");
    }
}
