//! A shard with simulated sockets and time: whatever sockets take and whenever, each subscriber's
//! bytes parse to exactly its events.

mod budget;
mod counts;
mod editing;
mod silence;
mod stage;
mod sweeps;
mod turns;

use proptest::prelude::*;
use tokio::time::{Instant, advance};

use self::stage::{Peer, Stage, TOPICS, received};
use super::{wire::INPUT_BYTES_MAX, *};
use crate::{HubSettings, Since, Subscribe};

/// What may happen, in any order.
#[derive(Clone, Debug)]
enum Act {
    Subscribe { topics: Vec<usize>, granted: Vec<usize>, from_start: bool, room: usize, record_bytes: usize },
    Publish { topics: Vec<usize>, private: bool, ephemeral: bool, bytes: usize },
    Write,
    Slice,
    Room { who: usize, room: usize },
    ReadPages,
    Sweep { secs: u64 },
    Reset { who: usize },
    HangUp { who: usize },
    Edit { who: usize, add: Vec<usize>, remove: Vec<usize> },
}

fn act() -> impl Strategy<Value = Act> {
    let topics = || prop::collection::vec(0..TOPICS.len(), 1..3);
    prop_oneof![
        2 => (topics(), topics(), any::<bool>(), 0..5_000_usize, prop::sample::select(vec![0, 0, 7, 1_000]))
            .prop_map(|(topics, granted, from_start, room, record_bytes)| {
                Act::Subscribe { topics, granted, from_start, room, record_bytes }
            }),
        8 => (topics(), any::<bool>(), any::<bool>(), prop_oneof![8 => 0..300_usize, 1 => 60_000..80_000_usize])
            .prop_map(|(topics, private, ephemeral, bytes)| Act::Publish { topics, private, ephemeral, bytes }),
        4 => Just(Act::Write),
        6 => Just(Act::Slice),
        8 => (0..8_usize, prop_oneof![1..40_usize, 100..3_000_usize])
            .prop_map(|(who, room)| Act::Room { who, room }),
        3 => Just(Act::ReadPages),
        1 => (0..20_u64).prop_map(|secs| Act::Sweep { secs }),
        1 => (0..8_usize).prop_map(|who| Act::Reset { who }),
        1 => (0..8_usize).prop_map(|who| Act::HangUp { who }),
    ]
}

/// The same, and subscribers that change their topics.
fn act_or_edit() -> impl Strategy<Value = Act> {
    let topics = || prop::collection::vec(0..TOPICS.len(), 0..3);
    let edit = (0..8_usize, topics(), topics()).prop_map(|(who, add, remove)| Act::Edit { who, add, remove });
    prop_oneof![8 => act(), 2 => edit]
}

async fn stage(feed_bytes_max: usize, pending_bytes_max: usize) -> Stage {
    Stage::new(|settings| {
        settings.feed_bytes_max = feed_bytes_max;
        settings.replay_page_bytes = 2_000;
        settings.pending_bytes_max = pending_bytes_max;
    })
    .await
}

async fn play(acts: Vec<Act>, feed_bytes_max: usize, pending_bytes_max: usize) -> Stage {
    let mut stage = stage(feed_bytes_max, pending_bytes_max).await;
    play_on(&mut stage, acts).await;
    stage
}

