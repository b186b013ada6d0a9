//! How many subscribers all hubs of a cluster have together.
//!
//! Every hub says from time to time how many it has, in the state that they share; what a dead hub said of itself expires. So the figure is a
//! few seconds old, and exact for this process.

use std::{sync::Arc, time::Duration};

use tidings_log::{
    Unavailable,
    cluster::{Cluster, ClusterError},
};
use tokio::time::{MissedTickBehavior, interval};

use crate::hub::{Hub, Shared};

/// How often a hub says how many subscribers it has.
const EVERY: Duration = Duration::from_secs(5);

/// What a hub said holds for this long: it may be late twice.
const HOLDS_FOR: Duration = Duration::from_secs(15);

/// Where hubs say it; the name of the hub follows.
const PREFIX: &str = "subscribers/";

/// What a hub knows of those it shares a cluster with.
#[derive(Debug)]
pub(crate) struct Census {
    cluster: Arc<dyn Cluster>,
    /// Under which key this hub says how many it has: no two hubs have the same.
    key: String,
}

impl Census {
    pub(crate) fn new(cluster: Arc<dyn Cluster>) -> Self {
        let name = getrandom::u64().expect("the system gives random numbers");
        Self { cluster, key: format!("{PREFIX}{name:016x}") }
    }

    /// What the hubs share.
    pub(crate) fn cluster(&self) -> &dyn Cluster {
        &*self.cluster
    }

    async fn say(&self, count: usize) -> Result<(), ClusterError> {
        self.cluster.set(&self.key, &(count as u64).to_be_bytes(), HOLDS_FOR).await
    }

    /// How many the others have said that they have.
    async fn elsewhere(&self) -> Result<u64, ClusterError> {
        let said = self.cluster.list(PREFIX).await?;
        let others = said.iter().filter(|(key, _)| *key != self.key);
        // What another version may say is not counted.
        let counts =
            others.filter_map(|(_, count)| Some(u64::from_be_bytes(count.as_slice().try_into().ok()?)));
        Ok(counts.fold(0, u64::saturating_add))
    }
}

impl Hub {
    /// How many subscriptions are open in all hubs of the [cluster](crate::HubBuilder::cluster), as of the last few seconds. A hub that died is counted
    /// for fifteen seconds at most.
    pub async fn subscribers_in_cluster(&self) -> Result<u64, Unavailable> {
        let elsewhere = self.shared.census.elsewhere().await;
        let here = self.shared.presence.count() as u64;
        elsewhere.map(|others| here.saturating_add(others)).map_err(|error| Unavailable(error.to_string()))
    }
}

/// Says how many subscribers this hub has, for as long as it lives.
pub(crate) async fn announce(shared: Arc<Shared>) {
    let mut turns = interval(EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        if let Err(error) = shared.census.say(shared.presence.count()).await {
            tracing::debug!(%error, "the cluster does not hear how many subscribers there are here");
        }
    }
}
