//! The bridge: plain Redis pub/sub, as applications have used it since 2012, into a hub and, on
//! request, out of it.
//!
//! An application that calls `red.publish('chat', …)` keeps doing so; subscribers to the topic
//! `chat` of the hub receive the message. Each bridge has one connection per process, however many
//! subscribers there are. [`BridgeSettings`] configures a bridge, [`HubAccess`] is its access to
//! the hub.
//!
//! ```text
//!          SUBSCRIBE                                              HubAccess::check, HubAccess::publish
//!    Redis ──────────► Listener ──► Inbox ──► ingest: decode, check ───────► hub ──► log
//!      ▲               knows what it sent    batches, one key each                    │
//!      └───────────────────────── PUBLISH ◄── encode ◄── Outwards: all but what is marked or private ◄┘ HubAccess::tail
//! ```
//!
//! Promises and limits:
//! - **Order is kept**, from the channel to the log, and from the log to the channel.
//! - **Every message once everywhere.** Events that came in are marked in the log and not sent out;
//!   messages that went out are recognised when they come back.
//! - **Exactly one of several hubs that share a cluster bridges.** A message belongs to the hub
//!   that holds the lease when it arrives; see the module `lease`. When that hub dies, another
//!   takes over within [`lease_time`](BridgeSettings::lease_time) and a second.
//! - **Redis pub/sub keeps nothing.** What is published while there is no connection, or while no
//!   hub holds the lease, is lost, and the log of the program reports it. While the hub accepts no
//!   events, messages are queued, up to [`queue_bytes_max`](BridgeSettings::queue_bytes_max); then
//!   new ones are dropped and counted.
//! - **One bad message blocks none**: it is counted, and once a minute the reason for the last one
//!   is logged.

mod counts;
mod echoes;
mod format;
mod inbox;
mod ingest;
mod lease;
mod mark;
mod outwards;
mod python_json;
mod session;
mod settings;

use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tidings_log::{
    Event, IdempotencyKey, Tail, Unavailable,
    cluster::{Cluster, ClusterError, Lease},
};
use tidings_net::Backoff;
use tidings_topic::{Invalid, NewEvent};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep},
};

pub use self::counts::BridgeFigures;
pub use self::settings::BridgeSettings;
use self::{
    counts::{Counts, State, Throttle, add},
    inbox::Inbox,
    lease::BridgeLease,
    mark::Mark,
    outwards::Outwards,
    session::Session,
};

/// How long to wait before reconnecting.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// How long a bridge may take to stop.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);

/// What a bridge needs from its hub.
#[async_trait]
pub trait HubAccess: Send + Sync + fmt::Debug + 'static {
    /// Checks an event as the hub's APIs do.
    fn check(&self, event: NewEvent) -> Result<Event, Invalid>;

    /// Publishes valid events, all or nothing. A key that was used before publishes nothing and is
    /// no error.
    async fn publish(&self, events: Vec<Event>, key: IdempotencyKey) -> Result<(), NotTaken>;

    /// The live end of the log, from now on.
    async fn tail(&self) -> Result<Box<dyn Tail>, Unavailable>;

    /// What the hub shares with other hubs.
    fn cluster(&self) -> &dyn Cluster;
}

/// Why a hub did not publish what a bridge offered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotTaken {
    /// The hub is unavailable, or the outcome is unknown: the bridge waits and offers the events
    /// again, with the same key.
    #[error("{0}")]
    Now(String),
    /// There is no capacity for it: the bridge counts it as refused and continues.
    #[error("{0}")]
    Never(String),
}

/// A bridge that runs until this value is dropped.
#[derive(Debug)]
pub struct Bridge {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Bridge {
    /// Starts a bridge on the caller's runtime.
    pub fn start(settings: BridgeSettings, hub: Arc<dyn HubAccess>) -> Self {
        let shared = Arc::new(Shared {
            inbox: Inbox::new(settings.queue_bytes_max),
            lease: BridgeLease::new(settings.lease_time),
            mark: Mark::new(settings.mark()),
            counts: Counts::default(),
            state: Mutex::new(State::Asking),
            refusals: Throttle::default(),
            drops: Throttle::default(),
            waiting: Throttle::default(),
            attempts: Throttle::default(),
            stop: Notify::new(),
            settings,
            hub,
        });
        let task = tokio::spawn(run(Arc::clone(&shared)));
        Self { shared, task: Mutex::new(Some(task)) }
    }

    /// The name of the bridge, without secrets.
    pub fn name(&self) -> String {
        self.shared.settings.to_string()
    }

    /// Metrics since the start.
    pub fn figures(&self) -> BridgeFigures {
        let is_listening = *self.shared.state() == State::Listening;
        self.shared.counts.figures(self.shared.inbox.bytes(), is_listening)
    }

