//! How far the shards are behind what has been written for them.
//!
//! A slow socket makes no lag: it is passed over until it can be written again. A shard that cannot get round all its subscribers does, and
//! then publishers wait, so that nobody is sent back to the log only because there is too little time.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

/// What has been written, in bytes of the log since the hub began, and how much of it each shard has been through with.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    written: AtomicU64,
    shards: RwLock<Vec<Arc<AtomicU64>>>,
    /// Somebody has come nearer.
    moved: Notify,
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
        let served = Arc::new(AtomicU64::new(NOTHING_TO_DO));
        self.shards.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&served));
        Served { lag: Arc::clone(self), served }
    }

    /// How far the slowest shard is behind.
    pub(crate) fn bytes(&self) -> u64 {
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        let served = shards.iter().map(|served| served.load(Ordering::Acquire)).min();
        served.map_or(0, |served| self.written().saturating_sub(served))
    }

    /// Waits until no shard is further behind than this.
    pub(crate) async fn wait_until_below(&self, bytes_max: u64) {
        while self.bytes() > bytes_max {
            let moved = self.moved.notified();
            if self.bytes() <= bytes_max {
                return;
            }
            moved.await;
        }
    }
}

/// A shard that has nothing to do is not behind, whatever is written for others.
const NOTHING_TO_DO: u64 = u64::MAX;

/// How far one shard is. A shard that is gone is not waited for.
#[derive(Debug)]
pub(crate) struct Served {
    lag: Arc<Lag>,
    served: Arc<AtomicU64>,
}

impl Served {
    /// This shard is through with everything that was written up to here, or with everything.
    pub(crate) fn set(&self, served: Option<u64>) {
        let served = served.unwrap_or(NOTHING_TO_DO);
        if self.served.swap(served, Ordering::AcqRel) != served {
            self.lag.moved.notify_waiters();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.set(None);
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
        assert_eq!(lag.bytes(), 0, "nobody has anything to do");
        first.set(Some(900));
        second.set(Some(950));
        idle.set(None);
        assert_eq!(lag.bytes(), 100);
        assert!(lag.wait_until_below(100).now_or_never().is_some());
        let mut waiting = Box::pin(lag.wait_until_below(40));
        assert!((&mut waiting).now_or_never().is_none());
        first.set(Some(1_000));
        assert!((&mut waiting).now_or_never().is_none(), "the other one is still behind");
        drop(second);
        assert!(waiting.now_or_never().is_some(), "who is gone is not waited for");
    }
}
