//! The keyed state of the cluster, as this process has read it.
//!
//! Time during which the server is away does not count: nothing expires here meanwhile, and
//! afterwards everything holds longer by as much. Otherwise each outage would make every hub take
//! all others for dead.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_nats::jetstream::{consumer::DeliverPolicy, kv::Store as Bucket};
use tidings_log::{
    cluster::{
        ClusterError, Watch,
        parts::{StateWatch, Visit},
    },
    parts::lock,
    vital::catch_panic,
};
use tidings_net::Backoff;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    consumer::{Consumer, Delivery},
    link::{OPENING_FAILURES_MAX, REQUEST_TIME, RETRY},
};

use super::{
    bucket::{ClusterBucket, OPERATION, STATE, Value},
    timeline::Timeline,
};

/// How often the clocks are compared, and expired keys are removed from the bucket.
const SWEEP_INTERVAL: Duration = Duration::from_secs(20);
/// How long an expired key may stay in the bucket before a hub removes it: its owner may set it
/// again.
const SWEEP_AGE: Duration = Duration::from_secs(60);
/// Most keys that one sweep removes.
const SWEEP_KEYS_MAX: usize = 100;
/// Clock probes at the start of a connection.
const PROBES: usize = 3;
/// How often it is checked that the keys still arrive, until all have been read.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// See the [module documentation](self).
pub(super) struct Replica {
    bucket: Arc<ClusterBucket>,
    store: Mutex<Store>,
    notifier: watch::Sender<()>,
}

struct Store {
    entries: BTreeMap<String, Entry>,
    /// The last number that was given to a value.
    last_number: u64,
    timeline: Timeline,
    /// Everything up to this message of the bucket has been read.
    read: u64,
    /// Since when the server has been away.
    away_since: Option<Instant>,
    /// The end of the last outage, and its duration.
    was_away: Option<(Instant, Duration)>,
    /// How often all keys were read.
    round: u64,
    retry: Backoff,
    reason: String,
    is_closed: bool,
}

struct Entry {
    value: Vec<u8>,
    /// Changes with each change of the value.
    number: u64,
    revision: u64,
    /// `None` if it had expired before this process began.
    until: Option<Instant>,
    /// In which pass over all keys it was last seen.
    round: u64,
}

impl Replica {
    fn new(bucket: Arc<ClusterBucket>) -> Self {
        let now = Instant::now();
        let store = Store {
            entries: BTreeMap::new(),
            last_number: 0,
            timeline: Timeline::new(now),
            read: 0,
            away_since: Some(now),
            was_away: None,
            round: 0,
            retry: RETRY,
            reason: "the state of the cluster has not been read yet".to_owned(),
            is_closed: false,
        };
        Self { bucket, store: Mutex::new(store), notifier: watch::Sender::new(()) }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    /// Nothing more arrives.
    fn close(&self) {
        self.store().is_closed = true;
        self.notifier.send_replace(());
    }

    /// Whether a value that the server stamped at a moment has expired.
    pub(super) fn is_over(&self, nanos: u64, time: Duration) -> bool {
        let store = self.store();
        store.timeline.end(nanos, time).is_none_or(|end| end <= Instant::now())
    }

    /// Waits until all keys were read for the first time.
    async fn opened(&self) -> Result<(), String> {
        let is_decided = |(): &()| {
            let store = self.store();
            store.away_since.is_none() || store.is_closed || store.retry.failures() >= OPENING_FAILURES_MAX
        };
        self.notifier.subscribe().wait_for(is_decided).await.expect("the notifier belongs to this");
        let store = self.store();
        if store.away_since.is_none() { Ok(()) } else { Err(store.reason.clone()) }
    }

    /// Waits until everything is known here that was in the bucket when this was called.
    pub(super) async fn catch_up(&self) -> Result<(), ClusterError> {
        let stream = self.bucket.stream().await?;
        let info = self.bucket.link.ask("asking the cluster", stream.get_info()).await;
        let last = info.map_err(ClusterError::Unavailable)?.state.last_sequence;
        let mut notifier = self.notifier.subscribe();
        match timeout(REQUEST_TIME, notifier.wait_for(|()| self.has_read(last))).await {
            Ok(_) => Ok(()),
            Err(_) => Err(ClusterError::Unavailable(
                "reading the state of the cluster does not keep up with its changes".to_owned(),
            )),
        }
    }

    fn has_read(&self, sequence: u64) -> bool {
        let store = self.store();
        store.away_since.is_none() && store.read >= sequence
    }

    /// The keys with a prefix and their values.
    pub(super) fn list(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let store = self.store();
        let now = store.now();
        let below = store.below(prefix).filter(|(_, entry)| entry.holds(now));
        below.map(|(key, entry)| (key.clone(), entry.value.clone())).collect()
    }
}

impl Entry {
    fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }
}

