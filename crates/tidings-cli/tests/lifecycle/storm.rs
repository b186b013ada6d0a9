//! A hub that crashes under many subscribers, all of which reconnect at the same moment.

use std::time::Duration;

use tidings_testkit::{EventStream, Hub};
use tokio::{task::JoinSet, time::timeout};

/// Few enough for every test run, and far more than the hub processes at a time.
const SUBSCRIBERS: usize = 500;
/// Events that are published while they reconnect.
const EVENTS_MEANWHILE: usize = 50;
/// Longer than any step here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a step of all subscribers at once, and returns the results when the last one is done.
async fn each<T, F>(subscribers: impl IntoIterator<Item = F>) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: JoinSet<T> = subscribers.into_iter().collect();
    timeout(PATIENCE, tasks.join_all()).await.expect("all subscribers finish in time")
}

#[tokio::test]
async fn after_a_crash_all_subscribers_reconnect_and_miss_no_event() {
    let mut hub = Hub::serve(&[]).await.unwrap();
    let address = hub.address();
    let streams = each((0..SUBSCRIBERS).map(|_| async move {
        EventStream::open(address, "/stream?topic=chat").await.expect("the hub is running")
    }))
    .await;
    hub.publish("chat", "before").await.unwrap();
    let streams = each(streams.into_iter().map(|mut stream| async move {
        assert_eq!(stream.messages(1).await.expect("the event arrives"), ["before"]);
        stream
    }))
    .await;

    hub.kill().await.unwrap();
    // They retry while no hub is running, and the first events are published before the last of
    // them has reconnected.
    let storm = tokio::spawn(each(streams.into_iter().map(move |mut stream| async move {
        assert!(stream.next().await.is_err(), "the hub has been killed");
        let mut back = EventStream::resume(address, "/stream?topic=chat", stream.last_event_id())
            .await
            .expect("no subscriber is refused");
        let notice = back.next().await.expect("what was lost is reported");
        assert!(notice.event_type == "tidings" && notice.data.contains("other-log"), "{notice:?}");
        back
    })));
    hub.start_again().await.unwrap();
    let mut published = Vec::new();
    for number in 0..EVENTS_MEANWHILE {
        published.push(number.to_string());
        hub.publish("chat", &published[number]).await.unwrap();
    }
    let streams = storm.await.expect("all subscribers have reconnected");

    published.push("next".to_owned());
    hub.publish("chat", "next").await.unwrap();
    let received = each(streams.into_iter().map(|mut stream| async move {
        stream.messages(EVENTS_MEANWHILE + 1).await.expect("only events arrive")
    }))
    .await;
    assert!(
        received.iter().all(|received| *received == published),
        "every event published since, once and in order"
    );
}
