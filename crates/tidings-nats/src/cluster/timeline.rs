//! The server's clock, translated into ours.
//!
//! A probe that was sent at one moment and acknowledged at another was stamped by the server in
//! between. Each probe narrows the difference of the clocks. Where they may still differ, a moment
//! of the server counts as early as it can have been: a lease holder counts from before it asked,
//! so no process holds a lease longer than others believe.

use std::time::Duration;

use tokio::time::Instant;

/// How much the difference of the clocks may grow with each probe: neither runs evenly.
const DRIFT: i128 = 1_000_000;

/// See the [module documentation](self).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeline {
    origin: Instant,
    /// The least and the most to add to the server's nanoseconds to get ours since the origin.
    bounds: Option<(i128, i128)>,
}

impl Timeline {
    pub(crate) fn new(origin: Instant) -> Self {
        Self { origin, bounds: None }
    }

    /// The server stamped this between these moments.
    pub(crate) fn learn(&mut self, sent: Instant, nanos: u64, acknowledged: Instant) {
        let since = |instant: Instant| {
            i128::try_from(instant.duration_since(self.origin).as_nanos()).unwrap_or(i128::MAX)
                - i128::from(nanos)
        };
        let (least, most) = (since(sent), since(acknowledged));
        let narrowed = self.bounds.map(|(low, high)| ((low - DRIFT).max(least), (high + DRIFT).min(most)));
        // When a clock was set, what was learned before is worthless.
        self.bounds = Some(narrowed.filter(|(low, high)| low <= high).unwrap_or((least, most)));
    }

    /// Our time for a moment of the server's, as early as it can have been. Everything before the
    /// origin is the origin.
    pub(crate) fn instant(&self, nanos: u64) -> Instant {
        let Some((least, _)) = self.bounds else { return self.origin };
        let since_origin = (i128::from(nanos) + least).max(0);
        self.origin + Duration::from_nanos(u64::try_from(since_origin).unwrap_or(u64::MAX / 2))
    }

    /// When a value that the server stamped at a moment, and that holds for some time, expires. A
    /// value from before the origin may have expired by then.
    pub(crate) fn end(&self, nanos: u64, time: Duration) -> Option<Instant> {
        let (least, _) = self.bounds?;
        let end = i128::from(nanos) + least + i128::try_from(time.as_nanos()).unwrap_or(i128::MAX / 4);
        let end = u64::try_from(end).ok()?;
        Some(self.origin + Duration::from_nanos(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_probe_narrows_down_how_far_the_clocks_are_apart() {
        let origin = Instant::now();
        let at = |millis| origin + Duration::from_millis(millis);
        let mut timeline = Timeline::new(origin);
        // The server's clock shows 1,000 seconds at our origin.
        let server = |millis: u64| 1_000_000_000_000 + millis * 1_000_000;
        timeline.learn(at(100), server(150), at(900));
        assert_eq!(timeline.instant(server(150)), at(100));
        timeline.learn(at(1_000), server(1_001), at(1_002));
        let early = at(2_000) - timeline.instant(server(2_000));
        assert!(early <= Duration::from_millis(2), "{early:?}");
        assert_eq!(timeline.end(server(2_000), Duration::from_secs(5)), Some(at(7_000) - early));
        assert_eq!(
            timeline.end(server(0) - 10_000_000_000, Duration::from_secs(5)),
            None,
            "over before the origin"
        );
    }

    #[test]
    fn a_clock_that_was_set_is_measured_again() {
        let origin = Instant::now();
        let at = |millis| origin + Duration::from_millis(millis);
        let mut timeline = Timeline::new(origin);
        timeline.learn(at(0), 5_000_000_000, at(1));
        timeline.learn(at(1_000), 90_000_000_000, at(1_001));
        assert_eq!(timeline.instant(90_000_000_000), at(1_000));
    }
}
