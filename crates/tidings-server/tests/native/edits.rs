//! `PATCH /connections/{id}`: the topics of open streams change.
//!
//! `TIDINGS_EDITS=10000` changes them so often, on streams over HTTP/1.1, beside publishers.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use http::Method;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngSeed, TestRunner},
};
use serde_json::{Value, json};
use tidings::{NewEvent, log::Cursor};
use tidings_testkit::{Connection, EventStream};
use tokio::{sync::RwLock, task::JoinSet};

use crate::{
    served_support::Served,
    support::{self, Answer, Api, Ask, CHAT_KEY, KEY, keyless, ticket, token, with_keys},
};

const JSON: &str = "application/json";

/// The `hello` of a stream.
async fn hello(stream: &mut support::Stream) -> Value {
    let text = stream.until("\n\n").await;
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
    serde_json::from_str(data).expect("notices are JSON")
}

/// The answer, for a stream that is read meanwhile: one that is pulled changes when it is polled.
async fn answer(ask: Ask, stream: &mut support::Stream) -> Answer {
    tokio::select! {
        answer = ask.answer() => answer,
        read = stream.until("nobody publishes this") => panic!("{read}"),
    }
}

fn patch(api: &Api, hello: &Value, body: &Value) -> Ask {
    let connection = hello["connection"].as_str().expect("a connection");
    api.ask(Method::PATCH, &format!("/connections/{connection}"))
        .header("content-type", JSON)
        .body(body.to_string())
}

/// A hub without keys: the secret of `hello` is what proves a request.
#[tokio::test]
async fn an_anonymous_stream_is_changed_with_its_secret_alone() {
    let api = keyless().await;
    let mut stream = api.get("/stream?topic=a&pattern=/rooms/:room&hello=true").stream().await;
    let own = hello(&mut stream).await;
    assert_eq!((&own["topics"], &own["patterns"]), (&json!(["a"]), &json!(["/rooms/:room"])));
    let secret = own["secret"].as_str().expect("a secret");
    let mut other = api.get("/stream?topic=x&hello=true").stream().await;
    let foreign = hello(&mut other).await["secret"].clone();
    assert_ne!(own["secret"], foreign);
    for (body, status) in [
        (json!({ "add": "b" }), 403),
        (json!({ "add": "b", "secret": foreign }), 403),
        (json!({ "add": "b", "secret": "" }), 403),
        (json!({ "add": "b", "secret": secret.to_uppercase() + "0" }), 403),
    ] {
        patch(&api, &own, &body).answer().await.refused(status);
    }
    let before = api.post("/topics/b", "before").answer().await.id();
    let body = json!({ "add": ["b", "a"], "remove": ["never"], "secret": secret });
    let changed = answer(patch(&api, &own, &body), &mut stream).await.ok();
    assert_eq!(changed.json()["topics"], json!(["a", "b"]));
    assert_eq!(changed.json()["patterns"], json!(["/rooms/:room"]));
    assert_eq!(changed.json()["connection"], own["connection"]);
    assert_eq!(changed.header("tidings-cursor"), changed.json()["cursor"]);
    let position = |id: &str| Cursor::parse(id).expect("an id of the hub").position;
    let begins = changed.header("tidings-cursor").to_owned();
    for (topic, data) in [("b", "1"), ("a", "2"), ("/rooms/7", "3")] {
        api.post(&format!("/topics/{topic}"), data).answer().await.ok();
    }
    let received = stream.until("data: 3\n\n").await;
    // It was published before, so it is there if the stream had not come so far.
    assert_eq!(received.contains("data: before"), position(&before) > position(&begins), "{received}");
    assert!(received.contains("data: 1\n") && received.contains("data: 2\n"), "{received}");
    let form = format!("remove=a&remove=b&add=c&secret={secret}");
    let target = format!("/connections/{}", own["connection"].as_str().expect("a connection"));
    let changed = api.ask(Method::PATCH, &target).header("content-type", "application/x-www-form-urlencoded");
    let changed = answer(changed.body(form), &mut stream).await.ok();
    assert_eq!(changed.json()["topics"], json!(["c"]));
    for (topic, data) in [("a", "4"), ("b", "5"), ("c", "6")] {
        api.post(&format!("/topics/{topic}"), data).answer().await.ok();
    }
    let received = stream.until("data: 6\n\n").await;
    assert!(!received.contains("data: 4") && !received.contains("data: 5"), "{received}");
    let metrics = api.get("/metrics").answer().await.ok().body;
    for counted in ["status=\"2xx\"} 2", "status=\"4xx\"} 4"] {
        let labels = format!("{{route=\"/connections/{{id}}\",method=\"PATCH\",{counted}");
        assert!(metrics.contains(&format!("tidings_requests_total{labels}\n")), "{metrics}");
    }
}

