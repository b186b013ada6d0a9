//! From Redis into the hub.

use std::sync::atomic::Ordering;

use tidings::{Hub, MemoryLimits, MemoryLog};
use tidings_testkit::RedisServer;

use crate::stage::{Application, Bridged, settings};

#[tokio::test]
async fn messages_of_an_application_arrive_in_order_and_nothing_else_does() {
    let server = RedisServer::start().await.unwrap();
    let mut bridged = Bridged::start(&server, "channels=chat,news&patterns=room-*").await;
    let mut application = Application::start(&server, &[]).await;
    application.publish("other", "not bridged").await;
    let lines: Vec<_> =
        (0..2_000).map(|number| format!("[12:00:00] anonymous: gr\u{fc}\u{df}e {number}")).collect();
    for (number, line) in lines.iter().enumerate() {
        let channel = ["chat", "news", "room-7"][number % 3];
        assert_eq!(application.publish(channel, line).await, 1, "one connection for all channels");
    }
    for (number, line) in lines.iter().enumerate() {
        let event = bridged.next().await;
        assert_eq!((event.topics[0].as_str(), &event.data), (["chat", "news", "room-7"][number % 3], line));
    }
    let figures = bridged.bridge.figures();
    assert_eq!((figures.received, figures.published), (2_000, 2_000));
}

#[tokio::test]
async fn a_message_of_several_subscriptions_is_received_once() {
    let server = RedisServer::start().await.unwrap();
    let mut bridged = Bridged::start(&server, "channels=room-1&patterns=room-*,*-1,*2").await;
    let mut application = Application::start(&server, &[]).await;
    for (channel, copies) in [("room-1", 3), ("room-2", 2), ("hall-1", 1)] {
        assert_eq!(application.publish(channel, channel).await, copies, "as Redis counts");
    }
    application.publish("room-3", "the last").await;
    assert_eq!(bridged.data(4).await, ["room-1", "room-2", "hall-1", "the last"]);
}

