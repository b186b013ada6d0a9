//! Builds a hub and starts its tasks.

use std::{
    fmt::Display,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use arc_swap::ArcSwap;
use tidings_log::{
    Log, MemoryLimits, MemoryLog,
    cluster::{Cluster, LocalCluster},
    vital::catch_panic,
};
use tidings_topic::{PatternLimits, PrivateTopics, TopicGlob, Validator};
use tokio::task::JoinSet;
use url::Url;

#[cfg(target_os = "linux")]
use crate::shard::driver::Shards;
use crate::{
    cluster_channel::receive,
    compiler::Compiler,
    editing::{elsewhere, waiting::EditsElsewhere},
    engine::Engine,
    error::Error,
    feed::fan_out::fan_out,
    feed::feeds::Feeds,
    hub::{Hub, HubState},
    measured_cluster::MeasuredCluster,
    measured_log::MeasuredLog,
    presence::{Presence, PresenceHook, PresenceRegistry},
    publish::deletions::Deletions,
    publish::ephemeral::Ephemeral,
    publish::pressure::Pressure,
    publish::{broadcast, committer::commit, queue::Committer},
    settings::HubSettings,
};

impl Hub {
    /// A hub with a log in memory and default settings.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tidings::Error> {
    /// let hub = tidings::Hub::in_memory().await;
    /// hub.publish(tidings::NewEvent::new("chat", "hello")).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn in_memory() -> Self {
        Self::builder().start().await.expect("the memory log is always available")
    }

    /// Configures a hub.
    pub fn builder() -> HubBuilder {
        HubBuilder::default()
    }
}

/// Builds a hub: where its events are stored, its limits, and what it is called.
///
/// ```
/// use std::time::Duration;
/// use tidings::{Hub, MemoryLimits, MemoryLog};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tidings::Error> {
/// let limits = MemoryLimits { count_max: Some(1_000), ..MemoryLimits::default() };
/// let hub = Hub::builder()
///     .log(MemoryLog::new(limits))
///     .heartbeat(Duration::from_secs(20))
///     .private_topics(["user-*"])
///     .start()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct HubBuilder {
    log: Option<Arc<dyn Log>>,
    public_url: Option<String>,
    validator: Option<Validator>,
    settings: HubSettings,
    private_topics: Vec<String>,
    presence: Option<Box<PresenceHook>>,
    cluster: Option<Arc<dyn Cluster>>,
}

impl HubBuilder {
    /// Where events are kept. By default a [`MemoryLog`] of 64 MiB; a
    /// [`SegmentLog`](crate::log::segment::SegmentLog) keeps them in files. For a log of your own,
    /// see the [chapter](crate::guide::custom_log).
    #[must_use]
    pub fn log(mut self, log: impl Into<Arc<dyn Log>>) -> Self {
        self.log = Some(log.into());
        self
    }

    /// The URL under which clients reach the hub, such as `https://example.com/`. Topics and
    /// patterns that are not URLs themselves are compared relative to it. By default no such URL is
    /// known, which is enough for topics and patterns that are no URLs.
    #[must_use]
    pub fn public_url(mut self, url: impl Into<String>) -> Self {
        self.public_url = Some(url.into());
        self
    }

    /// Every event on these topics is private, whichever code publishes it: only subscribers with a
    /// [grant](crate::Subscribe::grant) receive it. `*` stands for any characters, as in `user-*`.
    #[must_use]
    pub fn private_topics(mut self, globs: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.private_topics.extend(globs.into_iter().map(Into::into));
        self
    }

