//! `tidings demo --store …` as several processes: one chat, whichever of them a user connects to,
//! and what remains when one is killed.
//!
//! `TIDINGS_OUTAGES=20` runs it longer.
//!
//! Needs: redis-server, nats-server.

#![cfg(unix)]

use std::{
    collections::HashMap,
    env,
    sync::{Arc, Mutex},
    time::Duration,
};

use tidings::{ConnectionId, MemoryLimits, Presence};
use tidings_presence::PresenceList;
use tidings_redis::{RedisCluster, RedisLog, RedisSettings};
use tidings_testkit::{EventStream, Hub, NatsServer, PATIENCE, RedisServer};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// How often a hub is killed.
fn outages() -> u32 {
    env::var("TIDINGS_OUTAGES").ok().map_or(2, |text| text.parse().expect("a number"))
}

async fn demo(store: &str) -> Hub {
    Hub::start(["demo", "--store", store]).await.unwrap()
}

/// Logs in, and returns the header with the cookie of the session.
async fn log_in(hub: &Hub, name: &str) -> String {
    let head = "POST /login\nContent-Type: application/x-www-form-urlencoded";
    let answer = hub.request(head, format!("user={name}").as_bytes()).await.unwrap();
    let cookie = answer.header("set-cookie").expect("a cookie");
    format!("Cookie: {}", cookie.split(';').next().unwrap())
}

async fn say(hub: &Hub, cookie: &str, message: &str) {
    let form = "Content-Type: application/x-www-form-urlencoded";
    let head = format!("POST /post\nOrigin: {}\n{form}\n{cookie}", hub.url(""));
    let answer = hub.request(&head, format!("message={message}").as_bytes()).await.unwrap();
    assert_eq!(answer.status, 204, "{}", answer.text());
}

async fn stream(hub: &Hub, cookie: &str) -> EventStream {
    EventStream::open_with(hub.address(), "/stream?presence&since=now", &[cookie]).await.unwrap()
}

/// Reads until exactly these users are present, and returns how many presence lists that took.
async fn present(stream: &mut EventStream, names: &[&str]) -> usize {
    let names = serde_json::to_string(names).unwrap();
    let mut seen = Vec::new();
    let reading = async {
        loop {
            let event = stream.next().await.unwrap();
            assert_eq!(event.event_type, "presence", "{event:?}");
            seen.push(event.data);
            if seen.last() == Some(&names) {
                return;
            }
        }
    };
    let is_in_time = timeout(PATIENCE, reading).await.is_ok();
    assert!(is_in_time, "instead of {names} came {seen:?}");
    seen.len()
}

/// The next message, without its time.
async fn message(stream: &mut EventStream) -> String {
    loop {
        let event = stream.next().await.unwrap();
        match event.event_type.as_str() {
            "message" => return event.data.split_once("] ").expect("a time").1.to_owned(),
            "presence" => {}
            other => panic!("{other}: {event:?}"),
        }
    }
}

async fn are_one_chat(store: &str) {
    let (mut one, other) = (demo(store).await, demo(store).await);
    let (ada, bob) = (log_in(&one, "Ada").await, log_in(&one, "Bob").await);
    let page = other.request(&format!("GET /\n{ada}"), b"").await.unwrap();
    assert!(page.text().contains("hi, <b>Ada</b>!"), "the name is valid at both: {page}");

    let mut at_one = stream(&one, &ada).await;
    present(&mut at_one, &["Ada"]).await;
    let mut at_other = stream(&other, &bob).await;
    present(&mut at_one, &["Ada", "Bob"]).await;
    present(&mut at_other, &["Ada", "Bob"]).await;
    say(&one, &bob, "hello").await;
    say(&other, &ada, "there").await;
    for stream in [&mut at_one, &mut at_other] {
        assert_eq!(
            (message(stream).await, message(stream).await),
            ("Bob: hello".into(), "Ada: there".into())
        );
    }

    one.kill().await.unwrap();
    present(&mut at_other, &["Bob"]).await;
    one.start_again().await.unwrap();
    let mut again = stream(&one, &ada).await;
    present(&mut again, &["Ada", "Bob"]).await;
    present(&mut at_other, &["Ada", "Bob"]).await;
    let stopped = Instant::now();
    one.stop().await.unwrap();
    present(&mut at_other, &["Bob"]).await;
    println!("gone {:?} after the hub was asked to stop", stopped.elapsed());
}

