//! How many hubs the cluster has: each announces itself there, and counts those that do.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tidings_log::cluster::{Cluster, ClusterError};
use tokio::time::sleep;

/// How often a hub announces itself and counts.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long a hub counts that is gone without a word. A hub may miss an announcement or two.
const KEPT: Duration = Duration::from_secs(20);
/// What the keys begin with. The number of the hub follows.
const PREFIX: &str = "hubs/";

/// The other hubs that announce themselves in a cluster now, by their numbers.
pub(crate) async fn other_hubs(cluster: &dyn Cluster, own: [u8; 16]) -> Result<HashSet<u128>, ClusterError> {
    let hubs = cluster.list(PREFIX).await?;
    let numbers = hubs.iter().filter_map(|(key, _)| u128::from_str_radix(key.strip_prefix(PREFIX)?, 16).ok());
    Ok(numbers.filter(|number| *number != u128::from_be_bytes(own)).collect())
}

/// The hubs of a cluster, as they were when they were counted last.
#[derive(Debug)]
pub(crate) struct ClusterHubs(AtomicUsize);

impl Default for ClusterHubs {
    fn default() -> Self {
        Self(AtomicUsize::new(1))
    }
}

impl ClusterHubs {
    /// How many there are, this one included.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Announces this hub and counts again and again, until this hub has closed. While the cluster
    /// cannot be reached, the last count stays.
    pub(crate) async fn announce(
        self: Arc<Self>,
        cluster: Arc<dyn Cluster>,
        hub: [u8; 16],
        closed: impl Future<Output = ()>,
    ) {
        let key = format!("{PREFIX}{:032x}", u128::from_be_bytes(hub));
        let announcing = async {
            loop {
                if let Err(error) = self.announce_once(&*cluster, &key).await {
                    tracing::debug!(%error, "the hubs of the cluster cannot be counted");
                }
                sleep(INTERVAL).await;
            }
        };
        tokio::select! {
            () = announcing => {}
            () = closed => {}
        }
        // Otherwise it expires.
        let _ = cluster.remove(&key).await;
    }

    async fn announce_once(&self, cluster: &dyn Cluster, key: &str) -> Result<(), ClusterError> {
        cluster.set(key, b"", KEPT).await?;
        let hubs = cluster.list(PREFIX).await?.len();
        self.0.store(hubs.max(1), Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tidings_log::cluster::LocalCluster;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn hubs_count_each_other_until_they_are_gone() {
        let cluster: Arc<dyn Cluster> = Arc::new(LocalCluster::default());
        let [one, other] = [(); 2].map(|()| Arc::<ClusterHubs>::default());
        let announce = |hubs: &Arc<ClusterHubs>, number, ends_after| {
            tokio::spawn(Arc::clone(hubs).announce(Arc::clone(&cluster), [number; 16], sleep(ends_after)))
        };
        announce(&one, 1, Duration::MAX);
        sleep(INTERVAL).await;
        assert_eq!(one.count(), 1);
        let killed = announce(&other, 2, Duration::MAX);
        sleep(2 * INTERVAL).await;
        assert_eq!((one.count(), other.count()), (2, 2));
        killed.abort();
        sleep(KEPT.saturating_sub(INTERVAL)).await;
        assert_eq!(one.count(), 2, "it may come back");
        sleep(3 * INTERVAL).await;
        assert_eq!(one.count(), 1);
        announce(&other, 3, 2 * INTERVAL);
        sleep(INTERVAL + INTERVAL / 2).await;
        assert_eq!(one.count(), 2);
        sleep(2 * INTERVAL).await;
        assert_eq!(one.count(), 1, "it has closed");
    }
}
