//! Starts everything, publishes, and reports the measurements.

use std::{fs, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use tidings_testkit::{Hub, RedisServer};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{Instant, MissedTickBehavior, interval},
};

use crate::subscribers::now_micros;

/// The length of the data of each event.
const DATA_BYTES: usize = 100;
/// The pause between two events.
const PACE: Duration = Duration::from_secs(1);

/// The subscribers of one hub.
struct Crowd {
    /// Killed when it is dropped.
    _process: Child,
    said: Lines<BufReader<ChildStdout>>,
}

/// Publishes this many events to this many hubs with this many subscribers each.
pub(crate) async fn run(hubs: usize, subscribers: usize, events: usize) -> anyhow::Result<()> {
    let redis = RedisServer::start().await?;
    let store = redis.url();
    let mut nodes = Vec::new();
    for _ in 0..hubs {
        nodes.push(Hub::serve(&["--store", &store]).await?);
    }
    let empty = memory_of_all(&nodes)?;
    let started = Instant::now();
    let mut crowds =
        nodes.iter().map(|hub| Crowd::start(hub, subscribers, events)).collect::<anyhow::Result<Vec<_>>>()?;
    for crowd in &mut crowds {
        ensure!(crowd.line().await? == "connected", "the subscribers do not connect");
    }
    let total = hubs * subscribers;
    println!("{hubs} hubs with {subscribers} subscribers each, {total} in all");
    println!("connected in {:.1} s", started.elapsed().as_secs_f64());
    let full = memory_of_all(&nodes)?;
    for (name, at) in [("with its share of the program", 0), ("written by itself", 1)] {
        let most = full.iter().map(|memory| memory[at]).max().unwrap_or_default();
        let grown: u64 =
            full.iter().zip(&empty).map(|(full, empty)| full[at].saturating_sub(empty[at])).sum();
        println!(
            "memory of the largest hub, {name}: {} KiB; of a subscriber {} bytes",
            most / 1024,
            grown / total as u64
        );
    }
    let before = (cpu_of_all(&nodes)?, redis_cpu(&redis).await?);
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0..events {
        pace.tick().await;
        let data = format!("{:DATA_BYTES$}", format!("event {number} {} ", now_micros()?));
        nodes[number % hubs].publish("all", &data).await?;
    }
    let mut late = vec![Vec::with_capacity(total); events];
    for crowd in &mut crowds {
        for late in &mut late {
            let line = crowd.line().await?;
            for word in line.split(' ') {
                late.push(word.parse::<u64>().with_context(|| format!("the subscribers printed {line:?}"))?);
            }
        }
    }
    let after = (cpu_of_all(&nodes)?, redis_cpu(&redis).await?);
    for (number, late) in late.iter().enumerate() {
        ensure!(late.len() == total, "event {number} came {} times to {total} subscribers", late.len());
    }
    let rest = late.split_off(1).concat();
    tell("the first event", late.concat());
    tell("the events after it", rest);
    let deliveries = f64::from(u32::try_from(total * events)?);
    println!(
        "processor time of all hubs: {:.1} µs a delivery; of Redis: {:.1} ms an event",
        (after.0 - before.0) * 1e6 / deliveries,
        (after.1 - before.1) * 1e3 / f64::from(u32::try_from(events)?)
    );
    let used = info(&redis, "memory", "used_memory:").await?;
    println!("memory of Redis: {:.0} KiB", used / 1024.0);
    println!("no event was lost, duplicated or out of order");
    Ok(())
}

impl Crowd {
    fn start(hub: &Hub, count: usize, events: usize) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("subscribers")
            .args([hub.address().to_string(), count.to_string(), events.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let said = BufReader::new(process.stdout.take().context("stdout was asked for")?).lines();
        Ok(Self { _process: process, said })
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        self.said.next_line().await?.context("a process of subscribers ended")
    }
}

fn tell(what: &str, mut micros: Vec<u64>) {
    micros.sort_unstable();
    let millis = |at: usize| micros[at.min(micros.len() - 1)] / 1_000;
    let (half, most) = (micros.len() / 2, micros.len() * 99 / 100);
    println!("{what}: p50 {} ms, p99 {} ms, last {} ms", millis(half), millis(most), millis(usize::MAX));
}

/// For each hub: its memory including its share of what it shares with the others, and the memory
/// that it has written, in bytes.
fn memory_of_all(hubs: &[Hub]) -> anyhow::Result<Vec<[u64; 2]>> {
    let memory = |hub: &Hub| {
        let table = fs::read_to_string(format!("/proc/{}/smaps_rollup", pid(hub)?))?;
        let field = |name: &str| -> anyhow::Result<u64> {
            let line = table.lines().find_map(|line| line.strip_prefix(name)).context("no such field")?;
            Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
        };
        Ok([field("Pss:")?, field("Pss_Anon:")?])
    };
    hubs.iter().map(memory).collect()
}

/// Seconds of processor time.
fn cpu_of_all(hubs: &[Hub]) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for hub in hubs {
        let table = fs::read_to_string(format!("/proc/{}/stat", pid(hub)?))?;
        let (_, fields) = table.rsplit_once(')').context("no name")?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        // The kernel reports hundredths, whatever unit it counts in.
        sum += ticks / 100.0;
    }
    Ok(sum)
}

fn pid(hub: &Hub) -> anyhow::Result<u32> {
    hub.pid().context("a hub ended")
}

async fn redis_cpu(redis: &RedisServer) -> anyhow::Result<f64> {
    Ok(info(redis, "cpu", "used_cpu_sys:").await? + info(redis, "cpu", "used_cpu_user:").await?)
}

async fn info(redis: &RedisServer, section: &str, field: &str) -> anyhow::Result<f64> {
    let answer = redis.command(&["INFO", section]).await?;
    let value = answer.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
    Ok(value.trim().parse()?)
}
