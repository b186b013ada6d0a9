//! Whether what a hub does not see is gone, or only forgotten.
//!
//! While the cluster is away nobody can say that it lives, and afterwards everybody's time may be up. So hubs believe that another one is gone only if the cluster
//! has heard *them* all the time, for as long as anything holds. No clock here: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

use super::announce::{EVERY, HOLDS_FOR};

/// A pause between two answers from which on others may have been unable to say that they live: less than what is between the last time that
/// somebody says it in time, and the end of that time.
const PAUSE_MAX: Duration = Duration::from_secs(9);
const _: () = assert!(PAUSE_MAX.as_secs() > EVERY.as_secs());
const _: () = assert!(PAUSE_MAX.as_secs() < HOLDS_FOR.as_secs() - EVERY.as_secs());

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trust {
    heard_at: Option<Instant>,
    /// Until then the others are given time to say again what was forgotten.
    wary_until: Option<Instant>,
    /// The cluster does not know this hub, which has to say again that it lives.
    is_forgotten: bool,
}

impl Trust {
    /// The cluster has heard this hub. False if that was not so for a while.
    pub(super) fn heard(&mut self, now: Instant) -> bool {
        let is_steady = self.heard_at.is_none_or(|before| now <= before + PAUSE_MAX);
        self.heard_at = Some(now);
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
    pub(super) fn is_firm(&self, now: Instant) -> bool {
        self.heard_at.is_some_and(|heard_at| now <= heard_at + PAUSE_MAX)
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
        let mut trust = Trust::default();
        assert!(!trust.is_firm(at(0)), "nothing was heard");
        assert!(trust.heard(at(0)) && trust.is_firm(at(0)));
        assert!(trust.heard(at(5)) && trust.heard(at(14)) && trust.is_firm(at(23)));
        assert!(!trust.is_firm(at(24)), "the cluster may be away");
        assert!(!trust.heard(at(60)));
        assert!(trust.heard(at(65)) && trust.heard(at(70)));
        assert!(!trust.is_firm(at(74)));
        assert!(trust.is_firm(at(75)));
        trust.forgot(at(75));
        assert!(!trust.is_firm(at(75)) && trust.is_forgotten());
        assert!(trust.heard(at(75)) && !trust.is_forgotten());
    }
}
