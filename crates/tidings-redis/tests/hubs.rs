//! Three real hubs on one Redis: publishers at all of them, subscribers who wander between them, while Redis or the hubs go away and come back.
//!
//! `TIDINGS_OUTAGES=20` makes it long. The hubs are the built binary: `cargo build -p tidings-cli`.

use std::{
    collections::{HashMap, HashSet},
    env,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tidings_testkit::{Connection, EventStream, Hub, RedisSentinels, RedisServer};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

const HUBS: usize = 3;
const PUBLISHERS: usize = 6;
const SUBSCRIBERS: usize = 6;
/// Events after which a subscriber leaves for another hub.
const STAY: usize = 40;
/// Publications that are acknowledged between two outages.
const BETWEEN_OUTAGES: u64 = 150;
/// How long a publisher waits who was told that there is no log now.
const PAUSE: Duration = Duration::from_millis(20);
/// The last event, behind everything.
const END: &str = "end";
/// Of everything together. It only ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(3_600);

fn outages() -> u64 {
    env::var("TIDINGS_OUTAGES").ok().map_or(3, |text| text.parse().expect("a number"))
}

/// What the publishers share with the test.
#[derive(Debug, Default)]
struct Load {
    acknowledged: watch::Sender<u64>,
    is_over: AtomicBool,
}

/// What a subscriber was told, over all its connections.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Heard {
    Event(String),
    Gap,
}

