//! A cluster that tests can disconnect from its hubs.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tidings::log::cluster::{Cluster, ClusterError, Lease, LocalCluster, Messages, Watch};
use tokio::sync::watch;

/// A cluster in memory. While it cannot be reached, nothing is sent, and those who listen have to
/// listen anew.
#[derive(Clone, Debug)]
pub(crate) struct UnreliableCluster {
    cluster: LocalCluster,
    is_reachable: Arc<watch::Sender<bool>>,
}

impl UnreliableCluster {
    pub(crate) fn set_reachable(&self, is_reachable: bool) {
        self.is_reachable.send_replace(is_reachable);
    }

    fn check(&self) -> Result<(), ClusterError> {
        if *self.is_reachable.borrow() { Ok(()) } else { Err(unreachable()) }
    }
}

fn unreachable() -> ClusterError {
    ClusterError::Unavailable("it was to be unreachable".to_owned())
}

impl Default for UnreliableCluster {
    fn default() -> Self {
        Self { cluster: LocalCluster::default(), is_reachable: Arc::new(watch::Sender::new(true)) }
    }
}

impl From<UnreliableCluster> for Arc<dyn Cluster> {
    fn from(cluster: UnreliableCluster) -> Self {
        Arc::new(cluster)
    }
}

#[async_trait]
impl Cluster for UnreliableCluster {
    async fn acquire(&self, key: &str, time: Duration) -> Result<Option<Lease>, ClusterError> {
        self.cluster.acquire(key, time).await
    }

    async fn renew(&self, lease: &Lease, time: Duration) -> Result<bool, ClusterError> {
        self.cluster.renew(lease, time).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), ClusterError> {
        self.cluster.release(lease).await
    }

    async fn set(&self, key: &str, value: &[u8], time: Duration) -> Result<(), ClusterError> {
        self.cluster.set(key, value, time).await
    }

    async fn remove(&self, key: &str) -> Result<(), ClusterError> {
        self.cluster.remove(key).await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ClusterError> {
        self.cluster.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, ClusterError> {
        self.cluster.list(prefix).await
    }

    async fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>, ClusterError> {
        self.cluster.watch(prefix).await
    }

    async fn send(&self, channel: &str, message: &[u8]) -> Result<(), ClusterError> {
        self.check()?;
        self.cluster.send(channel, message).await
    }

    async fn listen(&self, channel: &str) -> Result<Box<dyn Messages>, ClusterError> {
        self.check()?;
        let messages = self.cluster.listen(channel).await?;
        let is_reachable = self.is_reachable.subscribe();
        Ok(Box::new(UnreliableMessages { messages, is_reachable, has_failed: false }))
    }
}

struct UnreliableMessages {
    messages: Box<dyn Messages>,
    is_reachable: watch::Receiver<bool>,
    has_failed: bool,
}

#[async_trait]
impl Messages for UnreliableMessages {
    async fn next(&mut self) -> Result<Vec<u8>, ClusterError> {
        let Self { messages, is_reachable, has_failed } = self;
        if !*has_failed {
            tokio::select! {
                message = messages.next() => return message,
                _ = is_reachable.wait_for(|is_reachable| !is_reachable) => *has_failed = true,
            }
        }
        Err(unreachable())
    }
}
