//! Many tenants with random permissions on one hub, who publish, subscribe, resume, read summaries,
//! delete, revoke and probe in any order: nothing leaks, in events, headers, notices, counts or
//! errors, and what is foreign costs the same work as what does not exist.
//!
//! Everything goes through the router, without sockets, in one thread and in paused time, so that
//! a seed does the same again. `TIDINGS_TENANT_REQUESTS` sets how many requests are made,
//! `TIDINGS_TENANT_SEED` runs the one hub with that seed.

#[path = "../support/mod.rs"]
mod support;

mod counting_log;
mod people;
mod probing;
mod publishing;
mod reading;
mod requests;
mod subscribing;
mod topics;
mod world;

use std::env;

use world::World;

/// Steps of one hub. A step is a request or two, or reading a stream.
const STEPS: usize = 80;
/// Requests without the environment variable.
const REQUESTS: u64 = 4_000;

#[test]
fn nothing_of_a_tenant_leaks_to_another() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse().expect("a number"));
    if let Some(seed) = number("TIDINGS_TENANT_SEED") {
        run(seed);
        return;
    }
    let requests_min = number("TIDINGS_TENANT_REQUESTS").unwrap_or(REQUESTS);
    let (mut requests, mut seed) = (0, 0);
    while requests < requests_min {
        requests += run(seed);
        seed += 1;
    }
    println!("{requests} requests to {seed} hubs");
}

/// One hub, from its start to its end. Returns the requests that were made.
fn run(seed: u64) -> u64 {
    let _named = SeedOfAFailure(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let mut world = World::new(seed).await;
        for _ in 0..STEPS {
            world.step().await;
        }
        world.finish().await
    })
}

/// Names the seed if the test fails.
struct SeedOfAFailure(u64);

impl Drop for SeedOfAFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to run this hub again: TIDINGS_TENANT_SEED={}", self.0);
        }
    }
}
