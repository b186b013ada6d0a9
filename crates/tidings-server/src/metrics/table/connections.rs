//! Connections, and what they are closed for.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{
    ConnectionMetrics,
    metrics::{
        labels::Label,
        metric::{
            Metric,
            Reading::{Each, One},
            Sample, whole, wholes,
        },
        sources::Sources,
    },
};

/// The sample of one counter of the connections.
fn read(sources: &Sources, counter: fn(&ConnectionMetrics) -> &AtomicU64) -> Vec<Sample> {
    sources.connections.as_ref().map_or_else(Vec::new, |metrics| whole(counter(metrics).load(Relaxed)))
}

pub(super) static METRICS: &[Metric] = &[
    Metric {
        name: "tidings_connections_open",
        help: "Connections that are open, those of streams included",
        action: "Compare it with `tidings_connections_max`.",
        reading: One(|sources| read(sources, |metrics| &metrics.open)),
    },
    Metric {
        name: "tidings_connections_max",
        help: "The setting `connections_max`: connections that may be open",
        action: "Alert before `tidings_connections_open` reaches it.",
        reading: One(|sources| read(sources, |metrics| &metrics.open_max)),
    },
    Metric {
        name: "tidings_connections_accepted_total",
        help: "Connections that were accepted, rejected ones included",
        action: "A high rate with few new streams means that clients or a proxy keep no connections open.",
        reading: One(|sources| read(sources, |metrics| &metrics.accepted)),
    },
    Metric {
        name: "tidings_connections_refused_total",
        help: "Connections that were rejected, by reason",
        action: "`full` means that `connections_max` or the limit on file descriptors is reached; any other reason, that clients are broken or hostile.",
        reading: Each(&[Label { name: "reason", values: &ConnectionMetrics::REFUSED_REASONS }], |sources| {
            sources.connections.as_ref().map_or_else(Vec::new, |metrics| wholes(metrics.refused()))
        }),
    },
    Metric {
        name: "tidings_connections_idle_closed_total",
        help: "Idle connections that were closed because no request arrived",
        action: "Nothing needs to be done; a proxy that reports resets should keep idle connections for a shorter time than the hub.",
        reading: One(|sources| read(sources, |metrics| &metrics.closed_idle)),
    },
    Metric {
        name: "tidings_responses_cut_total",
        help: "Responses that were aborted because the client read them too slowly",
        action: "If it grows, clients are frozen or hostile, or `response_secs` is too short for them.",
        reading: One(|sources| read(sources, |metrics| &metrics.closed_slow)),
    },
    Metric {
        name: "tidings_accept_pauses_total",
        help: "Times that accepting paused for lack of file descriptors or memory",
        action: "Alert when it grows: raise the limit on file descriptors, or lower `connections_max`.",
        reading: One(|sources| read(sources, |metrics| &metrics.accept_pauses)),
    },
];
