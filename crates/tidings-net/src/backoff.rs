//! How long to wait: delays that double with each failure, and random spreads, so that clients that
//! lost the same server do not all reconnect at the same moment.
//!
//! A loop that retries keeps a connection with state of its own, so it needs only the next delay;
//! crates such as backon wrap a single call, and add jitter to retries only, upwards. Here the same
//! spreads apply to heartbeats, lifetimes and the retry times that browsers are given.

use std::time::Duration;

/// About a hundred years: longer than any process runs. Longer times are clamped to this, so that
/// no clock overflows.
pub const FAR_AWAY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How a time is randomized: the least and the greatest share of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    least: f64,
    most: f64,
}

impl Spread {
    /// The exact time: where no other client waits for the same thing.
    pub const NONE: Self = Self { least: 1.0, most: 1.0 };
    /// From zero to the full time: where many clients wait for the same server, and an early
    /// attempt costs little.
    pub const FULL: Self = Self { least: 0.0, most: 1.0 };
    /// From half to the full time: retries keep their delay and their limit.
    pub const HALF: Self = Self { least: 0.5, most: 1.0 };
    /// From three quarters to the full time: for a limit that must hold.
    pub const QUARTER: Self = Self { least: 0.75, most: 1.0 };
    /// From half to one and a half times the time: keeps the average.
    pub const AROUND: Self = Self { least: 0.5, most: 1.5 };

    /// A random time.
    pub fn of(self, time: Duration) -> Duration {
        self.at(time, random_share())
    }

    /// The time at a share from 0 to 1.
    pub fn at(self, time: Duration, share: f64) -> Duration {
        time.min(FAR_AWAY).mul_f64(self.least + (self.most - self.least) * share)
    }
}

/// The delay before the next attempt, which doubles with each failure.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    spread: Spread,
    failures: u32,
}

impl Backoff {
    /// Delays from `first` to `longest`, each spread by [`Spread::HALF`].
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, spread: Spread::HALF, failures: 0 }
    }

    /// The same delays with another spread.
    #[must_use]
    pub const fn spread(self, spread: Spread) -> Self {
        Self { spread, ..self }
    }

    /// Records a failed attempt. Returns how long to wait before the next one.
    pub fn failed(&mut self) -> Duration {
        self.failed_with(random_share())
    }

    /// [`failed`](Self::failed) with a random share from 0 to 1 that the caller supplies.
    pub fn failed_with(&mut self, share: f64) -> Duration {
        let doubled = self.first.saturating_mul(2u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        self.spread.at(doubled.min(self.longest), share)
    }

    /// Records a successful attempt: the next failure counts as the first.
    pub const fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// How many attempts have failed since the last one that succeeded.
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

/// A random number from 0 to 1. If the system has no randomness, 0.5: times are then not spread,
/// which is better than a process that ends.
pub fn random_share() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn delays_double_to_a_maximum_and_reset_after_a_success() {
        let mut backoff = Backoff::new(SECOND, 30 * SECOND);
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(backoff.failed_with(1.0), seconds * SECOND);
        }
        assert_eq!(backoff.failures(), 7);
        backoff.succeeded();
        assert_eq!((backoff.failures(), backoff.failed_with(0.0)), (0, SECOND / 2));
        backoff.failures = u32::MAX;
        assert_eq!(backoff.failed_with(1.0), 30 * SECOND);
        assert_eq!(Backoff::new(SECOND, SECOND).spread(Spread::FULL).failed_with(0.0), Duration::ZERO);
    }

    #[test]
    fn a_spread_keeps_its_bounds_and_uses_them() {
        for (spread, least, most) in [
            (Spread::FULL, 0, 100),
            (Spread::HALF, 50, 100),
            (Spread::QUARTER, 75, 100),
            (Spread::AROUND, 50, 150),
        ] {
            assert_eq!(
                [0.0, 1.0].map(|share| spread.at(100 * SECOND, share)),
                [least * SECOND, most * SECOND]
            );
            let drawn: Vec<_> = (0..100).map(|_| spread.of(100 * SECOND)).collect();
            assert!(drawn.iter().all(|time| (least * SECOND..=most * SECOND).contains(time)), "{drawn:?}");
            assert!(drawn.iter().min() < drawn.iter().max(), "{drawn:?}");
        }
        assert!(Spread::AROUND.of(Duration::MAX) <= FAR_AWAY * 2);
    }
}
