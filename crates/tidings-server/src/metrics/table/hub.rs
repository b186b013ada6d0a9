//! The hub: publishing, fan-out, feeds.

use crate::metrics::metric::{Metric, Reading::One, whole};

pub(super) static METRICS: &[Metric] = &[
    Metric {
        name: "tidings_ready",
        help: "1 if events are accepted and delivered, as `/readyz` reports, else 0",
        action: "Alert when it is 0 for longer than a restart of the store takes; `/readyz` and the log say why.",
        reading: One(|sources| whole(u64::from(sources.is_ready))),
    },
    Metric {
        name: "tidings_ephemeral_dropped_total",
        help: "Ephemeral events that were not delivered here, or not sent to other hubs",
        action: "If it grows, more ephemeral events are published than delivered, or the store is unavailable.",
        reading: One(|sources| whole(sources.hub.ephemeral_dropped)),
    },
    Metric {
        name: "tidings_subscribers",
        help: "Subscriptions that are open, those of the process itself included",
        action: "A sudden fall means that clients or a proxy lost their connections.",
        reading: One(|sources| whole(sources.hub.subscribers)),
    },
    Metric {
        name: "tidings_feeds",
        help: "Distinct subscribed matchers and formats",
        action: "Memory grows with it; many more feeds than topics in use mean that clients subscribe to what nobody publishes.",
        reading: One(|sources| whole(sources.hub.feeds)),
    },
    Metric {
        name: "tidings_patterns",
        help: "Distinct subscribed URL Patterns",
        action: "Compare it with the setting `patterns_max`, beyond which streams are refused.",
        reading: One(|sources| whole(sources.hub.patterns)),
    },
    Metric {
        name: "tidings_feed_bytes",
        help: "Bytes of encoded events that the feeds hold",
        action: "It is bounded; at its bound, subscribers that are behind read from the log.",
        reading: One(|sources| whole(sources.hub.feed_bytes)),
    },
    Metric {
        name: "tidings_fan_out_lag_bytes",
        help: "Bytes in the log that the fan-out has not reached",
        action: "If it keeps growing, the hub has too little processor time for its subscribers: give it more threads, or add a hub.",
        reading: One(|sources| whole(sources.hub.fan_out_lag_bytes)),
    },
    Metric {
        name: "tidings_stored_events_rejected_total",
        help: "Invalid entries that were read from the store and not delivered",
        action: "If it grows, another program writes into the store of the hub.",
        reading: One(|sources| whole(sources.hub.rejected)),
    },
];