/// Returns how often a subscriber has changed its topics.
async fn play_on(stage: &mut Stage, acts: Vec<Act>) -> usize {
    let mut edits = 0;
    for act in acts {
        let count = stage.listeners.len();
        let listener = |who: usize| (count > 0).then(|| who % count);
        match act {
            Act::Subscribe { topics, granted, from_start, room, record_bytes } => {
                stage.record_bytes = record_bytes;
                stage.subscribe(&topics, &granted, from_start, room).await;
            }
            Act::Publish { topics, private, ephemeral: false, bytes } => {
                stage.publish(&topics, private, bytes).await;
            }
            Act::Publish { topics, private, ephemeral: true, bytes } => {
                stage.publish_ephemeral(&topics, private, bytes).await;
            }
            Act::Write => stage.write().await,
            Act::Slice => drop(stage.slice()),
            Act::Room { who, room } => {
                if let Some(who) = listener(who) {
                    stage.make_room(who, room);
                }
            }
            Act::ReadPages => stage.read_pages().await,
            Act::Sweep { secs } => {
                advance(Duration::from_secs(secs)).await;
                stage.sweep();
            }
            Act::Reset { who } => {
                if let Some(who) = listener(who) {
                    stage.listeners[who].socket.peer().is_reset = true;
                    let key = stage.listeners[who].key;
                    stage.shard.readable(key, &stage.hub.state.engine);
                }
            }
            Act::HangUp { who } => {
                if let Some(who) = listener(who) {
                    stage.listeners[who].socket.peer().has_hung_up = true;
                    let key = stage.listeners[who].key;
                    stage.shard.readable(key, &stage.hub.state.engine);
                }
            }
            Act::Edit { who, add, remove } => {
                if let Some(who) = listener(who) {
                    edits += usize::from(stage.edit(who, &add, &remove).await);
                }
            }
        }
    }
    edits
}

fn in_paused_time<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(run)
}

proptest! {
    #[test]
    fn each_subscribers_bytes_parse_to_exactly_its_events(
        acts in prop::collection::vec(act_or_edit(), 0..80),
        feed_bytes_max in prop::sample::select(vec![1_500, 20_000, 1 << 20]),
    ) {
        in_paused_time(async {
            let mut stage = play(acts, feed_bytes_max, usize::MAX).await;
            let is_cut = |peer: &Peer| peer.is_reset || peer.has_hung_up;
            for who in 0..stage.listeners.len() {
                let listener = &stage.listeners[who];
                let received = received(&listener.socket.peer().received);
                let (numbers, expected) = (stage.stored(listener, &received), stage.expected(listener));
                prop_assert!(expected.starts_with(&numbers), "{numbers:?} of {expected:?}");
            }
            for who in 0..stage.listeners.len() {
                stage.make_room(who, 1 << 30);
            }
            stage.settle().await;
            for listener in &stage.listeners {
                let peer = listener.socket.peer();
                let received = received(&peer.received);
                let (numbers, expected) = (stage.stored(listener, &received), stage.expected(listener));
                if is_cut(&peer) || stage.shard.wire(listener.key).is_none() {
                    prop_assert!(expected.starts_with(&numbers), "{numbers:?} of {expected:?}");
                } else {
                    prop_assert_eq!(&numbers, &expected);
                }
                prop_assert_eq!(&received.notices, &Vec::<String>::new());
            }
            let are_all_here = stage.listeners.iter().all(|listener| {
                !is_cut(&listener.socket.peer()) && stage.shard.wire(listener.key).is_some()
            });
            if are_all_here {
                let counted = stage.hub.state.engine.counts.of(crate::counts::Driver::Shard).deliveries.total();
                let peers = || stage.listeners.iter().map(|listener| listener.socket.peer());
                let events: usize = peers().map(|peer| received(&peer.received).numbers.len()).sum();
                let bytes: usize = peers().map(|peer| peer.received.len()).sum();
                prop_assert_eq!((counted.events, counted.bytes), (events as u64, bytes as u64));
            }
            // What has been sent waits nowhere.
            prop_assert_eq!(stage.shard.pending_bytes, 0);
            Ok(())
        })?;
    }

    /// When all sockets are stuffed and little may wait for them, pages are given back and
    /// connections cut, and the others receive everything.
    #[test]
    fn a_small_budget_loses_nobody_an_event(acts in prop::collection::vec(act_or_edit(), 0..80), budget in 0..3_000_usize) {
        in_paused_time(async {
            let mut stage = play(acts, 1_500, budget).await;
            for who in 0..stage.listeners.len() {
                stage.make_room(who, 1 << 30);
            }
            stage.settle().await;
            for listener in &stage.listeners {
                let received = received(&listener.socket.peer().received);
                let (numbers, expected) = (stage.stored(listener, &received), stage.expected(listener));
                prop_assert!(expected.starts_with(&numbers), "{numbers:?} of {expected:?}");
                if stage.shard.wire(listener.key).is_some() {
                    prop_assert_eq!(&numbers, &expected);
                }
            }
            Ok(())
        })?;
    }

    /// Wherever a client stops, also after an ephemeral event.
    #[test]
    fn a_client_that_resumes_receives_exactly_the_stored_events_after_its_last(
        acts in prop::collection::vec(act(), 0..60),
        feed_bytes_max in prop::sample::select(vec![1_500, 1 << 20]),
    ) {
        in_paused_time(async {
            let mut stage = play(acts, feed_bytes_max, usize::MAX).await;
            // So that no ephemeral event is on its way to those who come now.
            stage.write().await;
            for who in 0..stage.listeners.len() {
                let listener = &stage.listeners[who];
                let before = received(&listener.socket.peer().received);
                let Some(last) = before.numbers.last() else { continue };
                let mut left = stage.expected(listener);
                left.retain(|number| number > last);
                let (filter, now) = (listener.filter.clone(), stage.published_count());
                let ask = Subscribe::from(filter).since(Since::Id(before.last_id));
                let resumed = stage.open(ask, now, 1 << 30).await;
                stage.settle().await;
                prop_assert_eq!(received(&stage.listeners[resumed].socket.peer().received).numbers, left);
            }
            Ok(())
        })?;
    }
}

