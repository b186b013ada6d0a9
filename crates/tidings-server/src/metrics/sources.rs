//! What the values of all metrics are read from.

use std::sync::Arc;

use tidings::{Hub, HubStats, Measurements};

use super::counts::Counts;
use crate::{Component, ConnectionMetrics, Figure};

/// The state at a scrape. The rows of the table read it.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) hub: HubStats,
    pub(super) measured: Measurements,
    pub(super) is_ready: bool,
    pub(super) counts: Arc<Counts>,
    /// None where the connections are not those of this crate.
    pub(super) connections: Option<Arc<ConnectionMetrics>>,
    components: Vec<ComponentFigures>,
}

#[derive(Debug)]
struct ComponentFigures {
    kind: &'static str,
    name: String,
    figures: Vec<Figure>,
}

impl Sources {
    pub(super) fn new(
        hub: &Hub,
        is_ready: bool,
        counts: Arc<Counts>,
        connections: Option<Arc<ConnectionMetrics>>,
        components: &[Arc<dyn Component>],
    ) -> Self {
        let components = components.iter().map(|component| ComponentFigures {
            kind: component.kind(),
            name: component.name(),
            figures: component.figures(),
        });
        let (hub, measured) = (hub.stats(), hub.measurements());
        Self { hub, measured, is_ready, counts, connections, components: components.collect() }
    }

    /// The value of this metric of each component of this kind, with the component's name.
    pub(super) fn of_components<'a>(
        &'a self,
        kind: &'a str,
        metric: &'a str,
    ) -> impl Iterator<Item = (&'a str, u64)> {
        let components = self.components.iter().filter(move |component| component.kind == kind);
        components.filter_map(move |component| {
            let figure = component.figures.iter().find(|figure| figure.name == metric)?;
            Some((component.name.as_str(), figure.value))
        })
    }
}
