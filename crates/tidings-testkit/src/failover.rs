//! Hubs on one store: publishers at all of them, subscribers that move from one to the other, and
//! repeated outages of the store or of the hubs.
//!
//! Checked promises (`check.rs`): every acknowledged event reaches every subscriber, in one order
//! for all, none twice, and no gap is reported, because nothing is lost. If a store does lose
//! events, every subscriber that misses one gets a gap notice at that position.

mod check;

use std::{
    env,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{bail, ensure};
use tidings_sse::ParsedEvent;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use crate::{Connection, EventStream, patiently};

pub use self::check::Losses;
use self::check::{END, Received};

const PUBLISHERS: usize = 6;
const SUBSCRIBERS: usize = 6;
/// Publications that are acknowledged between two outages.
const BETWEEN_OUTAGES: u64 = 150;
/// The maximum number of events that a subscriber receives from one hub before it moves to the
/// next.
const RECEIVED_MAX: usize = 40;
/// The delay before a refused client retries; it only saves processor time.
const BREATH: Duration = Duration::from_millis(5);
const STREAM: &str = "/stream?topic=failover&since=earliest";

/// The number of outages: `TIDINGS_OUTAGES`, or this default.
pub fn outages(default: u64) -> u64 {
    env::var("TIDINGS_OUTAGES").ok().map_or(default, |text| text.parse().expect("a number"))
}

/// The result of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wandered {
    /// Publications that were acknowledged.
    pub acknowledged: usize,
    /// Those of them that had a key.
    pub keyed: u64,
    /// Publications that were refused, or whose outcome was unknown.
    pub refused: u64,
    /// Gaps that were reported to all subscribers together.
    pub gaps: usize,
}

/// The state that publishers share with the task that causes outages.
#[derive(Debug, Default)]
pub struct Load {
    acknowledged: watch::Sender<u64>,
    keyed: watch::Sender<u64>,
    refused: watch::Sender<u64>,
    /// Subscribers that have received an event. Only these can miss one.
    listening: watch::Sender<u64>,
    is_over: AtomicBool,
}

impl Load {
    /// Waits until each hub refuses publications: then all of them have noticed that the store is
    /// down.
    pub async fn is_refused(&self, hubs: usize) -> anyhow::Result<()> {
        let seen = *self.refused.borrow();
        reach(&self.refused, "publications to be refused", seen + (PUBLISHERS * hubs) as u64).await
    }

    /// Waits until this many publications with a key have been acknowledged since the beginning.
    pub async fn has_keyed(&self, count: u64) -> anyhow::Result<()> {
        reach(&self.keyed, "publications with a key to be acknowledged", count).await
    }
}

/// Waits until a count is reached, with a timeout for each step.
async fn reach(count: &watch::Sender<u64>, what: &str, enough: u64) -> anyhow::Result<()> {
    let mut count = count.subscribe();
    while *count.borrow_and_update() < enough {
        patiently(what, count.changed()).await??;
    }
    Ok(())
}

/// Publishes and subscribes at these hubs, which share a store, while `outage` stops and restarts
/// the store or a hub this many times.
pub async fn run_failover(
    hubs: &[SocketAddr],
    outages: u64,
    losses: Losses,
    mut outage: impl AsyncFnMut(u64, &Load) -> anyhow::Result<()>,
) -> anyhow::Result<Wandered> {
    let load = Arc::<Load>::default();
    let mut publishers = JoinSet::new();
    for name in 0..PUBLISHERS {
        publishers.spawn(publish(hubs.to_vec(), name, Arc::clone(&load)));
    }
    let mut subscribers = JoinSet::new();
    for name in 0..SUBSCRIBERS {
        subscribers.spawn(listen(hubs.to_vec(), name, false, Arc::clone(&load)));
    }
    reach(&load.listening, "subscribers to receive something", SUBSCRIBERS as u64).await?;
    for round in 0..=outages {
        let enough = *load.acknowledged.borrow() + BETWEEN_OUTAGES;
        tokio::select! {
            progress = reach(&load.acknowledged, "publications to be acknowledged", enough) => progress?,
            ended = subscribers.join_next() => bail!("a subscriber ended before the end: {ended:?}"),
            ended = publishers.join_next() => bail!("a publisher ended before the end: {ended:?}"),
        }
        if round < outages {
            outage(round, &load).await?;
        }
    }
    load.is_over.store(true, Relaxed);
    let said = all(publishers).await?;
    // This hub may still be affected by the last outage.
    while !post(hubs[0], &mut None, "POST /topics/failover\nIdempotency-Key: end", END).await? {
        sleep(BREATH).await;
    }
    let received = all(subscribers).await?;
    if losses == Losses::None {
        // A client that subscribes last reads the complete log, at each hub.
        let log = listen(hubs[..1].to_vec(), 0, true, Arc::clone(&load)).await?;
        for hub in &hubs[1..] {
            ensure!(listen(vec![*hub], 0, true, Arc::clone(&load)).await? == log, "the log differs at {hub}");
        }
        check::nothing_is_lost(&said, &log, &received)?;
    }
    let gaps = check::losses_are_reported(&said, &received, losses)?;
    let (keyed, refused) = (*load.keyed.borrow(), *load.refused.borrow());
    Ok(Wandered { acknowledged: said.iter().map(Vec::len).sum(), keyed, refused, gaps })
}

