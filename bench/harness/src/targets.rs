//! The targets of the project, and whether they are reached.

use crate::results::{
    Figure, Results, bytes, bytes_in_total, bytes_rise, connects, cpu, cpu_rise, deliveries, events,
    memory_after_storm, opening_disturbed, p50, p99, p99_disturbed, reply_p99, reply_p99_disturbed,
};

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

/// Compared with servers that are measured in the same run. The figures for 64 publishers and for
/// memory are those of the machine that `docs/benchmarks.md` names, and mean little elsewhere.
pub(crate) const TARGETS: &[Target] = &[
    alone("idle", "process memory per subscriber, in total, bytes", bytes_in_total, Bound::AtMost(800.0)),
    alone("idle", "process memory that each subscriber added, bytes", bytes, Bound::AtMost(400.0)),
    against("idle", "process memory per subscriber, in total", bytes_in_total, "nchan", Bound::AtMost(0.1)),
    against("fanout", "deliveries per second", deliveries, "nchan", Bound::AtLeast(30.0)),
    against("fanout", "deliveries per second", deliveries, "axum", Bound::AtLeast(5.0)),
    against("fanout", "deliveries per second", deliveries, "bare", Bound::AtLeast(1.0)),
    against("fanout", "p99", p99, "nchan", Bound::AtMost(1.0)),
    against("fanout", "p99", p99, "axum", Bound::AtMost(1.0)),
    against("fanout", "p99", p99, "bare", Bound::AtMost(1.0)),
    against("fanout-slow", "p50", p50, "nchan", Bound::AtMost(1.0)),
    against("fanout-slow", "p99", p99, "nchan", Bound::AtMost(1.0)),
    against("fanout-slow", "p99", p99, "axum", Bound::AtMost(1.0)),
    against("fanout-slow", "CPU per delivery", cpu, "nchan", Bound::AtMost(0.75)),
    against("many", "events per second", events, "nchan", Bound::AtLeast(1.3)),
    against("many", "events per second", events, "axum", Bound::AtLeast(1.0)),
    against("many", "events per second", events, "bare", Bound::AtLeast(0.8)),
    against("many", "p99", p99, "nchan", Bound::AtMost(1.0)),
    against("many", "p99", p99, "axum", Bound::AtMost(1.0)),
    against("burst", "deliveries per second", deliveries, "nchan", Bound::AtLeast(6.0)),
    against("burst", "deliveries per second", deliveries, "axum", Bound::AtLeast(2.0)),
    against("burst", "deliveries per second", deliveries, "bare", Bound::AtLeast(0.9)),
    against("burst", "p99", p99, "axum", Bound::AtMost(1.0)),
    against("publish", "POST per second", events, "nchan", Bound::AtLeast(1.5)),
    against("publish", "POST per second", events, "axum", Bound::AtLeast(1.1)),
    against("replay", "deliveries per second", deliveries, "nchan", Bound::AtLeast(20.0)),
    against("replay", "deliveries per second", deliveries, "bare", Bound::AtLeast(0.85)),
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
    alone("publish-64", "POST per second", events, Bound::AtLeast(95_000.0)),
    alone("publish-64", "p99 of the answers, ms", reply_p99, Bound::AtMost(1.3)),
    of("tidings-disk", "publish-64", "POST per second", events, Bound::AtLeast(65_000.0)),
    of("tidings-disk", "publish-64", "p99 of the answers, ms", reply_p99, Bound::AtMost(2.9)),
    of("tidings-redis", "publish-64", "POST per second", events, Bound::AtLeast(40_000.0)),
    of("tidings-redis", "publish-64", "p99 of the answers, ms", reply_p99, Bound::AtMost(5.4)),
    of("tidings-nats", "publish-64", "POST per second", events, Bound::AtLeast(50_000.0)),
    of("tidings-nats", "publish-64", "p99 of the answers, ms", reply_p99, Bound::AtMost(5.9)),
    kept("tidings-disk", "publish-64", "POST per second", events, Bound::AtLeast(0.5)),
    kept("tidings-disk", "replay-long", "deliveries per second", deliveries, Bound::AtLeast(0.5)),
    kept("tidings-disk", "fanout-slow", "CPU per delivery", cpu, Bound::AtMost(1.05)),
    kept("tidings-redis", "fanout-slow", "CPU per delivery", cpu, Bound::AtMost(1.1)),
    of(
        "tidings-disk",
        "delete",
        "p99 of deliveries, while one client deletes over undisturbed",
        p99_disturbed,
        Bound::AtMost(1.2),
    ),
    of(
        "tidings-disk",
        "delete",
        "p99 of answers to publishers, while one client deletes over undisturbed",
        reply_p99_disturbed,
        Bound::AtMost(1.2),
    ),
    of(
        "tidings-disk",
        "delete",
        "p99 of opening a stream, while one client deletes over undisturbed",
        opening_disturbed,
        Bound::AtMost(1.2),
    ),
    alone("private", "CPU per delivery, private over public", cpu_rise, Bound::AtMost(1.3)),
];

const fn of(
    hub: &'static str,
    scenario: &'static str,
    text: &'static str,
    figure: Figure,
    bound: Bound,
) -> Target {
    Target { hub, scenario, text, figure, against: None, bound }
}

const fn alone(scenario: &'static str, text: &'static str, figure: Figure, bound: Bound) -> Target {
    of("tidings", scenario, text, figure, bound)
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
    use tidings_bench::{Report, Step, Traffic};

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
        let judged: Vec<_> = TARGETS.iter().filter_map(|target| target.judge(&results)).collect();
        assert_eq!(judged, [(31.0, true)]);
    }
}
