//! Streams and requests, as the HTTP APIs count them.

use crate::metrics::{
    counts::{Authorization, RefusedClass, UpstreamOutcome},
    labels::LabelValue,
    metric::{Kind::Counter, Metric, Reading::Samples, whole, wholes},
};

pub(super) static METRICS: &[Metric] = &[
    Metric {
        name: "tidings_streams_opened_total",
        kind: Counter,
        labels: &[],
        help: "Streams that were opened",
        action: "A rate far above that of new visitors means that clients reconnect again and again.",
        reading: Samples(|sources| whole(sources.counts.streams_opened.value())),
    },
    Metric {
        name: "tidings_streams_shed_total",
        kind: Counter,
        labels: &[],
        help: "Subscribers that were rejected and asked to retry later",
        action: "If it grows, a limit is reached; the log names it.",
        reading: Samples(|sources| whole(sources.counts.streams_shed.value())),
    },
    Metric {
        name: "tidings_requests_refused_total",
        kind: Counter,
        labels: &[RefusedClass::LABEL],
        help: "Requests that were answered with an error",
        action: "Alert on the rate of `5xx`.",
        reading: Samples(|sources| wholes(sources.counts.refused.values())),
    },
    Metric {
        name: "tidings_authorizations_total",
        kind: Counter,
        labels: &[Authorization::LABEL],
        help: "Streams that an application was asked about, by what it answered",
        action: "Alert on the rate of `failed`: the application of `[[authorize]]` is down, or answers what the hub cannot use; the log says which.",
        reading: Samples(|sources| wholes(sources.counts.authorizations.values())),
    },
    Metric {
        name: "tidings_upstream_requests_total",
        kind: Counter,
        labels: &[UpstreamOutcome::LABEL],
        help: "Requests that were forwarded to the application behind the hub, by what became of them",
        action: "Alert on the rate of `failed`; the log says why.",
        reading: Samples(|sources| wholes(sources.counts.upstream_requests.values())),
    },
];
