//! `tidings bench` where it does not exist: on systems without epoll and `/proc`, and in builds
//! without its cargo feature.

use std::ffi::OsString;

use clap::Args;

use crate::failure::Failure;

/// Measure a hub (on Linux only)
#[derive(Args, Debug)]
pub(super) struct Bench {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _arguments: Vec<OsString>,
}

impl Bench {
    #[expect(clippy::unused_self, reason = "the same signature as every command")]
    pub(super) fn run(self) -> Result<(), Failure> {
        Err(Failure::usage(if cfg!(target_os = "linux") {
            "this program was built without `tidings bench`: its cargo feature `bench` is off"
        } else {
            "`tidings bench` runs on Linux only; the hub that it measures may run anywhere"
        }))
    }
}
