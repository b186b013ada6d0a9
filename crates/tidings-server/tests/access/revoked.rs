//! A credential that was revoked is refused by every route, not only by those that open streams.

use http::Method;
use serde_json::json;

use crate::support::*;

const FORM: &str = "application/x-www-form-urlencoded";

async fn revoke(api: &Api, what: serde_json::Value) {
    let revoked = api.post("/revoke", what.to_string()).bearer(ADMIN_KEY).answer().await;
    assert_eq!(revoked.status, 204, "{revoked:?}");
}

async fn publish(api: &Api, topic: &str, data: &str) {
    api.post(&format!("/topics/{topic}"), data.to_owned()).bearer(KEY).answer().await.ok();
}

fn id_of(token: &str) -> String {
    let inspected = tidings_auth::inspect(token).expect("a token");
    inspected.claims["jti"].as_str().expect("an id").to_owned()
}

/// The requests that read with a credential in the header.
fn reading(api: &Api) -> [Ask; 5] {
    [
        api.get("/topics/staff-1").header("accept", "application/json"),
        api.get("/topics/staff-1"),
        api.get("/stream?topic=staff-1&since=earliest"),
        api.ask(Method::HEAD, "/stream?topic=staff-1"),
        api.post("/stream", "topic=staff-1").header("content-type", FORM),
    ]
}

/// A summary opens no stream, so its credential was never compared with the revocations: who had
/// logged out could still read the newest private events.
#[tokio::test]
async fn a_revoked_ticket_reads_nothing() {
    let api = with_keys().await;
    publish(&api, "staff-1", "private").await;
    let labelled = ticket_with(&["staff-1"], |ticket| ticket.label = Some("user-42".to_owned()));
    let other = ticket_with(&["staff-1"], |ticket| ticket.label = Some("user-7".to_owned()));
    for request in reading(&api).into_iter().take(1) {
        assert!(request.bearer(&labelled).answer().await.ok().body.contains("private"));
    }
    revoke(&api, json!({ "label": "user-42" })).await;
    for request in reading(&api) {
        assert_eq!(request.bearer(&labelled).answer().await.status, 401);
    }
    let target = format!("/topics/staff-1?ticket={labelled}");
    let summary = api.get(&target).header("accept", "application/json").answer().await;
    assert!(summary.refused(401).contains("revoked"));
    let summary = api.get("/topics/staff-1").header("accept", "application/json").bearer(&other);
    assert!(summary.answer().await.ok().body.contains("private"));
}

#[tokio::test]
async fn a_revoked_token_reads_publishes_and_deletes_nothing() {
    let api = with_keys().await;
    publish(&api, "staff-1", "private").await;
    let token = token(&["staff-1"], &["staff-1"]);
    revoke(&api, json!({ "id": id_of(&token) })).await;
    for request in reading(&api) {
        assert_eq!(request.bearer(&token).answer().await.status, 401);
    }
    for request in [
        api.post("/topics/staff-1", "forged"),
        api.post("/topics", r#"{"topic":"staff-1","data":"forged"}"#),
        api.form("topic=staff-1&data=forged"),
        api.ask(Method::DELETE, "/topics/staff-1"),
    ] {
        assert!(request.bearer(&token).answer().await.refused(401).contains("revoked"));
    }
    let summary = api.get("/topics/staff-1").header("accept", "application/json").bearer(KEY);
    let events = summary.answer().await.ok().json()["events"].clone();
    assert_eq!(events.as_array().map(Vec::len), Some(1), "{events}");
    assert_eq!(events[0]["data"], "private");
}

/// It gets the notice with 200, like one whose ticket has expired: an error would close it for good.
#[tokio::test]
async fn an_event_source_with_a_revoked_ticket_gets_a_notice() {
    let api = with_keys().await;
    let ticket = ticket_with(&["staff-1"], |ticket| ticket.label = Some("user-42".to_owned()));
    revoke(&api, json!({ "label": "user-42" })).await;
    for target in ["/stream", "/topics/staff-1", HUB] {
        let ask = api.get(&format!("{target}?ticket={ticket}")).like_a_browser();
        assert!(ask.answer().await.ok().body.contains(r#"{"kind":"revoked"}"#), "{target}");
    }
}
