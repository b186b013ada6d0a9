//! What hubs share next to the log, on Redis: leases, state that expires, messages.
//!
//! A lease is a key that Redis expires; state is a hash with the times until which its keys hold,
//! by the clock of Redis. Every step is a script (`cluster/lua/`). All keys carry the hash tag
//! `{name}`, as those of the log do. Changes and messages travel on two pub/sub channels, to which
//! each process subscribes once, whatever the number of watches and listeners: a change only names
//! its key, and watches look it up (`cluster/watching.rs`). So a lost connection loses messages,
//! which are worth nothing a moment later, but never a change: watches look again after every
//! reconnect, and when something that they reported is due to expire.
//!
//! One task makes the two connections (`commands`, `subscriptions`) and reconnects them. While
//! there are none, calls fail at once; watches and listeners wait.

mod client;
mod scripts;
mod watching;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tidings_log::cluster::{Cluster, ClusterError, Lease, Messages, Watch, parts::ReceivedMessages};
use tokio::task::AbortHandle;

use self::{client::ClusterClient, watching::RedisWatch};
use crate::RedisSettings;

/// A cluster on Redis. Clones are handles to the same connections; when the last one is gone,
/// watches and listeners end with an error.
#[derive(Clone)]
pub struct RedisCluster(Arc<Handle>);

struct Handle {
    client: Arc<ClusterClient>,
    keeper: AbortHandle,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.keeper.abort();
        self.client.close();
    }
}

impl RedisCluster {
    /// Joins the cluster of this name. Needs a Tokio runtime. The limits in the settings are not
    /// used. Fails if Redis cannot be reached.
    pub async fn open(settings: &RedisSettings) -> Result<Self, ClusterError> {
        let client = Arc::new(ClusterClient::new(settings));
        let keeper = client.open().await?;
        Ok(Self(Arc::new(Handle { client, keeper })))
    }
}

impl fmt::Debug for RedisCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCluster").field("redis", &self.0.client.connector).finish_non_exhaustive()
    }
}

impl From<RedisCluster> for Arc<dyn Cluster> {
    fn from(cluster: RedisCluster) -> Self {
        Arc::new(cluster)
    }
}

#[async_trait]
impl Cluster for RedisCluster {
    async fn acquire(&self, key: &str, time: Duration) -> Result<Option<Lease>, ClusterError> {
        let fence: Option<u64> = self.0.client.run_on(key, &scripts::ACQUIRE, &[&millis(time)]).await?;
        Ok(fence.map(|fence| Lease { key: key.to_owned(), fence }))
    }

    async fn renew(&self, lease: &Lease, time: Duration) -> Result<bool, ClusterError> {
        let fence = lease.fence.to_string();
        self.0.client.run_on(&lease.key, &scripts::RENEW, &[fence.as_bytes(), &millis(time)]).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), ClusterError> {
        let fence = lease.fence.to_string();
        self.0.client.run_on(&lease.key, &scripts::RELEASE, &[fence.as_bytes()]).await
    }

    async fn set(&self, key: &str, value: &[u8], time: Duration) -> Result<(), ClusterError> {
        self.0.client.run(&scripts::SET, &[key.as_bytes(), value, &millis(time)]).await
    }

    async fn remove(&self, key: &str) -> Result<(), ClusterError> {
        self.0.client.run(&scripts::REMOVE, &[key.as_bytes()]).await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ClusterError> {
        self.0.client.run(&scripts::GET, &[key.as_bytes()]).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, ClusterError> {
        let listed = self.0.client.list(prefix).await?;
        Ok(listed.into_iter().map(|found| (found.key, found.value)).collect())
    }

    async fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>, ClusterError> {
        Ok(Box::new(RedisWatch::new(Arc::clone(&self.0.client), prefix)))
    }

    async fn send(&self, channel: &str, message: &[u8]) -> Result<(), ClusterError> {
        let envelope = [channel.len().to_string().as_bytes(), b":", channel.as_bytes(), message].concat();
        self.0.client.run(&scripts::SEND, &[&envelope]).await
    }

    async fn listen(&self, channel: &str) -> Result<Box<dyn Messages>, ClusterError> {
        Ok(Box::new(ReceivedMessages::new(self.0.client.listen(channel)?, ())))
    }
}

fn millis(time: Duration) -> Vec<u8> {
    time.as_millis().to_string().into_bytes()
}
