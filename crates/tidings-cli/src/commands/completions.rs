//! `tidings completions`: what a shell needs to complete command lines.

use clap::Args;
use clap_complete::{Shell, generate};

use crate::{failure::Failure, output::print_line};

/// Print the completions for a shell
///
/// For bash: `tidings completions bash > ~/.local/share/bash-completion/completions/tidings`
#[derive(Args, Debug)]
pub(super) struct Completions {
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, mut tidings: clap::Command) -> Result<(), Failure> {
        let mut script = Vec::new();
        generate(self.shell, &mut tidings, "tidings", &mut script);
        print_line(String::from_utf8_lossy(&script).trim_end())
    }
}
