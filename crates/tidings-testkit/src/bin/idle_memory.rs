//! What an idle subscriber costs a hub: `make bench` runs this.
//!
//!     tidings-idle-memory [SUBSCRIBERS]
//!
//! Starts `tidings serve`, measures the process without subscribers, opens that many (15,000 unless told
//! otherwise), publishes once so that every one has been served, and measures again. Memory is what the kernel
//! says of the process (`smaps_rollup`: private pages plus its share of the others) and of all TCP sockets
//! together (`slabinfo`, both ends of every connection, as root only).

use std::env;
use std::fs;
use std::time::Instant;

use anyhow::{Context, ensure};
use tidings_testkit::{EventStream, Hub};

const SUBSCRIBERS: usize = 15_000;
/// Descriptors beside the subscribers' own: standard streams, the runtime, the publisher.
const SPARE_DESCRIPTORS: u64 = 100;
const DEVELOPMENT_NOTE: &str = "NOTE: a development build; `make bench` measures the release build";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let subscribers: usize = match env::args().nth(1) {
        Some(count) => count.parse().context("the number of subscribers")?,
        None => SUBSCRIBERS,
    };
    allow_descriptors(subscribers as u64 + SPARE_DESCRIPTORS)?;
    let hub = Hub::serve(&[]).await?;
    let pid = hub.pid().context("the hub ended")?;

    // One subscriber comes and goes first, so that what every hub needs once is in the baseline.
    subscribe_all(&hub, 1).await?;
    let before = Memory::of(pid)?;
    let began = Instant::now();
    let mut streams = subscribe_all(&hub, subscribers).await?;
    let connecting = began.elapsed();
    let connected = Memory::of(pid)?;
    hub.publish("idle", "one event").await?;
    for stream in &mut streams {
        let event = stream.next().await?;
        ensure!(event.data == "one event", "an event that nobody published: {event:?}");
    }
    let served = Memory::of(pid)?;

    if cfg!(debug_assertions) {
        println!("{DEVELOPMENT_NOTE}");
    }
    println!("{subscribers} idle subscribers, connected in {:.1} s", connecting.as_secs_f64());
    println!("{:<26}{:>14}{:>18}", "", "process, KiB", "per subscriber, B");
    println!("{:<26}{:>14}{:>18}", "no subscriber", before.process_kib, "");
    println!("{:<26}{}", "connected", connected.row(&before, subscribers));
    println!("{:<26}{}", "after one event to each", served.row(&before, subscribers));
    match (before.sockets_bytes, served.sockets_bytes) {
        (Some(before), Some(after)) => println!(
            "kernel, both ends of a connection: {} B",
            after.saturating_sub(before) / subscribers.max(1) as u64
        ),
        _ => println!("kernel: not readable without root"),
    }
    Ok(())
}

async fn subscribe_all(hub: &Hub, count: usize) -> anyhow::Result<Vec<EventStream>> {
    let mut streams = Vec::with_capacity(count);
    for number in 0..count {
        let stream = EventStream::open(hub.address(), "/stream?topic=idle").await;
        streams.push(stream.with_context(|| format!("subscriber {number}"))?);
    }
    Ok(streams)
}

/// Raises the soft limit of this process, and with it that of the hub that it starts.
fn allow_descriptors(needed: u64) -> anyhow::Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    ensure!(
        limit.maximum.is_none_or(|maximum| maximum >= needed),
        "this takes {needed} file descriptors, the hard limit (ulimit -Hn) is {:?}",
        limit.maximum
    );
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

struct Memory {
    process_kib: u64,
    sockets_bytes: Option<u64>,
}

impl Memory {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let rollup = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss line")?;
        let process_kib = pss.trim().trim_end_matches(" kB").parse().context("the Pss line")?;
        Ok(Self { process_kib, sockets_bytes: sockets_bytes() })
    }

    fn row(&self, before: &Self, subscribers: usize) -> String {
        let per = self.process_kib.saturating_sub(before.process_kib) * 1024 / subscribers.max(1) as u64;
        format!("{:>14}{per:>18}", self.process_kib)
    }
}

/// What the kernel's own tables say that sockets, their files and their poll entries take.
fn sockets_bytes() -> Option<u64> {
    const CACHES: [&str; 6] = ["TCP", "sock_inode_cache", "dentry", "filp", "eventpoll_epi", "ep_head"];
    let table = fs::read_to_string("/proc/slabinfo").ok()?;
    let bytes = table.lines().filter_map(|line| {
        let mut columns = line.split_whitespace();
        CACHES.contains(&columns.next()?).then_some(())?;
        let active: u64 = columns.next()?.parse().ok()?;
        let size: u64 = columns.nth(1)?.parse().ok()?;
        Some(active * size)
    });
    Some(bytes.sum())
}
