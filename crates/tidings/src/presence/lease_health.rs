//! Whether what a hub does not see is gone, or only forgotten.
//!
//! While the cluster is away nobody can say that it lives, and afterwards everybody's time may be up. So hubs believe that another one is gone only if the cluster
//! has received *them* all the time, for as long as anything holds. No clock here: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

use super::announce::{EVERY, HOLDS_FOR};

/// A pause between two answers from which on others may have been unable to say that they live: less than what is between the last time that
/// somebody says it in time, and the end of that time.
const PAUSE_MAX: Duration = Duration::from_secs(9);
const _: () = assert!(PAUSE_MAX.as_secs() > EVERY.as_secs());
const _: () = assert!(PAUSE_MAX.as_secs() < HOLDS_FOR.as_secs() - EVERY.as_secs());

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LeaseHealth {
    received_at: Option<Instant>,
    /// Until then the others are given time to say again what was forgotten.
    wary_until: Option<Instant>,
    /// The cluster does not know this hub, which has to say again that it lives.
    is_forgotten: bool,
}

impl LeaseHealth {
    /// The cluster has received this hub. False if that was not so for a while.
    pub(super) fn received(&mut self, now: Instant) -> bool {
        let is_steady = self.received_at.is_none_or(|before| now <= before + PAUSE_MAX);
        self.received_at = Some(now);
        self.is_forgotten = false;
        if !is_steady {
            self.wary_until = Some(now + HOLDS_FOR);
        }
        is_steady
    }

    /// The cluster does not know this hub any more: it may have forgotten others, too.
    pub(super) fn forgot(&mut self, now: Instant) {
        self.wary_until = Some(now + HOLDS_FOR);
        self.is_forgotten = true;
    }

    pub(super) fn is_forgotten(&self) -> bool {
        self.is_forgotten
    }

    /// Whether what is not seen is gone.
    pub(super) fn is_healthy(&self, now: Instant) -> bool {
        self.received_at.is_some_and(|received_at| now <= received_at + PAUSE_MAX)
            && self.wary_until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_an_outage_the_others_have_time_to_say_that_they_live() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut health = LeaseHealth::default();
        assert!(!health.is_healthy(at(0)), "nothing was received");
        assert!(health.received(at(0)) && health.is_healthy(at(0)));
        assert!(health.received(at(5)) && health.received(at(14)) && health.is_healthy(at(23)));
        assert!(!health.is_healthy(at(24)), "the cluster may be away");
        assert!(!health.received(at(60)));
        assert!(health.received(at(65)) && health.received(at(70)));
        assert!(!health.is_healthy(at(74)));
        assert!(health.is_healthy(at(75)));
        health.forgot(at(75));
        assert!(!health.is_healthy(at(75)) && health.is_forgotten());
        assert!(health.received(at(75)) && !health.is_forgotten());
    }
}
