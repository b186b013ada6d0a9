//! Finite reads: subscriptions that end.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use proptest::prelude::*;
use tidings::{
    Error, Hub, HubSettings, MemoryLimits, MemoryLog, NewEvent, Since, Subscribe, Until,
    log::{Cursor, Epoch, Position},
};
use tidings_delayed_log::{DelayedLog, Faults};

use crate::stage::{
    Listener, Received, StageLog, grants, hub_on, numbers, publish, publish_numbers, since_id, to,
};

/// Everything that a finite read sends, and the id of its end.
async fn read(hub: &Hub, request: Subscribe) -> (Vec<String>, String) {
    let mut listener = Listener::open(hub, request).await;
    let mut data = Vec::new();
    loop {
        match listener.next().await {
            Received::Event { data: event, .. } => data.push(event),
            end => {
                end.notice("end");
                assert_eq!(listener.next().await, Received::End);
                return (data, end.id().to_owned());
            }
        }
    }
}

fn until_id(id: &str) -> Until {
    Until::Id(id.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_finite_read_ends_after_the_last_event_at_or_before_its_end() {
    let hub = Hub::in_memory().await;
    let ids = publish_numbers(&hub, "chat", 1, 3).await;
    publish(&hub, "other", "x").await;
    hub.publish(NewEvent::new("chat", "4").id("own")).await.expect("published");
    publish(&hub, "chat", "5").await;
    let chat = |since: Since, until: Until| to(&hub, &["chat"]).since(since).until(until);
    for (since, until, first, last) in [
        (Since::Earliest, Until::Now, 1, 5),
        (Since::Earliest, until_id(ids[1].as_str()), 1, 2),
        (since_id(ids[0].as_str()), until_id(ids[2].as_str()), 2, 3),
        (since_id(ids[2].as_str()), until_id("own"), 4, 4),
        (Since::Last(2), until_id("own"), 4, 4),
        (Since::Last(2), Until::Now, 4, 5),
        // Without events: nothing is between the two, or the end is before the start.
        (Since::Now, Until::Now, 1, 0),
        (since_id(ids[1].as_str()), until_id(ids[1].as_str()), 1, 0),
        (since_id("own"), until_id(ids[0].as_str()), 1, 0),
        (Since::Last(1), until_id(ids[0].as_str()), 1, 0),
    ] {
        let (data, _) = read(&hub, chat(since.clone(), until.clone())).await;
        assert_eq!(data, numbers(first, last), "{since:?} to {until:?}");
    }
}

/// A client that reads again and again, each time after the end of the read before, receives every
/// event once, like a stream.
#[tokio::test(start_paused = true)]
async fn reads_one_after_the_other_are_a_stream() {
    let hub = Hub::in_memory().await;
    let ask = |since| to(&hub, &["chat"]).since(since).until(Until::Now);
    let (mut data, mut end) = read(&hub, ask(Since::Now)).await;
    for number in 1..=5 {
        publish(&hub, "other", "x").await;
        publish_numbers(&hub, "chat", 2 * number - 1, 2 * number).await;
        let more;
        (more, end) = read(&hub, ask(since_id(&end))).await;
        data.extend(more);
    }
    assert_eq!(data, numbers(1, 10));
    assert_eq!(read(&hub, ask(since_id(&end))).await, (Vec::new(), end));
}

#[tokio::test(start_paused = true)]
async fn a_finite_read_contains_what_its_grants_cover() {
    let hub = Hub::in_memory().await;
    for (topic, is_private) in [("chat", false), ("user-1", true), ("user-2", true)] {
        let event = NewEvent::new(topic, topic);
        hub.publish(if is_private { event.private() } else { event }).await.expect("published");
    }
    let ask = || Subscribe::topics(["*"]).since(Since::Earliest).until(Until::Now);
    assert_eq!(read(&hub, ask()).await.0, ["chat"]);
    let granted = ask().grants(grants(&hub, &["user-2"]));
    assert_eq!(read(&hub, granted).await.0, ["chat", "user-2"]);
    // The id of an event that may not be received is as unknown as one that never was.
    hub.publish(NewEvent::new("user-1", "x").private().id("own")).await.expect("published");
    let refused = hub.subscribe(Subscribe::topics(["chat"]).until(until_id("own"))).await;
    assert!(matches!(refused, Err(Error::UntilUnknown)), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn topics_that_start_at_different_places_end_at_one() {
    let hub = Hub::in_memory().await;
    let mut ids = Vec::new();
    for (number, topic) in ["a", "b", "a", "b", "a", "b", "a", "b"].iter().enumerate() {
        ids.push(publish(&hub, topic, number.to_string()).await);
    }
    let ask = |until: usize| {
        Subscribe::topics(["a"])
            .since(Since::Earliest)
            .topic_since("b", Since::Last(2))
            .until(until_id(ids[until].as_str()))
    };
    assert_eq!(read(&hub, ask(6)).await.0, ["0", "2", "4", "5", "6"]);
    // Here the second topic would start after the end.
    assert_eq!(read(&hub, ask(3)).await.0, ["0", "2"]);
}

/// Ephemeral events are not in the log.
#[tokio::test(start_paused = true)]
async fn a_finite_read_contains_no_ephemeral_event() {
    let hub = Hub::in_memory().await;
    publish(&hub, "chat", "1").await;
    hub.publish(NewEvent::new("chat", "typing").ephemeral()).await.expect("published");
    assert_eq!(read(&hub, to(&hub, &["chat"]).since(Since::Earliest).until(Until::Now)).await.0, ["1"]);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_not_known_is_refused() {
    let hub = Hub::in_memory().await;
    let id = publish(&hub, "chat", "1").await;
    let own = Cursor::parse(id.as_str()).expect("generated");
    let later = Cursor { position: Position::from_bytes([9; 16]), ..own }.to_string();
    let foreign = Cursor { epoch: Epoch::from_u64(77), ..own }.to_string();
    for unknown in ["never-was", "#", "#nonsense", &later, &foreign] {
        let refused = hub.subscribe(to(&hub, &["chat"]).until(until_id(unknown))).await;
        assert!(matches!(refused, Err(Error::UntilUnknown)), "{unknown}: {refused:?}");
    }
}

/// The position of a generated id outlives its event, that of a publisher's own id does not.
#[tokio::test(start_paused = true)]
async fn a_deleted_event_may_be_the_end() {
    let hub = Hub::in_memory().await;
    publish(&hub, "chat", "1").await;
    let id = publish(&hub, "other", "x").await;
    hub.publish(NewEvent::new("other", "y").id("own")).await.expect("published");
    publish(&hub, "chat", "2").await;
    hub.delete("other").await.expect("deleted");
    let ask = |until| to(&hub, &["chat"]).since(Since::Earliest).until(until);
    assert_eq!(read(&hub, ask(until_id(id.as_str()))).await.0, ["1"]);
    assert!(matches!(hub.subscribe(ask(until_id("own"))).await, Err(Error::UntilUnknown)));
}

#[tokio::test(start_paused = true)]
async fn a_finite_read_reports_what_expired() {
    let log = StageLog::new(Some(3));
    let hub = hub_on(&log, |_| {}).await;
    let ids = publish_numbers(&hub, "chat", 1, 6).await;
    let ask = |until| to(&hub, &["chat"]).since(since_id(ids[0].as_str())).until(until);
    for (until, last) in [(Until::Now, 6), (until_id(ids[4].as_str()), 5)] {
        let mut listener = Listener::open(&hub, ask(until)).await;
        assert_eq!(listener.next().await.notice("gap")["reason"], "expired");
        assert_eq!(listener.data(last - 3).await, numbers(4, u32::try_from(last).expect("small")));
        listener.next().await.notice("end");
        assert_eq!(listener.next().await, Received::End);
    }
    // Nothing is left of this one.
    let mut listener = Listener::open(&hub, ask(until_id(ids[1].as_str()))).await;
    assert_eq!(listener.next().await.notice("gap")["reason"], "expired");
    listener.next().await.notice("end");
    assert_eq!(listener.next().await, Received::End);
}

/// A cursor of another log is reported even if the read has no events: its end is in this log, and
/// the client would continue there without a word.
#[tokio::test(start_paused = true)]
async fn a_start_in_another_log_is_reported_before_any_end() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    let before = publish_numbers(&hub, "chat", 1, 2).await;
    log.far.lose_end(0);
    let after = publish(&hub, "chat", "3").await;
    for (until, data) in [(until_id(before[0].as_str()), &[][..]), (until_id(after.as_str()), &["3"])] {
        let request = to(&hub, &["chat"]).since(since_id(before[1].as_str())).until(until);
        let mut listener = Listener::open(&hub, request).await;
        assert_eq!(listener.next().await.notice("gap")["reason"], "other-log");
        assert_eq!(listener.data(data.len()).await, data);
        listener.next().await.notice("end");
    }
}

/// Positions of one epoch mean nothing in another, so the read ends with the notice.
#[tokio::test(start_paused = true)]
async fn a_log_that_loses_its_end_during_a_finite_read_ends_it() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |settings| settings.replay_page_bytes = 300).await;
    let ids = publish_numbers(&hub, "chat", 1, 40).await;
    let request = to(&hub, &["chat"]).since(since_id(ids[0].as_str())).until(Until::Now);
    let mut listener = Listener::open(&hub, request).await;
    assert_eq!(listener.data(1).await, ["2"]);
    log.far.lose_end(5);
    publish(&hub, "chat", "new").await;
    let mut seen = Vec::new();
    let gap = loop {
        match listener.next().await {
            Received::Event { data, .. } => seen.push(data),
            notice => break notice,
        }
    };
    assert_eq!(gap.notice("gap")["reason"], "other-log");
    assert!(!seen.contains(&"new".to_owned()), "{seen:?}");
    let end = listener.next().await;
    end.notice("end");
    assert_eq!(listener.next().await, Received::End);
    let mut resumed = Listener::open(&hub, to(&hub, &["chat"]).since(since_id(end.id()))).await;
    assert_eq!(resumed.data(1).await.len(), 1);
}

/// Another client has read the same page a moment ago, when the log ended earlier.
#[tokio::test(start_paused = true)]
async fn a_read_until_now_has_what_was_published_since_its_page_was_read() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    // The fan-out does not show how far the log reaches.
    log.tail_runs.send_replace(false);
    for number in 1..=3 {
        publish(&hub, "chat", number.to_string()).await;
        let request = to(&hub, &["chat"]).since(Since::Earliest).until(Until::Now);
        assert_eq!(read(&hub, request).await.0, numbers(1, number));
    }
}

/// The end is found before the log discovers, while it looks for the start, that all is lost.
#[tokio::test(start_paused = true)]
async fn the_start_and_the_end_of_a_read_are_of_one_epoch() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    hub.publish(NewEvent::new("chat", "lost").id("mine")).await.expect("published");
    log.losses_to_find.store(1, Ordering::SeqCst);
    let request = to(&hub, &["chat"]).since(since_id("mine")).until(Until::Now);
    let mut listener = Listener::open(&hub, request).await;
    let end = listener.subscription.end().expect("it is finite");
    let newest = hub.bounds().await.expect("the log is here").newest_cursor();
    assert_eq!(Cursor::parse(end.as_str()).ok(), Some(newest));
    assert_eq!(listener.next().await.notice("gap")["reason"], "unknown");
    listener.next().await.notice("end");
    assert_eq!(listener.next().await, Received::End);
}

