//! What a presence list consists of: the subscribers of this hub, those of the others, and the
//! hook.
//!
//! Invariants: each connect is reported once, and its disconnect once and afterwards; the list is
//! changed before the hook is called, and no lock is held while the hook runs.

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use tidings::{
    Presence, PresenceHook,
    log::{parts::lock, vital},
};
use tokio::sync::Notify;

use crate::{elsewhere::Elsewhere, lease_health::LeaseHealth, pages::Pages};

/// See the [module documentation](self).
pub(crate) struct Members {
    hook: Box<PresenceHook>,
    pages: Mutex<Pages>,
    /// Fires when a page changed.
    pub(crate) changed: Notify,
    elsewhere: Mutex<Elsewhere>,
    lease_health: Mutex<LeaseHealth>,
    /// The subscribers of the other hubs have been read once.
    has_read_others: AtomicBool,
}

impl Members {
    pub(crate) fn new(hook: Box<PresenceHook>) -> Self {
        Self {
            hook,
            pages: Mutex::default(),
            changed: Notify::new(),
            elsewhere: Mutex::default(),
            lease_health: Mutex::default(),
            has_read_others: AtomicBool::new(false),
        }
    }

    /// A subscriber of this hub connected or disconnected.
    pub(crate) fn local(&self, presence: &Presence) {
        if presence.here {
            self.pages().join(presence.clone());
        } else {
            self.pages().leave(&presence.connection);
        }
        self.changed.notify_one();
        (self.hook)(presence);
    }

    /// Reports subscribers of other hubs. A hook that panics must not end that.
    pub(crate) fn report(&self, changed: &[Presence]) {
        for presence in changed {
            if let Err(panicked) = vital::run(|| (self.hook)(presence)) {
                tracing::error!(%panicked, "the presence hook panicked");
            }
        }
    }

    pub(crate) fn have_read_others(&self) {
        self.has_read_others.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_read_others(&self) -> bool {
        self.has_read_others.load(Ordering::Relaxed)
    }

    pub(crate) fn pages(&self) -> MutexGuard<'_, Pages> {
        lock(&self.pages)
    }

    pub(crate) fn elsewhere(&self) -> MutexGuard<'_, Elsewhere> {
        lock(&self.elsewhere)
    }

    pub(crate) fn lease_health(&self) -> MutexGuard<'_, LeaseHealth> {
        lock(&self.lease_health)
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").field("here", &self.pages().count()).finish_non_exhaustive()
    }
}
