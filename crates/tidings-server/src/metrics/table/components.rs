//! Components of the hub: bridges, issuers of tokens, the application of `tidings run`. Each
//! component reports its values under these names.

use crate::metrics::metric::{Metric, Reading::Component};

pub(super) static METRICS: &[Metric] = &[
    Metric {
        name: "tidings_bridge_listening",
        help: "1 while this process is subscribed to the channels of the bridge, else 0",
        action: "Alert when no hub of a cluster has 1.",
        reading: Component("bridge"),
    },
    Metric {
        name: "tidings_bridge_queue_bytes",
        help: "Bytes of messages that are queued for the hub",
        action: "If it grows, the hub accepts events more slowly than they arrive; a full queue drops messages.",
        reading: Component("bridge"),
    },
    Metric {
        name: "tidings_bridge_received_total",
        help: "Messages that were received, without those that the bridge had sent itself",
        action: "Its rate is the load that the bridge brings.",
        reading: Component("bridge"),
    },
    Metric {
        name: "tidings_bridge_published_total",
        help: "Events that were published to the hub",
        action: "It grows like the messages that are received, unless some are refused.",
        reading: Component("bridge"),
    },
    Metric {
        name: "tidings_bridge_undecodable_total",
        help: "Messages that could not be decoded",
        action: "If it grows, the format of the bridge is not that of its publishers.",
        reading: Component("bridge"),
    },
    Metric {
        name: "tidings_bridge_invalid_total",
        help: "Messages that the validator refused, as HTTP does with 400",
        action: "If it grows, a publisher sends invalid events; the log shows one of them.",
        reading: Component("bridge"),
    },
    Metric {
        name: "tidings_bridge_too_large_total",
        help: "Messages that were too large",
        action: "If it grows, raise the limit on events, or send less in one message.",
        reading: Component("bridge"),
    },
    Metric {
        name: "tidings_bridge_no_room_total",
        help: "Messages that were refused because the log was full",
        action: "Alert when it grows: the log needs more space.",
        reading: Component("bridge"),
    },
    Metric {
        name: "tidings_bridge_dropped_total",
        help: "Messages that were dropped because the queue was full",
        action: "Alert when it grows: the hub accepted no events for too long.",
        reading: Component("bridge"),
    },
    Metric {
        name: "tidings_bridge_sent_total",
        help: "Messages that were sent",
        action: "Its rate is the load that the bridge causes.",
        reading: Component("bridge"),
    },
    Metric {
        name: "tidings_bridge_unsent_total",
        help: "Messages that may not have been sent, because the connection was lost",
        action: "If it grows, subscribers of the other side may have missed events.",
        reading: Component("bridge"),
    },
    Metric {
        name: "tidings_bridge_returned_total",
        help: "Messages of this bridge that it received back and ignored",
        action: "Nothing needs to be done: a bridge in both directions receives what it sends.",
        reading: Component("bridge"),
    },
    Metric {
        name: "tidings_bridge_connections_lost_total",
        help: "Connections to the server of the bridge that were lost",
        action: "If it grows, look at the network and at that server: messages are lost meanwhile.",
        reading: Component("bridge"),
    },
    Metric {
        name: "tidings_issuers_without_keys",
        help: "Issuers of tokens whose keys have not been fetched",
        action: "Alert when it is not 0: tokens of these issuers are answered 503.",
        reading: Component("keys"),
    },
    Metric {
        name: "tidings_issuer_keys_fetched_total",
        help: "Key sets of issuers that were fetched",
        action: "It grows with each refresh.",
        reading: Component("keys"),
    },
    Metric {
        name: "tidings_issuer_keys_failed_total",
        help: "Fetches of the key set of an issuer that failed",
        action: "If it grows, look in the log for the issuer and the cause.",
        reading: Component("keys"),
    },
    Metric {
        name: "tidings_hook_delivered_total",
        help: "Changes of presence that the receiver of the hook has accepted",
        action: "Its rate is the load of the receiver; only the hub that delivers counts.",
        reading: Component("hook"),
    },
    Metric {
        name: "tidings_hook_failed_total",
        help: "Attempts to deliver a hook that failed and are repeated",
        action: "If it grows, look in the log for the reason.",
        reading: Component("hook"),
    },
    Metric {
        name: "tidings_hook_dropped_total",
        help: "Changes of presence that were dropped because too many waited for the receiver",
        action: "Alert when it grows: the receiver was away for too long, and has to read the presence anew.",
        reading: Component("hook"),
    },
    Metric {
        name: "tidings_hook_pending",
        help: "Changes of presence that wait for the receiver of the hook",
        action: "If it grows, the receiver is slower than the changes.",
        reading: Component("hook"),
    },
    Metric {
        name: "tidings_hook_pending_age_seconds",
        help: "How long the oldest change of presence has waited for the receiver of the hook",
        action: "Alert when it is more than a few minutes: the hook does not get through.",
        reading: Component("hook"),
    },
    Metric {
        name: "tidings_application_up",
        help: "1 if the application of `tidings run` accepts connections, else 0",
        action: "Alert when it is 0 for longer than the application takes to start.",
        reading: Component("application"),
    },
    Metric {
        name: "tidings_application_starts_total",
        help: "Starts of the application of `tidings run`",
        action: "If it grows without a deployment, the application crashes.",
        reading: Component("application"),
    },
    Metric {
        name: "tidings_acme_certificate_expiry_timestamp_seconds",
        help: "When the certificate from the authority expires, in seconds since 1970; 0 without one",
        action: "Alert when it comes near while `tidings_acme_failed_total` grows: renewals fail, and the log says why.",
        reading: Component("acme"),
    },
    Metric {
        name: "tidings_acme_obtained_total",
        help: "Certificates that were obtained from the authority",
        action: "It grows at each renewal; if it grows daily, the certificate is not kept: check the folder `cache`.",
        reading: Component("acme"),
    },
    Metric {
        name: "tidings_acme_failed_total",
        help: "Attempts to obtain a certificate that failed",
        action: "If it grows, the log says why; the certificate before stays in use until it expires.",
        reading: Component("acme"),
    },
];