#[tokio::test]
async fn a_stranger_who_knows_the_connection_changes_nothing() {
    let api = with_keys().await;
    let [own, other] = [["staff-1", "chat"], ["staff-2", "chat"]].map(|topics| token(&[], &topics));
    let tickets = [ticket(&["chat", "news"]), ticket(&["chat", "news", "x"])];
    let credentials =
        [KEY.to_owned(), CHAT_KEY.to_owned(), own, other, tickets[0].clone(), tickets[1].clone()];
    let add = json!({ "add": "news" });
    for credential in &credentials {
        let mut stream = api.get("/stream?topic=chat&hello=true").bearer(credential).stream().await;
        let hello = hello(&mut stream).await;
        assert_eq!(hello.get("secret"), None, "the credential proves it");
        for stranger in credentials.iter().filter(|stranger| *stranger != credential) {
            patch(&api, &hello, &add).bearer(stranger).answer().await.refused(403);
        }
        patch(&api, &hello, &add).answer().await.refused(403);
        patch(&api, &hello, &json!({ "add": "news", "secret": credential })).answer().await.refused(403);
        patch(&api, &hello, &add).bearer("tk_unknown").answer().await.refused(401);
        let guessed = json!({ "connection": format!("{:032x}", 7) });
        patch(&api, &guessed, &add).bearer(credential).answer().await.refused(404);
        api.hub.publish(NewEvent::new("news", "not for it")).await.expect("published");
        api.hub.publish(NewEvent::new("chat", "for it")).await.expect("published");
        let received = stream.until("for it\n\n").await;
        assert!(!received.contains("not for it"), "{received}");
        let changed = answer(patch(&api, &hello, &add).bearer(credential), &mut stream).await.ok();
        assert_eq!(changed.json()["topics"], json!(["chat", "news"]));
    }
    // Wherever it is presented.
    let mut stream = api.get(&format!("/stream?topic=chat&hello=true&ticket={}", tickets[0])).stream().await;
    let hello = hello(&mut stream).await;
    let target = format!("/connections/{}?ticket=", hello["connection"].as_str().expect("a connection"));
    let ask =
        |ticket: &str| api.ask(Method::PATCH, &format!("{target}{ticket}")).header("content-type", JSON);
    ask(&tickets[1]).body(add.to_string()).answer().await.refused(403);
    answer(ask(&tickets[0]).body(add.to_string()), &mut stream).await.ok();
}

#[tokio::test]
async fn what_the_credential_does_not_cover_is_not_added() {
    let api = with_keys().await;
    let covering = token(&[], &["staff-1"]);
    for (credential, topic, status) in [
        (&covering, "staff-1", 200),
        (&covering, "staff-2", 403),
        (&covering, "public", 200),
        (&CHAT_KEY.to_owned(), "staff-1", 403),
        (&ticket(&["chat", "staff-1"]), "staff-1", 200),
        (&ticket(&["chat"]), "public", 403),
        (&ticket(&["chat"]), "*", 403),
    ] {
        let mut stream = api.get("/stream?topic=chat&hello=true").bearer(credential).stream().await;
        let hello = hello(&mut stream).await;
        let ask = patch(&api, &hello, &json!({ "add": topic })).bearer(credential);
        let changed = answer(ask, &mut stream).await;
        assert_eq!(changed.status.as_u16(), status, "{topic} {changed:?}");
        api.hub
            .publish(NewEvent::new(topic.replace('*', "any"), "secret").private())
            .await
            .expect("published");
        api.hub.publish(NewEvent::new("chat", "end")).await.expect("published");
        let received = stream.until("data: end\n\n").await;
        let is_granted = status == 200 && topic.starts_with("staff");
        assert_eq!(received.contains("secret"), is_granted, "{topic}: {received}");
    }
    // Without a credential, private topics stay private.
    let mut stream = api.get("/stream?topic=chat&hello=true").stream().await;
    let hello = hello(&mut stream).await;
    let body = json!({ "add": "staff-1", "secret": hello["secret"] });
    patch(&api, &hello, &body).answer().await.refused(401);
    let body = json!({ "add": "chat", "secret": hello["secret"] });
    patch(&api, &hello, &body).bearer(KEY).answer().await.refused(403);
}