#[test]
fn ephemeral_events_leave_an_idle_subscriber_without_a_buffer() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        let before = stage.listeners[who].socket.peer().writes;
        stage.publish(&[0], false, 10).await;
        for _ in 0..100 {
            stage.publish_ephemeral(&[0], false, 10).await;
        }
        stage.settle().await;
        let peer = stage.listeners[who].socket.peer();
        assert_eq!(received(&peer.received).numbers, (0..=100).collect::<Vec<_>>());
        assert_eq!(peer.writes - before, 1, "straight from the feed");
        assert!(stage.shard.subscribers.iter().all(|(_, subscriber)| subscriber.pending.is_none()));
    });
}

/// A feed that is full of them would otherwise send slow readers to the log for nothing.
#[test]
fn a_reader_that_missed_ephemeral_events_only_reads_no_history() {
    in_paused_time(async {
        let mut stage = Stage::new(|settings| settings.feed_bytes_max = 200_000).await;
        let who = stage.subscribe(&[0, 1], &[], false, 10_000).await;
        stage.settle().await;
        for _ in 0..200 {
            stage.publish(&[2], false, 10).await;
            stage.publish_ephemeral(&[0], false, 3_000).await;
            stage.write().await;
            stage.slice();
        }
        stage.make_room(who, 1 << 30);
        stage.write().await;
        while stage.slice() {}
        assert!(stage.shard.requests.is_empty());
        let numbers = received(&stage.listeners[who].socket.peer().received).numbers;
        assert!((2..200).contains(&numbers.len()), "{numbers:?}");
        assert_eq!(numbers.last(), Some(&399), "the newest one is there");
    });
}

#[test]
fn everything_pending_goes_out_in_one_write() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        let before = stage.listeners[who].socket.peer().writes;
        for _ in 0..100 {
            stage.publish(&[0], false, 100).await;
        }
        stage.settle().await;
        let peer = stage.listeners[who].socket.peer();
        assert_eq!(received(&peer.received).numbers.len(), 100);
        assert_eq!(peer.writes - before, 1);
    });
}

#[test]
fn what_is_published_during_a_pass_is_sent_along_to_later_members() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        for _ in 0..200 {
            stage.subscribe(&[0], &[], false, 1 << 20).await;
        }
        stage.settle().await;
        let writes = |stage: &Stage| -> usize {
            stage.listeners.iter().map(|listener| listener.socket.peer().writes).sum()
        };
        let before = writes(&stage);
        stage.publish(&[0], false, 10).await;
        stage.write().await;
        assert!(stage.slice(), "a slice is smaller than 200 sends");
        let first = writes(&stage) - before;
        assert!(first <= SLICE_SENDS, "{first}");
        stage.publish(&[0], false, 10).await;
        stage.settle().await;
        assert_eq!(writes(&stage) - before, 200 + first);
    });
}

