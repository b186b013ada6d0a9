//! Measures a Server-Sent Events hub, and proves that nothing was lost.
//!
//! A [`Plan`] names a hub by URL templates ([`Target`]) and a [`Scenario`]; [`run`] gives a
//! [`Report`]. The load client (`engine`) is one thread of edge-triggered epoll that parses nothing
//! but a mark at the beginning of each payload (`mark`); a `ledger` records what each stream must
//! receive next.
//!
//! Linux only: epoll and `/proc`.
#![cfg(target_os = "linux")]

mod careful;
mod engine;
mod error;
mod histogram;
mod ledger;
mod mark;
mod plan;
mod process;
mod progress;
mod reply;
mod report;
mod scenario;
mod target;

pub use error::BenchError;
pub use plan::{Plan, Scenario};
pub use process::Server;
pub use progress::Progress;
pub use report::{
    Connecting, Faults, Growth, Memory, Others, Quantiles, Quantity, Report, Sample, Soak, Step, Traffic,
};
pub use scenario::run;
pub use target::{Preset, Private, Resume, Target};
