//! A hub that was asked to stop serves for `--drain-delay-secs`, so that load balancers can notice.

#![cfg(unix)]

use tidings_testkit::{EventStream, Hub, Signal};

/// What a hub logs when the delay begins.
const BEGUN: &str = "not ready any more";

/// The status with which `/readyz` is answered.
async fn readiness(hub: &Hub) -> u16 {
    hub.request("GET /readyz", b"").await.unwrap().status
}

#[tokio::test]
async fn a_hub_that_leaves_is_not_ready_and_serves_until_a_second_signal() {
    let mut hub = Hub::serve(&["--drain-delay-secs", "1h"]).await.unwrap();
    let mut early = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
    assert_eq!(readiness(&hub).await, 200);
    hub.ask_to_stop().unwrap();
    let line = hub.printed(BEGUN).await.unwrap();
    assert!(line.contains("delay_secs=3600"), "{line}");

    let refused = hub.request("GET /readyz", b"").await.unwrap();
    assert!(refused.status == 503 && refused.text().contains("was asked to stop"), "{}", refused.text());
    let metrics = hub.request("GET /metrics", b"").await.unwrap().text();
    assert!(metrics.contains("\ntidings_ready 0\n"), "{metrics}");
    assert_eq!(hub.request("GET /healthz", b"").await.unwrap().status, 200);
    let mut late = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
    hub.publish("chat", "still served").await.unwrap();
    for stream in [&mut early, &mut late] {
        assert_eq!(stream.next().await.unwrap().data, "still served");
    }
    // The new process would serve for ever.
    hub.signal(Signal::USR2).unwrap();
    hub.printed("the upgrade is refused, and nothing has changed: this process was asked to stop")
        .await
        .unwrap();

    hub.ask_to_stop().unwrap();
    for stream in [&mut early, &mut late] {
        assert_eq!(stream.next().await.unwrap().event_type, "tidings");
    }
    assert_eq!(hub.stopped().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn the_delay_ends_by_itself_and_a_signal_in_the_drain_cuts_connections() {
    let mut hub = Hub::serve(&["--drain-delay-secs", "1", "--drain-secs", "3600"]).await.unwrap();
    // Its client sends no more of the request, so only a signal can end it.
    let mut stream = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
    let mut unfinished = tidings_testkit::Connection::open(hub.address()).await.unwrap();
    unfinished
        .send(b"POST /topics/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
        .await
        .unwrap();
    hub.ask_to_stop().unwrap();
    assert_eq!(stream.next().await.unwrap().event_type, "tidings");
    hub.printed("draining connections").await.unwrap();
    hub.ask_to_stop().unwrap();
    assert_eq!(hub.stopped().await.unwrap().code(), Some(1));
}

#[tokio::test]
async fn without_the_setting_the_hub_drains_at_once() {
    let mut hub = Hub::serve(&[]).await.unwrap();
    let lines = hub.watch_output().unwrap();
    assert_eq!(hub.stop().await.unwrap().code(), Some(0));
    assert!(!lines.borrow().iter().any(|line| line.contains(BEGUN)));
}
