//! Subscribers whose topics change while they are connected.

use futures_util::{FutureExt, StreamExt};
use proptest::{
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

use super::*;

/// Changes that are made if the variable `TIDINGS_EDITS` says nothing else.
const EDITS: usize = 400;

/// Many changes of few streams, which live on: each stream has exactly the events of its topics at
/// each time.
#[test]
fn streams_have_exactly_the_events_of_their_topics_at_each_time() {
    let edits_wanted = std::env::var("TIDINGS_EDITS").map_or(EDITS, |text| text.parse().expect("a number"));
    let mut runner =
        TestRunner::new(Config { rng_seed: proptest::test_runner::RngSeed::Fixed(7), ..Config::default() });
    let acts = prop::collection::vec(act_or_edit(), 200);
    in_paused_time(async {
        let mut edits = 0;
        let mut events = 0;
        while edits < edits_wanted {
            let feed_bytes_max = [1_500, 20_000, 1 << 20][edits % 3];
            let mut stage = stage(feed_bytes_max, usize::MAX).await;
            for topic in 0..TOPICS.len() {
                stage.subscribe(&[topic], &[0, 1], topic % 2 == 0, 3_000).await;
            }
            for _ in 0..5 {
                let drawn = acts.new_tree(&mut runner).expect("acts").current();
                let lasting = drawn
                    .into_iter()
                    .filter(|act| !matches!(act, Act::Reset { .. } | Act::HangUp { .. } | Act::Sweep { .. }));
                edits += play_on(&mut stage, lasting.collect()).await;
            }
            for who in 0..stage.listeners.len() {
                stage.make_room(who, 1 << 30);
            }
            stage.settle().await;
            for listener in &stage.listeners {
                let received = received(&listener.socket.peer().received);
                assert_eq!(
                    stage.stored(listener, &received),
                    stage.expected(listener),
                    "after {edits} edits"
                );
                assert!(received.notices.is_empty(), "{:?}", received.notices);
                events += received.numbers.len();
            }
        }
        assert!(events > edits, "{events} events are few for {edits} edits");
    });
}

#[test]
fn a_topic_that_is_added_begins_at_the_end_of_a_stream_that_is_read() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        for topic in [1, 0, 1] {
            stage.publish(&[topic], false, 10).await;
            stage.settle().await;
        }
        assert!(stage.edit(who, &[1], &[]).await);
        for topic in [1, 0] {
            stage.publish(&[topic], false, 10).await;
        }
        stage.settle().await;
        assert_eq!(received(&stage.listeners[who].socket.peer().received).numbers, [1, 3, 4]);
        assert!(stage.edit(who, &[], &[0]).await);
        for topic in [0, 1, 0] {
            stage.publish(&[topic], false, 10).await;
        }
        stage.settle().await;
        assert_eq!(received(&stage.listeners[who].socket.peer().received).numbers, [1, 3, 4, 6]);
        assert!(
            stage.shard.subscribers[0].offset.is_some(),
            "one topic is sent straight from its feed again"
        );
        assert!(stage.shard.requests.is_empty());
    });
}

/// What was requested for the topics before would lack the new one, up to the end of the page.
#[test]
fn a_page_that_is_being_read_when_a_topic_is_added_is_read_again() {
    in_paused_time(async {
        let mut stage = Stage::new(|settings| settings.feed_bytes_max = 1_500).await;
        let who = stage.subscribe(&[0], &[], false, 500).await;
        stage.settle().await;
        for _ in 0..20 {
            stage.publish(&[0], false, 300).await;
            stage.publish(&[1], false, 300).await;
            stage.write().await;
            stage.slice();
        }
        stage.make_room(who, 1 << 30);
        while stage.slice() {}
        assert_eq!(stage.shard.requests.len(), 1, "its feed does not reach back");
        assert!(stage.edit(who, &[1], &[]).await);
        stage.settle().await;
        let listener = &stage.listeners[who];
        let received = received(&listener.socket.peer().received);
        assert_eq!(received.numbers, stage.expected(listener));
        assert!(received.numbers.iter().any(|number| number % 2 == 1), "{:?}", received.numbers);
    });
}

