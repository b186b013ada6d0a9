//! Heartbeats: sent to a subscriber that receives nothing else, and never in the middle of a frame.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::advance;

use super::{
    in_paused_time,
    stage::{Stage, received},
};
use crate::{HubSettings, Subscribe};

const HEARTBEAT: Duration = Duration::from_secs(15);

async fn stage(change: impl FnOnce(&mut HubSettings)) -> Stage {
    Stage::new(|settings| {
        settings.heartbeat = HEARTBEAT;
        change(settings);
    })
    .await
}

fn heartbeats(stage: &Stage, who: usize) -> usize {
    String::from_utf8_lossy(&stage.listeners[who].socket.peer().received).matches(": hb\n").count()
}

#[test]
fn who_receives_events_receives_no_heartbeats() {
    in_paused_time(async {
        let mut stage = stage(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        for _ in 0..10 {
            advance(HEARTBEAT / 2).await;
            stage.publish(&[0], false, 10).await;
            stage.settle().await;
            stage.sweep();
            stage.settle().await;
        }
        assert_eq!(heartbeats(&stage, who), 0);
    });
}

#[test]
fn an_event_that_comes_when_a_heartbeat_is_due_takes_its_place() {
    in_paused_time(async {
        let mut stage = stage(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        advance(HEARTBEAT).await;
        stage.sweep();
        stage.publish(&[0], false, 10).await;
        stage.settle().await;
        assert_eq!(heartbeats(&stage, who), 0);
        assert_eq!(received(&stage.listeners[who].socket.peer().received).numbers, [0]);
    });
}

#[test]
fn a_heartbeat_that_is_cut_is_finished_before_the_next_event() {
    in_paused_time(async {
        for room in 0..10 {
            let mut stage = stage(|_| {}).await;
            let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
            stage.settle().await;
            stage.listeners[who].socket.peer().room = room;
            advance(HEARTBEAT).await;
            stage.sweep();
            stage.publish(&[0], false, 10).await;
            // The sweep was before the event: the heartbeat goes first.
            while stage.slice() {}
            stage.settle().await;
            stage.make_room(who, 1 << 20);
            stage.settle().await;
            assert_eq!(received(&stage.listeners[who].socket.peer().received).numbers, [0], "{room}");
            assert_eq!(heartbeats(&stage, who), usize::from(room > 0), "{room}");
        }
    });
}

#[test]
fn no_heartbeat_stands_in_the_middle_of_an_event() {
    in_paused_time(async {
        let mut stage = stage(|_| {}).await;
        for _ in 0..3 {
            stage.subscribe(&[0], &[], false, 150).await;
        }
        stage.settle().await;
        stage.publish(&[0], false, 500).await;
        stage.settle().await;
        advance(HEARTBEAT).await;
        // Whose socket can be written again is visited in this order, and found silent in the
        // other.
        for who in (0..3).rev() {
            stage.make_room(who, 1 << 20);
        }
        stage.sweep();
        stage.settle().await;
        for listener in &stage.listeners {
            assert_eq!(received(&listener.socket.peer().received).numbers, [0]);
        }
    });
}

/// The last chunk was sent while the topics of the stream were to be changed, and a long time passed
/// before the shard went on.
#[test]
fn no_heartbeat_comes_after_the_last_chunk() {
    in_paused_time(async {
        let mut stage = stage(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        // Its turn is before that of the stream that ends.
        stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.listeners[who].socket.peer().has_hung_up = true;
        let key = stage.listeners[who].key;
        stage.shard.readable(key, &stage.hub.state.engine);
        for _ in 0..2 {
            assert!(!stage.edit(who, &[1], &[]).await, "it ends");
        }
        advance(HEARTBEAT).await;
        stage.sweep();
        stage.settle().await;
        assert!(received(&stage.listeners[who].socket.peer().received).has_ended);
        assert!(stage.shard.wire(key).is_none());
    });
}

#[test]
fn a_full_socket_is_sent_no_heartbeat() {
    in_paused_time(async {
        let mut stage = stage(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        stage.listeners[who].socket.peer().room = 0;
        stage.publish(&[0], false, 10).await;
        stage.settle().await;
        advance(HEARTBEAT).await;
        stage.sweep();
        // A write to the full socket would fail this test.
        stage.settle().await;
        stage.make_room(who, 1 << 20);
        stage.settle().await;
        assert_eq!(heartbeats(&stage, who), 0);
        assert_eq!(received(&stage.listeners[who].socket.peer().received).numbers, [0]);
    });
}

#[test]
fn a_heartbeat_that_a_signal_has_interrupted_is_sent_again() {
    in_paused_time(async {
        let mut stage = stage(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        advance(HEARTBEAT).await;
        stage.listeners[who].socket.peer().interruptions = 3;
        stage.sweep();
        stage.settle().await;
        assert_eq!(heartbeats(&stage, who), 1);
    });
}

#[test]
fn who_is_found_dead_by_a_heartbeat_is_let_go() {
    in_paused_time(async {
        let mut stage = stage(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        stage.listeners[who].socket.peer().is_reset = true;
        advance(HEARTBEAT).await;
        stage.sweep();
        stage.settle().await;
        assert!(stage.shard.wire(stage.listeners[who].key).is_none());
        assert_eq!(stage.hub.stats().subscribers, 0);
    });
}

/// A log that is away for an hour must not end the connections of those who wait for its history:
/// proxies close what is silent.
#[test]
fn who_waits_for_history_is_kept_alive() {
    in_paused_time(async {
        let mut stage = stage(|settings| settings.feed_bytes_max = 0).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        stage.publish(&[0], false, 10).await;
        stage.write().await;
        while stage.slice() {}
        assert_eq!(stage.shard.requests.len(), 1, "it waits for a page of history");
        for count in 1..=3 {
            advance(HEARTBEAT).await;
            stage.sweep();
            while stage.slice() {}
            assert_eq!(heartbeats(&stage, who), count);
        }
        stage.settle().await;
        assert_eq!(received(&stage.listeners[who].socket.peer().received).numbers, [0]);
    });
}

#[test]
fn nothing_comes_after_the_closing_frames() {
    in_paused_time(async {
        let mut stage =
            stage(|settings| (settings.feed_bytes_max, settings.heartbeat) = (0, Duration::from_secs(1)))
                .await;
        let ask = Subscribe::new(stage.matchers(&[0])).expires_in(Duration::from_secs(5));
        let who = stage.open(ask, 0, 1 << 20).await;
        stage.settle().await;
        stage.publish(&[0], false, 10).await;
        stage.write().await;
        while stage.slice() {}
        // A page is on its way to somebody whose stream ends meanwhile, and who does not take the
        // end at once.
        stage.listeners[who].socket.peer().room = 20;
        advance(Duration::from_secs(5)).await;
        stage.sweep();
        while stage.slice() {}
        for (key, request) in std::mem::take(&mut stage.shard.requests) {
            let mut page = stage.hub.state.engine.replays.next_page(request).await.expect("memory is there");
            page.gap = Some((page.from, Bytes::from_static(b"data: something is missing\n\n")));
            stage.shard.take_page(key, page);
        }
        advance(Duration::from_secs(1)).await;
        stage.sweep();
        stage.make_room(who, 1 << 20);
        stage.settle().await;
        let received = received(&stage.listeners[who].socket.peer().received);
        assert!(received.has_ended);
        assert_eq!((received.numbers.len(), received.notices.len()), (0, 1));
    });
}
