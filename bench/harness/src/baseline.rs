//! Two builds of Tidings in one run: what a change made faster or slower.
//!
//! The machine drifts by more than most changes matter, so a ratio is that of the runs of one round,
//! which follow each other; where the ranges of all rounds overlap, there may be no difference.

use std::fmt::Write;

use crate::{
    results::{Results, Spread, spread},
    rows::{ROWS, figure},
    servers::ServerKind,
};

/// Fewer runs say nothing about their range.
const RUNS_MIN: usize = 3;

/// One measurement of both builds.
#[derive(Debug, PartialEq)]
struct Comparison {
    baseline: Spread,
    own: Spread,
    /// This build over the baseline, of each pair of runs.
    ratio: Spread,
    pairs: usize,
}

impl Comparison {
    /// Both lists are in the order of the runs. None if one build was not measured.
    fn new(baseline: &[f64], own: &[f64]) -> Option<Self> {
        let pairs = own.iter().zip(baseline).filter(|(_, baseline)| **baseline > 0.0);
        let ratios: Vec<f64> = pairs.map(|(own, baseline)| own / baseline).collect();
        let pairs = ratios.len();
        let (baseline, own) = (spread(baseline.to_vec())?, spread(own.to_vec())?);
        Some(Self { baseline, own, ratio: spread(ratios)?, pairs })
    }

    /// Whether the ranges of the two builds overlap.
    fn ranges(&self) -> &'static str {
        if self.pairs < RUNS_MIN {
            "too few runs"
        } else if self.own.min <= self.baseline.max && self.baseline.min <= self.own.max {
            "overlap"
        } else {
            "**apart**"
        }
    }
}

pub(crate) fn write(out: &mut String, results: &Results, servers: &[ServerKind]) -> anyhow::Result<()> {
    let pairs = servers.iter().filter_map(|server| Some((server, server.baseline()?)));
    for (own, baseline) in pairs.filter(|(_, baseline)| results.has(baseline.name())) {
        let (own, baseline) = (own.name(), baseline.name());
        writeln!(
            out,
            "\n## {own} compared with {baseline}\n\nMedian (smallest–largest) of all rounds; the ratio is that of each round.\n\n\
             | scenario | what | {baseline} | {own} | ratio | ranges |\n|---|---|---|---|---|---|"
        )?;
        for row in ROWS {
            let rounds = |hub| results.rounds(row.scenario, hub, row.figure);
            let Some(compared) = Comparison::new(&rounds(baseline), &rounds(own)) else { continue };
            let cells = [&compared.baseline, &compared.own, &compared.ratio]
                .map(|cell| format!("{} ({}–{})", figure(cell.median), figure(cell.min), figure(cell.max)));
            let (cells, ranges) = (cells.join(" | "), compared.ranges());
            writeln!(out, "| {} | {} | {cells} | {ranges} |", row.scenario, row.text)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_that_of_runs_that_follow_each_other() {
        // The machine became twice as fast; the second build is a tenth faster throughout.
        let compared = Comparison::new(&[100.0, 150.0, 200.0], &[110.0, 165.0, 220.0]).unwrap();
        let Spread { median, min, max } = compared.ratio;
        for ratio in [median, min, max] {
            assert!((ratio - 1.1).abs() < 1e-9, "{ratio}");
        }
        assert_eq!(compared.baseline, Spread { median: 150.0, min: 100.0, max: 200.0 });
        assert_eq!(compared.ranges(), "overlap");
    }

    #[test]
    fn ranges_overlap_if_a_value_may_be_of_either_build() {
        let ranges = |baseline: &[f64], own: &[f64]| Comparison::new(baseline, own).unwrap().ranges();
        assert_eq!(ranges(&[1.0, 2.0, 1.5], &[2.1, 3.0, 2.5]), "**apart**");
        assert_eq!(ranges(&[2.1, 3.0, 2.5], &[1.0, 2.0, 1.5]), "**apart**");
        assert_eq!(ranges(&[1.0, 2.0, 1.5], &[2.0, 3.0, 2.5]), "overlap");
        assert_eq!(ranges(&[1.0, 4.0, 2.5], &[2.0, 3.0, 2.5]), "overlap");
        assert_eq!(ranges(&[2.0, 3.0, 2.5], &[1.0, 4.0, 2.5]), "overlap");
        assert_eq!(ranges(&[1.0, 1.0], &[2.0, 2.0]), "too few runs");
    }

    #[test]
    fn a_build_that_was_not_measured_is_not_compared() {
        assert_eq!(Comparison::new(&[], &[1.0]), None);
        assert_eq!(Comparison::new(&[1.0], &[]), None);
        // A baseline of zero has no ratio.
        assert_eq!(Comparison::new(&[0.0], &[1.0]), None);
    }
}
