//! Heartbeats, and how streams end.

use std::{sync::atomic::Ordering, time::Duration};

use tidings::{Error, Hub, HubSettings, MemoryLimits, MemoryLog, NewEvent, Since};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::stage::{
    Listener, Received, StageLog, hub, hub_on, numbers, publish, publish_numbers, settle, since_id, to,
};

const HEARTBEAT: Duration = Duration::from_secs(20);

async fn hub_with(change: impl FnOnce(&mut HubSettings)) -> Hub {
    hub_on(&StageLog::new(None), change).await
}

/// Skips the preface of a stream.
async fn past_the_preface(mut listener: Listener) -> Listener {
    assert!(matches!(listener.next_item().await, Received::Comment(_)));
    assert!(matches!(listener.next_item().await, Received::Retry(_)));
    listener
}

async fn open(hub: &Hub) -> Listener {
    past_the_preface(Listener::open(hub, to(hub, &["chat"])).await).await
}

#[tokio::test(start_paused = true)]
async fn an_idle_stream_receives_a_comment_within_every_heartbeat() {
    let hub = hub_with(|settings| settings.heartbeat = HEARTBEAT).await;
    let mut listener = open(&hub).await;
    let mut last = Instant::now();
    for _ in 0..5 {
        assert!(matches!(listener.next_item().await, Received::Comment(_)));
        let waited = last.elapsed();
        assert!(
            waited >= HEARTBEAT.mul_f64(0.75) && waited <= HEARTBEAT + Duration::from_millis(10),
            "{waited:?}"
        );
        last = Instant::now();
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_stream_receives_no_comment() {
    let hub = hub_with(|settings| settings.heartbeat = HEARTBEAT).await;
    let mut listener = open(&hub).await;
    let publishing = tokio::spawn(async move {
        for number in 0..50 {
            sleep(HEARTBEAT.mul_f64(0.7)).await;
            publish(&hub, "chat", number.to_string()).await;
        }
    });
    for _ in 0..50 {
        assert!(matches!(listener.next_item().await, Received::Event { .. }));
    }
    publishing.await.expect("no thread panicked");
}

#[tokio::test(start_paused = true)]
async fn history_is_a_sign_of_life_as_live_events_are() {
    let hub = hub_with(|settings| settings.heartbeat = HEARTBEAT).await;
    publish_numbers(&hub, "chat", 1, 3).await;
    let ask = to(&hub, &["chat"]).since(Since::Earliest);
    let mut listener = past_the_preface(Listener::open(&hub, ask).await).await;
    for _ in 0..3 {
        sleep(HEARTBEAT.mul_f64(0.7)).await;
        assert!(matches!(listener.next_item().await, Received::Event { .. }));
    }
    let last = Instant::now();
    assert!(matches!(listener.next_item().await, Received::Comment(_)));
    assert!(last.elapsed() >= HEARTBEAT.mul_f64(0.75), "{:?}", last.elapsed());
}

#[tokio::test(start_paused = true)]
async fn heartbeats_of_streams_that_began_together_are_spread() {
    let hub = hub_with(|settings| settings.heartbeat = HEARTBEAT).await;
    let mut times = std::collections::BTreeSet::new();
    let began = Instant::now();
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(open(&hub).await);
    }
    let mut waiting = tokio::task::JoinSet::new();
    for mut stream in streams {
        waiting.spawn(async move {
            stream.next_item().await;
            began.elapsed().as_millis()
        });
    }
    while let Some(time) = waiting.join_next().await {
        times.insert(time.expect("no thread panicked"));
    }
    assert!(times.len() > 10, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_waits_for_history_is_kept_alive() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |settings| (settings.heartbeat, settings.feed_bytes_max) = (HEARTBEAT, 0)).await;
    let mut listener = open(&hub).await;
    log.reads_run.send_replace(false);
    publish(&hub, "chat", "1").await;
    assert!(matches!(listener.next_item().await, Received::Comment(_)));
    log.reads_run.send_replace(true);
    assert_eq!(listener.data(1).await, ["1"]);
}

#[tokio::test(start_paused = true)]
async fn history_is_sent_once_the_log_is_back() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |settings| settings.feed_bytes_max = 0).await;
    let mut listener = open(&hub).await;
    publish(&hub, "chat", "1").await;
    settle().await;
    log.far.go_down();
    let nothing = timeout(Duration::from_secs(5), listener.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    log.far.come_back();
    assert_eq!(listener.data(1).await, ["1"]);
}

