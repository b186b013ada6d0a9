//! The bare loop serves the load client: nothing is lost, duplicated or reordered, live or replayed.
#![cfg(target_os = "linux")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use tidings_bench::{Plan, Preset, Progress, Scenario, Target};

/// A bare loop on a free port. Dropping this value kills it.
struct Bare(Child);

impl Bare {
    fn start() -> (Self, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings-bench-bare"));
        let mut child = command.arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        (Self(child), url.trim().to_owned())
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn every_delivery_arrives_once_and_in_order() {
    let (_bare, url) = Bare::start();
    for (scenario, subscribers, events, deliveries) in [
        (Scenario::Fanout, 150, 100, 15_000),
        (Scenario::Many, 50, 200, 200),
        (Scenario::Burst, 10, 1_000, 10_000),
        (Scenario::Publish, 0, 500, 0),
        // More than one `send` takes.
        (Scenario::Replay, 20, 1_000, 5 * 20_000),
    ] {
        let mut plan = Plan::new(Target::preset(Preset::Tidings, &url), scenario);
        (plan.subscribers, plan.events) = (Some(subscribers), Some(events));
        let report = tidings_bench::run(&plan, &mut Progress::hidden()).unwrap();
        assert!(report.faults().is_none(), "{report}");
        let traffic = report.steps[0].traffic.as_ref().unwrap();
        assert_eq!(traffic.deliveries, deliveries, "{report}");
    }
}

#[test]
fn a_reader_that_stops_reading_receives_everything_in_the_end() {
    let (_bare, url) = Bare::start();
    let mut plan = Plan::new(Target::preset(Preset::Tidings, &url), Scenario::SlowReaders);
    (plan.subscribers, plan.events, plan.rate) = (Some(20), Some(60), Some(100.0));
    plan.payload_bytes = Some(64 << 10);
    let report = tidings_bench::run(&plan, &mut Progress::hidden()).unwrap();
    assert!(report.faults().is_none(), "{report}");
}
