//! What was measured: reports of all rounds, measurements out of them, medians over them.

use tidings_bench::{Faults, Report, Step};

/// All runs.
#[derive(Default)]
pub(crate) struct Results {
    reports: Vec<Report>,
}

/// A measurement over all rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// Takes a measurement out of a report, if the report has it.
pub(crate) type Figure = fn(&Report) -> Option<f64>;

impl Results {
    pub(crate) fn add(&mut self, report: Report) {
        self.reports.push(report);
    }

    pub(crate) fn spread(&self, scenario: &str, hub: &str, figure: Figure) -> Option<Spread> {
        spread(self.rounds(scenario, hub, figure))
    }

    /// This measurement of each round, in order.
    pub(crate) fn rounds(&self, scenario: &str, hub: &str, figure: Figure) -> Vec<f64> {
        self.of(scenario, hub).filter_map(figure).collect()
    }

    /// Whether a server was measured at all.
    pub(crate) fn has(&self, hub: &str) -> bool {
        self.reports.iter().any(|report| report.hub == hub)
    }

    pub(crate) fn median(&self, scenario: &str, hub: &str, figure: Figure) -> Option<f64> {
        Some(self.spread(scenario, hub, figure)?.median)
    }

    pub(crate) fn of(&self, scenario: &str, hub: &str) -> impl Iterator<Item = &Report> {
        self.reports.iter().filter(move |report| report.scenario == scenario && report.hub == hub)
    }

    /// The faults of this hub in all runs.
    pub(crate) fn faults_of(&self, hub: &str) -> Faults {
        let steps = self.reports.iter().filter(|report| report.hub == hub);
        let steps = steps.flat_map(|report| report.steps.iter().cloned()).collect();
        Report { steps, ..Report::default() }.faults()
    }

    /// Scenarios in which this hub was faulty.
    pub(crate) fn faulty<'a>(&'a self, hub: &'a str) -> impl Iterator<Item = (&'a str, Faults)> {
        let faulty = move |report: &&Report| report.hub == hub && !report.faults().is_none();
        self.reports.iter().filter(faulty).map(|report| (report.scenario.as_str(), report.faults()))
    }

    /// Runs in which the load client was the limit.
    pub(crate) fn limited_by_client(&self) -> Vec<String> {
        let limited = |step: &Step| step.traffic.as_ref().is_some_and(|traffic| traffic.client_limited);
        let mut names: Vec<String> = self
            .reports
            .iter()
            .filter(|report| report.steps.iter().any(limited))
            .map(|report| format!("{} of {}", report.scenario, report.hub))
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

pub(crate) fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let (min, max) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    };
    Some(Spread { median, min, max })
}

pub(crate) fn deliveries(report: &Report) -> Option<f64> {
    Some(report.steps.last()?.traffic.as_ref()?.deliveries_per_second)
}

pub(crate) fn events(report: &Report) -> Option<f64> {
    Some(report.steps.last()?.traffic.as_ref()?.events_per_second)
}

pub(crate) fn cpu(report: &Report) -> Option<f64> {
    report.steps.last()?.traffic.as_ref()?.server_cpu_micros_each
}

pub(crate) fn per_read(report: &Report) -> Option<f64> {
    Some(report.steps.last()?.traffic.as_ref()?.deliveries_per_read)
}

pub(crate) fn p50(report: &Report) -> Option<f64> {
    Some(report.steps.last()?.traffic.as_ref()?.latency?.p50_ms)
}

pub(crate) fn p99(report: &Report) -> Option<f64> {
    Some(report.steps.last()?.traffic.as_ref()?.latency?.p99_ms)
}

pub(crate) fn reply_p99(report: &Report) -> Option<f64> {
    Some(report.steps.last()?.traffic.as_ref()?.reply?.p99_ms)
}

pub(crate) fn opening_p99(report: &Report) -> Option<f64> {
    Some(report.steps.last()?.others.as_ref()?.opening?.p99_ms)
}

pub(crate) fn p999(report: &Report) -> Option<f64> {
    Some(report.steps.last()?.traffic.as_ref()?.latency?.p999_ms)
}

pub(crate) fn connects(report: &Report) -> Option<f64> {
    Some(report.steps.last()?.connecting.as_ref()?.per_second)
}

pub(crate) fn bytes(report: &Report) -> Option<f64> {
    Some(report.steps.last()?.memory.as_ref()?.per_subscriber_bytes)
}

/// The memory of the process, divided by the number of subscribers.
#[expect(clippy::cast_precision_loss, reason = "bytes of one process")]
pub(crate) fn bytes_in_total(report: &Report) -> Option<f64> {
    let step = report.steps.last()?;
    let memory = step.memory.as_ref()?;
    Some(memory.connected_bytes.max(memory.after_bytes) as f64 / step.subscribers as f64)
}

pub(crate) fn kernel_bytes(report: &Report) -> Option<f64> {
    report.steps.last()?.memory.as_ref()?.kernel_per_pair_bytes
}

/// Storm: memory once all subscribers have reconnected, as a share of before.
#[expect(clippy::cast_precision_loss, reason = "bytes of one process")]
pub(crate) fn memory_after_storm(report: &Report) -> Option<f64> {
    let [before, back] = report.steps.as_slice() else { return None };
    Some(back.memory.as_ref()?.connected_bytes as f64 / before.memory.as_ref()?.connected_bytes as f64)
}

/// Slow readers, delete: p99 of the other subscribers, disturbed over undisturbed.
pub(crate) fn p99_disturbed(report: &Report) -> Option<f64> {
    last_over_first(report, |step| Some(step.traffic.as_ref()?.latency?.p99_ms))
}

/// Processor time per delivery: private over public, or the largest size over the smallest.
pub(crate) fn cpu_rise(report: &Report) -> Option<f64> {
    last_over_first(report, |step| step.traffic.as_ref()?.server_cpu_micros_each)
}

/// Additional processor time of a delivery at the largest size over the smallest, in microseconds.
pub(crate) fn cpu_added(report: &Report) -> Option<f64> {
    let cpu = |step: &Step| step.traffic.as_ref()?.server_cpu_micros_each;
    Some(cpu(report.steps.last()?)? - cpu(report.steps.first()?)?)
}

/// Memory per subscriber: the largest size over the smallest.
pub(crate) fn bytes_rise(report: &Report) -> Option<f64> {
    last_over_first(report, |step| Some(step.memory.as_ref()?.per_subscriber_bytes))
}

/// Opening a stream meanwhile: p99, disturbed over undisturbed.
pub(crate) fn opening_disturbed(report: &Report) -> Option<f64> {
    last_over_first(report, |step| Some(step.others.as_ref()?.opening?.p99_ms))
}

/// Publish requests: p99 of the answers, disturbed over undisturbed.
pub(crate) fn reply_p99_disturbed(report: &Report) -> Option<f64> {
    last_over_first(report, |step| Some(step.traffic.as_ref()?.reply?.p99_ms))
}

fn last_over_first(report: &Report, figure: impl Fn(&Step) -> Option<f64>) -> Option<f64> {
    let (first, last) = (figure(report.steps.first()?)?, figure(report.steps.last()?)?);
    (first > 0.0).then(|| last / first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_number_of_rounds_has_its_median_in_the_middle() {
        let found = spread(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!(found, Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(spread(Vec::new()), None);
    }
}
