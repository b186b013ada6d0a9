//! The hub: a log with a fan-out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tidings_log::{Bounds, Cursor, Log, Tail, Unavailable, cluster::Cluster};
use tidings_topic::{ConnectionId, Matcher, PatternSyntax, PrivateTopics, Topic, TopicGlob, Validator};
use tokio::{task::JoinSet, time::Instant};

#[cfg(target_os = "linux")]
use crate::shard::driver::Shards;
use crate::{
    cluster_hubs::ClusterHubs, compiler::Compiler, editing::waiting::EditsElsewhere, engine::Engine,
    error::Error, measured_cluster::MeasuredCluster, measured_log::MeasuredLog, presence::PresenceRegistry,
    presence::PresenceStream, publish::deletions::Deletions, publish::ephemeral::Ephemeral,
    publish::pressure::Pressure, publish::queue::Committer,
};

/// A server-push hub: publish an event once, and every subscriber of its topic receives it.
///
/// Clones are handles to the same hub. The hub ends when the last handle and the last
/// [`Subscription`](crate::Subscription) are dropped.
#[derive(Clone, Debug)]
pub struct Hub {
    pub(crate) state: Arc<HubState>,
    _tasks: Arc<JoinSet<()>>,
}

impl Hub {
    /// These tasks end with the hub.
    pub(crate) fn new(state: Arc<HubState>, tasks: JoinSet<()>) -> Self {
        Self { state, _tasks: Arc::new(tasks) }
    }

    /// The validator for all APIs of this hub; it makes the matchers for
    /// [`Subscribe`](crate::Subscribe).
    #[doc(hidden)]
    pub fn validator(&self) -> &Validator {
        &self.state.validator
    }

    /// The matcher of a URL Pattern from an untrusted client. [`Validator::pattern`] compiles on
    /// the calling thread; here patterns that are not known yet are compiled by a dedicated thread,
    /// one at a time and with pauses, so that a flood of them does not keep the hub from serving.
    #[doc(hidden)]
    pub async fn pattern(&self, text: &str) -> Result<Matcher, Error> {
        self.matcher(PatternSyntax::UrlPattern, text).await
    }

    /// As [`pattern`](Self::pattern), of this syntax; see [`Validator::matcher`].
    #[doc(hidden)]
    pub async fn matcher(&self, syntax: PatternSyntax, text: &str) -> Result<Matcher, Error> {
        Ok(self.state.compiler.matcher(syntax, text).await?)
    }

    /// How many subscriptions an event on this topic reaches in this process, before grants are
    /// checked. A subscription that matches the topic in two ways counts twice.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tidings::Error> {
    /// # let hub = tidings::Hub::in_memory().await;
    /// let subscription = hub.subscribe("chat").await?;
    /// assert_eq!(hub.subscribers("chat")?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if no event can have this topic.
    pub fn subscribers(&self, topic: &str) -> Result<usize, Error> {
        Ok(self.subscribers_of(&self.validator().topic(topic)?))
    }

    /// The same, of a topic that was validated before.
    #[doc(hidden)]
    pub fn subscribers_of(&self, topic: &Topic) -> usize {
        self.state.engine.feeds.reader_count(std::slice::from_ref(topic))
    }

    /// Whether an event with these topics is private whatever its publisher requests
    /// ([`HubSettings::private_topics`](crate::HubSettings::private_topics)).
    #[doc(hidden)]
    pub fn are_private(&self, topics: &[Topic]) -> bool {
        self.state.are_private(topics)
    }

    /// Replaces the topics on which every event is private
    /// ([`HubSettings::private_topics`](crate::HubSettings::private_topics)), for events that are
    /// published from now on. Events that are stored stay what they are.
    #[doc(hidden)]
    pub fn set_private_topics(&self, globs: &[TopicGlob]) {
        self.state.private_topics.store(Arc::new(PrivateTopics::new(globs, self.validator())));
    }

    /// Who subscribes to this hub from now on, and who disconnects: call this before the first
    /// subscriber can connect. A change that is over before it is read is not reported, and the
    /// changes of different subscribers may come in another order.
    ///
    /// The task that reads it may publish. For the subscribers of all hubs of a
    /// [cluster](crate::HubBuilder::cluster) there is the crate `tidings-presence`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tidings::Error> {
    /// use futures_util::StreamExt;
    /// use tidings::{Hub, Subscribe};
    ///
    /// let hub = Hub::in_memory().await;
    /// let mut presence = hub.presence();
    /// let subscription = hub.subscribe(Subscribe::topics(["chat"]).label("ann")).await?;
    /// let who = presence.next().await.expect("the stream does not end");
    /// assert!(who.here && who.label.as_deref() == Some("ann"));
    /// drop(subscription);
    /// assert!(!presence.next().await.expect("the stream does not end").here);
    /// # Ok(())
    /// # }
    /// ```
    pub fn presence(&self) -> PresenceStream {
        self.state.presence.stream()
    }

    /// Closes the hub when this signal arrives: for servers that end gracefully, which wait until
    /// every response is complete. A stream never is, until the hub is [closed](Self::close).
    ///
    /// The future that is returned completes when the hub has been closed. Nothing happens unless
    /// it is polled; it does not keep the hub alive.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # let (hub, app) = (tidings::Hub::in_memory().await, axum::Router::new());
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    /// axum::serve(listener, app).with_graceful_shutdown(hub.shutdown_on(tokio::signal::ctrl_c())).await
    /// # }
    /// ```
    pub fn shutdown_on<S: Future>(&self, signal: S) -> impl Future<Output = ()> + use<S> {
        let engine = Arc::clone(&self.state.engine);
        async move {
            signal.await;
            engine.close();
        }
    }

