//! Times, counted in buckets that are never wider than 1/64 of the time itself.

/// Buckets per doubling.
const STEPS: u64 = 64;
const STEPS_BITS: u32 = STEPS.ilog2();
/// Every 64-bit number has a bucket.
const BUCKETS: usize = (64 - STEPS_BITS as usize + 1) << STEPS_BITS;

/// How often which time was seen, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }
}

impl Histogram {
    #[inline]
    pub(crate) fn record(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The time that this share of all times does not exceed, rounded up to the end of its bucket.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return last_of(bucket).min(self.max);
            }
        }
        self.max
    }

    pub(crate) fn max(&self) -> u64 {
        self.max
    }
}

/// Below `STEPS` each number has its own bucket; above, the leading bits decide.
#[inline]
#[expect(clippy::cast_possible_truncation)]
fn bucket(nanos: u64) -> usize {
    let shift = (nanos | STEPS).ilog2() - STEPS_BITS;
    (u64::from(shift) * STEPS + (nanos >> shift)) as usize
}

fn last_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / STEPS).saturating_sub(1);
    let first = (bucket - shift * STEPS) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_no_wider_than_a_sixty_fourth() {
        for power in 0..63 {
            for nanos in [1 << power, (1 << power) + 1, (1_u64 << power) * 3 / 2, (1_u64 << power) - 1] {
                let last = last_of(bucket(nanos));
                assert!(last >= nanos, "{nanos}: {last}");
                assert!(last - nanos <= nanos / STEPS, "{nanos}: {last}");
            }
        }
        assert_eq!(last_of(bucket(u64::MAX)), u64::MAX);
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_times() {
        let mut histogram = Histogram::default();
        for nanos in (1..=1000_u64).rev() {
            histogram.record(nanos * 1000);
        }
        for (share, expected) in [(0.5, 500_000), (0.99, 990_000), (0.999, 999_000), (1.0, 1_000_000)] {
            let found = histogram.quantile(share);
            assert!(found.abs_diff(expected) <= expected / STEPS, "{share}: {found}");
        }
        assert_eq!(histogram.max(), 1_000_000);
    }
}
