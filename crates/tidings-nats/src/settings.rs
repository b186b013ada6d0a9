//! How much a log on JetStream keeps.

use std::time::Duration;

/// The limits of the server and of the memory of each hub. All hubs that share a log should have
/// the same: the stream has the limits of the hub that opened it last, and each hub shows what its
/// own settings allow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NatsSettings {
    /// Most bytes of events, as they are stored. Beyond that, the oldest are dropped; a batch that
    /// is larger on its own is refused as full. Default 1 GiB.
    pub bytes_max: u64,
    /// Most events; likewise. Default: as many as fit.
    pub count_max: Option<u64>,
    /// Greatest age of an event by the server's clock. Default: any age.
    pub age_max: Option<Duration>,
    /// How long a repeated idempotency key is recognised, by the server and for all hubs
    /// (`duplicate_window` of the stream). Default 10 minutes.
    pub keys_age_max: Duration,
    /// Most memory of the index of one hub, in bytes. The index holds what is needed to find an
    /// event: some hundred bytes each. Beyond that, the oldest events count as dropped for this
    /// hub. Default 256 MiB.
    pub index_bytes_max: usize,
    /// Most memory of the newest events that one hub keeps, in bytes. Older ones are fetched from
    /// the server. Default 32 MiB.
    pub recent_bytes_max: usize,
    /// For how many sets of topics the last dropped event is remembered. Default 100,000.
    pub floors_max: usize,
    /// How many servers of a NATS cluster keep the stream and its buckets. If they exist with
    /// another number, the log is not opened. Without a number they are taken as they are, and
    /// created on one server. `replicas` in the address takes precedence. Default: none.
    pub replicas: Option<usize>,
}

impl Default for NatsSettings {
    fn default() -> Self {
        Self {
            bytes_max: 1 << 30,
            count_max: None,
            age_max: None,
            keys_age_max: Duration::from_secs(10 * 60),
            index_bytes_max: 256 << 20,
            recent_bytes_max: 32 << 20,
            floors_max: 100_000,
            replicas: None,
        }
    }
}