/// A snapshot that is kept would make the writer begin another piece.
#[test]
fn between_two_slices_a_shard_keeps_no_snapshot() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        stage.subscribe(&[0], &[], false, 1 << 20).await;
        for _ in 0..2 {
            stage.publish(&[0], false, 10).await;
            stage.settle().await;
        }
        let memory_bytes = |stage: &Stage| stage.hub.state.engine.feeds.size().1;
        let before = memory_bytes(&stage);
        stage.publish(&[0], false, 10).await;
        stage.write().await;
        assert_eq!(memory_bytes(&stage), before);
    });
}

#[test]
fn a_stream_that_only_had_events_for_others_ends_after_the_last_of_them() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        for _ in 0..3 {
            stage.publish(&[0], true, 10).await;
            stage.settle().await;
        }
        let newest = stage.hub.bounds().await.expect("memory is there").newest_cursor();
        stage.hub.close();
        stage.sweep();
        stage.settle().await;
        let received = received(&stage.listeners[who].socket.peer().received);
        assert_eq!((received.numbers, received.notice_ids), (vec![], vec![newest.to_string()]));
    });
}

/// Its client resumes after that id: an earlier one repeats events, and a later one loses some.
#[test]
fn a_stream_that_ends_within_a_page_names_the_last_event_that_was_sent() {
    in_paused_time(async {
        let mut ends_after = Vec::new();
        // Wherever the page is cut, between two events as well.
        for room in 50..250 {
            let mut stage = Stage::new(|_| {}).await;
            for _ in 0..5 {
                stage.publish(&[0], false, 20).await;
            }
            let who = stage.subscribe(&[0], &[], true, room).await;
            stage.settle().await;
            stage.hub.close();
            stage.sweep();
            stage.make_room(who, 1 << 20);
            stage.settle().await;
            let received = received(&stage.listeners[who].socket.peer().received);
            assert!(received.has_ended);
            if !received.numbers.is_empty() {
                assert_eq!(received.notice_ids, [received.last_id], "{room}");
            }
            ends_after.push(received.numbers.len());
        }
        assert!(ends_after.contains(&1) && ends_after.contains(&2), "{ends_after:?}");
    });
}

#[test]
fn an_expiry_is_announced_within_a_page_with_the_last_event_that_was_sent() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        for _ in 0..20 {
            stage.publish(&[0], false, 100).await;
        }
        let ask = Subscribe::new(stage.matchers(&[0])).since(Since::Earliest);
        let who = stage.open(ask.expires_in(Duration::from_secs(120)), 0, 1_000).await;
        stage.settle().await;
        let due = stage.shard.next_end().expect("it expires");
        advance(due - Instant::now().into_std()).await;
        stage.make_room(who, 1 << 20);
        stage.settle().await;
        let peer = stage.listeners[who].socket.peer();
        let all = received(&peer.received);
        assert_eq!(all.numbers, (0..20).collect::<Vec<_>>());
        let notice =
            peer.received.windows(14).position(|bytes| bytes == b"event: tidings").expect("a notice");
        let before = received(&peer.received[..notice]);
        assert!((1..19).contains(&before.numbers.len()), "{before:?}");
        assert_eq!(all.notice_ids, [before.last_id]);
    });
}

/// Otherwise a client that resumes after the end would receive the same gap again.
#[test]
fn a_stream_that_ends_after_a_gap_ends_behind_it() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        stage.publish(&[0], false, 10).await;
        let first = stage.hub.bounds().await.expect("memory is there").newest_cursor().to_string();
        for _ in 0..2 {
            stage.publish(&[0], false, 10).await;
        }
        stage.write().await;
        let deleting = stage.hub.delete(TOPICS[0]);
        assert_eq!(deleting.await.expect("memory is there"), 3);
        // On the page that follows the notice, and not sent any more.
        stage.publish(&[0], false, 10).await;
        let ask = Subscribe::new(stage.matchers(&[0])).since(Since::Id(first.clone()));
        let who = stage.open(ask, 0, 1 << 20).await;
        stage.hub.close();
        stage.settle().await;
        let received = received(&stage.listeners[who].socket.peer().received);
        assert!(received.notices[0].contains(r#""reason":"expired""#), "{received:?}");
        assert_eq!((received.numbers.len(), received.notice_ids.len()), (0, 2));
        assert_ne!(received.notice_ids[0], first);
        assert_eq!(received.notice_ids[0], received.notice_ids[1]);
    });
}

