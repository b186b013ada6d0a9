//! State that the hubs of one cluster share, apart from the log.
//!
//! [`Cluster`] is the interface. It offers leases, so that only one of several hubs does a task;
//! keyed state that expires, so that the state of a dead hub disappears; and broadcast, for
//! short-lived messages. Delivering events needs none of it, and nothing is permanent: a hub renews
//! its state before it expires. Every implementation passes the suite of `tidings-log-conformance`;
//! [`LocalCluster`] is the implementation for hubs in one process.

mod local;
pub mod parts;

use std::{fmt, time::Duration};

use async_trait::async_trait;

pub use local::{ClusterLimits, LocalCluster};

/// A lease, which one holder at a time has until it is released or expires.
///
/// A holder that was suspended may still act on a lease that another holder has acquired since.
/// Therefore every acquisition has a fencing number, larger than all earlier ones under the same
/// key: the resource that the lease guards can reject smaller numbers.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Lease {
    /// The key that the lease is for.
    pub key: String,
    /// The fencing number of this acquisition.
    pub fence: u64,
}

/// A change of a key of the shared state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The key has this value now.
    Set {
        /// The key.
        key: String,
        /// The value.
        value: Vec<u8>,
    },
    /// The key was removed or has expired.
    Gone {
        /// The key.
        key: String,
    },
}

/// Why a call to the cluster failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The cluster has no capacity for this; existing values are unchanged.
    #[error("the cluster is full: {0}")]
    Full(String),
    /// The cluster cannot be reached now; whether the call took effect is unknown. Every call may
    /// be repeated.
    #[error("the cluster is unavailable: {0}")]
    Unavailable(String),
}

/// Changes of the keys with one prefix. A slow watcher needs no queue: a key that changed several
/// times is returned once, with its current value.
#[async_trait]
pub trait Watch: Send {
    /// The next changes: at least one, each key once. Waits until there are some. Cancel safe: the
    /// next call returns changes that were not returned before.
    async fn next(&mut self) -> Result<Vec<Change>, ClusterError>;
}

/// The messages of one channel, from the time of subscription.
#[async_trait]
pub trait Messages: Send {
    /// The next message. Each is returned at most once, and messages of one sender in the order in
    /// which they were sent. A listener that is too slow loses the oldest. Waits until there is
    /// one. Cancel safe.
    async fn next(&mut self) -> Result<Vec<u8>, ClusterError>;
}

/// Agrees on a value that all nodes share, such as a signing key: the existing value, or else the
/// proposed one, held for this time from now on. A node that needs the value calls this again with
/// the returned value before it expires.
pub async fn agree(
    cluster: &dyn Cluster,
    key: &str,
    proposed: &[u8],
    time: Duration,
) -> Result<Vec<u8>, ClusterError> {
    loop {
        // Only the lease holder may propose. The lease is not released, so that the next node finds
        // the value that was set.
        let may_propose = cluster.acquire(key, PROPOSAL_TIME).await?.is_some();
        let agreed = cluster.get(key).await?;
        if agreed.is_some() || may_propose {
            let agreed = agreed.unwrap_or_else(|| proposed.to_vec());
            cluster.set(key, &agreed, time).await?;
            return Ok(agreed);
        }
        tokio::time::sleep(PROPOSAL_PAUSE).await;
    }
}

/// How long a node may propose a value: longer than any call takes.
const PROPOSAL_TIME: Duration = Duration::from_secs(10);
/// How long the other nodes wait before they read the value again.
const PROPOSAL_PAUSE: Duration = Duration::from_millis(50);

/// See the [module documentation](self). Keys, prefixes and channels are arbitrary text. Leases,
/// values and channels have separate namespaces.
#[async_trait]
pub trait Cluster: Send + Sync + fmt::Debug + 'static {
    /// Acquires a lease for this time. `None` if it is held, even by the caller, which
    /// [renews](Self::renew) it instead.
    async fn acquire(&self, key: &str, time: Duration) -> Result<Option<Lease>, ClusterError>;

    /// Extends a lease to this time from now. False if it is lost: it has expired, and another
    /// holder may have acquired it.
    async fn renew(&self, lease: &Lease, time: Duration) -> Result<bool, ClusterError>;

    /// Releases a lease. A lease that was already lost stays with its current holder.
    async fn release(&self, lease: &Lease) -> Result<(), ClusterError>;

    /// Sets the value of a key for this time from now, and replaces any earlier value.
    async fn set(&self, key: &str, value: &[u8], time: Duration) -> Result<(), ClusterError>;

    /// Removes a key, if it exists.
    async fn remove(&self, key: &str) -> Result<(), ClusterError>;

    /// The value of a key.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ClusterError>;

    /// All keys with this prefix and their values, sorted by key.
    async fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, ClusterError>;

    /// Watches the keys with this prefix. The first changes describe the current state.
    async fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>, ClusterError>;

    /// Sends a message to all listeners of the channel, the sender included. It may still be in
    /// transit when this returns: a listener that subscribes meanwhile may or may not receive it.
    async fn send(&self, channel: &str, message: &[u8]) -> Result<(), ClusterError>;

    /// Subscribes to a channel. Every message that is sent after this returned is received.
    async fn listen(&self, channel: &str) -> Result<Box<dyn Messages>, ClusterError>;
}
