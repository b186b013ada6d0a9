//! What a metric is: its description, and where its values come from.

use std::time::Duration;

use prometheus_client::metrics::MetricType;
use tidings::log::histogram::{BUCKETS, Histogram, Recorded};

use super::{labels::Label, sources::Sources};

/// One metric, with everything that a scrape and the reference say about it.
#[derive(Debug)]
pub(super) struct Metric {
    /// The name of its samples in the text format of Prometheus: with the unit, and with `_total`
    /// if it is a counter.
    pub(super) name: &'static str,
    /// What it measures: one sentence.
    pub(super) help: &'static str,
    /// What an operator does with it.
    pub(super) action: &'static str,
    pub(super) reading: Reading,
}

/// How the values of a metric are read at a scrape: none at all where the system or the configuration
/// has nothing to measure.
#[derive(Debug)]
pub(super) enum Reading {
    /// The one sample of a metric without labels.
    One(fn(&Sources) -> Vec<Sample>),
    /// One sample for each combination of the values of these labels, the last label varying fastest.
    /// No client chooses a value.
    Each(&'static [Label], fn(&Sources) -> Vec<Sample>),
    /// The same for histograms.
    Histograms(&'static [Label], fn(&Sources) -> Vec<Sample>),
    /// One sample for each [`Component`](crate::Component) of this kind, whose name is the value of
    /// the label that is named like the kind.
    Component(&'static str),
}

/// The value of one series.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Sample {
    Whole(u64),
    Real(f64),
    /// The sum of all observations, and how many there were up to each bound and above the bound
    /// before. The last bound is infinite.
    Buckets {
        sum: f64,
        counts: Vec<(f64, u64)>,
    },
}

impl Metric {
    pub(super) fn kind(&self) -> MetricType {
        match self.reading {
            Reading::Histograms(..) => MetricType::Histogram,
            _ if self.name.ends_with("_total") => MetricType::Counter,
            _ => MetricType::Gauge,
        }
    }

    /// Its labels, with all their values, apart from that of a component.
    pub(super) fn labels(&self) -> &'static [Label] {
        match self.reading {
            Reading::Each(labels, _) | Reading::Histograms(labels, _) => labels,
            Reading::One(_) | Reading::Component(_) => &[],
        }
    }

    /// The number of its series, unless components decide.
    pub(super) fn series(&self) -> usize {
        self.labels().iter().map(|label| label.values.len()).product()
    }

    /// The values of its labels for the series at this index.
    pub(super) fn label_values(&self, index: usize) -> Vec<(&'static str, &'static str)> {
        let mut rest = index;
        let mut values: Vec<_> = self
            .labels()
            .iter()
            .rev()
            .map(|label| {
                let value = label.values[rest % label.values.len()];
                rest /= label.values.len();
                (label.name, value)
            })
            .collect();
        values.reverse();
        values
    }
}

/// The one sample of a metric without labels.
pub(super) fn whole(value: impl TryInto<u64>) -> Vec<Sample> {
    wholes([value])
}

/// The samples of a metric with labels.
pub(super) fn wholes<V: TryInto<u64>>(values: impl IntoIterator<Item = V>) -> Vec<Sample> {
    values.into_iter().map(|value| Sample::Whole(value.try_into().unwrap_or(u64::MAX))).collect()
}

/// The one sample of a metric without labels that may be a fraction.
pub(super) fn real(value: f64) -> Vec<Sample> {
    vec![Sample::Real(value)]
}

/// The samples of durations, in seconds.
pub(super) fn durations<'a>(histograms: impl IntoIterator<Item = &'a Histogram>) -> Vec<Sample> {
    histograms.into_iter().map(|histogram| buckets(&histogram.recorded())).collect()
}

/// The sample of durations, in seconds.
pub(super) fn buckets(recorded: &Recorded) -> Sample {
    let bounds = BUCKETS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
    Sample::Buckets { sum: recorded.sum.as_secs_f64(), counts: bounds.zip(recorded.counts).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_numbered_with_the_last_label_varying_fastest() {
        const LABELS: &[Label] =
            &[Label { name: "a", values: &["1", "2"] }, Label { name: "b", values: &["x", "y", "z"] }];
        let metric =
            Metric { name: "n", help: "", action: "", reading: Reading::Each(LABELS, |_| Vec::new()) };
        assert_eq!(metric.series(), 6);
        assert_eq!(metric.label_values(0), [("a", "1"), ("b", "x")]);
        assert_eq!(metric.label_values(2), [("a", "1"), ("b", "z")]);
        assert_eq!(metric.label_values(3), [("a", "2"), ("b", "x")]);
    }
}
