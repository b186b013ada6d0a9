//! What the tasks of the hooks share, and what is shown of each hook.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use tidings::log::{
    Clock, Log,
    cluster::{Cluster, Lease},
    parts::lock,
};
use tidings_presence::PresenceList;
use tidings_server::{Component, Figure};
use tokio::sync::Notify;

use super::{
    board::Board,
    change::Kind,
    delivery::{Counts, Target},
    watched::Watched,
};

/// What the tasks share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) hooks: Vec<Arc<Hook>>,
    pub(super) list: PresenceList,
    pub(super) watched: Watched,
    pub(super) journal: Arc<dyn Log>,
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) board: Arc<Board>,
    pub(super) grace: Duration,
    /// Whether other hubs may record changes, too.
    pub(super) is_clustered: bool,
    /// Fires when this hub has recorded changes of its own subscribers.
    pub(super) own_recorded: Notify,
    /// The lease, while this hub has it.
    pub(super) lease: Mutex<Option<Lease>>,
}

/// A hook, and how it is delivered.
#[derive(Debug)]
pub(super) struct Hook {
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) kinds: Vec<Kind>,
    pub(super) target: Target,
    pub(super) counts: Counts,
    pub(super) board: Arc<Board>,
}

impl Shared {
    pub(super) fn set_lease(&self, lease: Option<Lease>) {
        *lock(&self.lease) = lease;
    }
}

impl Component for Hook {
    fn kind(&self) -> &'static str {
        "hook"
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    /// Never: a receiver that does not answer must not take the hub out of service.
    fn trouble(&self) -> Option<String> {
        None
    }

    fn figures(&self) -> Vec<Figure> {
        let waiting = self.board.waiting(self.index, Clock::system().now());
        let unrecorded = self.counts.unrecorded.load(Ordering::Relaxed);
        vec![
            Figure::new("tidings_hook_delivered_total", self.counts.delivered.load(Ordering::Relaxed)),
            Figure::new("tidings_hook_failed_total", self.counts.failed.load(Ordering::Relaxed)),
            Figure::new("tidings_hook_dropped_total", waiting.dropped + unrecorded),
            Figure::new("tidings_hook_pending", waiting.changes as u64),
            Figure::new("tidings_hook_pending_age_seconds", waiting.age.as_secs()),
        ]
    }
}
