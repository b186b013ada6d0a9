//! `make bench`: Tidings, nchan and an axum handler side by side.
//!
//! Rounds are interleaved: each scenario runs against each server before the next scenario, and
//! everything again in the next round, because the speed of the machine drifts by more than the
//! measured differences. Every run has a fresh server. The results are medians over all rounds.
//!
//! A complete comparison (all scenarios, all servers, three rounds) replaces `docs/benchmarks.md`;
//! anything less is printed.
#![cfg_attr(not(target_os = "linux"), allow(unused))]

#[cfg(target_os = "linux")]
mod compare;
#[cfg(target_os = "linux")]
mod page;
#[cfg(target_os = "linux")]
mod results;
#[cfg(target_os = "linux")]
mod servers;

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    compare::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("error: the comparison runs on Linux only");
    std::process::exit(2);
}
