//! Who comes and who goes, at this hub and at the others of its cluster.
//!
//! The registry counts the subscribers of this hub. Where somebody asked to be reported, it also keeps them in **pages** of some tens each (`pages.rs`), which the hub
//! shows to the others (`announce.rs`, `encoding.rs`), and what these show of theirs (`elsewhere.rs`). Where nobody asked, a subscriber costs a counter.
//!
//! Invariants: each coming is notified once, and its going once and afterwards; the list is changed before the hook is called, and no lock is held
//! while it runs.

mod announce;
mod elsewhere;
mod encoding;
mod lease_health;
mod pages;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tidings_log::vital;
use tidings_topic::{ConnectionId, Matcher};
use tokio::sync::Notify;

use self::{
    elsewhere::Elsewhere,
    lease_health::LeaseHealth,
    pages::{Member, Pages},
};
use crate::hub::Hub;

pub(crate) use announce::{ClusterPlace, announce, follow};

/// A subscriber came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presence {
    /// Whether it came, or is in a [presence list](Hub::presence_list); otherwise it went.
    pub here: bool,
    /// Whether it is a subscriber of this hub, and not of another one of the cluster.
    pub is_local: bool,
    /// The connection. No two have the same, at whatever hub.
    pub connection: ConnectionId,
    /// What it subscribed to. Other hubs are notified as many as fit into 8 KiB.
    pub matchers: Arc<[PresenceMatcher]>,
    /// The name that it was given with [`Subscribe::label`](crate::Subscribe::label). Other hubs are notified 1 KiB of it at most.
    pub label: Option<Arc<str>>,
}

/// One of the matchers of a subscriber, as it was written: a hub does not need to understand what another one's subscribers asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresenceMatcher {
    /// Whether the text is a URL Pattern; otherwise it is a topic, or `*` for all of them.
    pub is_pattern: bool,
    /// What was asked for.
    pub text: Arc<str>,
}

impl From<&Matcher> for PresenceMatcher {
    fn from(matcher: &Matcher) -> Self {
        Self { is_pattern: matches!(matcher, Matcher::Pattern(_)), text: matcher.as_str().into() }
    }
}

/// Called for each subscriber that comes or goes. For those of this hub it runs on the path of the connection: hand the news on (a channel, a counter)
/// and return.
pub type PresenceHook = dyn Fn(&Presence) + Send + Sync;

/// Counts subscribers and, where there is a hook, knows who they are.
#[derive(Clone, Default)]
pub(crate) struct PresenceRegistry(Arc<RegistryState>);

#[derive(Default)]
struct RegistryState {
    here: AtomicUsize,
    list: Option<PresenceList>,
}

/// Who is here, and who is notified.
struct PresenceList {
    hook: Arc<PresenceHook>,
    pages: Mutex<Pages>,
    /// Fires when a page changed.
    changed: Notify,
    elsewhere: Mutex<Elsewhere>,
    lease_health: Mutex<LeaseHealth>,
}

/// A subscriber that is here until this is dropped.
#[derive(Debug)]
pub(crate) struct Membership {
    registry: PresenceRegistry,
    /// Kept only where there is a hook to tell: an idle subscriber costs as little as possible.
    member: Option<Arc<Member>>,
}

impl PresenceRegistry {
    pub(crate) fn new(hook: Option<Arc<PresenceHook>>) -> Self {
        let list = hook.map(|hook| PresenceList {
            hook,
            pages: Mutex::default(),
            changed: Notify::new(),
            elsewhere: Mutex::default(),
            lease_health: Mutex::default(),
        });
        Self(Arc::new(RegistryState { here: AtomicUsize::new(0), list }))
    }

    /// How many subscribers are here.
    pub(crate) fn count(&self) -> usize {
        self.0.here.load(Ordering::Relaxed)
    }

    pub(crate) fn join(
        &self,
        connection: ConnectionId,
        matchers: &[Matcher],
        label: Option<String>,
    ) -> Membership {
        self.0.here.fetch_add(1, Ordering::Relaxed);
        let member = self.0.list.as_ref().map(|list| {
            let matchers = matchers.iter().map(PresenceMatcher::from).collect();
            let label = label.map(Arc::from);
            list.join(Presence { here: true, is_local: true, connection, matchers, label })
        });
        Membership { registry: self.clone(), member }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.registry.0.here.fetch_sub(1, Ordering::Relaxed);
        if let (Some(list), Some(member)) = (&self.registry.0.list, self.member.take()) {
            list.leave(&member);
        }
    }
}

impl PresenceList {
    fn join(&self, presence: Presence) -> Arc<Member> {
        let member = self.pages().join(presence);
        self.changed.notify_one();
        self.call(&member.presence);
        member
    }

    fn leave(&self, member: &Member) {
        self.pages().leave(member);
        self.changed.notify_one();
        self.call(&Presence { here: false, ..member.presence.clone() });
    }

    /// A hook that panics must not take a connection, or all connections of a shard, with it.
    fn call(&self, presence: &Presence) {
        if let Err(panicked) = vital::run(|| (self.hook)(presence)) {
            tracing::error!(%panicked, "the hook of `on_presence` has failed");
        }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        lock(&self.pages)
    }

    fn elsewhere(&self) -> MutexGuard<'_, Elsewhere> {
        lock(&self.elsewhere)
    }

    fn lease_health(&self) -> MutexGuard<'_, LeaseHealth> {
        lock(&self.lease_health)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// Who subscribes now: here exactly, at the other hubs of the [cluster](crate::HubBuilder::cluster) as of a moment ago. Those of a hub that died are
    /// here for fifteen seconds more. In no particular order. Nobody, unless the hub was asked to know: see
    /// [`on_presence`](crate::HubBuilder::on_presence).
    pub fn presence_list(&self) -> Vec<Presence> {
        let Some(list) = &self.shared.presence.0.list else { return Vec::new() };
        let mut everybody: Vec<_> = list.pages().members().cloned().collect();
        everybody.extend(list.elsewhere().members().cloned());
        everybody
    }
}

impl fmt::Debug for PresenceRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceRegistry").field("here", &self.count()).finish_non_exhaustive()
    }
}
