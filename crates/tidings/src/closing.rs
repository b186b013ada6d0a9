//! When subscribers end because the hub closes: all at once, or one after the other over a set
//! time.
//!
//! A hub that hands over to a new process must not send all clients there in the same moment. It
//! announces once over how long it ends, and every subscriber draws its own moment. This module has
//! no clock and no randomness: the driver of a subscriber, a pulled stream or a shard of sockets,
//! passes both in.
//!
//! Invariants: an end, once begun, is never put off; when the time is over, the hub is closed,
//! without a further call.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::jitter::FAR_AWAY;

/// How far the hub has closed.
#[derive(Default, Debug)]
pub(crate) struct Closing {
    at_once: AtomicBool,
    pace: OnceLock<Pace>,
}

#[derive(Clone, Copy, Debug)]
struct Pace {
    began: Instant,
    over: Duration,
}

impl Closing {
    /// Ends all subscribers now.
    pub(crate) fn close(&self) {
        self.at_once.store(true, Ordering::Release);
    }

    /// Ends all subscribers between `now` and `over` later. Only the first call counts.
    pub(crate) fn begin(&self, over: Duration, now: Instant) {
        let _ = self.pace.set(Pace { began: now, over: over.min(FAR_AWAY) });
    }

    /// Nothing is published any more and no subscriber is left.
    pub(crate) fn is_closed(&self, now: Instant) -> bool {
        self.at_once.load(Ordering::Acquire) || self.pace.get().is_some_and(|pace| pace.ends_at(1.0) <= now)
    }

    /// The hub is handing over: every subscriber is to draw its moment.
    pub(crate) fn has_begun(&self) -> bool {
        self.pace.get().is_some()
    }

    /// When a subscriber ends that has drawn this share of the time, from 0 to 1; `None` while the
    /// hub is not handing over. Another share gives another moment, so a subscriber asks once.
    pub(crate) fn ends_at(&self, share: f64) -> Option<Instant> {
        self.pace.get().map(|pace| pace.ends_at(share))
    }
}

impl Pace {
    fn ends_at(&self, share: f64) -> Instant {
        self.began + self.over.mul_f64(share.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVER: Duration = Duration::from_secs(10);

    #[test]
    fn each_share_of_the_time_has_its_moment_and_the_last_closes() {
        let closing = Closing::default();
        let began = Instant::now();
        assert_eq!(closing.ends_at(0.5), None);
        closing.begin(OVER, began);
        for (share, secs) in [(-1.0, 0), (0.0, 0), (0.5, 5), (1.0, 10), (2.0, 10)] {
            assert_eq!(closing.ends_at(share), Some(began + Duration::from_secs(secs)), "{share}");
        }
        assert!(!closing.is_closed(began + OVER - Duration::from_millis(1)));
        assert!(closing.is_closed(began + OVER));
    }

    #[test]
    fn an_end_is_never_put_off() {
        let closing = Closing::default();
        let began = Instant::now();
        closing.begin(OVER, began);
        closing.begin(Duration::MAX, began + OVER / 2);
        assert_eq!(closing.ends_at(1.0), Some(began + OVER));
        closing.close();
        assert!(closing.is_closed(began));
    }
}
