//! The list of all subscribers.

use std::sync::Arc;

use tidings::{Error, Hub, HubBuilder, Presence, Unavailable};
use tokio::{
    task::AbortHandle,
    time::{Instant, timeout},
};

use crate::{
    announce::{WITHDRAW_TIME_MAX, announce, follow},
    members::Members,
    membership::ClusterMembership,
};

/// The subscribers that are connected, at this hub and at the others of its cluster that keep such
/// a list. Clones are handles to the same list, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct PresenceList {
    members: Arc<Members>,
    membership: Arc<ClusterMembership>,
    _tasks: Arc<Tasks>,
}

/// Ends them with the list.
#[derive(Debug)]
struct Tasks(Vec<AbortHandle>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl PresenceList {
    /// Starts the hub, and the list of its subscribers and those of the other hubs in its
    /// [cluster](HubBuilder::cluster).
    ///
    /// The hook is called for each subscriber that connects or disconnects: at once for subscribers
    /// of this hub, on the path of the connection (pass the change on and return); within a second
    /// or so for those of other hubs; and within fifteen seconds for those of a hub that died. Each
    /// subscriber is reported once when it connects and once when it disconnects, in that order.
    /// While the cluster is unreachable nothing is reported; afterwards the difference is.
    ///
    /// The list takes some 350 bytes for each subscriber of this hub, and less for those of others.
    /// Of other hubs' subscribers it has at most 1 KiB of the label, and as many matchers as fit
    /// into 8 KiB.
    pub async fn start(
        hub: HubBuilder,
        hook: impl Fn(&Presence) + Send + Sync + 'static,
    ) -> Result<(Hub, Self), Error> {
        let members = Arc::new(Members::new(Box::new(hook)));
        let local = Arc::clone(&members);
        let hub = hub.on_presence(move |presence| local.local(presence)).start().await?;
        let membership = Arc::new(ClusterMembership::new(&hub));
        let mut tasks = Vec::new();
        if membership.is_shared {
            let announcing = announce(Arc::clone(&members), Arc::clone(&membership), hub.closed());
            let (following, closed) = (follow(Arc::clone(&members), Arc::clone(&membership)), hub.closed());
            tasks.push(tokio::spawn(announcing).abort_handle());
            tasks.push(
                tokio::spawn(async move {
                    tokio::select! {
                        () = following => {}
                        () = closed => {}
                    }
                })
                .abort_handle(),
            );
        }
        Ok((hub, Self { members, membership, _tasks: Arc::new(Tasks(tasks)) }))
    }

    /// All subscribers: exact for this hub, and a moment old for the other hubs. Subscribers of a
    /// hub that died stay in the list for fifteen seconds. In no particular order.
    pub fn subscribers(&self) -> Vec<Presence> {
        let mut subscribers: Vec<_> = self.members.pages().members().cloned().collect();
        subscribers.extend(self.members.elsewhere().members().cloned());
        subscribers
    }

    /// How many subscriptions are open in all hubs that keep such a list, as of the last few
    /// seconds. A hub that died is counted for fifteen seconds at most.
    pub async fn count(&self) -> Result<u64, Unavailable> {
        let here = self.members.pages().count() as u64;
        let elsewhere = self.membership.elsewhere().await;
        elsewhere.map(|others| here.saturating_add(others)).map_err(|error| Unavailable(error.to_string()))
    }

    /// Whether a subscriber that is not in the list has left, as far as this hub can know: it has read
    /// the subscribers of the other hubs, and the cluster has received this hub without interruption
    /// lately.
    pub fn is_current(&self) -> bool {
        let is_healthy = || self.members.lease_health().is_healthy(Instant::now());
        !self.membership.is_shared || (self.members.has_read_others() && is_healthy())
    }

    /// Waits until the other hubs know that this one is closed; if the cluster cannot be reached, a
    /// second longer. Call this after [`Hub::close`]: a hub whose process ends before that is
    /// considered dead, which takes fifteen seconds.
    pub async fn withdrawn(&self) {
        let mut has_withdrawn = self.membership.has_withdrawn.subscribe();
        let _ = timeout(WITHDRAW_TIME_MAX, has_withdrawn.wait_for(|has| *has)).await;
    }
}
