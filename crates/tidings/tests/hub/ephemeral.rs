//! Ephemeral events: delivered live, never stored or replayed.

use std::{sync::Arc, time::Duration};

use tidings::{
    Error, Filter, Format, Grants, Hub, IdempotencyKey, NewEvent, Since,
    log::{
        Log,
        cluster::{Cluster, ClusterLimits, LocalCluster},
    },
    testing,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    stage::{
        Listener, OnStage, StageLog, grants, hub, hub_on, numbers, publish, publish_numbers, settle,
        since_id, to,
    },
    unreliable_cluster::UnreliableCluster,
};

async fn publish_ephemeral(hub: &Hub, topic: &str, data: impl Into<String>) {
    let published = hub.publish(NewEvent::new(topic, data).ephemeral()).await.expect("accepted");
    assert_eq!((published.id, published.duplicate), (None, false));
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_event_is_delivered_live_with_the_newest_id_of_the_log() {
    let hub = hub().await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    publish_ephemeral(&hub, "chat", "before everything").await;
    let first = listener.next().await;
    assert_eq!(first.data(), "before everything");
    let id = publish(&hub, "chat", "1").await;
    publish_ephemeral(&hub, "chat", "typing").await;
    publish_ephemeral(&hub, "chat", "still typing").await;
    let elsewhere = publish(&hub, "news", "x").await;
    publish_ephemeral(&hub, "chat", "gone").await;
    let mut ids = Vec::new();
    for expected in ["1", "typing", "still typing", "gone"] {
        let received = listener.next().await;
        assert_eq!(received.data(), expected);
        ids.push(received.id().to_owned());
    }
    assert_eq!(ids, [&id, &id, &id, &elsewhere].map(ToString::to_string));

    // Each of these ids resumes after the stored event that it names.
    publish(&hub, "chat", "2").await;
    for (id, missed) in [(first.id(), vec!["1", "2"]), (&ids[2], vec!["2"]), (&ids[3], vec!["2"])] {
        let mut resumed = Listener::open(&hub, to(&hub, &["chat"]).since(since_id(id))).await;
        assert_eq!(resumed.data(missed.len()).await, missed);
        resumed.receives_nothing_more().await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_history_has_an_ephemeral_event() {
    let hub = hub().await;
    // So that the feed has everything, too.
    let mut witness = Listener::open(&hub, to(&hub, &["chat"])).await;
    for number in 1..=3 {
        publish(&hub, "chat", number.to_string()).await;
        publish_ephemeral(&hub, "chat", "typing").await;
    }
    assert_eq!(witness.data(6).await, ["1", "typing", "2", "typing", "3", "typing"]);
    let first =
        hub.last_events(3, Filter::everything_public()).await.expect("there").entries[0].id.to_string();
    for (since, expected) in [
        (Since::Earliest, vec!["1", "2", "3"]),
        (Since::Last(50), vec!["1", "2", "3"]),
        (Since::Ago(Duration::from_secs(600)), vec!["1", "2", "3"]),
        (since_id(&first), vec!["2", "3"]),
        (Since::Now, vec![]),
    ] {
        for topics in [&["chat"][..], &["chat", "news"]] {
            let mut listener = Listener::open(&hub, to(&hub, topics).since(since.clone())).await;
            assert_eq!(listener.data(expected.len()).await, expected, "{since:?}");
            listener.receives_nothing_more().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn typing_does_not_push_out_the_last_twenty() {
    let hub = hub_on(&StageLog::new(Some(20)), |_| {}).await;
    publish_numbers(&hub, "chat", 1, 20).await;
    for _ in 0..1_000 {
        publish_ephemeral(&hub, "chat", "typing").await;
    }
    settle().await;
    let kept = hub.last_events(20, Filter::everything_public()).await.expect("the log is available").entries;
    assert_eq!(kept.iter().map(|entry| entry.event.data.clone()).collect::<Vec<_>>(), numbers(1, 20));
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_of_several_of_its_topics_receives_it_once() {
    let hub = hub().await;
    let mut listener = Listener::open(&hub, to(&hub, &["a", "b", "*"])).await;
    for number in 1..=3 {
        publish_ephemeral(&hub, "b", format!("b{number}")).await;
        let both = NewEvent::new("a", number.to_string()).also("b").ephemeral();
        hub.publish(both).await.expect("accepted");
    }
    assert_eq!(listener.data(6).await, ["b1", "1", "b2", "2", "b3", "3"]);
    listener.receives_nothing_more().await;
}

#[tokio::test(start_paused = true)]
async fn private_and_excepted_ephemeral_events_reach_whom_stored_ones_reach() {
    let hub = hub().await;
    let mut granted = Listener::open(&hub, to(&hub, &["a"]).grants(grants(&hub, &["a"]))).await;
    let mut stranger = Listener::open(&hub, to(&hub, &["a"])).await;
    let connection = granted.subscription.connection();
    hub.publish(NewEvent::new("a", "private").private().ephemeral()).await.expect("accepted");
    hub.publish(NewEvent::new("a", "from it").except(connection).ephemeral()).await.expect("accepted");
    publish_ephemeral(&hub, "a", "end").await;
    assert_eq!(granted.data(2).await, ["private", "end"]);
    assert_eq!(stranger.data(2).await, ["from it", "end"]);
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_event_is_validated_as_any_other() {
    let hub = hub().await;
    for refused in [
        NewEvent::new("", "x"),
        NewEvent::new("chat", "x").event_type("tidings"),
        NewEvent::new("chat", "x").event_type("mercure"),
        NewEvent::new("chat", "x").id("own"),
    ] {
        let error = hub.publish(refused.ephemeral()).await.expect_err("it is not valid");
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    }
    let event = hub.validator().event(NewEvent::new("chat", "x").ephemeral()).expect("valid");
    let refused = hub.publish_events(vec![event], IdempotencyKey::new("key")).await;
    assert!(matches!(refused, Err(Error::EphemeralWithKey)), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn the_ephemeral_events_of_a_batch_follow_its_stored_ones() {
    let hub = hub().await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    let events = [("1", false), ("typing", true), ("2", false)].map(|(data, ephemeral)| {
        let new = NewEvent { ephemeral, ..NewEvent::new("chat", data) };
        hub.validator().event(new).expect("valid")
    });
    let key = IdempotencyKey::new("key");
    let published = hub.publish_events(events.to_vec(), key.clone()).await.expect("published");
    assert_eq!(published.iter().map(|receipt| receipt.id.is_some()).collect::<Vec<_>>(), [true, false, true]);
    let repeated = hub.publish_events(events.to_vec(), key).await.expect("recognised");
    assert_eq!((repeated.len(), repeated[0].duplicate, &repeated[0].id), (1, true, &published[0].id));
    assert_eq!(listener.data(3).await, ["1", "2", "typing"]);
    listener.receives_nothing_more().await;
}

#[tokio::test(start_paused = true)]
async fn events_of_both_kinds_keep_the_order_in_which_a_hub_was_given_them() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    // The writer sees all of it at once.
    log.tail_runs.send_replace(false);
    for number in 1..=5 {
        publish(&hub, "chat", number.to_string()).await;
        for letter in ["a", "b"] {
            publish_ephemeral(&hub, "chat", format!("{number}{letter}")).await;
        }
    }
    settle().await;
    assert_eq!(listener.now(), None, "each follows an entry that is yet to be delivered");
    log.tail_runs.send_replace(true);
    let expected = (1..=5).flat_map(|number| ["", "a", "b"].map(|letter| format!("{number}{letter}")));
    assert_eq!(listener.data(15).await, expected.collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn ephemeral_events_are_delivered_while_the_store_is_unavailable() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    publish(&hub, "chat", "1").await;
    assert_eq!(listener.data(1).await, ["1"]);
    log.far.go_down();
    assert!(hub.publish(NewEvent::new("chat", "2")).await.is_err());
    publish_ephemeral(&hub, "chat", "typing").await;
    assert_eq!(listener.data(1).await, ["typing"]);
}

/// Otherwise a test of an application would wait for it without end.
#[tokio::test]
async fn a_listener_has_caught_up_after_an_ephemeral_event_for_others() {
    let hub = Hub::in_memory().await;
    let mut listener = hub.listen("chat").await.expect("the memory log is always available");
    publish_ephemeral(&hub, "news", "typing").await;
    let caught_up = timeout(Duration::from_secs(10), testing::expect_none(&mut listener)).await;
    caught_up.expect("nothing is left for it");
}

/// The store cannot be reached, and what was published there before will come late.
#[tokio::test(start_paused = true)]
async fn an_ephemeral_event_waits_for_the_entry_before_it_for_a_moment_only() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    log.tail_runs.send_replace(false);
    publish(&hub, "chat", "1").await;
    publish_ephemeral(&hub, "chat", "typing").await;
    let data = timeout(Duration::from_secs(1), listener.data(1)).await.expect("it waits no longer");
    assert_eq!(data, ["typing"]);
    log.tail_runs.send_replace(true);
    assert_eq!(listener.data(1).await, ["1"]);
}

/// The entry that it follows never reaches the writer, which waits for a moment only.
#[tokio::test(start_paused = true)]
async fn an_ephemeral_event_after_a_deleted_one_is_delivered() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    publish(&hub, "news", "kept").await;
    log.tail_runs.send_replace(false);
    publish(&hub, "news", "x").await;
    publish(&hub, "other", "deleted").await;
    publish_ephemeral(&hub, "chat", "typing").await;
    publish_ephemeral(&hub, "chat", "still typing").await;
    log.far.delete(&hub.validator().topic("other").expect("a topic"), &Grants::all()).await.expect("deleted");
    log.tail_runs.send_replace(true);
    assert_eq!(listener.data(2).await, ["typing", "still typing"]);
}

/// The entry that it follows is lost, and its position may be far from that of the next entry.
#[tokio::test(start_paused = true)]
async fn an_ephemeral_event_waits_for_no_entry_of_an_earlier_epoch() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    log.tail_runs.send_replace(false);
    publish_numbers(&hub, "other", 1, 3).await;
    publish_ephemeral(&hub, "chat", "typing").await;
    log.far.replace();
    let begun = Instant::now();
    log.tail_runs.send_replace(true);
    listener.next().await.notice("gap");
    assert_eq!(listener.data(1).await, ["typing"]);
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn ephemeral_events_are_delivered_in_the_next_epoch_of_a_log() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    publish(&hub, "chat", "lost").await;
    assert_eq!(listener.data(1).await, ["lost"]);
    log.far.replace();
    settle().await;
    publish_ephemeral(&hub, "chat", "typing").await;
    listener.next().await.notice("gap");
    assert_eq!(listener.data(1).await, ["typing"]);
}

#[tokio::test(start_paused = true)]
async fn too_many_ephemeral_events_push_out_the_oldest_and_keep_no_publisher_waiting() {
    let hub = hub_on(&StageLog::new(None), |settings| settings.ephemeral_bytes_max = 10_000).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    // Without giving the writer a chance.
    for number in 1..=1_000 {
        publish_ephemeral(&hub, "chat", number.to_string()).await;
    }
    settle().await;
    let mut received = Vec::new();
    while let Some(event) = listener.now() {
        received.push(event.data().parse::<u64>().expect("a number"));
    }
    let newest: Vec<_> = (1_000 - received.len() as u64 + 1..=1_000).collect();
    assert!(received.len() > 20, "{received:?}");
    assert_eq!(received, newest);
    let stats = hub.stats();
    assert_eq!((stats.published, stats.ephemeral_dropped), (1_000, 1_000 - received.len() as u64));
}

#[tokio::test(start_paused = true)]
async fn the_json_format_has_ephemeral_events_as_any_other() {
    let hub = hub().await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"]).format(Format::Json)).await;
    let id = publish(&hub, "chat", "1").await;
    hub.publish(NewEvent::new("chat", "x").event_type("typing").ephemeral()).await.expect("accepted");
    listener.next().await;
    let json: serde_json::Value = serde_json::from_str(listener.next().await.data()).expect("JSON");
    assert_eq!(
        (&json["type"], &json["data"], &json["id"]),
        (&"typing".into(), &"x".into(), &id.as_str().into())
    );
}

async fn hub_in(cluster: &LocalCluster, log: &Arc<StageLog>, bytes_max: usize) -> Hub {
    let log: Arc<dyn Log> = Arc::new(OnStage(Arc::clone(log)));
    let builder = Hub::builder().log(log).ephemeral_bytes_max(bytes_max).cluster(cluster.clone());
    builder.start().await.expect("the log is available")
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_event_reaches_the_subscribers_of_all_hubs_once() {
    let (cluster, log) = (LocalCluster::default(), StageLog::new(None));
    let one = hub_in(&cluster, &log, 1 << 20).await;
    let other = hub_in(&cluster, &log, 1 << 20).await;
    other.set_private_topics(&["secret".parse().expect("a glob")]);
    let mut here = Listener::open(&one, to(&one, &["chat", "secret"])).await;
    let mut there = Listener::open(&other, to(&other, &["chat", "secret"])).await;
    let id = publish(&one, "chat", "1").await;
    assert_eq!((here.data(1).await, there.data(1).await), (vec!["1".to_owned()], vec!["1".to_owned()]));
    for number in 1..=100 {
        publish_ephemeral(&one, "chat", number.to_string()).await;
    }
    publish_ephemeral(&one, "secret", "private there").await;
    assert_eq!(here.data(101).await.last().map(String::as_str), Some("private there"));
    assert_eq!(there.data(100).await, numbers(1, 100));
    assert_eq!(there.last_event_id(), id.as_str());
    here.receives_nothing_more().await;
    there.receives_nothing_more().await;
    assert_eq!((one.stats().ephemeral_dropped, other.stats().ephemeral_dropped), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_broadcast_is_bounded() {
    let cluster = LocalCluster::new(ClusterLimits::default());
    let log = StageLog::new(None);
    let one = hub_in(&cluster, &log, 5_000).await;
    let other = hub_in(&cluster, &log, 1 << 20).await;
    let mut here = Listener::open(&one, to(&one, &["chat"])).await;
    let mut there = Listener::open(&other, to(&other, &["chat"])).await;
    for number in 1..=1_000 {
        publish_ephemeral(&one, "chat", number.to_string()).await;
    }
    settle().await;
    let mut received = Vec::new();
    while let Some(event) = there.now() {
        received.push(event.data().parse::<u64>().expect("a number"));
    }
    let newest: Vec<_> = (1_000 - received.len() as u64 + 1..=1_000).collect();
    assert!((20..1_000).contains(&received.len()), "{received:?}");
    assert_eq!(received, newest);
    // The queue for its own subscribers is as small.
    let mut delivered_here = 0;
    while here.now().is_some() {
        delivered_here += 1;
    }
    let dropped = (1_000 - delivered_here) + (1_000 - received.len() as u64);
    assert_eq!(one.stats().ephemeral_dropped, dropped);
}

#[tokio::test(start_paused = true)]
async fn ephemeral_events_that_wait_for_the_broadcast_share_messages_of_a_bounded_size() {
    let (cluster, log) = (LocalCluster::default(), StageLog::new(None));
    let hub = hub_in(&cluster, &log, 1 << 20).await;
    let mut messages = cluster.listen("ephemeral").await.expect("it is here");
    for _ in 0..10 {
        publish_ephemeral(&hub, "chat", "x".repeat(20_000)).await;
    }
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 200_000 {
        sizes.push(messages.next().await.expect("a message").len());
    }
    assert!(sizes.len() == 4 && sizes.iter().all(|size| *size <= 65 * 1024), "{sizes:?}");
}

#[tokio::test(start_paused = true)]
async fn ephemeral_events_that_reach_no_other_hub_are_counted_until_the_cluster_is_back() {
    let (cluster, log) = (UnreliableCluster::default(), StageLog::new(None));
    let start = || {
        let log: Arc<dyn Log> = Arc::new(OnStage(Arc::clone(&log)));
        Hub::builder().log(log).cluster(cluster.clone()).start()
    };
    let (one, other) = (start().await.expect("a hub"), start().await.expect("a hub"));
    let mut there = Listener::open(&other, to(&other, &["chat"])).await;
    cluster.set_reachable(false);
    for number in 1..=10 {
        publish_ephemeral(&one, "chat", number.to_string()).await;
    }
    there.receives_nothing_more().await;
    assert_eq!(one.stats().ephemeral_dropped, 10);
    cluster.set_reachable(true);
    sleep(Duration::from_secs(1)).await;
    publish_ephemeral(&one, "chat", "back").await;
    let data = timeout(Duration::from_secs(60), there.data(1)).await.expect("it listens again");
    assert_eq!(data, ["back"]);
    assert_eq!((one.stats().ephemeral_dropped, other.stats().ephemeral_dropped), (10, 0));
}

/// A hub of another version may send what this one does not understand.
#[tokio::test(start_paused = true)]
async fn what_another_hub_sends_that_is_no_event_is_counted_as_dropped() {
    let (cluster, log) = (LocalCluster::default(), StageLog::new(None));
    let hub = hub_in(&cluster, &log, 1 << 20).await;
    let of_another_hub = [&[1][..], &[7; 16], b"no event"].concat();
    cluster.send("ephemeral", &of_another_hub).await.expect("sent");
    settle().await;
    assert_eq!(hub.stats().ephemeral_dropped, 1);
}
