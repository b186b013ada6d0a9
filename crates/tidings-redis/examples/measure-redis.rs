//! The cost of a log on Redis, compared with a bare PUBLISH and SUBSCRIBE on the same server, in
//! one run:
//!
//!     cargo run --release -p tidings-redis --example measure-redis
//!
//! Latencies are taken in alternation, one of each kind after the other, so that a disturbance
//! affects all. Two nodes of the log have connections of their own, as two hubs have; the hubs are
//! in this process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures_util::StreamExt;
use tidings::{
    Hub, MemoryLimits, NewEvent, Since, Subscribe,
    log::{Appended, Batch, Log, TailItem},
};
use tidings_redis::{RedisLog, RedisSettings};
use tidings_testkit::RedisServer;
use tidings_topic::Validator;
use tokio::{task::JoinSet, time::sleep};

/// Round trips of each kind, and how many are skipped at the beginning.
const TRIPS: usize = 2_000;
const WARM_UP: usize = 200;
/// Publishers that append at the same time, and for how long.
const PUBLISHERS: usize = 64;
const THROUGHPUT_TIME: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    let open = async |parameters: &str| {
        let url = format!("{}{parameters}", server.url()).parse()?;
        let settings = RedisSettings::from_url(url, MemoryLimits::default())?;
        anyhow::Ok(RedisLog::open(settings).await?)
    };
    latencies(&server, open("").await?, open("").await?).await?;
    for batch in [1, 100] {
        throughput(&open("").await?, batch).await?;
    }
    for publishers in [1, PUBLISHERS] {
        hub_throughput(open("").await?, publishers).await?;
    }
    let replicaof = format!("replicaof 127.0.0.1 {}", server.port());
    let _replica = RedisServer::start_with(&[&replicaof, "repl-diskless-sync-delay 0"]).await?;
    println!("each waits for a replica:");
    while !server.command(&["INFO", "replication"]).await?.contains("state=online") {
        sleep(Duration::from_millis(100)).await;
    }
    throughput(&open("?wait=1").await?, 1).await
}

async fn latencies(server: &RedisServer, one: RedisLog, other: RedisLog) -> anyhow::Result<()> {
    let client = redis::Client::open(server.url())?;
    let mut publisher = client.get_multiplexed_async_connection().await?;
    let mut subscriber = client.get_async_pubsub().await?;
    subscriber.subscribe("bare").await?;
    let mut bare = subscriber.into_on_message();

    let (_, mut tail) = other.tail().await?;
    let (here, there) =
        (Hub::builder().log(one.clone()).start().await?, Hub::builder().log(other).start().await?);
    let topic = there.validator().exact("hubs")?;
    let mut stream = there.subscribe(Subscribe::new([topic]).since(Since::Now)).await?;
    let event = |topic: &str| Validator::default().event(NewEvent::new(topic, "x".repeat(100)));

    let (mut bares, mut logs, mut hubs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..WARM_UP + TRIPS {
        let started = Instant::now();
        redis::cmd("PUBLISH").arg("bare").arg("x".repeat(100)).exec_async(&mut publisher).await?;
        bare.next().await.context("the subscription ended")?;
        bares.push(started.elapsed());

        let started = Instant::now();
        one.append(Batch { events: vec![event("log")?], key: None }).await?;
        while !is_there(tail.next(1 << 20).await.context("the tail ended")?) {}
        logs.push(started.elapsed());

        let started = Instant::now();
        here.publish(NewEvent::new("hubs", "x".repeat(100))).await?;
        while !stream.next().await.context("the stream ended")?.windows(5).any(|bytes| bytes == b"data:") {}
        hubs.push(started.elapsed());
    }
    for (name, mut times) in
        [("PUBLISH, SUBSCRIBE", bares), ("append, tail of another node", logs), ("hub to another hub", hubs)]
    {
        times.drain(..WARM_UP);
        times.sort_unstable();
        let at = |part: usize| times[times.len() * part / 1_000];
        println!("{name:30} p50 {:>9.1?}  p99 {:>9.1?}  p99.9 {:>9.1?}", at(500), at(990), at(999));
    }
    Ok(())
}

/// Whether the event of the round trip is among the items of a tail, which may begin with that of
/// the hubs.
fn is_there(item: TailItem) -> bool {
    let TailItem::Entries(entries) = item else { return false };
    entries.iter().any(|entry| entry.event.topics[0].as_str() == "log")
}

/// Publishers of one hub, which appends for them together.
async fn hub_throughput(log: RedisLog, publishers: usize) -> anyhow::Result<()> {
    let hub = Hub::builder().log(log).start().await?;
    let started = Instant::now();
    let mut publishing = JoinSet::new();
    for _ in 0..publishers {
        let hub = hub.clone();
        publishing.spawn(async move {
            let mut latencies = Vec::new();
            while started.elapsed() < THROUGHPUT_TIME {
                let published = Instant::now();
                hub.publish(NewEvent::new("many", "x".repeat(100))).await?;
                latencies.push(published.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(joined) = publishing.join_next().await {
        latencies.extend(joined??);
    }
    latencies.sort_unstable();
    let rate = (latencies.len() as u128 * 1_000) / started.elapsed().as_millis();
    let at = |part: usize| latencies[latencies.len() * part / 100];
    println!("{publishers} publishers of a hub: {rate} events a second, p50 {:?}, p99 {:?}", at(50), at(99));
    Ok(())
}

async fn throughput(log: &RedisLog, batch: usize) -> anyhow::Result<()> {
    let event = Validator::default().event(NewEvent::new("many", "x".repeat(100)))?;
    let log = Arc::new(log.clone());
    let started = Instant::now();
    let mut publishers = JoinSet::new();
    for _ in 0..PUBLISHERS {
        let (log, event) = (Arc::clone(&log), event.clone());
        publishers.spawn(async move {
            let mut count = 0;
            while started.elapsed() < THROUGHPUT_TIME {
                let answer = log.append(Batch { events: vec![event.clone(); batch], key: None }).await?;
                anyhow::ensure!(matches!(answer, Appended::New { .. }), "it was not appended");
                count += batch;
            }
            Ok(count)
        });
    }
    let mut count = 0;
    while let Some(joined) = publishers.join_next().await {
        count += joined??;
    }
    let rate = (count as u128 * 1_000) / started.elapsed().as_millis();
    println!("{PUBLISHERS} publishers, batches of {batch:3}: {rate} events a second");
    Ok(())
}
