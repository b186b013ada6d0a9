//! The fixtures of the hub's tests: a listener that parses what it receives, and a log that tests
//! can hold and break.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use serde_json::Value;
use tidings::{
    EventId, Filter, Grants, Hub, HubSettings, MemoryLimits, NewEvent, Since, Subscribe, Subscription, Topic,
    Unavailable,
    log::{AppendError, Appended, Batch, Bounds, Cursor, Deleted, Log, Page, Position, Tail, TailItem},
};
use tidings_delayed_log::{DelayedLog, Faults};
use tidings_sse::{Item, Parser};
use tokio::sync::watch;

/// What a subscriber receives.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Received {
    Event { data: String, id: String, event_type: String },
    Notice { json: Value, id: String },
    Comment(String),
    Retry(u64),
    End,
}

impl Received {
    pub(crate) fn data(&self) -> &str {
        match self {
            Self::Event { data, .. } => data,
            other => panic!("not an event: {other:?}"),
        }
    }

    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Event { id, .. } | Self::Notice { id, .. } => id,
            other => panic!("nothing with an id: {other:?}"),
        }
    }

    /// The data of a notice of this kind.
    pub(crate) fn notice(&self, kind: &str) -> &Value {
        match self {
            Self::Notice { json, .. } if json["kind"] == kind => json,
            other => panic!("not a {kind} notice: {other:?}"),
        }
    }
}

/// A subscription, read as a browser reads it.
pub(crate) struct Listener {
    pub(crate) subscription: Subscription,
    parser: Parser,
    items: VecDeque<Received>,
}

impl Listener {
    pub(crate) async fn open(hub: &Hub, request: Subscribe) -> Self {
        let subscription = hub.subscribe(request).await.expect("the log is available");
        Self { subscription, parser: Parser::new(), items: VecDeque::new() }
    }

    /// Any item, comments included.
    pub(crate) async fn next_item(&mut self) -> Received {
        loop {
            if let Some(item) = self.items.pop_front() {
                return item;
            }
            match self.subscription.next().await {
                Some(bytes) => self.parse(&bytes),
                None => return Received::End,
            }
        }
    }

    /// The next event, notice or end.
    pub(crate) async fn next(&mut self) -> Received {
        loop {
            match self.next_item().await {
                Received::Comment(_) | Received::Retry(_) => {}
                received => return received,
            }
        }
    }

    /// The data of the next `count` events, between which nothing else may arrive.
    pub(crate) async fn data(&mut self, count: usize) -> Vec<String> {
        let mut data = Vec::new();
        for _ in 0..count {
            data.push(self.next().await.data().to_owned());
        }
        data
    }

    /// What is available without waiting, except comments.
    pub(crate) fn now(&mut self) -> Option<Received> {
        self.next().now_or_never()
    }

    /// Asserts that nothing more arrives, however long the test waits.
    pub(crate) async fn receives_nothing_more(&mut self) {
        settle().await;
        let received = self.now();
        assert_eq!(received, None);
    }

    pub(crate) fn last_event_id(&self) -> &str {
        self.parser.last_event_id()
    }

    fn parse(&mut self, mut bytes: &[u8]) {
        while let Some(item) = self.parser.next(&mut bytes) {
            self.items.push_back(match item.expect("the hub writes what can be parsed") {
                Item::Comment(text) => Received::Comment(text),
                Item::Retry(millis) => Received::Retry(millis),
                Item::Event(event) if event.event_type == "tidings" => {
                    let json = serde_json::from_str(&event.data).expect("notices are JSON");
                    Received::Notice { json, id: event.last_event_id }
                }
                Item::Event(event) => {
                    assert!(event.has_id, "an event without an id: {event:?}");
                    Received::Event {
                        data: event.data,
                        id: event.last_event_id,
                        event_type: event.event_type,
                    }
                }
            });
        }
    }
}

/// A subscription to these topics.
pub(crate) fn to(hub: &Hub, topics: &[&str]) -> Subscribe {
    let exact = |topic: &&str| hub.validator().exact(topic).expect("a valid topic");
    Subscribe::new(topics.iter().map(exact))
}

pub(crate) fn grants(hub: &Hub, topics: &[&str]) -> Grants {
    topics.iter().map(|topic| hub.validator().exact(topic).expect("a valid topic")).collect()
}

pub(crate) fn since_id(id: &str) -> Since {
    Since::Id(id.to_owned())
}

pub(crate) async fn publish(hub: &Hub, topic: &str, data: impl Into<String>) -> EventId {
    hub.publish(NewEvent::new(topic, data)).await.expect("published").id.expect("it is stored")
}

/// Publishes the numbers from `from` to `through`, each as an event.
pub(crate) async fn publish_numbers(hub: &Hub, topic: &str, from: u32, through: u32) -> Vec<EventId> {
    let mut ids = Vec::new();
    for number in from..=through {
        ids.push(publish(hub, topic, number.to_string()).await);
    }
    ids
}

pub(crate) fn numbers(from: u32, through: u32) -> Vec<String> {
    (from..=through).map(|number| number.to_string()).collect()
}

/// Lets all pending work finish. In a paused runtime time passes only when every task is idle.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// A hub with such a log.
pub(crate) async fn hub_on(log: &Arc<StageLog>, change: impl FnOnce(&mut HubSettings)) -> Hub {
    let mut settings = HubSettings::default();
    change(&mut settings);
    Hub::builder()
        .log(Arc::new(OnStage(Arc::clone(log))) as Arc<dyn Log>)
        .settings(settings)
        .start()
        .await
        .expect("the log is available")
}

