//! `/metrics`: everything that a hub measures, in the formats of Prometheus.
//!
//! | to change | go to |
//! |---|---|
//! | a metric: its name, labels and texts, where its values are read | `table`, a file for each section |
//! | what the HTTP APIs count | `counts` |
//! | what the rows of the table can read | `sources` |
//! | the bytes of an exposition | `exposition` |
//! | the page of the reference, which `tidings metrics` prints | `reference` |
//!
//! Invariants: no label has a value that a client chooses, so the number of series depends on the
//! configuration alone; every series exists from the start; to count takes no lock and no look-up.

#[macro_use]
mod labels;
pub(crate) mod counts;
mod exposition;
pub(crate) mod metric;
mod reference;
mod sources;
mod table;

use std::{fmt, sync::Arc};

use tidings::Hub;

pub(crate) use self::exposition::Exposition;
pub use self::reference::metrics_reference;
use self::{counts::Counts, sources::Sources};
use crate::{Component, ConnectionMetrics};

/// The metrics of a hub and of everything that serves it.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) counts: Arc<Counts>,
    pub(crate) connections: Option<Arc<ConnectionMetrics>>,
    pub(crate) components: Vec<Arc<dyn Component>>,
}

impl Metrics {
    /// All metrics of this hub now.
    pub(crate) fn render(
        &self,
        hub: &Hub,
        is_ready: bool,
        exposition: Exposition,
    ) -> Result<String, fmt::Error> {
        let (counts, connections) = (Arc::clone(&self.counts), self.connections.clone());
        exposition.render(Sources::new(hub, is_ready, counts, connections, &self.components))
    }
}
