//! Tidings: server push for any web application, in one binary.
//!
//! A command is a module in [`commands`]; each ends with nothing to tell or with one [`Failure`], which becomes one line
//! on standard error and an exit code: 2 when the command line or the configuration is wrong, 1 when anything else is.

mod bridges;
mod commands;
mod config;
mod failure;
mod output;
mod store;

use std::process::ExitCode;

use clap::{Parser, error::ErrorKind};

use crate::{commands::Tidings, failure::Failure};

fn main() -> ExitCode {
    let done = match Tidings::try_parse() {
        Ok(tidings) => tidings.run(),
        Err(text) if asked_for(&text) => text.exit(),
        Err(mistake) => Err(mistake.into()),
    };
    done.map_or_else(|failure: Failure| failure.report(), |()| ExitCode::SUCCESS)
}

/// Help and the version are no mistakes, and a command line without a command is answered with help.
fn asked_for(text: &clap::Error) -> bool {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    matches!(text.kind(), DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand)
}
