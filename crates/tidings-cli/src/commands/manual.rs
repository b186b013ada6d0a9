//! `tidings man`: the manual pages, made of the same texts as `--help`.

use std::path::PathBuf;

use clap::Args;
use clap_mangen::{Man, generate_to};

use crate::{failure::Failure, output::print_line};

/// Print a manual page: `tidings man serve | man -l -`
#[derive(Args, Debug)]
pub(super) struct Manual {
    /// The command whose page is printed, such as serve or ticket new [default: tidings itself]
    #[arg(value_name = "COMMAND")]
    words: Vec<String>,
    /// Write the pages of all commands into this directory instead
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "words")]
    output: Option<PathBuf>,
}

impl Manual {
    pub(super) fn run(self, mut tidings: clap::Command) -> Result<(), Failure> {
        if let Some(directory) = self.output {
            return generate_to(tidings, &directory).map_err(|error| {
                Failure::runtime(format!("--output: cannot write to {}: {error}", directory.display()))
            });
        }
        // As `generate_to` does. Building gives commands below commands their full names.
        tidings = tidings.disable_help_subcommand(true);
        tidings.build();
        let mut command = &tidings;
        for word in &self.words {
            command = command
                .find_subcommand(word)
                .ok_or_else(|| Failure::usage(format!("`{word}` is not a command; see `tidings --help`")))?;
        }
        let mut page = Vec::new();
        Man::new(command.clone()).render(&mut page).map_err(Failure::runtime)?;
        print_line(String::from_utf8_lossy(&page).trim_end())
    }
}
