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
    page,
    results::Results,
    servers::{Folder, Server, ServerKind, syncs_per_second},
};

/// The minimum number of rounds of a comparison that replaces the page.
const ROUNDS_KEPT_MIN: usize = 3;
/// nice(1): no other process shall interfere. Only as root.
const PRIORITY: i32 = -5;

/// Compare Tidings with nchan and an axum handler
#[derive(Parser)]
pub(crate) struct Args {
    /// Scenarios to run [default: all]
    scenarios: Vec<String>,
    /// Number of rounds; the page shows medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Servers to measure: tidings, tidings-disk, tidings-redis, nchan, axum; repeatable [default:
    /// all]
    #[arg(long = "server", value_name = "NAME")]
    servers: Vec<String>,
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
    let compared = compared();
    let scenarios = chosen(&args.scenarios, &compared, |measured| measured.name)?;
    let servers = chosen(&args.servers, &ServerKind::ALL, ServerKind::name)?;
    let servers: Vec<ServerKind> = servers.into_iter().filter(|server| available(*server)).collect();
    if rustix::process::nice(PRIORITY).is_err() {
        eprintln!("NOTE: not root, so priority cannot be raised and kernel memory cannot be read");
    }

    let began = Instant::now();
    let mut results = Results::default();
    for round in 0..args.rounds {
        for scenario in &scenarios {
            // The first server of one round is the last of the next.
            for place in 0..servers.len() {
                let server = servers[(place + round) % servers.len()];
                if !scenario.is_for(server) {
                    continue;
                }
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

    let syncs =
        servers.contains(&ServerKind::TidingsDisk).then(|| syncs_per_second(&args.programs)).transpose()?;
    let text = page::write(&results, args.rounds, began.elapsed(), syncs)?;
    let complete = scenarios.len() == compared.len() && servers.len() == ServerKind::ALL.len();
    if complete && args.rounds >= ROUNDS_KEPT_MIN {
        fs::write(&args.page, text).with_context(|| format!("cannot write {}", args.page.display()))?;
        eprintln!("The page is {}", args.page.display());
    } else {
        println!("{text}");
    }
    for hub in ["tidings", "tidings-disk", "tidings-redis"] {
        let faults = results.faults_of(hub);
        ensure!(faults.is_none(), "{hub}: {faults}");
    }
    Ok(())
}

/// A scenario of the load client, in its default size or another.
#[derive(Clone, Copy)]
struct Measured {
    name: &'static str,
    scenario: Scenario,
    size: &'static [&'static str],
}

/// Enough publishers to share a sync.
const PUBLISH_64: Measured =
    Measured { name: "publish-64", scenario: Scenario::Publish, size: &["--publishers", "64"] };
/// Five times the cache of a log in files.
const REPLAY_LONG: Measured = Measured {
    name: "replay-long",
    scenario: Scenario::Replay,
    size: &["--subscribers", "20", "--events", "40000", "--payload-bytes", "1024"],
};

/// The compared scenarios: all except the soak, which compares a hub with itself half an hour
/// later.
fn compared() -> Vec<Measured> {
    let scenarios = Scenario::ALL.into_iter().filter(|scenario| *scenario != Scenario::Soak);
    let own_size = scenarios.map(|scenario| Measured { name: scenario.name(), scenario, size: &[] });
    own_size.chain([PUBLISH_64, REPLAY_LONG]).collect()
}

impl Measured {
    /// Whether a scenario applies to a server: history, a storm and private events only where the
    /// server has them; with a log in files or on Redis only what that may affect.
    fn is_for(self, server: ServerKind) -> bool {
        if self.name == REPLAY_LONG.name {
            return matches!(server, ServerKind::Tidings | ServerKind::TidingsDisk);
        }
        match (self.scenario, server) {
            (Scenario::Replay | Scenario::Storm | Scenario::Growth, ServerKind::Axum) => false,
            (Scenario::SlowReaders | Scenario::Private, server) => server == ServerKind::Tidings,
            (scenario, ServerKind::TidingsDisk | ServerKind::TidingsRedis) => matches!(
                scenario,
                Scenario::Fanout | Scenario::FanoutSlow | Scenario::Publish | Scenario::Replay
            ),
            _ => true,
        }
    }
}

/// The relevant part of what `tidings bench --json -` prints.
#[derive(Deserialize)]
struct Printed {
    results: Vec<Report>,
}

fn measure(args: &Args, measured: Measured, kind: ServerKind) -> anyhow::Result<Report> {
    let Measured { name, scenario, size } = measured;
    let folder = Folder::new(&args.programs)?;
    let private = scenario == Scenario::Private;
    let server = Server::start(kind, &folder, private)?;
    let mut bench = Command::new(folder.program("tidings")?);
    bench.env_remove("TIDINGS_TOKEN").args(["bench", scenario.name(), "--json", "-"]);
    bench.args(["--hub", kind.preset(), "--url", &server.url()]).args(size);
    bench.args(["--server-pid", &server.pid().to_string()]);
    if scenario == Scenario::Storm {
        bench.args(["--restart-command", &server.command_line()]);
        // Only the memory of Tidings must return to its level.
        if kind != ServerKind::Tidings {
            bench.args(["--settle", "1s"]);
        }
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

fn available(server: ServerKind) -> bool {
    let missing = server.missing();
    if let Some(missing) = &missing {
        eprintln!("NOTE: continuing without {}: {missing}", server.name());
    }
    missing.is_none()
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
