//! What JetStream gives a log: events per second by the number of publishers and by the size of a
//! batch, and the latency of an event from its publisher to the tail of another hub, compared with
//! a bare NATS publish and subscribe. It starts a nats-server of its own.
//!
//!     cargo run --release -p tidings-nats --example measure-nats

use std::time::{Duration, Instant};

use async_nats::Client;
use futures_util::StreamExt;
use tidings::Hub;
use tidings_log::{Appended, Batch, Event, Filter, Grants, Log, Position, TailItem};
use tidings_nats::{Nats, NatsLog, NatsSettings};
use tidings_testkit::NatsServer;
use tidings_topic::{Matcher, NewEvent, Validator};
use tokio::task::JoinSet;

/// How long each value is measured.
const TIME: Duration = Duration::from_secs(4);
/// Latencies are taken of this many events, one after the other.
const PROBES: usize = 3_000;

fn event() -> Event {
    Validator::default().event(NewEvent::new("measured", "x".repeat(100))).expect("a valid event")
}

#[tokio::main]
async fn main() {
    let server = NatsServer::start().expect("nats-server starts");
    let address = format!("{}/measured", server.url()).parse().expect("an address");
    let open = async || {
        let nats = Nats::connect(&address, NatsSettings::default()).await.expect("it can be reached");
        nats.log().await.expect("the log opens")
    };
    let (here, there) = (open().await, open().await);
    println!("events of 100 bytes, one hub publishing, one reading, one nats-server, all on this machine");
    for (publishers, batch) in [(1, 1), (16, 1), (64, 1), (256, 1), (16, 100)] {
        let rate = publish(&here, publishers, batch).await;
        println!("{publishers:4} publishers, batches of {batch:3}: {rate:8.0} events/s");
    }
    for publishers in [1, 64, 256] {
        publish_at_hub(here.clone(), publishers).await;
    }
    print("publish to delivery at another hub", &mut latencies(&here, &there).await);
    print("bare NATS publish to subscribe    ", &mut bare_latencies(&server.url()).await);
    replay(&there).await;
}

async fn publish(log: &NatsLog, publishers: usize, batch: usize) -> f64 {
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..publishers {
        let log = log.clone();
        tasks.spawn(async move {
            let mut count = 0_u32;
            while begin.elapsed() < TIME {
                let appended = log.append(Batch { events: vec![event(); batch], key: None }).await;
                assert!(matches!(appended, Ok(Appended::New { .. })), "{appended:?}");
                count += u32::try_from(batch).expect("a small batch");
            }
            count
        });
    }
    let count: u32 = tasks.join_all().await.into_iter().sum();
    f64::from(count) / begin.elapsed().as_secs_f64()
}

/// Publishers of one hub, which appends for them together.
async fn publish_at_hub(log: NatsLog, publishers: usize) {
    let hub = Hub::builder().log(log).start().await.expect("it starts");
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..publishers {
        let hub = hub.clone();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while begin.elapsed() < TIME {
                let published = Instant::now();
                hub.publish(NewEvent::new("measured", "x".repeat(100))).await.expect("it is published");
                latencies.push(published.elapsed());
            }
            latencies
        });
    }
    let mut latencies: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    let rate = latencies.len() as u128 * 1_000 / begin.elapsed().as_millis();
    print(&format!("{publishers} publishers of a hub, {rate} events/s"), &mut latencies);
}

async fn latencies(here: &NatsLog, there: &NatsLog) -> Vec<Duration> {
    let (_, mut tail) = there.tail().await.expect("a tail");
    let mut latencies = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let begin = Instant::now();
        let appended = here.append(Batch { events: vec![event()], key: None });
        let received = async {
            loop {
                if let Some(TailItem::Entries(_)) = tail.next(1 << 20).await {
                    return begin.elapsed();
                }
            }
        };
        let (appended, latency) = tokio::join!(appended, received);
        appended.expect("it is appended");
        latencies.push(latency);
    }
    latencies
}

async fn bare_latencies(url: &str) -> Vec<Duration> {
    let connect = async || -> Client { async_nats::connect(url).await.expect("it can be reached") };
    let (here, there) = (connect().await, connect().await);
    let mut received = there.subscribe("bare").await.expect("a subscription");
    there.flush().await.expect("it is sent");
    // The first message shows that the server knows the subscription.
    while tokio::time::timeout(Duration::from_millis(100), received.next()).await.is_err() {
        here.publish("bare", "first".into()).await.expect("it is sent");
    }
    let mut latencies = Vec::with_capacity(PROBES);
    for number in 0..PROBES {
        let text = number.to_string();
        let begin = Instant::now();
        here.publish("bare", text.clone().into()).await.expect("it is sent");
        while received.next().await.expect("a message").payload != text {}
        latencies.push(begin.elapsed());
    }
    latencies
}

async fn replay(log: &NatsLog) {
    let everything = Filter { matchers: vec![Matcher::Any], grants: Grants::NONE };
    let (mut after, mut count) = (Position::BEFORE_ALL, 0_usize);
    let begin = Instant::now();
    while begin.elapsed() < TIME {
        let page = log.read(after, &everything, 256 << 10).await.expect("a page");
        count += page.entries.len();
        after = page.through;
        if page.at_end {
            break;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52")]
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    println!("replay from the stream: {rate:.0} events/s ({count} events)");
}

fn print(what: &str, latencies: &mut [Duration]) {
    latencies.sort_unstable();
    let at = |share: usize| latencies[(latencies.len() - 1) * share / 100];
    println!("{what}: p50 {:?}, p99 {:?}", at(50), at(99));
}
