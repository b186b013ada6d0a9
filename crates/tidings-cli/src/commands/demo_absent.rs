//! `tidings demo` in builds without its cargo feature.

use std::ffi::OsString;

use clap::Args;

use crate::failure::Failure;

/// Run the example chat (not in this build)
#[derive(Args, Debug)]
pub(super) struct Demo {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _arguments: Vec<OsString>,
}

impl Demo {
    #[expect(clippy::unused_self, reason = "the same signature as every command")]
    pub(super) fn run(self) -> Result<(), Failure> {
        Err(Failure::usage("this program was built without `tidings demo`: its cargo feature `demo` is off"))
    }
}
