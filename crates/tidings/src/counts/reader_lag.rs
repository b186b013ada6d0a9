//! How far subscribers are behind: a survey of each shard, made in its sweep.

use std::sync::Mutex;

use tidings_log::parts::lock;

/// How many subscribers are behind by how many bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LagSurvey {
    /// How many are behind by less than one byte, and by less than each power of two.
    by_magnitude: [u32; MAGNITUDES],
    bytes_max: u64,
    stalled: u32,
}

/// One for zero, and one for each bit of a number.
const MAGNITUDES: usize = 65;

/// The share of the subscribers that are behind by no more than [`ReaderLag::p99_bytes`].
const QUANTILE: f64 = 0.99;

/// How far the subscribers of all shards are behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReaderLag {
    /// The one that is furthest behind lacks so many bytes.
    pub worst_bytes: u64,
    /// 99 of 100 lack at most so many bytes, rounded up to a power of two.
    pub p99_bytes: u64,
    /// How many have a socket that accepts nothing at present.
    pub stalled: u64,
}

impl Default for LagSurvey {
    fn default() -> Self {
        Self { by_magnitude: [0; MAGNITUDES], bytes_max: 0, stalled: 0 }
    }
}

impl LagSurvey {
    /// Adds a subscriber that lacks so many bytes.
    pub(crate) fn add(&mut self, bytes: u64, is_stalled: bool) {
        let magnitude = bytes.checked_ilog2().map_or(0, |bits| bits as usize + 1);
        self.by_magnitude[magnitude] += 1;
        self.bytes_max = self.bytes_max.max(bytes);
        self.stalled += u32::from(is_stalled);
    }
}

/// The last survey of each shard.
#[derive(Debug, Default)]
pub(crate) struct ReaderLags(Mutex<Vec<LagSurvey>>);

impl ReaderLags {
    /// A shard has made a survey.
    pub(crate) fn put(&self, shard: usize, survey: LagSurvey) {
        let mut surveys = lock(&self.0);
        if surveys.len() <= shard {
            surveys.resize_with(shard + 1, LagSurvey::default);
        }
        surveys[shard] = survey;
    }

    /// What all shards have found together.
    pub(crate) fn all(&self) -> ReaderLag {
        let surveys = lock(&self.0);
        let worst_bytes = surveys.iter().map(|survey| survey.bytes_max).max().unwrap_or_default();
        let stalled = surveys.iter().map(|survey| u64::from(survey.stalled)).sum();
        let with = |magnitude: usize| -> u64 {
            surveys.iter().map(|survey| u64::from(survey.by_magnitude[magnitude])).sum()
        };
        let total: u64 = (0..MAGNITUDES).map(with).sum();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a process has fewer subscribers than a double has exact integers"
        )]
        let within = (total as f64 * QUANTILE).ceil() as u64;
        let mut counted = 0;
        let magnitude = (0..MAGNITUDES).find(|magnitude| {
            counted += with(*magnitude);
            counted >= within
        });
        let magnitude = u32::try_from(magnitude.unwrap_or_default()).expect("at most 64");
        let below = 1_u64.checked_shl(magnitude).unwrap_or(u64::MAX);
        let p99_bytes = if magnitude == 0 { 0 } else { below.min(worst_bytes) };
        ReaderLag { worst_bytes, p99_bytes, stalled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(lags: impl IntoIterator<Item = u64>) -> LagSurvey {
        let mut survey = LagSurvey::default();
        for bytes in lags {
            survey.add(bytes, bytes > 1_000);
        }
        survey
    }

    #[test]
    fn the_worst_and_the_99th_percentile_are_of_all_shards_together() {
        let lags = ReaderLags::default();
        assert_eq!(lags.all(), ReaderLag::default(), "there is no shard yet");
        lags.put(1, survey((0..99).map(|_| 100)));
        assert_eq!(lags.all(), ReaderLag { worst_bytes: 100, p99_bytes: 100, stalled: 0 });
        lags.put(0, survey([5_000_000]));
        assert_eq!(lags.all(), ReaderLag { worst_bytes: 5_000_000, p99_bytes: 128, stalled: 1 });
        lags.put(0, survey([5_000_000, 2_000]));
        assert_eq!(lags.all(), ReaderLag { worst_bytes: 5_000_000, p99_bytes: 2_048, stalled: 2 });
        lags.put(1, LagSurvey::default());
        assert_eq!(lags.all(), ReaderLag { worst_bytes: 5_000_000, p99_bytes: 5_000_000, stalled: 2 });
        lags.put(0, survey([0, u64::MAX]));
        assert_eq!(lags.all().p99_bytes, u64::MAX);
        lags.put(0, survey([0; 1_000]));
        assert_eq!(lags.all(), ReaderLag::default(), "all have everything");
    }
}
