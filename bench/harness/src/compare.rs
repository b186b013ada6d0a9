//! The runs of a comparison, and their order.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use serde::Deserialize;
use tidings_bench::{Report, Scenario};

use crate::{
    folder::Folder,
    machine::syncs_per_second,
    measured::{self, Measured},
    page::{self, Run},
    results::Results,
    servers::{Server, ServerKind},
    store::Store,
};

/// The minimum number of rounds of a comparison that replaces the page.
const ROUNDS_KEPT_MIN: usize = 3;
/// nice(1): no other process shall interfere. Only as root.
const PRIORITY: i32 = -5;

/// Compare Tidings with other servers, or with another build of itself
#[derive(Parser)]
pub(crate) struct Args {
    /// Scenarios to run [default: all]
    scenarios: Vec<String>,
    /// Number of rounds; the page shows medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Servers to measure: tidings, tidings-disk, tidings-redis, tidings-nats, bare, nchan, axum,
    /// mercure, centrifugo; repeatable [default: all, with --baseline only tidings]
    #[arg(long = "server", value_name = "NAME")]
    servers: Vec<String>,
    /// Another build of `tidings` to compare with: each measured server that is a Tidings is measured
    /// with both builds
    #[arg(long, value_name = "PROGRAM")]
    baseline: Option<PathBuf>,
    /// Folder of the built programs
    #[arg(long, default_value = "target/release")]
    programs: PathBuf,
    /// File for the page if the comparison is complete
    #[arg(long, default_value = "docs/benchmarks.md")]
    page: PathBuf,
}

pub(crate) fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.rounds > 0, "--rounds: must be at least 1");
    let compared = measured::all();
    let scenarios = chosen(&args.scenarios, &compared, |measured| measured.name)?;
    let mut wanted = chosen(&args.servers, &ServerKind::ALL, ServerKind::name)?;
    if args.baseline.is_some() {
        if args.servers.is_empty() {
            wanted = vec![ServerKind::Tidings(Store::Memory)];
        }
        wanted = wanted.into_iter().flat_map(|server| [Some(server), server.baseline()]).flatten().collect();
    }
    let missing: Vec<(ServerKind, &str)> =
        wanted.iter().filter_map(|server| Some((*server, server.missing()?))).collect();
    for (server, why) in &missing {
        eprintln!("NOTE: continuing without {}: {why}", server.name());
    }
    let servers: Vec<ServerKind> = wanted.into_iter().filter(|server| server.missing().is_none()).collect();
    if rustix::process::nice(PRIORITY).is_err() {
        eprintln!("NOTE: not root, so priority cannot be raised and kernel memory cannot be read");
    }

    let began = Instant::now();
    let mut results = Results::default();
    for round in 0..args.rounds {
        for scenario in &scenarios {
            for server in order(*scenario, &servers, round) {
                eprintln!(
                    "== round {} of {}: {} of {}",
                    round + 1,
                    args.rounds,
                    scenario.name,
                    server.name()
                );
                results.add(measure(&args, *scenario, server)?);
            }
        }
    }

    let on_disk = servers.contains(&ServerKind::Tidings(Store::Files));
    let syncs = on_disk.then(|| syncs_per_second(&args.programs)).transpose()?;
    let run = Run { servers: &servers, missing: &missing, rounds: args.rounds, took: began.elapsed(), syncs };
    let text = page::write(&results, &run)?;
    let all_servers = ServerKind::ALL.iter().all(|server| server.is_optional() || servers.contains(server));
    let complete = scenarios.len() == compared.len() && all_servers && args.baseline.is_none();
    if complete && args.rounds >= ROUNDS_KEPT_MIN {
        fs::write(&args.page, text).with_context(|| format!("cannot write {}", args.page.display()))?;
        eprintln!("The page is {}", args.page.display());
    } else {
        println!("{text}");
    }
    for hub in Store::ALL.map(|store| ServerKind::Tidings(store).name()) {
        let faults = results.faults_of(hub);
        ensure!(faults.is_none(), "{hub}: {faults}");
    }
    Ok(())
}

