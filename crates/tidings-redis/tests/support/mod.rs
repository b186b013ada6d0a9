//! What the tests of this crate share.

#![allow(dead_code, reason = "each test uses its own part of it")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tidings_log::{
    AppendError, Appended, Batch, Clock, Cursor, Entry, Event, Filter, Grants, IdempotencyKey, Log,
    MemoryLimits, Tail, TailItem,
};
use tidings_log_conformance::{Make, cluster};
use tidings_redis::{RedisCluster, RedisLog, RedisSettings};
use tidings_testkit::{RedisNodes, RedisSentinels, RedisServer};
use tidings_topic::{Matcher, NewEvent, Validator};
use tokio::{
    sync::OnceCell,
    time::{sleep, timeout},
};

/// How long anything may take. It only ends a test that would hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The settings of a URL that a test made.
pub(crate) fn settings(url: &str, limits: MemoryLimits) -> RedisSettings {
    RedisSettings::from_url(url.parse().expect("a URL"), limits).expect("a store")
}

/// Opens a log like a new process.
pub(crate) async fn open(url: &str) -> RedisLog {
    RedisLog::open(settings(url, MemoryLimits::default())).await.expect("Redis is there")
}

pub(crate) fn event(topic: &str, data: &str) -> Event {
    Validator::default().event(NewEvent::new(topic, data)).expect("a valid event")
}

pub(crate) async fn try_append(
    log: &RedisLog,
    data: &str,
    key: Option<&str>,
) -> Result<Appended, AppendError> {
    let key = key.map(|key| IdempotencyKey::new(key).expect("a key"));
    log.append(Batch { events: vec![event("a", data)], key }).await
}

/// Appends, and expects success.
pub(crate) async fn append(log: &RedisLog, data: &str) -> Cursor {
    match try_append(log, data, None).await {
        Ok(Appended::New { last, .. }) => last,
        other => panic!("{data} was answered {other:?}"),
    }
}

/// All events of the log.
pub(crate) async fn texts(log: &RedisLog) -> Vec<String> {
    let everything = Filter { matchers: vec![Matcher::Any], grants: Grants::all() };
    let mut after = tidings_log::Position::BEFORE_ALL;
    let mut texts = Vec::new();
    loop {
        let page = log.read(after, &everything, 1 << 20).await.expect("Redis is there");
        texts.extend(page.entries.iter().map(|entry| entry.event.data.clone()));
        after = page.through;
        if page.at_end {
            return texts;
        }
    }
}

pub(crate) async fn next(tail: &mut Box<dyn Tail>) -> TailItem {
    timeout(PATIENCE, tail.next(1 << 20)).await.expect("the tail brings something").expect("the log is open")
}

/// The next entries; deletions are skipped.
pub(crate) async fn next_entries(tail: &mut Box<dyn Tail>) -> Vec<Arc<Entry>> {
    loop {
        match next(tail).await {
            TailItem::Entries(entries) => return entries,
            TailItem::Deleted { .. } => {}
            other => panic!("expected entries, got {other:?}"),
        }
    }
}

/// Polls a condition until it holds, with a short pause in between.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("timed out waiting: {what}"));
}

/// Waits until the log is healthy, or not.
pub(crate) async fn until_health(log: &RedisLog, is_healthy: bool) {
    until(&format!("health is {is_healthy}"), async || log.health().await.is_ok() == is_healthy).await;
}

/// Servers on which each check has a log or a cluster of its own, by its name. They start with the
/// first check and end with this value.
pub(crate) struct Fresh<S> {
    servers: OnceCell<S>,
    names: AtomicUsize,
}

/// Servers that can be started and have a URL.
pub(crate) trait Servers: Sized {
    async fn start() -> anyhow::Result<Self>;
    fn url(&self) -> String;
}

impl Servers for RedisServer {
    async fn start() -> anyhow::Result<Self> {
        Self::start().await
    }

    fn url(&self) -> String {
        self.url()
    }
}

impl Servers for RedisNodes {
    async fn start() -> anyhow::Result<Self> {
        Self::start().await
    }

    fn url(&self) -> String {
        self.url()
    }
}

impl Servers for RedisSentinels {
    async fn start() -> anyhow::Result<Self> {
        Self::start().await
    }

    fn url(&self) -> String {
        self.url()
    }
}

impl<S> Default for Fresh<S> {
    fn default() -> Self {
        Self { servers: OnceCell::new(), names: AtomicUsize::new(0) }
    }
}

impl<S: Servers> Fresh<S> {
    async fn settings(&self, limits: MemoryLimits) -> RedisSettings {
        let servers = self.servers.get_or_init(async || S::start().await.expect("the servers start")).await;
        let name = self.names.fetch_add(1, Ordering::Relaxed);
        settings(&format!("{}?name=fresh-{name}", servers.url()), limits)
    }
}

impl<S: Servers> Make for Fresh<S> {
    async fn make(&self, limits: MemoryLimits, clock: Option<Clock>) -> Option<Arc<dyn Log>> {
        let settings = self.settings(limits).await;
        let log = RedisLog::open_with_clock(settings, Some(clock.unwrap_or_default()))
            .await
            .expect("Redis is there");
        Some(Arc::new(log))
    }
}

impl<S: Servers> cluster::Make for Fresh<S> {
    async fn make(&self) -> cluster::Nodes {
        let settings = self.settings(MemoryLimits::default()).await;
        let join = async || Arc::new(RedisCluster::open(&settings).await.expect("Redis is there"));
        cluster::Nodes { one: join().await, other: join().await }
    }
}
