//! Which hub of a cluster bridges: the one with the lease.
//!
//! A message belongs to the one that has the lease when it comes. The holder counts the time of its lease from before it asked for it, and stops a tenth
//! earlier, so it has stopped before another can begin. A holder that was asleep finds that out with the first message that it looks at.

use std::{sync::Mutex, time::Duration};

use tidings_log::cluster::{Cluster, ClusterError, Lease};
use tidings_net::Spread;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// How often one that stands by asks for the lease.
const ASK_PAUSE: Duration = Duration::from_millis(500);
/// How long giving a lease back may take; if it does not work, the time of the lease passes.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(1);

/// Until when this process may bridge.
#[derive(Debug)]
pub(super) struct BridgeLease {
    until: Mutex<Instant>,
    time: Duration,
}

impl BridgeLease {
    /// A right that nobody has given yet.
    pub(super) fn new(time: Duration) -> Self {
        Self { until: Mutex::new(Instant::now()), time }
    }

    pub(super) fn is_held(&self) -> bool {
        Instant::now() < self.until()
    }

    fn until(&self) -> Instant {
        *self.until.lock().expect("nothing panics while it holds this")
    }

    fn set(&self, until: Instant) {
        *self.until.lock().expect("nothing panics while it holds this") = until;
    }

    /// The lease, as soon as nobody else has it. `reported` receives after each attempt that did not succeed why: because another has it, or because of
    /// an error.
    pub(super) async fn acquire(
        &self,
        cluster: &dyn Cluster,
        key: &str,
        mut reported: impl FnMut(Option<ClusterError>),
    ) -> Lease {
        loop {
            let asked = Instant::now();
            match cluster.acquire(key, self.time).await {
                Ok(Some(lease)) => {
                    self.set(self.end_of(asked));
                    return lease;
                }
                Ok(None) => reported(None),
                Err(error) => reported(Some(error)),
            }
            sleep(Spread::AROUND.of(ASK_PAUSE)).await;
        }
    }

    /// Renews the lease for as long as that works. When this returns, the right is lost.
    pub(super) async fn keep(&self, cluster: &dyn Cluster, lease: &Lease) {
        loop {
            sleep_until((Instant::now() + self.time / 3).min(self.until())).await;
            let asked = Instant::now();
            match timeout_at(self.until(), cluster.renew(lease, self.time)).await {
                Ok(Ok(true)) => self.set(self.end_of(asked)),
                // The time is not up yet: the cluster may come back before it is.
                Ok(Err(_)) if self.is_held() => {}
                _ => return self.set(asked),
            }
        }
    }

    /// Gives the lease back, so that another can begin at once.
    pub(super) async fn release(&self, cluster: &dyn Cluster, lease: &Lease) {
        self.set(Instant::now());
        let _ = timeout_at(Instant::now() + RELEASE_TIME_MAX, cluster.release(lease)).await;
    }

    fn end_of(&self, asked: Instant) -> Instant {
        asked + self.time.mul_f64(0.9)
    }
}

#[cfg(test)]
mod tests {
    use tidings_log::cluster::LocalCluster;

    use super::*;

    const TIME: Duration = Duration::from_secs(6);

    #[tokio::test(start_paused = true)]
    async fn one_holds_it_until_it_stops_renewing_and_no_two_at_any_time() {
        let cluster = LocalCluster::default();
        let (one, other) = (BridgeLease::new(TIME), BridgeLease::new(TIME));
        assert!(!one.is_held());
        let lease = one.acquire(&cluster, "bridge", |_| panic!("nobody has it")).await;
        let mut waiting = Box::pin(other.acquire(&cluster, "bridge", |_| {}));
        tokio::select! {
            () = one.keep(&cluster, &lease) => panic!("it was lost"),
            _ = &mut waiting => panic!("there were two"),
            () = sleep(TIME * 5) => {}
        }
        // It dies: nobody renews.
        let died = Instant::now();
        waiting.await;
        assert!(died.elapsed() <= TIME + ASK_PAUSE * 2, "taken over after {:?}", died.elapsed());
        assert!(!one.is_held() && other.is_held());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_given_back_is_taken_at_once() {
        let cluster = LocalCluster::default();
        let (one, other) = (BridgeLease::new(TIME), BridgeLease::new(TIME));
        let lease = one.acquire(&cluster, "bridge", |_| {}).await;
        one.release(&cluster, &lease).await;
        assert!(!one.is_held());
        other.acquire(&cluster, "bridge", |_| panic!("it is free")).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_slept_has_lost_it() {
        let cluster = LocalCluster::default();
        let right = BridgeLease::new(TIME);
        let lease = right.acquire(&cluster, "bridge", |_| {}).await;
        tokio::time::advance(TIME * 2).await;
        assert!(!right.is_held());
        right.keep(&cluster, &lease).await;
        assert!(!right.is_held());
    }
}
