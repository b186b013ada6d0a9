//! What the parts of a bridge share.

use std::{
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard},
};

use tidings_log::parts::lock;
use tokio::sync::Notify;

use super::{
    counts::{Activity, Count, Counts, Throttle},
    hub_access::HubAccess,
    inbox::Inbox,
    lease::BridgeLease,
    mark::BridgeMark,
    settings::BridgeSettings,
};

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct BridgeState {
    pub(super) settings: BridgeSettings,
    pub(super) hub: Arc<dyn HubAccess>,
    pub(super) inbox: Inbox,
    pub(super) lease: BridgeLease,
    pub(super) mark: BridgeMark,
    pub(super) counts: Counts,
    activity: Mutex<Activity>,
    refusals: Throttle,
    pub(super) drops: Throttle,
    pub(super) waiting: Throttle,
    pub(super) attempts: Throttle,
    pub(super) stop: Notify,
}

impl BridgeState {
    pub(super) fn new(settings: BridgeSettings, hub: Arc<dyn HubAccess>) -> Self {
        Self {
            inbox: Inbox::new(settings.queue_bytes_max),
            lease: BridgeLease::new(settings.lease_time),
            mark: BridgeMark::new(settings.mark()),
            counts: Counts::default(),
            activity: Mutex::new(Activity::Asking),
            refusals: Throttle::default(),
            drops: Throttle::default(),
            waiting: Throttle::default(),
            attempts: Throttle::default(),
            stop: Notify::new(),
            settings,
            hub,
        }
    }

    pub(super) fn activity(&self) -> MutexGuard<'_, Activity> {
        lock(&self.activity)
    }

    /// Records what the bridge does now. True if that is new.
    pub(super) fn enter(&self, activity: Activity) -> bool {
        let mut now = self.activity();
        let is_new = *now != activity;
        *now = activity;
        is_new
    }

    /// Counts a message that is not published, and logs the reason.
    pub(super) fn refuse(&self, count: Count, reason: &dyn Display) {
        self.counts.add(count, 1);
        if let Some(messages) = self.refusals.add() {
            tracing::warn!(bridge = %self.settings, messages, %reason, "messages were refused; the reason given is that of the last one");
        }
    }
}
