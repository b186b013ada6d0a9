//! Connection permits: counts open connections, whichever drives them: a task of this server, or
//! the hub that has the socket.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::Notify;

use super::metrics::ConnectionMetrics;

/// The connections of one server.
#[derive(Debug)]
pub(crate) struct ConnectionPermits {
    taken: AtomicUsize,
    /// Notified whenever one is returned.
    returned: Notify,
    metrics: Arc<ConnectionMetrics>,
}

impl ConnectionPermits {
    pub(crate) fn new(metrics: &Arc<ConnectionMetrics>) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), returned: Notify::new(), metrics: Arc::clone(metrics) })
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    pub(crate) fn take(self: &Arc<Self>) -> ConnectionPermit {
        self.taken.fetch_add(1, Relaxed);
        self.metrics.open.fetch_add(1, Relaxed);
        ConnectionPermit(Arc::clone(self))
    }

    /// Waits until a permit is returned; one that was since the last time counts. For one waiter.
    pub(crate) async fn returned(&self) {
        self.returned.notified().await;
    }

    /// Waits until all permits are returned. For one waiter.
    pub(crate) async fn all_returned(&self) {
        while self.taken() > 0 {
            self.returned().await;
        }
    }
}

/// The permit of one connection, returned when it is dropped. A socket that is handed over to the
/// hub takes it along.
#[derive(Debug)]
pub(crate) struct ConnectionPermit(Arc<ConnectionPermits>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.metrics.open.fetch_sub(1, Relaxed);
        self.0.taken.fetch_sub(1, Relaxed);
        self.0.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_server_has_drained_when_its_last_place_is_returned() {
        let metrics = Arc::<ConnectionMetrics>::default();
        let permits = ConnectionPermits::new(&metrics);
        for _ in 0..2 {
            let first = permits.take();
            let second = permits.take();
            assert_eq!((permits.taken(), metrics.open.load(Relaxed)), (2, 2));
            drop(first);
            assert!(permits.all_returned().now_or_never().is_none());
            drop(second);
            assert!(permits.all_returned().now_or_never().is_some());
        }
        assert_eq!(metrics.open.load(Relaxed), 0);
    }
}
