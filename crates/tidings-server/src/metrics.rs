//! Counters for `/metrics`. None has a label per topic: the number of series does not depend on
//! clients.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};
use tidings::Hub;

use crate::{Component, ConnectionMetrics, Figure};

/// What the HTTP APIs count.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) streams_opened: Counter,
    pub(crate) streams_closed: Counter,
    pub(crate) streams_shed: Counter,
    /// By class of the status: `4xx`, `5xx`.
    refused: Family<[(&'static str, &'static str); 1], Counter>,
    /// By outcome: `subscribed`, `other`, `failed`, `abandoned`.
    authorizations: Family<[(&'static str, &'static str); 1], Counter>,
    /// By outcome: `answered`, `subscribed`, `upgraded`, `failed`, `abandoned`.
    upstream_requests: Family<[(&'static str, &'static str); 1], Counter>,
    ready: Gauge,
    registry: Registry,
}

/// The format of an exposition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exposition {
    /// The text format of Prometheus, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Exposition {
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Metrics {
    pub(crate) fn new(
        hub: Hub,
        connections: Option<Arc<ConnectionMetrics>>,
        components: Vec<Arc<dyn Component>>,
    ) -> Self {
        let mut registry = Registry::with_prefix("tidings");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let streams_opened = counter("streams_opened", "Streams that were opened");
        let streams_closed = counter("streams_closed", "Streams that have ended");
        let streams_shed = counter("streams_shed", "Subscribers that were rejected and asked to retry later");
        let refused = Family::default();
        let authorizations = Family::default();
        let upstream_requests = Family::default();
        let ready = Gauge::default();
        registry.register(
            "ready",
            "1 if events are accepted and delivered, as /readyz reports, else 0",
            ready.clone(),
        );
        registry.register("requests_refused", "Requests that were answered with an error", refused.clone());
        registry.register(
            "authorizations",
            "Streams that an application was asked about, by what it answered",
            authorizations.clone(),
        );
        registry.register(
            "upstream_requests",
            "Requests that were forwarded to the application behind the hub, by what became of them",
            upstream_requests.clone(),
        );
        registry.register_collector(Box::new(HubCollector { hub, connections }));
        registry.register_collector(Box::new(Components(components)));
        Self {
            streams_opened,
            streams_closed,
            streams_shed,
            refused,
            authorizations,
            upstream_requests,
            ready,
            registry,
        }
    }

    /// Counts a request that was answered with an error.
    pub(crate) fn count_refused(&self, class: &'static str) {
        self.refused.get_or_create(&[("class", class)]).inc();
    }

    /// Counts a stream that an application was asked about.
    pub(crate) fn count_authorization(&self, outcome: &'static str) {
        self.authorizations.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts a request for the application behind the hub.
    pub(crate) fn count_upstream(&self, outcome: &'static str) {
        self.upstream_requests.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// All metrics.
    pub(crate) fn render(&self, is_ready: bool, exposition: Exposition) -> Result<String, fmt::Error> {
        self.ready.set(is_ready.into());
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(match exposition {
            Exposition::Text => to_text_format(&out),
            Exposition::OpenMetrics => out,
        })
    }
}

/// Converts OpenMetrics to the text format of Prometheus, which the registry does not write: there,
/// a family has the name of its samples, which ends in `_total` for counters, and there are no
/// `UNIT` and `EOF` lines.
fn to_text_format(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len() + openmetrics.len() / 16);
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.take().filter(|(described, _)| *described == name) {
                out.extend(["# HELP ", name, suffix, " ", help, "\n"]);
            }
            out.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with("# ") {
            out.extend([line, "\n"]);
        }
    }
    out
}

/// Metrics that other components keep, read at each scrape.
#[derive(Debug)]
struct HubCollector {
    hub: Hub,
    connections: Option<Arc<ConnectionMetrics>>,
}

