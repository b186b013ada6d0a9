//! The header `Idempotency-Key`: a repeated publication is published once, whichever other
//! publishers use the same key.

use std::collections::HashMap;

use http::StatusCode;
use tidings::{Filter, Hub, MemoryLimits};
use tidings_delayed_log::{DelayedLog, Faults};
use tidings_server::Settings;

use crate::support::{Api, CHAT_KEY, KEY, keyless, token, with_keys};

/// The public events of the log, oldest first.
async fn history(api: &Api) -> Vec<String> {
    let snapshot = api.hub.last_events(1_000, Filter::everything_public()).await.expect("the log answers");
    snapshot.entries.iter().map(|entry| entry.event.data.clone()).collect()
}

#[tokio::test]
async fn a_repeat_with_the_same_key_publishes_nothing() {
    let api = keyless().await;
    let first = api.post("/topics/chat", "x").header("idempotency-key", "k1").answer().await.ok().json();
    let second = api.post("/topics/chat", "x").header("idempotency-key", "k1").answer().await.ok().json();
    assert_eq!(first["id"], second["id"]);
    assert_eq!((first.get("duplicate"), &second["duplicate"]), (None, &true.into()));

    let batch = "{\"topic\":\"a\",\"data\":1}\n{\"topic\":\"a\",\"data\":2}";
    let first = api.post("/topics", batch).header("idempotency-key", "k2").answer().await.ok().json();
    let second = api.post("/topics", batch).header("idempotency-key", "k2").answer().await.ok().json();
    assert_eq!(second["events"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&second["events"][0]["id"], &second["events"][0]["duplicate"]),
        (&first["events"][0]["id"], &true.into())
    );
    assert_eq!(history(&api).await, ["x", "1", "2"]);
}

#[tokio::test]
async fn both_apis_and_both_forms_share_one_key() {
    let api = keyless().await;
    let first = api.form("topic=chat&data=one").header("idempotency-key", "\"k 1\"").answer().await;
    let again = api.form("topic=chat&data=one").header("idempotency-key", "\"k 1\"").answer().await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));

    api.post("/topics/chat", "two").header("idempotency-key", "\"k2\"").answer().await.ok();
    let bare = api.post("/topics/chat", "two").header("idempotency-key", "k2").answer().await.ok().json();
    assert_eq!(bare["duplicate"], true);
    let mercure = api.form("topic=chat&data=two").header("idempotency-key", "k2").answer().await;
    assert_eq!(bare["id"], mercure.body);
    assert_eq!(history(&api).await, ["one", "two"]);
}

#[tokio::test]
async fn a_repeated_key_is_a_duplicate_whatever_the_body() {
    let api = keyless().await;
    let first = api.post("/topics/chat", "one").header("idempotency-key", "k").answer().await.ok().json();
    let other = api.post("/topics/news", "two").header("idempotency-key", "k").answer().await.ok().json();
    assert_eq!((&other["id"], &other["duplicate"]), (&first["id"], &true.into()));
    assert_eq!(history(&api).await, ["one"]);
}

#[tokio::test]
async fn a_key_of_one_publisher_is_not_that_of_another() {
    let api = with_keys().await;
    let token = token(&["chat"], &[]);
    for credential in [KEY, CHAT_KEY, &token] {
        let publish = || api.post("/topics/chat", credential.to_owned()).bearer(credential);
        let first = publish().header("idempotency-key", "k").answer().await.ok().json();
        assert_eq!(first.get("duplicate"), None, "{credential}");
        let again = publish().header("idempotency-key", "k").answer().await.ok().json();
        assert_eq!((&again["id"], &again["duplicate"]), (&first["id"], &true.into()));
    }
    assert_eq!(history(&api).await, [KEY, CHAT_KEY, &token]);
}

/// A key of another publisher reveals nothing: a repeat needs permission like the first
/// publication.
#[tokio::test]
async fn a_key_grants_no_permission() {
    let api = with_keys().await;
    api.post("/topics/news", "x").bearer(KEY).header("idempotency-key", "k").answer().await.ok();
    api.post("/topics/news", "x").header("idempotency-key", "k").answer().await.refused(401);
    let news = api.post("/topics/news", "x").bearer(CHAT_KEY).header("idempotency-key", "k");
    news.answer().await.refused(403);
}

#[tokio::test]
async fn a_malformed_key_is_refused_and_publishes_nothing() {
    let api = keyless().await;
    let long = "k".repeat(256);
    for key in ["", "two words", "caf\u{e9}", "\"open", "\"a\", \"b\"", &long] {
        for ask in [
            api.post("/topics/chat", "x"),
            api.post("/topics", "{\"topic\":\"a\",\"data\":1}"),
            api.form("topic=chat"),
        ] {
            let detail = ask.header("idempotency-key", key).answer().await.refused(400);
            assert!(detail.contains("Idempotency-Key"), "{detail}");
        }
    }
    let twice = api.post("/topics/chat", "x").header("idempotency-key", "a").header("idempotency-key", "b");
    twice.answer().await.refused(400);
    assert_eq!(api.hub.stats().published, 0);
}

/// The log is slow and every third response of it is lost; half of these publications are in the
/// log.
#[tokio::test]
async fn a_retry_with_the_same_key_resolves_an_unknown_outcome() {
    let faults = Faults { outcome_unknown_per_mille: 333, ..Faults::default() };
    let log = DelayedLog::new(7, faults, MemoryLimits::default());
    let hub = Hub::builder().log(log).start().await.expect("the log can be reached");
    let api = Api::new(hub, None, Settings::default());
    let mut unknown = 0;
    let mut found = 0;
    for number in 0..200 {
        let data = number.to_string();
        let key = format!("key-{number}");
        loop {
            let ask = if number % 2 == 0 {
                api.post("/topics/chat", data.clone())
            } else {
                api.form(&format!("topic=chat&data={data}"))
            };
            let answer = ask.header("idempotency-key", &key).answer().await;
            if answer.status == StatusCode::OK {
                found += usize::from(answer.body.contains("\"duplicate\":true"));
                break;
            }
            let detail = answer.refused(503);
            assert!(detail.contains("may or may not") && detail.contains("`Idempotency-Key`"), "{detail}");
            assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|secs| secs > 0));
            unknown += 1;
        }
    }
    assert!(unknown > 20 && found > 5, "{unknown} unknown, {found} of them published");
    let mut times = HashMap::new();
    for data in history(&api).await {
        *times.entry(data).or_insert(0) += 1;
    }
    assert_eq!(times.len(), 200);
    assert!(times.values().all(|&count| count == 1), "{times:?}");
}