#[tokio::test(start_paused = true)]
async fn a_finite_read_is_no_subscriber() {
    let hub = Hub::in_memory().await;
    publish(&hub, "chat", "1").await;
    let request = to(&hub, &["chat"]).since(Since::Earliest).until(Until::Now);
    let _read = hub.subscribe(request).await.expect("a read");
    assert_eq!(hub.subscribers("chat").expect("a topic"), 0);
    assert_eq!(hub.stats().subscribers, 0);
}

/// What is published while a read is on its way is not in it, and what was acknowledged before is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_until_now_has_all_that_was_acknowledged_before_it_and_nothing_after_its_end() {
    let mut settings = HubSettings::default();
    settings.replay_page_bytes = 2_000;
    let hub = Hub::builder().settings(settings).start().await.expect("a hub");
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = tokio::spawn({
        let (hub, stop) = (hub.clone(), Arc::clone(&stop));
        async move {
            let mut number = 0;
            // The log keeps that many.
            while !stop.load(Ordering::Relaxed) && number < 20_000 {
                number += 1;
                publish(&hub, "chat", number.to_string()).await;
            }
        }
    });
    let mut end = read(&hub, to(&hub, &["chat"]).until(Until::Now)).await.1;
    let (mut all, _) = read(&hub, to(&hub, &["chat"]).since(Since::Earliest).until(until_id(&end))).await;
    for _ in 0..30 {
        publish(&hub, "chat", "mark").await;
        let (data, next) = read(&hub, to(&hub, &["chat"]).since(since_id(&end)).until(Until::Now)).await;
        assert!(data.contains(&"mark".to_owned()), "an acknowledged event is missing");
        // The same read later is the same read.
        let again = to(&hub, &["chat"]).since(since_id(&end)).until(until_id(&next));
        assert_eq!(read(&hub, again).await, (data.clone(), next.clone()));
        all.extend(data);
        end = next;
    }
    stop.store(true, Ordering::Relaxed);
    publisher.await.expect("the publisher ends");
    let (everything, _) = read(&hub, to(&hub, &["chat"]).since(Since::Earliest).until(until_id(&end))).await;
    assert_eq!(all, everything);
}

