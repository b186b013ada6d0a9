//! The page `docs/benchmarks.md`.

use std::{fmt::Write, time::Duration};

use tidings_bench::Report;

use crate::{
    results::{
        Bound, Figure, Results, TARGETS, bytes, bytes_in_total, connects, cpu, cpu_added, deliveries, events,
        kernel_bytes, p50, p99, p999, per_read,
    },
    servers::{ServerKind, machine},
};

const INTRODUCTION: &str = include_str!("introduction.md");
const EXPLANATION: &str = include_str!("explanation.md");

/// A row of the table of measurements.
struct Row {
    scenario: &'static str,
    text: &'static str,
    figure: Figure,
}

const ROWS: &[Row] = &[
    row("idle", "process memory per subscriber, in total, B", bytes_in_total),
    row("idle", "of that, what each subscriber added, B", bytes),
    row("idle", "kernel memory per connection, both ends, B", kernel_bytes),
    row("idle", "connections/s", connects),
    row("fanout", "deliveries/s", deliveries),
    row("fanout", "deliveries per read", per_read),
    row("fanout", "server CPU, µs per delivery", cpu),
    row("fanout", "p99, ms", p99),
    row("fanout-slow", "p50, ms", p50),
    row("fanout-slow", "p99, ms", p99),
    row("fanout-slow", "p99.9, ms", p999),
    row("fanout-slow", "server CPU, µs per delivery", cpu),
    row("many", "events/s", events),
    row("many", "server CPU, µs per event", cpu),
    row("many", "p99, ms", p99),
    row("burst", "deliveries/s", deliveries),
    row("burst", "deliveries per read", per_read),
    row("publish", "POST/s", events),
    row("publish", "server CPU, µs per POST", cpu),
    row("publish-64", "POST/s", events),
    row("publish-64", "server CPU, µs per POST", cpu),
    row("replay", "deliveries/s", deliveries),
    row("replay-long", "deliveries/s", deliveries),
    row("storm", "connections/s when all reconnect", connects),
    row("growth", "additional server CPU per delivery among 18,000 compared with 1,000, µs", cpu_added),
];

const fn row(scenario: &'static str, text: &'static str, figure: Figure) -> Row {
    Row { scenario, text, figure }
}

/// `syncs` is the number of syncs of a group of events per second, if that was measured.
pub(crate) fn write(
    results: &Results,
    rounds: usize,
    took: Duration,
    syncs: Option<f64>,
) -> anyhow::Result<String> {
    let mut out = String::from(INTRODUCTION);
    let today = jiff::Zoned::now().date();
    writeln!(
        out,
        "\nMeasured on {today} by `make bench`: {rounds} interleaved rounds in {} minutes.\n{}; client and servers share it, loopback.\n",
        took.as_secs().div_ceil(60),
        machine()
    )?;
    if let Some(syncs) = syncs {
        writeln!(
            out,
            "`tidings-disk` is `--store DIR --sync always`. This disk syncs a group of 64 such events {} times a second; with 64 publishers \
             that wait for their answers, no log could exceed {} POST/s on it.\n",
            figure(syncs),
            figure(64.0 * syncs)
        )?;
    }
    out.push_str("`tidings-redis` is `--store redis://…` with a Redis on the same machine that keeps everything in memory; measurements are those of the hub alone.\n\n");
    targets(&mut out, results)?;
    figures(&mut out, results)?;
    steps(&mut out, results, "slow-readers")?;
    steps(&mut out, results, "growth")?;
    steps(&mut out, results, "private")?;
    faults(&mut out, results)?;
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

fn figures(out: &mut String, results: &Results) -> anyhow::Result<()> {
    writeln!(out, "\n## Measurements\n\nMedian (smallest–largest) of all rounds.\n")?;
    let names = ServerKind::ALL.map(ServerKind::name);
    writeln!(out, "| scenario | what | {} |\n|---|---|{}", names.join(" | "), "---|".repeat(names.len()))?;
    for row in ROWS {
        let cells = names.map(|hub| results.spread(row.scenario, hub, row.figure));
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

/// The scenarios that consist of steps, for this hub.
fn steps(out: &mut String, results: &Results, scenario: &str) -> anyhow::Result<()> {
    let Some(first) = results.of(scenario, "tidings").next() else { return Ok(()) };
    writeln!(
        out,
        "\n### {scenario}\n\n| step | process memory per subscriber, B | p50, ms | p99, ms | server CPU, µs per delivery |\n|---|---|---|---|---|"
    )?;
    for (place, step) in first.steps.iter().enumerate() {
        write!(out, "| {} |", step.name)?;
        for taken in [bytes as Figure, p50, p99, cpu] {
            let values = results.of(scenario, "tidings").filter_map(|report| {
                let steps = vec![report.steps.get(place)?.clone()];
                taken(&Report { steps, ..Report::default() })
            });
            match crate::results::spread(values.collect()) {
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

fn faults(out: &mut String, results: &Results) -> anyhow::Result<()> {
    writeln!(out, "\n## Faults\n")?;
    for hub in ServerKind::ALL.map(ServerKind::name) {
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

/// Three digits, or all digits before the point.
fn figure(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let (whole, part) = text
        .split_once('.')
        .map_or((text.as_str(), String::new()), |(whole, part)| (whole, format!(".{part}")));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + &part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_at_least() {
        assert_eq!([0.123, 12.34, 1234.5, 6_737_000.0].map(figure), ["0.12", "12.3", "1,234", "6,737,000"]);
    }
}
