//! The hub: a log with a fan-out.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tidings_log::{
    Bounds, Cursor, Log, MemoryLimits, MemoryLog, Tail, TailItem, Unavailable, cluster::Cluster,
    vital::catch_panic,
};
use tidings_topic::{
    EventId, Filter, Invalid, Matcher, ParseSinceError, PatternLimits, PatternsFull, PrivateTopics, Since,
    Topic, TopicGlob, Validator,
};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

#[cfg(target_os = "linux")]
use crate::shard::driver::Shards;
use crate::{
    Subscribe,
    closing::Closing,
    compiler::{Compiler, PatternError},
    delete::Deletions,
    feeds::{FeedWriter, Feeds},
    lag::Lag,
    presence::{ClusterPlace, Presence, PresenceHook, PresenceRegistry, announce, follow},
    pressure::Pressure,
    publish::committer::{Committer, commit},
    replay::{PageReading, ReplayRequest, Replayed, Replays},
    start,
    subscription::Subscription,
};

/// A server-push hub: publish an event once, and every subscriber of its topic receives it.
///
/// Clones are handles to the same hub. The hub ends when the last handle and the last
/// [`Subscription`] are dropped.
#[derive(Clone, Debug)]
pub struct Hub {
    pub(crate) shared: Arc<Shared>,
    _tasks: [Arc<Task>; 4],
}

/// The limits of a hub and what it does when they are hit.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HubSettings {
    /// A subscriber that received nothing for about this long is sent a comment, so that proxies
    /// keep the connection and dead connections are found. Jittered by up to a quarter downwards;
    /// zero means never. At most [`HEARTBEAT_MAX`](Self::HEARTBEAT_MAX). Default 15 s.
    pub heartbeat: Duration,
    /// How long browsers wait before they reconnect, in milliseconds, jittered by ± 50 %. Default
    /// 3,000.
    pub retry_millis: u64,
    /// A stream older than this is ended with a `reconnect` notice, jittered by up to a quarter
    /// downwards. Default: never.
    pub lifetime_max: Option<Duration>,
    /// Batches that are being appended to the log; one more is refused with
    /// [`PublishError::Overloaded`](crate::PublishError::Overloaded). Default 10,000.
    pub appends_max: usize,
    /// Bytes that are being appended to the log; more are refused with
    /// [`PublishError::Overloaded`](crate::PublishError::Overloaded). Default 64 MiB.
    pub appends_bytes_max: u64,
    /// Bytes in the log that the fan-out has not reached; beyond, appends wait. Default: half of
    /// what the log keeps, or 32 MiB where the log has no bound in bytes.
    pub fan_out_lag_bytes_max: Option<u64>,
    /// Encoded events that all feeds together hold; beyond, the oldest are dropped, and a
    /// subscriber that still needs them reads the log. Default 16 MiB.
    pub feed_bytes_max: usize,
    /// Pages of history that are read at the same time; further subscribers queue. Default 8.
    pub replays_max: usize,
    /// Size of such a page, in bytes of the log. Default 128 KiB.
    pub replay_page_bytes: usize,
    /// Bytes that wait for sockets outside of the feeds: pages of history, and the rest of
    /// partially written events. Beyond, sockets that have just become full drop their pages or are
    /// closed; their clients resume by id. Per shard. Default 64 MiB.
    pub pending_bytes_max: usize,
    /// Threads that fan out to [sockets that were handed to the hub](Subscription::drive_socket). 0
    /// means that the fan-out runs in the runtime in which the hub was started, which is best for
    /// machines with one or two processors. Default 0.
    pub shard_threads: usize,
    /// Events on topics that one of these covers are private, whichever API publishes them and
    /// however the topic is spelled ([`PrivateTopics`]).
    pub private_topics: Vec<TopicGlob>,
    /// Distinct URL Patterns that are subscribed to at the same time; a subscription with one more
    /// is refused with [`SubscribeError::TooManyPatterns`]. Default 10,000.
    pub patterns_max: usize,
    /// Work of comparing one topic with patterns; a subscription whose patterns would exceed it is
    /// refused with [`SubscribeError::TooManyPatterns`]. A topic is compared with the patterns that
    /// have the same literal prefix: that of `/users/:id` is `/users/`; `/:id(\d+)` is compared
    /// with every topic. A pattern counts 1 without a regular expression, some 25 with a small and
    /// hundreds with a large one. Default 5,000, at which a publication takes less than twice its time.
    pub pattern_weight_max: u32,
}

