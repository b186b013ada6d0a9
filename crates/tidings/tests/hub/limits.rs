//! Every limit has an answer, and nothing grows without one.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::join_all};
use tidings::{Error, Grants, Hub, HubSettings, MemoryLog, NewEvent, Presence, Since, Subscribe, log::Log};
use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};

use crate::stage::{
    Listener, OnStage, StageLog, hub, hub_on, numbers, publish, publish_numbers, settle, since_id, to,
};

#[tokio::test(start_paused = true)]
async fn publishers_wait_while_the_fan_out_lags_and_then_continue() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |settings| settings.fan_out_lag_bytes_max = Some(10_000)).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    log.tail_runs.send_replace(false);
    let mut publishing = Box::pin(publish_numbers(&hub, "chat", 1, 1_000));
    assert!(tokio::time::timeout(Duration::from_secs(60), &mut publishing).await.is_err());
    let lag = hub.stats().fan_out_lag_bytes;
    assert!((10_000..11_000).contains(&lag), "{lag}");
    log.tail_runs.send_replace(true);
    publishing.await;
    assert_eq!(listener.data(1_000).await, numbers(1, 1_000));
    settle().await;
    assert_eq!(hub.stats().fan_out_lag_bytes, 0);
}

/// The log keeps three events, and the fan-out cannot read it until ten have been published.
#[tokio::test(start_paused = true)]
async fn a_gap_that_the_fan_out_finds_is_reported_to_live_subscribers() {
    let log = StageLog::new(Some(3));
    let hub = hub_on(&log, |_| {}).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    log.far.go_down();
    for number in 1..=10 {
        let event = hub.validator().event(NewEvent::new("chat", number.to_string())).expect("valid");
        log.far.append_foreign(vec![event]).expect("there is capacity");
    }
    log.far.come_back();
    listener.next().await.notice("gap");
    assert_eq!(listener.data(3).await, numbers(8, 10));
    publish(&hub, "chat", "11").await;
    assert_eq!(listener.data(1).await, ["11"]);
}

#[tokio::test(start_paused = true)]
async fn publishers_wait_for_no_entry_that_is_gone_before_the_fan_out_had_it() {
    for is_deleted in [true, false] {
        let log = StageLog::new(None);
        let hub = hub_on(&log, |settings| settings.fan_out_lag_bytes_max = Some(500)).await;
        log.tail_runs.send_replace(false);
        publish(&hub, "chat", "1").await;
        // The fan-out takes this one, and then has to wait.
        settle().await;
        publish(&hub, "other", "x".repeat(1_000)).await;
        let mut waiting = Box::pin(publish(&hub, "chat", "2"));
        assert!((&mut waiting).now_or_never().is_none());
        if is_deleted {
            let other = hub.validator().topic("other").expect("a topic");
            log.far.delete(&other, &Grants::all()).await.expect("deleted");
        } else {
            log.far.lose_end(1);
        }
        log.tail_runs.send_replace(true);
        timeout(Duration::from_secs(60), waiting).await.expect("nothing is left to wait for");
    }
}

#[tokio::test(start_paused = true)]
async fn publishers_that_wait_for_the_fan_out_continue_after_a_lost_end() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |settings| settings.fan_out_lag_bytes_max = Some(0)).await;
    log.tail_runs.send_replace(false);
    publish(&hub, "chat", "1").await;
    let mut second = Box::pin(publish(&hub, "chat", "2"));
    assert!((&mut second).now_or_never().is_none());
    log.far.lose_end(1);
    log.tail_runs.send_replace(true);
    second.await;
}