#[tokio::test]
async fn processes_on_one_redis_are_one_chat() {
    let server = RedisServer::start().await.unwrap();
    are_one_chat(&server.url()).await;
}

#[tokio::test]
async fn processes_on_one_nats_are_one_chat() {
    let server = NatsServer::start().unwrap();
    are_one_chat(&format!("{}/chat", server.url())).await;
}

/// The presence that a hub of this process receives from all others.
#[derive(Default)]
struct Register {
    /// How often each connection joined and left.
    counts: HashMap<ConnectionId, (u32, u32)>,
    here: HashMap<ConnectionId, String>,
}

impl Register {
    fn receive(&mut self, presence: &Presence) {
        let (came, went) = self.counts.entry(presence.connection).or_default();
        *came += u32::from(presence.here);
        *went += u32::from(!presence.here);
        assert_eq!(*came, *went + u32::from(presence.here), "joins and leaves alternate: {presence:?}");
        if presence.here {
            let name = presence.label.as_deref().expect("every user has a name").to_owned();
            self.here.insert(presence.connection, name);
        } else {
            self.here.remove(&presence.connection);
        }
    }
}

/// A hub of this process in the same cluster, which receives presence.
async fn watcher(
    store: &str,
) -> (tidings::Hub, PresenceList, Arc<Mutex<Register>>, watch::Receiver<Vec<String>>) {
    let settings = RedisSettings::from_url(store.parse().unwrap(), MemoryLimits::default()).unwrap();
    let cluster = RedisCluster::open(&settings).await.unwrap();
    let log = RedisLog::open(settings).await.unwrap();
    let register = Arc::<Mutex<Register>>::default();
    let (receiving, (teller, seen)) = (Arc::clone(&register), watch::channel(Vec::new()));
    let hub = tidings::Hub::builder().log(log).cluster(cluster);
    let started = PresenceList::start(hub, move |presence| {
        let mut register = receiving.lock().unwrap();
        register.receive(presence);
        let mut here: Vec<_> = register.here.values().cloned().collect();
        here.sort();
        teller.send_replace(here);
    });
    let (hub, list) = started.await.unwrap();
    (hub, list, register, seen)
}

const LISTENS: &str = "the bridge is listening";

