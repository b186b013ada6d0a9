//! `tidings metrics`: the reference of what `/metrics` answers.

use clap::Args;
use tidings_server::metrics_reference;

use crate::{failure::Failure, output::print_line};

/// Describe every metric of a hub: type, labels, meaning, and what to do with it
#[derive(Args, Debug)]
pub(super) struct Metrics;

impl Metrics {
    pub(super) fn run() -> Result<(), Failure> {
        print_line(metrics_reference().trim_end())
    }
}
