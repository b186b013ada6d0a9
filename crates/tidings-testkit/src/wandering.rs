//! Several hubs on one store: publishers on all of them, subscribers who wander from one to the other, and a store that goes away again and again.
//!
//! Promised, and checked: every acknowledged event reaches every subscriber, in one order for all, none twice, and no gap is told, because nothing is lost. A
//! store that does lose something is tested elsewhere.

use std::{
    collections::HashMap,
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

const PUBLISHERS: usize = 6;
const SUBSCRIBERS: usize = 4;
/// Publications that are acknowledged between two outages.
const BETWEEN_OUTAGES: u64 = 100;
/// So many events a subscriber hears from one hub before it goes to the next.
const HEARD_MAX: usize = 40;
/// Whoever was refused tries again after this; it only spares the processor.
const BREATH: Duration = Duration::from_millis(5);
/// The last event, behind everything.
const END: &str = "end";
const STREAM: &str = "/stream?topic=wandering&since=earliest";

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wandered {
    /// Publications that were acknowledged.
    pub acknowledged: usize,
    /// Events that are in the log.
    pub in_log: usize,
    /// Publications that were refused, or whose outcome was unknown.
    pub refused: u64,
}

/// What the publishers share with whoever makes the outages.
#[derive(Debug, Default)]
pub struct Load {
    acknowledged: watch::Sender<u64>,
    refused: watch::Sender<u64>,
    is_over: AtomicBool,
}

impl Load {
    /// Waits until publications are refused at each hub: then all of them know that the store is away.
    pub async fn is_refused(&self, hubs: usize) -> anyhow::Result<()> {
        let seen = *self.refused.borrow();
        let enough = seen + (PUBLISHERS * hubs) as u64;
        patiently("publications to be refused", self.refused.subscribe().wait_for(|count| *count >= enough))
            .await??;
        Ok(())
    }
}

/// Publishes and subscribes at these hubs, which share a store, while `outage` takes that away and brings it back so many times.
pub async fn wander(
    hubs: &[SocketAddr],
    outages: u64,
    mut outage: impl AsyncFnMut(u64, &Load) -> anyhow::Result<()>,
) -> anyhow::Result<Wandered> {
    let load = Arc::<Load>::default();
    let mut publishers = JoinSet::new();
    for name in 0..PUBLISHERS {
        publishers.spawn(publish(hubs.to_vec(), name, Arc::clone(&load)));
    }
    let mut subscribers = JoinSet::new();
    for name in 0..SUBSCRIBERS {
        subscribers.spawn(listen(hubs.to_vec(), name));
    }
    let mut acknowledged = load.acknowledged.subscribe();
    for round in 0..=outages {
        let enough = *acknowledged.borrow() + BETWEEN_OUTAGES;
        tokio::select! {
            progress = patiently("publications to be acknowledged", acknowledged.wait_for(|count| *count >= enough)) => {
                drop(progress??);
            }
            ended = subscribers.join_next() => bail!("a subscriber ended before the end: {ended:?}"),
            ended = publishers.join_next() => bail!("a publisher ended before the end: {ended:?}"),
        }
        if round < outages {
            outage(round, &load).await?;
        }
    }
    load.is_over.store(true, Relaxed);
    let mut said = Vec::new();
    while let Some(publisher) = publishers.join_next().await {
        said.push(publisher??);
    }
    while !post(hubs[0], &mut None, "POST /topics/wandering\nIdempotency-Key: end", END).await? {
        sleep(BREATH).await;
    }
    // Whoever comes at last reads the whole log, at each hub.
    let all = listen(hubs[..1].to_vec(), 0).await?;
    for hub in &hubs[1..] {
        ensure!(listen(vec![*hub], 0).await? == all, "the log is another one at {hub}");
    }
    check(&said, &all)?;
    while let Some(subscriber) = subscribers.join_next().await {
        let received = subscriber??;
        let difference = received.iter().zip(&all).position(|(one, other)| one != other);
        if let Some(at) = difference {
            bail!("a subscriber heard {:?} where the log has {:?}", received[at], all[at]);
        }
        ensure!(received.len() == all.len(), "a subscriber heard {} of {} events", received.len(), all.len());
    }
    let refused = *load.refused.borrow();
    Ok(Wandered { acknowledged: said.iter().map(Vec::len).sum(), in_log: all.len() - 1, refused })
}

/// Whether everything that was acknowledged is in the log, once, each publisher's in its order.
fn check(said: &[Vec<String>], all: &[(String, String)]) -> anyhow::Result<()> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for (_, data) in all {
        *counts.entry(data).or_default() += 1;
    }
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    ensure!(twice.is_empty(), "published twice: {twice:?}");
    for said in said {
        let lost: Vec<_> = said.iter().filter(|data| !counts.contains_key(data.as_str())).collect();
        ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let Some((name, _)) = said.first().and_then(|data| data.split_once(':')) else { continue };
        let in_log = all.iter().filter_map(|(_, data)| data.split_once(':')).filter(|(by, _)| *by == name);
        let numbers = in_log.map(|(_, number)| number.parse::<u64>()).collect::<Result<Vec<_>, _>>()?;
        let turned = numbers.windows(2).find(|pair| pair[0] > pair[1]);
        ensure!(turned.is_none(), "out of order, of publisher {name}: {turned:?}");
    }
    Ok(())
}

/// Publishes until the load is over, and returns what was acknowledged. With a key, which every other publisher has, each event is repeated until it
/// is acknowledged, at one hub after the other; without one what failed is not said again, since nobody knows whether it was published.
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
        let head = format!("POST /topics/wandering{key}");
        loop {
            if post(hubs[at % hubs.len()], &mut kept, &head, &data).await? {
                load.acknowledged.send_modify(|count| *count += 1);
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

/// Whether a publication was acknowledged.
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
    connection.request(head, data.as_bytes()).await?;
    let response = connection.response().await?;
    match response.status {
        200 => *kept = Some(connection),
        503 => {}
        status => bail!("a publication was answered {status}: {}", response.text()),
    }
    Ok(response.status == 200)
}

/// Listens until the last event, at one hub after the other; returns everything it got, each with its id.
async fn listen(hubs: Vec<SocketAddr>, name: usize) -> anyhow::Result<Vec<(String, String)>> {
    let mut received: Vec<(String, String)> = Vec::new();
    for at in name.. {
        let hub = hubs[at % hubs.len()];
        let opened = match received.last() {
            Some((id, _)) => EventStream::resume(hub, STREAM, id).await,
            None => EventStream::open(hub, STREAM).await,
        };
        let Ok(mut stream) = opened else {
            sleep(BREATH).await;
            continue;
        };
        for _ in 0..=(at * 7) % HEARD_MAX {
            let Ok(event) = stream.next().await else { break };
            let ParsedEvent { event_type, data, last_event_id, .. } = event;
            ensure!(event_type == "message", "a notice, after {:?}: {data}", received.last());
            let is_end = data == END;
            received.push((last_event_id, data));
            if is_end {
                return Ok(received);
            }
        }
    }
    bail!("there are only so many numbers")
}
