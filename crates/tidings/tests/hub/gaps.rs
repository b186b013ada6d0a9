//! A gap is never silent and never false.

use std::sync::atomic::Ordering;

use tidings::{
    Hub, NewEvent, Since,
    log::{Cursor, Epoch, Position},
};

use crate::stage::{
    Listener, Received, StageLog, grants, hub, hub_on, numbers, publish, publish_numbers, settle, since_id,
    to,
};

fn gap<'h>(received: &'h Received, reason: &str) -> &'h serde_json::Value {
    let gap = received.notice("gap");
    assert_eq!(gap["reason"], reason, "{gap}");
    gap
}

/// A client that resumes with the id of a notice gets no second report and continues with these
/// events.
async fn continues_without_a_gap(hub: &Hub, id: &str, data: &[&str]) {
    let mut listener = Listener::open(hub, to(hub, &["chat"]).since(since_id(id))).await;
    assert_eq!(listener.data(data.len()).await, data);
    listener.receives_nothing_more().await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_id_is_reported_once_and_the_oldest_event_follows() {
    let hub = hub().await;
    let ids = publish_numbers(&hub, "chat", 1, 2).await;
    let beyond = Cursor {
        position: Position::from_bytes([9; 16]),
        ..Cursor::parse(ids[0].as_str()).expect("generated")
    };
    for unknown in ["never-was", "#", "earlies", &beyond.to_string()] {
        let mut listener =
            Listener::open(&hub, to(&hub, &["chat"]).since(since_id(unknown)).hello(true)).await;
        assert_eq!(listener.subscription.resumed_from().map(tidings::Resumed::as_str), Some("earliest"));
        let reported = listener.next().await;
        let notice = gap(&reported, "unknown");
        assert_eq!(notice["requested"], unknown);
        assert_eq!(notice["oldest"], ids[0].as_str());
        assert_eq!(notice["newest"], ids[1].as_str());
        listener.next().await.notice("hello");
        assert_eq!(listener.data(2).await, ["1", "2"]);
        listener.receives_nothing_more().await;
        continues_without_a_gap(&hub, reported.id(), &["1", "2"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_id_of_an_event_without_a_grant_is_unknown() {
    let hub = hub().await;
    hub.publish(NewEvent::new("inbox", "secret").id("own").private()).await.expect("published");
    publish(&hub, "chat", "after").await;
    let ask = || to(&hub, &["chat"]).since(since_id("own"));
    let mut stranger = Listener::open(&hub, ask()).await;
    gap(&stranger.next().await, "unknown");
    assert_eq!(stranger.data(1).await, ["after"]);
    let mut owner = Listener::open(&hub, ask().grants(grants(&hub, &["inbox"]))).await;
    assert_eq!(owner.data(1).await, ["after"]);
}

#[tokio::test(start_paused = true)]
async fn an_id_of_another_log_is_reported_as_such() {
    let hub = hub().await;
    publish_numbers(&hub, "chat", 1, 2).await;
    let foreign = Cursor { epoch: Epoch::from_u64(77), position: Position::BEFORE_ALL }.to_string();
    let mut listener = Listener::open(&hub, to(&hub, &["chat"]).since(since_id(&foreign))).await;
    let reported = listener.next().await;
    assert_eq!(gap(&reported, "other-log")["requested"], foreign);
    assert_eq!(listener.data(2).await, ["1", "2"]);
    continues_without_a_gap(&hub, reported.id(), &["1", "2"]).await;
}

#[tokio::test(start_paused = true)]
async fn expired_events_are_reported_once_and_the_oldest_kept_follows() {
    let hub = hub_on(&StageLog::new(Some(3)), |_| {}).await;
    let ids = publish_numbers(&hub, "chat", 1, 6).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"]).since(since_id(ids[0].as_str()))).await;
    assert_eq!(listener.subscription.resumed_from().map(tidings::Resumed::as_str), Some("earliest"));
    assert_eq!(listener.subscription.place(), ids[0], "the gap is yet to be reported");
    let reported = listener.next().await;
    let notice = gap(&reported, "expired");
    assert_eq!(notice["requested"], ids[0].as_str());
    assert_eq!(notice["oldest"], ids[3].as_str());
    assert_eq!(notice["newest"], ids[5].as_str());
    assert_eq!(reported.id(), ids[2].as_str());
    assert_eq!(listener.data(3).await, numbers(4, 6));
    listener.receives_nothing_more().await;
    continues_without_a_gap(&hub, reported.id(), &["4", "5", "6"]).await;
    continues_without_a_gap(&hub, ids[2].as_str(), &["4", "5", "6"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_live_subscriber_that_was_too_slow_gets_a_gap() {
    let hub = hub_on(&StageLog::new(Some(3)), |settings| settings.feed_bytes_max = 0).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    publish_numbers(&hub, "chat", 1, 2).await;
    assert_eq!(listener.data(2).await, numbers(1, 2));
    publish_numbers(&hub, "chat", 3, 9).await;
    gap(&listener.next().await, "expired");
    assert_eq!(listener.data(3).await, numbers(7, 9));
    listener.receives_nothing_more().await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_topic_gets_no_gap_when_only_others_expired() {
    let hub = hub_on(&StageLog::new(Some(3)), |settings| settings.feed_bytes_max = 0).await;
    let mut live = Listener::open(&hub, to(&hub, &["chat"])).await;
    let id = publish(&hub, "chat", "1").await;
    assert_eq!(live.data(1).await, ["1"]);
    publish_numbers(&hub, "news", 1, 9).await;
    hub.publish(NewEvent::new("chat", "secret").private()).await.expect("published");
    publish_numbers(&hub, "news", 1, 9).await;
    publish(&hub, "chat", "2").await;
    assert_eq!(live.data(1).await, ["2"]);
    continues_without_a_gap(&hub, id.as_str(), &["2"]).await;
    let covered = to(&hub, &["chat"]).since(since_id(id.as_str())).grants(grants(&hub, &["chat"]));
    gap(&Listener::open(&hub, covered).await.next().await, "expired");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_without_a_cursor_gets_no_gap() {
    let hub = hub_on(&StageLog::new(Some(3)), |_| {}).await;
    publish_numbers(&hub, "chat", 1, 6).await;
    for since in ["now", "earliest", "-2", "-100", "1h"] {
        let ask = to(&hub, &["chat"]).since(since.parse().expect("a value of `since`")).hello(true);
        let mut listener = Listener::open(&hub, ask).await;
        let hello = listener.next().await;
        hello.notice("hello");
        let mut data = Vec::new();
        while let Some(received) = listener.now() {
            data.push(received.data().to_owned());
        }
        // The id of the hello is a position like any other: nothing has been missed since.
        let expected: Vec<_> = data.iter().map(String::as_str).collect();
        continues_without_a_gap(&hub, hello.id(), &expected).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_end_is_reported_to_live_subscribers_once() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    let ids = publish_numbers(&hub, "chat", 1, 4).await;
    assert_eq!(listener.data(4).await, numbers(1, 4));
    log.far.lose_end(2);
    publish(&hub, "chat", "5").await;
    let reported = listener.next().await;
    assert_eq!(gap(&reported, "other-log")["requested"], ids[3].as_str());
    assert_eq!(listener.data(1).await, ["5"]);
    listener.receives_nothing_more().await;
    continues_without_a_gap(&hub, reported.id(), &["5"]).await;
    // An id from before the loss still names its event, but later events may be lost.
    let mut late = Listener::open(&hub, to(&hub, &["chat"]).since(since_id(ids[0].as_str()))).await;
    gap(&late.next().await, "other-log");
    assert_eq!(late.data(2).await, ["2", "5"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_end_is_reported_when_resuming_with_a_publishers_id() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    hub.publish(NewEvent::new("chat", "1").id("own")).await.expect("published");
    publish_numbers(&hub, "chat", 2, 3).await;
    log.far.lose_end(1);
    hub.publish(NewEvent::new("chat", "4").id("newer")).await.expect("published");
    publish(&hub, "chat", "5").await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"]).since(since_id("own"))).await;
    let reported = listener.next().await;
    assert_eq!(gap(&reported, "other-log")["requested"], "own");
    assert_eq!(listener.data(3).await, ["2", "4", "5"]);
    continues_without_a_gap(&hub, reported.id(), &["2", "4", "5"]).await;
    continues_without_a_gap(&hub, "newer", &["5"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_reported_in_one_epoch_does_not_hide_one_in_the_next() {
    let log = StageLog::new(Some(5));
    let hub = hub_on(&log, |settings| settings.feed_bytes_max = 0).await;
    publish_numbers(&hub, "chat", 1, 1_000).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    log.far.replace();
    publish_numbers(&hub, "chat", 1, 3).await;
    gap(&listener.next().await, "other-log");
    assert_eq!(listener.data(3).await, numbers(1, 3));
    publish_numbers(&hub, "chat", 4, 20).await;
    gap(&listener.next().await, "expired");
    assert_eq!(listener.data(5).await, numbers(16, 20));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_changes_during_a_start_without_a_cursor_reports_no_gap() {
    for (since, from) in [("earliest", 1), ("-2", 3), ("1h", 1), ("now", 5)] {
        let log = StageLog::new(None);
        let hub = hub_on(&log, |_| {}).await;
        publish_numbers(&hub, "chat", 1, 4).await;
        *log.before_read.lock().expect("no thread panicked") = Some(|far| {
            far.lose_end(1);
        });
        let ask = to(&hub, &["chat"]).since(since.parse().expect("a value of `since`"));
        let mut listener = Listener::open(&hub, ask).await;
        if since != "now" {
            assert_eq!(listener.data(4 - from as usize).await, numbers(from, 3), "{since}");
        }
        publish(&hub, "chat", "5").await;
        assert_eq!(listener.data(1).await, ["5"], "{since}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_position_within_a_page_is_one_of_the_current_epoch() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    publish_numbers(&hub, "chat", 1, 3).await;
    log.far.lose_end(0);
    let mut listener = Listener::open(&hub, to(&hub, &["chat"]).since(Since::Earliest)).await;
    assert_eq!(listener.data(1).await, ["1"]);
    hub.close();
    let end = listener.next().await;
    end.notice("reconnect");
    assert_eq!(listener.next().await, Received::End);
    // Nothing was lost since this subscriber connected.
    let new_hub = hub_on(&log, |_| {}).await;
    continues_without_a_gap(&new_hub, end.id(), &["2", "3"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_at_once_still_reports_its_gap() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    publish_numbers(&hub, "chat", 1, 2).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"]).since(since_id("never-was"))).await;
    hub.close();
    gap(&listener.next().await, "unknown");
    let end = listener.next().await;
    end.notice("reconnect");
    assert_eq!(listener.next().await, Received::End);
    let new_hub = hub_on(&log, |_| {}).await;
    continues_without_a_gap(&new_hub, end.id(), &["1", "2"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_from_the_earliest_that_ends_at_once_causes_no_gap() {
    let log = StageLog::new(Some(2));
    let hub = hub_on(&log, |_| {}).await;
    publish_numbers(&hub, "chat", 1, 5).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"]).since(Since::Earliest)).await;
    hub.close();
    let end = listener.next().await;
    end.notice("reconnect");
    let new_hub = hub_on(&log, |_| {}).await;
    continues_without_a_gap(&new_hub, end.id(), &["4", "5"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_ahead_of_the_feeds_continues_when_they_catch_up() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    publish_numbers(&hub, "chat", 1, 3).await;
    settle().await;
    log.tail_runs.send_replace(false);
    log.far.lose_end(1);
    publish_numbers(&hub, "chat", 4, 5).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"]).since(Since::Earliest)).await;
    assert_eq!(listener.data(4).await, ["1", "2", "4", "5"]);
    listener.receives_nothing_more().await;
    log.tail_runs.send_replace(true);
    publish(&hub, "chat", "6").await;
    assert_eq!(listener.data(1).await, ["6"]);
    listener.receives_nothing_more().await;
}

#[tokio::test(start_paused = true)]
async fn an_id_looked_up_in_a_log_that_lost_everything_is_unknown() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    hub.publish(NewEvent::new("chat", "lost").id("mine")).await.expect("published");
    log.losses_to_find.store(1, Ordering::SeqCst);
    let mut listener = Listener::open(&hub, to(&hub, &["chat"]).since(since_id("mine"))).await;
    let place = listener.subscription.place();
    gap(&listener.next().await, "unknown");
    let kept = publish(&hub, "chat", "kept").await;
    let epoch = |id: &str| Cursor::parse(id).expect("a generated id").epoch;
    assert_eq!(epoch(place.as_str()), epoch(kept.as_str()), "the log does not know the id now");
    assert_eq!(listener.data(1).await, ["kept"]);
    listener.receives_nothing_more().await;
}

#[tokio::test(start_paused = true)]
async fn lookups_in_a_log_that_keeps_losing_events_are_bounded() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    log.losses_to_find.store(usize::MAX, Ordering::SeqCst);
    let error = hub.subscribe(to(&hub, &["chat"]).since(since_id("mine"))).await.expect_err("no answer");
    let tidings::Error::Unavailable(cause) = error else { panic!("{error}") };
    assert!(cause.to_string().contains("lost events 4 times"), "{cause}");
}
