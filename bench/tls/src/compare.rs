//! Rounds, and what is printed of them.

use std::env;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::measure::{Cost, Load, Way, measure};

pub(crate) async fn run() -> anyhow::Result<()> {
    let mut numbers = env::args().skip(1).map(|word| {
        word.parse::<u32>().ok().filter(|&number| number > 0).with_context(|| {
            format!("`{word}` is not a number of subscribers, events or rounds, which is at least 1")
        })
    });
    let mut number = |default: u32| numbers.next().unwrap_or(Ok(default));
    let load = Load { subscribers: number(500)?, events: number(200)? };
    let rounds = number(3)?;
    // The hub raises its own; nginx and this program have what they are given.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;

    println!("{load}; processor time of a delivery in µs");
    let mut costs: Vec<[Cost; 3]> = Vec::new();
    for round in 1..=rounds {
        let mut measured = [Cost::default(); 3];
        for (cost, way) in measured.iter_mut().zip(Way::ALL) {
            *cost = measure(way, load).await?;
        }
        print(&format!("round {round}"), measured);
        costs.push(measured);
    }
    let median = |of: &dyn Fn(&[Cost; 3]) -> f64| {
        let mut all: Vec<_> = costs.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let cost =
        |at: usize| Cost { hub: median(&|round| round[at].hub), nginx: median(&|round| round[at].nginx) };
    print("medians", [cost(0), cost(1), cost(2)]);
    println!(
        "the hub with TLS over the hub with nginx: {:.2}; over the hub without TLS: {:.2} (medians of {rounds})",
        median(&|[_, own, nginx]| own.total() / nginx.total()),
        median(&|[plain, own, _]| own.total() / plain.total()),
    );
    Ok(())
}

fn print(name: &str, [plain, own, nginx]: [Cost; 3]) {
    println!(
        "{name}: without TLS {:.2}; the hub with TLS {:.2}; nginx in front {:.2} (hub {:.2}, nginx {:.2})",
        plain.hub,
        own.hub,
        nginx.total(),
        nginx.hub,
        nginx.nginx
    );
}
