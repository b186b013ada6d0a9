//! The cluster: leases and keyed state in a key-value bucket, broadcast on ordinary subjects.
//!
//! The server has no expiry for single keys (nats-server 2.9 has one for a whole bucket), so each
//! value states how long it holds, and the reader checks when it was written. Both are measured by
//! the server's clock, which [`Timeline`](timeline) translates into ours. A lease is taken, renewed
//! and released by compare-and-set: its fence is the revision under which it was taken.
//!
//! State is **replicated** (`cluster/replica.rs`): every process follows the bucket with one
//! consumer, and answers lists and watches from memory. Single keys are read from the server.

mod bucket;
mod replica;
mod timeline;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use tidings_log::cluster::{Cluster, ClusterError, Lease, Messages, Watch, parts::ReceivedMessages};
use tokio::{sync::broadcast, task::JoinSet, time::sleep};

use crate::{
    link::{Link, NotStored, if_found, persistently},
    settings::NatsSettings,
};

use self::{
    bucket::{ClusterBucket, LEASE, OPERATION, STATE, Value, hexadecimal},
    replica::Follower,
};

/// Most messages of one channel that are queued for a listener. Beyond that, it loses the oldest.
const MESSAGES_MAX: usize = 1_024;
/// The delay before a failed subscription of a listener is retried.
const RELISTEN_WAIT: Duration = Duration::from_millis(200);
/// How often a change is retried when others change the same key.
const TRIES_MAX: usize = 16;

/// What the hubs of one log on NATS share. Clones are handles to the same cluster.
#[derive(Clone)]
pub struct NatsCluster {
    bucket: Arc<ClusterBucket>,
    follower: Arc<Follower>,
}

impl fmt::Debug for NatsCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsCluster").field("bucket", &self.bucket.name).finish_non_exhaustive()
    }
}

impl NatsCluster {
    pub(crate) async fn open(link: Arc<Link>, settings: &NatsSettings) -> Result<Self, String> {
        let bucket = Arc::new(ClusterBucket::new(link, settings.replicas));
        persistently(async || bucket.open().await).await?;
        let follower = Arc::new(Follower::start(Arc::clone(&bucket)).await?);
        Ok(Self { bucket, follower })
    }

    /// The last message under a subject, according to the leader of the bucket.
    async fn last(&self, subject: &str) -> Result<Option<LastValue>, ClusterError> {
        let stream = self.bucket.stream().await?;
        let asked = async { if_found(stream.get_last_raw_message_by_subject(subject).await) };
        let found =
            self.bucket.link.ask("asking the cluster", asked).await.map_err(ClusterError::Unavailable)?;
        Ok(found.map(|message| {
            let is_gone = message.headers.get(OPERATION).is_some();
            let value = if is_gone { None } else { Value::decode(&message.payload) };
            let nanos = u64::try_from(message.time.unix_timestamp_nanos()).unwrap_or_default();
            let value = value.filter(|value| !self.follower.replica.is_over(nanos, value.time));
            LastValue { revision: message.sequence, value }
        }))
    }

