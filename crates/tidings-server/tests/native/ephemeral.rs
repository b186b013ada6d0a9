//! Ephemeral events over HTTP: `?ephemeral=true`, and lines of a batch.

use serde_json::json;

use crate::support::keyless;

#[tokio::test]
async fn a_live_stream_receives_it_and_no_history_has_it() {
    let api = keyless().await;
    let mut stream = api.get("/stream?topic=chat").stream().await;
    let id = api.post("/topics/chat", "hello").answer().await.id();
    let receipt = api.post("/topics/chat?ephemeral=true&type=typing", "Ann").answer().await.ok();
    assert_eq!(receipt.json(), json!({ "id": null }));
    let event = stream.until("data: Ann\n\n").await;
    assert!(event.ends_with(&format!("event: typing\nid: {id}\ndata: Ann\n\n")), "{event}");
    let end = api.post("/topics/chat", "end").answer().await.id();
    for since in ["earliest", "-50", "10m"] {
        let mut history = api.get(&format!("/stream?topic=chat&since={since}")).stream().await;
        let history = history.until("data: end\n\n").await;
        assert!(history.contains("data: hello\n") && !history.contains("Ann"), "{history}");
    }
    let mut resumed = api.get("/stream?topic=chat").header("last-event-id", &id).stream().await;
    let resumed = resumed.until("data: end\n\n").await;
    assert!(resumed.ends_with(&format!("id: {end}\ndata: end\n\n")) && resumed.matches("data:").count() == 1);
}

#[tokio::test]
async fn lines_of_a_batch_may_be_ephemeral() {
    let api = keyless().await;
    let mut stream = api.get("/stream?topic=chat").stream().await;
    let lines = [
        r#"{"topic":"chat","data":"typing","ephemeral":true}"#,
        r#"{"topic":"chat","data":"hello","id":"own"}"#,
        r#"{"topic":"chat","data":"again","ephemeral":false,"id":"own-2"}"#,
    ]
    .join("\n");
    let batch = || api.post("/topics", lines.clone()).header("idempotency-key", "17");
    let receipts = json!({ "events": [{ "id": null }, { "id": "own" }, { "id": "own-2" }] });
    assert_eq!(batch().answer().await.ok().json(), receipts);
    let repeated = json!({ "events": [{ "id": "own", "duplicate": true }] });
    assert_eq!(batch().answer().await.ok().json(), repeated, "and its ephemeral line is not sent again");
    api.post("/topics/chat", "end").answer().await.ok();
    let events = stream.until("data: end\n\n").await;
    let data: Vec<_> = events.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(data, ["hello", "again", "typing", "end"]);
}

#[tokio::test]
async fn what_an_ephemeral_event_cannot_have_is_refused_with_the_reason() {
    let api = keyless().await;
    let post = |query: &str| api.post(&format!("/topics/chat?ephemeral=true{query}"), "x");
    for (ask, why) in [
        (post("&id=own"), "no client could resume from it"),
        (post("").header("idempotency-key", "1"), "Leave the header out"),
        (api.post("/topics/chat?ephemeral=maybe", "x"), "write `ephemeral=true`"),
        (post("&type=tidings"), "is reserved"),
        (api.post("/topics", r#"{"topic":"chat","data":"x","ephemeral":true,"id":"own"}"#), "Line 1"),
        (api.form("topic=chat&data=x&ephemeral=true"), "POST /topics/{topic}?ephemeral=true"),
    ] {
        let detail = ask.answer().await.refused(400);
        assert!(detail.contains(why), "{detail}");
    }
    assert_eq!(api.hub.stats().published, 0);
}

#[tokio::test]
async fn dropped_ephemeral_events_are_a_metric() {
    let api = keyless().await;
    let metrics = api.get("/metrics").answer().await.ok().body;
    assert!(metrics.contains("\ntidings_ephemeral_dropped_total 0\n"), "{metrics}");
}
