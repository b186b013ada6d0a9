//! What the hub counts on its way from the log to the sockets, for metrics.
//!
//! The hot path counts in memory of its own: a [shard](crate::shard) in plain numbers, which it adds
//! here once a slice; pulled streams in a cell of their thread. Everything else here happens once a
//! stream, once a second, or a few times a second.

pub(crate) mod closed;
pub(crate) mod deliveries;
pub(crate) mod reader_lag;

use tidings_log::histogram::Histogram;

use self::{closed::ClosedStreams, deliveries::Deliveries, reader_lag::ReaderLags};

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

/// What one of the drivers counts.
#[derive(Debug, Default)]
pub(crate) struct DriverCounts {
    pub(crate) deliveries: Deliveries,
    /// How long after its append a sampled event was delivered.
    pub(crate) lag: Histogram,
}

impl Counts {
    /// What this driver counts.
    pub(crate) fn of(&self, driver: Driver) -> &DriverCounts {
        &self.drivers[driver as usize]
    }
}