impl Collector for HubCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stats = self.hub.stats();
        gauge(&mut encoder, "subscribers", "Subscriptions that are open", stats.subscribers as u64)?;
        gauge(&mut encoder, "feeds", "Distinct subscribed matchers and formats", stats.feeds as u64)?;
        gauge(&mut encoder, "patterns", "Distinct subscribed URL Patterns", stats.patterns as u64)?;
        gauge(&mut encoder, "feed_bytes", "Encoded events that the feeds hold", stats.feed_bytes as u64)?;
        gauge(
            &mut encoder,
            "fan_out_lag_bytes",
            "Bytes in the log that the fan-out has not reached",
            stats.fan_out_lag_bytes,
        )?;
        counter(
            &mut encoder,
            "published",
            "Events that were published through this process",
            stats.published,
        )?;
        counter(
            &mut encoder,
            "ephemeral_dropped",
            "Ephemeral events that were not delivered here, or not sent to other hubs",
            stats.ephemeral_dropped,
        )?;
        counter(
            &mut encoder,
            "stored_events_rejected",
            "Invalid entries that were read from the store and not delivered",
            stats.rejected,
        )?;
        let Some(connections) = &self.connections else { return Ok(()) };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        gauge(&mut encoder, "connections_open", "Connections that are open", read(&connections.open))?;
        counter(
            &mut encoder,
            "connections_accepted",
            "Connections that were accepted",
            read(&connections.accepted),
        )?;
        counter(
            &mut encoder,
            "connections_idle_closed",
            "Idle connections that were closed because no request arrived",
            read(&connections.closed_idle),
        )?;
        counter(
            &mut encoder,
            "responses_cut",
            "Responses that were aborted because the client read them too slowly",
            read(&connections.closed_slow),
        )?;
        counter(
            &mut encoder,
            "accept_pauses",
            "Times that accepting paused for lack of file descriptors or memory",
            read(&connections.accept_pauses),
        )?;
        counter(
            &mut encoder,
            "requests",
            "Requests whose headers were complete and valid",
            read(&connections.requests),
        )?;
        let refused = ConstCounter::new(0_u64);
        let mut family = encoder.encode_descriptor(
            "connections_refused",
            "Connections that were rejected",
            None,
            refused.metric_type(),
        )?;
        for (reason, count) in connections.refused() {
            ConstCounter::new(count).encode(family.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }
}

/// Metrics of the components of the hub. There are as many labels as configured components.
#[derive(Debug)]
struct Components(Vec<Arc<dyn Component>>);

impl Collector for Components {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // Each metric is described once, whichever components have it.
        let mut families = BTreeMap::<_, Vec<_>>::new();
        for component in &self.0 {
            let label = [(component.kind(), component.name())];
            for figure in component.figures() {
                families.entry(figure.name).or_default().push((label.clone(), figure));
            }
        }
        for (name, figures) in families {
            let (_, Figure { help, is_counter, .. }) = figures[0];
            let kind = if is_counter { MetricType::Counter } else { MetricType::Gauge };
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (label, figure) in figures {
                let encoder = family.encode_family(&label)?;
                if is_counter {
                    ConstCounter::new(figure.value).encode(encoder)?;
                } else {
                    ConstGauge::new(i64::try_from(figure.value).unwrap_or(i64::MAX)).encode(encoder)?;
                }
            }
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_format_names_a_counter_as_its_samples() {
        let openmetrics = "# HELP t_seen_bytes What was seen: a b.\n# TYPE t_seen_bytes counter\n# UNIT t_seen_bytes bytes\n\
                           t_seen_bytes_total{a=\"# b\"} 1\nt_seen_bytes_total{a=\"c\"} 2\n\
                           # HELP t_open Open.\n# TYPE t_open gauge\nt_open -1\n# EOF\n";
        let text = "# HELP t_seen_bytes_total What was seen: a b.\n# TYPE t_seen_bytes_total counter\n\
                    t_seen_bytes_total{a=\"# b\"} 1\nt_seen_bytes_total{a=\"c\"} 2\n\
                    # HELP t_open Open.\n# TYPE t_open gauge\nt_open -1\n";
        assert_eq!(to_text_format(openmetrics), text);
    }
}
