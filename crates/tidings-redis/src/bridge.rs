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
mod hub_access;
mod inbox;
mod ingest;
mod lease;
mod mark;
mod outwards;
mod python_json;
mod session;
mod settings;
mod state;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use tidings_log::{
    cluster::{ClusterError, Lease},
    parts::lock,
};
use tidings_net::Backoff;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use self::{counts::Activity, outwards::Outwards, session::Session, state::BridgeState};
pub use self::{
    counts::BridgeFigures,
    hub_access::{HubAccess, NotTaken},
    settings::BridgeSettings,
};

/// How long to wait before reconnecting.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// How long a bridge may take to stop.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);

/// A bridge that runs until this value is dropped.
#[derive(Debug)]
pub struct Bridge {
    shared: Arc<BridgeState>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Bridge {
    /// Starts a bridge on the caller's runtime.
    pub fn start(settings: BridgeSettings, hub: Arc<dyn HubAccess>) -> Self {
        let shared = Arc::new(BridgeState::new(settings, hub));
        let task = tokio::spawn(run(Arc::clone(&shared)));
        Self { shared, task: Mutex::new(Some(task)) }
    }

    /// The name of the bridge, without secrets.
    pub fn name(&self) -> String {
        self.shared.settings.to_string()
    }

    /// Metrics since the start.
    pub fn figures(&self) -> BridgeFigures {
        let is_listening = *self.shared.activity() == Activity::Listening;
        self.shared.counts.figures(self.shared.inbox.bytes(), is_listening)
    }

    /// Why messages do not reach the hub now, if this process is responsible for them. A bridge on
    /// standby has no problem to report.
    pub fn trouble(&self) -> Option<String> {
        let task = lock(&self.task);
        if task.as_ref().is_some_and(JoinHandle::is_finished) {
            return Some("its task has ended: restart the hub".to_owned());
        }
        drop(task);
        self.shared.activity().trouble()
    }

    /// Stops listening and releases the lease, so that another hub of the cluster takes over at
    /// once.
    pub async fn stop(&self) {
        let task = lock(&self.task).take();
        let Some(mut task) = task else { return };
        self.shared.stop.notify_one();
        if tokio::time::timeout(STOP_TIME_MAX, &mut task).await.is_err() {
            task.abort();
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(task) = &*lock(&self.task) {
            task.abort();
        }
    }
}

/// Bridges whenever this process holds the lease.
async fn run(shared: Arc<BridgeState>) {
    tokio::select! {
        () = take_turns(&shared) => {}
        never = ingest::ingest(&shared) => match never {},
    }
}

/// Waits for the lease and bridges while it is held, until the bridge is stopped.
async fn take_turns(shared: &Arc<BridgeState>) {
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
        shared.enter(Activity::Asking);
        tracing::warn!(bridge = %shared.settings, "this hub has stopped bridging: its lease expired");
    }
}

async fn acquire(shared: &BridgeState) -> Lease {
    let key = shared.settings.lease_key();
    let reported = |error: Option<ClusterError>| match error {
        None => {
            if shared.enter(Activity::StandingBy) {
                tracing::info!(bridge = %shared.settings, "another hub holds the bridge lease; this one is on standby");
            }
        }
        Some(error) => {
            shared.enter(Activity::Uncertain(error.to_string()));
            if let Some(attempts) = shared.attempts.add() {
                tracing::warn!(bridge = %shared.settings, attempts, %error, "the holder of the bridge lease is unknown");
            }
        }
    };
    let lease = shared.lease.acquire(shared.hub.cluster(), &key, reported).await;
    shared.enter(Activity::Asking);
    lease
}

/// Keeps a connection, one after the other.
async fn connections(shared: &Arc<BridgeState>) -> Infallible {
    let bridge = &shared.settings;
    let mut outwards = Outwards::start(shared).await;
    let mut retry = RETRY;
    let mut lost_at: Option<Instant> = None;
    loop {
        match Session::open(shared).await {
            Ok(mut session) => {
                shared.enter(Activity::Listening);
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
                shared.counts.add(|counts| &mut counts.connections_lost, 1);
                shared.enter(Activity::Away(format!("the connection was lost: {problem}")));
                tracing::warn!(%bridge, %problem, "the connection was lost; messages are lost until it is restored");
            }
            Err(problem) => {
                shared.enter(Activity::Away(problem.to_string()));
                if let Some(attempts) = shared.attempts.add() {
                    tracing::warn!(%bridge, %problem, attempts, "the bridge cannot connect");
                }
            }
        }
        sleep(retry.failed()).await;
    }
}
