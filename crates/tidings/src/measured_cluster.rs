//! The cluster of a hub, with the leases counted that this hub holds.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tidings_log::{
    cluster::{Cluster, ClusterError, Lease, Messages, Watch},
    parts::lock,
};
use tokio::time::Instant;

/// See the module's documentation.
pub(crate) struct MeasuredCluster {
    cluster: Arc<dyn Cluster>,
    /// The leases that were acquired here, and until when each is held unless it is renewed. A few.
    leases: Mutex<HashMap<Lease, Instant>>,
}

impl MeasuredCluster {
    pub(crate) fn new(cluster: Arc<dyn Cluster>) -> Self {
        Self { cluster, leases: Mutex::default() }
    }

    /// How many leases this hub holds.
    pub(crate) fn lease_count(&self) -> usize {
        let mut leases = lock(&self.leases);
        let now = Instant::now();
        leases.retain(|_, held_until| *held_until > now);
        leases.len()
    }
}

#[async_trait]
impl Cluster for MeasuredCluster {
    async fn acquire(&self, key: &str, time: Duration) -> Result<Option<Lease>, ClusterError> {
        // By then it has expired, however long the call takes.
        let asked_at = Instant::now();
        let lease = self.cluster.acquire(key, time).await?;
        if let Some(lease) = &lease {
            // Those that were neither renewed nor released.
            self.lease_count();
            lock(&self.leases).insert(lease.clone(), asked_at + time);
        }
        Ok(lease)
    }

    async fn renew(&self, lease: &Lease, time: Duration) -> Result<bool, ClusterError> {
        let asked_at = Instant::now();
        let is_held = self.cluster.renew(lease, time).await?;
        if is_held {
            lock(&self.leases).insert(lease.clone(), asked_at + time);
        } else {
            lock(&self.leases).remove(lease);
        }
        Ok(is_held)
    }

    async fn release(&self, lease: &Lease) -> Result<(), ClusterError> {
        self.cluster.release(lease).await?;
        lock(&self.leases).remove(lease);
        Ok(())
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
        self.cluster.send(channel, message).await
    }

    async fn listen(&self, channel: &str) -> Result<Box<dyn Messages>, ClusterError> {
        self.cluster.listen(channel).await
    }
}

impl fmt::Debug for MeasuredCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MeasuredCluster").field(&self.cluster).finish()
    }
}

#[cfg(test)]
mod tests {
    use tidings_log::cluster::LocalCluster;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn leases_count_until_they_are_released_or_expire_or_are_lost() {
        let cluster = MeasuredCluster::new(Arc::new(LocalCluster::default()));
        let second = Duration::from_secs(1);
        let lease = cluster.acquire("a", second).await.expect("there").expect("it is free");
        assert_eq!(cluster.acquire("a", second).await, Ok(None));
        let other = cluster.acquire("b", 10 * second).await.expect("there").expect("it is free");
        assert_eq!(cluster.lease_count(), 2);
        assert_eq!(cluster.renew(&lease, 3 * second).await, Ok(true));
        advance(2 * second).await;
        assert_eq!(cluster.lease_count(), 2, "it was renewed");
        advance(2 * second).await;
        assert_eq!(cluster.lease_count(), 1, "it has expired");
        cluster.cluster.release(&other).await.expect("there");
        assert_eq!(cluster.renew(&other, second).await, Ok(false));
        assert_eq!(cluster.lease_count(), 0, "it was lost");
        let lease = cluster.acquire("a", second).await.expect("there").expect("it is free");
        cluster.release(&lease).await.expect("there");
        assert_eq!(cluster.lease_count(), 0);
    }
}