    /// A subscriber that received nothing for about this long is sent a comment, so that proxies
    /// keep the connection and dead connections are found. Jittered by up to a quarter downwards;
    /// zero means never, more than 40 s is refused. Default 15 s.
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.settings.heartbeat = interval;
        self
    }

    /// How long browsers wait before they reconnect, jittered by ± 50 %. Default 3 s.
    #[must_use]
    pub fn retry(mut self, delay: Duration) -> Self {
        self.settings.retry_millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// A stream older than this is ended, and its client reconnects; jittered by up to a quarter
    /// downwards. Default: never.
    #[must_use]
    pub fn lifetime_max(mut self, lifetime: Duration) -> Self {
        self.settings.lifetime_max = Some(lifetime);
        self
    }

    /// Publications that are being appended to the log; one more is refused with
    /// [`Error::Overloaded`]. Default 10,000.
    #[must_use]
    pub fn appends_max(mut self, count: usize) -> Self {
        self.settings.appends_max = count;
        self
    }

    /// Bytes that are being appended to the log; more are refused with [`Error::Overloaded`].
    /// Default 64 MiB.
    #[must_use]
    pub fn appends_bytes_max(mut self, bytes: u64) -> Self {
        self.settings.appends_bytes_max = bytes;
        self
    }

    /// Bytes in the log that the fan-out has not reached; beyond, publishers wait. Default: half of
    /// what the log keeps, or 32 MiB where the log has no bound in bytes.
    #[must_use]
    pub fn fan_out_lag_bytes_max(mut self, bytes: u64) -> Self {
        self.settings.fan_out_lag_bytes_max = Some(bytes);
        self
    }

    /// Bytes of ephemeral events that wait to be delivered here, and the same of those that wait to be
    /// sent to other hubs; beyond, the oldest are dropped. Default 4 MiB.
    #[must_use]
    pub fn ephemeral_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.ephemeral_bytes_max = bytes;
        self
    }

    /// Encoded events that the hub keeps for subscribers that are nearly up to date; one that is
    /// further behind reads the log. Default 16 MiB.
    #[must_use]
    pub fn feed_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.feed_bytes_max = bytes;
        self
    }

    /// Distinct URL Patterns that are subscribed to at the same time; a subscription with one more
    /// is refused with [`Error::TooManyPatterns`]. Default 10,000.
    #[must_use]
    pub fn patterns_max(mut self, count: usize) -> Self {
        self.settings.patterns_max = count;
        self
    }

    /// All limits at once.
    #[doc(hidden)]
    #[must_use]
    pub fn settings(mut self, settings: HubSettings) -> Self {
        self.settings = settings;
        self
    }

    /// The validator for every event and matcher.
    #[doc(hidden)]
    #[must_use]
    pub fn validator(mut self, validator: Validator) -> Self {
        self.validator = Some(validator);
        self
    }

    /// Calls this hook for each subscriber of this hub that connects or disconnects: once when it
    /// connects and once when it disconnects, in that order. With a hook each subscriber takes some
    /// 100 bytes more. The crate `tidings-presence` provides a hook that is called for the
    /// subscribers of all hubs of a [cluster](Self::cluster), and keeps a list of them.
    #[must_use]
    pub fn on_presence(mut self, hook: impl Fn(&Presence) + Send + Sync + 'static) -> Self {
        self.presence = Some(Box::new(hook));
        self
    }

    /// The state that this hub shares with others in addition to the log. By default the hub is
    /// alone, and features that need a cluster use one in memory.
    #[must_use]
    pub fn cluster(mut self, cluster: impl Into<Arc<dyn Cluster>>) -> Self {
        self.cluster = Some(cluster.into());
        self
    }

    /// Starts the hub, which needs a Tokio runtime. Fails if the log cannot be reached, if a
    /// setting has an invalid value, and if the system gives no threads.
    pub async fn start(self) -> Result<Hub, Error> {
        let log = self.log.unwrap_or_else(|| Arc::new(MemoryLog::new(MemoryLimits::default())));
        let measured_log = Arc::new(MeasuredLog::new(log));
        let log: Arc<dyn Log> = measured_log.clone();
        let mut settings = self.settings;
        if settings.heartbeat > HubSettings::HEARTBEAT_MAX {
            let (secs, secs_max) = (settings.heartbeat.as_secs_f64(), HubSettings::HEARTBEAT_MAX.as_secs());
            let problem = format!(
                "an interval of {secs} s is too long, the maximum is {secs_max} s: clients consider a stream dead after 45 s of silence"
            );
            return Err(Error::Setting { name: "heartbeat", problem });
        }
        for text in self.private_topics {
            let glob = text.parse::<TopicGlob>();
            let name = "private_topics";
            settings.private_topics.push(glob.map_err(|error| setting(name, &text, error))?);
        }
        let validator = match (self.validator, self.public_url) {
            (Some(validator), _) => validator,
            (None, None) => Validator::default(),
            (None, Some(url)) => Validator::new(
                Url::parse(&url).ok().filter(|url| matches!(url.scheme(), "http" | "https")).ok_or_else(
                    || setting("public_url", &url, "is not a URL that begins with `https://` or `http://`"),
                )?,
            ),
        };
        let retention = log.bounds().await?.retention_bytes;
        let (head, tail) = log.tail().await?;
        let lag_bytes_max =
            settings.fan_out_lag_bytes_max.unwrap_or_else(|| retention.map_or(32 << 20, |bytes| bytes / 2));
        let pattern_limits =
            PatternLimits { count_max: settings.patterns_max, weight_max: settings.pattern_weight_max };
        let (committer, queue) = Committer::new();
        let (feeds, writer) = Feeds::new(head, settings.feed_bytes_max, pattern_limits);
        let engine = Arc::new(Engine::new(settings, feeds, Arc::clone(&log)));
        let settings = &engine.settings;
        #[cfg(target_os = "linux")]
        let shards = Shards::start(settings.shard_threads, &engine).map_err(Error::Threads)?;
        let is_clustered = self.cluster.is_some();
        let cluster = self.cluster.unwrap_or_else(|| Arc::new(LocalCluster::default()));
        let measured_cluster = Arc::new(MeasuredCluster::new(cluster));
        let state = Arc::new(HubState {
            compiler: Compiler::new(validator.clone()),
            pressure: Arc::new(Pressure::new(
                head,
                settings.appends_max,
                settings.appends_bytes_max,
                lag_bytes_max,
            )),
            presence: PresenceRegistry::new(self.presence),
            ephemeral: Ephemeral::new(settings.ephemeral_bytes_max, is_clustered),
            edits_elsewhere: EditsElsewhere::default(),
            is_clustered,
            cluster: measured_cluster.clone(),
            measured_cluster,
            cluster_hubs: Arc::default(),
            lag_bytes_max,
            log,
            measured_log,
            private_topics: ArcSwap::from_pointee(PrivateTopics::new(&settings.private_topics, &validator)),
            validator,
            committer,
            deletions: Deletions::default(),
            published: AtomicU64::new(0),
            #[cfg(target_os = "linux")]
            shards,
            engine,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(fan_out(Arc::clone(&state), tail, writer));
        tasks.spawn(vital("appending", Arc::clone(&state), commit(Arc::clone(&state), queue)));
        if state.is_clustered {
            // Before the first publication, so that none of what this hub's clients do is missed.
            let receiving = receive(&state, broadcast::CHANNEL, broadcast::deliver).await;
            tasks.spawn(vital("broadcasting", Arc::clone(&state), broadcast::send(Arc::clone(&state))));
            tasks.spawn(vital("receiving broadcasts", Arc::clone(&state), receiving));
            let receiving = receive(&state, elsewhere::CHANNEL, elsewhere::take).await;
            tasks.spawn(vital("changing streams for other hubs", Arc::clone(&state), receiving));
            let hubs = Arc::clone(&state.cluster_hubs);
            let engine = Arc::clone(&state.engine);
            let closed = async move { engine.closed().await };
            tasks.spawn(hubs.announce(Arc::clone(&state.cluster), state.ephemeral.hub, closed));
        }
        Ok(Hub::new(state, tasks))
    }
}

/// What is wrong with the text of a setting.
fn setting(name: &'static str, text: &str, problem: impl Display) -> Error {
    Error::Setting { name, problem: format!("the value `{}` {problem}", text.escape_debug()) }
}

/// Runs for as long as the hub does. The hub fails if this panics.
async fn vital(name: &str, state: Arc<HubState>, work: impl Future<Output = ()>) {
    if let Err(panicked) = catch_panic(work).await {
        state.engine.fail(format!("{name} has ended: {panicked}"));
    }
}
