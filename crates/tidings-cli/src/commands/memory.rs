//! When to give freed memory back to the system: after many have come or gone at once, as soon as that is over.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tidings_server::ConnectionMetrics;
use tokio::time::{MissedTickBehavior, interval};

/// How often to look.
const LOOK: Duration = Duration::from_secs(1);
/// Connections that have come and gone since memory was last given back, from which on it is worth the milliseconds.
const MANY: u64 = 1_000;
/// Connections that come and go between two looks while things are calm.
const CALM_MAX: u64 = 100;

/// Looks for ever.
pub(super) async fn give_back_when_calm(metrics: Arc<ConnectionMetrics>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch::default();
    loop {
        looks.tick().await;
        let accepted = metrics.accepted.load(Relaxed);
        let ended = accepted.saturating_sub(metrics.open.load(Relaxed));
        if watch.is_due(accepted + ended) {
            // Not on a thread that serves; without one to spare, the next storm will bring another chance.
            let _ = tokio::task::spawn_blocking(tidings_heap::give_back).await;
        }
    }
}

/// What was seen at the last look, and when memory was last given back.
#[derive(Default)]
struct Watch {
    seen: u64,
    given_back: u64,
}

impl Watch {
    /// Whether now is the time; `moves` is how many connections have come and gone so far.
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
    fn a_steady_coming_and_going_gives_back_now_and_then() {
        let mut watch = Watch::default();
        let times: Vec<u64> = (0..=5_000).step_by(50).filter(|moves| watch.is_due(*moves)).collect();
        assert_eq!(times, [1_000, 2_000, 3_000, 4_000, 5_000]);
    }
}
