//! `make bench`: Tidings, the bare loop, nchan, an axum handler, and Mercure and Centrifugo if they are
//! installed, side by side; or two builds of Tidings (`--baseline`).
//!
//! Rounds are interleaved: each scenario runs against each server before the next scenario, and
//! everything again in the next round, because the speed of the machine drifts by more than the
//! measured differences. Every run has a fresh server. The results are medians over all rounds.
//!
//! A complete comparison (all scenarios, all servers, three rounds) replaces `docs/benchmarks.md`;
//! anything less is printed.
#![cfg_attr(not(target_os = "linux"), allow(unused))]

#[cfg(target_os = "linux")]
mod baseline;
#[cfg(target_os = "linux")]
mod compare;
#[cfg(target_os = "linux")]
mod folder;
#[cfg(target_os = "linux")]
mod machine;
#[cfg(target_os = "linux")]
mod measured;
#[cfg(target_os = "linux")]
mod page;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod results;
#[cfg(target_os = "linux")]
mod rows;
#[cfg(target_os = "linux")]
mod servers;
#[cfg(target_os = "linux")]
mod store;
#[cfg(target_os = "linux")]
mod targets;

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    compare::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("error: the comparison runs on Linux only");
    std::process::exit(2);
}
