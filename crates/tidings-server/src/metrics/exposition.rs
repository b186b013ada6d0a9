//! The formats of `/metrics`.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use super::{
    metric::{Metric, Reading, Sample},
    sources::Sources,
    table::metrics,
};

/// The format of an exposition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exposition {
    /// The text format of Prometheus, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Exposition {
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// All metrics of the table.
    pub(crate) fn render(self, sources: Sources) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(sources));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(match self {
            Self::Text => to_text_format(&out),
            Self::OpenMetrics => out,
        })
    }
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        metrics().try_for_each(|metric| metric.encode(self, &mut encoder))
    }
}

impl Metric {
    fn encode(&self, sources: &Sources, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        // The encoder adds the suffix to the samples of a counter.
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        let mut family = encoder.encode_descriptor(name, self.help, None, self.kind())?;
        match self.reading {
            Reading::One(read) | Reading::Each(_, read) | Reading::Histograms(_, read) => {
                let samples = read(sources);
                debug_assert!(samples.is_empty() || samples.len() == self.series(), "{}", self.name);
                if self.labels().is_empty() {
                    return samples.iter().try_for_each(|sample| self.encode_sample(sample, &mut family));
                }
                for (index, sample) in samples.iter().enumerate() {
                    self.encode_sample(sample, &mut family.encode_family(&self.label_values(index))?)?;
                }
            }
            Reading::Component(kind) => {
                for (name, value) in sources.of_components(kind, self.name) {
                    let labels = [(kind, name)];
                    self.encode_sample(&Sample::Whole(value), &mut family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }

    fn encode_sample(&self, sample: &Sample, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match (self.kind(), sample) {
            (MetricType::Counter, Sample::Whole(value)) => {
                encoder.encode_counter::<NoLabelSet, _, u64>(value, None)
            }
            (MetricType::Counter, Sample::Real(value)) => {
                encoder.encode_counter::<NoLabelSet, _, u64>(value, None)
            }
            (MetricType::Gauge, Sample::Whole(value)) => {
                encoder.encode_gauge(&i64::try_from(*value).unwrap_or(i64::MAX))
            }
            (MetricType::Gauge, Sample::Real(value)) => encoder.encode_gauge(value),
            (MetricType::Histogram, Sample::Buckets { sum, counts }) => {
                let count = counts.iter().map(|(_, count)| count).sum();
                encoder.encode_histogram::<NoLabelSet>(*sum, count, counts, None)
            }
            _ => Err(fmt::Error),
        }
    }
}

/// Converts OpenMetrics to the text format of Prometheus, which the registry does not write: there,
/// a family has the name of its samples, which ends in `_total` for counters, and there are no
/// `UNIT` and `EOF` lines.
fn to_text_format(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len() + openmetrics.len() / 16);
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.take().filter(|(described, _)| *described == name) {
                out.extend(["# HELP ", name, suffix, " ", help, "\n"]);
            }
            out.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with("# ") {
            out.extend([line, "\n"]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_format_names_a_counter_as_its_samples() {
        let openmetrics = "# HELP t_seen_bytes What was seen: a b.\n# TYPE t_seen_bytes counter\n# UNIT t_seen_bytes bytes\n\
                           t_seen_bytes_total{a=\"# b\"} 1\nt_seen_bytes_total{a=\"c\"} 2\n\
                           # HELP t_open Open.\n# TYPE t_open gauge\nt_open -1\n# EOF\n";
        let text = "# HELP t_seen_bytes_total What was seen: a b.\n# TYPE t_seen_bytes_total counter\n\
                    t_seen_bytes_total{a=\"# b\"} 1\nt_seen_bytes_total{a=\"c\"} 2\n\
                    # HELP t_open Open.\n# TYPE t_open gauge\nt_open -1\n";
        assert_eq!(to_text_format(openmetrics), text);
    }
}