#[tokio::test]
async fn requests_that_cannot_be_carried_out_are_refused_with_the_remedy() {
    let api = keyless().await;
    let mut stream = api.get("/stream?topic=a&hello=true").stream().await;
    let hello = hello(&mut stream).await;
    let secret = hello["secret"].as_str().expect("a secret");
    let many: Vec<_> = (0..100).map(|number| format!("t{number}")).collect();
    let too_many: Vec<_> = (0..101).map(|number| format!("t{number}")).collect();
    for (body, part) in [
        (json!({ "add": [""] }), "topic"),
        (json!({ "add": 7 }), "string"),
        (json!({ "add": "b", "removed": "a" }), "unknown field"),
        (json!({ "add": "b", "pattern": "/:x" }), "unknown field"),
        (json!({ "remove": "a", "secret": secret }), "no topic left"),
        (json!({ "add": many, "secret": secret }), "101 topics and patterns"),
        (json!({ "add": too_many, "secret": secret }), "100"),
        (json!(["a"]), "`{`"),
    ] {
        let detail = answer(patch(&api, &hello, &body), &mut stream).await.refused(400);
        assert!(detail.contains(part), "{body}: {detail}");
    }
    let target = format!("/connections/{}", hello["connection"].as_str().expect("a connection"));
    let ask = |target: &str| api.ask(Method::PATCH, target).body(r#"{"add":"b"}"#);
    ask(&target).answer().await.refused(400);
    ask(&target).header("content-type", "text/plain").answer().await.refused(415);
    ask(&format!("{target}?add=b")).header("content-type", JSON).answer().await.refused(400);
    let form = api.ask(Method::PATCH, &target).header("content-type", "application/x-www-form-urlencoded");
    form.body("add=b&topic=c").answer().await.refused(400);
    let body = json!({ "add": "b", "secret": secret });
    for unknown in ["7", "", "ffffffffffffffffffffffffffffffff", "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"] {
        let hello = json!({ "connection": unknown });
        let answer = patch(&api, &hello, &body).answer().await;
        assert_eq!(answer.status.as_u16(), 404, "{unknown:?}");
    }
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let answer = api.ask(method, &target).answer().await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "PATCH"));
    }
    drop(stream);
    patch(&api, &hello, &body).answer().await.refused(404);
    // A finite read cannot be changed, and one without `hello` has no name.
    let finite = api.get("/stream?topic=a&hello=true&until=now").answer().await.ok();
    assert!(finite.body.contains(r#""topics":["a"]"#) && !finite.body.contains("secret"), "{}", finite.body);
}

#[tokio::test]
async fn a_stream_is_not_changed_more_often_than_it_may() {
    let api = keyless().await;
    let mut stream = api.get("/stream?topic=a&hello=true").stream().await;
    let hello = hello(&mut stream).await;
    let body = |number: usize| json!({ "add": format!("t{}", number % 50), "secret": hello["secret"] });
    let mut refused = None;
    // It may be changed twenty times a second.
    for number in 0..10_000 {
        let changed = answer(patch(&api, &hello, &body(number)), &mut stream).await;
        if changed.status.as_u16() == 429 {
            refused = Some(changed);
            break;
        }
        changed.ok();
    }
    let refused = refused.expect("ten thousand changes take less than eight minutes");
    assert_eq!(refused.header("retry-after"), "1");
}

#[tokio::test]
async fn pages_of_allowed_origins_may_change_their_streams() {
    let api = keyless().await;
    let preflight = api
        .ask(Method::OPTIONS, "/connections/0123456789abcdef0123456789abcdef")
        .header("origin", "http://localhost:5173")
        .header("access-control-request-method", "PATCH")
        .header("access-control-request-headers", "content-type");
    let answer = preflight.answer().await;
    assert_eq!(answer.status.as_u16(), 204);
    assert_eq!(answer.header("access-control-allow-methods"), "PATCH");
    assert!(answer.header("access-control-allow-headers").contains("Content-Type"));
    let foreign = api
        .ask(Method::OPTIONS, "/connections/0123456789abcdef0123456789abcdef")
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "PATCH");
    assert_eq!(foreign.answer().await.status.as_u16(), 403);
}

