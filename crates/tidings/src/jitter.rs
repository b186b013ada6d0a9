//! Spreads what would otherwise happen to all clients at once.

use std::time::Duration;

use tidings_net::Spread;
use tidings_topic::Validator;

pub(crate) use tidings_net::{FAR_AWAY, random_share};

/// Between 75 % and 100 % of a duration, so that what began together does not act together.
pub(crate) fn jittered(duration: Duration) -> Duration {
    Spread::QUARTER.of(duration)
}

/// Between 50 % and 150 %: how long a browser waits before it reconnects, spread so that a restart
/// does not cause a stampede.
pub(crate) fn jittered_millis(millis: u64) -> u64 {
    let spread = Spread::AROUND.of(Duration::from_millis(millis)).as_millis();
    u64::try_from(spread)
        .map_or(Validator::RETRY_MILLIS_MAX, |millis| millis.min(Validator::RETRY_MILLIS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jittered_retry_never_exceeds_the_publishers_maximum() {
        assert!(jittered_millis(u64::MAX) <= Validator::RETRY_MILLIS_MAX);
    }
}
