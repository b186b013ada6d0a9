//! `tidings serve --store DIR` is killed again and again while many publish and many listen: nothing that was acknowledged is lost, nothing comes twice or
//! out of order, and no gap is told, because there is none.
//!
//! `TIDINGS_KILLS=300 TIDINGS_KEYED=100000` makes it long.

#![cfg(unix)]

use std::{
    collections::HashMap,
    env,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tidings_testkit::{Connection, EventStream, Hub, ParsedEvent};
use tokio::{sync::watch, task::JoinSet, time::timeout};

const PUBLISHERS: usize = 6;
const SUBSCRIBERS: usize = 4;
/// Publications that are acknowledged between two kills, so that each life of the hub has work to lose.
const BETWEEN_KILLS: u64 = 100;
/// The last event, behind everything.
const END: &str = "end";
/// Of everything together. It only ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(3_600);

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// What the publishers share with the test.
#[derive(Debug, Default)]
struct Load {
    acknowledged: watch::Sender<u64>,
    keyed: AtomicU64,
    is_over: AtomicBool,
}

/// One publisher's acknowledged data, in the order in which it said them.
type Said = Vec<String>;

/// Publishes until the load is over. With keys, each event is repeated until it is acknowledged; without, what broke off is not said again,
/// since nobody knows whether it was published.
async fn publish(address: SocketAddr, name: usize, with_keys: bool, load: Arc<Load>) -> Said {
    let mut said = Vec::new();
    let mut kept = None;
    for count in 0.. {
        if load.is_over.load(Relaxed) {
            break;
        }
        let data = format!("{name}:{count}");
        let head = if with_keys {
            format!("POST /topics/kills\nIdempotency-Key: {name}-{count}")
        } else {
            "POST /topics/kills".to_owned()
        };
        loop {
            if post(address, &mut kept, &head, &data).await {
                load.acknowledged.send_modify(|count| *count += 1);
                load.keyed.fetch_add(u64::from(with_keys), Relaxed);
                said.push(data);
                break;
            }
            if !with_keys {
                break;
            }
        }
    }
    said
}

/// Whether a publication was acknowledged.
async fn post(address: SocketAddr, kept: &mut Option<Connection>, head: &str, data: &str) -> bool {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(address).await.expect("the socket accepts while no hub runs behind it"),
    };
    if connection.request(head, data.as_bytes()).await.is_err() {
        return false;
    }
    let Ok(response) = connection.response().await else { return false };
    match response.status {
        200 => *kept = Some(connection),
        503 => {}
        status => panic!("a publication was answered {status}: {}", response.text()),
    }
    response.status == 200
}

/// Listens until the last event, with one connection after the other; returns everything it got, each with its id.
async fn listen(address: SocketAddr, target: &str) -> Vec<(String, String)> {
    let mut received: Vec<(String, String)> = Vec::new();
    loop {
        let opened = match received.last() {
            Some((id, _)) => EventStream::resume(address, target, id).await,
            None => EventStream::open(address, target).await,
        };
        let Ok(mut stream) = opened else { continue };
        while let Ok(event) = stream.next().await {
            let ParsedEvent { event_type, data, last_event_id, .. } = event;
            assert_eq!(event_type, "message", "a notice, after {:?}: {data}", received.last());
            let is_end = data == END;
            received.push((last_event_id, data));
            if is_end {
                return received;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_hub_is_killed_again_and_again() {
    timeout(PATIENCE, survive(number("TIDINGS_KILLS", 20), number("TIDINGS_KEYED", 0)))
        .await
        .expect("an end");
}

async fn survive(kills: u64, keyed_min: u64) {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("log");
    let mut hub = Hub::serve(&["--store", store.to_str().unwrap()]).await.unwrap();
    let address = hub.address();
    let load = Arc::<Load>::default();

    let mut acknowledged = load.acknowledged.subscribe();
    let mut publishers = JoinSet::new();
    for name in 0..PUBLISHERS {
        publishers.spawn(publish(address, name, name % 2 == 0, Arc::clone(&load)));
    }
    let mut subscribers = JoinSet::new();
    for _ in 0..SUBSCRIBERS {
        subscribers.spawn(listen(address, "/stream?topic=kills&since=earliest"));
    }
    for kill in 0.. {
        let enough = *acknowledged.borrow() + BETWEEN_KILLS;
        tokio::select! {
            progress = acknowledged.wait_for(|count| *count >= enough) => drop(progress.unwrap()),
            ended = subscribers.join_next() => panic!("a subscriber ended before the end: {ended:?}"),
            ended = publishers.join_next() => panic!("a publisher ended before the end: {ended:?}"),
        }
        if kill >= kills && load.keyed.load(Relaxed) >= keyed_min {
            break;
        }
        if kill < kills {
            hub.kill().await.unwrap();
            hub.start_again().await.unwrap();
        }
    }
    load.is_over.store(true, Relaxed);
    let said = publishers.join_all().await;
    hub.publish("kills", END).await.unwrap();

    // Whoever comes at last reads the whole log.
    let all = listen(address, "/stream?topic=kills&since=earliest").await;
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for (_, data) in &all {
        *counts.entry(data).or_default() += 1;
    }
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "published twice: {twice:?}");
    for said in &said {
        let lost: Vec<_> = said.iter().filter(|data| !counts.contains_key(data.as_str())).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let Some((name, _)) = said.first().and_then(|data| data.split_once(':')) else { continue };
        let in_log = all.iter().filter_map(|(_, data)| data.split_once(':')).filter(|(by, _)| *by == name);
        let numbers: Vec<u64> = in_log.map(|(_, number)| number.parse().unwrap()).collect();
        assert!(numbers.is_sorted(), "out of order: {numbers:?}");
    }
    for received in subscribers.join_all().await {
        let difference = received.iter().zip(&all).position(|(one, other)| one != other);
        assert_eq!(difference.map(|at| (&received[at], &all[at])), None, "a subscriber has something else");
        assert_eq!(received.len(), all.len(), "a subscriber has less or more");
    }
    let acknowledged: usize = said.iter().map(Vec::len).sum();
    println!(
        "{kills} kills: {acknowledged} acknowledged, {} of them with keys, {} in the log; lost 0, doubled 0, out of order 0, gaps 0",
        load.keyed.load(Relaxed),
        all.len() - 1
    );
    hub.stop().await.unwrap();
}
