//! The cluster: leases and keyed state in a key-value bucket, broadcast on ordinary subjects.
//!
//! The server has no expiry for single keys (nats-server 2.9 has one for a whole bucket), so each
//! value states how long it holds, and the reader checks when it was written. Both are measured by
//! the server's clock, which [`Timeline`](timeline) translates into ours. A lease is taken, renewed
//! and released by compare-and-set: its fence is the revision under which it was taken.
//!
//! State is **replicated** (`cluster/replica.rs`): every process follows the bucket with one
//! consumer, and answers lists and watches from memory. Single keys are read from the server.

mod replica;
mod timeline;

use std::{fmt, sync::Arc, time::Duration};

use async_nats::{
    HeaderMap,
    header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
    jetstream::{
        kv::Store,
        stream::{LastRawMessageErrorKind, Stream},
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use tidings_log::{
    cluster::{Cluster, ClusterError, Lease, Messages, Watch},
    vital::catch_panic,
};
use tokio::{sync::broadcast, task::JoinHandle, time::sleep};

use crate::{
    bucket::Bucket,
    link::{AWAY, Link, NotStored, Stored},
    settings::NatsSettings,
};

use self::replica::{Replica, ReplicaWatch};

/// Most bytes of keys and values, as they are stored. What does not fit is refused as
/// [`ClusterError::Full`].
const BYTES_MAX: i64 = 64 << 20;
/// Longest key or channel, in bytes.
const KEY_BYTES_MAX: usize = 1_024;
/// The longest that anything is held without being renewed; longer times are clamped to this. It is
/// also how long the server remembers that a key is gone.
const TIME_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Most messages of one channel that are queued for a listener. Beyond that, it loses the oldest.
const MESSAGES_MAX: usize = 1_024;
/// The delay before a failed subscription of a listener is retried.
const RELISTEN_WAIT: Duration = Duration::from_millis(200);
/// How often a change is retried when others change the same key.
const TRIES_MAX: usize = 16;

/// What the hubs of one log on NATS share. Clones are handles to the same cluster.
#[derive(Clone)]
pub struct NatsCluster(Arc<Inner>);

struct Inner {
    link: Arc<Link>,
    bucket: String,
    replica: Arc<Replica>,
    follower: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.follower.abort();
        self.replica.close();
    }
}

impl fmt::Debug for NatsCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsCluster").field("bucket", &self.0.bucket).finish_non_exhaustive()
    }
}

impl NatsCluster {
    pub(crate) async fn open(link: Arc<Link>, settings: &NatsSettings) -> Result<Self, String> {
        let bucket = format!("{}-cluster", link.name());
        let replicas = settings.replicas;
        open_bucket(&link, &bucket, replicas).await?;
        let replica = Arc::new(Replica::new(Arc::clone(&link), bucket.clone(), replicas));
        let following = Arc::clone(&replica);
        let follower = tokio::spawn(async move {
            if let Err(panicked) = catch_panic(Box::pin(replica::follow(Arc::clone(&following)))).await {
                tracing::error!(%panicked, "the task that follows the bucket of the cluster has ended");
                following.close();
            }
        });
        let cluster = Self(Arc::new(Inner { link, bucket, replica, follower }));
        cluster.0.replica.opened().await?;
        Ok(cluster)
    }

    /// The stream of the bucket, on the current connection.
    async fn stream(&self) -> Result<Stream<()>, ClusterError> {
        let stream = self.0.link.jetstream().get_stream_no_info(format!("KV_{}", self.0.bucket)).await;
        stream.map_err(|error| ClusterError::Unavailable(error.to_string()))
    }

    /// The last message under a subject, according to the leader of the bucket.
    async fn last(&self, subject: &str) -> Result<Option<Found>, ClusterError> {
        let stream = self.stream().await?;
        let asked = async {
            match stream.get_last_raw_message_by_subject(subject).await {
                Ok(message) => Ok(Some(message)),
                Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
                Err(error) => Err(error.to_string()),
            }
        };
        let found = self.0.link.ask("asking the cluster", asked).await.map_err(ClusterError::Unavailable)?;
        Ok(found.map(|message| {
            let is_gone = message.headers.get(OPERATION).is_some();
            let value = if is_gone { None } else { Value::decode(&message.payload) };
            let nanos = u64::try_from(message.time.unix_timestamp_nanos()).unwrap_or_default();
            let value = value.filter(|value| !self.0.replica.is_over(nanos, value.time));
            Found { revision: message.sequence, value }
        }))
    }

    /// Sets a key of the bucket, or removes it. With a revision only if that is its last.
    async fn put(
        &self,
        subject: String,
        value: Option<Value<'_>>,
        revision: Option<u64>,
    ) -> Result<Stored, NotStored> {
        put(&self.0.link, subject, value, revision).await
    }
}