async fn all<T: 'static>(mut tasks: JoinSet<anyhow::Result<T>>) -> anyhow::Result<Vec<T>> {
    let mut results = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        results.push(ended??);
    }
    Ok(results)
}

/// Publishes until the load is over, and returns the acknowledged events. Every other publisher
/// uses keys and repeats each event until it is acknowledged, at one hub after the other. Without a
/// key a failed event is not repeated, since it may have been published.
async fn publish(hubs: Vec<SocketAddr>, name: usize, load: Arc<Load>) -> anyhow::Result<Vec<String>> {
    let has_keys = name.is_multiple_of(2);
    let mut at = name;
    let mut said = Vec::new();
    let mut kept = None;
    for count in 0.. {
        if load.is_over.load(Relaxed) {
            break;
        }
        let data = format!("{name}:{count}");
        let key = if has_keys { format!("\nIdempotency-Key: {name}-{count}") } else { String::new() };
        let head = format!("POST /topics/failover{key}");
        loop {
            if post(hubs[at % hubs.len()], &mut kept, &head, &data).await? {
                load.acknowledged.send_modify(|count| *count += 1);
                load.keyed.send_modify(|count| *count += u64::from(has_keys));
                said.push(data);
                break;
            }
            load.refused.send_modify(|count| *count += 1);
            sleep(BREATH).await;
            at += 1;
            kept = None;
            if !has_keys {
                break;
            }
        }
    }
    Ok(said)
}

/// Whether a publication was acknowledged. A hub that is killed answers nothing.
async fn post(
    address: SocketAddr,
    kept: &mut Option<Connection>,
    head: &str,
    data: &str,
) -> anyhow::Result<bool> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(address).await?,
    };
    if connection.request(head, data.as_bytes()).await.is_err() {
        return Ok(false);
    }
    let Ok(response) = connection.response().await else { return Ok(false) };
    match response.status {
        200 => *kept = Some(connection),
        503 => {
            // A publisher whose event may have been published gets no time to retry.
            let is_unknown = response.text().contains("may or may not");
            ensure!(is_unknown || response.header("retry-after").is_some(), "no retry-after: {response}");
        }
        status => bail!("a publication was answered {status}: {}", response.text()),
    }
    Ok(response.status == 200)
}

/// Subscribes until the last event, at one hub after the other, or stays at one; returns everything
/// it received.
async fn listen(
    hubs: Vec<SocketAddr>,
    name: usize,
    stays: bool,
    load: Arc<Load>,
) -> anyhow::Result<Vec<Received>> {
    let mut received = Vec::new();
    let mut last_id: Option<String> = None;
    for at in name.. {
        let hub = hubs[at % hubs.len()];
        let opened = match &last_id {
            Some(id) => EventStream::resume(hub, STREAM, id).await,
            None => EventStream::open(hub, STREAM).await,
        };
        let Ok(mut stream) = opened else {
            sleep(BREATH).await;
            continue;
        };
        let received_max = if stays { usize::MAX } else { 1 + (at * 7) % RECEIVED_MAX };
        for _ in 0..received_max {
            let Ok(event) = stream.next().await else { break };
            let ParsedEvent { event_type, data, last_event_id, .. } = event;
            match &*event_type {
                "message" => {}
                "tidings" if data.contains("\"kind\":\"gap\"") => {
                    received.push(Received::Gap);
                    last_id = Some(last_event_id);
                    continue;
                }
                // A hub that stops sends a notice; the subscriber continues at the next one.
                "tidings" if data.contains("\"kind\":\"reconnect\"") => break,
                other => bail!("an event of the type {other}: {data}"),
            }
            if received.is_empty() {
                load.listening.send_modify(|count| *count += 1);
            }
            last_id = Some(last_event_id.clone());
            let is_end = data == END;
            received.push(Received::Event { id: last_event_id, data });
            if is_end {
                return Ok(received);
            }
        }
    }
    bail!("the number of events does not fit")
}
