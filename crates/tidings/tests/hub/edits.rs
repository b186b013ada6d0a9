//! Pulled subscriptions whose topics change, while others publish.
//!
//! `TIDINGS_EDITS=10000` changes them so often.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::StreamExt;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngSeed, TestRunner},
};
use tidings::{
    EditError, EditProof, Hub, Matcher, NewEvent, Since, Subscribe, Subscription, TopicEdit,
    log::{
        Cursor, Position,
        cluster::{Cluster, LocalCluster},
    },
};
use tidings_sse::{Item, Parser};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    stage::{self, Listener, StageLog, hub_on, settle},
    unreliable_cluster::UnreliableCluster,
};

const TOPICS: [&str; 5] = ["a", "b", "c", "d", "end"];
/// Changes in all if the variable says nothing else.
const EDITS: usize = 400;
/// Changes of one stream: it may have as many at once.
const EDITS_OF_A_STREAM: usize = 40;
/// Streams that change at the same time.
const CONCURRENT: usize = 10;
const PROOF: EditProof = EditProof([1; 32]);

/// The numbers and topics of what was published, by its position.
type Log = Arc<Mutex<BTreeMap<Position, (u64, Vec<usize>)>>>;

fn runner(seed: u64) -> TestRunner {
    TestRunner::new(Config { rng_seed: RngSeed::Fixed(seed), ..Config::default() })
}

fn matchers(hub: &Hub, topics: impl IntoIterator<Item = usize>) -> Vec<Matcher> {
    topics.into_iter().map(|topic| hub.validator().exact(TOPICS[topic]).expect("a topic")).collect()
}

async fn publish(hub: &Hub, log: &Log, number: u64, topics: Vec<usize>) {
    let topics_also =
        topics[1..].iter().fold(NewEvent::new(TOPICS[topics[0]], number.to_string()), |event, topic| {
            event.also(TOPICS[*topic])
        });
    let id = hub.publish(topics_also).await.expect("published").id.expect("it is stored");
    let position = Cursor::parse(id.as_str()).expect("an id of the hub").position;
    log.lock().expect("nobody panicked").insert(position, (number, topics));
}

