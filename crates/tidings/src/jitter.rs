//! Spreading what would otherwise happen to everybody at once.

use std::time::Duration;

use tidings_topic::Validator;

/// About a hundred years: longer than any stream lives. What is later than that is as good as never, and overflows no clock.
pub(crate) const FAR_AWAY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Between 75 % and 100 % of a duration, so that what began together does not act together.
pub(crate) fn jittered(duration: Duration) -> Duration {
    duration.min(FAR_AWAY).mul_f64(0.75 + 0.25 * random_share())
}

/// Between 50 % and 150 %: how long a browser waits before it reconnects, spread so that a restart is not followed by a stampede.
pub(crate) fn jittered_millis(millis: u64) -> u64 {
    let duration = Duration::from_millis(millis).mul_f64(0.5 + random_share());
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(Validator::RETRY_MILLIS_MAX)
}

/// A random number from 0 to 1. Where the system has no randomness, 0.5: jitter is then lost, and nothing else.
pub(crate) fn random_share() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_together_does_not_act_together() {
        let times: Vec<_> = (0..100).map(|_| jittered(Duration::from_secs(100)).as_secs()).collect();
        assert!(times.iter().all(|secs| (75..=100).contains(secs)), "{times:?}");
        assert!(times.iter().min() < times.iter().max(), "{times:?}");
    }

    #[test]
    fn browsers_do_not_all_come_back_in_the_same_moment() {
        let times: Vec<_> = (0..100).map(|_| jittered_millis(1_000)).collect();
        assert!(times.iter().all(|millis| (500..=1_500).contains(millis)), "{times:?}");
        assert!(
            times.iter().any(|millis| *millis < 900) && times.iter().any(|millis| *millis > 1_100),
            "{times:?}"
        );
        assert!(jittered_millis(u64::MAX) <= Validator::RETRY_MILLIS_MAX);
    }
}
