//! The way of events from the log to the subscribers, and how subscribers keep up.

use tidings::{CloseReason, Deliveries, Measurements, ReplayStats, Usage};

use crate::metrics::{
    labels::Label,
    metric::{
        Metric,
        Reading::{Each, Histograms, One},
        Sample, buckets, whole, wholes,
    },
    sources::Sources,
};

/// Shards send to sockets themselves; all other streams are pulled.
const DRIVER: Label = Label { name: "driver", values: &["shard", "pulled"] };

const CLOSE_REASONS: [&str; CloseReason::ALL.len()] = all_as_str!(CloseReason);

/// The samples of the two drivers.
fn of_drivers<T>(sources: &Sources, read: fn(&Deliveries) -> T) -> [T; 2] {
    let Measurements { shards, pulled, .. } = &sources.measured;
    [read(shards), read(pulled)]
}

fn now(usage: Usage) -> Vec<Sample> {
    whole(usage.now)
}

fn max(usage: Usage) -> Vec<Sample> {
    whole(usage.max)
}

pub(super) static METRICS: &[Metric] = &[
    Metric {
        name: "tidings_deliveries_total",
        help: "Events that were handed to subscribers to their last byte, each once for every subscriber",
        action: "Its rate is the load of the fan-out; divided by the rate of events it is the audience of an event.",
        reading: Each(&[DRIVER], |sources| wholes(of_drivers(sources, |driver| driver.events))),
    },
    Metric {
        name: "tidings_delivered_bytes_total",
        help: "Bytes of streams that were handed to sockets or connections, before encryption: events, notices, heartbeats",
        action: "Its rate is the outgoing traffic that streams cause.",
        reading: Each(&[DRIVER], |sources| wholes(of_drivers(sources, |driver| driver.bytes))),
    },
    Metric {
        name: "tidings_delivery_lag_seconds",
        help: "Time from the append of an event until it was delivered, of a sample of up to ten events a second. A shard counts once for each event and feed, when the last subscriber whose socket accepts it has been sent it; a pulled stream counts each time. The append has the resolution of a millisecond and the clock of the store",
        action: "Alert on its 99th percentile: subscribers receive events late, for lack of processor time or because the store is slow.",
        reading: Histograms(&[DRIVER], |sources| of_drivers(sources, |driver| buckets(&driver.lag)).into()),
    },
    Metric {
        name: "tidings_streams_closed_total",
        help: "Streams that have ended, by reason: `client` has disconnected, `slow` did not read over HTTP/1.1 (over HTTP/2 it counts as `client`, and in `tidings_responses_cut_total`), `error` sent too much or failed in the hub",
        action: "Many of `slow` mean frozen clients or proxies that buffer; many of `expired`, credentials that are not renewed.",
        reading: Each(&[Label { name: "reason", values: &CLOSE_REASONS }], |sources| {
            wholes(sources.measured.closed)
        }),
    },
    Metric {
        name: "tidings_streams_stalled",
        help: "Streams over HTTP/1.1 whose socket accepted nothing when it was last looked at, a second ago at most",
        action: "They are closed after 45 seconds; many of them point to a network or a proxy that does not pass data on.",
        reading: One(|sources| whole(sources.measured.readers.stalled)),
    },
    Metric {
        name: "tidings_reader_lag_bytes_worst",
        help: "Encoded bytes that the subscriber lacks which is furthest behind, over HTTP/1.1, a second ago at most. Of one that reads history, only the page that it is sent and what the feeds hold are known",
        action: "When it approaches what the log keeps, that subscriber is about to get a gap.",
        reading: One(|sources| whole(sources.measured.readers.worst_bytes)),
    },
    Metric {
        name: "tidings_reader_lag_bytes_p99",
        help: "Encoded bytes that 99 of 100 subscribers over HTTP/1.1 lack at most, rounded up to a power of two",
        action: "Above 0 for long, more than one subscriber in a hundred reads too slowly for what it subscribes to.",
        reading: One(|sources| whole(sources.measured.readers.p99_bytes)),
    },
    Metric {
        name: "tidings_gaps_total",
        help: "Gaps that were reported to subscribers, by reason: `expired` events had left the log, the id was `unknown`, or it was of an `other_log`",
        action: "If `expired` grows, the log keeps too little for the time that clients are away; if `other_log` does, the store has lost events.",
        reading: Each(&[Label { name: "reason", values: &ReplayStats::GAP_REASONS }], |sources| {
            wholes(sources.measured.replays.gaps)
        }),
    },
    Metric {
        name: "tidings_replays_total",
        help: "Subscribers that were brought to the end of the log from its history",
        action: "A high rate without new streams means that subscribers fall behind their feeds: raise `feed_bytes_max`, or look at `tidings_streams_stalled`.",
        reading: One(|sources| whole(sources.measured.replays.completed)),
    },
    Metric {
        name: "tidings_replay_pages_total",
        help: "Pages of history that subscribers were given: read from the `log` for them, or `shared` with another subscriber",
        action: "The rate of `log` is the load of replays on the store.",
        reading: Each(&[Label { name: "source", values: &["log", "shared"] }], |sources| {
            let replays = sources.measured.replays;
            wholes([replays.pages_read, replays.pages_shared])
        }),
    },
    Metric {
        name: "tidings_replay_events_total",
        help: "Events on these pages, each once for every subscriber",
        action: "Compare it with `tidings_deliveries_total`: the rest was delivered live.",
        reading: One(|sources| whole(sources.measured.replays.events)),
    },
    Metric {
        name: "tidings_replays_running",
        help: "Pages of history that are being read",
        action: "At `tidings_replays_running_max`, subscribers wait for history: the store is too slow for them.",
        reading: One(|sources| now(sources.measured.replays_running)),
    },
    Metric {
        name: "tidings_replays_running_max",
        help: "The limit of `tidings_replays_running`",
        action: "Compare it with that.",
        reading: One(|sources| max(sources.measured.replays_running)),
    },
    Metric {
        name: "tidings_patterns_max",
        help: "The limit of `tidings_patterns`: the setting `patterns_max`",
        action: "Alert when 80 % are in use: beyond it, streams with new patterns are refused.",
        reading: One(|sources| max(sources.measured.patterns)),
    },
    Metric {
        name: "tidings_feed_bytes_max",
        help: "The limit of `tidings_feed_bytes`: the oldest are dropped beyond it",
        action: "Compare it with that.",
        reading: One(|sources| max(sources.measured.feed_bytes)),
    },
    Metric {
        name: "tidings_fan_out_lag_bytes_max",
        help: "The limit of `tidings_fan_out_lag_bytes`: publishers wait beyond it",
        action: "Compare it with that.",
        reading: One(|sources| max(sources.measured.fan_out_lag_bytes)),
    },
    Metric {
        name: "tidings_appends_pending",
        help: "Publications that are being appended to the log, or wait for that",
        action: "If it stays high, the store or the fan-out is too slow for the publishers.",
        reading: One(|sources| now(sources.measured.appends)),
    },
    Metric {
        name: "tidings_appends_pending_max",
        help: "The limit of `tidings_appends_pending`",
        action: "Alert when 80 % are in use: beyond it, publications are refused with 503.",
        reading: One(|sources| max(sources.measured.appends)),
    },
    Metric {
        name: "tidings_appends_pending_bytes",
        help: "Bytes of the events of `tidings_appends_pending`",
        action: "Compare it with its limit.",
        reading: One(|sources| now(sources.measured.appends_bytes)),
    },
    Metric {
        name: "tidings_appends_pending_bytes_max",
        help: "The limit of `tidings_appends_pending_bytes`",
        action: "Alert when 80 % are in use: beyond it, publications are refused with 503.",
        reading: One(|sources| max(sources.measured.appends_bytes)),
    },
];
