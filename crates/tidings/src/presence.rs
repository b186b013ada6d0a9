//! Which subscribers connect and disconnect at this hub.
//!
//! The registry counts them and notifies hook and [streams](stream), where there are any. Otherwise
//! a subscriber costs a counter. The crate `tidings-presence` builds on the hook: a list of all
//! subscribers, at all hubs of a cluster.
//!
//! Invariants: each connect is reported once, and its disconnect once and afterwards; in between, a
//! subscriber is reported again when its topics change; no lock is held while the hook runs.

mod change;
mod stream;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tidings_log::vital;
use tidings_topic::{ConnectionId, Matcher};

use self::{change::reported, stream::Streams};
pub use self::{
    change::{Payloads, Presence, PresenceMatcher},
    stream::PresenceStream,
};

/// Called for each subscriber that connects or disconnects. It runs on the path of the connection:
/// pass the change on (a channel, a counter) and return.
pub type PresenceHook = dyn Fn(&Presence) + Send + Sync;

/// Counts subscribers and, where there is a hook, notifies it.
#[derive(Clone)]
pub(crate) struct PresenceRegistry(Arc<RegistryState>);

struct RegistryState {
    here: AtomicUsize,
    hook: Option<Box<PresenceHook>>,
    streams: Streams,
}

/// A subscriber that is present until this is dropped.
#[derive(Debug)]
pub(crate) struct Membership {
    registry: PresenceRegistry,
    /// Kept only where somebody is notified: an idle subscriber costs as little as possible.
    reported: Option<Box<Reported>>,
}

#[derive(Debug)]
struct Reported {
    presence: Presence,
    payloads: Option<Payloads>,
}

impl PresenceRegistry {
    pub(crate) fn new(hook: Option<Box<PresenceHook>>) -> Self {
        Self(Arc::new(RegistryState { here: AtomicUsize::new(0), hook, streams: Streams::default() }))
    }

    /// How many subscribers are connected.
    pub(crate) fn count(&self) -> usize {
        self.0.here.load(Ordering::Relaxed)
    }

    /// Changes from now on.
    pub(crate) fn stream(&self) -> PresenceStream {
        self.0.streams.open()
    }

    pub(crate) fn join(
        &self,
        connection: ConnectionId,
        matchers: &[Matcher],
        label: Option<String>,
        payloads: Option<Payloads>,
    ) -> Membership {
        self.0.here.fetch_add(1, Ordering::Relaxed);
        let is_reported = self.0.hook.is_some() || !self.0.streams.is_empty();
        let reported = is_reported.then(|| {
            let matchers = reported(matchers, payloads.as_ref());
            let label = label.map(Arc::from);
            let presence = Presence { here: true, is_local: true, connection, matchers, label };
            Box::new(Reported { presence, payloads })
        });
        let membership = Membership { registry: self.clone(), reported };
        membership.notify(false);
        membership
    }
}

impl Membership {
    /// The subscriber has other matchers from now on. It is reported again as one that is here, with
    /// these.
    pub(crate) fn change(&mut self, matchers: &[Matcher]) {
        let Some(Reported { presence, payloads }) = self.reported.as_deref_mut() else { return };
        presence.matchers = reported(matchers, payloads.as_ref());
        self.notify(true);
    }

    /// A hook that panics must not take a connection, or all connections of a shard, with it.
    fn notify(&self, is_known: bool) {
        let Some(Reported { presence, .. }) = self.reported.as_deref() else { return };
        self.registry.0.streams.note(presence, is_known);
        if let Some(hook) = &self.registry.0.hook
            && let Err(panicked) = vital::run(|| hook(presence))
        {
            tracing::error!(%panicked, "the `on_presence` hook panicked");
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.registry.0.here.fetch_sub(1, Ordering::Relaxed);
        if let Some(reported) = &mut self.reported {
            reported.presence.here = false;
            self.notify(true);
        }
    }
}

impl fmt::Debug for PresenceRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceRegistry").field("here", &self.count()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tidings_topic::Validator;

    use super::*;

    #[test]
    fn where_nobody_is_notified_a_subscriber_costs_no_more_than_a_counter() {
        let registry = PresenceRegistry::new(None);
        let chat = Validator::default().exact("chat").expect("valid");
        let join = || {
            let connection = ConnectionId::from_random([7; 16]);
            registry.join(connection, std::slice::from_ref(&chat), Some("ann".to_owned()), None)
        };
        let membership = join();
        assert!(membership.reported.is_none());
        assert_eq!(registry.count(), 1);
        let _presence = registry.stream();
        assert!(join().reported.is_some());
        drop(membership);
        assert_eq!(registry.count(), 0);
    }
}
