//! Periodic checks of all subscribers: they happen in time, and delay nothing.

use std::time::Duration;

use tokio::time::{Instant, advance};

use super::{
    super::*,
    in_paused_time,
    stage::{Stage, received},
};
use crate::Subscribe;

/// As the driver does it: what is due now, then whatever there is to do.
async fn turn(stage: &mut Stage) {
    stage.shard.begin_sweep();
    stage.settle().await;
}

#[test]
fn a_sweep_over_many_subscribers_lets_events_and_input_pass() {
    in_paused_time(async {
        const SLICES_MIN: usize = 4;
        let mut stage = Stage::new(|_| {}).await;
        let reader = stage.subscribe(&[1], &[], false, 1 << 20).await;
        let leaver = stage.subscribe(&[2], &[], false, 1 << 20).await;
        for _ in 0..SLICES_MIN * SLICE_SENDS * VISITS_PER_SEND {
            stage.subscribe(&[0], &[], false, 1 << 20).await;
        }
        stage.settle().await;
        stage.shard.begin_sweep();
        for slice in 0..SLICES_MIN {
            stage.publish(&[1], false, 10).await;
            stage.write().await;
            assert!(stage.slice(), "the sweep continues");
            let numbers = received(&stage.listeners[reader].socket.peer().received).numbers;
            assert_eq!(numbers.len(), slice + 1, "an event does not wait for the end of the sweep");
        }
        stage.listeners[leaver].socket.peer().is_reset = true;
        let key = stage.listeners[leaver].key;
        stage.shard.readable(key, &stage.hub.state.engine);
        stage.slice();
        assert!(stage.shard.wire(key).is_none(), "the end of a stream does not wait for it either");
        let slices = std::iter::from_fn(|| stage.slice().then_some(())).take(100).count();
        assert!(slices < 2 * SLICES_MIN, "{slices}");
        assert!(stage.shard.sweep_slot.is_none());
    });
}

/// Subscribers to events at all moments between two sweeps, and to none, each with an interval of
/// its own.
#[test]
fn no_subscriber_receives_nothing_for_longer_than_a_heartbeat() {
    in_paused_time(async {
        for heartbeat in [400, 1_000, 15_000, 40_000].map(Duration::from_millis) {
            let mut stage = Stage::new(|settings| settings.heartbeat = heartbeat).await;
            for topic in [0, 1].repeat(32) {
                stage.subscribe(&[topic], &[], false, 1 << 20).await;
            }
            stage.settle().await;
            let interval = stage.shard.sweep_interval;
            let steps = 4;
            let mut last = [(0, Instant::now()); 64];
            for step in 0..600_u32 {
                advance(interval / steps).await;
                if step % 37 == 0 {
                    stage.publish(&[0], false, 10).await;
                }
                if step % steps == 0 {
                    stage.shard.begin_sweep();
                }
                stage.settle().await;
                for (who, last) in last.iter_mut().enumerate() {
                    let bytes = stage.listeners[who].socket.peer().received.len();
                    if bytes > last.0 {
                        *last = (bytes, Instant::now());
                    }
                    assert!(last.1.elapsed() <= heartbeat, "{:?} of {heartbeat:?}", last.1.elapsed());
                }
            }
        }
    });
}

#[test]
fn a_stream_ends_at_its_time_without_waiting_for_a_sweep() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let began = Instant::now();
        for millis in [1_900, 5_000, 5_001, 5_700] {
            let ask = Subscribe::new(stage.matchers(&[0])).expires_in(Duration::from_millis(millis));
            stage.open(ask, 0, 1 << 20).await;
        }
        stage.settle().await;
        let mut ended = Vec::new();
        let mut left = 4;
        while let Some(next) = stage.shard.next_end() {
            tokio::time::sleep_until(next.into()).await;
            while stage.slice() {}
            // Each end is announced before.
            let left_now = stage.hub.stats().subscribers;
            if left_now != left {
                left = left_now;
                ended.push((began.elapsed().as_millis(), left));
            }
        }
        assert_eq!(ended, [(1_400, 3), (4_500, 2), (4_501, 1), (5_200, 0)]);
        assert!(stage.listeners.iter().all(|listener| received(&listener.socket.peer().received).has_ended));
    });
}