const TOPICS: [&str; 3] = ["a", "b", "c"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A read has exactly the events of its topics between its start and its end; the pages are so
    /// small that it has many.
    #[test]
    fn a_finite_read_is_exactly_its_range(
        published in prop::collection::vec((0..TOPICS.len(), any::<bool>()), 0..50),
        wanted in 1..8_usize,
        since in prop::option::of(0..50_usize),
        until in prop::option::of(0..50_usize),
        is_granted: bool,
        is_delayed: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let (received, expected) = runtime.expect("a runtime").block_on(async {
            let mut settings = HubSettings::default();
            settings.replay_page_bytes = 500;
            let limits = MemoryLimits::default();
            let builder = Hub::builder().settings(settings);
            let hub = if is_delayed {
                builder.log(DelayedLog::new(1, Faults::default(), limits)).start().await
            } else {
                builder.log(MemoryLog::new(limits)).start().await
            };
            let hub = hub.expect("a hub");
            let mut ids = Vec::new();
            for (number, (topic, is_private)) in published.iter().enumerate() {
                let event = NewEvent::new(TOPICS[*topic], number.to_string());
                let event = if *is_private { event.private() } else { event };
                ids.push(hub.publish(event).await.expect("published").id.expect("it is stored"));
            }
            // Positions, one behind the event that they name.
            let place = |number: Option<usize>, default: usize| {
                number.filter(|number| *number < ids.len()).map_or(default, |number| number + 1)
            };
            let (start, end) = (place(since, 0), place(until, ids.len()));
            let of = |place: usize| ids[place - 1].as_str();
            let topics = (0..TOPICS.len()).filter(|topic| wanted & (1 << topic) != 0);
            let mut request = Subscribe::topics(topics.map(|topic| TOPICS[topic]))
                .since(if start == 0 { Since::Earliest } else { since_id(of(start)) })
                .until(if end == ids.len() { Until::Now } else { until_id(of(end)) });
            if is_granted {
                request = request.grant(["*"]);
            }
            let expected: Vec<_> = published
                .iter()
                .enumerate()
                .filter(|(number, (topic, is_private))| {
                    (start..end.max(start)).contains(number)
                        && wanted & (1 << topic) != 0
                        && (is_granted || !is_private)
                })
                .map(|(number, _)| number.to_string())
                .collect();
            (read(&hub, request).await.0, expected)
        });
        prop_assert_eq!(received, expected);
    }
}