/// The bucket, created if it does not exist.
pub(crate) async fn open_bucket(link: &Link, name: &str, replicas: Option<usize>) -> Result<Store, String> {
    let bucket = Bucket {
        name,
        description: "What Tidings hubs know of each other",
        replicas,
        max_age: Some(TIME_MAX),
        max_bytes: Some(BYTES_MAX),
    };
    bucket.open(link).await
}

/// The header that marks a removed key.
const OPERATION: &str = "KV-Operation";

async fn put(
    link: &Link,
    subject: String,
    value: Option<Value<'_>>,
    revision: Option<u64>,
) -> Result<Stored, NotStored> {
    let mut headers = HeaderMap::new();
    if let Some(revision) = revision {
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, revision.to_string());
    }
    if value.is_none() {
        headers.insert(OPERATION, "DEL");
    }
    let payload = value.map(|value| value.encode()).unwrap_or_default();
    link.store(subject, headers, payload).await
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
struct Found {
    revision: u64,
    /// Its value, if that still holds.
    value: Option<Value<'static>>,
}

impl Found {
    fn is_held_by(&self, lease: &Lease) -> bool {
        self.value.as_ref().is_some_and(|value| match value.fence {
            0 => self.revision == lease.fence,
            fence => fence == lease.fence,
        })
    }
}

/// A value as it is stored: a version, how long it holds in milliseconds, the fence of a lease that
/// was renewed, and the data.
struct Value<'a> {
    time: Duration,
    fence: u64,
    content: std::borrow::Cow<'a, [u8]>,
}

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 17;

impl Value<'_> {
    fn encode(&self) -> Bytes {
        let millis = u64::try_from(self.time.min(TIME_MAX).as_millis()).expect("a week has few milliseconds");
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.content.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&millis.to_be_bytes());
        bytes.extend_from_slice(&self.fence.to_be_bytes());
        bytes.extend_from_slice(&self.content);
        bytes.into()
    }

    fn decode(bytes: &[u8]) -> Option<Value<'static>> {
        let (head, content) = bytes.split_at_checked(HEAD_BYTES)?;
        let number = |from: usize| Some(u64::from_be_bytes(head[from..from + 8].try_into().ok()?));
        let (time, fence) = (Duration::from_millis(number(1)?), number(9)?);
        (head[0] == VERSION).then(|| Value {
            time: time.min(TIME_MAX),
            fence,
            content: content.to_vec().into(),
        })
    }
}

/// The first part of the subjects of keys.
const STATE: &str = "s";
const LEASE: &str = "l";

/// Any text as a token of a subject, which allows few characters.
fn spelled(kind: &str, bucket: &str, key: &str) -> Result<String, ClusterError> {
    Ok(format!("$KV.{bucket}.{kind}.{}", hexadecimal(key)?))
}

fn hexadecimal(text: &str) -> Result<String, ClusterError> {
    use std::fmt::Write;
    if text.len() > KEY_BYTES_MAX {
        return Err(ClusterError::Full(format!(
            "a key has {} bytes and may have at most {KEY_BYTES_MAX}",
            text.len()
        )));
    }
    // The first character keeps an empty key from becoming an empty token, which is invalid.
    let mut spelled = "x".to_owned();
    for byte in text.bytes() {
        write!(spelled, "{byte:02x}").expect("a string takes everything");
    }
    Ok(spelled)
}

fn from_hexadecimal(spelled: &str) -> Option<String> {
    let digits = spelled.strip_prefix('x')?.as_bytes().chunks(2);
    let byte = |digits: &[u8]| match digits {
        [_, _] => u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok(),
        _ => None,
    };
    String::from_utf8(digits.map(byte).collect::<Option<_>>()?).ok()
}

