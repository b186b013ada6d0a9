//! Which subscribers connect and disconnect, at this hub and at the others of its cluster.
//!
//! The registry counts the subscribers of this hub. With a presence hook, it also keeps them in
//! **pages** of some tens each (`pages.rs`), which the hub publishes to the others (`announce.rs`,
//! `encoding.rs`), and the pages that those publish (`elsewhere.rs`). Without a hook, a subscriber
//! costs a counter.
//!
//! Invariants: each connect is reported once, and its disconnect once and afterwards; the list is
//! changed before the hook is called, and no lock is held while the hook runs.

pub(crate) mod announce;
mod change;
mod elsewhere;
mod encoding;
mod lease_health;
pub(crate) mod membership;
mod pages;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use tidings_log::{parts::lock, vital};
use tidings_topic::{ConnectionId, Matcher};
use tokio::sync::Notify;

pub use self::change::{Presence, PresenceMatcher};
use self::{
    elsewhere::Elsewhere,
    lease_health::LeaseHealth,
    pages::{Member, Pages},
};

/// Called for each subscriber that connects or disconnects. For those of this hub it runs on the
/// path of the connection: pass the change on (a channel, a counter) and return.
pub type PresenceHook = dyn Fn(&Presence) + Send + Sync;

/// Counts subscribers and, where there is a hook, knows who they are.
#[derive(Clone, Default)]
pub(crate) struct PresenceRegistry(Arc<RegistryState>);

#[derive(Default)]
struct RegistryState {
    here: AtomicUsize,
    list: Option<PresenceList>,
}

/// The subscribers that are connected, and the hook that is notified.
struct PresenceList {
    hook: Arc<PresenceHook>,
    pages: Mutex<Pages>,
    /// Fires when a page changed.
    changed: Notify,
    elsewhere: Mutex<Elsewhere>,
    lease_health: Mutex<LeaseHealth>,
}

/// A subscriber that is present until this is dropped.
#[derive(Debug)]
pub(crate) struct Membership {
    registry: PresenceRegistry,
    /// Kept only where there is a hook to call: an idle subscriber costs as little as possible.
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

    /// How many subscribers are connected.
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
            tracing::error!(%panicked, "the `on_presence` hook panicked");
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

impl fmt::Debug for PresenceRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceRegistry").field("here", &self.count()).finish_non_exhaustive()
    }
}
