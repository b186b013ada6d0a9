//! The limits of a hub.

use std::time::Duration;

use tidings_topic::TopicGlob;

/// The limits of a hub and what it does when they are hit.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HubSettings {
    /// A subscriber that received nothing for about this long is sent a comment, so that proxies
    /// keep the connection and dead connections are found. Jittered by up to a quarter downwards;
    /// zero means never. At most [`HEARTBEAT_MAX`](Self::HEARTBEAT_MAX). Default 15 s.
    pub heartbeat: Duration,
    /// How long browsers wait before they reconnect, in milliseconds, jittered by ± 50 %. Default
    /// 3,000.
    pub retry_millis: u64,
    /// A stream older than this is ended with a `reconnect` notice, jittered by up to a quarter
    /// downwards. Default: never.
    pub lifetime_max: Option<Duration>,
    /// Batches that are being appended to the log; one more is refused with
    /// [`Error::Overloaded`](crate::Error::Overloaded). Default 10,000.
    pub appends_max: usize,
    /// Bytes that are being appended to the log; more are refused with
    /// [`Error::Overloaded`](crate::Error::Overloaded). Default 64 MiB.
    pub appends_bytes_max: u64,
    /// Bytes in the log that the fan-out has not reached; beyond, appends wait. Default: half of
    /// what the log keeps, or 32 MiB where the log has no bound in bytes.
    pub fan_out_lag_bytes_max: Option<u64>,
    /// Ephemeral events that wait to be delivered here, and the same for those that wait to be sent
    /// to other hubs; beyond, the oldest are dropped. Default 4 MiB.
    pub ephemeral_bytes_max: usize,
    /// Encoded events that all feeds together hold; beyond, the oldest are dropped, and a
    /// subscriber that still needs them reads the log. Default 16 MiB.
    pub feed_bytes_max: usize,
    /// Pages of history that are read at the same time; further subscribers queue. Default 8.
    pub replays_max: usize,
    /// Size of such a page, in bytes of the log. Default 128 KiB.
    pub replay_page_bytes: usize,
    /// Bytes that wait for sockets outside of the feeds: pages of history, and the rest of
    /// partially written events. Beyond, sockets that have just become full drop their pages or are
    /// closed; their clients resume by id. Per shard. Default 64 MiB.
    pub pending_bytes_max: usize,
    /// Threads that fan out to [sockets that were handed to the hub](crate::Subscription::drive_socket). 0
    /// means that the fan-out runs in the runtime in which the hub was started, which is best for
    /// machines with one or two processors. Default 0.
    pub shard_threads: usize,
    /// Events on topics that one of these covers are private, whichever API publishes them and
    /// however the topic is spelled ([`PrivateTopics`](tidings_topic::PrivateTopics)).
    pub private_topics: Vec<TopicGlob>,
    /// Distinct URL Patterns that are subscribed to at the same time; a subscription with one more
    /// is refused with [`Error::TooManyPatterns`](crate::Error::TooManyPatterns). Default 10,000.
    pub patterns_max: usize,
    /// Work of comparing one topic with patterns; a subscription whose patterns would exceed it is
    /// refused with [`Error::TooManyPatterns`](crate::Error::TooManyPatterns). A
    /// topic is compared with the patterns that have the same literal prefix: that of `/users/:id`
    /// is `/users/`; `/:id(\d+)` is compared with every topic. A pattern counts 10 without a regular
    /// expression, some 90 with a small and hundreds with a large one. Default 3,000: comparing
    /// then takes no longer than the rest of a publication over HTTP.
    pub pattern_weight_max: u32,
}

impl HubSettings {
    /// Longest [`heartbeat`](Self::heartbeat): clients, a common polyfill among them, consider a
    /// stream dead after 45 seconds of silence and reconnect.
    pub const HEARTBEAT_MAX: Duration = Duration::from_secs(40);
}

impl Default for HubSettings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(15),
            retry_millis: 3_000,
            lifetime_max: None,
            appends_max: 10_000,
            appends_bytes_max: 64 << 20,
            fan_out_lag_bytes_max: None,
            ephemeral_bytes_max: 4 << 20,
            feed_bytes_max: 16 << 20,
            replays_max: 8,
            replay_page_bytes: 128 << 10,
            pending_bytes_max: 64 << 20,
            shard_threads: 0,
            private_topics: Vec::new(),
            patterns_max: 10_000,
            pattern_weight_max: 3_000,
        }
    }
}