impl Store {
    /// Now, or the time at which the server went away.
    fn now(&self) -> Instant {
        self.away_since.unwrap_or_else(Instant::now)
    }

    fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a String, &'a Entry)> + 'a {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.entries.range::<str, _>(from).take_while(move |(key, _)| key.starts_with(prefix))
    }

    fn take_in(&mut self, key: String, delivery: Delivery, value: Option<Value<'static>>) {
        let Some(value) = value else {
            self.entries.remove(&key);
            return;
        };
        let mut until = self.timeline.end(delivery.mark.nanos, value.time);
        if let (Some(end), Some((back, away))) = (until, self.was_away)
            && self.timeline.instant(delivery.mark.nanos) < back
        {
            until = Some(end + away);
        }
        // A renewal before the time is up is no change.
        let now = self.now();
        let known = self.entries.get(&key).filter(|entry| entry.holds(now) && *entry.value == *value.content);
        let number = known.map_or(self.last_number + 1, |entry| entry.number);
        self.last_number = self.last_number.max(number);
        let (revision, round) = (delivery.mark.sequence, self.round);
        self.entries.insert(key, Entry { value: value.content.into_owned(), number, revision, until, round });
    }

    /// The server is away now. Returns how long to wait before the next attempt.
    fn go_away(&mut self, reason: &str) -> Duration {
        self.away_since.get_or_insert_with(Instant::now);
        reason.clone_into(&mut self.reason);
        self.retry.failed()
    }

    /// All keys were read again.
    fn come_back(&mut self) {
        let round = self.round;
        self.entries.retain(|_, entry| entry.round == round);
        self.away_since = None;
        self.retry.succeeded();
    }
}

/// The task that keeps a replica up to date. It ends with this value.
pub(super) struct Follower {
    pub(super) replica: Arc<Replica>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Starts the task, and waits until all keys were read.
    pub(super) async fn start(bucket: Arc<ClusterBucket>) -> Result<Self, String> {
        let replica = Arc::new(Replica::new(bucket));
        let following = Arc::clone(&replica);
        let task = tokio::spawn(async move {
            if let Err(panicked) = catch_panic(Box::pin(follow(&following))).await {
                tracing::error!(%panicked, "the task that follows the bucket of the cluster has ended");
                following.close();
            }
        });
        let follower = Self { replica, task };
        follower.replica.opened().await?;
        Ok(follower)
    }
}

impl Follower {
    /// Changes of the keys with a prefix.
    pub(super) fn watch(follower: Arc<Self>, prefix: &str) -> Box<dyn Watch> {
        let (notifier, prefix) = (follower.replica.notifier.subscribe(), prefix.to_owned());
        let visit_all = move |visit: &mut Visit<'_>| {
            let store = follower.replica.store();
            if store.away_since.is_some() {
                return false;
            }
            let now = Instant::now();
            for (key, entry) in store.below(&prefix) {
                if let Some(until) = entry.until.filter(|until| *until > now) {
                    visit(key, entry.number, &entry.value, until);
                }
            }
            true
        };
        Box::new(StateWatch::new(notifier, visit_all))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
        self.replica.close();
    }
}

/// Follows the bucket forever.
async fn follow(replica: &Replica) {
    loop {
        let generation = replica.bucket.link.connected().await;
        let reason = match read(replica, generation).await {
            Ok(reason) | Err(reason) => reason,
        };
        tracing::debug!(reason, "rereading the state of the cluster");
        let wait = replica.store().go_away(&reason);
        replica.notifier.send_replace(());
        sleep(wait).await;
    }
}