/// A page that was read, but did not fit into the socket, has events of a topic that is removed.
#[test]
fn what_a_full_socket_has_not_taken_is_read_again_for_the_topics_after_a_change() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        for _ in 0..20 {
            stage.publish(&[0], false, 100).await;
            stage.publish(&[1], false, 100).await;
        }
        let who = stage.subscribe(&[0], &[], true, 800).await;
        stage.settle().await;
        assert!(stage.shard.pending_bytes > 1_000, "the rest of the page waits");
        assert!(stage.edit(who, &[1], &[0]).await);
        assert!(stage.shard.pending_bytes < 500, "only what has to be sent whole waits");
        stage.make_room(who, 1 << 20);
        stage.settle().await;
        let listener = &stage.listeners[who];
        let received = received(&listener.socket.peer().received);
        assert_eq!(received.numbers, stage.expected(listener));
        assert_eq!(received.numbers.last(), Some(&39), "the rest of the other topic");
        assert!(received.notices.is_empty(), "{:?}", received.notices);
    });
}

#[test]
fn a_subscriber_that_cannot_be_changed_is_not_kept_for_it() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        assert_eq!(stage.shard.editable.len(), 1);
        stage.listeners[who].socket.peer().is_reset = true;
        let key = stage.listeners[who].key;
        stage.shard.readable(key, &stage.hub.state.engine);
        assert!(stage.shard.editable.is_empty());
        assert!(!stage.edit(who, &[1], &[]).await);
    });
}

#[test]
fn a_stream_that_ends_is_not_changed_any_more() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        // It does not take the end of its stream.
        stage.listeners[who].socket.peer().room = 2;
        stage.listeners[who].socket.peer().has_hung_up = true;
        let key = stage.listeners[who].key;
        stage.shard.readable(key, &stage.hub.state.engine);
        stage.settle().await;
        assert!(stage.shard.wire(key).is_some());
        assert!(!stage.edit(who, &[1], &[]).await);
    });
}

#[test]
fn presence_learns_of_the_topics_after_a_change() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let mut presence = stage.hub.presence();
        let mut topics = || {
            let change = presence.next().now_or_never().flatten().expect("a change");
            change.matchers.iter().map(|matcher| matcher.text.to_string()).collect::<Vec<_>>()
        };
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        assert_eq!(topics(), ["a"]);
        assert!(stage.edit(who, &[1], &[0]).await);
        assert_eq!(topics(), ["b"]);
    });
}

/// A shard has one filter for equal ones, and wakes its subscribers itself.
#[test]
fn nothing_is_kept_of_the_topics_before_a_change_and_no_waker() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        let wakers = |stage: &Stage| -> usize {
            let (_, subscriber) = stage.shard.subscribers.iter().next().expect("it is here");
            subscriber.reader.feeds().map(|feed| feed.waker_count()).sum()
        };
        assert_eq!((stage.shard.filters.len(), wakers(&stage)), (1, 0));
        for (add, remove) in [([1], [0]), ([2], [1]), ([3], [2])] {
            assert!(stage.edit(who, &add, &remove).await);
            assert_eq!((stage.shard.filters.len(), wakers(&stage)), (1, 0));
            assert_eq!((stage.hub.stats().feeds, stage.shard.groups.len()), (1, 1));
        }
        let key = stage.listeners[who].key;
        stage.shard.drop_subscriber(key, CloseReason::Client, &stage.hub.state.engine);
        assert_eq!((stage.shard.filters.len(), stage.shard.groups.len()), (0, 0));
    });
}

#[test]
fn a_change_counts_after_what_was_due_before_it() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        for topic in [0, 1] {
            stage.publish(&[topic], false, 10).await;
        }
        stage.write().await;
        assert!(stage.edit(who, &[1], &[]).await);
        stage.publish(&[1], false, 10).await;
        stage.settle().await;
        assert_eq!(received(&stage.listeners[who].socket.peer().received).numbers, [0, 2]);
    });
}