const TOPICS: [&str; 6] = ["t0", "t1", "t2", "t3", "t4", "t5"];
/// Changes in all if the variable `TIDINGS_EDITS` says nothing else.
const EDITS: usize = 400;
/// Changes of one stream: it may have as many at once.
const EDITS_OF_A_STREAM: usize = 40;
/// Streams that are open at the same time.
const STREAMS: usize = 10;

/// What was published.
#[derive(Default)]
struct Log {
    /// By its position: the number in its data, and its topics.
    events: Mutex<BTreeMap<tidings::log::Position, (u64, Vec<usize>)>>,
    /// Who publishes reads this until the event is above.
    publishing: RwLock<()>,
}

/// Each stream has exactly the events of its topics at each time, beside publishers that do not wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_on_sockets_have_exactly_the_events_of_their_topics() {
    let edits = std::env::var("TIDINGS_EDITS").map_or(EDITS, |text| text.parse().expect("a number"));
    let served = Served::start().await;
    let log = Arc::<Log>::default();
    let is_over = Arc::new(AtomicBool::new(false));
    let mut publishers = JoinSet::new();
    for publisher in 0..2_u64 {
        let (hub, log, is_over) = (served.hub.clone(), Arc::clone(&log), Arc::clone(&is_over));
        publishers.spawn(async move {
            let mut runner = runner(publisher);
            let topics = prop::collection::hash_set(0..TOPICS.len(), 1..3);
            let mut number = publisher;
            while !is_over.load(Relaxed) {
                let topics: Vec<_> =
                    topics.new_tree(&mut runner).expect("topics").current().into_iter().collect();
                publish(&hub, &log, number, topics).await;
                number += 2;
                // So that the readers of a small machine keep up.
                if number % 64 < 2 {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            }
        });
    }
    let mut left = edits.div_ceil(EDITS_OF_A_STREAM);
    let mut events = 0;
    for seed in 0.. {
        let streams = left.min(STREAMS);
        left -= streams;
        let mut editing = JoinSet::new();
        for stream in 0..streams as u64 {
            editing.spawn(edit_randomly(served.address, 1_000 * seed + stream));
        }
        let editing = editing.join_all().await;
        publish(&served.hub, &log, u64::MAX, vec![TOPICS.len()]).await;
        for edited in editing {
            events += edited.check(&log).await;
        }
        if left == 0 {
            break;
        }
    }
    is_over.store(true, Relaxed);
    publishers.join_all().await;
    assert!(events > edits, "{events} events are few for {edits} changes");
    println!("{edits} changes, {events} events");
}

fn runner(seed: u64) -> TestRunner {
    TestRunner::new(Config { rng_seed: RngSeed::Fixed(seed), ..Config::default() })
}

async fn publish(hub: &tidings::Hub, log: &Log, number: u64, topics: Vec<usize>) {
    let mut event = NewEvent::new(name(topics[0]), number.to_string());
    for topic in &topics[1..] {
        event = event.also(name(*topic));
    }
    let _publishing = log.publishing.read().await;
    let id = hub.publish(event).await.expect("published").id.expect("it is stored");
    let position = Cursor::parse(id.as_str()).expect("an id of the hub").position;
    log.events.lock().expect("nobody panicked").insert(position, (number, topics));
}

/// The topic after the others is the end, to which every stream is subscribed.
fn name(topic: usize) -> &'static str {
    TOPICS.get(topic).unwrap_or(&"end")
}

/// A stream after its changes.
struct EditedStream {
    stream: EventStream,
    /// What it had from which position on.
    subscribed: Vec<(tidings::log::Position, Vec<usize>)>,
    /// What it has received meanwhile.
    received: Vec<u64>,
}

