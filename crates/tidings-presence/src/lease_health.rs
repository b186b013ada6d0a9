//! Whether a key that a hub does not see is gone, or only forgotten by the cluster.
//!
//! While the cluster is unreachable no hub can renew its mark, and afterwards all marks may have
//! expired. So a hub believes that another one is gone only if the cluster has accepted *its own*
//! renewals all the time, for as long as a mark is kept. This module has no clock: time is an
//! argument.

use std::time::Duration;

use tokio::time::Instant;

use crate::membership::{EVERY, HOLDS_FOR};

/// A pause between two answers from which on other hubs may have been unable to renew their marks:
/// less than the time between the last renewal that is in time and the expiry of the mark.
const PAUSE_MAX: Duration = Duration::from_secs(9);
const _: () = assert!(PAUSE_MAX.as_secs() > EVERY.as_secs());
const _: () = assert!(PAUSE_MAX.as_secs() < HOLDS_FOR.as_secs() - EVERY.as_secs());

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LeaseHealth {
    received_at: Option<Instant>,
    /// Until then the other hubs have time to publish again what was forgotten.
    unhealthy_until: Option<Instant>,
    /// The cluster does not know this hub, which has to renew its mark.
    is_forgotten: bool,
}

impl LeaseHealth {
    /// The cluster has answered this hub. False if it had not for a while.
    pub(crate) fn received(&mut self, now: Instant) -> bool {
        let is_steady = self.received_at.is_none_or(|before| now <= before + PAUSE_MAX);
        self.received_at = Some(now);
        self.is_forgotten = false;
        if !is_steady {
            self.unhealthy_until = Some(now + HOLDS_FOR);
        }
        is_steady
    }

    /// The cluster does not know this hub any more: it may have forgotten others, too.
    pub(crate) fn forgot(&mut self, now: Instant) {
        self.unhealthy_until = Some(now + HOLDS_FOR);
        self.is_forgotten = true;
    }

    pub(crate) fn is_forgotten(&self) -> bool {
        self.is_forgotten
    }

    /// Whether a key that is not seen is gone.
    pub(crate) fn is_healthy(&self, now: Instant) -> bool {
        self.received_at.is_some_and(|received_at| now <= received_at + PAUSE_MAX)
            && self.unhealthy_until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_an_outage_other_hubs_have_time_to_renew_their_marks() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut health = LeaseHealth::default();
        assert!(!health.is_healthy(at(0)), "nothing was received");
        assert!(health.received(at(0)) && health.is_healthy(at(0)));
        assert!(health.received(at(5)) && health.received(at(14)) && health.is_healthy(at(23)));
        assert!(!health.is_healthy(at(24)), "the cluster may be unreachable");
        assert!(!health.received(at(60)));
        assert!(health.received(at(65)) && health.received(at(70)));
        assert!(!health.is_healthy(at(74)));
        assert!(health.is_healthy(at(75)));
        health.forgot(at(75));
        assert!(!health.is_healthy(at(75)) && health.is_forgotten());
        assert!(health.received(at(75)) && !health.is_forgotten());
    }
}