/// Reads a subscription on its own, to the event of the last topic.
async fn read(mut subscription: Subscription) -> Vec<u64> {
    let mut parser = Parser::new();
    let mut received = Vec::new();
    while received.last() != Some(&u64::MAX) {
        let bytes = subscription.next().await.expect("it does not end");
        // One that has much to read leaves time for others, as a connection does.
        tokio::task::yield_now().await;
        let mut bytes = &bytes[..];
        while let Some(item) = parser.next(&mut bytes) {
            if let Item::Event(event) = item.expect("a stream of events") {
                assert_eq!(event.event_type, "message", "{event:?}");
                received.push(event.data.parse().expect("a number"));
            }
        }
    }
    received
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulled_streams_have_exactly_the_events_of_their_topics_at_each_time() {
    let edits = std::env::var("TIDINGS_EDITS").map_or(EDITS, |text| text.parse().expect("a number"));
    let hub = Hub::in_memory().await;
    let log = Log::default();
    let permits = Arc::new(Semaphore::new(CONCURRENT));
    let mut streams = JoinSet::new();
    for seed in 0..edits.div_ceil(EDITS_OF_A_STREAM) {
        let (hub, log, permits) = (hub.clone(), Arc::clone(&log), Arc::clone(&permits));
        streams.spawn(async move {
            let _permit = permits.acquire().await.expect("it is never closed");
            let mut runner = runner(1_000 + seed as u64);
            let topics = || prop::collection::hash_set(0..TOPICS.len() - 1, 0..3);
            let change = (topics(), topics());
            let request = Subscribe::topics(["a", "end"]).editable(PROOF, None);
            let subscription = hub.subscribe(request).await.expect("a subscription");
            let begins = Cursor::parse(subscription.place().as_str()).expect("an id").position;
            let connection = subscription.connection();
            let reading = tokio::spawn(read(subscription));
            let mut subscribed = vec![(begins, vec!["a".to_owned(), "end".to_owned()])];
            for number in 0..EDITS_OF_A_STREAM {
                let (add, remove) = change.new_tree(&mut runner).expect("a change").current();
                let edit = TopicEdit { add: matchers(&hub, add), remove: matchers(&hub, remove) };
                let edited = hub.edit(connection, PROOF, edit).await.expect("the stream is read");
                let position = Cursor::parse(edited.cursor.as_str()).expect("an id").position;
                subscribed.push((position, edited.topics));
                // To all streams, which change meanwhile.
                for (half, chosen) in [(1_u64, seed), (2, number)] {
                    let unique = half << 62 | (seed * EDITS_OF_A_STREAM + number) as u64;
                    publish(&hub, &log, unique, vec![chosen % (TOPICS.len() - 1)]).await;
                }
            }
            (subscribed, reading)
        });
    }
    let streams = streams.join_all().await;
    publish(&hub, &log, u64::MAX, vec![TOPICS.len() - 1]).await;
    let mut events = 0;
    for (subscribed, reading) in streams {
        let received = reading.await.expect("it was read");
        let log = log.lock().expect("nobody panicked");
        let is_in = |position: &Position, topics: &[usize]| {
            let now = subscribed.iter().rev().find(|(after, _)| after < position);
            now.is_some_and(|(_, now)| {
                topics.iter().any(|topic| now.iter().any(|name| name == TOPICS[*topic]))
            })
        };
        let expected = log.iter().filter(|(position, (_, topics))| is_in(position, topics));
        let expected: Vec<_> = expected.map(|(_, (number, _))| *number).collect();
        assert!(received == expected, "{subscribed:?}\n{received:?}\n{expected:?}");
        events += received.len();
    }
    assert!(events > edits, "{events} events are few for {edits} changes");
}

#[tokio::test]
async fn a_subscription_that_is_not_made_for_it_cannot_be_changed() {
    let hub = Hub::in_memory().await;
    let subscription = hub.subscribe(Subscribe::topics(["a"]).hello(true)).await.expect("a subscription");
    let edit = TopicEdit { add: matchers(&hub, [1]), ..TopicEdit::default() };
    let edited = hub.edit(subscription.connection(), PROOF, edit).await;
    assert_eq!(edited, Err(EditError::Unknown));
}

/// It is not known whether its client ever reads on, so the request ends, and nothing is changed
/// afterwards.
#[tokio::test(start_paused = true)]
async fn a_subscription_that_nobody_polls_is_not_changed() {
    let hub = Hub::in_memory().await;
    let request = Subscribe::topics(["a"]).editable(PROOF, None);
    let mut subscription = hub.subscribe(request).await.expect("a subscription");
    let edit = TopicEdit { add: matchers(&hub, [1]), ..TopicEdit::default() };
    let edited = hub.edit(subscription.connection(), PROOF, edit).await;
    assert_eq!(edited, Err(EditError::NotRead));
    for topic in ["b", "a"] {
        hub.publish(NewEvent::new(topic, topic)).await.expect("published");
    }
    subscription.next().await.expect("the preface");
    let event = subscription.next().await.expect("an event");
    assert!(event.ends_with(b"data: a\n\n"), "{event:?}");
}

/// The page that was requested for the topics before would have left out the new one.
#[tokio::test(start_paused = true)]
async fn a_page_that_is_being_read_when_a_pulled_stream_changes_is_read_again() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |settings| settings.feed_bytes_max = 0).await;
    let mut listener = Listener::open(&hub, Subscribe::topics(["a"]).editable(PROOF, None)).await;
    log.reads_run.send_replace(false);
    stage::publish(&hub, "a", "1").await;
    settle().await;
    assert_eq!(listener.now(), None, "it waits for history");
    let edit = TopicEdit { add: matchers(&hub, [1]), ..TopicEdit::default() };
    let edit = hub.edit(listener.subscription.connection(), PROOF, edit);
    let (edited, nothing) = tokio::join!(edit, timeout(Duration::from_secs(1), listener.next()));
    assert_eq!(edited.expect("changed").topics, ["a", "b"]);
    assert!(nothing.is_err(), "{nothing:?}");
    stage::publish(&hub, "b", "2").await;
    log.reads_run.send_replace(true);
    let data = timeout(Duration::from_secs(60), listener.data(2)).await.expect("nothing is left out");
    assert_eq!(data, ["1", "2"]);
    listener.receives_nothing_more().await;
}

