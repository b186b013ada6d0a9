//! Processes of `tidings run`: starting one in a group of its own, signals, and reaping.
//!
//! This process is the only one that waits for children, and [`Processes`] the only place: as
//! process 1 of a container, and on Linux everywhere, processes that have lost their parent become
//! its children, so it reaps every child that has ended, known or not.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{
    Pid, Signal, WaitOptions, kill_process, kill_process_group, test_kill_process_group, wait,
};
use tokio::{
    signal::unix::{Signal as Signals, SignalKind, signal},
    time::{sleep, timeout},
};

use super::restarts::End;

/// How often a group is looked at whose last processes are not children of this one.
const LOOK: Duration = Duration::from_millis(50);

/// Reaps every child.
#[derive(Debug)]
pub(super) struct Processes {
    /// SIGCHLD.
    ends: Signals,
}

/// A process that was started, the leader of its group, and what it prints.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) group: Group,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// A process and its descendants, except those that have left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Group(Pid);

impl Processes {
    pub(super) fn new() -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        Ok(Self { ends: signal(SignalKind::child())? })
    }

    /// Starts a process. Its input is empty: in a group of its own it could not read from a terminal
    /// without being stopped.
    ///
    /// Nothing may wait for the process but [`ended`](Self::ended).
    #[expect(clippy::unused_self, reason = "who reaps must exist before there is a child")]
    pub(super) fn start(&self, command: &mut Command) -> io::Result<Process> {
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Process {
            group: Group(Pid::from_child(&child)),
            stdout: child.stdout.take().expect("it was asked for").into(),
            stderr: child.stderr.take().expect("it was asked for").into(),
        })
    }

    /// Waits until the leader of this group has ended. Cancelling it loses nothing.
    pub(super) async fn ended(&mut self, group: Group) -> End {
        loop {
            if let Some(end) = reap(group) {
                return end;
            }
            self.ends.recv().await;
        }
    }

    /// Waits until a group whose leader has ended is empty.
    pub(super) async fn is_empty(&mut self, group: Group) {
        loop {
            reap(group);
            if test_kill_process_group(group.0).is_err() {
                return;
            }
            tokio::select! {
                _ = self.ends.recv() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    /// The same, at most for this long.
    pub(super) async fn is_empty_soon(&mut self, group: Group, patience: Duration) -> bool {
        timeout(patience, self.is_empty(group)).await.is_ok()
    }
}

impl Group {
    /// Signals the leader alone: it knows what the signal means for its children. gunicorn, for
    /// one, reloads on SIGHUP, which ends its workers.
    pub(super) fn signal_leader(self, signal: Signal) {
        // It may have ended just now.
        let _ = kill_process(self.0, signal);
    }

    /// Signals all its processes.
    pub(super) fn signal(self, signal: Signal) {
        let _ = kill_process_group(self.0, signal);
    }

    pub(super) fn pid(self) -> i32 {
        self.0.as_raw_nonzero().get()
    }
}

/// Reaps all children that have ended. Returns how the leader of this group has ended, if it is one
/// of them.
fn reap(group: Group) -> Option<End> {
    let mut found = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == group.0 => {
                let number = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
                found = match (status.exit_status(), status.terminating_signal()) {
                    (Some(status), _) => Some(End::Exited(number(status))),
                    (None, Some(signal)) => Some(End::Signalled(number(signal))),
                    (None, None) => found,
                };
            }
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(_) => return found,
        }
    }
}