/// Nothing of the next write fits, and none of what it was given may be skipped.
#[test]
fn a_socket_that_an_event_fills_to_the_last_byte_loses_none_after_it() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let who = stage.subscribe(&[0, 1], &[], false, 1 << 20).await;
        stage.settle().await;
        let begin = stage.listeners[who].socket.peer().received.len();
        stage.publish(&[0], false, 10).await;
        stage.settle().await;
        let event_bytes = stage.listeners[who].socket.peer().received.len() - begin;
        stage.listeners[who].socket.peer().room = event_bytes;
        for topic in [1, 0] {
            stage.publish(&[topic], false, 10).await;
            stage.settle().await;
        }
        assert!(stage.listeners[who].socket.peer().is_awaited);
        stage.make_room(who, 1 << 20);
        stage.settle().await;
        assert_eq!(received(&stage.listeners[who].socket.peer().received).numbers, [0, 1, 2]);
    });
}

/// As `curl` does that is given a request and no further input.
#[test]
fn a_client_that_ends_its_side_still_gets_the_history_it_waits_for() {
    in_paused_time(async {
        let limits = |settings: &mut HubSettings| {
            (settings.feed_bytes_max, settings.replay_page_bytes) = (1_000, 1_000);
        };
        let mut stage = Stage::new(limits).await;
        for _ in 0..50 {
            stage.publish(&[0], false, 100).await;
        }
        stage.settle().await;
        let who = stage.subscribe(&[0], &[], true, 1 << 20).await;
        while stage.slice() {}
        assert_eq!(stage.shard.requests.len(), 1, "it waits for a page of history");
        stage.listeners[who].socket.peer().has_hung_up = true;
        stage.shard.readable(stage.listeners[who].key, &stage.hub.state.engine);
        stage.settle().await;
        let received = received(&stage.listeners[who].socket.peer().received);
        assert_eq!(received.numbers, (0..50).collect::<Vec<_>>());
        assert!(received.has_ended);
    });
}

#[test]
fn a_silent_subscriber_receives_a_heartbeat_and_a_stuffed_one_is_cut() {
    in_paused_time(async {
        let mut stage = Stage::new(|settings| settings.heartbeat = Duration::from_secs(15)).await;
        let silent = stage.subscribe(&[0], &[], false, 1 << 20).await;
        let stuffed = stage.subscribe(&[1], &[], false, 200).await;
        stage.settle().await;
        stage.publish(&[1], false, 300).await;
        stage.settle().await;
        let before = stage.listeners[silent].socket.peer().received.len();
        for _ in 0..44 {
            advance(Duration::from_secs(1)).await;
            stage.sweep();
            stage.settle().await;
        }
        let heartbeats = stage.listeners[silent].socket.peer().received[before..].to_vec();
        assert_eq!(heartbeats, b"5\r\n: hb\n\r\n".repeat(heartbeats.len() / 10));
        assert!((2..=4).contains(&(heartbeats.len() / 10)), "{}", heartbeats.len());
        assert!(stage.shard.wire(stage.listeners[stuffed].key).is_some(), "it may be slow for a while");
        advance(Duration::from_secs(2)).await;
        stage.sweep();
        assert!(stage.shard.wire(stage.listeners[stuffed].key).is_none());
        assert!(stage.shard.wire(stage.listeners[silent].key).is_some());
    });
}