/// Its topics started at different places, and are changed before it has come to the last of them.
#[tokio::test(start_paused = true)]
async fn a_change_counts_for_the_history_that_is_yet_to_be_read() {
    let hub = hub_on(&StageLog::new(None), |settings| settings.replay_page_bytes = 1).await;
    for (topic, data) in [("a", "1"), ("a", "2"), ("c", "3"), ("a", "4"), ("c", "5"), ("d", "6")] {
        stage::publish(&hub, topic, data).await;
    }
    let request = Subscribe::topics(["b"]).topic_since("a", Since::Earliest).editable(PROOF, None);
    let mut listener = Listener::open(&hub, request).await;
    assert_eq!(listener.data(1).await, ["1"]);
    let edit = TopicEdit { add: matchers(&hub, [2]), remove: matchers(&hub, [0]) };
    let edit = hub.edit(listener.subscription.connection(), PROOF, edit);
    let (edited, next) = tokio::join!(edit, listener.next());
    assert_eq!(edited.expect("changed").topics, ["b", "c"]);
    assert_eq!(next.data(), "3");
    for topic in ["a", "b", "c"] {
        stage::publish(&hub, topic, topic).await;
    }
    assert_eq!(listener.data(3).await, ["5", "b", "c"]);
    listener.receives_nothing_more().await;
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_added_to_a_pulled_stream_begins_at_the_end_of_what_was_written() {
    let hub = Hub::in_memory().await;
    let mut listener = Listener::open(&hub, Subscribe::topics(["a"]).editable(PROOF, None)).await;
    listener.receives_nothing_more().await;
    let before = stage::publish(&hub, "b", "before").await;
    settle().await;
    let edit = TopicEdit { add: matchers(&hub, [1]), ..TopicEdit::default() };
    let edit = hub.edit(listener.subscription.connection(), PROOF, edit);
    let (edited, nothing) = tokio::join!(edit, timeout(Duration::from_secs(1), listener.next()));
    assert_eq!(edited.expect("changed").cursor, before);
    assert!(nothing.is_err(), "{nothing:?}");
    stage::publish(&hub, "b", "after").await;
    assert_eq!(listener.data(1).await, ["after"]);
}

#[tokio::test(start_paused = true)]
async fn what_expired_of_a_topic_before_it_was_added_is_no_gap() {
    let hub = hub_on(&StageLog::new(Some(3)), |settings| settings.feed_bytes_max = 0).await;
    let mut listener = Listener::open(&hub, Subscribe::topics(["a"]).editable(PROOF, None)).await;
    stage::publish_numbers(&hub, "b", 1, 10).await;
    listener.receives_nothing_more().await;
    let edit = TopicEdit { add: matchers(&hub, [1]), ..TopicEdit::default() };
    let edit = hub.edit(listener.subscription.connection(), PROOF, edit);
    let (edited, nothing) = tokio::join!(edit, timeout(Duration::from_secs(1), listener.next()));
    assert!(edited.is_ok() && nothing.is_err(), "{edited:?} {nothing:?}");
    stage::publish(&hub, "b", "new").await;
    assert_eq!(listener.data(1).await, ["new"]);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_added_twice_or_removed_leaves_no_feed_behind() {
    let hub = Hub::in_memory().await;
    let request = Subscribe::topics(["a"]).editable(PROOF, None);
    let mut subscription = hub.subscribe(request).await.expect("a subscription");
    let connection = subscription.connection();
    let mut change = async |add: &[usize], remove: &[usize]| {
        let edit = TopicEdit {
            add: matchers(&hub, add.iter().copied()),
            remove: matchers(&hub, remove.iter().copied()),
        };
        let polled = timeout(Duration::from_secs(1), subscription.next());
        let (edited, _) = tokio::join!(hub.edit(connection, PROOF, edit), polled);
        edited.expect("changed");
        ["a", "b"].map(|topic| hub.subscribers(topic).expect("a topic"))
    };
    assert_eq!(change(&[0, 1], &[]).await, [1, 1]);
    assert_eq!(change(&[0, 1], &[]).await, [1, 1]);
    assert_eq!(change(&[], &[0]).await, [0, 1]);
    assert_eq!(hub.stats().feeds, 1);
}

/// The other hubs are asked, and each has to answer.
#[tokio::test(start_paused = true)]
async fn the_hub_that_has_the_stream_changes_it_whichever_is_asked() {
    let cluster = LocalCluster::default();
    let start = || Hub::builder().cluster(cluster.clone()).start();
    let [one, other, third] =
        [start().await, start().await, start().await].map(|hub| hub.expect("a hub of a cluster"));
    while cluster.list("hubs/").await.expect("it is here").len() < 3 {
        tokio::task::yield_now().await;
    }
    let request = Subscribe::topics(["a"]).pattern("/x/:y").editable(PROOF, None);
    let subscription = one.subscribe(request).await.expect("a subscription");
    let connection = subscription.connection();
    let reading = tokio::spawn(read(subscription));
    let edit = |topic| TopicEdit { add: matchers(&one, [topic]), ..TopicEdit::default() };
    let edited = other.edit(connection, PROOF, edit(1)).await.expect("changed");
    assert_eq!(
        (edited.topics, edited.patterns),
        (vec!["a".to_owned(), "b".to_owned()], vec!["/x/:y".to_owned()])
    );
    let edited = third.edit(connection, PROOF, edit(4)).await.expect("changed");
    assert_eq!(edited.topics, ["a", "b", "end"]);
    assert_eq!(edited.cursor, one.bounds().await.expect("the log is here").newest_cursor().to_event_id());
    let removal = TopicEdit { remove: matchers(&one, 0..5), ..TopicEdit::default() };
    let mut pattern = TopicEdit::default();
    pattern.add.push(one.pattern("/z/:y").await.expect("a pattern"));
    let denied = other.edit(connection, EditProof([2; 32]), edit(2)).await;
    assert_eq!(denied, Err(EditError::Denied));
    assert!(other.edit(connection, PROOF, removal).await.is_ok(), "the pattern is left");
    assert_eq!(one.edit(connection, PROOF, pattern).await, Err(EditError::Pattern));
    let unknown = tidings::ConnectionId::from_random([9; 16]);
    assert_eq!(other.edit(unknown, PROOF, edit(1)).await, Err(EditError::Unknown));
    // A hub that was killed, and is not forgotten yet.
    let silent = format!("hubs/{:032x}", 7);
    cluster.set(&silent, b"", Duration::from_secs(60)).await.expect("set");
    assert_eq!(other.edit(unknown, PROOF, edit(1)).await, Err(EditError::Unreachable));
    assert!(other.edit(connection, PROOF, edit(4)).await.is_ok(), "the one that has it answers");
    one.publish(NewEvent::new("end", u64::MAX.to_string())).await.expect("published");
    assert_eq!(reading.await.expect("it was read"), [u64::MAX]);
    assert_eq!(other.edit(connection, PROOF, edit(1)).await, Err(EditError::Unreachable));
    cluster.remove(&silent).await.expect("removed");
    assert_eq!(other.edit(connection, PROOF, edit(1)).await, Err(EditError::Unknown));
}

#[tokio::test(start_paused = true)]
async fn streams_of_other_hubs_can_be_changed_again_once_the_cluster_is_back() {
    let cluster = UnreliableCluster::default();
    let start = || Hub::builder().cluster(cluster.clone()).start();
    let [one, other] = [start().await, start().await].map(|hub| hub.expect("a hub of a cluster"));
    sleep(Duration::from_secs(10)).await;
    let request = Subscribe::topics(["a"]).editable(PROOF, None);
    let mut subscription = one.subscribe(request).await.expect("a subscription");
    let connection = subscription.connection();
    tokio::spawn(async move { while subscription.next().await.is_some() {} });
    let edit = || TopicEdit { add: matchers(&one, [1]), ..TopicEdit::default() };
    cluster.set_reachable(false);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(other.edit(connection, PROOF, edit()).await, Err(EditError::Unreachable));
    cluster.set_reachable(true);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(other.edit(connection, PROOF, edit()).await.expect("changed").topics, ["a", "b"]);
}
