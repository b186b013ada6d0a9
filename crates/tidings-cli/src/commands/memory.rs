//! When to return freed memory to the system: after a burst of connects or disconnects, once it is
//! over.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tidings_server::ConnectionMetrics;
use tokio::time::{MissedTickBehavior, interval};

/// The interval of checks.
const LOOK: Duration = Duration::from_secs(1);
/// Connects and disconnects since memory was last returned that make another return worth its
/// milliseconds.
const MANY: u64 = 1_000;
/// Connects and disconnects between two checks of a calm hub.
const CALM_MAX: u64 = 100;

/// Returns memory when it is worth it. Never completes.
pub(super) async fn give_back_when_calm(metrics: Arc<ConnectionMetrics>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch::default();
    loop {
        looks.tick().await;
        let accepted = metrics.accepted.load(Relaxed);
        let ended = accepted.saturating_sub(metrics.open.load(Relaxed));
        if watch.is_due(accepted + ended) {
            // Not on a thread that serves. If no other thread can start, a later check tries again.
            let _ = tokio::task::spawn_blocking(tidings_heap::give_back).await;
        }
    }
}

/// The number of connects and disconnects at the last check, and when memory was last returned.
#[derive(Default)]
struct Watch {
    seen: u64,
    given_back: u64,
}

impl Watch {
    /// Whether to return memory now; `moves` is the number of connects and disconnects so far.
    fn is_due(&mut self, moves: u64) -> bool {
        let is_calm = moves - self.seen <= CALM_MAX;
        self.seen = moves;
        let is_due = is_calm && moves - self.given_back >= MANY;
        if is_due {
            self.given_back = moves;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_a_storm_is_over() {
        let mut watch = Watch::default();
        let looks =
            [(0, false), (900, false), (5_000, false), (15_000, false), (15_050, true), (15_050, false)];
        for (moves, expected) in looks {
            assert_eq!(watch.is_due(moves), expected, "{moves}");
        }
    }

    #[test]
    fn memory_is_given_back_at_times_under_steady_churn() {
        let mut watch = Watch::default();
        let times: Vec<u64> = (0..=5_000).step_by(50).filter(|moves| watch.is_due(*moves)).collect();
        assert_eq!(times, [1_000, 2_000, 3_000, 4_000, 5_000]);
    }
}
