//! What a log on JetStream keeps.

use std::time::Duration;

/// How much is kept, on the server and in the memory of each hub. All hubs that share a log should be given the same: the stream has the limits of
/// the hub that opened it last, and each hub shows what its own settings allow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NatsSettings {
    /// Most bytes of events, as they are stored. Beyond, the oldest are dropped; a batch that is larger on its own is refused as full. Default 1 GiB.
    pub bytes_max: u64,
    /// Most events; likewise. Default: as many as fit.
    pub count_max: Option<u64>,
    /// Greatest age of an event by the server's clock. Default: any age.
    pub age_max: Option<Duration>,
    /// For so long a repeated idempotency key is recognised, by the server and for all hubs (`duplicate_window` of the stream). Default 10 minutes.
    pub keys_age_max: Duration,
    /// Most memory of the index of one hub, in bytes. It is what finding an event takes: some hundred bytes each. Beyond, the oldest events count as
    /// dropped for this hub. Default 256 MiB.
    pub index_bytes_max: usize,
    /// Most memory of the newest events that one hub keeps at hand, in bytes. Older ones are fetched from the server. Default 32 MiB.
    pub recent_bytes_max: usize,
    /// For how many sets of topics it is remembered what was dropped last. Default 100,000.
    pub floors_max: usize,
    /// How many servers of a NATS cluster keep the stream and the buckets beside it. If they are there already and others do, the log is not opened. Without
    /// a number they are taken as they are, and made on one server. `replicas` in the address comes first. Default: none.
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
