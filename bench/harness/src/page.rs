//! The page `docs/benchmarks.md`.

use std::{fmt::Write, time::Duration};

use tidings_bench::Report;

use crate::{
    baseline,
    machine::machine,
    results::{Figure, Results, bytes, cpu, opening_p99, p50, p99, reply_p99, spread},
    rows::{ROWS, figure},
    servers::ServerKind,
    targets::{Bound, TARGETS},
};

const INTRODUCTION: &str = include_str!("introduction.md");
const EXPLANATION: &str = include_str!("explanation.md");
const STORES: &str = "`tidings-redis` is `--store redis://…` with a Redis that keeps everything in memory, `tidings-nats` is `--store nats://…` with a \
    nats-server that keeps its streams in files, both on the same machine; measurements are those of the hub alone.\n\n";

/// The measured servers, and what is known about the run.
pub(crate) struct Run<'a> {
    pub(crate) servers: &'a [ServerKind],
    /// Servers that were to be measured, and why they were not.
    pub(crate) missing: &'a [(ServerKind, &'static str)],
    pub(crate) rounds: usize,
    pub(crate) took: Duration,
    /// Syncs of a group of events per second, if that was measured.
    pub(crate) syncs: Option<f64>,
}

pub(crate) fn write(results: &Results, run: &Run<'_>) -> anyhow::Result<String> {
    let mut out = String::from(INTRODUCTION);
    let today = jiff::Zoned::now().date();
    writeln!(
        out,
        "\nMeasured on {today} by `make bench`: {} interleaved rounds in {} minutes.\n{}; client and servers share it, loopback.\n",
        run.rounds,
        run.took.as_secs().div_ceil(60),
        machine()
    )?;
    for (server, why) in run.missing {
        writeln!(out, "Not measured: {}, because {why}.\n", server.name())?;
    }
    if let Some(syncs) = run.syncs {
        writeln!(
            out,
            "`tidings-disk` is `--store DIR --sync always`. This disk syncs a group of 64 such events {} times a second; with 64 publishers \
             that wait for their answers, no log could exceed {} POST/s on it.\n",
            figure(syncs),
            figure(64.0 * syncs)
        )?;
    }
    out.push_str(STORES);
    targets(&mut out, results)?;
    measurements(&mut out, results, run.servers)?;
    baseline::write(&mut out, results, run.servers)?;
    steps(&mut out, results, "slow-readers", "tidings")?;
    steps(&mut out, results, "growth", "tidings")?;
    steps(&mut out, results, "private", "tidings")?;
    steps(&mut out, results, "delete", "tidings-disk")?;
    faults(&mut out, results, run.servers)?;
    out.push_str(EXPLANATION);
    Ok(out)
}

fn targets(out: &mut String, results: &Results) -> anyhow::Result<()> {
    writeln!(out, "## Targets\n\n| scenario | what | target | measured | |\n|---|---|---|---|---|")?;
    for target in TARGETS {
        let Some((value, reached)) = target.judge(results) else { continue };
        let (sign, bound) = match target.bound {
            Bound::AtLeast(bound) => ("≥", bound),
            Bound::AtMost(bound) => ("≤", bound),
        };
        let unit = target.against.map(|hub| format!(" × {hub}")).unwrap_or_default();
        let verdict = if reached { "reached" } else { "**missed**" };
        let of = if target.hub == "tidings" { String::new() } else { format!(" ({})", target.hub) };
        let (scenario, text) = (target.scenario, format!("{}{of}", target.text));
        writeln!(
            out,
            "| {scenario} | {text} | {sign} {}{unit} | {} | {verdict} |",
            figure(bound),
            figure(value)
        )?;
    }
    for scenario in ["storm", "slow-readers"] {
        if results.of(scenario, "tidings").next().is_some() {
            let clean = results.of(scenario, "tidings").all(|report| report.faults().is_none());
            let what = if scenario == "storm" {
                "all reconnect and receive the next event"
            } else {
                "frozen readers resume completely"
            };
            writeln!(
                out,
                "| {scenario} | {what} | yes | {} | {} |",
                yes(clean),
                if clean { "reached" } else { "**missed**" }
            )?;
        }
    }
    Ok(())
}

fn measurements(out: &mut String, results: &Results, servers: &[ServerKind]) -> anyhow::Result<()> {
    writeln!(out, "\n## Measurements\n\nMedian (smallest–largest) of all rounds.\n")?;
    let names: Vec<_> = servers.iter().map(|server| server.name()).collect();
    writeln!(out, "| scenario | what | {} |\n|---|---|{}", names.join(" | "), "---|".repeat(names.len()))?;
    for row in ROWS {
        let cells: Vec<_> = names.iter().map(|hub| results.spread(row.scenario, hub, row.figure)).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        write!(out, "| {} | {} |", row.scenario, row.text)?;
        for cell in cells {
            match cell {
                Some(cell) => {
                    write!(out, " {} ({}–{}) |", figure(cell.median), figure(cell.min), figure(cell.max))?;
                }
                None => write!(out, " – |")?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// A scenario that consists of steps, for this hub.
fn steps(out: &mut String, results: &Results, scenario: &str, hub: &str) -> anyhow::Result<()> {
    const COLUMNS: [(&str, Figure); 6] = [
        ("process memory per subscriber, B", bytes),
        ("p50, ms", p50),
        ("p99, ms", p99),
        ("p99 of the answers, ms", reply_p99),
        ("p99 of opening a stream, ms", opening_p99),
        ("server CPU, µs per delivery", cpu),
    ];
    let Some(first) = results.of(scenario, hub).next() else { return Ok(()) };
    let rounds = |index: usize, figure: Figure| {
        let values = results.of(scenario, hub).filter_map(|report| {
            let steps = vec![report.steps.get(index)?.clone()];
            figure(&Report { steps, ..Report::default() })
        });
        spread(values.collect())
    };
    let measured: Vec<_> = COLUMNS.into_iter().filter(|(_, figure)| rounds(0, *figure).is_some()).collect();
    let names: Vec<_> = measured.iter().map(|(name, _)| *name).collect();
    writeln!(
        out,
        "\n### {scenario} ({hub})\n\n| step | {} |\n|---|{}",
        names.join(" | "),
        "---|".repeat(names.len())
    )?;
    for (index, step) in first.steps.iter().enumerate() {
        write!(out, "| {} |", step.name)?;
        for (_, taken) in &measured {
            match rounds(index, *taken) {
                Some(cell) => {
                    write!(out, " {} ({}–{}) |", figure(cell.median), figure(cell.min), figure(cell.max))?;
                }
                None => write!(out, " – |")?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

fn faults(out: &mut String, results: &Results, servers: &[ServerKind]) -> anyhow::Result<()> {
    writeln!(out, "\n## Faults\n")?;
    for hub in servers.iter().map(|server| server.name()) {
        let faulty: Vec<String> =
            results.faulty(hub).map(|(scenario, faults)| format!("{scenario}: {faults}")).collect();
        let text = if faulty.is_empty() { results.faults_of(hub).to_string() } else { faulty.join("; ") };
        writeln!(out, "- {hub}: {text}")?;
    }
    let limited = results.limited_by_client();
    if !limited.is_empty() {
        writeln!(
            out,
            "\nThe load client took more than 0.9 of a core, so the server may be faster: {}.",
            limited.join(", ")
        )?;
    }
    Ok(())
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}