/// A hub whose log keeps everything.
pub(crate) async fn hub() -> Hub {
    hub_on(&StageLog::new(None), |_| {}).await
}

/// A log that tests can hold, break, and share between hubs.
#[derive(Debug)]
pub(crate) struct StageLog {
    pub(crate) far: DelayedLog,
    /// Whether tails panic, or end, instead of returning anything.
    pub(crate) tail_panics: AtomicBool,
    pub(crate) tail_ends: watch::Sender<bool>,
    /// Whether tails return anything.
    pub(crate) tail_runs: watch::Sender<bool>,
    /// Whether reads and appends are answered.
    pub(crate) reads_run: watch::Sender<bool>,
    pub(crate) appends_run: watch::Sender<bool>,
    /// How many batches each append had.
    pub(crate) appended: Mutex<Vec<usize>>,
    /// Whether appends panic instead.
    pub(crate) appends_panic: AtomicBool,
    /// How many reads were in progress at the same time, at most.
    pub(crate) reads_max: AtomicUsize,
    reads: AtomicUsize,
    /// How many pages have been read.
    pub(crate) pages_read: AtomicUsize,
    /// Called once, between finding a start and reading from there.
    pub(crate) before_read: Mutex<Option<fn(&DelayedLog)>>,
    /// How often the log has yet to discover, when an id is looked up, that it has lost everything.
    pub(crate) losses_to_find: AtomicUsize,
}

impl StageLog {
    /// A log that keeps so many events, or all of them.
    pub(crate) fn new(kept_max: Option<u64>) -> Arc<Self> {
        let limits = MemoryLimits { count_max: kept_max, ..MemoryLimits::default() };
        Arc::new(Self {
            far: DelayedLog::new(1, Faults::default(), limits),
            tail_panics: AtomicBool::new(false),
            tail_ends: watch::Sender::new(false),
            tail_runs: watch::Sender::new(true),
            reads_run: watch::Sender::new(true),
            appends_run: watch::Sender::new(true),
            appended: Mutex::default(),
            appends_panic: AtomicBool::new(false),
            reads_max: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            pages_read: AtomicUsize::new(0),
            before_read: Mutex::default(),
            losses_to_find: AtomicUsize::new(0),
        })
    }
}

async fn runs(gate: &watch::Sender<bool>) {
    gate.subscribe().wait_for(|runs| *runs).await.expect("the sender is still borrowed");
}

/// The log as a hub holds it.
#[derive(Debug)]
pub(crate) struct OnStage(pub(crate) Arc<StageLog>);

#[async_trait]
impl Log for OnStage {
    async fn append_all(&self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>> {
        self.0.appended.lock().expect("no thread panicked").push(batches.len());
        assert!(!self.0.appends_panic.load(Ordering::SeqCst), "the append was to panic");
        runs(&self.0.appends_run).await;
        self.0.far.append_all(batches).await
    }

    async fn delete(&self, topic: &Topic, grants: &Grants) -> Result<Deleted, AppendError> {
        self.0.far.delete(topic, grants).await
    }

    async fn read(&self, after: Position, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        if let Some(act) = self.0.before_read.lock().expect("no thread panicked").take() {
            act(&self.0.far);
        }
        self.0.pages_read.fetch_add(1, Ordering::SeqCst);
        let reads = self.0.reads.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.reads_max.fetch_max(reads, Ordering::SeqCst);
        runs(&self.0.reads_run).await;
        self.0.reads.fetch_sub(1, Ordering::SeqCst);
        self.0.far.read(after, filter, bytes_max).await
    }

    async fn last(&self, count: usize, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        self.0.far.last(count, filter, bytes_max).await
    }

    async fn resolve(&self, id: &EventId, grants: &Grants) -> Result<Option<Position>, Unavailable> {
        let one_less = |losses: usize| losses.checked_sub(1);
        if self.0.losses_to_find.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            self.0.far.replace();
        }
        self.0.far.resolve(id, grants).await
    }

    async fn position_ago(&self, ago: Duration) -> Result<Position, Unavailable> {
        self.0.far.position_ago(ago).await
    }

    async fn bounds(&self) -> Result<Bounds, Unavailable> {
        self.0.far.bounds().await
    }

    async fn tail(&self) -> Result<(Cursor, Box<dyn Tail>), Unavailable> {
        let (cursor, tail) = self.0.far.tail().await?;
        Ok((cursor, Box::new(StageTail { log: Arc::clone(&self.0), tail })))
    }

    async fn health(&self) -> Result<(), Unavailable> {
        self.0.far.health().await
    }
}

struct StageTail {
    log: Arc<StageLog>,
    tail: Box<dyn Tail>,
}

#[async_trait]
impl Tail for StageTail {
    async fn next(&mut self, bytes_max: usize) -> Option<TailItem> {
        let item = tokio::select! {
            item = self.tail.next(bytes_max) => item,
            () = runs(&self.log.tail_ends) => return None,
        };
        runs(&self.log.tail_runs).await;
        assert!(!self.log.tail_panics.load(Ordering::SeqCst), "the tail was to panic");
        item
    }
}