#[test]
fn a_reader_that_stalls_keeps_its_place_and_gets_the_rest_when_it_goes_on() {
    in_paused_time(async {
        let mut stage = Stage::new(|settings| settings.feed_bytes_max = 10_000).await;
        let who = stage.subscribe(&[0], &[], false, 500).await;
        for _ in 0..500 {
            stage.publish(&[0], false, 100).await;
            stage.settle().await;
        }
        assert!(received(&stage.listeners[who].socket.peer().received).numbers.len() < 5);
        stage.make_room(who, 1 << 20);
        stage.settle().await;
        let received = received(&stage.listeners[who].socket.peer().received);
        assert_eq!(received.numbers, (0..500).collect::<Vec<_>>());
    });
}

#[test]
fn a_stream_ends_with_a_notice_whose_id_is_the_last_event_that_was_sent() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let chat = stage.matchers(&[0]);
        let ask = Subscribe::new(chat).expires_in(Duration::from_secs(5));
        let who = stage.open(ask, 0, 1 << 20).await;
        stage.publish(&[0], false, 10).await;
        stage.settle().await;
        advance(Duration::from_secs(5)).await;
        // Published before the sweep finds the end, and too late all the same.
        stage.publish(&[0], false, 10).await;
        stage.settle().await;
        let peer = stage.listeners[who].socket.peer();
        let received = received(&peer.received);
        assert_eq!(received.numbers, [0]);
        assert!(received.has_ended && peer.was_shut_down);
        assert_eq!(received.notices, [r#"{"kind":"expired"}"#]);
        let text = String::from_utf8_lossy(&peer.received);
        assert_eq!(text.matches(&format!("id: {}\n", received.last_id)).count(), 2, "{text}");
    });
}

#[test]
fn an_expiry_is_announced_between_events_and_nothing_is_lost_or_repeated() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let ask = |stage: &Stage| Subscribe::new(stage.matchers(&[0])).expires_in(Duration::from_secs(120));
        let ready = stage.open(ask(&stage), 0, 1 << 20).await;
        let full = stage.open(ask(&stage), 0, 1_000).await;
        // Its place in the order of ends is that of the announcement, and then that of the end.
        let gone = stage.open(ask(&stage), 0, 1 << 20).await;
        let endless = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.publish(&[0], false, 10).await;
        stage.settle().await;
        stage.publish(&[0], false, 2_000).await;
        stage.settle().await;
        let due = stage.shard.next_end().expect("three have an end");
        advance(due - Instant::now().into_std()).await;
        stage.settle().await;
        stage.publish(&[0], false, 10).await;
        stage.settle().await;
        let received_by = |stage: &Stage, who: usize| received(&stage.listeners[who].socket.peer().received);
        let text = |stage: &Stage, who: usize| {
            String::from_utf8_lossy(&stage.listeners[who].socket.peer().received).into_owned()
        };
        let announced = received_by(&stage, ready);
        assert_eq!(announced.numbers, [0, 1, 2]);
        assert_eq!(announced.notices, [r#"{"kind":"expiring","remaining_secs":60}"#]);
        // The id of the last event before it: a client resumes behind that event and not behind the
        // next.
        let shown = text(&stage, ready);
        let last_before =
            shown.split("event: tidings").next().and_then(|before| before.rsplit("id: ").next());
        let id = last_before.and_then(|rest| rest.lines().next()).expect("an event before it");
        assert_eq!(shown.matches(&format!("id: {id}\n")).count(), 2, "{shown}");
        assert!(!announced.has_ended);

        // One whose socket is full is notified when it accepts bytes again.
        assert_eq!(received_by(&stage, full).notices, [""; 0]);
        advance(Duration::from_secs(20)).await;
        stage.make_room(full, 1 << 20);
        stage.settle().await;
        let late = received_by(&stage, full);
        assert_eq!(late.numbers, [0, 1, 2]);
        assert_eq!(late.notices, [r#"{"kind":"expiring","remaining_secs":40}"#]);

        let key = stage.listeners[gone].key;
        stage.shard.drop_subscriber(key, CloseReason::Client, &stage.hub.state.engine);
        assert_eq!(stage.shard.ends.len(), 2);
        advance(Duration::from_secs(40)).await;
        stage.settle().await;
        for who in [ready, full] {
            let ended = received_by(&stage, who);
            assert_eq!(ended.notices.last().map(String::as_str), Some(r#"{"kind":"expired"}"#));
            assert!(ended.has_ended && ended.notices.len() == 2, "{:?}", ended.notices);
        }
        assert!(stage.shard.ends.is_empty());
        assert_eq!(received_by(&stage, endless).notices, [""; 0]);
    });
}

#[test]
fn a_partial_event_is_finished_before_the_closing_frames() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 150).await;
        stage.settle().await;
        stage.publish(&[0], false, 500).await;
        stage.settle().await;
        stage.hub.close();
        stage.sweep();
        stage.settle().await;
        assert!(!received(&stage.listeners[who].socket.peer().received).has_ended);
        stage.make_room(who, 1 << 20);
        stage.settle().await;
        let received = received(&stage.listeners[who].socket.peer().received);
        assert_eq!(received.numbers, [0]);
        assert!(received.has_ended);
        assert_eq!(received.notice_ids, [received.last_id]);
    });
}

