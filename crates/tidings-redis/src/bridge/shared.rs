//! What the parts of a bridge share.

use std::{
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicU64},
};

use tokio::sync::Notify;

use super::{
    counts::{Counts, State, Throttle, add},
    hub_access::HubAccess,
    inbox::Inbox,
    lease::BridgeLease,
    mark::Mark,
    settings::BridgeSettings,
};

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: BridgeSettings,
    pub(super) hub: Arc<dyn HubAccess>,
    pub(super) inbox: Inbox,
    pub(super) lease: BridgeLease,
    pub(super) mark: Mark,
    pub(super) counts: Counts,
    state: Mutex<State>,
    refusals: Throttle,
    pub(super) drops: Throttle,
    pub(super) waiting: Throttle,
    pub(super) attempts: Throttle,
    pub(super) stop: Notify,
}

impl Shared {
    pub(super) fn new(settings: BridgeSettings, hub: Arc<dyn HubAccess>) -> Self {
        Self {
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
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds this lock")
    }

    /// Records what the bridge does now. True if the state changed.
    pub(super) fn enter(&self, state: State) -> bool {
        let mut now = self.state();
        let is_new = *now != state;
        *now = state;
        is_new
    }

    /// Counts a message that is not published, and logs the reason.
    pub(super) fn refuse(&self, count: &AtomicU64, reason: &dyn Display) {
        add(count, 1);
        if let Some(messages) = self.refusals.add() {
            tracing::warn!(bridge = %self.settings, messages, %reason, "messages were refused; the reason given is that of the last one");
        }
    }
}
