//! In which order subscribers are visited: none waits for another one's flood, and none gets
//! another one's events.

use tokio::time::advance;

use super::{
    super::*,
    in_paused_time,
    stage::{Listener, Stage, received},
};
use crate::Subscribe;

#[test]
fn rounds_history_and_heartbeats_take_turns() {
    in_paused_time(async {
        const EACH: usize = 2 * SLICE_SENDS;
        let mut stage = Stage::new(|settings| settings.heartbeat = Duration::from_secs(15)).await;
        for _ in 0..EACH {
            stage.subscribe(&[0], &[], false, 1 << 20).await;
        }
        stage.settle().await;
        advance(Duration::from_secs(15)).await;
        for _ in 0..EACH {
            stage.subscribe(&[1], &[], false, 1 << 20).await;
        }
        stage.settle().await;
        stage.sweep();
        stage.publish(&[1], false, 10).await;
        stage.write().await;
        for _ in 0..EACH {
            stage.subscribe(&[2], &[], false, 1 << 20).await;
        }
        // The first are silent, the next have a round to make, the last wait for their beginning.
        let writes = |stage: &Stage| -> Vec<usize> {
            let of =
                |kind: &[Listener]| kind.iter().map(|listener| listener.socket.peer().writes).sum::<usize>();
            stage.listeners.chunks(EACH).map(of).collect()
        };
        let before = writes(&stage);
        assert!(stage.slice(), "a slice is smaller than that");
        let sent: Vec<_> = writes(&stage).iter().zip(before).map(|(after, before)| after - before).collect();
        assert!(sent.iter().all(|sent| *sent >= SLICE_SENDS / 4), "{sent:?}");
    });
}

#[test]
fn a_slice_ends_also_where_nobody_can_be_sent_anything() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        for _ in 0..=SLICE_SENDS * VISITS_PER_SEND {
            stage.subscribe(&[0], &[], false, 0).await;
        }
        stage.settle().await;
        stage.publish(&[0], false, 10).await;
        stage.write().await;
        assert!(stage.slice(), "a subscriber is left for the next slice");
        assert!(!stage.slice());
    });
}

#[test]
fn a_full_socket_is_left_alone_until_it_can_be_written() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        stage.listeners[who].socket.peer().room = 0;
        let before = stage.listeners[who].socket.peer().writes;
        for _ in 0..10 {
            stage.publish(&[0], false, 10).await;
            stage.settle().await;
        }
        assert_eq!(stage.listeners[who].socket.peer().writes - before, 1);
        stage.make_room(who, 1 << 20);
        stage.settle().await;
        assert_eq!(
            received(&stage.listeners[who].socket.peer().received).numbers,
            (0..10).collect::<Vec<_>>()
        );
    });
}

#[test]
fn a_call_that_a_signal_has_interrupted_is_made_again() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        stage.publish(&[0], false, 10).await;
        stage.listeners[who].socket.peer().interruptions = 3;
        stage.settle().await;
        stage.listeners[who].socket.peer().interruptions = 3;
        let key = stage.listeners[who].key;
        stage.shard.readable(key, &stage.hub.state.engine);
        assert!(stage.shard.wire(key).is_some());
        assert_eq!(received(&stage.listeners[who].socket.peer().received).numbers, [0]);
    });
}

#[test]
fn what_was_meant_for_somebody_who_has_left_reaches_nobody_else() {
    in_paused_time(async {
        let mut stage = Stage::new(|settings| settings.feed_bytes_max = 0).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        stage.publish(&[0], false, 10).await;
        stage.write().await;
        while stage.slice() {}
        assert_eq!(stage.shard.requests.len(), 1, "a page is on its way");
        let left = stage.listeners[who].key;
        stage.shard.drop_subscriber(left, CloseReason::Client, &stage.hub.state.engine);
        let next = stage.subscribe(&[1], &[], false, 0).await;
        let here = stage.listeners[next].key;
        assert_eq!((here.slot, here.serial == left.serial), (left.slot, false));
        while stage.slice() {}
        stage.read_pages().await;
        // News of the socket that is closed by now.
        stage.shard.writable(left);
        stage.listeners[next].socket.peer().has_hung_up = true;
        stage.shard.readable(left, &stage.hub.state.engine);
        stage.shard.drop_subscriber(left, CloseReason::Client, &stage.hub.state.engine);
        assert!(stage.shard.wire(left).is_none() && stage.shard.wire(here).is_some());
        stage.make_room(next, 1 << 20);
        stage.settle().await;
        assert_eq!(received(&stage.listeners[next].socket.peer().received).numbers, Vec::<usize>::new());
    });
}

#[test]
fn who_waits_for_a_page_asks_for_no_other() {
    in_paused_time(async {
        let mut stage = Stage::new(|settings| settings.feed_bytes_max = 0).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        for _ in 0..3 {
            stage.publish(&[0], false, 10).await;
            stage.write().await;
            while stage.slice() {}
            assert_eq!(stage.shard.requests.len(), 1);
        }
        stage.settle().await;
        assert_eq!(received(&stage.listeners[who].socket.peer().received).numbers, [0, 1, 2]);
    });
}

#[test]
fn a_subscriber_is_in_the_queue_once() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        stage.subscribe(&[0], &[], false, 0).await;
        stage.settle().await;
        stage.hub.close();
        for _ in 0..10 {
            stage.sweep();
        }
        assert_eq!(stage.shard.queue.len(), 1);
    });
}

#[test]
fn the_first_of_several_ends_counts() {
    in_paused_time(async {
        let expired = r#"{"kind":"expired"}"#;
        let lifetime = r#"{"kind":"reconnect","reason":"lifetime"}"#;
        for (expiry_secs, notice) in [(5, expired), (1_000, lifetime)] {
            let mut stage =
                Stage::new(|settings| settings.lifetime_max = Some(Duration::from_secs(100))).await;
            let ask = Subscribe::new(stage.matchers(&[0])).expires_in(Duration::from_secs(expiry_secs));
            let who = stage.open(ask, 0, 1 << 20).await;
            stage.settle().await;
            advance(Duration::from_secs(expiry_secs.min(100))).await;
            stage.sweep();
            stage.settle().await;
            let received = received(&stage.listeners[who].socket.peer().received);
            assert_eq!(received.notices, [notice]);
        }
    });
}

#[test]
fn one_call_hands_over_no_more_than_a_segment() {
    in_paused_time(async {
        for topics in [&[0][..], &[0, 1]] {
            let mut stage = Stage::new(|_| {}).await;
            let who = stage.subscribe(topics, &[], false, 1 << 20).await;
            stage.settle().await;
            for _ in 0..500 {
                stage.publish(&[0], false, 1_000).await;
            }
            stage.settle().await;
            let peer = stage.listeners[who].socket.peer();
            assert_eq!(received(&peer.received).numbers.len(), 500);
            assert!((8..=16).contains(&peer.writes), "{}", peer.writes);
            assert!(peer.largest_write <= 66 * 1024, "{}", peer.largest_write);
        }
    });
}
