//! A cluster of hubs in one process: one [`Store`] behind a mutex that is held for short,
//! synchronous sections.
//!
//! Time is Tokio's clock, which tests pause, and not the time of day: a lease must not be lost
//! because the system clock is set. Every call first removes expired keys, so they are never
//! visible.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};

use super::{
    Cluster, ClusterError, Lease, Messages, Watch,
    parts::{ReceivedMessages, StateWatch, Visit},
};
use crate::lock::lock;

/// The limits of a [`LocalCluster`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClusterLimits {
    /// Most memory of keys and values, leases included, in bytes. What does not fit is refused with
    /// [`ClusterError::Full`]. Default 64 MiB.
    pub bytes_max: usize,
    /// Most messages of one channel that are queued for a listener, rounded up to a power of two.
    /// Beyond it the listener loses the oldest. Default 1,024.
    pub messages_max: usize,
}

impl Default for ClusterLimits {
    fn default() -> Self {
        Self { bytes_max: 64 << 20, messages_max: 1_024 }
    }
}

/// A cluster of hubs in one process. Clones are handles to the same cluster.
#[derive(Clone)]
pub struct LocalCluster {
    store: Arc<Mutex<Store>>,
    /// Fires when a key changed.
    notifier: watch::Sender<()>,
}

impl LocalCluster {
    /// An empty cluster.
    pub fn new(limits: ClusterLimits) -> Self {
        let store = Store {
            limits,
            leases: Keyed::default(),
            state: Keyed::default(),
            channels: HashMap::new(),
            last_number: 0,
        };
        Self { store: Arc::new(Mutex::new(store)), notifier: watch::Sender::new(()) }
    }

    /// The store, after expired keys were removed.
    fn store(&self) -> MutexGuard<'_, Store> {
        let mut store = lock(&self.store);
        store.expire(Instant::now());
        store
    }
}

impl Default for LocalCluster {
    fn default() -> Self {
        Self::new(ClusterLimits::default())
    }
}

impl fmt::Debug for LocalCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalCluster").finish_non_exhaustive()
    }
}

impl From<LocalCluster> for Arc<dyn Cluster> {
    fn from(cluster: LocalCluster) -> Self {
        Arc::new(cluster)
    }
}

#[async_trait]
impl Cluster for LocalCluster {
    async fn acquire(&self, key: &str, time: Duration) -> Result<Option<Lease>, ClusterError> {
        let mut store = self.store();
        if store.leases.entries.contains_key(key) {
            return Ok(None);
        }
        store.check_capacity(key, &[], None)?;
        let fence = store.next_number();
        store.leases.insert(key, Entry { value: Vec::new(), number: fence, until: until(time) });
        Ok(Some(Lease { key: key.to_owned(), fence }))
    }

    async fn renew(&self, lease: &Lease, time: Duration) -> Result<bool, ClusterError> {
        let mut store = self.store();
        if !store.holds(lease) {
            return Ok(false);
        }
        store.leases.insert(&lease.key, Entry { value: Vec::new(), number: lease.fence, until: until(time) });
        Ok(true)
    }

    async fn release(&self, lease: &Lease) -> Result<(), ClusterError> {
        let mut store = self.store();
        if store.holds(lease) {
            store.leases.remove(&lease.key);
        }
        Ok(())
    }