async fn edit_randomly(address: SocketAddr, seed: u64) -> EditedStream {
    let mut runner = runner(seed);
    let change = (
        prop::collection::hash_set(0..TOPICS.len(), 0..3),
        prop::collection::hash_set(0..TOPICS.len(), 0..3),
    );
    let mut stream =
        EventStream::open(address, "/stream?topic=end&topic=t0&hello=true").await.expect("a stream");
    let hello = stream.next().await.expect("hello");
    let position = |id: &str| Cursor::parse(id).expect("an id of the hub").position;
    let begins = position(&hello.last_event_id);
    let hello: Value = serde_json::from_str(&hello.data).expect("JSON");
    let head =
        format!("PATCH /connections/{}\nContent-Type: {JSON}", hello["connection"].as_str().expect("text"));
    let mut connection = Connection::open(address).await.expect("a connection");
    let mut subscribed = vec![(begins, vec![TOPICS.len(), 0])];
    let mut received = Vec::new();
    for _ in 0..EDITS_OF_A_STREAM {
        let (add, remove) = change.new_tree(&mut runner).expect("a change").current();
        if add.is_empty() && remove.is_empty() {
            continue;
        }
        let names = |topics: &std::collections::HashSet<usize>| {
            topics.iter().map(|topic| TOPICS[*topic]).collect::<Vec<_>>()
        };
        let body = json!({ "add": names(&add), "remove": names(&remove), "secret": hello["secret"] });
        connection.request(&head, body.to_string().as_bytes()).await.expect("sent");
        let answered = connection.response();
        tokio::pin!(answered);
        let answer = loop {
            tokio::select! {
                answer = &mut answered => break answer.expect("an answer"),
                // It may be a slow one.
                event = stream.next() => received.push(event.expect("an event").data.parse().expect("a number")),
            }
        };
        assert_eq!(answer.status, 200, "{answer}");
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let topics = answer["topics"]
            .as_array()
            .expect("topics")
            .iter()
            .map(|name| TOPICS.iter().position(|topic| name == topic).unwrap_or(TOPICS.len()));
        subscribed.push((position(answer["cursor"].as_str().expect("a cursor")), topics.collect()));
    }
    EditedStream { stream, subscribed, received }
}

impl EditedStream {
    /// Reads to the end, and compares. Returns how many events there were.
    async fn check(mut self, log: &Log) -> usize {
        // An event before the end may still be on its way from the hub to the list.
        drop(log.publishing.write().await);
        let expected: Vec<_> = {
            let log = log.events.lock().expect("nobody panicked");
            let is_in = |position: &tidings::log::Position, topics: &[usize]| {
                let now = self.subscribed.iter().rev().find(|(after, _)| after < position);
                now.is_some_and(|(_, subscribed)| topics.iter().any(|topic| subscribed.contains(topic)))
            };
            let (end, _) = log.iter().rev().find(|(_, (number, _))| *number == u64::MAX).expect("the end");
            let upto = log.range(..=end).filter(|(position, (_, topics))| is_in(position, topics));
            upto.map(|(_, (number, _))| *number).collect()
        };
        while self.received.last() != Some(&u64::MAX) || self.received.len() < expected.len() {
            let event = self.stream.next().await.expect("an event");
            assert_eq!(event.event_type, "message", "{event:?}");
            self.received.push(event.data.parse().expect("a number"));
        }
        assert!(self.received == expected, "{:?}\n{:?}\n{:?}", self.subscribed, self.received, expected);
        self.received.len()
    }
}

#[tokio::test]
async fn the_answer_is_the_same_for_a_request_that_is_repeated() {
    let api = keyless().await;
    let mut stream = api.get("/stream?topic=a&hello=true").stream().await;
    let hello = hello(&mut stream).await;
    let body = json!({ "add": ["b"], "remove": ["a"], "secret": hello["secret"] });
    let first = answer(patch(&api, &hello, &body), &mut stream).await.ok();
    let repeated = answer(patch(&api, &hello, &body), &mut stream).await.ok();
    assert_eq!(first.json(), repeated.json());
    let nothing = json!({ "secret": hello["secret"] });
    let unchanged = answer(patch(&api, &hello, &nothing), &mut stream).await.ok();
    assert_eq!(first.json(), unchanged.json());
}
