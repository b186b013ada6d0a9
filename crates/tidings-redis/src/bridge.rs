//! The bridge: plain Redis pub/sub, as applications have used it since 2012, into a hub and, on request, out of it.
//!
//! An application that says `red.publish('chat', …)` goes on doing so; the one that subscribes to the topic `chat` of the hub receives it. One connection per
//! bridge and process, however many listen. [`BridgeSettings`] is what a bridge is notified, a [`HubAccess`] is how it knows the hub.
//!
//! ```text
//!          SUBSCRIBE                                              HubAccess::check, HubAccess::publish
//!    Redis ──────────► Ear ──► Inbox ──────► pour: decode, check ──────────► hub ──► log
//!      ▲               knows what it sent    batches, one key each                    │
//!      └───────────────────────── PUBLISH ◄── encode ◄── Outwards: all but what is marked or private ◄┘ HubAccess::tail
//! ```
//!
//! What it promises, and what it cannot:
//! - **Order is kept**, from the channel to the log, and from the log to the channel.
//! - **Every line once everywhere.** What came in is marked in the log and not sent out; what went out is recognised when it comes back.
//! - **Exactly one of several hubs that share a cluster bridges.** A message belongs to the one that has the lease when it comes; see the module `right`.
//!   When that hub dies, another takes over within [`lease_time`](BridgeSettings::lease_time) and a second.
//! - **Redis pub/sub keeps nothing.** What is published while there is no connection, or while no hub has the lease, is lost, and the log of
//!   the program says so. While the hub takes no events, messages wait, up to [`queue_bytes_max`](BridgeSettings::queue_bytes_max); then
//!   those that come are dropped and counted.
//! - **One bad message blocks none**: it is counted, and once a minute the reason of the last one is logged.

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

/// How long to wait before connecting again.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// How long a bridge may take to stop.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);

/// What a bridge needs of the hub that it leads to.
#[async_trait]
pub trait HubAccess: Send + Sync + fmt::Debug + 'static {
    /// Checks an event as every entry point does.
    fn check(&self, event: NewEvent) -> Result<Event, Invalid>;

    /// Publishes valid events, all or nothing. A key that was used before publishes nothing and is no error.
    async fn publish(&self, events: Vec<Event>, key: IdempotencyKey) -> Result<(), NotTaken>;

    /// The live end of the log, from now on.
    async fn tail(&self) -> Result<Box<dyn Tail>, Unavailable>;

    /// What the hub shares with others.
    fn cluster(&self) -> &dyn Cluster;
}

/// Why a hub did not publish what a bridge offered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotTaken {
    /// Not now, or nobody knows: the bridge waits and offers it again, with the same key.
    #[error("{0}")]
    Now(String),
    /// There is no room for it: the bridge counts it as refused and goes on.
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
    /// Starts a bridge on the runtime of the caller.
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

    /// The bridge as it may be shown to anybody.
    pub fn name(&self) -> String {
        self.shared.settings.to_string()
    }

    /// What it has done so far.
    pub fn figures(&self) -> BridgeFigures {
        let is_listening = *self.shared.state() == State::Listening;
        self.shared.counts.figures(self.shared.inbox.bytes(), is_listening)
    }

    /// Why messages do not reach the hub now, if they should and this process is the one to see to it. A bridge that stands by has no trouble.
    pub fn trouble(&self) -> Option<String> {
        let task = self.task.lock().expect("nothing panics while it holds this");
        if task.as_ref().is_some_and(JoinHandle::is_finished) {
            return Some("its task has ended, which needs a restart of the hub".to_owned());
        }
        drop(task);
        self.shared.state().trouble()
    }

    /// Stops listening and lets another hub of the cluster take over at once.
    pub async fn stop(&self) {
        let task = self.task.lock().expect("nothing panics while it holds this").take();
        let Some(mut task) = task else { return };
        self.shared.stop.notify_one();
        if tokio::time::timeout(STOP_TIME_MAX, &mut task).await.is_err() {
            task.abort();
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().expect("nothing panics while it holds this") {
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
        self.state.lock().expect("nothing panics while it holds this")
    }

    /// Notes what the bridge does now. True if it did something else before.
    fn enter(&self, state: State) -> bool {
        let mut now = self.state();
        let is_new = *now != state;
        *now = state;
        is_new
    }
}

/// Publishes what comes, and takes turns with the other hubs of the cluster.
async fn run(shared: Arc<Shared>) {
    tokio::select! {
        () = take_turns(&shared) => {}
        never = ingest::ingest(&shared) => match never {},
    }
}

/// Bridges whenever it is this hub's turn, until the bridge is stopped.
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
        tracing::warn!(bridge = %shared.settings, "this hub does not bridge any more: its lease is over");
    }
}

async fn acquire(shared: &Shared) -> Lease {
    let key = shared.settings.lease_key();
    let reported = |error: Option<ClusterError>| match error {
        None => {
            if shared.enter(State::StandingBy) {
                tracing::info!(bridge = %shared.settings, "another hub bridges; this one stands by");
            }
        }
        Some(error) => {
            shared.enter(State::Uncertain(error.to_string()));
            if let Some(attempts) = shared.attempts.add() {
                tracing::warn!(bridge = %shared.settings, attempts, %error, "which hub bridges is unknown");
            }
        }
    };
    let lease = shared.lease.acquire(shared.hub.cluster(), &key, reported).await;
    shared.enter(State::Asking);
    lease
}

/// One connection after the other.
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
                    None => tracing::info!(%bridge, "the bridge listens"),
                    Some(lost_at) => {
                        let millis = u64::try_from(lost_at.elapsed().as_millis()).unwrap_or(u64::MAX);
                        tracing::warn!(%bridge, millis, "the bridge listens again; what was published meanwhile is lost");
                    }
                }
                retry.succeeded();
                let problem = session.serve(&mut outwards).await;
                lost_at = Some(Instant::now());
                add(&shared.counts.connections_lost, 1);
                shared.enter(State::Away(format!("the connection was lost: {problem}")));
                tracing::warn!(%bridge, %problem, "the connection was lost; messages are lost until it is back");
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