impl HubSettings {
    /// Longest [`heartbeat`](Self::heartbeat): clients, a common polyfill among them, consider a
    /// stream dead after 45 seconds of silence and reconnect.
    pub const HEARTBEAT_MAX: Duration = Duration::from_secs(40);
}

impl Default for HubSettings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(15),
            retry_millis: 3_000,
            lifetime_max: None,
            appends_max: 10_000,
            appends_bytes_max: 64 << 20,
            fan_out_lag_bytes_max: None,
            feed_bytes_max: 16 << 20,
            replays_max: 8,
            replay_page_bytes: 128 << 10,
            pending_bytes_max: 64 << 20,
            shard_threads: 0,
            private_topics: Vec::new(),
            patterns_max: 10_000,
            pattern_weight_max: 5_000,
        }
    }
}

/// Builds a hub.
#[derive(Default)]
pub struct HubBuilder {
    log: Option<Arc<dyn Log>>,
    validator: Validator,
    settings: HubSettings,
    presence: Option<Arc<PresenceHook>>,
    cluster: Option<Arc<dyn Cluster>>,
}

impl HubBuilder {
    /// Where events are kept. By default a [`MemoryLog`] of 64 MiB.
    #[must_use]
    pub fn log(self, log: impl Log) -> Self {
        self.shared_log(Arc::new(log))
    }

    /// The same, for a log whose type is known only at run time.
    #[must_use]
    pub fn shared_log(mut self, log: Arc<dyn Log>) -> Self {
        self.log = Some(log);
        self
    }

    /// The validator for every event and matcher. By default that of a hub whose public URL is not
    /// configured.
    #[must_use]
    pub fn validator(mut self, validator: Validator) -> Self {
        self.validator = validator;
        self
    }

