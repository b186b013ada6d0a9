//! How long to wait before the next attempt: the time that the server asked for, and a random part
//! on top of it. The random share is an argument.

use std::time::Duration;

use tidings_net::Spread;

/// The shortest wait, so that the client does not reconnect in a tight loop to a server that ends
/// every stream at once.
pub(crate) const DELAY_MIN: Duration = Duration::from_millis(100);
/// The longest wait that a server can ask for; a larger `retry` or Retry-After counts as this.
pub(crate) const ASKED_MAX: Duration = Duration::from_secs(60 * 60);
/// The random part of the first wait is at most this long.
pub(crate) const JITTER_FIRST: Duration = Duration::from_secs(1);
/// The random part, which doubles with every failure, never exceeds this.
pub(crate) const JITTER_MAX: Duration = Duration::from_secs(30);

/// Exponential backoff with full jitter, on top of the time that the server asked for.
#[derive(Debug)]
pub(crate) struct Backoff {
    retry: Option<Duration>,
    jitter: tidings_net::Backoff,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { retry: None, jitter: tidings_net::Backoff::new(JITTER_FIRST, JITTER_MAX).spread(Spread::FULL) }
    }
}

impl Backoff {
    /// The reconnection time, which holds until the server sends another (HTML, "Server-sent
    /// events").
    pub(crate) fn retry(&mut self, time: Duration) {
        self.retry = Some(time);
    }

    /// A stream worked: the next failure counts as the first.
    pub(crate) fn succeeded(&mut self) {
        self.jitter.succeeded();
    }

    /// The wait before the next attempt. `retry_after` is the time that the failed answer asked
    /// for, `share` a random number from 0 to 1.
    ///
    /// A `retry` field is kept exactly after a stream that worked, since a hub spreads its clients
    /// by sending each a different one. Everything else is only a lower bound, because the server
    /// asked many clients for the same time.
    pub(crate) fn delay(&mut self, retry_after: Option<Duration>, share: f64) -> Duration {
        let asked = self.retry.max(retry_after).map(|asked| asked.min(ASKED_MAX));
        let is_exact = self.jitter.failures() == 0 && self.retry.is_some() && retry_after.is_none();
        let jitter = self.jitter.failed_with(share);
        let jitter = if is_exact { Duration::ZERO } else { jitter };
        (asked.unwrap_or_default() + jitter).max(DELAY_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_random_part_doubles_up_to_its_bound() {
        let mut backoff = Backoff::default();
        for seconds in [1, 2, 4, 8, 16, 30, 30, 30] {
            assert_eq!(backoff.delay(None, 1.0), Duration::from_secs(seconds));
        }
    }

    #[test]
    fn the_random_part_may_be_anything_below_its_bound() {
        assert_eq!(Backoff::default().delay(None, 0.5), JITTER_FIRST / 2);
        assert_eq!(Backoff::default().delay(None, 0.0), DELAY_MIN);
    }

    #[test]
    fn a_retry_is_exact_after_a_working_stream_and_a_lower_bound_otherwise() {
        let mut backoff = Backoff::default();
        backoff.retry(Duration::from_secs(5));
        let asked = Duration::from_secs(5);
        assert_eq!(backoff.delay(None, 0.9), asked);
        assert_eq!(backoff.delay(None, 1.0), asked + JITTER_FIRST * 2);
        backoff.succeeded();
        assert_eq!(backoff.delay(None, 0.9), asked);
    }

    #[test]
    fn a_retry_after_is_a_lower_bound_and_spread() {
        let mut backoff = Backoff::default();
        backoff.retry(Duration::from_millis(10));
        let asked = Duration::from_secs(7);
        assert_eq!(backoff.delay(Some(asked), 1.0), asked + JITTER_FIRST);
    }

    #[test]
    fn no_server_can_ask_for_more_than_the_bound_nor_for_a_tight_loop() {
        let mut backoff = Backoff::default();
        backoff.retry(Duration::MAX);
        assert_eq!(backoff.delay(None, 0.0), ASKED_MAX);
        let mut backoff = Backoff::default();
        backoff.retry(Duration::ZERO);
        assert_eq!(backoff.delay(None, 0.0), DELAY_MIN);
    }
}
