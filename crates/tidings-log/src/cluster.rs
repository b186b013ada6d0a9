//! What the hubs of one cluster know of each other beside the log.
//!
//! [`Cluster`] is replay-to-live: leases, so that one of several does what must be done once; keyed state that expires, so that what a dead hub said of
//! itself goes with it; broadcast, for what is worth nothing a moment later. Nothing here is needed to deliver events, and nothing is for ever:
//! the one that wants to be known says so again before the time is up. One [conformance suite](mod@conformance) holds for every implementation;
//! [`LocalCluster`] is that of hubs in one process.

pub mod conformance;
mod local;

use std::{fmt, time::Duration};

use async_trait::async_trait;

pub use local::{ClusterLimits, LocalCluster};

/// A right that one holder at a time has, until it is released or its time is up.
///
/// A holder that was asleep may believe in a lease that another has by now. So every acquisition has a number, larger than those before it under
/// the same key: what it guards can refuse the smaller one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Lease {
    /// What it is a lease of.
    pub key: String,
    /// The number of this acquisition.
    pub fence: u64,
}

/// What became of a key of the shared state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// It has this value now.
    Set {
        /// The key.
        key: String,
        /// The value.
        value: Vec<u8>,
    },
    /// It was removed, or its time was up.
    Gone {
        /// The key.
        key: String,
    },
}

/// Why the cluster did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// It has no room for this; what was there before is still there.
    #[error("the cluster has no room: {0}")]
    Full(String),
    /// It cannot be reached now; whether anything was done is unknown. Everything here may be done again.
    #[error("the cluster is unavailable: {0}")]
    Unavailable(String),
}

/// Changes of the keys with one prefix. A slow watcher costs no queue: what changed several times comes once, as it is now.
#[async_trait]
pub trait Watch: Send {
    /// The next changes, at least one, each key once. Waits until there are some. Cancel safe: what was not returned comes again.
    async fn next(&mut self) -> Result<Vec<Change>, ClusterError>;
}

/// The messages of one channel, from now on.
#[async_trait]
pub trait Messages: Send {
    /// The next message. Each comes at most once, those of one sender in the order in which they were sent; the one that is too slow loses the
    /// oldest. Waits until there is one. Cancel safe.
    async fn next(&mut self) -> Result<Vec<u8>, ClusterError>;
}

/// A value that all nodes have alike, such as a key for signatures: the one that is there, or else this one, held for so long from now on. The one that needs it calls this
/// again before the time is up, with what it got.
pub async fn agree(
    cluster: &dyn Cluster,
    key: &str,
    proposed: &[u8],
    time: Duration,
) -> Result<Vec<u8>, ClusterError> {
    loop {
        // Who has the lease has the right to propose; it is not given back, so that the one that comes next finds what was set.
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

/// How long a node has the right to propose a value: longer than any call takes.
const PROPOSAL_TIME: Duration = Duration::from_secs(10);
/// How long the others wait before they look whether it has.
const PROPOSAL_PAUSE: Duration = Duration::from_millis(50);

/// See the [module documentation](self). Keys, prefixes and channels are any text; they share nothing with each other.
#[async_trait]
pub trait Cluster: Send + Sync + fmt::Debug + 'static {
    /// Takes a lease for some time, unless somebody has it: then there is `None`, also for the holder itself, who [renews](Self::renew) it.
    async fn acquire(&self, key: &str, time: Duration) -> Result<Option<Lease>, ClusterError>;

    /// Holds a lease for so long from now on. False if it is lost: its time was up, and somebody may have taken it.
    async fn renew(&self, lease: &Lease, time: Duration) -> Result<bool, ClusterError>;

    /// Gives a lease back. One that is lost already stays with the one that has it.
    async fn release(&self, lease: &Lease) -> Result<(), ClusterError>;

    /// Gives a key a value for so long from now on, whatever it had before.
    async fn set(&self, key: &str, value: &[u8], time: Duration) -> Result<(), ClusterError>;

    /// Removes a key, if it is there.
    async fn remove(&self, key: &str) -> Result<(), ClusterError>;

    /// The value of a key.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ClusterError>;

    /// All keys with this prefix and their values, in the order of the keys.
    async fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, ClusterError>;

    /// Watches the keys with this prefix. The first changes are those that make the present state out of nothing.
    async fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>, ClusterError>;

    /// Sends a message to the one that listens to the channel, the sender included. It may still be on its way when this returns: the one that begins to listen
    /// meanwhile receives it, or not.
    async fn send(&self, channel: &str, message: &[u8]) -> Result<(), ClusterError>;

    /// Listens to a channel. What is sent when this has returned is received.
    async fn listen(&self, channel: &str) -> Result<Box<dyn Messages>, ClusterError>;
}
