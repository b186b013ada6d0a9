//! Medians over rounds, compared with the targets.

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
        spread(self.of(scenario, hub).filter_map(figure).collect())
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

/// Slow readers: p99 of the other subscribers, disturbed over undisturbed.
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

fn last_over_first(report: &Report, figure: impl Fn(&Step) -> Option<f64>) -> Option<f64> {
    let (first, last) = (figure(report.steps.first()?)?, figure(report.steps.last()?)?);
    (first > 0.0).then(|| last / first)
}

/// A target of the comparison.
pub(crate) struct Target {
    /// The hub that the target is for.
    pub(crate) hub: &'static str,
    pub(crate) scenario: &'static str,
    pub(crate) text: &'static str,
    pub(crate) figure: Figure,
    /// The hub whose measurement divides it, if any.
    pub(crate) against: Option<&'static str>,
    pub(crate) bound: Bound,
}

#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    /// The measured value, and whether it reaches the target. None if a hub was not measured.
    pub(crate) fn judge(&self, results: &Results) -> Option<(f64, bool)> {
        let own = results.median(self.scenario, self.hub, self.figure)?;
        let value = match self.against {
            Some(hub) => own / results.median(self.scenario, hub, self.figure)?,
            None => own,
        };
        let reached = match self.bound {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        };
        Some((value, reached))
    }
}

/// The targets of the project.
pub(crate) const TARGETS: &[Target] = &[
    alone("idle", "process memory per subscriber, in total, bytes", bytes_in_total, Bound::AtMost(1024.0)),
    against("idle", "process memory per subscriber, in total", bytes_in_total, "nchan", Bound::AtMost(0.1)),
    against("fanout", "deliveries per second", deliveries, "nchan", Bound::AtLeast(30.0)),
    against("fanout", "deliveries per second", deliveries, "axum", Bound::AtLeast(5.0)),
    against("fanout-slow", "p50", p50, "nchan", Bound::AtMost(1.0)),
    against("fanout-slow", "p99", p99, "nchan", Bound::AtMost(1.0)),
    against("fanout-slow", "CPU per delivery", cpu, "nchan", Bound::AtMost(0.75)),
    against("many", "events per second", events, "nchan", Bound::AtLeast(1.3)),
    against("many", "events per second", events, "axum", Bound::AtLeast(1.0)),
    against("many", "p99", p99, "nchan", Bound::AtMost(1.0)),
    against("burst", "deliveries per second", deliveries, "nchan", Bound::AtLeast(6.0)),
    against("burst", "deliveries per second", deliveries, "axum", Bound::AtLeast(2.0)),
    against("publish", "POST per second", events, "nchan", Bound::AtLeast(1.3)),
    against("replay", "deliveries per second", deliveries, "nchan", Bound::AtLeast(20.0)),
    against("storm", "connections per second", connects, "nchan", Bound::AtLeast(0.8)),
    alone(
        "storm",
        "memory after all have reconnected, as a share of before",
        memory_after_storm,
        Bound::AtMost(1.1),
    ),
    alone("slow-readers", "p99 of the others, as a share of undisturbed", p99_disturbed, Bound::AtMost(2.0)),
    alone("growth", "bytes per subscriber, 18,000 over 1,000", bytes_rise, Bound::AtMost(1.1)),
    alone("growth", "CPU per delivery, 18,000 over 1,000", cpu_rise, Bound::AtMost(1.1)),
    kept("tidings-disk", "publish-64", "POST per second", events, Bound::AtLeast(0.5)),
    kept("tidings-disk", "replay-long", "deliveries per second", deliveries, Bound::AtLeast(0.5)),
    kept("tidings-disk", "fanout-slow", "CPU per delivery", cpu, Bound::AtMost(1.1)),
    kept("tidings-redis", "fanout-slow", "CPU per delivery", cpu, Bound::AtMost(1.1)),
    alone("private", "CPU per delivery, private over public", cpu_rise, Bound::AtMost(1.3)),
];

const fn alone(scenario: &'static str, text: &'static str, figure: Figure, bound: Bound) -> Target {
    Target { hub: "tidings", scenario, text, figure, against: None, bound }
}

const fn against(
    scenario: &'static str,
    text: &'static str,
    figure: Figure,
    hub: &'static str,
    bound: Bound,
) -> Target {
    Target { hub: "tidings", scenario, text, figure, against: Some(hub), bound }
}

/// What it may cost to keep the log elsewhere than in memory.
const fn kept(
    hub: &'static str,
    scenario: &'static str,
    text: &'static str,
    figure: Figure,
    bound: Bound,
) -> Target {
    Target { hub, scenario, text, figure, against: Some("tidings"), bound }
}

#[cfg(test)]
mod tests {
    use tidings_bench::Traffic;

    use super::*;

    fn run(hub: &str, deliveries_per_second: f64) -> Report {
        let traffic = Some(Traffic { deliveries_per_second, ..Traffic::default() });
        let steps = vec![Step { traffic, ..Step::default() }];
        Report { hub: hub.to_owned(), scenario: "fanout".to_owned(), steps }
    }

    #[test]
    fn the_median_of_rounds_is_judged_against_the_other_hub() {
        let mut results = Results::default();
        for (own, other) in [(290.0, 10.0), (310.0, 9.0), (900.0, 11.0)] {
            results.add(run("tidings", own));
            results.add(run("nchan", other));
        }
        let spread = results.spread("fanout", "tidings", deliveries).unwrap();
        assert_eq!(spread, Spread { median: 310.0, min: 290.0, max: 900.0 });
        let judged: Vec<_> = TARGETS.iter().filter_map(|target| target.judge(&results)).collect();
        assert_eq!(judged, [(31.0, true)]);
    }

    #[test]
    fn an_even_number_of_rounds_has_its_median_in_the_middle() {
        let found = spread(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!(found, Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(spread(Vec::new()), None);
    }
}
