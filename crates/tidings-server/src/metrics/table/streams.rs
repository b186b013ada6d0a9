//! Streams and requests, as the HTTP APIs count them.

use crate::metrics::{
    counts::{
        Authorization, CredentialFailure, PublishApi, PublishOutcome, StreamRejection, Transport,
        UpstreamOutcome,
    },
    labels::LabelValue,
    metric::{
        Metric,
        Reading::{Each, Histograms, One},
        durations, whole, wholes,
    },
    requests::{RequestMethod, Route, StatusClass},
};

pub(super) static METRICS: &[Metric] = &[
    Metric {
        name: "tidings_requests_total",
        help: "Requests that were answered; `mercure` is the path of the hub's URL, `authorize` a path of `[[authorize]]`, `upstream` the application behind the hub",
        action: "Alert on the rate of `5xx`; a high rate of `4xx` on one route means that a client is wrong.",
        reading: Each(&[Route::LABEL, RequestMethod::LABEL, StatusClass::LABEL], |sources| {
            wholes(sources.counts.requests.values())
        }),
    },
    Metric {
        name: "tidings_events_published_total",
        help: "Events that were published over HTTP, by what became of them; a request that was refused (4xx) or could not be served (5xx) counts as one",
        action: "Alert on the rate of `unavailable`: events are not stored; `refused` means that a publisher is wrong.",
        reading: Each(&[PublishApi::LABEL, PublishOutcome::LABEL], |sources| {
            wholes(sources.counts.events_published.values())
        }),
    },
    Metric {
        name: "tidings_publish_duration_seconds",
        help: "Time from a complete, valid request that publishes to its receipt",
        action: "It is that of the store; alert when a high quantile exceeds what publishers can wait.",
        reading: Histograms(&[PublishApi::LABEL], |sources| durations(&sources.counts.publish_durations)),
    },
    Metric {
        name: "tidings_streams",
        help: "Streams that are open",
        action: "Compare their sum with `tidings_streams_max`; a sudden fall means that clients or a proxy lost their connections.",
        reading: Each(&[Transport::LABEL], |sources| {
            // In this order, a stream that opens and ends meanwhile is not missed where it began.
            let ended: Vec<_> = sources.counts.streams_ended.values().collect();
            let opened = sources.counts.streams_opened.values();
            wholes(opened.zip(ended).map(|(opened, ended)| opened.saturating_sub(ended)))
        }),
    },
    Metric {
        name: "tidings_streams_max",
        help: "The setting `streams_max`: streams that may be open",
        action: "Alert before the sum of `tidings_streams` reaches it.",
        reading: One(|sources| whole(sources.streams_max)),
    },
    Metric {
        name: "tidings_streams_opened_total",
        help: "Streams that were opened",
        action: "A rate far above that of new visitors means that clients reconnect again and again.",
        reading: Each(&[Transport::LABEL], |sources| wholes(sources.counts.streams_opened.values())),
    },
    Metric {
        name: "tidings_streams_rejected_total",
        help: "Streams that were rejected and asked to retry later",
        action: "`full` means that `streams_max` is too low or another hub is needed; for the others the log names the limit or the cause.",
        reading: Each(&[StreamRejection::LABEL], |sources| wholes(sources.counts.streams_rejected.values())),
    },
    Metric {
        name: "tidings_authentication_failures_total",
        help: "Requests whose credential was not accepted, by reason; all but `missing` and `expired` are codes of RFC 6750, or `revoked`",
        action: "A steady rate of `invalid_token` means a wrong key or an attack, of `expired` an application that does not renew its tickets; the log names clients.",
        reading: Each(&[CredentialFailure::LABEL], |sources| {
            wholes(sources.counts.authentication_failures.values())
        }),
    },
    Metric {
        name: "tidings_authorizations_total",
        help: "Streams that an application was asked about, by what it answered",
        action: "Alert on the rate of `failed`: the application of `[[authorize]]` is down, or answers what the hub cannot use; the log says which.",
        reading: Each(&[Authorization::LABEL], |sources| wholes(sources.counts.authorizations.values())),
    },
    Metric {
        name: "tidings_upstream_requests_total",
        help: "Requests that were forwarded to the application behind the hub, by what became of them",
        action: "Alert on the rate of `failed`; the log says why.",
        reading: Each(&[UpstreamOutcome::LABEL], |sources| wholes(sources.counts.upstream_requests.values())),
    },
    Metric {
        name: "tidings_upstream_request_duration_seconds",
        help: "Time from a request for the application behind the hub to the headers of its response, its wait for an application that restarts included",
        action: "It is the latency of the application; alert on what its users notice.",
        reading: Histograms(&[], |sources| durations([&sources.counts.upstream_duration])),
    },
    Metric {
        name: "tidings_upstream_up",
        help: "1 if the application behind the hub accepts connections, as far as requests have found, else 0; absent without an application",
        action: "Alert when it is 0 for longer than the application takes to restart.",
        reading: One(|sources| {
            sources.is_upstream_up().map_or_else(Vec::new, |is_up| whole(u64::from(is_up)))
        }),
    },
];
