//! Builds a hub and starts its tasks.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use arc_swap::ArcSwap;
use tidings_log::{
    Log, MemoryLimits, MemoryLog, Unavailable,
    cluster::{Cluster, LocalCluster},
    vital::catch_panic,
};
use tidings_topic::{PatternLimits, PrivateTopics, Validator};

#[cfg(target_os = "linux")]
use crate::shard::driver::Shards;
use crate::{
    compiler::Compiler,
    engine::Engine,
    feed::fan_out::fan_out,
    feed::feeds::Feeds,
    hub::{Hub, HubState, Task},
    presence::{Presence, PresenceHook, PresenceRegistry},
    publish::deletions::Deletions,
    publish::pressure::Pressure,
    publish::{committer::commit, queue::Committer},
    settings::HubSettings,
};

impl Hub {
    /// A hub with a log in memory and default settings.
    pub async fn in_memory() -> Self {
        Self::builder().start().await.expect("the memory log is always available")
    }

    /// Configures a hub.
    pub fn builder() -> HubBuilder {
        HubBuilder::default()
    }
}

/// Builds a hub.
#[derive(Default)]
pub struct HubBuilder {
    log: Option<Arc<dyn Log>>,
    validator: Validator,
    settings: HubSettings,
    presence: Option<Box<PresenceHook>>,
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
        let engine = Arc::new(Engine::new(settings, feeds, Arc::clone(&log)));
        let settings = &engine.settings;
        #[cfg(target_os = "linux")]
        let shards = Shards::start(settings.shard_threads, &engine).map_err(StartError::Shards)?;
        let state = Arc::new(HubState {
            compiler: Compiler::new(self.validator.clone()),
            pressure: Arc::new(Pressure::new(
                head,
                settings.appends_max,
                settings.appends_bytes_max,
                lag_bytes_max,
            )),
            presence: PresenceRegistry::new(self.presence),
            is_clustered: self.cluster.is_some(),
            cluster: self.cluster.unwrap_or_else(|| Arc::new(LocalCluster::default())),
            lag_bytes_max,
            log,
            private_topics: ArcSwap::from_pointee(PrivateTopics::new(
                &settings.private_topics,
                &self.validator,
            )),
            validator: self.validator,
            committer,
            deletions: Deletions::default(),
            published: AtomicU64::new(0),
            #[cfg(target_os = "linux")]
            shards,
            engine,
        });
        let tasks = [
            Task::start(fan_out(Arc::clone(&state), tail, writer)),
            Task::start(vital("appending", Arc::clone(&state), |state| commit(state, queue))),
        ];
        Ok(Hub::new(state, tasks))
    }
}

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

/// Runs for as long as the hub does. The hub fails if this panics.
async fn vital<F: Future<Output = ()>>(
    name: &str,
    state: Arc<HubState>,
    work: impl FnOnce(Arc<HubState>) -> F,
) {
    if let Err(panicked) = catch_panic(work(Arc::clone(&state))).await {
        state.engine.fail(format!("{name} has ended: {panicked}"));
    }
}
