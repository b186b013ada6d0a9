//! What a hub publishes about itself to the others of its cluster, and what it sees of them.
//!
//! Every five seconds a hub renews its mark, which also contains its number of subscribers; a dead
//! hub's mark expires after fifteen. It also publishes its pages: those that changed at most every
//! 200 ms, one after the other, and each once more within 45 s. So the cost has a bound, whatever
//! subscribers do: 15,000 of them, with 40 bytes each, are 470 pages of 1.2 KB; renewing them takes
//! 14 KB/s, and if all connect or disconnect in the same moment, each page is written a few times.

use std::{sync::Arc, time::Duration};

use tidings::log::cluster::{Change, ClusterError, Watch};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    encoding::{Key, PREFIX},
    members::Members,
    membership::{ClusterMembership, EVERY},
};

/// The pause after each pass over the pages, and after each look at the changes of other hubs.
const PAUSE: Duration = Duration::from_millis(200);
/// The pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long a hub that closes takes at most to withdraw its state.
pub(crate) const WITHDRAW_TIME_MAX: Duration = Duration::from_secs(1);

/// Publishes this hub's state to the others until it is closed.
pub(crate) async fn announce(members: Arc<Members>, membership: Arc<ClusterMembership>, closed: impl Future) {
    let announcer = Announcer {
        members: &members,
        membership: &membership,
        mark_is_due_at: Instant::now(),
        is_full_logged: false,
    };
    tokio::select! {
        never = announcer.run() => never,
        _ = closed => {}
    }
    let _ = timeout(WITHDRAW_TIME_MAX, leave(&members, &membership)).await;
    membership.has_withdrawn.send_replace(true);
}

/// Withdraws what this hub has published. Its mark is first: all subscribers go with it.
async fn leave(members: &Members, membership: &ClusterMembership) {
    let pages = members.pages().shown();
    for key in [membership.mark()].into_iter().chain(pages.into_iter().map(|number| membership.page(number)))
    {
        if let Err(error) = membership.cluster.remove(&key).await {
            tracing::debug!(%error, "cannot withdraw the state of this hub from the cluster");
            return;
        }
    }
}

struct Announcer<'a> {
    members: &'a Members,
    membership: &'a ClusterMembership,
    mark_is_due_at: Instant,
    /// The cluster has no capacity left, and this has been logged.
    is_full_logged: bool,
}

impl Announcer<'_> {
    async fn run(mut self) -> ! {
        loop {
            if self.show().await.is_err() {
                sleep(RETRY_PAUSE).await;
                continue;
            }
            sleep(PAUSE).await;
            tokio::select! {
                () = self.members.changed.notified() => {}
                () = tokio::time::sleep_until(self.mark_is_due_at) => {}
            }
        }
    }

    /// Publishes what is due: the mark, then each page.
    async fn show(&mut self) -> Result<(), ClusterError> {
        self.show_mark().await?;
        let list = self.members;
        list.pages().grow_old(Instant::now());
        let mut behind = None;
        loop {
            let Some(showing) = list.pages().next_due(behind, Instant::now()) else { return Ok(()) };
            behind = Some(showing.number);
            if let Err(error) = self.membership.show_page(&showing).await {
                list.pages().not_shown(showing.number);
                if !matches!(error, ClusterError::Full(_)) {
                    return Err(error);
                }
                // Other pages may be smaller, or free capacity.
                if !std::mem::replace(&mut self.is_full_logged, true) {
                    tracing::warn!(%error, "other hubs do not see all subscribers of this hub");
                }
            }
            self.show_mark().await?;
        }
    }

    async fn show_mark(&mut self) -> Result<(), ClusterError> {
        let list = self.members;
        let is_lost = list.lease_health().is_forgotten();
        if !is_lost && Instant::now() < self.mark_is_due_at {
            return Ok(());
        }
        let count = list.pages().count();
        self.membership.show_mark(count).await.inspect_err(|error| {
            tracing::debug!(%error, "cannot renew the mark of this hub in the cluster");
        })?;
        let now = Instant::now();
        self.mark_is_due_at = now + EVERY;
        list.received(now);
        Ok(())
    }
}

/// Follows what the other hubs publish.
pub(crate) async fn follow(members: Arc<Members>, membership: Arc<ClusterMembership>) {
    loop {
        let error = match membership.cluster.watch(PREFIX).await {
            Ok(watch) => look(&membership.name, &members, watch).await,
            Err(error) => error,
        };
        tracing::debug!(%error, "cannot follow the subscribers of other hubs; trying again");
        sleep(RETRY_PAUSE).await;
    }
}

/// Reports which subscribers connect and disconnect at the other hubs until the watch fails, and
/// returns the error.
async fn look(own: &str, list: &Members, mut watch: Box<dyn Watch>) -> ClusterError {
    let mut is_first = true;
    loop {
        let is_any_missing = list.elsewhere().is_any_missing();
        tokio::select! {
            changes = watch.next() => {
                let changes = match changes {
                    Ok(changes) => changes,
                    Err(error) => return error,
                };
                let (ours, theirs): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| is_of(own, change));
                if ours.iter().any(is_lost_mark) {
                    list.forgotten(Instant::now());
                }
                let subscribers = {
                    let mut elsewhere = list.elsewhere();
                    if std::mem::replace(&mut is_first, false) {
                        elsewhere.restart_watch(&theirs);
                    }
                    elsewhere.apply(theirs)
                };
                list.report(&subscribers);
                list.have_read_others();
            }
            () = sleep(PAUSE), if is_any_missing => {}
        }
        if list.lease_health().is_healthy(Instant::now()) {
            let subscribers = list.elsewhere().remove_missing();
            list.report(&subscribers);
        }
        sleep(PAUSE).await;
    }
}

fn is_of(hub: &str, change: &Change) -> bool {
    let (Change::Set { key, .. } | Change::Gone { key }) = change;
    matches!(Key::parse(key), Some(Key::Mark { hub: of } | Key::Page { hub: of, .. }) if of == hub)
}

fn is_lost_mark(change: &Change) -> bool {
    matches!(change, Change::Gone { key } if matches!(Key::parse(key), Some(Key::Mark { .. })))
}

impl Members {
    /// The cluster has received this hub's mark. If that was not so for a while, it may have
    /// forgotten everything else.
    fn received(&self, now: Instant) {
        if !self.lease_health().received(now) {
            self.pages().forgotten();
        }
    }

    /// The cluster has forgotten this hub.
    fn forgotten(&self, now: Instant) {
        self.lease_health().forgot(now);
        self.pages().forgotten();
        self.changed.notify_one();
    }
}