    /// Ends all subscriptions with a `reconnect` notice and refuses to publish.
    pub fn close(&self) {
        self.state.engine.close();
    }

    /// Ends all subscriptions with a `reconnect` notice, each at a random moment within this time,
    /// so that the clients do not all reconnect to the new process at once. Until then the hub
    /// continues to publish and deliver; when the time is over it is closed. Only the first call
    /// counts, but [`close`](Self::close) cuts it short.
    pub fn close_over(&self, time: Duration) {
        self.state.engine.close_over(time);
    }

    /// Waits until the hub is closed. The future does not keep the hub.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let engine = Arc::clone(&self.state.engine);
        async move { engine.closed().await }
    }

    /// Ends the subscriptions of these connections with a notice of kind `revoked`: within two
    /// seconds, if they are subscriptions of this hub; others are ignored. For applications that
    /// withdraw what they have granted; the clients will reconnect, and then have to be refused.
    pub fn end(&self, connections: impl IntoIterator<Item = ConnectionId>) {
        self.state.engine.endings.request(connections, Instant::now());
    }

    /// Whether events are accepted and delivered: for readiness probes.
    pub async fn health(&self) -> Result<(), Unavailable> {
        if self.state.engine.is_closed() {
            return Err(Unavailable(self.failure().unwrap_or("the hub has been closed").to_owned()));
        }
        self.state.log.health().await
    }

    /// Why this hub has closed by itself, if it has: an essential part of it has ended, such as its
    /// log, or a thread that has panicked. All streams are ended then and publishing is refused.
    /// Wait for [`closed`](Self::closed) and check this; to recover, start a new hub, which for
    /// most programs means a new process.
    pub fn failure(&self) -> Option<&str> {
        self.state.engine.failure()
    }

    /// How far the log reaches.
    pub async fn bounds(&self) -> Result<Bounds, Unavailable> {
        self.state.log.bounds().await
    }

    /// The live end of the log: every event from now on, whichever API published it, private events
    /// included. This is for code that forwards events; subscribers
    /// [subscribe](Self::subscribe).
    pub async fn tail(&self) -> Result<Box<dyn Tail>, Unavailable> {
        Ok(self.state.log.tail().await?.1)
    }

    /// The state that this hub shares with others in addition to the log.
    #[doc(hidden)]
    pub fn cluster(&self) -> &dyn Cluster {
        &*self.state.cluster
    }

    /// The same, for tasks.
    #[doc(hidden)]
    pub fn shared_cluster(&self) -> Arc<dyn Cluster> {
        Arc::clone(&self.state.cluster)
    }

    /// Whether other hubs may share that state: the hub has a
    /// [cluster](crate::HubBuilder::cluster).
    #[doc(hidden)]
    pub fn is_clustered(&self) -> bool {
        self.state.is_clustered
    }

    /// Whether the feeds hold everything up to this end of the log, and all ephemeral events.
    pub(crate) fn has_fanned_out(&self, end: Cursor) -> bool {
        let head = self.state.engine.feeds.head().log;
        let waits = self.state.ephemeral.live.of_oldest(|_| ()).is_some();
        !waits && head.epoch == end.epoch && head.position >= end.position
    }

    /// Statistics for metrics.
    pub fn stats(&self) -> HubStats {
        let (feeds, feed_bytes) = self.state.engine.feeds.size();
        HubStats {
            subscribers: self.state.presence.count(),
            published: self.state.published.load(Ordering::Relaxed),
            ephemeral_dropped: self.state.ephemeral.dropped(),
            feeds,
            patterns: self.state.engine.feeds.pattern_count(),
            feed_bytes,
            rejected: self.state.log.rejected_count(),
            fan_out_lag_bytes: self.state.pressure.lagging_bytes() + self.state.engine.lag.bytes(),
        }
    }
}

/// Statistics of a hub at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct HubStats {
    /// Subscriptions that are open in this process.
    pub subscribers: usize,
    /// Events published through this process since it started.
    pub published: u64,
    /// Ephemeral events that this process has not delivered to its subscribers, or not sent to the
    /// other hubs, because too many were waiting or the other hubs could not be reached.
    pub ephemeral_dropped: u64,
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

/// What controls a hub: publishing, deleting, presence, and the [engine](Engine) that it drives.
#[derive(Debug)]
pub(crate) struct HubState {
    pub(crate) engine: Arc<Engine>,
    /// The measured one.
    pub(crate) log: Arc<dyn Log>,
    pub(crate) measured_log: Arc<MeasuredLog>,
    pub(crate) validator: Validator,
    pub(crate) private_topics: ArcSwap<PrivateTopics>,
    pub(crate) compiler: Compiler,
    pub(crate) presence: PresenceRegistry,
    /// One in memory where the hub is alone.
    pub(crate) cluster: Arc<dyn Cluster>,
    /// The same.
    pub(crate) measured_cluster: Arc<MeasuredCluster>,
    pub(crate) cluster_hubs: Arc<ClusterHubs>,
    pub(crate) is_clustered: bool,
    pub(crate) lag_bytes_max: u64,
    pub(crate) pressure: Arc<Pressure>,
    pub(crate) committer: Committer,
    pub(crate) deletions: Deletions,
    pub(crate) ephemeral: Ephemeral,
    pub(crate) edits_elsewhere: EditsElsewhere,
    /// Events published through this process since it started.
    pub(crate) published: AtomicU64,
    #[cfg(target_os = "linux")]
    pub(crate) shards: Shards,
}

impl HubState {
    /// Whether an event with these topics is private whatever its publisher requests.
    pub(crate) fn are_private(&self, topics: &[Topic]) -> bool {
        self.private_topics.load().cover_any(topics)
    }
}
