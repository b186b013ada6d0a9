//! `mercure_subscriptions`: which subscriptions there are, at all hubs of a store, and the updates when
//! one begins or ends (the Mercure protocol, "Active subscriptions").

#![cfg(unix)]

use std::{collections::HashMap, fs};

use serde_json::Value;
use tidings_testkit::{EventStream, Hub, NatsServer, PATIENCE, RedisServer};
use tokio::time::timeout;

const ALL: &str = "/.well-known/mercure/subscriptions";
/// A stream of all updates of the current revision.
const UPDATES: &str =
    "/.well-known/mercure?match_urlpattern=/.well-known/mercure/subscriptions/:type/:match/:subscriber";
/// The same of the older one.
const OLDER_UPDATES: &str =
    "/.well-known/mercure?topic=/.well-known/mercure/subscriptions%7B/topic%7D%7B/subscriber%7D";

async fn serve(store: &str) -> Hub {
    Hub::serve(&["--store", store, "--mercure-subscriptions"]).await.unwrap()
}

/// Subscribes to these topics.
async fn subscribe(hub: &Hub, topics: &[&str]) -> EventStream {
    let query = topics.iter().map(|topic| format!("match={topic}")).collect::<Vec<_>>().join("&");
    EventStream::open(hub.address(), &format!("/.well-known/mercure?{query}")).await.unwrap()
}

/// Opens so many streams that end at once, at the hubs in turn.
async fn visit(hubs: &[Hub], topic: &str, count: usize) {
    for hub in hubs.iter().cycle().take(count) {
        drop(subscribe(hub, &[topic]).await);
    }
}

/// What a stream of updates has reported of topics: for each subscription, whether it is active, in
/// the order of the updates.
struct Updates {
    stream: EventStream,
    seen: HashMap<(String, String), Vec<bool>>,
}

impl Updates {
    async fn open(hub: &Hub, since: &str) -> Self {
        let stream = EventStream::resume(hub.address(), UPDATES, since).await.unwrap();
        Self { stream, seen: HashMap::new() }
    }

    async fn next(&mut self) {
        let event = self.stream.next().await.unwrap();
        assert_eq!(event.event_type, "mercure");
        let update: Value = serde_json::from_str(&event.data).unwrap();
        let text = |name: &str| update[name].as_str().unwrap().to_owned();
        if text("match_type") == "exact" {
            let states = self.seen.entry((text("match"), text("subscriber"))).or_default();
            states.push(update["active"].as_bool().unwrap());
        }
    }

    /// Reads until a subscriber of this topic has this history.
    async fn until(&mut self, topic: &str, history: &[bool]) {
        let found = |seen: &HashMap<(String, String), Vec<bool>>| {
            seen.iter().any(|((of, _), states)| of == topic && states == history)
        };
        let reading = async {
            while !found(&self.seen) {
                self.next().await;
            }
        };
        let waited = timeout(PATIENCE, reading).await;
        waited.unwrap_or_else(|_| panic!("{topic} never was {history:?}: {:?}", self.seen));
    }

    /// Reads until so many subscribers of this topic have come and left.
    async fn until_left(&mut self, topic: &str, count: usize) {
        let reading = async {
            while self.of(topic).iter().filter(|states| states.len() == 2).count() < count {
                self.next().await;
            }
        };
        let is_read = timeout(PATIENCE, reading).await.is_ok();
        assert!(is_read, "{count} subscribers of {topic} never had two updates each: {:?}", self.of(topic));
    }

    /// The histories of the subscribers of a topic.
    fn of(&self, topic: &str) -> Vec<&[bool]> {
        self.seen.iter().filter(|((of, _), _)| of == topic).map(|(_, states)| &**states).collect()
    }
}

