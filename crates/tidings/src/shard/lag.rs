//! How far the shards are behind what has been written for them.
//!
//! A slow socket does not cause lag: it is skipped until it is writable again. A shard that cannot
//! visit all its subscribers in time does, and then publishers wait, so that no subscriber is sent
//! back to the log only because the shard lacks time.
//!
//! They also wait, a fraction of a millisecond, for a shard that has not yet taken note of many
//! feeds that have grown. An event on a feed that is pending already is sent along with the others
//! and costs next to nothing; each further feed needs a send of its own that cannot be saved. If
//! publishers did not wait while all processors are busy, the subscribers would.

use std::sync::{Arc, PoisonError};

use crate::sync::{
    Notify, RwLock,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// Feeds that have grown and that a shard has not taken note of; beyond, publishers wait until it
/// has. A shard does between slices of 64 sends.
pub(crate) const PENDING_FEEDS_MAX: usize = 8;

/// What has been written, in bytes of the log since the hub began, and how much of it each shard
/// has sent.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    written: AtomicU64,
    shards: RwLock<Vec<Arc<ShardState>>>,
    /// A shard has advanced.
    advanced: Notify,
}

/// How far one shard is.
#[derive(Debug)]
struct ShardState {
    /// Of what was [written](Lag::written).
    served: AtomicU64,
    /// Feeds that have grown and that it has not taken note of.
    pending_feeds: AtomicUsize,
}

impl Lag {
    /// Entries of so many bytes have been written to the feeds, and announced.
    pub(crate) fn add_written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::AcqRel);
    }

    /// What has been announced up to now.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// A shard reports here how far it is.
    pub(crate) fn add_shard(self: &Arc<Self>) -> ShardProgress {
        let served = AtomicU64::new(NOTHING_TO_DO);
        let state = Arc::new(ShardState { served, pending_feeds: AtomicUsize::new(0) });
        self.shards.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&state));
        ShardProgress { lag: Arc::clone(self), state }
    }

    /// How far the slowest shard is behind.
    pub(crate) fn bytes(&self) -> u64 {
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        let served = shards.iter().map(|shard| shard.served.load(Ordering::Acquire)).min();
        served.map_or(0, |served| self.written().saturating_sub(served))
    }

    /// Waits until no shard is further behind than this, and each has taken note of nearly all
    /// feeds that have grown.
    pub(crate) async fn wait_until_below(&self, bytes_max: u64) {
        while self.is_beyond(bytes_max) {
            let advanced = self.advanced.notified();
            if !self.is_beyond(bytes_max) {
                return;
            }
            advanced.await;
        }
    }

    fn is_beyond(&self, bytes_max: u64) -> bool {
        let served_min = self.written().saturating_sub(bytes_max);
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        shards.iter().any(|shard| {
            shard.served.load(Ordering::Acquire) < served_min
                || shard.pending_feeds.load(Ordering::Acquire) > PENDING_FEEDS_MAX
        })
    }
}

/// A shard that has nothing to do is not behind, whatever is written for others.
const NOTHING_TO_DO: u64 = u64::MAX;

/// Where one shard reports how far it is. A shard that is gone is not waited for.
#[derive(Debug)]
pub(crate) struct ShardProgress {
    lag: Arc<Lag>,
    state: Arc<ShardState>,
}

/// Where the feeds of one shard count that they have grown.
#[derive(Clone, Debug)]
pub(crate) struct PendingFeeds(Arc<ShardState>);

impl ShardProgress {
    /// This shard has sent everything that was written up to here, or everything.
    pub(crate) fn set_served(&self, served: Option<u64>) {
        let served = served.unwrap_or(NOTHING_TO_DO);
        if self.state.served.swap(served, Ordering::AcqRel) != served {
            self.lag.advanced.notify_waiters();
        }
    }

    /// This shard has taken note of so many feeds.
    pub(crate) fn take_feeds(&self, feeds: usize) {
        if feeds > 0 && self.state.pending_feeds.fetch_sub(feeds, Ordering::AcqRel) > PENDING_FEEDS_MAX {
            self.lag.advanced.notify_waiters();
        }
    }

    pub(crate) fn pending_feeds(&self) -> PendingFeeds {
        PendingFeeds(Arc::clone(&self.state))
    }
}

impl PendingFeeds {
    /// One more feed has grown.
    pub(crate) fn add(&self) {
        self.0.pending_feeds.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for ShardProgress {
    fn drop(&mut self) {
        let mut shards = self.lag.shards.write().unwrap_or_else(PoisonError::into_inner);
        shards.retain(|shard| !Arc::ptr_eq(shard, &self.state));
        drop(shards);
        self.lag.advanced.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn publishers_wait_for_the_slowest_shard() {
        let lag = Arc::new(Lag::default());
        let [first, second, idle] = [lag.add_shard(), lag.add_shard(), lag.add_shard()];
        lag.add_written(1_000);
        assert_eq!(lag.bytes(), 0, "no shard has anything to do");
        first.set_served(Some(900));
        second.set_served(Some(950));
        idle.set_served(None);
        assert_eq!(lag.bytes(), 100);
        assert!(lag.wait_until_below(100).now_or_never().is_some());
        let mut waiting = Box::pin(lag.wait_until_below(40));
        assert!((&mut waiting).now_or_never().is_none());
        first.set_served(Some(1_000));
        assert!((&mut waiting).now_or_never().is_none(), "the other one is still behind");
        drop(second);
        assert!(waiting.now_or_never().is_some(), "a shard that is gone is not waited for");
        for served in [Some(1_000), None] {
            first.set_served(Some(900));
            let mut waiting = Box::pin(lag.wait_until_below(40));
            assert!((&mut waiting).now_or_never().is_none());
            first.set_served(served);
            assert!(waiting.now_or_never().is_some(), "it is woken when the shard has caught up: {served:?}");
        }
    }

    #[test]
    fn publishers_wait_for_a_shard_with_many_pending_feeds() {
        let lag = Arc::new(Lag::default());
        let [takes, gone] = [lag.add_shard(), lag.add_shard()];
        for _ in 0..PENDING_FEEDS_MAX {
            takes.pending_feeds().add();
        }
        assert!(lag.wait_until_below(0).now_or_never().is_some(), "so many may wait");
        takes.pending_feeds().add();
        let mut waiting = Box::pin(lag.wait_until_below(0));
        assert!((&mut waiting).now_or_never().is_none());
        takes.take_feeds(1);
        assert!(waiting.now_or_never().is_some());

        for _ in 0..=PENDING_FEEDS_MAX {
            gone.pending_feeds().add();
        }
        let mut waiting = Box::pin(lag.wait_until_below(0));
        assert!((&mut waiting).now_or_never().is_none());
        drop(gone);
        assert!(waiting.now_or_never().is_some(), "a shard that is gone is not waited for");
    }
}