    /// Limits and times.
    #[must_use]
    pub fn settings(mut self, settings: HubSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Calls this hook for each subscriber that connects or disconnects: at once for subscribers of
    /// this hub; within a second or so for those of other hubs in the [cluster](Self::cluster) that
    /// have such a hook, too; and within fifteen seconds for those of a hub that died. Each
    /// subscriber is reported once when it connects and once when it disconnects, in that order.
    /// While the cluster is unreachable nothing is reported; afterwards the difference is.
    ///
    /// With a hook the hub also keeps a [presence list](Hub::presence_list), which takes some 250
    /// bytes for each subscriber of this hub, and less for those of others.
    #[must_use]
    pub fn on_presence(mut self, hook: impl Fn(&Presence) + Send + Sync + 'static) -> Self {
        self.presence = Some(Arc::new(hook));
        self
    }

    /// The state that this hub shares with others in addition to the log. By default the hub is
    /// alone, and features that need a cluster use one in memory.
    #[must_use]
    pub fn cluster(self, cluster: impl Cluster) -> Self {
        self.shared_cluster(Arc::new(cluster))
    }

    /// The same, for a cluster whose type is known only at run time.
    #[must_use]
    pub fn shared_cluster(mut self, cluster: Arc<dyn Cluster>) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// Starts the hub, which needs a Tokio runtime. Fails if the log cannot be reached, if a
    /// setting is out of range, and if the system gives no threads.
    pub async fn start(self) -> Result<Hub, StartError> {
        let log = self.log.unwrap_or_else(|| Arc::new(MemoryLog::new(MemoryLimits::default())));
        let settings = self.settings;
        if settings.heartbeat > HubSettings::HEARTBEAT_MAX {
            return Err(StartError::Heartbeat(settings.heartbeat));
        }
        let retention = log.bounds().await?.retention_bytes;
        let (head, tail) = log.tail().await?;
        let lag_bytes_max =
            settings.fan_out_lag_bytes_max.unwrap_or_else(|| retention.map_or(32 << 20, |bytes| bytes / 2));
        let pattern_limits =
            PatternLimits { count_max: settings.patterns_max, weight_max: settings.pattern_weight_max };
        let (committer, queue) = Committer::new();
        let (feeds, writer) = Feeds::new(head, settings.feed_bytes_max, pattern_limits);
        let shared = Arc::new(Shared {
            committer,
            replays: Replays::new(Arc::clone(&log), settings.replays_max, settings.replay_page_bytes),
            feeds,
            compiler: Compiler::new(self.validator.clone()),
            pressure: Arc::new(Pressure::new(
                head,
                settings.appends_max,
                settings.appends_bytes_max,
                lag_bytes_max,
            )),
            presence: PresenceRegistry::new(self.presence),
            place: ClusterPlace::new(self.cluster),
            lag: Arc::default(),
            lag_bytes_max,
            log,
            private_topics: PrivateTopics::new(&settings.private_topics, &self.validator),
            validator: self.validator,
            settings,
            closing: Closing::default(),
            closing_notifier: watch::Sender::default(),
            deletions: Deletions::default(),
            runtime: Handle::current(),
            #[cfg(target_os = "linux")]
            shards: OnceLock::new(),
            published: AtomicU64::new(0),
            failure: OnceLock::new(),
        });
        #[cfg(target_os = "linux")]
        {
            let shards = Shards::start(shared.settings.shard_threads, &shared).map_err(StartError::Shards)?;
            shared.shards.set(shards).expect("only this sets it");
        }
        let tasks = [
            Task::start(fan_out(Arc::clone(&shared), tail, writer)),
            Task::start(vital("appending", Arc::clone(&shared), |shared| commit(shared, queue))),
            Task::start(vital("the announcement of this hub", Arc::clone(&shared), announce)),
            Task::start(vital("the view of other hubs", Arc::clone(&shared), follow)),
        ];
        Ok(Hub { shared, _tasks: tasks })
    }
}

impl Hub {
    /// A hub with a log in memory and default settings.
    pub async fn in_memory() -> Self {
        Self::builder().start().await.expect("the memory log is always available")
    }

    /// Configures a hub.
    pub fn builder() -> HubBuilder {
        HubBuilder::default()
    }

    /// The validator for all APIs of this hub; it makes the matchers for [`Subscribe`].
    pub fn validator(&self) -> &Validator {
        &self.shared.validator
    }

    /// The matcher of a URL Pattern from an untrusted client. [`Validator::pattern`] compiles on
    /// the calling thread; here patterns that are not known yet are compiled by a dedicated thread,
    /// one at a time and with pauses, so that a flood of them does not keep the hub from serving.
    pub async fn pattern(&self, text: &str) -> Result<Matcher, PatternError> {
        self.shared.compiler.pattern(text).await
    }

    /// Subscribes. The subscription receives every matching event from its start on, in the order
    /// of the log, each once.
    pub async fn subscribe(&self, request: Subscribe) -> Result<Subscription, SubscribeError> {
        let shared = &self.shared;
        if let Some(error) = request.misread {
            return Err(error.into());
        }
        if request.filter.matchers.is_empty() {
            return Err(SubscribeError::NoMatchers);
        }
        shared.validator.matchers_count(request.filter.matchers.len())?;
        let start = start::find(&*shared.log, &shared.validator, &request.since, &request.filter).await?;
        let has_cursor = matches!(request.since, Since::Id(_) | Since::Earliest);
        Subscription::open(self.clone(), request, start, has_cursor).await
    }