#[test]
fn a_stream_is_not_outlived_by_who_reads_nothing() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let ask = || Subscribe::new(stage.matchers(&[0])).expires_in(Duration::from_secs(5));
        let [blocked, slow] = [ask(), ask()];
        // One takes nothing any more before its time, the other does not take the end.
        let blocked = stage.open(blocked, 0, 200).await;
        let slow = stage.open(slow, 0, 600).await;
        stage.publish(&[0], false, 300).await;
        stage.settle().await;
        stage.listeners[slow].socket.peer().room = 20;
        advance(Duration::from_secs(5)).await;
        stage.settle().await;
        let is_here = |stage: &Stage, who: usize| stage.shard.wire(stage.listeners[who].key).is_some();
        assert_eq!((is_here(&stage, blocked), is_here(&stage, slow)), (false, true));
        advance(CLOSING_STALLED_MAX).await;
        turn(&mut stage).await;
        assert!(!is_here(&stage, slow));
        assert!(stage.shard.ends.is_empty());
    });
}

#[test]
fn a_request_to_end_is_compared_with_no_stream_after_a_while() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.hub.end([stage.shard.subscribers[stage.listeners[who].key.slot as usize].reader.connection]);
        turn(&mut stage).await;
        assert!(stage.hub.state.engine.endings.is_any());
        advance(Duration::from_secs(100)).await;
        turn(&mut stage).await;
        assert!(!stage.hub.state.engine.endings.is_any());
    });
}

#[test]
fn who_leaves_takes_its_end_along() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let ask = Subscribe::new(stage.matchers(&[0])).expires_in(Duration::from_secs(5));
        let who = stage.open(ask, 0, 1 << 20).await;
        assert_eq!(stage.shard.ends.len(), 1);
        let key = stage.listeners[who].key;
        stage.shard.drop_subscriber(key, CloseReason::Client, &stage.hub.state.engine);
        assert!(stage.shard.ends.is_empty());
    });
}

#[test]
fn a_stream_that_is_revoked_takes_its_end_along() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let ask = Subscribe::new(stage.matchers(&[0])).expires_in(Duration::from_secs(3_600));
        let who = stage.open(ask, 0, 1 << 20).await;
        stage.settle().await;
        stage.hub.end([stage.shard.subscribers[stage.listeners[who].key.slot as usize].reader.connection]);
        turn(&mut stage).await;
        let received = received(&stage.listeners[who].socket.peer().received);
        assert_eq!(received.notices, [r#"{"kind":"revoked"}"#]);
        assert!(stage.shard.ends.is_empty());
    });
}

/// Its time begins when it is full, and not with the last event before.
#[test]
fn a_socket_that_is_full_after_a_long_silence_has_as_much_time_as_any() {
    in_paused_time(async {
        let mut stage = Stage::new(|settings| settings.heartbeat = Duration::ZERO).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        stage.listeners[who].socket.peer().room = 0;
        advance(10 * STALLED_MAX).await;
        stage.publish(&[0], false, 10).await;
        stage.settle().await;
        for (after, is_here) in [(Duration::from_secs(1), true), (STALLED_MAX, false)] {
            advance(after).await;
            turn(&mut stage).await;
            assert_eq!(stage.shard.wire(stage.listeners[who].key).is_some(), is_here, "{after:?}");
        }
    });
}

/// Nothing is withheld from it that it may not have, so it gets the notice when it reads on.
#[test]
fn a_full_socket_is_not_cut_at_the_maximum_age_of_its_stream() {
    in_paused_time(async {
        let age = Duration::from_secs(20);
        let mut stage = Stage::new(|settings| settings.lifetime_max = Some(age)).await;
        let who = stage.subscribe(&[0], &[], false, 200).await;
        stage.settle().await;
        stage.publish(&[0], false, 300).await;
        stage.settle().await;
        advance(age).await;
        turn(&mut stage).await;
        assert!(stage.shard.wire(stage.listeners[who].key).is_some());
        stage.make_room(who, 1 << 20);
        stage.settle().await;
        let received = received(&stage.listeners[who].socket.peer().received);
        assert_eq!((received.numbers, received.has_ended), (vec![0], true));
        assert_eq!(received.notices, [r#"{"kind":"reconnect","reason":"lifetime"}"#]);
    });
}