/// Reads the collection until it consists of these topics, those of updates aside.
async fn lists(hub: &Hub, topics: &[&str]) {
    let mut listed = Vec::new();
    let reading = async {
        loop {
            let response = hub.request(&format!("GET {ALL}"), b"").await.unwrap();
            assert_eq!(response.status, 200, "{response}");
            let all: Value = serde_json::from_slice(&response.body).unwrap();
            let exact =
                all["subscriptions"].as_array().unwrap().iter().filter(|one| one["match_type"] == "exact");
            listed = exact.map(|one| one["match"].as_str().unwrap().to_owned()).collect();
            if listed == topics {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let is_shown = timeout(PATIENCE, reading).await.is_ok();
    assert!(is_shown, "never listed {topics:?}, at last {listed:?}");
}

/// A hub with this configuration file.
async fn configured(config: &str) -> Hub {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidings.toml");
    fs::write(&file, config).unwrap();
    Hub::serve(&["--config", file.to_str().unwrap()]).await.unwrap()
}

#[tokio::test]
async fn an_update_is_sent_when_a_subscription_begins_and_when_it_ends() {
    let hub = serve("memory:").await;
    let mut updates = Updates::open(&hub, "earliest").await;
    let ann = subscribe(&hub, &["a", "b"]).await;
    updates.until("a", &[true]).await;
    updates.until("b", &[true]).await;
    lists(&hub, &["a", "b"]).await;
    drop(ann);
    updates.until("a", &[true, false]).await;
    updates.until("b", &[true, false]).await;
    lists(&hub, &[]).await;
    // They are events of the log like others.
    let mut again = Updates::open(&hub, "earliest").await;
    again.until("a", &[true, false]).await;
}

#[tokio::test]
async fn a_subscription_that_ends_at_once_has_both_updates() {
    let hubs = [serve("memory:").await];
    let mut updates = Updates::open(&hubs[0], "earliest").await;
    visit(&hubs, "short", 100).await;
    updates.until_left("short", 100).await;
    assert_eq!(updates.of("short"), [[true, false]; 100]);
}

#[tokio::test]
async fn updates_are_private_and_only_the_hub_publishes_them() {
    let hub = configured(
        r#"
        mercure_subscriptions = true
        [[key]]
        name = "reader"
        secret = "tk_a-key-for-the-updates-of-subscriptions"
        subscribe = ["*"]
        publish = ["*"]
        [[key]]
        name = "other"
        secret = "tk_a-key-for-some-other-topic-of-the-hub"
        subscribe = ["chat"]
    "#,
    )
    .await;
    let bearer = |key: &str| format!("Authorization: Bearer {key}");
    let reader = bearer("tk_a-key-for-the-updates-of-subscriptions");
    let other = bearer("tk_a-key-for-some-other-topic-of-the-hub");
    let all = "/.well-known/mercure?match=*";
    let mut allowed = EventStream::open_with(hub.address(), all, &[&reader]).await.unwrap();
    let mut stranger = EventStream::open_with(hub.address(), all, &[&other]).await.unwrap();
    let subscriber = subscribe(&hub, &["chat"]).await;
    let mut update = allowed.next().await.unwrap();
    while !update.data.contains("\"match\":\"chat\"") {
        update = allowed.next().await.unwrap();
    }
    let document: Value = serde_json::from_str(&update.data).unwrap();
    let forged = serde_json::json!({ "topic": document["id"], "data": "{}" }).to_string();
    let publishing = format!("POST /topics\nContent-Type: application/x-ndjson\n{reader}");
    let refused = hub.request(&publishing, forged.as_bytes()).await.unwrap();
    assert!(refused.status == 400 && refused.text().contains("only the hub publishes"), "{}", refused.text());
    drop(subscriber);
    while !allowed.next().await.unwrap().data.contains("\"active\":false") {}
    let published = hub.request(&format!("POST /topics/chat\n{reader}"), b"the next one").await.unwrap();
    assert_eq!(published.status, 200, "{published}");
    assert_eq!(stranger.messages(1).await.unwrap(), ["the next one"]);
}

/// Security 18: there is an update only about a stream that was opened.
#[tokio::test]
async fn a_stream_that_is_refused_has_no_update() {
    let hub = Hub::serve(&["--mercure-subscriptions", "--streams-max", "2"]).await.unwrap();
    let mut updates = Updates::open(&hub, "earliest").await;
    let stream = subscribe(&hub, &["first"]).await;
    for refused in ["/.well-known/mercure?match=refused", "/stream?topic=refused"] {
        let response = hub.request(&format!("GET {refused}"), b"").await.unwrap();
        assert_eq!(response.status, 503, "{response}");
    }
    drop(stream);
    updates.until("first", &[true, false]).await;
    let stream = subscribe(&hub, &["second"]).await;
    updates.until("second", &[true]).await;
    assert!(updates.of("refused").is_empty(), "{:?}", updates.seen);
    drop(stream);
}

#[tokio::test]
async fn a_client_of_the_older_revision_receives_updates_of_that_revision() {
    let args = ["--mercure-subscriptions", "--mercure-revisions", "1.0", "--mercure-revisions", "0.x"];
    let hub = Hub::serve(&args).await.unwrap();
    let mut updates = EventStream::open(hub.address(), OLDER_UPDATES).await.unwrap();
    let topic = "https%3A%2F%2Fexample.com%2F%7Bid%7D";
    let subscriber =
        EventStream::open(hub.address(), &format!("/.well-known/mercure?topic={topic}")).await.unwrap();
    let mut next = async |active: bool| loop {
        let event = updates.next().await.unwrap();
        // `onmessage` of the clients of that revision receives it.
        assert_eq!(event.event_type, "message");
        let update: Value = serde_json::from_str(&event.data).unwrap();
        if update["topic"] == "https://example.com/{id}" && update["active"] == active {
            return update;
        }
    };
    let began = next(true).await;
    let response = hub.request(&format!("GET {}", began["id"].as_str().unwrap()), b"").await.unwrap();
    let shown: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!((&shown["id"], &shown["type"]), (&began["id"], &"Subscription".into()));
    drop(subscriber);
    assert_eq!(next(false).await["id"], began["id"]);
}

#[tokio::test]
async fn subscriptions_of_a_hub_that_was_killed_end_when_it_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = serve(&folder.path().join("store").display().to_string()).await;
    let mut updates = Updates::open(&hub, "earliest").await;
    let _lost = subscribe(&hub, &["lost"]).await;
    updates.until("lost", &[true]).await;
    hub.kill().await.unwrap();
    hub.start_again().await.unwrap();
    let _kept = subscribe(&hub, &["kept"]).await;
    let mut updates = Updates::open(&hub, "earliest").await;
    updates.until("lost", &[true, false]).await;
    updates.until("kept", &[true]).await;
    lists(&hub, &["kept"]).await;
    assert_eq!(updates.of("lost"), [[true, false]]);
}

#[tokio::test]
async fn subscriptions_are_those_of_all_hubs_on_redis_also_when_one_is_killed() {
    let server = RedisServer::start().await.unwrap();
    subscriptions_are_those_of_all_hubs(&server.url()).await;
}

#[tokio::test]
async fn subscriptions_are_those_of_all_hubs_on_nats_also_when_one_is_killed() {
    let server = NatsServer::start().unwrap();
    subscriptions_are_those_of_all_hubs(&format!("{}/subscriptions", server.url())).await;
}

async fn subscriptions_are_those_of_all_hubs(store: &str) {
    let mut hubs = [serve(store).await, serve(store).await, serve(store).await];
    // The one that is killed publishes the updates of all.
    hubs[0].printed("this hub delivers the hooks").await.unwrap();
    let mut updates = Updates::open(&hubs[2], "earliest").await;
    let topics = ["at-0", "at-1", "at-2"];
    let mut streams = Vec::new();
    for (hub, topic) in hubs.iter().zip(topics) {
        streams.push(subscribe(hub, &[topic, "all"]).await);
    }
    for topic in topics {
        updates.until(topic, &[true]).await;
    }
    for hub in &hubs {
        lists(hub, &["all", "all", "all", "at-0", "at-1", "at-2"]).await;
    }
    visit(&hubs, "short", 60).await;
    updates.until_left("short", 60).await;
    hubs[0].kill().await.unwrap();
    visit(&hubs[1..], "short-after", 20).await;
    let late = subscribe(&hubs[1], &["late"]).await;
    updates.until("at-0", &[true, false]).await;
    updates.until("late", &[true]).await;
    for hub in &hubs[1..] {
        lists(hub, &["all", "all", "at-1", "at-2", "late"]).await;
    }
    drop((late, streams));
    for topic in ["at-1", "at-2", "late"] {
        updates.until(topic, &[true, false]).await;
    }
    // From the beginning: each began once and ended once, whichever hub published it.
    let mut all = Updates::open(&hubs[1], "earliest").await;
    for topic in ["at-0", "at-1", "at-2", "late"] {
        all.until(topic, &[true, false]).await;
        assert_eq!(all.of(topic), [[true, false]]);
    }
    for (topic, count) in [("all", 3), ("short", 60), ("short-after", 20)] {
        all.until_left(topic, count).await;
        assert_eq!(all.of(topic), vec![[true, false]; count], "{topic}");
    }
}

/// Another hub may not have seen the subscriber at all.
#[tokio::test]
async fn a_subscription_ends_also_if_its_hub_is_killed_at_once() {
    let server = RedisServer::start().await.unwrap();
    let mut publishing = serve(&server.url()).await;
    publishing.printed("this hub delivers the hooks").await.unwrap();
    let mut updates = Updates::open(&publishing, "earliest").await;
    let mut other = serve(&server.url()).await;
    let _lost = subscribe(&other, &["lost"]).await;
    updates.until("lost", &[true]).await;
    other.kill().await.unwrap();
    updates.until("lost", &[true, false]).await;
    lists(&publishing, &[]).await;
}

#[tokio::test]
async fn the_streams_of_a_revoked_credential_are_no_subscriptions_any_more() {
    let hub = configured(
        r#"
        mercure_subscriptions = true
        [[key]]
        name = "reader"
        secret = "tk_a-key-for-the-updates-of-subscriptions"
        subscribe = ["*"]
        admin = true
        [[ticket_secret]]
        id = "1"
        secret = "a secret of tickets that is long enough"
    "#,
    )
    .await;
    let reader = "Authorization: Bearer tk_a-key-for-the-updates-of-subscriptions";
    let mut updates = EventStream::open_with(hub.address(), UPDATES, &[reader]).await.unwrap();
    let made = format!("POST /tickets\nContent-Type: application/json\n{reader}");
    let made = hub.request(&made, br#"{"topic":"chat","label":"ann"}"#).await.unwrap();
    assert_eq!(made.status, 200, "{made}");
    let ticket = made.text();
    let _stream =
        EventStream::open(hub.address(), &format!("/stream?ticket={}", ticket.trim())).await.unwrap();
    for active in [true, false] {
        loop {
            let update: Value = serde_json::from_str(&updates.next().await.unwrap().data).unwrap();
            if update["match"] == "chat" {
                assert_eq!(update["active"], active);
                break;
            }
        }
        if active {
            let revoke = format!("POST /revoke\nContent-Type: application/json\n{reader}");
            let revoked = hub.request(&revoke, br#"{"label":"ann"}"#).await.unwrap();
            assert!(revoked.status < 300, "{revoked}");
        }
    }
}

#[tokio::test]
async fn without_the_setting_nothing_is_there_and_nothing_is_published() {
    let hub = Hub::serve(&[]).await.unwrap();
    let response = hub.request(&format!("GET {ALL}"), b"").await.unwrap();
    assert_eq!(response.status, 404);
    assert!(response.text().contains("`mercure_subscriptions = true`"), "{}", response.text());
    let mut updates = EventStream::open(hub.address(), "/.well-known/mercure?match=*").await.unwrap();
    drop(subscribe(&hub, &["chat"]).await);
    hub.publish("chat", "the first event").await.unwrap();
    assert_eq!(updates.messages(1).await.unwrap(), ["the first event"]);
}
