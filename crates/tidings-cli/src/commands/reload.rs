//! `tidings reload`: has a running hub reload its configuration.

use std::path::PathBuf;

use clap::Args;
use rustix::process::{Signal, kill_process};

use super::pid_file::PidFile;
use crate::{failure::Failure, output::print_line};

/// Have a running hub read its configuration again
///
/// The log of the hub says in one line what has changed, or what is wrong and that nothing has changed. `tidings serve --check` checks a
/// configuration beforehand.
#[derive(Args, Debug)]
pub(super) struct Reload {
    /// File with the process ID of the hub, as in `tidings serve --pid-file FILE`
    #[arg(long, value_name = "FILE", env = "TIDINGS_PID_FILE", hide_env_values = true)]
    pid_file: PathBuf,
}

impl Reload {
    pub(super) fn run(self) -> Result<(), Failure> {
        let process = PidFile::running(&self.pid_file)?;
        let id = process.as_raw_nonzero();
        kill_process(process, Signal::HUP).map_err(|error| {
            Failure::runtime(format!("--pid-file: process {id} cannot be signalled: {error}"))
        })?;
        print_line(&format!("process {id} reloads its configuration; its log says what has changed"))
    }
}
