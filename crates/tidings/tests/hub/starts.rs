//! Subscriptions whose topics start at different places.

use std::{collections::HashSet, sync::Arc};

use futures_util::StreamExt;
use proptest::prelude::*;
use tidings::{
    Hub, HubSettings, MemoryLimits, MemoryLog, NewEvent, Received, Resumed, Since, Subscribe, log::Log,
    testing,
};
use tidings_delayed_log::{DelayedLog, Faults};

use crate::stage::{Listener, numbers, publish};

const TOPICS: [&str; 3] = ["feed", "typing", "jobs"];

async fn said(hub: &Hub, topics: &[&str]) {
    for (number, topic) in topics.iter().enumerate() {
        publish(hub, topic, (number + 1).to_string()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_events_of_one_topic_and_only_new_ones_of_another() {
    let hub = Hub::in_memory().await;
    said(&hub, &["feed", "typing", "feed", "feed", "typing", "jobs"]).await;
    let request = Subscribe::topics(["typing"]).topic_since("feed", Since::Last(2));
    let mut listener = Listener::open(&hub, request.clone()).await;
    publish(&hub, "typing", "7".to_owned()).await;
    publish(&hub, "feed", "8".to_owned()).await;
    assert_eq!(listener.data(4).await, ["3", "4", "7", "8"]);
    listener.receives_nothing_more().await;

    let mut typed = hub.listen(request.topic_since("jobs", Since::Earliest)).await.expect("a subscription");
    let mut received = Vec::new();
    for _ in 0..3 {
        let event = testing::next(&mut typed).await;
        received.push((event.topic, event.data));
    }
    let expected = [("feed", "4"), ("jobs", "6"), ("feed", "8")];
    assert_eq!(received, expected.map(|(topic, data)| (topic.to_owned(), data.to_owned())));
    testing::expect_none(&mut typed).await;

    let earliest = Subscribe::topics(["jobs"]).since(Since::Earliest);
    let alone = Listener::open(&hub, earliest.clone()).await;
    assert_eq!(alone.subscription.resumed_from(), Some(&Resumed::Earliest));
    let several = Listener::open(&hub, earliest.topic_since("feed", Since::Last(2))).await;
    assert_eq!(several.subscription.resumed_from(), None, "there is no one place where it resumed");
}

/// A client that resumes has one id for all its topics, so each continues after it.
#[tokio::test(start_paused = true)]
async fn a_subscription_that_resumes_continues_all_topics_after_its_id() {
    let hub = Hub::in_memory().await;
    said(&hub, &["feed", "typing", "feed"]).await;
    let request = || Subscribe::topics(["typing"]).topic_since("feed", Since::Last(2));
    let mut listener = Listener::open(&hub, request()).await;
    let first = listener.next().await.id().to_owned();
    let mut resumed = Listener::open(&hub, request().since(Since::Id(first))).await;
    assert_eq!(resumed.data(2).await, numbers(2, 3));
}

/// What expired before a topic starts was never for this subscriber.
#[tokio::test(start_paused = true)]
async fn events_before_the_start_of_a_topic_are_no_gap() {
    let limits = MemoryLimits { count_max: Some(3), ..MemoryLimits::default() };
    let hub = Hub::builder().log(MemoryLog::new(limits)).start().await.expect("a hub");
    said(&hub, &["typing", "typing", "feed", "typing", "typing"]).await;
    let request = Subscribe::topics(["typing"]).topic_since("feed", Since::Earliest);
    let mut listener = Listener::open(&hub, request).await;
    assert_eq!(listener.data(1).await, ["3"]);
    said(&hub, &["typing"]).await;
    assert_eq!(listener.data(1).await, ["1"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the starts are, a topic is received from its own start on, in the order of the log
    /// and each event once; the pages are so small that a history has many.
    #[test]
    fn each_topic_is_received_from_its_own_start_on(
        past in prop::collection::vec(0..TOPICS.len(), 0..40),
        lasts in [0..12_usize, 0..12, 0..12],
        later in prop::collection::vec(0..TOPICS.len(), 0..10),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let (received, expected) = runtime.expect("a runtime").block_on(async {
            let mut settings = HubSettings::default();
            settings.replay_page_bytes = 500;
            let hub = Hub::builder().settings(settings).start().await.expect("a hub");
            let all: Vec<_> = past.iter().chain(&later).map(|topic| TOPICS[*topic]).collect();
            for (number, topic) in all[..past.len()].iter().enumerate() {
                hub.publish(NewEvent::new(*topic, number.to_string())).await.expect("published");
            }
            let request = TOPICS.iter().zip(lasts).fold(Subscribe::default(), |request, (topic, last)| {
                // None of the last events is the same as now.
                request.topic_since(*topic, if last == 0 { Since::Now } else { Since::Last(last) })
            });
            let mut listener = hub.listen(request).await.expect("a subscription");
            for (number, topic) in all.iter().enumerate().skip(past.len()) {
                hub.publish(NewEvent::new(*topic, number.to_string())).await.expect("published");
            }
            let is_expected = |number: usize, topic: usize| {
                let rest = past.iter().skip(number + 1).filter(|next| **next == topic).count();
                number >= past.len() || rest < lasts[topic]
            };
            let expected: Vec<_> = (0..all.len())
                .filter(|number| {
                    let topic = TOPICS.iter().position(|topic| *topic == all[*number]).expect("a topic");
                    is_expected(*number, topic)
                })
                .map(|number| number.to_string())
                .collect();
            let mut received = Vec::new();
            for _ in 0..expected.len() {
                received.push(testing::next(&mut listener).await.data);
            }
            testing::expect_none(&mut listener).await;
            (received, expected)
        });
        prop_assert_eq!(received, expected);
    }
}

/// The log loses its end while the history is read: the positions of the starts mean nothing then,
/// and every topic continues.
#[tokio::test(start_paused = true)]
async fn a_history_goes_on_when_the_log_loses_its_end() {
    let log = Arc::new(DelayedLog::new(1, Faults::default(), MemoryLimits::default()));
    let mut settings = HubSettings::default();
    settings.replay_page_bytes = 1;
    let hub = Hub::builder().log(Arc::clone(&log) as Arc<dyn Log>).settings(settings);
    let hub = hub.start().await.expect("a hub");
    said(&hub, &["feed", "feed", "feed", "typing", "feed"]).await;
    let request = Subscribe::topics(["typing"]).topic_since("feed", Since::Earliest);
    let mut listener = hub.listen(request).await.expect("a subscription");
    assert_eq!(testing::next(&mut listener).await.data, "1");
    log.lose_end(1);
    publish(&hub, "typing", "new".to_owned()).await;
    let mut received = HashSet::new();
    while !received.contains("new") {
        if let Some(Received::Event(event)) = listener.next().await {
            assert!(received.insert(event.data.clone()), "twice: {event:?}");
        }
    }
    assert!(received.contains("2") && received.contains("3"), "{received:?}");
}