/// The fan-out has so much to compare at once that it could keep a thread for long.
#[tokio::test(start_paused = true)]
async fn other_tasks_run_while_events_are_compared_with_many_patterns() {
    let hub = hub_on(&StageLog::new(None), |settings| settings.pattern_weight_max = u32::MAX).await;
    let mut patterned = Vec::new();
    for number in 0..200 {
        let pattern = hub.validator().pattern(&format!("/:a(\\d+)x{number}")).expect("valid");
        patterned.push(hub.subscribe(Subscribe::new([pattern])).await.expect("a subscription"));
    }
    let mut listener = Listener::open(&hub, to(&hub, &["/1x7"])).await;
    let turns = Arc::new(AtomicUsize::new(0));
    let other = tokio::spawn({
        let turns = Arc::clone(&turns);
        async move {
            loop {
                turns.fetch_add(1, Ordering::SeqCst);
                yield_now().await;
            }
        }
    });
    let events = numbers(1, 100).into_iter().map(|number| NewEvent::new("/1x7", number));
    hub.publish_batch(events).await.expect("published");
    let before = turns.load(Ordering::SeqCst);
    assert_eq!(listener.data(100).await, numbers(1, 100));
    let turns = turns.load(Ordering::SeqCst) - before;
    assert!(turns >= 10, "{turns}");
    other.abort();
}

#[tokio::test(start_paused = true)]
async fn one_batch_too_many_in_flight_is_refused() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |settings| settings.appends_max = 2).await;
    log.appends_run.send_replace(false);
    let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(publish(&hub, "chat", "x"))).collect();
    assert!(waiting.iter_mut().all(|publish| publish.now_or_never().is_none()));
    let refused = hub.publish(NewEvent::new("chat", "x")).await;
    assert!(matches!(refused, Err(Error::Overloaded)), "{refused:?}");
    // A publisher that gives up leaves a batch in flight all the same.
    waiting.pop();
    let refused = hub.publish(NewEvent::new("chat", "x")).await;
    assert!(matches!(refused, Err(Error::Overloaded)), "{refused:?}");
    log.appends_run.send_replace(true);
    // The permit is returned when the task that took over the abandoned batch has run.
    let mut published = Err(Error::Overloaded);
    for _ in 0..1_000 {
        published = hub.publish(NewEvent::new("chat", "x")).await;
        if !matches!(published, Err(Error::Overloaded)) {
            break;
        }
        settle().await;
    }
    published.unwrap();
}

/// A publisher waits for the append that is under way and for its own, whatever the number of
/// others.
#[tokio::test(start_paused = true)]
async fn publishers_that_wait_for_an_append_share_the_next_one() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    log.appends_run.send_replace(false);
    let mut publishing: Vec<_> =
        numbers(1, 100).into_iter().map(|number| Box::pin(publish(&hub, "chat", number))).collect();
    assert!((&mut publishing[0]).now_or_never().is_none());
    settle().await;
    assert!(publishing.iter_mut().all(|publish| publish.now_or_never().is_none()));
    log.appends_run.send_replace(true);
    join_all(publishing).await;
    assert_eq!(*log.appended.lock().unwrap(), [1, 99]);
    assert_eq!(listener.data(100).await, numbers(1, 100));
}

/// The requests of several publishers arrive together again and again; one of them is read first.
#[tokio::test(start_paused = true)]
async fn a_group_after_one_with_company_waits_for_requests_that_have_arrived() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    join_all((0..2).map(|_| publish(&hub, "chat", "x"))).await;
    let mut first = Box::pin(publish(&hub, "chat", "x"));
    assert!((&mut first).now_or_never().is_none());
    let second = tokio::spawn({
        let hub = hub.clone();
        async move { publish(&hub, "chat", "x").await }
    });
    first.await;
    second.await.expect("it was published");
    assert_eq!(*log.appended.lock().unwrap(), [2, 2]);
}

/// However small they are, no batch waits for an append without bounds.
#[tokio::test(start_paused = true)]
async fn a_group_of_small_batches_is_bounded_in_number() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    log.appends_run.send_replace(false);
    let mut publishing: Vec<_> = (0..1_500).map(|_| Box::pin(publish(&hub, "chat", "x"))).collect();
    assert!((&mut publishing[0]).now_or_never().is_none());
    settle().await;
    assert!(publishing.iter_mut().all(|publish| publish.now_or_never().is_none()));
    log.appends_run.send_replace(true);
    join_all(publishing).await;
    assert_eq!(*log.appended.lock().unwrap(), [1, 1_024, 475]);
}