/// The runs of a scenario in a round. The first server of one round is the last of the next, and a
/// server with several runs has them between those of the others.
fn order(scenario: Measured, servers: &[ServerKind], round: usize) -> Vec<ServerKind> {
    let mut rotated = servers.to_vec();
    rotated.rotate_left(round % servers.len().max(1));
    let runs_max = rotated.iter().map(|server| scenario.runs_per_round(*server)).max().unwrap_or(0);
    let nth = |run| rotated.iter().copied().filter(move |server| scenario.runs_per_round(*server) > run);
    (0..runs_max).flat_map(nth).collect()
}

/// The relevant part of what `tidings bench --json` prints.
#[derive(Deserialize)]
struct Printed {
    results: Vec<Report>,
}

fn measure(args: &Args, measured: Measured, kind: ServerKind) -> anyhow::Result<Report> {
    let Measured { name, scenario, size } = measured;
    let folder = Folder::new(&args.programs, args.baseline.as_deref())?;
    let private = scenario == Scenario::Private;
    let server = Server::start(kind, &folder, private)?;
    let mut bench = Command::new(folder.program("tidings")?);
    bench.env_remove("TIDINGS_TOKEN").args(["bench", scenario.name(), "--json"]);
    bench.args(["--hub", kind.preset(), "--url", &server.url()]).args(size);
    bench.args(["--server-pid", &server.pid().to_string()]);
    if scenario == Scenario::Storm {
        bench.args(["--restart-command", &server.command_line()]);
        // Only the memory of Tidings must return to its level.
        if kind.store().is_none() {
            bench.args(["--settle", "1s"]);
        }
    }
    if let Some(token) = kind.token() {
        bench.env("TIDINGS_TOKEN", token);
    }
    if private {
        let tokens = folder.tokens()?;
        bench.arg("--subscribe-tokens").arg(tokens.subscribe).env("TIDINGS_TOKEN", tokens.publish);
    }
    // Exit code 1 comes with a report of faults; without a report the comparison cannot continue.
    let output = bench.stderr(Stdio::inherit()).output().context("cannot start tidings bench")?;
    let printed: Printed = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{name} of {} gave no result ({})", kind.name(), output.status))?;
    let mut report = printed.results.into_iter().next().context("an empty result")?;
    (report.scenario, report.hub) = (name.to_owned(), kind.name().to_owned());
    eprint!("{report}");
    Ok(report)
}

fn chosen<T: Copy>(
    names: &[String],
    all: &[T],
    name_of: impl Fn(T) -> &'static str,
) -> anyhow::Result<Vec<T>> {
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    for name in names {
        if !all.iter().any(|one| name_of(*one) == name) {
            let known: Vec<_> = all.iter().map(|one| name_of(*one)).collect();
            bail!("there is no `{name}`; there are {}", known.join(", "));
        }
    }
    Ok(all.iter().copied().filter(|one| names.iter().any(|name| name_of(*one) == name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(scenario: &str, servers: &[ServerKind]) -> Vec<Vec<&'static str>> {
        let scenario = measured::all().into_iter().find(|measured| measured.name == scenario).unwrap();
        let names = |round| order(scenario, servers, round).into_iter().map(ServerKind::name).collect();
        (0..2).map(names).collect()
    }

    #[test]
    fn two_builds_take_turns_at_being_first() {
        let servers = [ServerKind::Tidings(Store::Memory), ServerKind::Baseline(Store::Memory)];
        assert_eq!(orders("many", &servers), [["tidings", "baseline"], ["baseline", "tidings"]]);
    }

    #[test]
    fn several_runs_of_a_server_are_between_those_of_the_others() {
        let servers =
            [ServerKind::Tidings(Store::Memory), ServerKind::Tidings(Store::Files), ServerKind::Axum];
        let first = ["tidings", "tidings-disk", "axum", "tidings", "tidings-disk", "tidings", "tidings-disk"];
        assert_eq!(orders("fanout-slow", &servers)[0], first);
    }

    #[test]
    fn an_unknown_name_is_refused_with_those_that_exist() {
        let names = ["tidings".to_owned(), "tiding".to_owned()];
        let error = chosen(&names, &ServerKind::ALL, ServerKind::name).unwrap_err().to_string();
        assert!(error.starts_with("there is no `tiding`; there are tidings, tidings-disk"), "{error}");
    }
}