    /// Why messages do not reach the hub now, if this process is responsible for them. A bridge on
    /// standby has no problem to report.
    pub fn trouble(&self) -> Option<String> {
        let task = self.task.lock().expect("no thread panics while it holds this lock");
        if task.as_ref().is_some_and(JoinHandle::is_finished) {
            return Some("its task has ended: restart the hub".to_owned());
        }
        drop(task);
        self.shared.state().trouble()
    }

    /// Stops listening and releases the lease, so that another hub of the cluster takes over at
    /// once.
    pub async fn stop(&self) {
        let task = self.task.lock().expect("no thread panics while it holds this lock").take();
        let Some(mut task) = task else { return };
        self.shared.stop.notify_one();
        if tokio::time::timeout(STOP_TIME_MAX, &mut task).await.is_err() {
            task.abort();
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().expect("no thread panics while it holds this lock") {
            task.abort();
        }
    }
}

/// What the parts of a bridge share.
#[derive(Debug)]
struct Shared {
    settings: BridgeSettings,
    hub: Arc<dyn HubAccess>,
    inbox: Inbox,
    lease: BridgeLease,
    mark: Mark,
    counts: Counts,
    state: Mutex<State>,
    refusals: Throttle,
    drops: Throttle,
    waiting: Throttle,
    attempts: Throttle,
    stop: Notify,
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds this lock")
    }

    /// Records what the bridge does now. True if the state changed.
    fn enter(&self, state: State) -> bool {
        let mut now = self.state();
        let is_new = *now != state;
        *now = state;
        is_new
    }
}

/// Bridges whenever this process holds the lease.
async fn run(shared: Arc<Shared>) {
    tokio::select! {
        () = take_turns(&shared) => {}
        never = ingest::ingest(&shared) => match never {},
    }
}

/// Waits for the lease and bridges while it is held, until the bridge is stopped.
async fn take_turns(shared: &Arc<Shared>) {
    let cluster = shared.hub.cluster();
    loop {
        let lease = tokio::select! {
            lease = acquire(shared) => lease,
            () = shared.stop.notified() => return,
        };
        let is_lost = tokio::select! {
            () = shared.lease.keep(cluster, &lease) => true,
            never = connections(shared) => match never {},
            () = shared.stop.notified() => false,
        };
        if !is_lost {
            return shared.lease.release(cluster, &lease).await;
        }
        shared.enter(State::Asking);
        tracing::warn!(bridge = %shared.settings, "this hub has stopped bridging: its lease expired");
    }
}

async fn acquire(shared: &Shared) -> Lease {
    let key = shared.settings.lease_key();
    let reported = |error: Option<ClusterError>| match error {
        None => {
            if shared.enter(State::StandingBy) {
                tracing::info!(bridge = %shared.settings, "another hub holds the bridge lease; this one is on standby");
            }
        }
        Some(error) => {
            shared.enter(State::Uncertain(error.to_string()));
            if let Some(attempts) = shared.attempts.add() {
                tracing::warn!(bridge = %shared.settings, attempts, %error, "the holder of the bridge lease is unknown");
            }
        }
    };
    let lease = shared.lease.acquire(shared.hub.cluster(), &key, reported).await;
    shared.enter(State::Asking);
    lease
}

/// Keeps a connection, one after the other.
async fn connections(shared: &Arc<Shared>) -> Infallible {
    let bridge = &shared.settings;
    let mut outwards = Outwards::start(shared).await;
    let mut retry = RETRY;
    let mut lost_at: Option<Instant> = None;
    loop {
        match Session::open(shared).await {
            Ok(mut session) => {
                shared.enter(State::Listening);
                match lost_at {
                    None => tracing::info!(%bridge, "the bridge is listening"),
                    Some(lost_at) => {
                        let millis = u64::try_from(lost_at.elapsed().as_millis()).unwrap_or(u64::MAX);
                        tracing::warn!(%bridge, millis, "the bridge is listening again; messages published in the meantime are lost");
                    }
                }
                retry.succeeded();
                let problem = session.serve(&mut outwards).await;
                lost_at = Some(Instant::now());
                add(&shared.counts.connections_lost, 1);
                shared.enter(State::Away(format!("the connection was lost: {problem}")));
                tracing::warn!(%bridge, %problem, "the connection was lost; messages are lost until it is restored");
            }
            Err(problem) => {
                shared.enter(State::Away(problem.to_string()));
                if let Some(attempts) = shared.attempts.add() {
                    tracing::warn!(%bridge, %problem, attempts, "the bridge cannot connect");
                }
            }
        }
        sleep(retry.failed()).await;
    }
}
