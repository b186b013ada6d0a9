//! `/metrics`: everything that a hub measures, in the formats of Prometheus.
//!
//! | to change | go to |
//! |---|---|
//! | a metric: its name, labels and texts, where its values are read | `table`, a file for each section |
//! | what the HTTP APIs count | `counts`; routes, methods and statuses: `requests` |
//! | what the system says of the process | `process` |
//! | what the rows of the table can read | `sources` |
//! | the bytes of an exposition | `exposition` |
//! | the page of the reference, which `tidings metrics` prints | `reference` |
//!
//! Invariants: no label has a value that a client chooses, so the number of series depends on the
//! configuration alone; every series exists from the start; to count takes no lock and no look-up.

#[macro_use]
pub(crate) mod labels;
pub(crate) mod counts;
mod exposition;
pub(crate) mod metric;
mod process;
mod reference;
pub(crate) mod requests;
mod sources;
mod table;

pub use self::reference::metrics_reference;
pub(crate) use self::{exposition::Exposition, process::Process, sources::Sources};