/// Reads all keys and their changes, until something does not fit. Returns what.
async fn read(replica: &Replica, generation: u64) -> Result<String, String> {
    let link = &replica.bucket.link;
    let bucket = replica.bucket.open().await?;
    let name = format!("KV_{}", replica.bucket.name);
    let stream = link.ask("opening the cluster", link.jetstream().get_stream(name)).await?;
    let mut probed = 0;
    for _ in 0..PROBES {
        probed = probe(replica, &bucket).await?;
    }
    begin_round(replica);
    // There is one message for each key.
    let mut consumer = Consumer::begin(link, &stream, DeliverPolicy::All).await?;
    let mut sweeps = interval(SWEEP_INTERVAL);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    sweeps.tick().await;
    let mut checks = interval(CHECK_INTERVAL);
    checks.tick().await;
    loop {
        tokio::select! {
            () = link.lost(generation) => return Ok("the connection to NATS was lost".to_owned()),
            next = consumer.next() => {
                let mut next = Some(next);
                while let Some(message) = next {
                    let (delivery, message) = message?;
                    let key = replica.bucket.key(STATE, &message.subject);
                    let is_gone = message.headers.as_ref().is_some_and(|headers| headers.get(OPERATION).is_some());
                    let mut store = replica.store();
                    if let Some(key) = key {
                        let value = if is_gone { None } else { Value::decode(&message.payload) };
                        store.take_in(key, delivery, value);
                    }
                    store.read = store.read.max(delivery.mark.sequence);
                    // What was there when the round began lies before the probe, or before what has
                    // replaced it. The server's own count of what is pending can be wrong.
                    if store.away_since.is_some() && store.read >= probed {
                        store.come_back();
                    }
                    drop(store);
                    next = consumer.next_at_hand();
                }
                replica.notifier.send_replace(());
            }
            _ = sweeps.tick() => {
                probe(replica, &bucket).await?;
                sweep(replica).await;
            }
            _ = checks.tick() => {
                let is_away = replica.store().away_since.is_some();
                if is_away && consumer.is_silent() {
                    return Err("the consumer of the cluster delivers nothing although keys are pending".to_owned());
                }
            }
        }
    }
}

/// From here on values count again.
fn begin_round(replica: &Replica) {
    let mut store = replica.store();
    let now = Instant::now();
    if store.round > 0
        && let Some(since) = store.away_since
    {
        store.was_away = Some((now, now.duration_since(since)));
    }
    store.round += 1;
    store.read = 0;
}

/// Compares the server's clock with ours. Returns the number of the message that was stored for it.
async fn probe(replica: &Replica, bucket: &Bucket) -> Result<u64, String> {
    let sent = Instant::now();
    let revision = replica.bucket.link.ask("comparing clocks", bucket.put("probe", "".into())).await?;
    let acknowledged = Instant::now();
    let stored = replica.bucket.link.ask("comparing clocks", bucket.entry("probe")).await?;
    // Another hub may have replaced this probe with its own.
    if let Some(entry) = stored.filter(|entry| entry.revision == revision)
        && let Ok(nanos) = u64::try_from(entry.created.unix_timestamp_nanos())
    {
        replica.store().timeline.learn(sent, nanos, acknowledged);
    }
    Ok(revision)
}

/// Removes keys from the bucket that expired a while ago. If another hub removes or sets such a key
/// at the same time, nothing happens.
async fn sweep(replica: &Replica) {
    let over: Vec<_> = {
        let store = replica.store();
        let long_over =
            |until: &Option<Instant>| until.is_none_or(|until| until + SWEEP_AGE < Instant::now());
        let over = store.entries.iter().filter(|(_, entry)| long_over(&entry.until)).take(SWEEP_KEYS_MAX);
        over.map(|(key, entry)| (key.clone(), entry.revision)).collect()
    };
    for (key, revision) in over {
        let Ok(subject) = replica.bucket.subject(STATE, &key) else { continue };
        if let Err(error) = replica.bucket.put(subject, None, Some(revision)).await {
            tracing::debug!(?error, "an expired key could not be removed from the bucket");
        }
    }
}
