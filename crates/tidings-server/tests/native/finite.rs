//! Finite reads over HTTP: `until`, and the cursor of summaries.

use serde_json::{Value, json};
use tidings::NewEvent;

use crate::{
    served_support::{Served, VERSIONS},
    support::{Api, KEY, keyless, with_keys},
};

/// The data of the events of a stream that ended, and its last notice.
fn events(body: &str) -> (Vec<&str>, Value) {
    let mut data = Vec::new();
    let mut notice = Value::Null;
    for block in body.split("\n\n").filter(|block| block.contains("data: ")) {
        let text = block.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
        if block.contains("event: tidings") {
            notice = serde_json::from_str(text).expect("notices are JSON");
        } else {
            assert_eq!(notice, Value::Null, "an event after the last notice: {body}");
            data.push(text);
        }
    }
    (data, notice)
}

async fn published(api: &Api, numbers: std::ops::RangeInclusive<u32>) -> Vec<String> {
    let mut ids = Vec::new();
    for number in numbers {
        ids.push(api.post("/topics/chat", number.to_string()).answer().await.ok().id());
    }
    ids
}

fn encoded(id: &str) -> String {
    id.replace('#', "%23")
}

#[tokio::test]
async fn a_response_with_an_end_is_complete_after_its_last_event() {
    let api = keyless().await;
    let ids = published(&api, 1..=3).await;
    for target in
        ["/stream?topic=chat&topic=news", "/topics/chat?format=plain", "/stream?pattern=/:x&topic=*"]
    {
        let target = format!("{target}{}since=earliest", if target.contains('?') { "&" } else { "?" });
        for (until, expected) in [
            ("now".to_owned(), &["1", "2", "3"][..]),
            (encoded(&ids[1]), &["1", "2"]),
            (ids[0][1..].to_owned(), &["1"]),
        ] {
            let answer = api.get(&format!("{target}&until={until}")).answer().await.ok();
            assert_eq!(answer.header("content-type"), "text/event-stream");
            assert_eq!(
                events(&answer.body),
                (expected.to_vec(), json!({ "kind": "end" })),
                "{target} {until}"
            );
            let end = answer.header("tidings-cursor").to_owned();
            assert_eq!(end, ids[expected.len() - 1]);
            // An EventSource that reconnects sends it.
            assert!(
                answer.body.contains(&format!("\nid: {end}\ndata: {{\"kind\":\"end\"}}\n\n")),
                "{}",
                answer.body
            );
        }
    }
    let json_format = api.get("/topics/chat?since=-1&until=now&format=json").answer().await.ok();
    let (data, _) = events(&json_format.body);
    let event: Value = serde_json::from_str(data[0]).expect("JSON");
    assert_eq!((data.len(), &event["data"]), (1, &json!("3")));
}

#[tokio::test]
async fn the_parameters_of_a_body_may_have_an_end() {
    let api = keyless().await;
    published(&api, 1..=2).await;
    let body = r#"{"topic":"chat","since":"earliest","until":"now"}"#;
    let answer = api.post("/stream", body).header("content-type", "application/json").answer().await.ok();
    assert_eq!(events(&answer.body).0, ["1", "2"]);
    let form = "topic=chat&since=earliest&until=now";
    let form = api.post("/stream", form).header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(events(&form.answer().await.ok().body).0, ["1", "2"]);
}

#[tokio::test]
async fn an_end_that_cannot_be_found_is_refused_with_the_alternatives() {
    let api = keyless().await;
    published(&api, 1..=1).await;
    for (until, part) in [
        ("earliest", "`now`"),
        ("-5", "`now`"),
        ("", "`now`"),
        ("id:never", "until=now"),
        ("now&until=now", "until"),
    ] {
        let detail = api.get(&format!("/stream?topic=chat&until={until}")).answer().await.refused(400);
        assert!(detail.contains("until") && detail.contains(part), "{until}: {detail}");
    }
    let summary = api.get("/topics/chat?until=now").header("accept", "application/json");
    assert!(summary.answer().await.refused(400).contains("no effect on a summary"));
}

#[tokio::test]
async fn private_events_are_read_with_a_credential_that_covers_them() {
    let api = with_keys().await;
    let event = NewEvent::new("inbox", "secret").private();
    api.hub.publish(event).await.expect("published");
    let target = "/stream?topic=inbox&since=earliest&until=now";
    assert_eq!(events(&api.get(target).answer().await.ok().body).0, [""; 0]);
    assert_eq!(events(&api.get(target).bearer(KEY).answer().await.ok().body).0, ["secret"]);
}

/// The recipe of docs/subscribing.md: the cursor, then the state of the application, then the
/// stream.
#[tokio::test]
async fn a_stream_from_the_cursor_of_a_summary_misses_nothing_published_after_it() {
    let api = keyless().await;
    published(&api, 1..=2).await;
    let summary = api.get("/topics/chat").header("accept", "application/json").answer().await.ok();
    let cursor = summary.header("tidings-cursor").to_owned();
    assert_eq!(summary.json()["cursor"], cursor);
    published(&api, 3..=4).await;
    let mut stream = api.get(&format!("/topics/chat?since={}", encoded(&cursor))).stream().await;
    assert_eq!((stream.data().await, stream.data().await), ("3".to_owned(), "4".to_owned()));
    let read = api.get(&format!("/topics/chat?since={}&until=now", encoded(&cursor))).answer().await.ok();
    assert_eq!(events(&read.body).0, ["3", "4"]);
}

#[tokio::test]
async fn the_cursor_of_an_empty_topic_is_a_start_too() {
    let api = keyless().await;
    let summary = api.get("/topics/chat").header("accept", "application/json").answer().await.ok();
    let cursor = encoded(summary.header("tidings-cursor"));
    published(&api, 1..=1).await;
    let read = api.get(&format!("/topics/chat?since={cursor}&until=now")).answer().await.ok();
    assert_eq!(events(&read.body), (vec!["1"], json!({ "kind": "end" })));
}

/// The hub takes over the sockets of streams. That of a finite read stays with its connection,
/// which serves the next request.
#[tokio::test]
async fn a_connection_continues_after_a_finite_read() {
    let served = Served::start().await;
    served.hub.publish(NewEvent::new("chat", "one")).await.expect("published");
    let read = "GET /stream?topic=chat&since=earliest&until=now HTTP/1.1\r\nHost: localhost\r\n";
    let answers = served.ask(format!("{read}\r\n{read}Connection: close\r\n\r\n")).await;
    assert_eq!(answers.body.matches("data: one").count(), 2, "{answers:?}");
    for version in VERSIONS {
        let request = read.replace("HTTP/1.1", &format!("HTTP/{version}"));
        let answer = served.ask(format!("{request}Connection: close\r\n\r\n")).await.ok();
        assert_eq!(events(&answer.body).0, ["one"], "{version}");
    }
}