    async fn set(&self, key: &str, value: &[u8], time: Duration) -> Result<(), ClusterError> {
        let mut store = self.store();
        let known = store.state.entries.get(key);
        // Setting the same value again, as every renewal does, is no change.
        let unchanged = known.filter(|entry| entry.value == value).map(|entry| entry.number);
        store.check_capacity(key, value, known.map(|entry| entry.value.len()))?;
        let number = unchanged.unwrap_or_else(|| store.next_number());
        store.state.insert(key, Entry { value: value.to_vec(), number, until: until(time) });
        drop(store);
        self.notifier.send_replace(());
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<(), ClusterError> {
        self.store().state.remove(key);
        self.notifier.send_replace(());
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ClusterError> {
        Ok(self.store().state.entries.get(key).map(|entry| entry.value.clone()))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, ClusterError> {
        let store = self.store();
        Ok(store.state.below(prefix).map(|(key, entry)| (key.clone(), entry.value.clone())).collect())
    }

    async fn watch(&self, prefix: &str) -> Result<Box<dyn Watch>, ClusterError> {
        let (cluster, prefix) = (self.clone(), prefix.to_owned());
        let visit_all = move |visit: &mut Visit<'_>| {
            let store = cluster.store();
            store
                .state
                .below(&prefix)
                .for_each(|(key, entry)| visit(key, entry.number, &entry.value, entry.until));
            true
        };
        Ok(Box::new(StateWatch::new(self.notifier.subscribe(), visit_all)))
    }

    async fn send(&self, channel: &str, message: &[u8]) -> Result<(), ClusterError> {
        let mut store = self.store();
        if let Some(listeners) = store.channels.get(channel)
            && listeners.send(message.into()).is_err()
        {
            store.channels.remove(channel);
        }
        Ok(())
    }

    async fn listen(&self, channel: &str) -> Result<Box<dyn Messages>, ClusterError> {
        let mut store = self.store();
        let messages_max = store.limits.messages_max.max(1);
        // Channels without listeners are removed to bound the memory.
        store.channels.retain(|_, listeners| listeners.receiver_count() > 0);
        let listeners = store.channels.entry(channel.to_owned());
        let received = listeners.or_insert_with(|| broadcast::Sender::new(messages_max)).subscribe();
        Ok(Box::new(ReceivedMessages::new(received, ())))
    }
}

#[derive(Debug)]
struct Store {
    limits: ClusterLimits,
    leases: Keyed,
    state: Keyed,
    channels: HashMap<String, broadcast::Sender<Arc<[u8]>>>,
    /// The last number that was assigned to a lease or a value.
    last_number: u64,
}

impl Store {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn holds(&self, lease: &Lease) -> bool {
        self.leases.entries.get(&lease.key).is_some_and(|entry| entry.number == lease.fence)
    }

    fn expire(&mut self, now: Instant) {
        self.leases.expire(now);
        self.state.expire(now);
    }

    /// Whether a key fits, given the size of the value that it replaces, if any.
    fn check_capacity(&self, key: &str, value: &[u8], replaced: Option<usize>) -> Result<(), ClusterError> {
        let free = self.limits.bytes_max.saturating_sub(self.leases.bytes + self.state.bytes);
        let free = free + replaced.map_or(0, |value_bytes| weight(key, value_bytes));
        if weight(key, value.len()) <= free {
            return Ok(());
        }
        Err(ClusterError::Full(format!("keys and values can take {} bytes at most", self.limits.bytes_max)))
    }
}

/// Keys that expire.
#[derive(Debug, Default)]
struct Keyed {
    entries: BTreeMap<String, Entry>,
    /// The same keys in the order in which they expire.
    expiries: BTreeMap<(Instant, u64), String>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    value: Vec<u8>,
    /// A new number with each acquisition and each change of the value.
    number: u64,
    until: Instant,
}

impl Keyed {
    fn insert(&mut self, key: &str, entry: Entry) {
        self.remove(key);
        self.bytes += weight(key, entry.value.len());
        self.expiries.insert((entry.until, entry.number), key.to_owned());
        self.entries.insert(key.to_owned(), entry);
    }

    fn remove(&mut self, key: &str) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= weight(key, entry.value.len());
            self.expiries.remove(&(entry.until, entry.number));
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some(((until, _), key)) = self.expiries.first_key_value()
            && *until <= now
        {
            let key = key.clone();
            self.remove(&key);
        }
    }

    fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a String, &'a Entry)> + 'a {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.entries.range::<str, _>(from).take_while(move |(key, _)| key.starts_with(prefix))
    }
}

/// The longest time that a lease or value is held without being renewed: a hundred years. Longer
/// times are reduced to it.
const TIME_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

fn until(time: Duration) -> Instant {
    Instant::now() + time.min(TIME_MAX)
}

/// The memory of a key and its value.
fn weight(key: &str, value_bytes: usize) -> usize {
    2 * key.len() + value_bytes + ENTRY_BYTES
}

/// Memory of one key in addition to its text and value: entries in two trees.
const ENTRY_BYTES: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_memory_of_keys_and_values_is_bounded_and_released() {
        let cluster = LocalCluster::new(ClusterLimits { bytes_max: 2_000, ..ClusterLimits::default() });
        let second = Duration::from_secs(1);
        cluster.set("a", &[0; 1_000], second).await.expect("it fits");
        let refused = cluster.set("b", &[0; 1_000], second).await;
        assert!(matches!(refused, Err(ClusterError::Full(_))), "{refused:?}");
        cluster.set("a", &[1; 1_100], second).await.expect("it replaces the other");
        assert!(cluster.acquire(&"k".repeat(1_000), second).await.is_err());
        tokio::time::sleep(second).await;
        cluster.set("b", &[0; 1_000], second).await.expect("it fits again");
        cluster.remove("b").await.expect("it is reachable");
        assert_eq!(lock(&cluster.store).state.bytes, 0);
        assert!(lock(&cluster.store).state.expiries.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_listener_loses_the_oldest_messages() {
        let cluster = LocalCluster::new(ClusterLimits { messages_max: 4, ..ClusterLimits::default() });
        let mut slow = cluster.listen("c").await.expect("it is reachable");
        for number in 0..10 {
            cluster.send("c", &[number]).await.expect("it is reachable");
        }
        for expected in 6..10 {
            assert_eq!(slow.next().await, Ok(vec![expected]));
        }
    }

    #[tokio::test]
    async fn a_channel_without_listeners_is_removed() {
        let cluster = LocalCluster::default();
        for number in 0..100 {
            drop(cluster.listen(&number.to_string()).await.expect("it is reachable"));
        }
        assert!(lock(&cluster.store).channels.len() <= 1);
    }
}
