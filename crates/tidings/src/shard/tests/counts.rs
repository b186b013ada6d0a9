//! What a shard counts and measures.

use super::{stage::received, *};
use crate::counts::Driver;

/// Lets time pass, and everything happen that is due.
async fn pass(stage: &mut Stage, secs: u64) {
    advance(Duration::from_secs(secs)).await;
    stage.sweep();
    stage.settle().await;
}

fn closed(stage: &Stage) -> Vec<(CloseReason, u64)> {
    let counts = stage.hub.state.engine.counts.closed.by_reason();
    CloseReason::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect()
}

#[test]
fn a_closed_stream_counts_for_the_reason_that_ended_it_and_its_connection_learns_it() {
    let hour = Duration::from_secs(3_600);
    for reason in CloseReason::ALL {
        in_paused_time(async {
            let mut stage = Stage::new(|settings| {
                settings.lifetime_max = (reason == CloseReason::Lifetime).then_some(hour);
            })
            .await;
            let mut ask = Subscribe::new(stage.matchers(&[0]));
            if reason == CloseReason::Expired {
                ask = ask.expires_in(hour);
            }
            let who = stage.open(ask, 0, 1_000).await;
            stage.settle().await;
            assert!(closed(&stage).is_empty());
            let key = stage.listeners[who].key;
            match reason {
                CloseReason::Client => {
                    stage.listeners[who].socket.peer().is_reset = true;
                    stage.shard.readable(key, &stage.hub.state.engine);
                }
                CloseReason::Expired | CloseReason::Lifetime => pass(&mut stage, 3_601).await,
                CloseReason::Revoked => {
                    let connection = stage.shard.subscribers[key.slot as usize].reader.connection;
                    stage.hub.end([connection]);
                    pass(&mut stage, 1).await;
                }
                CloseReason::Slow => {
                    stage.publish(&[0], false, 5_000).await;
                    stage.settle().await;
                    pass(&mut stage, STALLED_MAX.as_secs()).await;
                }
                CloseReason::Shutdown => {
                    stage.hub.close();
                    pass(&mut stage, 1).await;
                }
                CloseReason::Error => {
                    stage.listeners[who].socket.peer().input = vec![0; INPUT_BYTES_MAX + 1];
                    stage.shard.readable(key, &stage.hub.state.engine);
                }
            }
            assert_eq!(closed(&stage), [(reason, 1)]);
            assert_eq!(stage.listeners[who].socket.peer().ended_by, Some(reason));
        });
    }
}

#[test]
fn a_client_that_ends_its_side_after_everything_was_sent_counts_as_gone() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1_000).await;
        stage.settle().await;
        stage.listeners[who].socket.peer().has_hung_up = true;
        stage.shard.readable(stage.listeners[who].key, &stage.hub.state.engine);
        stage.settle().await;
        assert_eq!(closed(&stage), [(CloseReason::Client, 1)]);
    });
}

#[test]
fn a_stream_that_its_client_does_not_let_end_counts_for_the_reason_of_its_end() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let ask = Subscribe::new(stage.matchers(&[0])).expires_in(Duration::from_secs(100));
        let who = stage.open(ask, 0, 1_000).await;
        stage.settle().await;
        // Past the announcement, and not at the end.
        pass(&mut stage, 99).await;
        stage.listeners[who].socket.peer().room = 5;
        pass(&mut stage, 1).await;
        assert!(closed(&stage).is_empty(), "it does not take the closing frames");
        stage.listeners[who].socket.peer().is_reset = true;
        stage.shard.readable(stage.listeners[who].key, &stage.hub.state.engine);
        assert_eq!(closed(&stage), [(CloseReason::Expired, 1)]);
    });
}

#[test]
fn a_socket_that_is_full_when_the_hub_closes_is_no_slow_client() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1_000).await;
        stage.settle().await;
        stage.publish(&[0], false, 5_000).await;
        stage.settle().await;
        stage.hub.close();
        pass(&mut stage, CLOSING_STALLED_MAX.as_secs()).await;
        assert_eq!(closed(&stage), [(CloseReason::Shutdown, 1)]);
        assert_eq!(stage.listeners[who].socket.peer().ended_by, Some(CloseReason::Shutdown));
    });
}

#[test]
fn an_event_counts_when_its_last_byte_was_accepted() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        for topics in [&[0][..], &[0, 1]] {
            stage.subscribe(topics, &[], false, 500).await;
        }
        stage.settle().await;
        let events =
            |stage: &Stage| stage.hub.state.engine.counts.of(Driver::Shard).deliveries.total().events;
        stage.publish(&[0], false, 1_000).await;
        stage.settle().await;
        assert_eq!(events(&stage), 0, "each socket accepts a part");
        for who in 0..2 {
            stage.make_room(who, 10_000);
            stage.settle().await;
            assert_eq!(events(&stage), who as u64 + 1);
        }
        let bytes: usize = stage.listeners.iter().map(|listener| listener.socket.peer().received.len()).sum();
        assert_eq!(stage.hub.state.engine.counts.of(Driver::Shard).deliveries.total().bytes, bytes as u64);
    });
}