#[tokio::test(start_paused = true)]
async fn no_heartbeat_means_never() {
    let hub = hub_with(|settings| settings.heartbeat = Duration::ZERO).await;
    let mut listener = open(&hub).await;
    let silence = timeout(Duration::from_secs(1_000_000), listener.next_item()).await;
    assert!(silence.is_err(), "{silence:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_a_notice_when_its_credential_expires() {
    let hub = hub_with(|settings| settings.retry_millis = 2_000).await;
    let began = Instant::now();
    let ask = to(&hub, &["chat"]).expires_in(Duration::from_secs(600));
    let mut listener = past_the_preface(Listener::open(&hub, ask).await).await;
    let ids = publish_numbers(&hub, "chat", 1, 2).await;
    assert_eq!(listener.data(2).await, numbers(1, 2));
    // A minute before, so that the client can renew its credential.
    let announced = listener.next().await;
    assert_eq!(announced.notice("expiring")["remaining_secs"], 60);
    assert_eq!(announced.id(), ids[1].as_str());
    let after = began.elapsed();
    assert!((Duration::from_secs(539)..Duration::from_secs(540)).contains(&after), "{after:?}");
    let more = publish_numbers(&hub, "chat", 3, 3).await;
    assert_eq!(listener.data(1).await, numbers(3, 3));
    let retry = loop {
        match listener.next_item().await {
            Received::Comment(_) => {}
            Received::Retry(millis) => break millis,
            other => panic!("{other:?}"),
        }
    };
    assert!((1_000..=3_000).contains(&retry));
    let end = listener.next().await;
    end.notice("expired");
    assert_eq!(end.id(), more[0].as_str());
    assert_eq!(listener.next().await, Received::End);
    assert_eq!(listener.next().await, Received::End);
    // By its expiry at the latest, and little earlier.
    let lived = began.elapsed();
    assert!((Duration::from_secs(599)..Duration::from_secs(600)).contains(&lived), "{lived:?}");
}

#[tokio::test(start_paused = true)]
async fn an_expiry_behind_the_maximum_age_is_not_announced() {
    let hub = hub_with(|settings| settings.lifetime_max = Some(Duration::from_secs(100))).await;
    let ask = to(&hub, &["chat"]).expires_in(Duration::from_secs(120));
    let mut listener = Listener::open(&hub, ask).await;
    assert_eq!(listener.next().await.notice("reconnect")["reason"], "lifetime");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_delivered_after_the_credential_has_expired() {
    let hub = hub().await;
    publish_numbers(&hub, "chat", 1, 5).await;
    let ask = |since| to(&hub, &["chat"]).since(since).expires_in(Duration::from_secs(60));
    let mut live = Listener::open(&hub, ask(Since::Now)).await;
    let mut replaying = Listener::open(&hub, ask(Since::Earliest)).await;
    publish_numbers(&hub, "chat", 6, 9).await;
    assert_eq!(live.data(1).await, ["6"]);
    assert_eq!(replaying.data(2).await, ["1", "2"]);
    sleep(Duration::from_secs(60)).await;
    for (mut listener, left) in [(live, numbers(7, 9)), (replaying, numbers(3, 9))] {
        let end = listener.next().await;
        end.notice("expired");
        assert_eq!(listener.next().await, Received::End);
        // The id of the closing frames is the position that was reached, so that a client with a
        // new credential resumes there.
        let again = to(&hub, &["chat"]).since(since_id(end.id()));
        assert_eq!(Listener::open(&hub, again).await.data(left.len()).await, left);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_a_notice_at_its_maximum_age() {
    let age = Duration::from_secs(1_000);
    let hub = hub_with(|settings| settings.lifetime_max = Some(age)).await;
    let mut listener = open(&hub).await;
    let began = Instant::now();
    assert_eq!(listener.next().await.notice("reconnect")["reason"], "lifetime");
    assert!(began.elapsed() >= age.mul_f64(0.74) && began.elapsed() <= age, "{:?}", began.elapsed());
    assert_eq!(listener.next().await, Received::End);
}

#[tokio::test(start_paused = true)]
async fn the_shorter_of_the_maximum_ages_of_a_stream_and_of_the_hub_counts() {
    let hub = hub_with(|settings| settings.lifetime_max = Some(Duration::from_secs(1_000))).await;
    for (own, shortest, longest) in [(100, 75, 100), (5_000, 750, 1_000), (u64::MAX, 750, 1_000)] {
        let ask = to(&hub, &["chat"]).lifetime_max(Duration::from_secs(own));
        let mut listener = Listener::open(&hub, ask).await;
        let began = Instant::now();
        assert_eq!(listener.next().await.notice("reconnect")["reason"], "lifetime");
        assert_eq!(listener.next().await, Received::End);
        assert!((shortest..=longest).contains(&began.elapsed().as_secs()), "{own}: {:?}", began.elapsed());
    }
    let endless = self::hub().await;
    let ask = to(&endless, &["chat"]).lifetime_max(Duration::MAX);
    let mut listener = Listener::open(&endless, ask).await;
    publish_numbers(&endless, "chat", 1, 1).await;
    assert_eq!(listener.data(1).await, ["1"]);
}

/// Otherwise all streams of a deployment would come back in the same second, each time.
#[tokio::test(start_paused = true)]
async fn streams_that_began_together_end_spread_and_their_clients_miss_nothing() {
    const STREAMS: usize = 200;
    let age = Duration::from_secs(1_000);
    let hub = hub_with(|settings| settings.lifetime_max = Some(age)).await;
    let began = Instant::now();
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..STREAMS {
        let mut listener = open(&hub).await;
        let hub = hub.clone();
        streams.spawn(async move {
            assert_eq!(listener.data(1).await, ["1"]);
            let end = listener.next().await;
            end.notice("reconnect");
            let ended_after = began.elapsed();
            assert_eq!(listener.next().await, Received::End);
            // Not all of them are back when the next event is published.
            sleep(Duration::from_secs(3)).await;
            let again = to(&hub, &["chat"]).since(since_id(end.id()));
            assert_eq!(Listener::open(&hub, again).await.data(1).await, ["2"]);
            ended_after.as_secs()
        });
    }
    publish_numbers(&hub, "chat", 1, 1).await;
    sleep(age).await;
    publish_numbers(&hub, "chat", 2, 2).await;
    let ended = streams.join_all().await;
    assert!(ended.iter().all(|secs| (750..=1_000).contains(secs)), "{ended:?}");
    for second in 750..=1_000 {
        let together = ended.iter().filter(|secs| **secs == second).count();
        assert!(together < STREAMS / 10, "{together} streams end in second {second}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_ended_by_its_name_ends_with_a_notice_and_alone() {
    let hub = hub().await;
    let mut streams = [open(&hub).await, open(&hub).await, open(&hub).await];
    let ids = publish_numbers(&hub, "chat", 1, 1).await;
    assert_eq!(streams[0].data(1).await, ["1"]);
    // One waits, one has not been polled since, one is somebody else's.
    let names = [0, 1].map(|index: usize| streams[index].subscription.connection());
    let [mut waiting, mut unread, mut other] = streams;
    let waiting = tokio::spawn(async move { (waiting.next().await, waiting.next().await) });
    settle().await;
    hub.end(names);
    let (end, after) = waiting.await.expect("no thread panicked");
    end.notice("revoked");
    assert_eq!((end.id(), after), (ids[0].as_str(), Received::End));
    unread.next().await.notice("revoked");
    assert_eq!(unread.next().await, Received::End);
    assert_eq!(other.data(1).await, ["1"]);
    other.receives_nothing_more().await;
}

/// A client that reads a little now and then decides when its stream is polled.
#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_ended_delivers_nothing_more_however_late_it_is_polled() {
    let hub = hub().await;
    let mut unread = open(&hub).await;
    hub.end([unread.subscription.connection()]);
    sleep(Duration::from_secs(3_600)).await;
    // Others are ended meanwhile.
    hub.end([open(&hub).await.subscription.connection()]);
    publish_numbers(&hub, "chat", 1, 1).await;
    unread.next().await.notice("revoked");
    assert_eq!(unread.next().await, Received::End);
}

#[tokio::test(start_paused = true)]
async fn closing_ends_every_stream_with_a_notice_and_refuses_to_publish() {
    let hub = hub().await;
    let mut waiting = open(&hub).await;
    let waiting = tokio::spawn(async move { (waiting.next().await, waiting.next().await) });
    settle().await;
    assert!(hub.health().await.is_ok());
    hub.close();
    let (end, after) = waiting.await.expect("no thread panicked");
    assert_eq!(end.notice("reconnect")["reason"], "shutdown");
    assert_eq!(after, Received::End);
    let refused = hub.publish(tidings::NewEvent::new("chat", "x")).await;
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    assert!(hub.health().await.is_err());
    let mut late = open(&hub).await;
    assert_eq!(late.next().await.notice("reconnect")["reason"], "shutdown");
}

/// Listens until the hub ends the stream; returns when that was, the events that were received, and
/// the id of the closing frames.
async fn listen_to_the_end(mut stream: Listener, began: Instant) -> (Duration, Vec<String>, String) {
    let mut received = Vec::new();
    loop {
        match stream.next().await {
            Received::Event { data, .. } => received.push(data),
            end => {
                assert_eq!(end.notice("reconnect")["reason"], "shutdown");
                assert_eq!(stream.next().await, Received::End);
                return (began.elapsed(), received, end.id().to_owned());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handover_ends_streams_one_by_one_and_the_new_hub_has_the_rest() {
    const OVER: Duration = Duration::from_secs(10);
    let log = MemoryLog::new(MemoryLimits::default());
    let hub = Hub::builder().log(log.clone()).start().await.expect("the memory log is always available");
    let new_hub = Hub::builder().log(log).start().await.expect("the memory log is always available");
    let mut streams = tokio::task::JoinSet::new();
    let mut opened = Vec::new();
    for _ in 0..100 {
        opened.push(open(&hub).await);
    }
    let began = Instant::now();
    for stream in opened {
        streams.spawn(listen_to_the_end(stream, began));
    }
    hub.close_over(OVER);
    for number in 1..=9 {
        sleep(Duration::from_secs(1)).await;
        assert!(hub.health().await.is_ok());
        publish(&hub, "chat", number.to_string()).await;
    }
    let mut ended = Vec::new();
    while let Some(stream) = streams.join_next().await {
        let (at, mut received, place) = stream.expect("no thread panicked");
        assert!(at <= OVER + Duration::from_millis(10), "{at:?}");
        let ask = to(&new_hub, &["chat"]).since(since_id(&place));
        received.extend(Listener::open(&new_hub, ask).await.data(9 - received.len()).await);
        assert_eq!(received, numbers(1, 9));
        ended.push(at.as_secs());
    }
    for second in 0..10 {
        let count = ended.iter().filter(|at| **at == second).count();
        assert!((1..=30).contains(&count), "{count} of 100 ended in second {second}");
    }
    let mut late = open(&hub).await;
    late.next().await.notice("reconnect");
    sleep_until(began + OVER).await;
    let refused = hub.publish(tidings::NewEvent::new("chat", "x")).await;
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    assert!(hub.health().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_hands_over_can_still_be_closed_at_once() {
    let hub = hub().await;
    let mut stream = open(&hub).await;
    hub.close_over(Duration::MAX);
    publish(&hub, "chat", "1").await;
    assert_eq!(stream.data(1).await, ["1"]);
    let waiting = tokio::spawn(async move { stream.next().await });
    settle().await;
    hub.close();
    assert_eq!(waiting.await.expect("no thread panicked").notice("reconnect")["reason"], "shutdown");
}

#[tokio::test(start_paused = true)]
async fn the_largest_durations_overflow_no_clock() {
    let endless = Duration::MAX;
    let hub = hub_with(|settings| {
        (settings.heartbeat, settings.lifetime_max, settings.retry_millis) =
            (Duration::ZERO, Some(endless), u64::MAX);
    })
    .await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"]).expires_in(endless)).await;
    publish(&hub, "chat", "1").await;
    assert_eq!(listener.data(1).await, ["1"]);
    assert!(timeout(Duration::from_secs(1_000), listener.next_item()).await.is_err());
}

/// The one task that delivers has ended, and publishers must not wait for it.
#[tokio::test(start_paused = true)]
async fn a_panic_in_the_fan_out_closes_the_hub_and_blocks_no_publisher() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |settings| settings.fan_out_lag_bytes_max = Some(0)).await;
    let mut listener = open(&hub).await;
    log.tail_runs.send_replace(false);
    publish(&hub, "chat", "1").await;
    let mut waiting = Box::pin(hub.publish(NewEvent::new("chat", "2")));
    assert!(timeout(Duration::from_secs(1), &mut waiting).await.is_err(), "it waits for the fan-out");
    assert!(hub.health().await.is_ok());
    log.tail_panics.store(true, Ordering::SeqCst);
    log.tail_runs.send_replace(true);
    let refused = timeout(Duration::from_secs(1), waiting).await.expect("released").expect_err("refused");
    assert!(matches!(&refused, Error::Failed(why) if why.contains("the fan-out has ended")), "{refused}");
    let retry = listener.next_item().await;
    assert!(matches!(retry, Received::Retry(_)), "{retry:?}");
    assert_eq!(listener.next().await.notice("reconnect")["reason"], "shutdown");
    assert_eq!(listener.next().await, Received::End);
    let failure = hub.failure().expect("it has failed");
    assert!(failure.contains("the tail was to panic"), "{failure}");
    assert!(hub.health().await.expect_err("not ready").to_string().contains(failure));
    assert!(hub.publish(NewEvent::new("chat", "3")).await.is_err());
    timeout(Duration::from_secs(5), hub.closed()).await.expect("it is closed");
}

/// The one task that appends has ended. Its publishers learn that the outcome is unknown.
#[tokio::test(start_paused = true)]
async fn a_panic_while_appending_closes_the_hub_and_leaves_the_outcome_unknown() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    log.appends_panic.store(true, Ordering::SeqCst);
    let unknown = hub.publish(NewEvent::new("chat", "1")).await;
    assert!(matches!(unknown, Err(Error::OutcomeUnknown(_))), "{unknown:?}");
    let failure = hub.failure().expect("it has failed");
    assert!(failure.contains("the append was to panic"), "{failure}");
    let refused = hub.publish(NewEvent::new("chat", "2")).await;
    assert!(matches!(&refused, Err(Error::Failed(why)) if why == failure), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hub_whose_log_ends_fails_and_one_that_is_closed_does_not() {
    for is_closed_first in [false, true] {
        let log = StageLog::new(None);
        let hub = hub_on(&log, |_| {}).await;
        if is_closed_first {
            hub.close();
        }
        log.tail_ends.send_replace(true);
        settle().await;
        assert!(hub.health().await.is_err());
        assert_eq!(hub.failure().is_some(), !is_closed_first, "{:?}", hub.failure());
    }
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_interval_that_is_too_long_is_refused() {
    for (secs, is_accepted) in [(40, true), (41, false)] {
        let mut settings = HubSettings::default();
        settings.heartbeat = Duration::from_secs(secs);
        let started = Hub::builder().settings(settings).start().await;
        assert_eq!(started.is_ok(), is_accepted, "{secs}");
        if let Err(error) = started {
            assert!(error.to_string().contains("40 s"), "{error}");
        }
    }
}
