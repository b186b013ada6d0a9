//! The log, its store, and the cluster.

use tidings::{LogFailure, LogOperation, log::LogStats, log::Timestamp};

use crate::metrics::{
    labels::Label,
    metric::{
        Metric,
        Reading::{Each, Histograms, One},
        Sample, buckets, whole, wholes,
    },
    sources::Sources,
};

/// The names of the stores ([`LogStats::store`]).
const STORES: [&str; 4] = ["memory", "files", "redis", "nats"];

const OPERATIONS: [&str; LogOperation::ALL.len()] = all_as_str!(LogOperation);

const FAILURES: [&str; LogFailure::ALL.len()] = all_as_str!(LogFailure);

/// What the log knows of itself; no sample for one that knows nothing.
fn of_log(sources: &Sources, read: impl FnOnce(&LogStats) -> Vec<Sample>) -> Vec<Sample> {
    sources.measured.log.as_ref().map_or_else(Vec::new, read)
}

/// Seconds since 1970. 0 where there is no event: the series is there from the start.
fn seconds(time: Option<Timestamp>) -> Vec<Sample> {
    #[expect(clippy::cast_precision_loss, reason = "a double has exact milliseconds for 285,000 years")]
    let seconds = time.unwrap_or_default().to_millis() as f64 / 1_000.0;
    vec![Sample::Real(seconds)]
}

pub(super) static METRICS: &[Metric] = &[
    Metric {
        name: "tidings_log_events",
        help: "Events that the log keeps. Of a store in files, deleted events count until the oldest event is newer",
        action: "With the rate of events it tells how far back clients can resume.",
        reading: One(|sources| of_log(sources, |log| whole(log.events))),
    },
    Metric {
        name: "tidings_log_bytes",
        help: "Bytes of the events that the log keeps",
        action: "At `tidings_log_bytes_max` the oldest events are dropped; that is normal.",
        reading: One(|sources| of_log(sources, |log| whole(log.bytes))),
    },
    Metric {
        name: "tidings_log_bytes_max",
        help: "The limit of `tidings_log_bytes`: `retain_bytes`",
        action: "Raise it if `tidings_log_oldest_timestamp_seconds` is too recent for clients that were away.",
        reading: One(|sources| of_log(sources, |log| whole(log.bytes_max))),
    },
    Metric {
        name: "tidings_log_oldest_timestamp_seconds",
        help: "When the oldest event was appended that the log keeps, as Unix time; 0 if there is none",
        action: "Alert when the log reaches back less far than clients are away: they get gaps.",
        reading: One(|sources| of_log(sources, |log| seconds(log.oldest))),
    },
    Metric {
        name: "tidings_log_newest_timestamp_seconds",
        help: "When the newest event was appended that the log keeps, as Unix time; 0 if there is none",
        action: "If events should arrive all the time, alert when it is too old.",
        reading: One(|sources| of_log(sources, |log| seconds(log.newest))),
    },
    Metric {
        name: "tidings_log_sync_duration_seconds",
        help: "Time of each sync to disk, of a store in files",
        action: "Publishers wait for it with `sync = \"always\"`: if it grows, the disk is slow or busy.",
        reading: Histograms(&[], |sources| of_log(sources, |log| log.syncs.iter().map(buckets).collect())),
    },
    Metric {
        name: "tidings_store_info",
        help: "1 for the kind of store that the log is in, else 0",
        action: "It tells hubs with different stores apart.",
        reading: Each(&[Label { name: "store", values: &STORES }], |sources| {
            of_log(sources, |log| wholes(STORES.map(|store| u64::from(store == log.store))))
        }),
    },
    Metric {
        name: "tidings_store_up",
        help: "1 if the store can be reached and accepts events, as far as the hub knows without asking it, else 0",
        action: "Alert when it is 0: events are refused; `/readyz` and the log say why.",
        reading: One(|sources| of_log(sources, |log| whole(u64::from(log.is_up)))),
    },
    Metric {
        name: "tidings_store_operation_duration_seconds",
        help: "Time of each operation of the log, failed ones included. An `append` may store the events of several publishers",
        action: "Alert on the 99th percentile of `append`: publishers wait for it. A slow `read` delays clients that resume.",
        reading: Histograms(&[Label { name: "operation", values: &OPERATIONS }], |sources| {
            sources.measured.log_durations.iter().map(buckets).collect()
        }),
    },
    Metric {
        name: "tidings_store_errors_total",
        help: "Operations of the log that failed, each publication counted by itself: the log is `full`, the store is `unavailable`, or whether the event was stored is unknown (`outcome_unknown`)",
        action: "Alert when it grows; the log of the hub says why.",
        reading: Each(&[Label { name: "reason", values: &FAILURES }], |sources| {
            wholes(sources.measured.log_failures)
        }),
    },
    Metric {
        name: "tidings_cluster_hubs",
        help: "Hubs that share the store, this one included; one that has ended may count for another 25 seconds",
        action: "Alert when it differs from the number of hubs that should run.",
        reading: One(|sources| whole(sources.measured.cluster_hubs)),
    },
    Metric {
        name: "tidings_cluster_leases",
        help: "Leases that this hub holds, such as that of a bridge",
        action: "The sum over all hubs is the number of tasks that one of them does for all; at 0 with a bridge configured, none does.",
        reading: One(|sources| whole(sources.measured.cluster_leases)),
    },
];