/// Publishes at one hub after the other until the load is over; returns what was acknowledged, in order. With keys, each event is repeated until it is
/// acknowledged, at whichever hub; without, what broke off is not said again.
async fn publish(hubs: Vec<SocketAddr>, name: usize, load: Arc<Load>) -> Vec<String> {
    let with_keys = name.is_multiple_of(2);
    let mut said = Vec::new();
    let mut kept = None;
    let mut turn = name;
    for count in 0.. {
        if load.is_over.load(Relaxed) {
            break;
        }
        let data = format!("{name}:{count}");
        let head = if with_keys {
            format!("POST /topics/wander\nIdempotency-Key: {name}-{count}")
        } else {
            "POST /topics/wander".to_owned()
        };
        loop {
            if post(hubs[turn % HUBS], &mut kept, &head, &data).await {
                load.acknowledged.send_modify(|count| *count += 1);
                said.push(data);
                break;
            }
            turn += 1;
            kept = None;
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
        503 => {
            // Whoever may have published is not told to repeat it.
            let is_unknown = response.text().contains("may or may not");
            assert!(is_unknown || response.header("retry-after").is_some(), "{response}");
            sleep(PAUSE).await;
        }
        status => panic!("a publication was answered {status}: {}", response.text()),
    }
    response.status == 200
}

/// Listens at one hub after the other until the last event.
async fn wander(hubs: Vec<SocketAddr>, name: usize) -> Vec<Heard> {
    let mut heard = Vec::new();
    let mut last_id: Option<String> = None;
    for turn in name.. {
        let address = hubs[turn % HUBS];
        let target = "/stream?topic=wander&since=earliest";
        let opened = match &last_id {
            Some(id) => EventStream::resume(address, target, id).await,
            None => EventStream::open(address, target).await,
        };
        let Ok(mut stream) = opened else {
            sleep(PAUSE).await;
            continue;
        };
        for _ in 0..STAY {
            let Ok(event) = stream.next().await else { break };
            let data = match event.event_type.as_str() {
                "message" => event.data,
                "tidings" if event.data.contains("\"kind\":\"gap\"") => {
                    heard.push(Heard::Gap);
                    last_id = Some(event.last_event_id);
                    continue;
                }
                // A hub that ends says so; the next one goes on.
                "tidings" if event.data.contains("reconnect") => break,
                other => panic!("an event of the type {other}: {}", event.data),
            };
            last_id = Some(event.last_event_id);
            let is_end = data == END;
            heard.push(Heard::Event(data));
            if is_end {
                return heard;
            }
        }
    }
    unreachable!("the turns have no end")
}

/// Three hubs on the store of this URL.
async fn start_hubs(store: &str) -> Vec<Hub> {
    let mut hubs = Vec::new();
    for _ in 0..HUBS {
        hubs.push(Hub::serve(&["--store", store]).await.unwrap());
    }
    hubs
}

/// Lets outages happen while everybody publishes and listens, and checks what was heard.
async fn survive(
    mut hubs: Vec<Hub>,
    gaps_are_due: Option<bool>,
    mut outage: impl AsyncFnMut(&mut [Hub], u64),
) {
    let addresses: Vec<_> = hubs.iter().map(Hub::address).collect();
    let load = Arc::<Load>::default();
    let mut acknowledged = load.acknowledged.subscribe();
    let mut publishers = JoinSet::new();
    for name in 0..PUBLISHERS {
        publishers.spawn(publish(addresses.clone(), name, Arc::clone(&load)));
    }
    let mut subscribers = JoinSet::new();
    for name in 0..SUBSCRIBERS {
        subscribers.spawn(wander(addresses.clone(), name));
    }
    for number in 0..=outages() {
        let enough = *acknowledged.borrow() + BETWEEN_OUTAGES;
        tokio::select! {
            progress = acknowledged.wait_for(|count| *count >= enough) => drop(progress.unwrap()),
            ended = subscribers.join_next() => panic!("a subscriber ended before the end: {ended:?}"),
            ended = publishers.join_next() => panic!("a publisher ended before the end: {ended:?}"),
        }
        if number < outages() {
            outage(&mut hubs, number).await;
        }
    }
    load.is_over.store(true, Relaxed);
    let said = publishers.join_all().await;
    // The last outage may not be over for this hub.
    let mut kept = None;
    while !post(addresses[0], &mut kept, "POST /topics/wander\nIdempotency-Key: end", END).await {}
    let heard = subscribers.join_all().await;
    check(&said, &heard, gaps_are_due);
    for hub in &mut hubs {
        hub.stop().await.unwrap();
    }
}

fn check(said: &[Vec<String>], heard: &[Vec<Heard>], gaps_are_due: Option<bool>) {
    let mut places: Vec<HashMap<&str, usize>> = Vec::new();
    let mut gaps = 0;
    let heard: Vec<_> = heard.iter().map(|heard| last_times(heard, gaps_are_due.is_none())).collect();
    for heard in &heard {
        let mut place_of = HashMap::new();
        for (place, item) in heard.iter().enumerate() {
            match item {
                Heard::Event(data) => drop(place_of.insert(data.as_str(), place)),
                Heard::Gap => gaps += 1,
            }
        }
        for said in said {
            let missing = first_untold(said, &place_of, heard);
            assert_eq!(missing, None, "it was acknowledged, is missing, and no gap was told");
        }
        places.push(place_of);
    }
    // One order: what two subscribers have both heard they have heard in the same order.
    for (place_of, heard) in places.iter().zip(&heard) {
        for other in &places {
            let both = heard.iter().filter_map(|item| match item {
                Heard::Event(data) => other.get(data.as_str()),
                Heard::Gap => None,
            });
            assert!(both.is_sorted(), "another order");
        }
        assert!(place_of.contains_key(END));
    }
    let acknowledged: usize = said.iter().map(Vec::len).sum();
    println!("{acknowledged} acknowledged, {gaps} gaps told to {SUBSCRIBERS} subscribers");
    assert_eq!(gaps > 0, gaps_are_due.unwrap_or(gaps > 0), "{gaps} gaps were told");
}

/// What was heard, each event where it came last. It comes once, but for one case: it was lost with a master before its publisher was answered, who sent it
/// again under its key. The log knows nothing of the first time any more.
fn last_times(heard: &[Heard], may_be_lost: bool) -> Vec<Heard> {
    let mut seen = HashSet::new();
    let mut last = Vec::new();
    for item in heard.iter().rev() {
        let is_first = *item == Heard::Gap || seen.insert(item);
        assert!(is_first || may_be_lost, "{item:?} came twice");
        last.extend(is_first.then(|| item.clone()));
    }
    last.reverse();
    last
}

/// The first event of a publisher that a subscriber has not heard without having been told of a gap at that place.
fn first_untold<'a>(said: &'a [String], place_of: &HashMap<&str, usize>, heard: &[Heard]) -> Option<&'a str> {
    let mut from = 0;
    let mut missing = None;
    for data in said {
        match place_of.get(data.as_str()) {
            None => missing = missing.or(Some(data.as_str())),
            Some(place) => {
                assert!(*place >= from, "out of order: {data}");
                if missing.take().is_some_and(|_| !heard[from..*place].contains(&Heard::Gap)) {
                    return Some(data);
                }
                from = *place;
            }
        }
    }
    missing.filter(|_| !heard[from..].contains(&Heard::Gap))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_a_durable_redis_is_stopped_and_started() {
    let surviving = async {
        let mut server = RedisServer::start_durable().await.unwrap();
        let hubs = start_hubs(&server.url()).await;
        survive(hubs, Some(false), async |_, number| {
            if number % 2 == 0 {
                server.stop().await.unwrap();
            } else {
                server.kill().await.unwrap();
            }
            server.start_again().await.unwrap();
        })
        .await;
    };
    timeout(PATIENCE, surviving).await.expect("an end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_forgets_everything_is_told_to_every_subscriber() {
    let surviving = async {
        let mut server = RedisServer::start().await.unwrap();
        let hubs = start_hubs(&server.url()).await;
        survive(hubs, Some(true), async |_, number| {
            if number % 2 == 0 {
                server.kill().await.unwrap();
                server.start_again().await.unwrap();
            } else {
                server.command(&["FLUSHALL"]).await.unwrap();
            }
        })
        .await;
    };
    timeout(PATIENCE, surviving).await.expect("an end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_hubs_are_killed() {
    let surviving = async {
        let server = RedisServer::start_durable().await.unwrap();
        let hubs = start_hubs(&server.url()).await;
        survive(hubs, Some(false), async |hubs, number| {
            let hub = &mut hubs[usize::try_from(number).unwrap() % HUBS];
            hub.kill().await.unwrap();
            hub.start_again().await.unwrap();
        })
        .await;
    };
    timeout(PATIENCE, surviving).await.expect("an end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_through_failovers_or_a_gap_is_told() {
    let surviving = async {
        let mut servers = RedisSentinels::start().await.unwrap();
        let hubs = start_hubs(&format!("{}?wait=1", servers.url())).await;
        // What was heard before the replica had it may be lost with the master, although nothing that was acknowledged is.
        survive(hubs, None, async |_, _| servers.fail_over().await.unwrap()).await;
    };
    timeout(PATIENCE, surviving).await.expect("an end");
}
