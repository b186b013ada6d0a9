//! How far the shards are behind what has been written for them.
//!
//! A slow socket does not cause lag: it is skipped until it is writable again. A shard that cannot
//! visit all its subscribers in time does, and then publishers wait, so that no subscriber is sent
//! back to the log only because the shard lacks time.
//!
//! They also wait, a fraction of a millisecond, for a shard that has not yet looked at many pending
//! feeds. An event on a feed that is pending already is sent along with the others and costs next
//! to nothing; each further feed needs a send of its own that cannot be saved. If publishers did
//! not wait while all processors are busy, the subscribers would.

use std::sync::{Arc, PoisonError};

use crate::sync::{
    Notify, RwLock,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// Feeds with news that a shard has not looked at; beyond, publishers wait until it has. A shard
/// looks between slices of 64 sends.
pub(crate) const NEWS_MAX: usize = 8;

/// What has been written, in bytes of the log since the hub began, and how much of it each shard
/// has been through with.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    written: AtomicU64,
    shards: RwLock<Vec<Arc<Progress>>>,
    /// Somebody has come nearer.
    moved: Notify,
}

/// How far one shard is.
#[derive(Debug)]
struct Progress {
    /// Of what was [written](Lag::written).
    served: AtomicU64,
    /// Feeds that have grown since it looked.
    news: AtomicUsize,
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

    /// A shard says here how far it is.
    pub(crate) fn add_shard(self: &Arc<Self>) -> Served {
        let progress =
            Arc::new(Progress { served: AtomicU64::new(NOTHING_TO_DO), news: AtomicUsize::new(0) });
        self.shards.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&progress));
        Served { lag: Arc::clone(self), progress }
    }

    /// How far the slowest shard is behind.
    pub(crate) fn bytes(&self) -> u64 {
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        let served = shards.iter().map(|shard| shard.served.load(Ordering::Acquire)).min();
        served.map_or(0, |served| self.written().saturating_sub(served))
    }

    /// Waits until no shard is further behind than this, and each has looked at the news of nearly
    /// all feeds.
    pub(crate) async fn wait_until_below(&self, bytes_max: u64) {
        while self.is_beyond(bytes_max) {
            let moved = self.moved.notified();
            if !self.is_beyond(bytes_max) {
                return;
            }
            moved.await;
        }
    }

    fn is_beyond(&self, bytes_max: u64) -> bool {
        let served_min = self.written().saturating_sub(bytes_max);
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        shards.iter().any(|shard| {
            shard.served.load(Ordering::Acquire) < served_min || shard.news.load(Ordering::Acquire) > NEWS_MAX
        })
    }
}

/// A shard that has nothing to do is not behind, whatever is written for others.
const NOTHING_TO_DO: u64 = u64::MAX;

/// Where one shard says how far it is. A shard that is gone is not waited for.
#[derive(Debug)]
pub(crate) struct Served {
    lag: Arc<Lag>,
    progress: Arc<Progress>,
}

/// Where the feeds of one shard say that they have news for it.
#[derive(Clone, Debug)]
pub(crate) struct News(Arc<Progress>);

impl Served {
    /// This shard is through with everything that was written up to here, or with everything.
    pub(crate) fn set(&self, served: Option<u64>) {
        let served = served.unwrap_or(NOTHING_TO_DO);
        if self.progress.served.swap(served, Ordering::AcqRel) != served {
            self.lag.moved.notify_waiters();
        }
    }

    /// This shard has looked at the news of so many feeds.
    pub(crate) fn looked(&self, feeds: usize) {
        if feeds > 0 && self.progress.news.fetch_sub(feeds, Ordering::AcqRel) > NEWS_MAX {
            self.lag.moved.notify_waiters();
        }
    }

    pub(crate) fn news(&self) -> News {
        News(Arc::clone(&self.progress))
    }
}

impl News {
    /// One more feed has news.
    pub(crate) fn add(&self) {
        self.0.news.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let mut shards = self.lag.shards.write().unwrap_or_else(PoisonError::into_inner);
        shards.retain(|shard| !Arc::ptr_eq(shard, &self.progress));
        drop(shards);
        self.lag.moved.notify_waiters();
    }
}