    /// Holds a lease for some time from now on, or releases it. False if it is not held any more.
    async fn put_held(&self, lease: &Lease, time: Option<Duration>) -> Result<bool, ClusterError> {
        let subject = self.bucket.subject(LEASE, &lease.key)?;
        for _ in 0..TRIES_MAX {
            let Some(found) = self.last(&subject).await?.filter(|found| found.is_held_by(lease)) else {
                return Ok(false);
            };
            let value = time.map(|time| Value { time, fence: lease.fence, content: (&[][..]).into() });
            match self.bucket.put(subject.clone(), value, Some(found.revision)).await {
                Ok(_) => return Ok(true),
                Err(NotStored::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(NotStored::Conflict.into())
    }
}

impl From<NotStored> for ClusterError {
    fn from(not: NotStored) -> Self {
        match not {
            NotStored::Full(why) => Self::Full(why),
            NotStored::Refused(why) | NotStored::Unknown(why) => Self::Unavailable(why),
            NotStored::Conflict => {
                Self::Unavailable("the key changes too often: other hubs keep writing it".to_owned())
            }
        }
    }
}

/// The last message of a key.
struct LastValue {
    revision: u64,
    /// Its value, if that still holds.
    value: Option<Value<'static>>,
}

impl LastValue {
    fn is_held_by(&self, lease: &Lease) -> bool {
        self.value.as_ref().is_some_and(|value| match value.fence {
            0 => self.revision == lease.fence,
            fence => fence == lease.fence,
        })
    }
}

impl From<NatsCluster> for Arc<dyn Cluster> {
    fn from(cluster: NatsCluster) -> Self {
        Arc::new(cluster)
    }
}

#[async_trait]
impl Cluster for NatsCluster {
    async fn acquire(&self, key: &str, time: Duration) -> Result<Option<Lease>, ClusterError> {
        let subject = self.bucket.subject(LEASE, key)?;
        let found = self.last(&subject).await?;
        if found.as_ref().is_some_and(|found| found.value.is_some()) {
            return Ok(None);
        }
        let revision = found.map_or(0, |found| found.revision);
        let value = Value { time, fence: 0, content: (&[][..]).into() };
        match self.bucket.put(subject, Some(value), Some(revision)).await {
            Ok(stored) => Ok(Some(Lease { key: key.to_owned(), fence: stored.sequence })),
            // Another process was faster.
            Err(NotStored::Conflict) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn renew(&self, lease: &Lease, time: Duration) -> Result<bool, ClusterError> {
        self.put_held(lease, Some(time)).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), ClusterError> {
        self.put_held(lease, None).await.map(drop)
    }

    async fn set(&self, key: &str, value: &[u8], time: Duration) -> Result<(), ClusterError> {
        let subject = self.bucket.subject(STATE, key)?;
        let value = Value { time, fence: 0, content: value.into() };
        self.bucket.put(subject, Some(value), None).await?;
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<(), ClusterError> {
        let subject = self.bucket.subject(STATE, key)?;
        if self.last(&subject).await?.is_some_and(|found| found.value.is_some()) {
            self.bucket.put(subject, None, None).await?;
        }
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ClusterError> {
        let found = self.last(&self.bucket.subject(STATE, key)?).await?;
        Ok(found.and_then(|found| found.value).map(|value| value.content.into_owned()))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, ClusterError> {
        self.follower.replica.catch_up().await?;
        Ok(self.follower.replica.list(prefix))
    }

    async fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>, ClusterError> {
        self.follower.replica.catch_up().await?;
        Ok(Follower::watch(Arc::clone(&self.follower), prefix))
    }

    async fn send(&self, channel: &str, message: &[u8]) -> Result<(), ClusterError> {
        let link = &self.bucket.link;
        let client = link.client();
        if message.len() > client.max_payload() {
            return Err(ClusterError::Full(
                "it exceeds the maximum message size of this NATS server (max_payload)".to_owned(),
            ));
        }
        // A message that waits for a connection would arrive when it is worth nothing any more: it is
        // sent now or never.
        let sent = client.publish(self.subject_of(channel)?, Bytes::copy_from_slice(message));
        link.ask("sending", sent).await.map_err(ClusterError::Unavailable)
    }

    async fn listen(&self, channel: &str) -> Result<Box<dyn Messages>, ClusterError> {
        let link = &self.bucket.link;
        let subject = self.subject_of(channel)?;
        let stream = self.bucket.stream().await?;
        let client = link.client();
        let subscribed = client.subscribe(subject.clone());
        let mut subscribed = link.ask("listening", subscribed).await.map_err(ClusterError::Unavailable)?;
        // The server processes requests in order: when it answers this one, it knows the listener.
        link.ask("listening", stream.get_info()).await.map_err(ClusterError::Unavailable)?;
        let (sender, received) = broadcast::channel(MESSAGES_MAX);
        let link = Arc::clone(link);
        let mut forwarder = JoinSet::new();
        forwarder.spawn(async move {
            loop {
                while let Some(message) = subscribed.next().await {
                    if sender.send(message.payload).is_err() {
                        return;
                    }
                }
                // Messages that were sent in between are lost: they would be worth nothing any
                // more.
                link.connected().await;
                match link.client().subscribe(subject.clone()).await {
                    Ok(again) => subscribed = again,
                    Err(_) => sleep(RELISTEN_WAIT).await,
                }
            }
        });
        Ok(Box::new(ReceivedMessages::new(received, forwarder)))
    }
}

impl NatsCluster {
    fn subject_of(&self, channel: &str) -> Result<String, ClusterError> {
        Ok(format!("{}.cast.{}", self.bucket.link.name(), hexadecimal(channel)?))
    }
}
