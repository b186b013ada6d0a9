//! The bytes that wait for full sockets are bounded, and are dropped in such a way that no
//! subscriber misses an event.

use tidings_topic::Since;

use super::{
    CloseReason, Subscribe, in_paused_time,
    stage::{Stage, received},
};

const EVENTS: usize = 100;

/// Subscribers who want all the history, of whom each has taken a few events and no more.
async fn stuffed(count: usize, event_bytes: usize, pending_bytes_max: usize) -> Stage {
    let mut stage = Stage::new(|settings| {
        settings.replay_page_bytes = 4_000;
        settings.pending_bytes_max = pending_bytes_max;
    })
    .await;
    for _ in 0..EVENTS {
        stage.publish(&[0], false, event_bytes).await;
    }
    for _ in 0..count {
        stage.subscribe(&[0], &[], true, event_bytes + 700).await;
    }
    stage.settle().await;
    stage
}

/// After a restart thousands come back at once, each with a page in its hand. Their number is no
/// reason to close the first whose socket fills up.
#[test]
fn pages_that_sockets_do_not_take_are_given_back_and_read_again() {
    in_paused_time(async {
        const BUDGET: usize = 16_000;
        let mut stage = stuffed(20, 100, BUDGET).await;
        assert!(stage.shard.pending_bytes <= BUDGET, "{}", stage.shard.pending_bytes);
        assert_eq!(stage.shard.subscribers.len(), 20, "the rests of events fit, so no connection is closed");
        for who in 0..20 {
            stage.make_room(who, 1 << 20);
        }
        stage.settle().await;
        for listener in &stage.listeners {
            let received = received(&listener.socket.peer().received);
            assert_eq!(received.numbers, (0..EVENTS).collect::<Vec<_>>());
            assert_eq!(received.notices, Vec::<String>::new());
        }
    });
}

/// The page is the last of the history of one topic, and it is read again while the other topic has
/// not started either.
#[test]
fn a_page_that_is_given_back_is_read_again_without_topics_that_start_after_it() {
    in_paused_time(async {
        let mut stage = Stage::new(|settings| settings.pending_bytes_max = 500).await;
        for _ in 0..10 {
            stage.publish(&[0], false, 100).await;
            stage.publish(&[1], false, 100).await;
        }
        let matchers = stage.matchers(&[0, 1]);
        let starts = matchers.into_iter().zip([Since::Earliest, Since::Now]);
        let ask = starts.fold(Subscribe::new([]), |ask, (matcher, since)| ask.matcher_since(matcher, since));
        let who = stage.open(ask, 0, 800).await;
        stage.settle().await;
        let before = received(&stage.listeners[who].socket.peer().received).numbers;
        assert!((1..9).contains(&before.len()), "{before:?}");
        assert!(stage.shard.pending_bytes <= 500, "the page was given back");
        stage.make_room(who, 1 << 20);
        stage.settle().await;
        for topic in [1, 0] {
            stage.publish(&[topic], false, 100).await;
        }
        stage.settle().await;
        let received = received(&stage.listeners[who].socket.peer().received);
        assert_eq!(received.numbers, (0..20).step_by(2).chain([20, 21]).collect::<Vec<_>>());
        assert_eq!(received.notices, Vec::<String>::new());
    });
}

#[test]
fn a_stream_that_ends_keeps_no_page() {
    in_paused_time(async {
        let mut stage = stuffed(1, 100, usize::MAX).await;
        assert!(stage.shard.pending_bytes > 1_000, "a page");
        stage.hub.close();
        let slot = stage.listeners[0].key.slot as usize;
        // The rest of an event is finished first, then the closing frames begin.
        while !stage.shard.subscribers[slot].is_ending() {
            stage.make_room(0, 1);
            stage.settle().await;
        }
        assert!(stage.shard.pending_bytes < 500, "{}", stage.shard.pending_bytes);
    });
}

#[test]
fn a_page_is_not_kept_for_the_rest_of_its_last_event() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        stage.publish(&[0], false, 10_000).await;
        let who = stage.subscribe(&[0], &[], true, 9_000).await;
        stage.settle().await;
        assert!((1_000..2_000).contains(&stage.shard.pending_bytes), "{}", stage.shard.pending_bytes);
        stage.make_room(who, 1 << 20);
        stage.settle().await;
        assert_eq!(received(&stage.listeners[who].socket.peer().received).numbers, [0]);
    });
}

#[test]
fn a_connection_is_closed_where_the_rest_of_an_event_is_too_much() {
    in_paused_time(async {
        const BUDGET: usize = 12_000;
        let mut stage = stuffed(20, 2_000, BUDGET).await;
        assert!(stage.shard.pending_bytes <= BUDGET, "{}", stage.shard.pending_bytes);
        let here = stage.shard.subscribers.len();
        assert!((1..20).contains(&here), "{here}");
        for who in 0..20 {
            let key = stage.listeners[who].key;
            stage.shard.drop_subscriber(key, CloseReason::Client, &stage.hub.state.engine);
        }
        assert_eq!(stage.shard.pending_bytes, 0, "their pending bytes have been freed with them");
    });
}
