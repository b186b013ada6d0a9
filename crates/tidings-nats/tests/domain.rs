//! A log in the JetStream domain of a server that is reached through a leaf node.
//!
//! Needs: nats-server.

mod support;

use std::time::Duration;

use tidings_log::{
    Batch, Log, Position, TailItem,
    cluster::{Change, Cluster},
};
use tidings_nats::{Nats, NatsAddress, NatsLog, NatsSettings};
use tidings_testkit::{NatsDomains, NatsServer, PATIENCE};
use tidings_topic::{Filter, Grants, Matcher, NewEvent, Validator};
use tokio::time::timeout;

use support::{Fresh, connect};

tidings_log_conformance::conformance!(log, Fresh::through_a_leaf_node());
tidings_log_conformance::cluster_conformance!(cluster, Fresh::through_a_leaf_node());

fn address(server: &NatsServer, parameters: &str) -> NatsAddress {
    format!("{}{parameters}", server.url()).parse().expect("an address")
}

async fn append(log: &NatsLog, texts: &[String]) {
    let event =
        |text: &String| Validator::default().event(NewEvent::new("a", text.as_str())).expect("an event");
    let events = texts.iter().map(event).collect();
    log.append(Batch { events, key: None }).await.expect("it is appended");
}

async fn texts(log: &NatsLog) -> Vec<String> {
    let everything = Filter { matchers: vec![Matcher::Any], grants: Grants::all() };
    let (mut after, mut texts) = (Position::BEFORE_ALL, Vec::new());
    // A page of a log is as far as its hub has read; this waits until it has read everything.
    log.bounds().await.expect("the log answers");
    loop {
        let page = log.read(after, &everything, 1 << 20).await.expect("a page");
        texts.extend(page.entries.iter().map(|entry| entry.event.data.clone()));
        if page.at_end {
            return texts;
        }
        after = page.through;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hubs_at_a_leaf_node_and_at_its_server_share_a_log_and_a_cluster() {
    let domains = NatsDomains::start().unwrap();
    let settings = || NatsSettings { recent_bytes_max: 0, ..NatsSettings::default() };
    let far = connect(&address(&domains.leaf, "?domain=hub"), settings()).await;
    let near = connect(&address(&domains.hub, ""), settings()).await;
    let (far_log, near_log) = (far.log().await.unwrap(), near.log().await.unwrap());
    let (_, mut tail) = far_log.tail().await.unwrap();
    append(&near_log, &["near".to_owned()]).await;
    let item = timeout(PATIENCE, tail.next(1 << 20)).await.expect("it comes").unwrap();
    let TailItem::Entries(entries) = item else { panic!("{item:?}") };
    assert_eq!(entries[0].event.data, "near");
    append(&far_log, &["far".to_owned()]).await;
    for log in [&far_log, &near_log] {
        assert_eq!(texts(log).await, ["near", "far"]);
        log.health().await.unwrap();
    }
    let (far, near) = (far.cluster().await.unwrap(), near.cluster().await.unwrap());
    let mut watch = near.watch("hub/").await.unwrap();
    far.set("hub/far", b"here", Duration::from_secs(3_600)).await.unwrap();
    let changes = timeout(PATIENCE, watch.next()).await.expect("it comes").unwrap();
    assert_eq!(changes, [Change::Set { key: "hub/far".to_owned(), value: b"here".to_vec() }]);
    let mut messages = far.listen("channel").await.unwrap();
    near.send("channel", b"said").await.unwrap();
    assert_eq!(timeout(PATIENCE, messages.next()).await.expect("it comes"), Ok(b"said".to_vec()));
    // Nothing is stored at the leaf node, which has JetStream as well.
    let client = async_nats::connect(domains.leaf.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    for stream in ["tidings", "KV_tidings-hub", "KV_tidings-cluster"] {
        jetstream.get_stream(stream).await.expect_err(stream);
    }
}

/// More than the server sends before it wants to know what has arrived.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_log_is_read_through_a_leaf_node() {
    let domains = NatsDomains::start().unwrap();
    let near = connect(&address(&domains.hub, ""), NatsSettings::default()).await.log().await.unwrap();
    let payload = "x".repeat(1_000);
    let batches: Vec<Vec<_>> = (0..100)
        .map(|batch| (0..400).map(|number| format!("{batch}/{number} {payload}")).collect())
        .collect();
    for batch in &batches {
        append(&near, batch).await;
    }
    let far = connect(&address(&domains.leaf, "?domain=hub"), NatsSettings::default()).await;
    assert!(texts(&far.log().await.unwrap()).await == batches.concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_that_cannot_be_reached_is_named() {
    let server = NatsServer::start().unwrap();
    let refused =
        Nats::connect(&address(&server, "?domain=other"), NatsSettings::default()).await.unwrap_err();
    assert!(
        refused.to_string().contains("reaches no JetStream domain other: check the parameter domain"),
        "{refused}"
    );
}
