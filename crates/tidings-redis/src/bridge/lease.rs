//! Which hub of a cluster bridges: the lease holder.
//!
//! A message belongs to the hub that holds the lease when it arrives. The holder counts the time of
//! its lease from before it asked for it, and stops a tenth earlier, so it has stopped before
//! another can begin. A holder that was suspended finds that out with the first message that it
//! looks at.

use std::{sync::Mutex, time::Duration};

use tidings_log::{
    cluster::{Cluster, ClusterError, Lease},
    parts::lock,
};
use tidings_net::Spread;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// How often a hub on standby asks for the lease.
const ASK_PAUSE: Duration = Duration::from_millis(500);
/// How long releasing a lease may take; if it fails, the lease expires by itself.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(1);

/// Until when this process may bridge.
#[derive(Debug)]
pub(super) struct BridgeLease {
    until: Mutex<Instant>,
    time: Duration,
}

impl BridgeLease {
    /// A lease that has not been acquired yet.
    pub(super) fn new(time: Duration) -> Self {
        Self { until: Mutex::new(Instant::now()), time }
    }

    pub(super) fn is_held(&self) -> bool {
        Instant::now() < self.until()
    }

    fn until(&self) -> Instant {
        *lock(&self.until)
    }

    fn set(&self, until: Instant) {
        *lock(&self.until) = until;
    }

    /// The lease, as soon as it is free. `reported` receives the reason after each attempt that
    /// fails: another hub holds it, or an error.
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

    /// Renews the lease for as long as that works. When this returns, the lease is lost.
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

    /// Releases the lease, so that another hub can begin at once.
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
    async fn one_hub_holds_the_lease_until_it_stops_renewing() {
        let cluster = LocalCluster::default();
        let (one, other) = (BridgeLease::new(TIME), BridgeLease::new(TIME));
        assert!(!one.is_held());
        let lease = one.acquire(&cluster, "bridge", |_| panic!("it is free")).await;
        let mut waiting = Box::pin(other.acquire(&cluster, "bridge", |_| {}));
        tokio::select! {
            () = one.keep(&cluster, &lease) => panic!("it was lost"),
            _ = &mut waiting => panic!("there were two"),
            () = sleep(TIME * 5) => {}
        }
        // It dies: the lease is not renewed.
        let died = Instant::now();
        waiting.await;
        assert!(died.elapsed() <= TIME + ASK_PAUSE * 2, "taken over after {:?}", died.elapsed());
        assert!(!one.is_held() && other.is_held());
    }

    #[tokio::test(start_paused = true)]
    async fn a_released_lease_is_acquired_at_once() {
        let cluster = LocalCluster::default();
        let (one, other) = (BridgeLease::new(TIME), BridgeLease::new(TIME));
        let lease = one.acquire(&cluster, "bridge", |_| {}).await;
        one.release(&cluster, &lease).await;
        assert!(!one.is_held());
        other.acquire(&cluster, "bridge", |_| panic!("it is free")).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspended_holder_has_lost_its_lease() {
        let cluster = LocalCluster::default();
        let right = BridgeLease::new(TIME);
        let lease = right.acquire(&cluster, "bridge", |_| {}).await;
        tokio::time::advance(TIME * 2).await;
        assert!(!right.is_held());
        right.keep(&cluster, &lease).await;
        assert!(!right.is_held());
    }
}
