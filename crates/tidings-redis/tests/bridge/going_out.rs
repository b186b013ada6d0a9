//! From the hub out to Redis, and what comes back.

use tidings::{Hub, HubSettings, NewEvent};
use tidings_testkit::RedisServer;

use crate::stage::{Application, Bridged, settings};

#[tokio::test]
async fn every_message_is_received_once_everywhere() {
    let server = RedisServer::start().await.unwrap();
    let mut one = Bridged::start(&server, "channels=chat&both_ways=true").await;
    let mut other = Bridged::start(&server, "channels=chat&both_ways=true").await;
    let mut flask = Application::start(&server, &["chat"]).await;
    // The same texts from all sides: messages cannot be distinguished by their text.
    for round in 0..50 {
        one.publish("chat", "hi").await;
        server.command(&["PUBLISH", "chat", "hi"]).await.unwrap();
        other.publish("chat", "hi").await;
        flask.publish("chat", "hi").await;
        one.publish("chat", &format!("round {round}")).await;
    }
    for (who, mut received) in [
        ("one hub", one.data(250).await),
        ("the other hub", other.data(250).await),
        ("the application", flask.messages(250).await),
    ] {
        let same = received.iter().filter(|line| *line == "hi").count();
        received.retain(|line| line != "hi");
        let rounds: Vec<_> = (0..50).map(|round| format!("round {round}")).collect();
        assert_eq!((same, received), (200, rounds), "{who}");
    }
    // Messages still on their way arrive before these.
    one.publish("chat", "end of one").await;
    other.until("it to come over", |figures| figures.received == 201).await;
    other.publish("chat", "end of other").await;
    let ends = ["end of one", "end of other"];
    assert_eq!(flask.messages(2).await, ends);
    assert_eq!(
        (one.data(2).await, other.data(2).await),
        (ends.map(str::to_owned).to_vec(), ends.map(str::to_owned).to_vec())
    );
    let figures = one.bridge.figures();
    assert_eq!((figures.sent, figures.returned, figures.unsent), (101, 101, 0));
}

#[tokio::test]
async fn events_published_during_an_outage_are_sent_after_it() {
    let mut server = RedisServer::start().await.unwrap();
    let mut bridged = Bridged::start(&server, "channels=chat&both_ways=true").await;
    server.kill().await.unwrap();
    bridged.until("the loss to be noticed", |figures| !figures.is_listening).await;
    for line in ["one", "two"] {
        bridged.publish("chat", line).await;
    }
    server.start_again().await.unwrap();
    bridged.until("all to be sent", |figures| figures.returned == 2).await;
    assert_eq!(bridged.data(2).await, ["one", "two"], "and it did not come back as a new message");
    assert_eq!(bridged.bridge.figures().received, 0);
}

#[tokio::test]
async fn private_events_are_not_sent_out() {
    let server = RedisServer::start().await.unwrap();
    let mut hub_settings = HubSettings::default();
    hub_settings.private_topics = vec!["user-*".parse().unwrap()];
    let hub = Hub::builder().settings(hub_settings).start().await.unwrap();
    let bridged = Bridged::of(hub, settings(&server, "patterns=*&both_ways=true")).await;
    bridged.until("the bridge to listen", |figures| figures.is_listening).await;
    let mut application = Application::start(&server, &["chat", "user-42"]).await;
    bridged.hub.publish(NewEvent::new("chat", "by its publisher").private()).await.unwrap();
    bridged.publish("user-42", "by its topic").await;
    bridged.publish("chat", "public").await;
    assert_eq!(application.next().await, "public");
    assert_eq!(bridged.bridge.figures().sent, 1);
}

#[tokio::test]
async fn every_format_is_encoded_as_its_library_writes_it() {
    let server = RedisServer::start().await.unwrap();
    for (format, channel, expected) in [
        ("raw", "chat", "gr\u{fc}\u{df}e"),
        ("flask-sse", "chat", "{\"data\":\"gr\u{fc}\u{df}e\",\"type\":\"note\",\"id\":\"order-7\"}"),
        (
            "django-eventstream",
            "events_channel",
            "{\"channel\":\"chat\",\"event_type\":\"note\",\"data\":\"gr\u{fc}\u{df}e\",\"pub_id\":null}",
        ),
        ("juggernaut", "juggernaut", "{\"channels\":[\"chat\"],\"data\":\"gr\u{fc}\u{df}e\"}"),
    ] {
        let bridged = Bridged::start(&server, &format!("format={format}&channels=chat&both_ways=true")).await;
        let mut application = Application::start(&server, &[channel]).await;
        bridged.publish("not-bridged", "x").await;
        let event = NewEvent::new("chat", "gr\u{fc}\u{df}e").event_type("note").id("order-7");
        bridged.hub.publish(event).await.unwrap();
        assert_eq!(application.next().await, expected);
        bridged.until("it to come back", |figures| figures.returned == 1).await;
        let figures = bridged.bridge.figures();
        assert_eq!((figures.sent, figures.received), (1, 0), "{format}");
    }
}

#[tokio::test]
async fn a_one_way_bridge_sends_nothing() {
    let server = RedisServer::start().await.unwrap();
    let bridged = Bridged::start(&server, "channels=chat").await;
    let mut application = Application::start(&server, &["chat"]).await;
    bridged.publish("chat", "inside").await;
    application.publish("chat", "the only one").await;
    assert_eq!(application.next().await, "the only one");
    assert_eq!(bridged.bridge.figures().sent, 0);
}