    /// The newest events that this filter accepts, at most `count`, oldest first, and the end of
    /// the log. Subscribe with [`Since::Id`] of the end, and no event is missed between the two.
    pub async fn last_events(&self, count: usize, filter: &Filter) -> Result<Snapshot, Unavailable> {
        let page = self.shared.log.last(count, filter, SNAPSHOT_BYTES_MAX).await?;
        let end = Cursor { epoch: page.epoch, position: page.through };
        Ok(Snapshot { entries: page.entries, end: end.to_event_id() })
    }

    /// How many subscriptions an event on this topic reaches in this process, before grants are
    /// checked. A subscription that matches the topic in two ways counts twice.
    pub fn subscribers(&self, topic: &Topic) -> usize {
        self.shared.feeds.reader_count(std::slice::from_ref(topic))
    }

    /// Whether an event with these topics is private whatever its publisher requests
    /// ([`HubSettings::private_topics`]).
    pub fn are_private(&self, topics: &[Topic]) -> bool {
        self.shared.private_topics.cover_any(topics)
    }

    /// Ends all subscriptions with a `reconnect` notice and refuses to publish.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Ends all subscriptions with a `reconnect` notice, each at a random moment within this time,
    /// so that the clients do not all reconnect to the new process at once. Until then the hub
    /// continues to publish and deliver; when the time is over it is closed. Only the first call
    /// counts, but [`close`](Self::close) cuts it short.
    pub fn close_over(&self, time: Duration) {
        self.shared.closing.begin(time, Instant::now());
        self.shared.closing_notifier.send_replace(());
        self.shared.feeds.wake_all();
    }

    /// Whether events are accepted and delivered: for readiness probes.
    pub async fn health(&self) -> Result<(), Unavailable> {
        if self.shared.is_closed() {
            return Err(Unavailable(self.failure().unwrap_or("the hub has been closed").to_owned()));
        }
        self.shared.log.health().await
    }

    /// Why this hub has closed by itself, if it has: an essential part of it has ended, such as its
    /// log, or a thread that has panicked. All streams are ended then and publishing is refused.
    /// Wait for [`closed`](Self::closed) and check this; to recover, start a new hub, which for
    /// most programs means a new process.
    pub fn failure(&self) -> Option<&str> {
        self.shared.failure()
    }

    /// How far the log reaches.
    pub async fn bounds(&self) -> Result<Bounds, Unavailable> {
        self.shared.log.bounds().await
    }

    /// The live end of the log: every event from now on, whichever API published it, private events
    /// included. This is for code that forwards events; subscribers
    /// [subscribe](Self::subscribe).
    pub async fn tail(&self) -> Result<Box<dyn Tail>, Unavailable> {
        Ok(self.shared.log.tail().await?.1)
    }

    /// The state that this hub shares with others in addition to the log.
    pub fn cluster(&self) -> &dyn Cluster {
        self.shared.place.cluster()
    }

    /// Statistics for metrics.
    pub fn stats(&self) -> HubStats {
        let (feeds, feed_bytes) = self.shared.feeds.size();
        HubStats {
            subscribers: self.shared.presence.count(),
            published: self.shared.published.load(Ordering::Relaxed),
            feeds,
            patterns: self.shared.feeds.pattern_count(),
            feed_bytes,
            rejected: self.shared.log.rejected_count(),
            fan_out_lag_bytes: self.shared.pressure.lagging_bytes() + self.shared.lag.bytes(),
        }
    }
}

/// Bytes of the log that a snapshot searches at most.
const SNAPSHOT_BYTES_MAX: usize = 1 << 20;

/// Why a hub could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The log cannot be reached.
    #[error(transparent)]
    Log(#[from] Unavailable),
    /// The heartbeat interval is too long.
    #[error(
        "a heartbeat interval of {} s is too long, the maximum is {} s: clients consider a stream dead after 45 s of silence",
        .0.as_secs_f64(),
        HubSettings::HEARTBEAT_MAX.as_secs()
    )]
    Heartbeat(Duration),
    /// The system gives no thread or no descriptor to a shard.
    #[error("cannot start a thread for the fan-out: {0}")]
    Shards(#[source] std::io::Error),
}