#[tokio::test]
async fn one_bad_message_blocks_none() {
    let server = RedisServer::start().await.unwrap();
    let mut bridged = Bridged::start(&server, "format=flask-sse").await;
    let mut application = Application::start(&server, &[]).await;
    for payload in [
        &b"no JSON"[..],
        b"\xff\xfe",
        br#"{"data":"forged","id":"1\ndata: forged"}"#,
        br##"{"data":"forged","id":"#1.1"}"##,
        br#"{"data":"forged","type":"tidings"}"#,
        format!("{{\"data\":\"{}\"}}", "x".repeat(1 << 20)).as_bytes(),
        br#"{"data":{"good":[1]},"type":"note"}"#,
    ] {
        application.publish("sse", payload).await;
    }
    let event = bridged.next().await;
    assert_eq!(event.data, r#"{"good": [1]}"#);
    let figures = bridged.bridge.figures();
    let refused = (figures.undecodable, figures.invalid, figures.too_large);
    assert_eq!((refused, figures.received), ((2, 3, 1), 7));
}

#[tokio::test]
async fn a_message_that_the_log_cannot_hold_does_not_block_others() {
    let server = RedisServer::start().await.unwrap();
    let log = MemoryLog::new(MemoryLimits { bytes_max: 10_000, ..MemoryLimits::default() });
    let hub = Hub::builder().log(log).start().await.unwrap();
    let mut bridged = Bridged::of(hub, settings(&server, "channels=chat")).await;
    bridged.until("the bridge to listen", |figures| figures.is_listening).await;
    bridged.hub_access.is_shut.store(true, Ordering::Relaxed);
    let mut application = Application::start(&server, &[]).await;
    for payload in ["one", &"x".repeat(20_000), "two"] {
        application.publish("chat", payload).await;
    }
    bridged.until("all to have come", |figures| figures.received == 3).await;
    bridged.hub_access.is_shut.store(false, Ordering::Relaxed);
    assert_eq!(bridged.data(2).await, ["one", "two"]);
    assert_eq!(bridged.bridge.figures().no_room, 1);
}

#[tokio::test]
async fn the_bridge_resubscribes_after_a_server_restart() {
    let mut server = RedisServer::start().await.unwrap();
    let mut bridged = Bridged::start(&server, "channels=chat&patterns=room-*").await;
    for round in 1..=3 {
        assert_eq!(bridged.bridge.trouble(), None);
        server.kill().await.unwrap();
        bridged.until("the loss to be noticed", |figures| figures.connections_lost == round).await;
        assert!(bridged.bridge.trouble().is_some());
        server.start_again().await.unwrap();
        bridged.until("the bridge to listen again", |figures| figures.is_listening).await;
        let mut application = Application::start(&server, &[]).await;
        application.publish("chat", "in the channel").await;
        application.publish("room-1", "in the pattern").await;
        assert_eq!(bridged.data(2).await, ["in the channel", "in the pattern"]);
    }
}

#[tokio::test]
async fn the_bridge_waits_for_a_server_that_is_not_up_yet() {
    let mut server = RedisServer::not_started(&[]).unwrap();
    let mut bridged = Bridged::of(Hub::in_memory().await, settings(&server, "channels=chat")).await;
    assert!(bridged.bridge.trouble().is_some());
    server.start_again().await.unwrap();
    bridged.until("the bridge to listen", |figures| figures.is_listening).await;
    Application::start(&server, &[]).await.publish("chat", "hello").await;
    assert_eq!(bridged.data(1).await, ["hello"]);
}

#[tokio::test]
async fn a_silent_server_is_detected() {
    let server = RedisServer::start().await.unwrap();
    let mut bridged = Bridged::start(&server, "channels=chat").await;
    server.freeze().unwrap();
    bridged.until("the silence to be noticed", |figures| figures.connections_lost == 1).await;
    server.thaw().unwrap();
    bridged.until("the bridge to listen again", |figures| figures.is_listening).await;
    Application::start(&server, &[]).await.publish("chat", "hello").await;
    assert_eq!(bridged.data(1).await, ["hello"]);
}

#[tokio::test]
async fn messages_queue_in_order_up_to_the_limit_while_the_hub_is_shut() {
    let server = RedisServer::start().await.unwrap();
    let mut settings = settings(&server, "channels=chat");
    settings.queue_bytes_max = 10_000;
    let mut bridged = Bridged::of(Hub::in_memory().await, settings).await;
    bridged.until("the bridge to listen", |figures| figures.is_listening).await;
    bridged.hub_access.is_shut.store(true, Ordering::Relaxed);
    let mut application = Application::start(&server, &[]).await;
    for number in 0..1_000 {
        application.publish("chat", format!("{number:050}")).await;
    }
    let figures = bridged.until("all to have come", |figures| figures.received == 1_000).await;
    assert!(figures.dropped > 0 && figures.queue_bytes <= 10_000, "{figures:?}");
    bridged.hub_access.is_shut.store(false, Ordering::Relaxed);
    let kept = bridged.data((1_000 - figures.dropped).try_into().unwrap()).await;
    let expected: Vec<_> = (0..kept.len()).map(|number| format!("{number:050}")).collect();
    assert_eq!(kept, expected, "what came last was dropped");
    application.publish("chat", "and it continues").await;
    assert_eq!(bridged.data(1).await, ["and it continues"]);
    assert_eq!(bridged.bridge.figures().queue_bytes, 0);
}

#[tokio::test]
async fn an_unknown_outcome_duplicates_no_event() {
    let server = RedisServer::start().await.unwrap();
    let mut bridged = Bridged::start(&server, "channels=chat").await;
    let mut application = Application::start(&server, &[]).await;
    for round in 0..5 {
        bridged.hub_access.is_forgetful.store(true, Ordering::Relaxed);
        application.publish("chat", format!("{round}")).await;
        bridged.until("it to be repeated", |figures| figures.published > round).await;
    }
    assert_eq!(bridged.data(5).await, ["0", "1", "2", "3", "4"]);
    assert_eq!(bridged.hub.stats().published, 5);
}

#[tokio::test]
async fn one_connection_is_enough_and_it_is_closed_with_the_bridge() {
    let server = RedisServer::start().await.unwrap();
    let bridged = Bridged::start(&server, "channels=chat&both_ways=true").await;
    let mut application = Application::start(&server, &["chat"]).await;
    bridged.publish("chat", "one").await;
    assert_eq!(application.next().await, "one");
    // The other two are the application and the connection of this command.
    assert_eq!(server.command(&["CLIENT", "LIST"]).await.unwrap().lines().count(), 3);
    bridged.bridge.stop().await;
    assert_eq!(
        application.publish("chat", "no other connection").await,
        1,
        "the application receives itself"
    );
}

#[tokio::test]
async fn only_valid_credentials_are_accepted() {
    let lines = ["user default off", "user app on >secret +@all &chat"];
    let server = RedisServer::start_with(&lines).await.unwrap();
    let with = |login: &str, channel: &str| {
        format!("redis://{login}@{}?channels={channel}", server.address()).parse().unwrap()
    };
    let bridged = Bridged::of(Hub::in_memory().await, with("app:secret", "chat")).await;
    bridged.until("the bridge to listen", |figures| figures.is_listening).await;
    for settings in [with("app:wrong", "chat"), with("app:secret", "news")] {
        let refused = Bridged::of(Hub::in_memory().await, settings).await;
        let reason = |trouble: &str| trouble.contains("assword") || trouble.contains("permission");
        refused.until_trouble(reason).await;
    }
}
