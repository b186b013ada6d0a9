//! No new subscriber receives a deleted event, and a subscriber that misses one gets a gap.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::FutureExt;
use tidings::{Error, Since};
use tokio::time::Instant;

use crate::stage::{Listener, StageLog, hub, hub_on, publish, publish_numbers, settle, since_id, to};

#[tokio::test(start_paused = true)]
async fn no_new_subscriber_receives_a_deleted_event() {
    let hub = hub().await;
    let before = publish(&hub, "news", "before").await;
    // A live subscriber, so that feeds and pages hold the events.
    let mut live = Listener::open(&hub, to(&hub, &["chat", "news"])).await;
    let ids = publish_numbers(&hub, "chat", 1, 3).await;
    publish(&hub, "news", "after").await;
    assert_eq!(live.data(4).await, ["1", "2", "3", "after"]);
    let ask = |since| to(&hub, &["chat", "news"]).since(since);
    let mut earlier = Listener::open(&hub, ask(since_id(before.as_str()))).await;
    assert_eq!(earlier.data(4).await, ["1", "2", "3", "after"]);

    assert_eq!(hub.delete("chat").await.expect("deleted"), 3);
    let mut earliest = Listener::open(&hub, ask(Since::Earliest)).await;
    assert_eq!(earliest.data(2).await, ["before", "after"]);
    for missed in [&before, &ids[0], &ids[1]] {
        let mut back = Listener::open(&hub, ask(since_id(missed.as_str()))).await;
        assert_eq!(back.next().await.notice("gap")["reason"], "expired");
        assert_eq!(back.data(1).await, ["after"]);
    }
    let mut complete = Listener::open(&hub, ask(since_id(ids[2].as_str()))).await;
    assert_eq!(complete.data(1).await, ["after"]);
    let mut other = Listener::open(&hub, to(&hub, &["news"]).since(since_id(before.as_str()))).await;
    assert_eq!(other.data(1).await, ["after"]);

    publish(&hub, "chat", "new").await;
    for listener in [&mut live, &mut earlier, &mut earliest, &mut complete] {
        assert_eq!(listener.data(1).await, ["new"]);
        listener.receives_nothing_more().await;
    }
}

/// A subscriber that resumes far behind gets a page of the log, and the rest from the feed as soon
/// as the feed reaches back to it.
#[tokio::test(start_paused = true)]
async fn events_after_the_first_page_contain_no_deleted_event() {
    let hub = hub_on(&StageLog::new(None), |settings| settings.replay_page_bytes = 1).await;
    let before = publish(&hub, "news", "before").await;
    let mut live = Listener::open(&hub, to(&hub, &["*"])).await;
    publish(&hub, "news", "1").await;
    publish_numbers(&hub, "chat", 2, 4).await;
    publish(&hub, "news", "5").await;
    assert_eq!(live.data(5).await, ["1", "2", "3", "4", "5"]);
    hub.delete("chat").await.expect("deleted");
    let mut back = Listener::open(&hub, to(&hub, &["*"]).since(since_id(before.as_str()))).await;
    back.next().await.notice("gap");
    assert_eq!(back.data(2).await, ["1", "5"]);
    live.receives_nothing_more().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_misses_a_deleted_event_gets_a_gap() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    let mut chat = Listener::open(&hub, to(&hub, &["chat"])).await;
    let mut news = Listener::open(&hub, to(&hub, &["news"])).await;
    log.tail_runs.send_replace(false);
    publish(&hub, "news", "on its way").await;
    settle().await;
    publish(&hub, "chat", "deleted").await;
    // The writer is disconnected from the log, which has carried the deletion out all the same.
    assert_eq!(hub.delete("chat").await.expect("deleted"), 1);
    log.tail_runs.send_replace(true);
    assert_eq!(chat.next().await.notice("gap")["reason"], "expired");
    publish(&hub, "chat", "next").await;
    assert_eq!(chat.data(1).await, ["next"]);
    assert_eq!(news.data(1).await, ["on its way"]);
    news.receives_nothing_more().await;
}

#[tokio::test(start_paused = true)]
async fn another_hub_on_the_same_log_stops_delivering_it_too() {
    let log = StageLog::new(None);
    let (one, other) = (hub_on(&log, |_| {}).await, hub_on(&log, |_| {}).await);
    let before = publish(&one, "chat", "before").await;
    let mut live = Listener::open(&other, to(&other, &["chat"])).await;
    publish(&one, "chat", "gone").await;
    assert_eq!(live.data(1).await, ["gone"]);
    assert_eq!(one.delete("chat").await.expect("deleted"), 2);
    settle().await;
    let mut back = Listener::open(&other, to(&other, &["chat"]).since(since_id(before.as_str()))).await;
    back.next().await.notice("gap");
    back.receives_nothing_more().await;
    live.receives_nothing_more().await;
}

/// It clears no cache any more, and nothing is delivered.
#[tokio::test(start_paused = true)]
async fn a_deletion_waits_for_no_fan_out_that_has_ended() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    log.tail_runs.send_replace(false);
    publish(&hub, "chat", "1").await;
    let mut deleting = Box::pin(hub.delete("chat"));
    assert!((&mut deleting).now_or_never().is_none(), "it waits for the caches");
    let begun = Instant::now();
    log.tail_panics.store(true, Ordering::SeqCst);
    log.tail_runs.send_replace(true);
    assert_eq!(deleting.await.expect("the log has deleted it"), 1);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_is_closed_deletes_nothing() {
    let hub = hub().await;
    publish(&hub, "chat", "kept").await;
    hub.close();
    assert!(matches!(hub.delete("chat").await, Err(Error::Closed)));
    assert!(hub.bounds().await.expect("the log is here").oldest.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_log_deletes_nothing() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    publish(&hub, "chat", "kept").await;
    log.far.go_down();
    assert!(matches!(hub.delete("chat").await, Err(Error::Unavailable(_))));
    log.far.come_back();
    let mut listener = Listener::open(&hub, to(&hub, &["chat"]).since(Since::Earliest)).await;
    assert_eq!(listener.data(1).await, ["kept"]);
}
