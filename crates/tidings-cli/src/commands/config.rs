//! `tidings config`: begins a configuration file.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    path::PathBuf,
};

use clap::{Args, Subcommand};

use crate::{config, failure::Failure, output::print_line};

/// Begin a configuration file
#[derive(Args, Debug)]
pub(super) struct Config {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Write a file that explains every setting, each with its default; an existing file is never
    /// overwritten
    Init {
        /// The file; - prints the text instead
        #[arg(default_value = "tidings.toml")]
        file: PathBuf,
    },
}

impl Config {
    pub(super) fn run(self) -> Result<(), Failure> {
        let ConfigCommand::Init { file } = self.command;
        let text = config::template();
        if file.as_os_str() == "-" {
            return print_line(text.trim_end());
        }
        let name = file.display();
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        // The file will hold secrets.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(&file).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                Failure::usage(format!("{name} exists already: name another file, or - to print the text"))
            }
            _ => Failure::runtime(format!("cannot write {name}: {error}")),
        })?;
        print_line(&format!(
            "{name} is written: edit it, then check it with `tidings serve --config {name} --check`"
        ))
    }
}