/// The client has ended its side, and its socket is full in the middle of an encrypted record.
#[test]
fn the_end_of_an_encrypted_stream_waits_for_the_record_before_it() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        stage.record_bytes = 1_000;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        stage.listeners[who].socket.peer().room = 10;
        stage.listeners[who].socket.peer().has_hung_up = true;
        let key = stage.listeners[who].key;
        stage.shard.readable(key, &stage.hub.state.engine);
        stage.publish(&[0], false, 100).await;
        // A write to the full socket would fail this test.
        stage.settle().await;
        assert_eq!(received(&stage.listeners[who].socket.peer().received).numbers, [0; 0]);
        stage.make_room(who, 1 << 20);
        stage.settle().await;
        let received = received(&stage.listeners[who].socket.peer().received);
        assert!(received.has_ended, "{received:?}");
    });
}

#[test]
fn a_client_that_sends_more_than_a_few_kib_is_cut() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        let key = stage.listeners[who].key;
        for (bytes, is_here) in [(INPUT_BYTES_MAX - 1, true), (2, false)] {
            stage.listeners[who].socket.peer().input = vec![b'x'; bytes];
            stage.shard.readable(key, &stage.hub.state.engine);
            assert_eq!(stage.shard.wire(key).is_some(), is_here);
        }
        assert_eq!(stage.hub.stats().subscribers, 0);
        assert_eq!(stage.hub.stats().feeds, 0);
    });
}

#[test]
fn what_a_client_has_sent_before_its_stream_began_counts() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        stage.early_bytes = INPUT_BYTES_MAX - 1;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        let key = stage.listeners[who].key;
        for is_here in [true, false] {
            stage.listeners[who].socket.peer().input = vec![b'x'];
            stage.shard.readable(key, &stage.hub.state.engine);
            assert_eq!(stage.shard.wire(key).is_some(), is_here);
        }
    });
}

#[test]
fn an_idle_subscriber_is_small() {
    let bytes = size_of::<Subscriber<super::socket::Socket>>();
    assert!(bytes <= 248, "{bytes}");
}

#[test]
fn a_hub_that_hands_over_ends_its_sockets_one_after_the_other() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        for _ in 0..100 {
            stage.subscribe(&[0], &[], false, 1 << 20).await;
        }
        let frozen = stage.subscribe(&[0], &[], false, 0).await;
        stage.settle().await;
        stage.hub.close_over(Duration::from_secs(10));
        let mut left = Vec::new();
        for _ in 0..13 {
            stage.sweep();
            stage.settle().await;
            left.push(stage.hub.stats().subscribers);
            advance(Duration::from_secs(1)).await;
        }
        let steps: Vec<_> = left.windows(2).take(10).map(|pair| pair[0] - pair[1]).collect();
        assert!(steps.iter().all(|step| (5..=15).contains(step)), "{left:?}");
        assert_eq!(left[12], 0, "a socket that takes nothing is not waited for: {left:?}");
        for (who, listener) in stage.listeners.iter().enumerate() {
            assert!(who == frozen || received(&listener.socket.peer().received).has_ended);
        }
    });
}
