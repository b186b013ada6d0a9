//! A hub that crashes under many subscribers, all of whom come back in the same moment.

use std::time::Duration;

use tidings_testkit::{EventStream, Hub};
use tokio::{task::JoinSet, time::timeout};

/// Few enough for every test run, and far more than the hub answers at a time.
const SUBSCRIBERS: usize = 500;
/// Events that are published while they are coming back.
const EVENTS_MEANWHILE: usize = 50;
/// Nothing here takes so long unless it never comes.
const PATIENCE: Duration = Duration::from_secs(120);

/// What every one of the subscribers does, all at once; their results when the last one is through.
async fn each<T, F>(subscribers: impl IntoIterator<Item = F>) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: JoinSet<T> = subscribers.into_iter().collect();
    timeout(PATIENCE, tasks.join_all()).await.expect("everybody is through in time")
}

#[tokio::test]
async fn after_a_crash_everybody_is_back_and_nobody_misses_an_event() {
    let mut hub = Hub::serve(&[]).await.unwrap();
    let address = hub.address();
    let streams = each((0..SUBSCRIBERS).map(|_| async move {
        EventStream::open(address, "/stream?topic=chat").await.expect("the hub is there")
    }))
    .await;
    hub.publish("chat", "before").await.unwrap();
    let streams = each(streams.into_iter().map(|mut stream| async move {
        assert_eq!(stream.messages(1).await.expect("it was there"), ["before"]);
        stream
    }))
    .await;

    hub.kill().await.unwrap();
    // They knock while no hub is there, and the first events are published before the last of them is in.
    let storm = tokio::spawn(each(streams.into_iter().map(move |mut stream| async move {
        assert!(stream.next().await.is_err(), "the hub has been killed");
        let mut back = EventStream::resume(address, "/stream?topic=chat", stream.last_event_id())
            .await
            .expect("nobody is refused");
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
    let streams = storm.await.expect("everybody is back");

    published.push("next".to_owned());
    hub.publish("chat", "next").await.unwrap();
    let received = each(streams.into_iter().map(|mut stream| async move {
        stream.messages(EVENTS_MEANWHILE + 1).await.expect("events and nothing else")
    }))
    .await;
    assert!(
        received.iter().all(|received| *received == published),
        "everything published since, once and in order"
    );
}