/// Why a subscription was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The request has no matcher.
    #[error("a subscription needs at least one topic or pattern")]
    NoMatchers,
    /// Too many matchers.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The request's start cannot be parsed.
    #[error(transparent)]
    Since(#[from] ParseSinceError),
    /// The hub has as many patterns as its settings allow. Try again later.
    #[error("the hub has reached its limit of URL Patterns")]
    TooManyPatterns(PatternsFull),
    /// The log cannot be reached.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<PatternsFull> for SubscribeError {
    fn from(full: PatternsFull) -> Self {
        Self::TooManyPatterns(full)
    }
}

/// The newest events, and the end of the log when they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The events, oldest first.
    pub entries: Vec<Arc<tidings_log::Entry>>,
    /// The end of the log as a generated id.
    pub end: EventId,
}

/// Statistics of a hub at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct HubStats {
    /// Subscriptions that are open in this process.
    pub subscribers: usize,
    /// Events published through this process since it started.
    pub published: u64,
    /// Distinct matchers and formats that are subscribed to.
    pub feeds: usize,
    /// Distinct URL Patterns that are subscribed to.
    pub patterns: usize,
    /// Bytes that the feeds hold.
    pub feed_bytes: usize,
    /// How often the log contained something that no hub can have written, such as an event of a
    /// type that is reserved for notices: it is not delivered.
    pub rejected: u64,
    /// Bytes that are in the log and not yet in the feeds, or not yet sent by the shards to all
    /// sockets that can be written.
    pub fan_out_lag_bytes: u64,
}

/// What the hub, its writer and its subscriptions share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) validator: Validator,
    pub(crate) private_topics: PrivateTopics,
    compiler: Compiler,
    replays: Replays,
    pub(crate) settings: HubSettings,
    pub(crate) feeds: Feeds,
    pub(crate) presence: PresenceRegistry,
    pub(crate) place: ClusterPlace,
    pub(crate) lag: Arc<Lag>,
    pub(crate) lag_bytes_max: u64,
    pub(crate) pressure: Arc<Pressure>,
    pub(crate) committer: Committer,
    pub(crate) closing: Closing,
    /// Fires when closing has begun.
    closing_notifier: watch::Sender<()>,
    pub(crate) deletions: Deletions,
    /// Where history is read: the runtimes of shards only send, and have no threads that may block
    /// on a disk.
    runtime: Handle,
    /// Events published through this process since it started.
    pub(crate) published: AtomicU64,
    /// Set when the hub has started.
    #[cfg(target_os = "linux")]
    shards: OnceLock<Shards>,
    /// Why the hub has closed by itself, if it has.
    failure: OnceLock<String>,
}

impl Shared {
    pub(crate) fn is_closed(&self) -> bool {
        self.closing.is_closed(Instant::now())
    }

    fn close(&self) {
        self.closing.close();
        self.closing_notifier.send_replace(());
        self.feeds.wake_all();
    }

    /// Waits until nothing is published any more and no subscriber is left.
    pub(crate) async fn closed(&self) {
        let mut notifier = self.closing_notifier.subscribe();
        while !self.is_closed() {
            let end = self.closing.ends_at(1.0);
            tokio::select! {
                result = notifier.changed() => result.expect("the notifier belongs to this"),
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {}
            }
        }
    }

    /// The hub cannot work any more: all streams end, publishers are refused, and health reports
    /// the reason.
    pub(crate) fn fail(&self, reason: String) {
        tracing::error!(reason, "the hub has failed and is closed");
        let _ = self.failure.set(reason);
        self.close();
    }

