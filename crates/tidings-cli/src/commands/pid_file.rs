//! `--pid-file`: the ID of the process that serves, for programs that send it signals.
//!
//! The file is replaced atomically, so a reader always finds a complete number. After an upgrade it
//! names the new process. A file that a crash left behind is replaced; one that names another
//! running process is not.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
};

use rustix::process::{Pid, test_kill_process};

use crate::failure::Failure;

/// The file as this process wrote it.
pub(super) struct PidFile(PathBuf);

impl PidFile {
    /// Refuses a file that names another running process, unless that is the old process of an
    /// upgrade.
    pub(super) fn check(path: &Path, old_process: Option<u32>) -> Result<(), Failure> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(refuse(path, &format!("cannot be read: {error}"))),
        };
        if text.trim().is_empty() {
            return Ok(());
        }
        let Some(pid) = text.trim().parse().ok().filter(|pid| *pid > 0) else {
            return Err(refuse(path, "does not contain a process ID: name another file"));
        };
        if pid == process::id() || Some(pid) == old_process || !is_alive(pid, path) {
            return Ok(());
        }
        let why = format!("names process {pid}, which is running: stop that one, or name another file");
        Err(refuse(path, &why))
    }

    /// The running process that this file names.
    pub(super) fn running(path: &Path) -> Result<Pid, Failure> {
        let text =
            fs::read_to_string(path).map_err(|error| refuse(path, &format!("cannot be read: {error}")))?;
        let number: Option<u32> = text.trim().parse().ok();
        let process = number.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let process = process.ok_or_else(|| refuse(path, "does not contain a process ID"))?;
        if number.is_some_and(|pid| is_alive(pid, path)) {
            return Ok(process);
        }
        Err(refuse(path, &format!("names process {}, which is not running", text.trim())))
    }

    /// Writes the ID of this process.
    pub(super) fn write(path: &Path) -> Result<Self, Failure> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let new = path.with_file_name(format!(".{name}.{}", process::id()));
        let written = fs::write(&new, format!("{}\n", process::id())).and_then(|()| fs::rename(&new, path));
        written.map(|()| Self(path.to_owned())).map_err(|error| {
            let _ = fs::remove_file(&new);
            refuse(path, &format!("cannot be written: {error}"))
        })
    }

    /// Removes it, if it still names this process.
    pub(super) fn remove(self) {
        let is_ours = fs::read_to_string(&self.0).is_ok_and(|text| text.trim() == process::id().to_string());
        if is_ours && let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "the PID file cannot be removed");
        }
    }
}

fn refuse(path: &Path, why: &str) -> Failure {
    Failure::runtime(format!("--pid-file: {} {why}", path.display()))
}

/// Whether the process that this file names still runs. The system may have reused its ID since.
fn is_alive(pid: u32, path: &Path) -> bool {
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    match test_kill_process(process) {
        Ok(()) | Err(rustix::io::Errno::PERM) => !has_started_since(pid, path).unwrap_or(false),
        Err(_) => false,
    }
}

/// Whether a process has started after a file was written. `None` if that is unknown.
#[cfg(target_os = "linux")]
fn has_started_since(pid: u32, path: &Path) -> Option<bool> {
    use std::time::{Duration, UNIX_EPOCH};
    let written = fs::metadata(path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot_secs = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    // proc_pid_stat(5): field 22 is the start in clock ticks after the boot. The name, field 2, may
    // hold anything.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks: u64 = fields.split(' ').nth(22 - 3)?.parse().ok()?;
    let started =
        Duration::from_secs(boot_secs) + Duration::from_secs(ticks / rustix::param::clock_ticks_per_second());
    // Both clocks are coarse: a process writes its own file within a second or two of its start.
    Some(started > written + Duration::from_secs(2))
}

#[cfg(not(target_os = "linux"))]
fn has_started_since(_: u32, _: &Path) -> Option<bool> {
    None
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_file_of_another_running_process_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        // A test runner lives as long as its test.
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get().unsigned_abs();
        fs::write(&path, format!("{parent}\n")).unwrap();
        let refused = PidFile::check(&path, None).unwrap_err().to_string();
        assert!(refused.contains(&parent.to_string()) && refused.contains("--pid-file"), "{refused}");
        PidFile::check(&path, Some(parent)).unwrap();
        // Written before that process started: the ID was reused.
        #[cfg(target_os = "linux")]
        {
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
            PidFile::check(&path, None).unwrap();
        }
    }

    #[test]
    fn a_stale_pid_file_is_replaced_and_any_other_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        PidFile::check(&path, None).unwrap();
        for stale in ["", "2147483647\n"] {
            fs::write(&path, stale).unwrap();
            PidFile::check(&path, None).unwrap();
        }
        for other in ["heartbeat_secs = 15", "-1", "0"] {
            fs::write(&path, other).unwrap();
            assert!(PidFile::check(&path, None).is_err(), "{other}");
            assert!(PidFile::running(&path).is_err(), "{other}");
        }
        fs::write(&path, "2147483647\n").unwrap();
        assert!(PidFile::running(&path).unwrap_err().to_string().contains("not running"));
        let file = PidFile::write(&path).unwrap();
        assert_eq!(PidFile::running(&path).unwrap(), rustix::process::getpid());
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
        file.remove();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        // An upgrade has replaced the file.
        let file = PidFile::write(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        file.remove();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
    }
}
