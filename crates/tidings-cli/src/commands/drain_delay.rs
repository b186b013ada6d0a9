//! The time between a request to stop and the drain.
//!
//! A load balancer learns only some time after a stop that it should send no further clients here:
//! it looks at `/readyz`, or follows an orchestrator. A hub that drained at once would refuse
//! those clients. So for `drain_delay_secs` it is not ready, and serves as before. By default there
//! is no delay.

use std::time::Duration;

use tidings_server::Leaving;
use tokio::{sync::watch, time::sleep};

/// Requests to stop. Clones share them.
#[derive(Clone)]
pub(super) struct DrainDelay {
    delay: Duration,
    leaving: Leaving,
    /// How often the hub was asked to drain: by requests, and by the end of the delay.
    drains: watch::Sender<usize>,
}

impl DrainDelay {
    pub(super) fn new(delay: Duration) -> Self {
        Self { delay, leaving: Leaving::default(), drains: watch::Sender::new(0) }
    }

    /// What makes the hub not ready, from the first request on.
    pub(super) fn leaving(&self) -> &Leaving {
        &self.leaving
    }

    /// Whether the hub drains.
    pub(super) fn is_over(&self) -> bool {
        *self.drains.borrow() > 0
    }

    /// Waits until the hub was asked to drain this often.
    pub(super) async fn requested(self, times: usize) {
        let mut drains = self.drains.subscribe();
        // The sender is `self`.
        let _ = drains.wait_for(|drains| *drains >= times).await;
    }

    /// A request to stop. The first one begins the delay, if it is to have one; any other asks the
    /// hub to drain at once. `drain` is called when the hub is asked to drain, before anything waits
    /// no longer for that. Call it within a tokio runtime.
    pub(super) fn request(&self, has_delay: bool, drain: impl FnOnce() + Send + 'static) {
        let is_first = self.leaving.begin();
        if !(is_first && has_delay) || self.delay.is_zero() {
            self.drains.send_modify(|drains| {
                drain();
                *drains += 1;
            });
            return;
        }
        let delay_secs = self.delay.as_secs();
        tracing::info!(
            delay_secs,
            "not ready any more; streams end after the delay, or with a further signal"
        );
        let this = self.clone();
        tokio::spawn(async move {
            sleep(this.delay).await;
            this.drains.send_if_modified(|drains| {
                let is_due = *drains == 0;
                if is_due {
                    drain();
                    *drains = 1;
                }
                is_due
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use tokio::time::{Instant, timeout};

    use super::*;

    const DELAY: Duration = Duration::from_secs(7);

    /// Requests to stop, and how often the hub was asked to drain.
    fn requests(delay: Duration) -> (DrainDelay, impl Fn(bool), Arc<AtomicUsize>) {
        let (requests, drains) = (DrainDelay::new(delay), Arc::<AtomicUsize>::default());
        let (requested, counted) = (requests.clone(), Arc::clone(&drains));
        let request = move |has_delay| {
            let counted = Arc::clone(&counted);
            requested.request(has_delay, move || {
                counted.fetch_add(1, SeqCst);
            });
        };
        (requests, request, drains)
    }

    #[tokio::test(start_paused = true)]
    async fn the_hub_is_not_ready_at_once_and_drains_after_the_delay() {
        let (requests, request, drains) = requests(DELAY);
        assert!(!requests.leaving().has_begun());
        request(true);
        assert!(requests.leaving().has_begun() && !requests.is_over());
        let begin = Instant::now();
        requests.clone().requested(1).await;
        assert_eq!((begin.elapsed(), drains.load(SeqCst), requests.is_over()), (DELAY, 1, true));
        // From now on a further request cuts connections.
        assert!(timeout(2 * DELAY, requests.clone().requested(2)).await.is_err());
        request(true);
        requests.requested(2).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_request_ends_the_delay_and_is_not_counted_again_when_that_is_over() {
        let (requests, request, drains) = requests(DELAY);
        let begin = Instant::now();
        request(true);
        request(true);
        requests.clone().requested(1).await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
        assert!(timeout(2 * DELAY, requests.requested(2)).await.is_err());
        assert_eq!(drains.load(SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_a_delay_drains_at_once() {
        for (delay, has_delay) in [(DELAY, false), (Duration::ZERO, true)] {
            let (requests, request, _) = requests(delay);
            let begin = Instant::now();
            request(has_delay);
            requests.clone().requested(1).await;
            assert_eq!(begin.elapsed(), Duration::ZERO);
            assert!(requests.leaving().has_begun());
        }
    }
}
