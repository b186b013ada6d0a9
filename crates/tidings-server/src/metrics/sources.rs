//! What the values of all metrics are read from.

use std::sync::Arc;

use tidings::{HubStats, Measurements};

use super::{counts::Counts, process::Process};
use crate::{Availability, ConnectionMetrics, Figure, Settings, Upstream, app::App};

/// The state at a scrape. The rows of the table read it.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(super) hub: HubStats,
    pub(super) measured: Measurements,
    pub(super) is_ready: bool,
    pub(super) counts: Arc<Counts>,
    /// None where the connections are not those of this crate.
    pub(super) connections: Option<Arc<ConnectionMetrics>>,
    pub(super) streams_max: usize,
    upstream: Option<Upstream>,
    /// None where the system does not say.
    pub(super) process: Option<Process>,
    components: Vec<ComponentFigures>,
}

#[derive(Debug)]
struct ComponentFigures {
    kind: &'static str,
    name: String,
    figures: Vec<Figure>,
}

impl Sources {
    pub(crate) fn new(app: &App, is_ready: bool, process: Option<Process>) -> Self {
        let Settings { components, connection_metrics, streams_max, upstream, .. } = &app.settings;
        let components = components.iter().map(|component| ComponentFigures {
            kind: component.kind(),
            name: component.name(),
            figures: component.figures(),
        });
        Self {
            hub: app.hub.stats(),
            measured: app.hub.measurements(),
            is_ready,
            counts: Arc::clone(&app.counts),
            connections: connection_metrics.clone(),
            streams_max: *streams_max,
            upstream: upstream.clone(),
            process,
            components: components.collect(),
        }
    }

    /// Whether the application behind the hub is up, if there is one.
    pub(super) fn is_upstream_up(&self) -> Option<bool> {
        self.upstream.as_ref().map(|upstream| *upstream.availability().borrow() == Availability::Up)
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