/// A group takes no more than a mebibyte and the batch that exceeds it.
#[tokio::test(start_paused = true)]
async fn a_group_of_batches_is_bounded() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    join_all((0..7).map(|_| publish(&hub, "chat", "x".repeat(400_000)))).await;
    assert_eq!(*log.appended.lock().unwrap(), [3, 3, 1]);
}

#[tokio::test(start_paused = true)]
async fn too_many_bytes_in_flight_are_refused_but_one_large_batch_passes() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |settings| settings.appends_bytes_max = 10_000).await;
    publish(&hub, "chat", "x".repeat(1_000_000)).await;
    log.appends_run.send_replace(false);
    let mut waiting = Box::pin(publish(&hub, "chat", "x".repeat(6_000)));
    assert!((&mut waiting).now_or_never().is_none());
    let refused = hub.publish(NewEvent::new("chat", "x".repeat(6_000))).await;
    assert!(matches!(refused, Err(Error::Overloaded)), "{refused:?}");
    log.appends_run.send_replace(true);
    waiting.await;
}

#[tokio::test(start_paused = true)]
async fn concurrent_page_reads_are_bounded_and_every_reader_gets_one() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |settings| settings.replays_max = 3).await;
    publish_numbers(&hub, "chat", 1, 5).await;
    log.reads_run.send_replace(false);
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let hub = hub.clone();
        readers.spawn(async move {
            Listener::open(&hub, to(&hub, &["chat"]).since(Since::Earliest)).await.data(5).await
        });
    }
    settle().await;
    assert_eq!(log.reads_max.load(Ordering::SeqCst), 3);
    let running = hub.measurements().replays_running;
    assert_eq!((running.now, running.max), (3, 3));
    // Late readers do not hold up live subscribers.
    let mut live = Listener::open(&hub, to(&hub, &["chat"])).await;
    publish(&hub, "chat", "6").await;
    assert_eq!(live.data(1).await, ["6"]);
    log.reads_run.send_replace(true);
    while let Some(data) = readers.join_next().await {
        assert_eq!(data.expect("no thread panicked"), numbers(1, 5));
    }
    assert_eq!(log.reads_max.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_many_subscribers_need_is_read_once() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    publish_numbers(&hub, "chat", 1, 10).await;
    for _ in 0..100 {
        let mut listener = Listener::open(&hub, to(&hub, &["chat"]).since(Since::Earliest)).await;
        assert_eq!(listener.data(10).await, numbers(1, 10));
    }
    assert_eq!(log.pages_read.load(Ordering::SeqCst), 1);
    let another = Listener::open(&hub, to(&hub, &["elsewhere"]).since(Since::Earliest)).await;
    drop(another);
    assert_eq!(log.pages_read.load(Ordering::SeqCst), 2, "a different request gets a different page");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_stops_in_the_middle_of_history_blocks_no_other() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |settings| (settings.replays_max, settings.replay_page_bytes) = (1, 1)).await;
    publish_numbers(&hub, "chat", 1, 5).await;
    settle().await;
    let ask = || to(&hub, &["chat"]).since(Since::Earliest);
    let mut stopped = Listener::open(&hub, ask()).await;
    assert_eq!(stopped.data(1).await, ["1"]);
    log.reads_run.send_replace(false);
    assert_eq!(stopped.now(), None);
    settle().await;
    log.reads_run.send_replace(true);
    // Its next page was being read, and is not needed any more.
    let other = tokio::time::timeout(Duration::from_secs(60), Listener::open(&hub, ask()));
    assert_eq!(other.await.expect("it gets a permit").data(5).await, numbers(1, 5));
    assert_eq!(stopped.data(4).await, numbers(2, 5));
}

