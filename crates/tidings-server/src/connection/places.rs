//! Connection permits: counts open connections, whichever drives them: a task of this server, or
//! the hub that has taken over the socket.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::Notify;

use super::metrics::ConnectionMetrics;

/// The connections of one server.
#[derive(Debug)]
pub(super) struct Places {
    taken: AtomicUsize,
    /// Reported whenever one is given back.
    given_back: Notify,
    metrics: Arc<ConnectionMetrics>,
}

impl Places {
    pub(super) fn new(metrics: &Arc<ConnectionMetrics>) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), given_back: Notify::new(), metrics: Arc::clone(metrics) })
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    pub(super) fn take(self: &Arc<Self>) -> Place {
        self.taken.fetch_add(1, Relaxed);
        self.metrics.open.fetch_add(1, Relaxed);
        Place(Arc::clone(self))
    }

    /// Waits until a place is given back; one that was since the last time counts. For one who
    /// waits.
    pub(super) async fn given_back(&self) {
        self.given_back.notified().await;
    }

    /// Waits until nobody has a place. For one who waits.
    pub(super) async fn emptied(&self) {
        while self.taken() > 0 {
            self.given_back().await;
        }
    }
}

/// The place of one connection, given back when it is dropped. A connection that is taken over
/// takes it along.
#[derive(Debug)]
pub(super) struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.metrics.open.fetch_sub(1, Relaxed);
        self.0.taken.fetch_sub(1, Relaxed);
        self.0.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_server_has_drained_when_its_last_place_is_given_back() {
        let metrics = Arc::<ConnectionMetrics>::default();
        let places = Places::new(&metrics);
        for _ in 0..2 {
            let first = places.take();
            let second = places.take();
            assert_eq!((places.taken(), metrics.open.load(Relaxed)), (2, 2));
            drop(first);
            assert!(places.emptied().now_or_never().is_none());
            drop(second);
            assert!(places.emptied().now_or_never().is_some());
        }
        assert_eq!(metrics.open.load(Relaxed), 0);
    }
}