/// The hub that bridges, once there is one.
async fn bridging(hubs: &[Hub]) -> usize {
    let looking = async {
        loop {
            let listens = |hub: &Hub| hub.output().iter().any(|line| line.contains(LISTENS));
            if let Some(place) = hubs.iter().position(listens) {
                return place;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, looking).await.expect("exactly one hub bridges")
}

/// Publishes a message as soon as a bridge is subscribed, which must be the only one.
async fn bridge_news(server: &RedisServer, message: &str) {
    let publishing = async {
        loop {
            match server.command(&["PUBLISH", "news", message]).await.unwrap().trim() {
                "0" => sleep(Duration::from_millis(10)).await,
                listeners => return assert_eq!(listeners, "1", "exactly one hub bridges"),
            }
        }
    };
    timeout(PATIENCE, publishing).await.expect("exactly one hub bridges");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_hubs_leave_presence_and_their_bridge_without_duplicates() {
    const NAMES: [&str; 3] = ["Ada", "Bob", "Cid"];
    let server = RedisServer::start_durable().await.unwrap();
    let store = server.url();
    let bridge = format!("{store}?channels=news");
    let (mut chats, mut bridges, mut streams) = (Vec::new(), Vec::new(), Vec::new());
    let (_hub, _list, register, mut named) = watcher(&store).await;
    for name in NAMES {
        let hub = demo(&store).await;
        streams.push(stream(&hub, &log_in(&hub, name).await).await);
        chats.push(hub);
        bridges.push(Hub::serve(&["--store", &store, "--bridge", &bridge]).await.unwrap());
    }
    let mut here = async |names: Vec<&str>| {
        let expected: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let seen = timeout(PATIENCE, named.wait_for(|names| *names == expected)).await;
        drop(seen.unwrap_or_else(|_| panic!("never were exactly {expected:?} present")).unwrap());
    };
    here(NAMES.to_vec()).await;

    let (mut gone_after, mut bridged_after) = (Vec::new(), Vec::new());
    for round in 0..outages() {
        let victim = usize::try_from(round).unwrap() % NAMES.len();
        let bridge = bridging(&bridges).await;
        let killed = Instant::now();
        bridges[bridge].kill().await.unwrap();
        chats[victim].kill().await.unwrap();
        bridge_news(&server, &round.to_string()).await;
        bridged_after.push(killed.elapsed());
        bridges[bridge].start_again().await.unwrap();

        here(NAMES.iter().copied().filter(|name| *name != NAMES[victim]).collect()).await;
        gone_after.push(killed.elapsed());
        chats[victim].start_again().await.unwrap();
        let cookie = log_in(&chats[victim], NAMES[victim]).await;
        streams[victim] = stream(&chats[victim], &cookie).await;
        here(NAMES.to_vec()).await;
    }
    println!("{} kills: bridged after {bridged_after:.1?}, gone after {gone_after:.1?}", outages());

    // Every message that was published while a bridge was subscribed, once.
    let mut news =
        EventStream::open(bridges[0].address(), "/stream?topic=news&since=earliest").await.unwrap();
    bridge_news(&server, "end").await;
    let expected: Vec<_> = (0..outages()).map(|round| round.to_string()).chain(["end".to_owned()]).collect();
    assert_eq!(news.messages(expected.len()).await.unwrap(), expected);

    let register = register.lock().unwrap();
    let total = NAMES.len() + usize::try_from(outages()).unwrap();
    assert_eq!(register.counts.len(), total, "each stream is one connection");
    assert_eq!(register.here.len(), NAMES.len());
}

/// During an outage of Redis no hub can renew its presence, and afterwards all of it may have
/// expired. No user is reported as gone for that, except those that left meanwhile. With
/// `TIDINGS_OUTAGES` the outage is longer than any entry lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_redis_removes_no_user_from_the_presence_list() {
    let away = Duration::from_secs(if env::var_os("TIDINGS_OUTAGES").is_some() { 20 } else { 1 });
    let mut server = RedisServer::start_durable().await.unwrap();
    let store = server.url();
    let (_hub, _list, register, mut named) = watcher(&store).await;
    let mut here = async |names: &[&str]| {
        let seen = timeout(PATIENCE, named.wait_for(|seen| *seen == names)).await;
        drop(seen.unwrap_or_else(|_| panic!("never were exactly {names:?} present")).unwrap());
    };
    let (ada_is_at, mut bob_is_at) = (demo(&store).await, demo(&store).await);
    let _ada = stream(&ada_is_at, &log_in(&ada_is_at, "Ada").await).await;
    let _bob = stream(&bob_is_at, &log_in(&bob_is_at, "Bob").await).await;
    here(&["Ada", "Bob"]).await;

    server.stop().await.unwrap();
    sleep(away).await;
    server.start_again().await.unwrap();
    let cookie = log_in(&ada_is_at, "Cid").await;
    let coming = async {
        loop {
            match EventStream::open_with(ada_is_at.address(), "/stream?presence&since=now", &[&cookie]).await
            {
                Ok(stream) => return stream,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let _cid = timeout(PATIENCE, coming).await.expect("the hub finds Redis again");
    here(&["Ada", "Bob", "Cid"]).await;

    server.stop().await.unwrap();
    bob_is_at.kill().await.unwrap();
    sleep(away).await;
    server.start_again().await.unwrap();
    here(&["Ada", "Cid"]).await;
    let mut counts: Vec<_> = register.lock().unwrap().counts.values().copied().collect();
    counts.sort_unstable();
    assert_eq!(counts, [(1, 0), (1, 0), (1, 1)], "how often each joined and left");
}
