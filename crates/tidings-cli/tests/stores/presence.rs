//! `GET /topics/{topic}/presence`: who is subscribed to a topic, at all hubs of a store.

#![cfg(unix)]

use std::net::SocketAddr;

use serde_json::{Value, json};
use tidings_testkit::{Application, Connection, EventStream, Hub, NatsServer, PATIENCE, RedisServer, Reply};
use tokio::time::timeout;

/// An application that grants each stream the label in its query, on `chat`.
async fn application() -> Application {
    let grant = |request: &str| {
        let label = request.split_once("?user=").and_then(|(_, rest)| rest.split(' ').next());
        let label = label.map(|label| format!("&label={label}")).unwrap_or_default();
        Reply::subscribe(&format!("topic=chat{label}"))
    };
    Application::start(grant).await.unwrap()
}

async fn presence(address: SocketAddr, target: &str) -> (u16, Value) {
    let mut connection = Connection::open(address).await.unwrap();
    connection.request(&format!("GET /topics/{target}"), b"").await.unwrap();
    let response = connection.response().await.unwrap();
    (response.status, serde_json::from_slice(&response.body).unwrap_or_default())
}

/// Asks until the answer is this one.
async fn shows(hub: &Hub, expected: &Value) {
    let showing = async {
        loop {
            let (status, shown) = presence(hub.address(), "chat/presence").await;
            assert_eq!(status, 200, "{shown}");
            if shown == *expected {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, showing).await.unwrap_or_else(|_| panic!("never showed {expected}"));
}

fn present(subscribers: usize, members: &[(&str, usize)]) -> Value {
    let listed = members.iter().map(|(label, count)| json!({ "label": label, "subscribers": count }));
    let listed: Vec<_> = listed.collect();
    json!({
        "topic": "chat", "subscribers": subscribers, "labels": members.len(), "members": listed, "next": null
    })
}

async fn counts_over_the_cluster(store: &str) {
    let application = application().await;
    let args = ["--store", store, "--presence", "--authorize", &application.url("/stream")];
    let [mut one, other] = [Hub::serve(&args).await.unwrap(), Hub::serve(&args).await.unwrap()];
    let open = async |hub: &Hub, target: &str| EventStream::open(hub.address(), target).await.unwrap();
    let ann = open(&one, "/stream?user=ann").await;
    let _second_tab = open(&other, "/stream?user=ann").await;
    let _bob = open(&other, "/stream?user=bob").await;
    let _nameless = open(&one, "/topics/chat").await;
    for hub in [&one, &other] {
        shows(hub, &present(4, &[("ann", 2), ("bob", 1)])).await;
    }
    drop(ann);
    for hub in [&one, &other] {
        shows(hub, &present(3, &[("ann", 1), ("bob", 1)])).await;
    }
    assert!(one.stop().await.unwrap().success());
    shows(&other, &present(2, &[("ann", 1), ("bob", 1)])).await;
}

#[tokio::test]
async fn presence_is_counted_over_all_hubs_on_redis() {
    let server = RedisServer::start().await.unwrap();
    counts_over_the_cluster(&server.url()).await;
}

#[tokio::test]
async fn presence_is_counted_over_all_hubs_on_nats() {
    let server = NatsServer::start().unwrap();
    counts_over_the_cluster(&format!("{}/presence", server.url())).await;
}

#[tokio::test]
async fn presence_comes_in_pages() {
    let application = application().await;
    let hub = Hub::serve(&["--presence", "--authorize", &application.url("/stream")]).await.unwrap();
    let mut streams = Vec::new();
    for label in ["a%26b", "c", "d", "e"] {
        let target = format!("/stream?user={label}");
        streams.push(EventStream::open(hub.address(), &target).await.unwrap());
    }
    let (_, first) = presence(hub.address(), "chat/presence?limit=2").await;
    assert_eq!((&first["labels"], &first["next"]), (&json!(4), &json!("c")));
    assert_eq!(first["members"][0]["label"], "a&b");
    let (_, second) = presence(hub.address(), "chat/presence?limit=2&after=c").await;
    assert_eq!((&second["members"][1]["label"], &second["next"]), (&json!("e"), &Value::Null));
    for wrong in ["limit=0", "limit=1001", "limit=x", "aftr=c"] {
        let (status, problem) = presence(hub.address(), &format!("chat/presence?{wrong}")).await;
        assert_eq!(status, 400, "{wrong}: {problem}");
    }
}

#[tokio::test]
async fn an_event_source_still_receives_the_events_of_a_topic_of_that_name() {
    let hub = Hub::serve(&["--presence"]).await.unwrap();
    let accept = ["Accept: text/event-stream"];
    let mut stream = EventStream::open_with(hub.address(), "/topics/chat/presence", &accept).await.unwrap();
    hub.publish("chat/presence", "an event").await.unwrap();
    assert_eq!(stream.messages(1).await.unwrap(), ["an event"]);
    let (_, shown) = presence(hub.address(), "chat/presence").await;
    assert_eq!(shown, present(0, &[]));
}

#[tokio::test]
async fn without_the_setting_the_path_is_that_of_a_topic_like_others() {
    let hub = Hub::serve(&[]).await.unwrap();
    let summary = hub.request("GET /topics/chat/presence\nAccept: application/json", b"").await.unwrap();
    let summary: Value = serde_json::from_slice(&summary.body).unwrap();
    assert_eq!(summary["topic"], "chat/presence");
}