#[test]
fn whole_events_before_one_that_is_cut_count_at_once() {
    in_paused_time(async {
        for topics in [&[0][..], &[0, 1]] {
            let mut stage = Stage::new(|_| {}).await;
            let who = stage.subscribe(topics, &[], false, 1 << 20).await;
            stage.settle().await;
            let bytes = |stage: &Stage| stage.listeners[who].socket.peer().received.len();
            let events =
                |stage: &Stage| stage.hub.state.engine.counts.of(Driver::Shard).deliveries.total().events;
            let before = bytes(&stage);
            stage.publish(&[0], false, 100).await;
            stage.settle().await;
            stage.listeners[who].socket.peer().room = 2 * (bytes(&stage) - before) + 50;
            for _ in 0..3 {
                stage.publish(&[0], false, 100).await;
            }
            stage.settle().await;
            assert_eq!(events(&stage), 3, "two of them and a part of the third");
            stage.make_room(who, 1 << 20);
            stage.settle().await;
            assert_eq!(events(&stage), 4);
        }
    });
}

#[test]
fn a_sampled_event_is_served_when_the_last_member_has_been_sent_it() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        for _ in 0..3 * SLICE_SENDS {
            stage.subscribe(&[0], &[], false, 100_000).await;
        }
        // One that is stalled, and one of another topic.
        stage.subscribe(&[0], &[], false, 0).await;
        stage.subscribe(&[1], &[], false, 100_000).await;
        stage.settle().await;
        stage.publish(&[0], false, 10).await;
        stage.write().await;
        assert!(stage.slice());
        assert_eq!(stage.shard.take_served_marks().count(), 0, "some have not been visited");
        stage.settle().await;
        assert_eq!(stage.shard.take_served_marks().count(), 1);
        let sent = |listener: &stage::Listener| received(&listener.socket.peer().received).numbers.len();
        assert_eq!(stage.listeners.iter().map(sent).sum::<usize>(), 3 * SLICE_SENDS);
        // Those that join later are not behind with it.
        stage.subscribe(&[0], &[], false, 100_000).await;
        stage.settle().await;
        assert_eq!(stage.shard.take_served_marks().count(), 0);
    });
}

#[test]
fn a_survey_finds_how_far_the_slowest_subscriber_is_behind() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        for _ in 0..10 {
            stage.subscribe(&[0], &[], false, 1 << 30).await;
        }
        let slow = stage.subscribe(&[0], &[], false, 1_000).await;
        stage.settle().await;
        let survey = |stage: &mut Stage| {
            stage.sweep();
            let survey = stage.shard.surveyed.take().expect("the sweep is over");
            let readers = &stage.hub.state.engine.counts.readers;
            readers.put(0, survey);
            readers.all()
        };
        assert_eq!(survey(&mut stage), crate::ReaderLag::default());
        for _ in 0..20 {
            stage.publish(&[0], false, 1_000).await;
        }
        stage.settle().await;
        let sent = |who: usize, stage: &Stage| stage.listeners[who].socket.peer().received.len() as u64;
        let lag = survey(&mut stage);
        // The clients' headers and reconnection times are of different lengths.
        let missing = sent(0, &stage) - sent(slow, &stage);
        assert!(lag.worst_bytes.abs_diff(missing) < 100, "{lag:?} and not {missing}");
        assert_eq!(lag.stalled, 1);
        stage.make_room(slow, 1 << 30);
        stage.settle().await;
        stage.publish(&[0], false, 1_000).await;
        stage.write().await;
        assert_eq!(
            survey(&mut stage),
            crate::ReaderLag::default(),
            "nobody is slow who is about to be sent it"
        );
    });
}

#[test]
fn what_a_socket_has_taken_of_a_page_is_no_lag() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        for _ in 0..20 {
            stage.publish(&[0], false, 1_000).await;
        }
        stage.settle().await;
        let fast = stage.subscribe(&[0], &[], true, 1 << 30).await;
        let slow = stage.subscribe(&[0], &[], true, 10_000).await;
        stage.settle().await;
        stage.sweep();
        let readers = &stage.hub.state.engine.counts.readers;
        readers.put(0, stage.shard.surveyed.take().expect("the sweep is over"));
        let sent = |who: usize| stage.listeners[who].socket.peer().received.len() as u64;
        // The clients' reconnection times are of different lengths.
        let missing = sent(fast) - sent(slow);
        assert!(readers.all().worst_bytes.abs_diff(missing) < 100, "{:?} and not {missing}", readers.all());
    });
}
