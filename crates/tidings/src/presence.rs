//! Who comes and who goes.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tidings_topic::{ConnectionId, Matcher};

/// A subscriber came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Whether it is here now.
    pub here: bool,
    /// The connection.
    pub connection: ConnectionId,
    /// What it subscribed to.
    pub matchers: Arc<[Matcher]>,
    /// The name that it was given with [`Subscribe::label`](crate::Subscribe::label).
    pub label: Option<String>,
}

/// Called for each subscriber that comes or goes. It runs on the path of the connection: hand the news on (a channel, a counter) and
/// return.
pub type PresenceHook = dyn Fn(&Presence) + Send + Sync;

/// Counts subscribers and tells the hook.
#[derive(Clone, Default)]
pub(crate) struct PresenceDesk(Arc<Desk>);

#[derive(Default)]
struct Desk {
    here: AtomicUsize,
    hook: Option<Arc<PresenceHook>>,
}

/// A subscriber that is here until this is dropped.
#[derive(Debug)]
pub(crate) struct Membership {
    desk: PresenceDesk,
    /// Kept only where there is a hook to tell: an idle subscriber costs as little as possible.
    presence: Option<Box<Presence>>,
}

impl PresenceDesk {
    pub(crate) fn new(hook: Option<Arc<PresenceHook>>) -> Self {
        Self(Arc::new(Desk { here: AtomicUsize::new(0), hook }))
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
        let presence = self.0.hook.as_ref().map(|hook| {
            let presence = Presence { here: true, connection, matchers: matchers.into(), label };
            hook(&presence);
            Box::new(presence)
        });
        Membership { desk: self.clone(), presence }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.desk.0.here.fetch_sub(1, Ordering::Relaxed);
        if let (Some(hook), Some(presence)) = (&self.desk.0.hook, &mut self.presence) {
            presence.here = false;
            hook(presence);
        }
    }
}

impl fmt::Debug for PresenceDesk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceDesk").field("here", &self.count()).finish_non_exhaustive()
    }
}
