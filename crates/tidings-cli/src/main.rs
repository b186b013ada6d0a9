//! Tidings: server push for any web application, in one binary.
//!
//! A command is a module in [`commands`]. Each ends with success or with one [`Failure`], which
//! becomes one line on standard error and an exit code (`failure.rs`).

#[cfg_attr(not(feature = "acme"), path = "acme_absent.rs")]
mod acme;
#[cfg_attr(not(feature = "redis"), path = "bridges_absent.rs")]
mod bridges;
mod checked_client;
mod commands;
mod config;
mod failure;
mod hooks;
mod issuer_keys;
mod output;
mod store;

use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::{commands::Tidings, failure::Failure};

fn main() -> ExitCode {
    output::report_panics();
    refuse_writes_beyond_file_size_limit();
    let done = match Tidings::parse_words(std::env::args_os()) {
        Ok(tidings) => tidings.run().map(|()| ExitCode::SUCCESS),
        Err(text) if asked_for(&text) => print_help(&text),
        Err(mistake) => Err(mistake.into()),
    };
    let status = done.unwrap_or_else(|failure: Failure| output::report_failure(&failure));
    output::flush();
    status
}

/// A write beyond the file size limit (`ulimit -f`) would end the process with a signal. With the
/// signal caught, the write returns an error, to a log as to a store. Catching cannot fail: no
/// other part of the program handles this signal.
fn refuse_writes_beyond_file_size_limit() {
    #[cfg(unix)]
    let _ = signal_hook::flag::register(rustix::process::Signal::XFSZ.as_raw(), std::sync::Arc::default());
}

fn print_help(text: &clap::Error) -> Result<ExitCode, Failure> {
    text.print().map_err(|error| output::output_error(&error))?;
    Ok(if text.exit_code() == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// Help and the version are not errors, and a command line without a command prints help.
fn asked_for(text: &clap::Error) -> bool {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    matches!(text.kind(), DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand)
}
