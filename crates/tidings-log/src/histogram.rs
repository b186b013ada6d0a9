//! Durations counted by length, for metrics.
//!
//! A [`Histogram`] is a fixed number of counters: any number of threads record into it without a
//! lock, and its memory does not grow. All histograms have the same buckets, so that they can be
//! compared.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The upper bounds of the buckets, each inclusive. One more bucket takes what is longer.
pub const BUCKETS: [Duration; 16] = [
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(10),
];

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS.len() + 1],
    sum_nanos: AtomicU64,
}

/// What a [`Histogram`] had recorded at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recorded {
    /// How many durations each of the [buckets](BUCKETS) has, and then how many are longer. Not
    /// cumulative.
    pub counts: [u64; BUCKETS.len() + 1],
    /// The sum of all durations. After 584 years it begins at 0 again.
    pub sum: Duration,
}

impl Histogram {
    /// Counts a duration.
    pub fn record(&self, duration: Duration) {
        let bucket = BUCKETS.partition_point(|bound| *bound < duration);
        // Relaxed is enough: these count and order nothing else.
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What was recorded up to now. A duration that is being recorded may be in one of the numbers
    /// and not yet in the other.
    pub fn recorded(&self) -> Recorded {
        Recorded {
            counts: std::array::from_fn(|bucket| self.counts[bucket].load(Ordering::Relaxed)),
            sum: Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed)),
        }
    }
}

impl Recorded {
    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_that_it_does_not_exceed() {
        for (duration, bucket) in [
            (Duration::ZERO, 0),
            (BUCKETS[0], 0),
            (BUCKETS[0] + Duration::from_nanos(1), 1),
            (Duration::from_millis(3), 6),
            (BUCKETS[15], 15),
            (Duration::MAX, 16),
        ] {
            let histogram = Histogram::default();
            histogram.record(duration);
            let recorded = histogram.recorded();
            assert_eq!(recorded.counts.iter().position(|count| *count == 1), Some(bucket), "{duration:?}");
            assert_eq!(recorded.count(), 1);
        }
        assert!(BUCKETS.is_sorted());
    }

    #[test]
    fn the_sum_is_that_of_all_durations() {
        let histogram = Histogram::default();
        for micros in [1, 20, 300_000] {
            histogram.record(Duration::from_micros(micros));
        }
        assert_eq!(histogram.recorded().sum, Duration::from_micros(300_021));
    }
}
