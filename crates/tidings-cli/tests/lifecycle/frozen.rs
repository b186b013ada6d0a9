//! A reader that stops reading loses its connection, and no other subscriber loses an event.

#![cfg(target_os = "linux")]

use tidings_testkit::{Connection, EventStream, Hub, PATIENCE};
use tokio::time::timeout;

const RECEIVE_BUFFER_BYTES: usize = 4 * 1024;
/// Together more than 8 MB, far more than the kernel buffers for a reader that does not read.
const EVENTS: usize = 100;
const EVENT_BYTES: usize = 100_000;
const TARGET: &str = "/stream?topic=chat";

fn event(number: usize) -> String {
    format!("{number} {}", "x".repeat(EVENT_BYTES))
}

async fn receives(stream: &mut EventStream, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        let next = stream.next().await.unwrap();
        assert!(next.data == event(number), "instead of {number}: {:.100}", next.data);
    }
}

#[tokio::test]
async fn a_frozen_reader_is_reset_and_resumes_and_others_miss_nothing() {
    let hub = Hub::serve(&["--dead-peer-secs", "1", "--heartbeat-secs", "1"]).await.unwrap();
    let mut frozen = Connection::open_narrow(hub.address(), RECEIVE_BUFFER_BYTES).await.unwrap();
    frozen.request(&format!("GET {TARGET}"), b"").await.unwrap();
    assert_eq!(frozen.head().await.unwrap().status, 200);
    let mut other = EventStream::open(hub.address(), TARGET).await.unwrap();

    // The last event that it received.
    let first = hub.publish("chat", event(0)).await.unwrap().text();
    let (_, id) = first.split_once(r#""id":""#).unwrap();
    let (id, _) = id.split_once('"').unwrap();
    receives(&mut other, [0]).await;
    for number in 1..EVENTS {
        hub.publish("chat", event(number)).await.unwrap();
        receives(&mut other, [number]).await;
    }

    let is_reset = async || {
        let metrics = hub.request("GET /metrics", b"").await.unwrap().text();
        metrics.contains("\ntidings_streams_closed_total{reason=\"slow\"} 1\n")
    };
    timeout(PATIENCE, async { while !is_reset().await {} }).await.expect("the frozen reader is reset");
    let got = frozen.rest().await.unwrap();
    assert!(got.len() < EVENTS * EVENT_BYTES / 2, "it received {} bytes", got.len());
    let mut resumed = EventStream::resume(hub.address(), TARGET, id).await.unwrap();
    receives(&mut resumed, 1..EVENTS).await;

    // It continues live, like the other one.
    hub.publish("chat", event(EVENTS)).await.unwrap();
    receives(&mut resumed, [EVENTS]).await;
    receives(&mut other, [EVENTS]).await;
}
