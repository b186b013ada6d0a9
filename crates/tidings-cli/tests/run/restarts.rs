//! Streams and requests through `tidings run` while its application restarts again and again: no
//! stream ends, no event is lost, and a request gets a response, or 502 with `Retry-After`.
//!
//! `TIDINGS_STREAMS=10000` sets the number of streams, `TIDINGS_REQUESTS_PER_SECOND=200` that of
//! requests, `TIDINGS_RESTARTS=20` that of restarts, each after eleven seconds.

use std::{
    collections::BTreeMap,
    env,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tidings_client::{Client, Publish};
use tidings_testkit::{Connection, EventStream, Hub};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::application;

/// The time for everything, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(600);
/// So often an application is started again within a few seconds.
const RESTARTS: usize = 5;
/// For more restarts it has to live longer: then it is always started again at once.
const LIFE: Duration = Duration::from_secs(11);
/// How many events all streams together receive in a second: more would measure the test itself.
const DELIVERIES_PER_SECOND: u32 = 1_000;
/// Streams that are opened at a time.
const OPENED_AT_A_TIME: usize = 50;
/// The streams that the application decides about: one in this many.
const DECIDED_SHARE: usize = 10;
/// The event after the last one.
const LAST: &str = "last";

fn number(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |word| word.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_the_application_restarts_again_and_again() {
    let streams = number("TIDINGS_STREAMS", 100);
    let restarts = number("TIDINGS_RESTARTS", RESTARTS);
    let requests_per_second = number("TIDINGS_REQUESTS_PER_SECOND", 200);
    raise_file_limit();
    let mut hub = application::hub("report=TERM serve show=TIDINGS_URL wait", &[]);
    hub.start_again().await.unwrap();
    serves(&mut hub, 1).await;
    let url = hub.printed("app | TIDINGS_URL is ").await.unwrap();
    let client = Client::new(url.rsplit_once(' ').unwrap().1, None).unwrap();

    let mut subscribers = subscribe(hub.address(), streams).await;
    let done = Arc::new(AtomicBool::default());
    let requests = tokio::spawn(request(hub.address(), requests_per_second, Arc::clone(&done)));
    let pause = Duration::from_secs(1) * u32::try_from(streams).unwrap() / DELIVERIES_PER_SECOND;
    let published = tokio::spawn(publish(client, pause, Arc::clone(&done)));
    for count in 0..restarts {
        if restarts > RESTARTS {
            sleep(LIFE).await;
        }
        kill_process(application(&hub), Signal::KILL).unwrap();
        serves(&mut hub, count + 2).await;
    }
    done.store(true, Relaxed);
    let published = timeout(PATIENCE, published).await.unwrap().unwrap();
    let answers = timeout(PATIENCE, requests).await.unwrap().unwrap();
    let received = async {
        while let Some(count) = subscribers.join_next().await {
            assert_eq!(count.unwrap(), published);
        }
    };
    timeout(PATIENCE, received).await.unwrap();
    println!("{streams} streams received {published} events each; requests: {answers:?}");
    assert!(
        answers.keys().all(|answer| ["200", "502 with Retry-After"].contains(&answer.as_str())),
        "{answers:?}"
    );
    assert!(answers["200"] > 0, "{answers:?}");
    let output = hub.watch_output().unwrap();
    let status = hub.stop().await.unwrap();
    assert!(status.success(), "{status}: {:#?}", output.borrow());
}

/// Both ends of a stream are descriptors, here and in the hub, which inherits the limit.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

/// Waits until the application has begun to serve this many times.
async fn serves(hub: &mut Hub, times: usize) {
    let mut output = hub.watch_output().unwrap();
    let has = |lines: &Vec<String>| {
        lines.iter().filter(|line| line.contains("the application accepts connections")).count() >= times
    };
    timeout(PATIENCE, output.wait_for(has)).await.unwrap().unwrap();
}

/// The process of the application.
fn application(hub: &Hub) -> Pid {
    let output = hub.output();
    let mut pids = output.iter().filter_map(|line| line.split_once("the application was started pid="));
    Pid::from_raw(pids.next_back().unwrap().1.trim().parse().unwrap()).unwrap()
}

/// Opens streams. Each task returns how many events it has received, in order and without a gap.
async fn subscribe(address: SocketAddr, streams: usize) -> JoinSet<usize> {
    let turns = Arc::new(Semaphore::new(OPENED_AT_A_TIME));
    let mut opening = JoinSet::new();
    for number in 0..streams {
        let turns = Arc::clone(&turns);
        opening.spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            let target = if number % DECIDED_SHARE == 0 { "/stream" } else { "/stream?topic=chat" };
            EventStream::open(address, target).await.unwrap()
        });
    }
    let mut subscribers = JoinSet::new();
    while let Some(opened) = opening.join_next().await {
        let mut stream = opened.unwrap();
        subscribers.spawn(async move {
            let mut received = 0;
            loop {
                let event = match stream.next().await {
                    Ok(event) => event,
                    Err(error) => panic!("after {received} events: {error:#}"),
                };
                if event.data == LAST {
                    return received;
                }
                assert_eq!(event.data, received.to_string());
                received += 1;
            }
        });
    }
    subscribers
}

/// Publishes numbers until the test is done. Returns how many.
async fn publish(client: Client, pause: Duration, done: Arc<AtomicBool>) -> usize {
    let options = Publish::new();
    let mut times = interval(pause);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0;
    while !done.load(Relaxed) {
        times.tick().await;
        client.publish("chat", count.to_string(), &options).await.unwrap();
        count += 1;
    }
    client.publish("chat", LAST, &options).await.unwrap();
    count
}

/// Requests a page of the application at this rate until the test is done. Returns how often each
/// kind of answer came.
async fn request(address: SocketAddr, per_second: usize, done: Arc<AtomicBool>) -> BTreeMap<String, usize> {
    let begun = Instant::now();
    let mut requests = JoinSet::new();
    let mut times = interval(Duration::from_secs(1) / u32::try_from(per_second).unwrap());
    while !done.load(Relaxed) {
        times.tick().await;
        requests.spawn(async move {
            let mut connection = Connection::open(address).await.unwrap();
            connection.request("GET /page\nConnection: close", b"").await.unwrap();
            let response = connection.response().await.unwrap();
            let has_time = response.header("retry-after").is_some();
            format!("{}{}", response.status, if has_time { " with Retry-After" } else { "" })
        });
    }
    let mut answers = BTreeMap::new();
    for answer in requests.join_all().await {
        *answers.entry(answer).or_default() += 1;
    }
    println!("requested for {:.1} s", begun.elapsed().as_secs_f64());
    answers
}