    /// Why the hub has closed by itself, if it has.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn shards(&self) -> &Shards {
        self.shards.get().expect("they are started with the hub")
    }

    /// The first page of a subscription that has not been answered yet: it may be refused.
    pub(crate) async fn first_page(&self, request: ReplayRequest) -> Result<Replayed, Unavailable> {
        self.replays.next_page(request).await
    }

    /// Reads the next page of a reader. While the log is unavailable the reader waits: it is
    /// behind, and nothing else could be sent to it.
    pub(crate) fn read_page(self: &Arc<Self>, request: ReplayRequest) -> PageReading {
        let shared = Arc::clone(self);
        PageReading::spawn(&self.runtime, async move {
            loop {
                match shared.replays.next_page(request.clone()).await {
                    Ok(page) => return page,
                    Err(error) => {
                        tracing::debug!(%error, "history cannot be read; waiting");
                        tokio::time::sleep(LOG_RETRY).await;
                    }
                }
            }
        })
    }
}

/// How long a reader waits before it retries a log that could not be read.
const LOG_RETRY: Duration = Duration::from_millis(500);

/// A task of the hub, ended with it.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Task {
    fn start(work: impl Future<Output = ()> + Send + 'static) -> Arc<Self> {
        Arc::new(Self(tokio::spawn(work)))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How much of the log the writer takes in one batch. Small enough to keep latency even, large
/// enough to share a wake-up.
const WRITER_TURN_BYTES: usize = 256 * 1024;

/// Runs for as long as the hub does. The hub fails if this panics.
async fn vital<F: Future<Output = ()>>(name: &str, shared: Arc<Shared>, work: impl FnOnce(Arc<Shared>) -> F) {
    if let Err(panicked) = catch_panic(work(Arc::clone(&shared))).await {
        shared.fail(format!("{name} has ended: {panicked}"));
    }
}

/// Follows the log to its end. Without this nothing is delivered, so the hub closes when it ends,
/// for whatever reason.
async fn fan_out(shared: Arc<Shared>, tail: Box<dyn Tail>, writer: FeedWriter) {
    match catch_panic(write_feeds(&shared, tail, writer)).await {
        Err(panicked) => shared.fail(format!("the fan-out has ended: {panicked}")),
        Ok(()) if shared.is_closed() => {}
        Ok(()) => match shared.log.health().await {
            Ok(()) => shared.fail("the log was closed".to_owned()),
            Err(Unavailable(reason)) => shared.fail(format!("the log has ended: {reason}")),
        },
    }
    // No deletion can arrive any more that a caller could wait for.
    shared.close();
    shared.pressure.restart(None);
    shared.deletions.close();
}

/// The one writer: everything that is delivered live passes through here, in the order of the log.
async fn write_feeds(shared: &Shared, mut tail: Box<dyn Tail>, mut writer: FeedWriter) {
    let feeds = &shared.feeds;
    while let Some(item) = tail.next(WRITER_TURN_BYTES).await {
        match item {
            TailItem::Entries(entries) => {
                let mut rest = &*entries;
                while !rest.is_empty() {
                    let (written, later) = rest.split_at(writer.write(feeds, rest));
                    shared.lag.add_written(written.iter().map(|entry| entry.memory_bytes() as u64).sum());
                    if let Some(last) = written.last() {
                        shared.pressure.fanned_out(last.cursor);
                    }
                    rest = later;
                    if !rest.is_empty() {
                        tokio::task::yield_now().await;
                    }
                }
            }
            TailItem::Skipped { through } => {
                let head = Cursor { position: through, ..feeds.head() };
                tracing::warn!("the fan-out fell behind retention; subscribers continue from the log");
                writer.restart(feeds, head);
                shared.pressure.fanned_out(head);
            }
            TailItem::Deleted { serial } => {
                writer.forget(feeds);
                shared.replays.forget();
                shared.deletions.reached(serial);
            }
            TailItem::NewEpoch(start) => {
                tracing::warn!(epoch = ?start.epoch, "the log lost its end or was replaced; the gap is reported to subscribers");
                let head = Cursor { epoch: start.epoch, position: start.after };
                writer.restart(feeds, head);
                shared.pressure.restart(Some(head));
            }
        }
    }
}
