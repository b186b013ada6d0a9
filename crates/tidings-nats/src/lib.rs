//! Hubs on many machines that share one log and one cluster on NATS JetStream.
//!
//! [`Nats::connect`] opens both: a [`Log`](tidings_log::Log) on one stream, in which each batch is in
//! one message (`messages.rs`), and a [`Cluster`](tidings_log::cluster::Cluster) on a key-value bucket and ordinary
//! subjects. All hubs that name the same server and the same log see one order, one set of ids and
//! one history, so that a subscriber may resume at any of them.
//!
//! How it works, from the outside in:
//! - [`NatsLog`] answers from an **index** in memory (`index.rs`): what is needed to find an event,
//!   for all events that are kept, and the newest events themselves. Older ones are fetched from
//!   the stream by their sequence number, so that reading one topic does not read the others.
//! - The **follower** (`follower.rs`) is the only code that changes the index. It reads the stream
//!   with one consumer for the whole process. Before it trusts a connection it compares the stream
//!   with what it knows (`history.rs`): a stream that was recreated or has lost its end begins a
//!   new epoch, on which all hubs agree by compare-and-set.
//! - The link (`link.rs`) is the connection. It counts its generations, so that no state is carried
//!   over from one to the next.
//!
//! Every request has a time limit, every wait an end: while the server is unavailable, so are the
//! log and the cluster, and tails wait.

mod address;
mod bucket;
mod cluster;
mod consumer;
mod credentials;
mod eraser;
mod fetch;
mod follower;
mod format;
mod history;
mod index;
mod link;
mod log;
mod messages;
mod settings;
mod shared_index;
mod tail;

use std::{fmt, sync::Arc};

pub use address::NatsAddress;
pub use cluster::NatsCluster;
pub use log::NatsLog;
pub use settings::NatsSettings;
pub use tidings_net::InvalidUrl;

use link::Link;

/// The store cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot open {address}: {reason}")]
pub struct OpenError {
    address: String,
    reason: String,
}

/// A connection to a NATS server, which opens a log and a cluster. Clones share it.
#[derive(Clone)]
pub struct Nats {
    link: Arc<Link>,
    address: NatsAddress,
    settings: NatsSettings,
}

impl Nats {
    /// Connects. If the connection is lost later, it is re-established for as long as it takes.
    pub async fn connect(address: &NatsAddress, mut settings: NatsSettings) -> Result<Self, OpenError> {
        settings.replicas = address.replicas.or(settings.replicas);
        let link = Link::connect(address).await.map_err(|reason| address.cannot_open(&reason))?;
        Ok(Self { link: Arc::new(link), address: address.clone(), settings })
    }

    /// Opens the log, which is created if it does not exist, and reads what is needed to find its
    /// events.
    pub async fn log(&self) -> Result<NatsLog, OpenError> {
        let opened = NatsLog::open(Arc::clone(&self.link), self.settings.clone()).await;
        opened.map_err(|reason| self.address.cannot_open(&reason))
    }

    /// Opens the cluster of the hubs that share the log.
    pub async fn cluster(&self) -> Result<NatsCluster, OpenError> {
        let opened = NatsCluster::open(Arc::clone(&self.link), &self.settings).await;
        opened.map_err(|reason| self.address.cannot_open(&reason))
    }
}

impl NatsAddress {
    fn cannot_open(&self, reason: &str) -> OpenError {
        OpenError { address: self.to_string(), reason: reason.to_owned() }
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("address", &self.address).finish_non_exhaustive()
    }
}