#[async_trait]
impl Cluster for NatsCluster {
    async fn acquire(&self, key: &str, time: Duration) -> Result<Option<Lease>, ClusterError> {
        let subject = spelled(LEASE, &self.0.bucket, key)?;
        let found = self.last(&subject).await?;
        if found.as_ref().is_some_and(|found| found.value.is_some()) {
            return Ok(None);
        }
        let revision = found.map_or(0, |found| found.revision);
        let value = Value { time, fence: 0, content: (&[][..]).into() };
        match self.put(subject, Some(value), Some(revision)).await {
            Ok(stored) => Ok(Some(Lease { key: key.to_owned(), fence: stored.sequence })),
            // Another process was faster.
            Err(NotStored::Conflict) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn renew(&self, lease: &Lease, time: Duration) -> Result<bool, ClusterError> {
        let subject = spelled(LEASE, &self.0.bucket, &lease.key)?;
        for _ in 0..TRIES_MAX {
            let Some(found) = self.last(&subject).await?.filter(|found| found.is_held_by(lease)) else {
                return Ok(false);
            };
            let value = Value { time, fence: lease.fence, content: (&[][..]).into() };
            match self.put(subject.clone(), Some(value), Some(found.revision)).await {
                Ok(_) => return Ok(true),
                Err(NotStored::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(NotStored::Conflict.into())
    }

    async fn release(&self, lease: &Lease) -> Result<(), ClusterError> {
        let subject = spelled(LEASE, &self.0.bucket, &lease.key)?;
        for _ in 0..TRIES_MAX {
            let Some(found) = self.last(&subject).await?.filter(|found| found.is_held_by(lease)) else {
                return Ok(());
            };
            match self.put(subject.clone(), None, Some(found.revision)).await {
                Ok(_) => return Ok(()),
                Err(NotStored::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(NotStored::Conflict.into())
    }

    async fn set(&self, key: &str, value: &[u8], time: Duration) -> Result<(), ClusterError> {
        let subject = spelled(STATE, &self.0.bucket, key)?;
        let value = Value { time, fence: 0, content: value.into() };
        self.put(subject, Some(value), None).await?;
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<(), ClusterError> {
        let subject = spelled(STATE, &self.0.bucket, key)?;
        if self.last(&subject).await?.is_some_and(|found| found.value.is_some()) {
            self.put(subject, None, None).await?;
        }
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ClusterError> {
        let found = self.last(&spelled(STATE, &self.0.bucket, key)?).await?;
        Ok(found.and_then(|found| found.value).map(|value| value.content.into_owned()))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, ClusterError> {
        self.0.replica.catch_up(&self.stream().await?).await?;
        Ok(self.0.replica.list(prefix))
    }

    async fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>, ClusterError> {
        self.0.replica.catch_up(&self.stream().await?).await?;
        Ok(Box::new(ReplicaWatch::new(self.clone(), Arc::clone(&self.0.replica), prefix)))
    }

    async fn send(&self, channel: &str, message: &[u8]) -> Result<(), ClusterError> {
        let link = &self.0.link;
        // A message that waits for a connection would arrive when it is worth nothing any more.
        if link.generation().is_none() {
            return Err(ClusterError::Unavailable(AWAY.to_owned()));
        }
        let client = link.client();
        if message.len() > client.max_payload() {
            return Err(ClusterError::Full(
                "it exceeds the maximum message size of this NATS server (max_payload)".to_owned(),
            ));
        }
        let sent = client.publish(self.subject_of(channel)?, Bytes::copy_from_slice(message));
        link.ask("sending", sent).await.map_err(ClusterError::Unavailable)
    }

    async fn listen(&self, channel: &str) -> Result<Box<dyn Messages>, ClusterError> {
        let link = &self.0.link;
        let subject = self.subject_of(channel)?;
        let stream = self.stream().await?;
        let client = link.client();
        let subscribed = client.subscribe(subject.clone());
        let mut subscribed = link.ask("listening", subscribed).await.map_err(ClusterError::Unavailable)?;
        // The server processes requests in order: when it answers this one, it knows the listener.
        link.ask("listening", stream.get_info()).await.map_err(ClusterError::Unavailable)?;
        let (sender, received) = broadcast::channel(MESSAGES_MAX);
        let link = Arc::clone(link);
        let forwarder = tokio::spawn(async move {
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
        Ok(Box::new(NatsMessages { received, forwarder, _cluster: self.clone() }))
    }
}

impl NatsCluster {
    fn subject_of(&self, channel: &str) -> Result<String, ClusterError> {
        Ok(format!("{}.cast.{}", self.0.link.name(), hexadecimal(channel)?))
    }
}

struct NatsMessages {
    received: broadcast::Receiver<Bytes>,
    forwarder: JoinHandle<()>,
    _cluster: NatsCluster,
}

impl Drop for NatsMessages {
    fn drop(&mut self) {
        self.forwarder.abort();
    }
}

#[async_trait]
impl Messages for NatsMessages {
    async fn next(&mut self) -> Result<Vec<u8>, ClusterError> {
        loop {
            match self.received.recv().await {
                Ok(message) => return Ok(message.to_vec()),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => {
                    return Err(ClusterError::Unavailable("the connection to NATS is closed".to_owned()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_key_can_be_encoded_and_decoded() {
        for key in ["", "a", "b/*", "ä.>", "\n"] {
            let spelled = hexadecimal(key).unwrap();
            assert!(spelled.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            assert_eq!(from_hexadecimal(&spelled).as_deref(), Some(key));
        }
        assert!(hexadecimal(&"x".repeat(KEY_BYTES_MAX + 1)).is_err());
        for foreign in ["", "61", "x6", "xzz", "xff"] {
            assert_eq!(from_hexadecimal(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_value_comes_back_as_it_was() {
        let value = Value { time: Duration::from_secs(3), fence: 7, content: (&b"v"[..]).into() };
        let bytes = value.encode();
        let back = Value::decode(&bytes).unwrap();
        assert_eq!((back.time, back.fence, &*back.content), (Duration::from_secs(3), 7, &b"v"[..]));
        assert!(Value::decode(&bytes[..HEAD_BYTES - 1]).is_none() && Value::decode(b"").is_none());
        let forever = Value { time: Duration::MAX, fence: 0, content: (&[][..]).into() };
        assert_eq!(Value::decode(&forever.encode()).unwrap().time, TIME_MAX);
    }
}
