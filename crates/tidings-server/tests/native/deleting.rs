//! `DELETE /topics/{topic}`: deletes the events of a topic, for credentials that may publish to it.

use http::Method;
use tidings::{Hub, MemoryLimits};
use tidings_delayed_log::{DelayedLog, Faults};
use tidings_server::Settings;

use crate::support::{Api, Ask, CHAT_KEY, KEY, keyless, token, with_keys};

fn delete(api: &Api, target: &str) -> Ask {
    api.ask(Method::DELETE, target)
}

/// The data of the public events of a topic.
async fn history(api: &Api, topic: &str) -> Vec<String> {
    let summary = api.get(&format!("/topics/{topic}")).header("accept", "application/json");
    let summary = summary.answer().await.ok().json();
    let events = summary["events"].as_array().expect("events");
    events.iter().map(|event| event["data"].as_str().expect("text").to_owned()).collect()
}

#[tokio::test]
async fn a_deleted_topic_has_no_history_and_accepts_new_events() {
    let api = keyless().await;
    for (topic, data) in [("chat", "1"), ("news", "2"), ("chat", "3"), ("a/b c", "4")] {
        let target = format!("/topics/{}", topic.replace(' ', "%20"));
        api.post(&target, data).answer().await.ok();
    }
    for _ in 0..2 {
        let answer = delete(&api, "/topics/chat").answer().await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (204, ""), "deleting nothing is no error");
    }
    assert_eq!(delete(&api, "/topics/a/b%20c").answer().await.status, 204);
    assert_eq!(delete(&api, "/topics/never").answer().await.status, 204);
    api.post("/topics/chat", "5").answer().await.ok();
    for (topic, left) in [("chat", &["5"][..]), ("news", &["2"]), ("a/b%20c", &[])] {
        assert_eq!(history(&api, topic).await, left, "{topic}");
    }
}

#[tokio::test]
async fn a_client_that_asks_for_json_gets_the_numbers_in_any_case() {
    let api = keyless().await;
    for data in ["1", "2"] {
        api.post("/topics/chat", data).answer().await.ok();
    }
    for deleted in [2, 0] {
        let answer = delete(&api, "/topics/chat").header("accept", "application/json").answer().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json(), serde_json::json!({ "deleted": deleted, "kept": 0 }));
    }
}

#[tokio::test]
async fn an_event_of_several_topics_is_deleted_by_each_of_them() {
    let api = keyless().await;
    api.post("/topics", r#"{"topics":["chat","news"],"data":"both"}"#).answer().await.ok();
    assert_eq!(delete(&api, "/topics/news").answer().await.status, 204);
    assert_eq!(history(&api, "chat").await, [""; 0]);
}

#[tokio::test]
async fn only_credentials_that_may_publish_to_a_topic_may_delete_it() {
    let api = with_keys().await;
    let publish = async |topic: &str| {
        api.post(&format!("/topics/{topic}"), "x").bearer(KEY).answer().await.ok();
    };
    publish("news").await;
    delete(&api, "/topics/news").answer().await.refused(401);
    delete(&api, "/topics/news").bearer(CHAT_KEY).answer().await.refused(403);
    delete(&api, "/topics/news").bearer(&token(&["chat"], &["news"])).answer().await.refused(403);
    assert_eq!(history(&api, "news").await, ["x"]);
    for (topic, credential) in [("news", KEY), ("chat", CHAT_KEY), ("news", &token(&["news"], &[]))] {
        publish(topic).await;
        let answer = delete(&api, &format!("/topics/{topic}")).bearer(credential).answer().await;
        assert_eq!(answer.status, 204);
        assert_eq!(history(&api, topic).await, [""; 0]);
    }
}

/// Regression: a key for one topic deleted events that also had topics which it did not cover,
/// private ones among them.
#[tokio::test]
async fn deleting_an_event_needs_permission_for_all_of_its_topics() {
    let api = with_keys().await;
    for (topics, data, private) in
        [(r#""chat""#, "1", false), (r#""orders","chat""#, "2", false), (r#""chat","orders""#, "3", true)]
    {
        let event = format!(r#"{{"topics":[{topics}],"data":"{data}","private":{private}}}"#);
        api.post("/topics", event).bearer(KEY).answer().await.ok();
    }
    for expected in [r#"{"deleted":1,"kept":2}"#, r#"{"deleted":0,"kept":2}"#] {
        let answer = delete(&api, "/topics/chat").bearer(CHAT_KEY).answer().await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, expected));
    }
    assert_eq!(history(&api, "chat").await, ["2"]);
    assert_eq!(history(&api, "orders").await, ["2"]);
    let answer = delete(&api, "/topics/chat").bearer(&token(&["chat", "orders"], &[])).answer().await;
    assert_eq!(answer.status, 204);
    assert_eq!(history(&api, "orders").await, [""; 0]);
}

#[tokio::test]
async fn without_keys_a_foreign_page_deletes_nothing() {
    let api = keyless().await;
    api.post("/topics/chat", "x").answer().await.ok();
    for origin in ["https://evil.example", "null"] {
        delete(&api, "/topics/chat").header("origin", origin).answer().await.refused(403);
    }
    assert_eq!(history(&api, "chat").await, ["x"]);
    let local = delete(&api, "/topics/chat").header("origin", "http://localhost:3000");
    assert_eq!(local.answer().await.status, 204);
}

/// A misspelt condition must not delete everything, and a wildcard must not silently delete
/// nothing.
#[tokio::test]
async fn a_malformed_request_deletes_nothing() {
    let api = keyless().await;
    api.post("/topics/chat", "x").answer().await.ok();
    for target in ["/topics/chat?before=10m", "/topics/*", "/topics/", "/topics/%zz"] {
        delete(&api, target).answer().await.refused(400);
    }
    assert_eq!(history(&api, "chat").await, ["x"]);
}

#[tokio::test]
async fn an_unknown_outcome_differs_from_an_unreachable_log_on_delete() {
    let away = Faults { append_unavailable_per_mille: 1_000, ..Faults::default() };
    let silent = Faults { outcome_unknown_per_mille: 1_000, ..Faults::default() };
    for (faults, reported) in [(away, "Nothing was deleted"), (silent, "may or may not")] {
        let log = DelayedLog::new(1, faults, MemoryLimits::default());
        let hub = Hub::builder().log(log).start().await.expect("reading works");
        let answer = delete(&Api::new(hub, None, Settings::default()), "/topics/chat").answer().await;
        assert!(answer.refused(503).contains(reported), "{answer:?}");
        assert!(answer.headers.contains_key("retry-after"));
    }
}