#[tokio::test(start_paused = true)]
async fn a_page_that_nobody_waits_for_any_more_is_not_read() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |settings| (settings.replays_max, settings.feed_bytes_max) = (1, 0)).await;
    let mut behind = Listener::open(&hub, to(&hub, &["chat"])).await;
    log.reads_run.send_replace(false);
    publish(&hub, "chat", "1").await;
    settle().await;
    assert_eq!(behind.now(), None);
    settle().await;
    assert_eq!(hub.measurements().replays_running.now, 1);
    drop(behind);
    settle().await;
    assert_eq!(hub.measurements().replays_running.now, 0);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_refused_for_a_pattern_leaves_nothing_behind() {
    let hub = hub_on(&StageLog::new(None), |settings| settings.patterns_max = 1).await;
    let _holder = Listener::open(&hub, Subscribe::default().pattern("/a/:b")).await;
    let refused = hub.subscribe(Subscribe::topics(["chat", "news"]).pattern("/c/:d")).await;
    assert!(matches!(refused, Err(Error::TooManyPatterns(_))), "{refused:?}");
    assert_eq!((hub.stats().subscribers, hub.stats().feeds), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_is_refused_while_its_history_cannot_be_read() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    *log.before_read.lock().expect("no thread panicked") = Some(tidings_delayed_log::DelayedLog::go_down);
    let refused = hub.subscribe(to(&hub, &["chat"]).since(Since::Earliest)).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert_eq!((hub.stats().subscribers, hub.stats().feeds), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn every_event_is_delivered_whatever_the_size_of_the_feeds() {
    for (feed_bytes_max, replay_page_bytes) in [(0, 1), (500, 300), (5_000, 100_000), (1 << 20, 1)] {
        let hub = hub_on(&StageLog::new(None), |settings| {
            (settings.feed_bytes_max, settings.replay_page_bytes) = (feed_bytes_max, replay_page_bytes);
        })
        .await;
        let mut slow = Listener::open(&hub, to(&hub, &["chat", "news"])).await;
        let mut fast = Listener::open(&hub, to(&hub, &["news", "chat"])).await;
        for number in 1..=200 {
            publish(&hub, if number % 3 == 0 { "news" } else { "chat" }, number.to_string()).await;
            assert_eq!(fast.data(1).await, [number.to_string()]);
            assert!(hub.stats().feed_bytes <= feed_bytes_max);
        }
        assert_eq!(slow.data(200).await, numbers(1, 200));
        fast.receives_nothing_more().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_never_reads_costs_no_more_than_the_feeds_may_hold() {
    let hub = hub_on(&StageLog::new(None), |settings| settings.feed_bytes_max = 50_000).await;
    let mut slow = Listener::open(&hub, to(&hub, &["chat"])).await;
    for number in 1..=500 {
        publish(&hub, "chat", format!("{number} {}", "x".repeat(2_000))).await;
        settle().await;
        assert!(hub.stats().feed_bytes <= 50_000);
    }
    for number in 1..=500 {
        assert!(slow.next().await.data().starts_with(&format!("{number} ")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_disconnects_leaves_nothing_behind() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    let reached = || hub.subscribers("chat").expect("a topic");
    publish_numbers(&hub, "chat", 1, 3).await;
    let pattern = tidings::Subscribe::new([hub.validator().pattern("/x/:y").expect("valid")]);
    let live = Listener::open(&hub, to(&hub, &["chat", "news"])).await;
    let replaying = Listener::open(&hub, to(&hub, &["chat"]).since(Since::Earliest)).await;
    let patterned = Listener::open(&hub, pattern).await;
    assert_eq!((hub.stats().subscribers, hub.stats().feeds, reached()), (3, 3, 2));
    log.reads_run.send_replace(false);
    // A page that was not requested a moment ago has to be read.
    let mut opening = Box::pin(hub.subscribe(to(&hub, &["chat", "weather"]).since(Since::Earliest)));
    assert!((&mut opening).now_or_never().is_none());
    assert_eq!(reached(), 3);
    drop((live, replaying, patterned, opening));
    assert_eq!((hub.stats().subscribers, hub.stats().feeds, reached()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_presence_hook_is_called_for_each_connect_and_disconnect() {
    let received: Arc<Mutex<Vec<Presence>>> = Arc::default();
    let news = Arc::clone(&received);
    let hub = Hub::builder()
        .on_presence(move |presence| news.lock().expect("no thread panicked").push(presence.clone()))
        .start()
        .await
        .expect("a hub");
    let listener = Listener::open(&hub, to(&hub, &["chat"]).label("ann")).await;
    let connection = listener.subscription.connection();
    drop(listener);
    let received = std::mem::take(&mut *received.lock().expect("no thread panicked"));
    let seen: Vec<_> = received.iter().map(|presence| (presence.here, presence.label.as_deref())).collect();
    assert_eq!(seen, [(true, Some("ann")), (false, Some("ann"))]);
    assert!(
        received.iter().all(|presence| presence.connection == connection && presence.matchers.len() == 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_presence_hook_that_panics_ends_no_connection() {
    let hub = Hub::builder().on_presence(|_| panic!("the hook was to panic")).start().await.expect("a hub");
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    publish(&hub, "chat", "1").await;
    assert_eq!(listener.data(1).await, ["1"]);
    drop(listener);
    assert_eq!(hub.stats().subscribers, 0);
    assert!(hub.health().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_hub_ends_with_its_last_handle() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |_| {}).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"])).await;
    let clone = hub.clone();
    drop(hub);
    publish(&clone, "chat", "1").await;
    drop(clone);
    // A subscription is a handle, too.
    assert_eq!(listener.data(1).await, ["1"]);
    assert!(Arc::strong_count(&log) > 1);
    drop(listener);
    settle().await;
    assert_eq!(Arc::strong_count(&log), 1);
}

#[tokio::test(start_paused = true)]
async fn the_largest_settings_are_accepted() {
    let mut settings = HubSettings::default();
    settings.appends_max = usize::MAX;
    settings.appends_bytes_max = u64::MAX;
    settings.replays_max = usize::MAX;
    settings.fan_out_lag_bytes_max = Some(u64::MAX);
    settings.feed_bytes_max = usize::MAX;
    settings.replay_page_bytes = usize::MAX;
    let hub = Hub::builder().log(MemoryLog::default()).settings(settings).start().await.expect("a hub");
    let mut listener = Listener::open(&hub, to(&hub, &["chat"]).since(Since::Earliest)).await;
    publish(&hub, "chat", "1").await;
    assert_eq!(listener.data(1).await, ["1"]);
}

#[tokio::test(start_paused = true)]
async fn zero_page_reads_still_allow_one() {
    let hub = hub_on(&StageLog::new(None), |settings| {
        (settings.replays_max, settings.replay_page_bytes, settings.appends_bytes_max) = (0, 0, 0);
    })
    .await;
    publish_numbers(&hub, "chat", 1, 3).await;
    let mut listener = Listener::open(&hub, to(&hub, &["chat"]).since(Since::Earliest)).await;
    assert_eq!(listener.data(3).await, numbers(1, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn subscribers_about_to_sleep_are_woken_by_every_event() {
    const READERS: usize = 6;
    let hub = hub().await;
    let (send, mut received) = tokio::sync::mpsc::unbounded_channel();
    let mut reading = tokio::task::JoinSet::new();
    for _ in 0..READERS {
        let mut subscription = hub.subscribe(to(&hub, &["chat"])).await.expect("a subscription");
        let send = send.clone();
        reading.spawn(async move {
            while let Some(bytes) = subscription.next().await {
                send.send(bytes).expect("the test listens");
            }
        });
    }
    for number in 0..10_000 {
        // The readers have just received the event before and are about to sleep, and only the hub
        // wakes them.
        for _ in 0..READERS {
            let item = tokio::time::timeout(Duration::from_secs(60), received.recv()).await;
            item.unwrap_or_else(|_| panic!("event {number} did not wake every subscriber"))
                .expect("the item");
        }
        publish(&hub, "chat", number.to_string()).await;
    }
    hub.close();
    reading.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn two_hubs_share_a_log() {
    let log = StageLog::new(None);
    let (here, there) = (hub_on(&log, |_| {}).await, hub_on(&log, |_| {}).await);
    let mut listener = Listener::open(&there, to(&there, &["chat"])).await;
    let ids = publish_numbers(&here, "chat", 1, 3).await;
    assert_eq!(listener.data(3).await, numbers(1, 3));
    let again = to(&there, &["chat"]).since(since_id(ids[0].as_str()));
    assert_eq!(Listener::open(&there, again).await.data(2).await, numbers(2, 3));
    sleep(Duration::from_millis(1)).await;
    drop(OnStage(log));
}
