//! What the hub counts on its way from the log to the sockets, for metrics.
//!
//! The hot path counts in memory of its own: a [shard](crate::shard) in plain numbers, which it adds
//! here once a slice; pulled streams in a cell of their thread. Everything else here happens once a
//! stream, once a second, or a few times a second.

pub(crate) mod closed;
pub(crate) mod deliveries;
pub(crate) mod reader_lag;

use std::time::Duration;

use tidings_log::histogram::{Histogram, Recorded};

use self::{
    closed::ClosedStreams,
    deliveries::{Delivered, Deliveries},
    reader_lag::ReaderLags,
};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) closed: ClosedStreams,
    pub(crate) readers: ReaderLags,
    drivers: [DriverCounts; Driver::COUNT],
}

/// What moves the bytes of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Driver {
    /// A shard, to a socket.
    Shard,
    /// The one that pulls the stream, such as an HTTP/2 connection.
    Pulled,
}

impl Driver {
    const COUNT: usize = 2;
}

#[derive(Debug, Default)]
struct DriverCounts {
    deliveries: Deliveries,
    lag: Histogram,
}

impl Counts {
    /// Counts what was delivered.
    pub(crate) fn deliver(&self, driver: Driver, delivered: Delivered) {
        self.drivers[driver as usize].deliveries.add(delivered);
    }

    /// What was delivered up to now.
    pub(crate) fn delivered(&self, driver: Driver) -> Delivered {
        self.drivers[driver as usize].deliveries.total()
    }

    /// Counts how long after its append a sampled event was delivered.
    pub(crate) fn record_lag(&self, driver: Driver, lag: Duration) {
        self.drivers[driver as usize].lag.record(lag);
    }

    /// How long deliveries took.
    pub(crate) fn lag(&self, driver: Driver) -> Recorded {
        self.drivers[driver as usize].lag.recorded()
    }
}
