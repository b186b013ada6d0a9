//! Hooks: tell applications who comes to a topic and who leaves it, at all hubs of a store. The updates
//! about active subscriptions (the Mercure protocol) are published in the same way.
//!
//! One hub of a store works at a time ([`recorder`]). It compares who is present with who is recorded
//! as present ([`reconciler`]), appends the differences to a journal in the store ([`journal`],
//! [`change`]), and sends each hook what the journal says that it has yet to receive ([`ledger`],
//! [`board`], [`delivery`], [`message`]). The hub may die at any point: the next one reads the journal.
//! Subscriptions, of which each has a beginning and an end however short it is, are recorded by the hub
//! that has them ([`own`]).
//!
//! Invariants: what is sent was read from the journal; of two changes of one member that follow each
//! other one is a coming and one a leaving; a hook that does not answer keeps no other from being
//! delivered, and nothing else of the hub from working.

mod board;
mod change;
mod delivery;
mod journal;
mod ledger;
mod message;
mod own;
mod reconciler;
mod recorder;
mod shared;
mod watched;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tidings::{
    Hub,
    log::{Log, parts::lock},
};
use tidings_presence::PresenceList;
use tidings_server::Component;
use tokio::{sync::Notify, task::JoinHandle, time::timeout};
use url::Url;

use self::{
    board::Board,
    delivery::{Counts, Target, WebTarget},
    shared::{Hook, Shared},
};
pub(crate) use self::{change::Kind, journal::JOURNAL_BYTES_MAX, message::SigningSecret, watched::Watched};

/// The names of the hooks that publish events. Configured ones cannot have them: names have no spaces.
const EVENTS_HOOK: &str = "presence events";
const SUBSCRIPTIONS_HOOK: &str = "mercure subscriptions";

/// How long a hub that ends takes at most to release its lease.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(1);

/// A hook, as configured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HookSettings {
    /// Unique among the hooks. The journal knows the hook by it.
    pub(crate) name: String,
    pub(crate) url: Url,
    /// What is reported.
    pub(crate) kinds: Vec<Kind>,
    /// At least one; every message has a signature by each.
    pub(crate) secrets: Vec<SigningSecret>,
    /// Whether the URL may lead to this machine or a private network.
    pub(crate) allow_private: bool,
    /// For an attempt.
    pub(crate) time: Duration,
}

/// What hooks depend on.
pub(crate) struct HookSources {
    pub(crate) hub: Hub,
    pub(crate) list: PresenceList,
    pub(crate) watched: Watched,
    pub(crate) journal: Arc<dyn Log>,
    /// How long a member that has left may take to come back without having left.
    pub(crate) grace: Duration,
    /// Whether changes are published as events, too.
    pub(crate) has_events: bool,
    /// Whether updates of subscriptions are published for the older Mercure revision, too.
    pub(crate) serves_older_mercure_revision: bool,
}

/// The hooks of a hub, which work until this is dropped or [stopped](Self::stop).
#[derive(Debug)]
pub(crate) struct Hooks {
    shared: Arc<Shared>,
    working: JoinHandle<()>,
    /// Records the subscriptions of this hub.
    recording: Option<JoinHandle<()>>,
}

impl Hooks {
    /// Starts them. The error is a reason for the operator.
    pub(crate) fn start(settings: Vec<HookSettings>, sources: HookSources) -> Result<Self, String> {
        let HookSources { hub, list, watched, journal, grace, has_events, serves_older_mercure_revision } =
            sources;
        let mut targets = Vec::new();
        for HookSettings { name, url, kinds, secrets, allow_private, time } in settings {
            let target = WebTarget::new(url, secrets, allow_private, time)
                .map_err(|reason| format!("[[hook]] `{name}`: {reason}"))?;
            targets.push((name, kinds, Target::Web(Box::new(target))));
        }
        if has_events {
            targets.push((EVENTS_HOOK.to_owned(), Kind::PRESENCE.to_vec(), Target::Events(hub.clone())));
        }
        if watched.subscriptions.is_some() {
            let target = Target::Subscriptions { hub: hub.clone(), serves_older_mercure_revision };
            targets.push((SUBSCRIPTIONS_HOOK.to_owned(), Kind::SUBSCRIPTIONS.to_vec(), target));
        }
        let board = Arc::new(Board::new(targets.len()));
        let hooks = targets.into_iter().enumerate().map(|(index, (name, kinds, target))| {
            let (counts, board) = (Counts::default(), Arc::clone(&board));
            Arc::new(Hook { index, name, kinds, target, counts, board })
        });
        let shared = Arc::new(Shared {
            hooks: hooks.collect(),
            list,
            watched,
            journal,
            cluster: hub.shared_cluster(),
            board,
            grace,
            is_clustered: hub.is_clustered(),
            own_recorded: Notify::new(),
            lease: Mutex::default(),
        });
        let recording = shared.watched.subscriptions.as_ref().map(|index| {
            index.follow_own();
            let hook = shared.hooks.last().expect("that of subscriptions is the last one");
            tokio::spawn(own::run(Arc::clone(&shared), Arc::clone(index), Arc::clone(hook)))
        });
        let working = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                // Those who are disconnected because the hub ends have not left.
                tokio::select! {
                    () = recorder::run(shared) => {}
                    () = hub.closed() => {}
                }
            }
        });
        Ok(Self { shared, working, recording })
    }

    /// The hooks as components of the server.
    pub(crate) fn components(&self) -> Vec<Arc<dyn Component>> {
        self.shared.hooks.iter().map(|hook| Arc::clone(hook) as Arc<dyn Component>).collect()
    }

    /// Stops all of them, so that another hub can take over. What this hub's own subscribers do until
    /// the last of them is gone is still recorded.
    pub(crate) async fn stop(&self) {
        self.working.abort();
        let lease = lock(&self.shared.lease).take();
        if let Some(lease) = lease {
            let released = timeout(RELEASE_TIME_MAX, self.shared.cluster.release(&lease)).await;
            if !matches!(released, Ok(Ok(()))) {
                tracing::debug!("cannot release the lease of the hooks; it expires");
            }
        }
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.working.abort();
        self.recording.iter().for_each(JoinHandle::abort);
    }
}
