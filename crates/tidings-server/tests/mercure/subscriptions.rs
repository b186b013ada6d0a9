//! Active subscriptions (the Mercure protocol, "Active subscriptions"), in both revisions. Each test
//! names the checks of the protocol that it covers; the numbers are those of the project's list.

use std::sync::Arc;

use http::Method;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use tidings::Hub;
use tidings_auth::{IssuerConfig, IssuerKeyConfig, MercureRevision, Secret};
use tidings_presence::{PresenceList, SubscriptionIndex};
use tidings_server::Settings;

use crate::support::*;

const OLDER_SECRET: &str = "the secret of an application that signs tokens of the older revision";
const ALL: &str = "/.well-known/mercure/subscriptions";

/// A hub that shows its subscriptions, in both revisions.
async fn both() -> Api {
    api(|settings| settings.older_mercure_revision = true).await
}

async fn api(change: impl FnOnce(&mut Settings)) -> Api {
    let index = Arc::<SubscriptionIndex>::default();
    let noting = Arc::clone(&index);
    let validator = hub().await.validator().clone();
    let builder = Hub::builder().validator(validator);
    // The list is needed by the hub alone: a single one is reported without its tasks.
    let (hub, _) = PresenceList::start(builder, move |who| noting.note(who)).await.expect("a hub");
    let authenticator = authenticator_with(&hub, |config| {
        config.issuers.push(IssuerConfig {
            issuer: "symfony".to_owned(),
            revision: MercureRevision::Older,
            keys: vec![IssuerKeyConfig { kid: None, key: Secret::new(OLDER_SECRET) }],
            ..IssuerConfig::default()
        });
    });
    let mut settings = Settings::default();
    settings.mercure_subscriptions = Some(index);
    settings.allow_origins = vec!["https://app.example".parse().expect("an origin")].into();
    change(&mut settings);
    Api::new(hub, Some(authenticator), settings)
}

/// A token of the current revision with these details.
fn detailed(details: &Value) -> String {
    let claims = json!({
        "iss": ISSUER, "aud": PUBLIC_URL, "exp": unix_secs() + 600, "authorization_details": details,
    });
    let header = Header { typ: Some("at+jwt".to_owned()), ..Header::default() };
    encode(&header, &claims, &EncodingKey::from_secret(SIGNING_SECRET.as_bytes())).expect("a token")
}

fn detail(topics: &Value, payload: Option<Value>) -> Value {
    let mut detail = json!({
        "type": "https://mercure.rocks/authorization-detail", "actions": ["subscribe"], "topics": topics,
    });
    if let Some(payload) = payload {
        detail["payload"] = payload;
    }
    detail
}

fn older(subscribe: &[&str], payload: Option<&Value>) -> String {
    let claims = json!({ "mercure": { "subscribe": subscribe, "payload": payload } });
    encode(&Header::default(), &claims, &EncodingKey::from_secret(OLDER_SECRET.as_bytes())).expect("a token")
}

/// Numbers 39 and 41: the documents, and the payload of the first detail that covers the matcher.
#[tokio::test]
async fn a_collection_contains_each_matcher_of_each_subscriber_with_its_payload() {
    let api = both().await;
    let details = json!([
        detail(&json!([{ "match": "chat" }]), Some(json!({ "in": "chat" }))),
        detail(
            &json!([{ "match": "/rooms/:room", "match_type": "urlpattern" }]),
            Some(json!({ "in": "a room" }))
        ),
        detail(&json!([{ "match": "bare" }]), None),
        detail(&json!([{ "match": "*" }]), Some(json!({ "in": "others" }))),
    ]);
    let target = format!("{HUB}?match=chat&match=bare&match=news&match_urlpattern=/rooms/:room&match=chat");
    let _subscriber = api.get(&target).bearer(&detailed(&details)).stream().await;
    let _anonymous = api.get("/stream?topic=chat").stream().await;
    let all = api.get(ALL).bearer(KEY).answer().await.ok();
    assert_eq!(all.header("content-type"), "application/json");
    let all = all.json();
    assert_eq!((&all["id"], &all["type"]), (&json!(ALL), &json!("subscriptions")));
    let listed = all["subscriptions"].as_array().expect("a list");
    let text = |one: &Value, name: &str| one[name].as_str().expect("a text").to_owned();
    let shown: Vec<_> = listed
        .iter()
        .map(|one| (text(one, "match_type"), text(one, "match"), one["payload"].clone()))
        .collect();
    let exact = |text: &str, payload: Value| ("exact".to_owned(), text.to_owned(), payload);
    let mut chats = shown[1..3].to_vec();
    chats.sort_by_key(|chat| chat.2.is_null());
    assert_eq!(shown[0], exact("bare", Value::Null));
    assert_eq!(chats, [exact("chat", json!({ "in": "chat" })), exact("chat", Value::Null)]);
    assert_eq!(shown[3], exact("news", json!({ "in": "others" })));
    assert_eq!(shown[4], ("urlpattern".to_owned(), "/rooms/:room".to_owned(), json!({ "in": "a room" })));
    assert_eq!(shown.len(), 5);
    // Each is at the path that is its id, and in the collection of its matcher.
    for one in listed {
        assert_eq!(one["type"], "subscription");
        assert_eq!(one["active"], true);
        assert!(text(one, "subscriber").starts_with("urn:uuid:"));
        let id = text(one, "id");
        assert_eq!(&api.get(&id).bearer(KEY).answer().await.ok().json(), one);
        let of_matcher = id.rsplit_once('/').expect("a path").0;
        let collection = api.get(of_matcher).bearer(KEY).answer().await.ok().json();
        assert_eq!(collection["id"], of_matcher);
        assert!(collection["subscriptions"].as_array().is_some_and(|all| all.contains(one)));
    }
}

/// Number 44: a client learns from the metadata that there are active subscriptions.
#[tokio::test]
async fn the_metadata_says_that_active_subscriptions_can_be_read() {
    let metadata = "/.well-known/oauth-protected-resource/.well-known/mercure";
    let document = both().await.get(metadata).answer().await.ok().json();
    assert_eq!(document["mercure_subscriptions"], true);
}

/// Number 40: two connections of one user are two subscribers, and a stream that ended is none.
#[tokio::test]
async fn each_connection_is_a_subscriber_of_its_own_until_it_ends() {
    let api = both().await;
    let ann = token(&[], &["chat"]);
    let first = api.get(&format!("{HUB}?match=chat&match=news")).bearer(&ann).stream().await;
    let _second = api.get(&format!("{HUB}?match=chat")).bearer(&ann).stream().await;
    let subscribers = async || {
        let all = api.get(ALL).bearer(KEY).answer().await.ok().json();
        let names =
            all["subscriptions"].as_array().expect("a list").iter().map(|one| one["subscriber"].to_string());
        names.collect::<Vec<_>>()
    };
    let mut before = subscribers().await;
    assert_eq!(before.len(), 3);
    before.sort();
    before.dedup();
    assert_eq!(before.len(), 2);
    drop(first);
    assert_eq!(subscribers().await.len(), 1);
    let gone = before.iter().map(|name| name.trim_matches('"').replace(':', "%3A"));
    let statuses = async |name: String| {
        api.get(&format!("{ALL}/exact/chat/{name}")).bearer(KEY).answer().await.status.as_u16()
    };
    let mut found = Vec::new();
    for name in gone {
        found.push(statuses(name).await);
    }
    found.sort_unstable();
    assert_eq!(found, [200, 404]);
}

/// Number 41: the permission is one to subscribe to the path.
#[tokio::test]
async fn a_path_needs_a_permission_to_subscribe_to_it() {
    let api = both().await;
    let of_chat = format!("{ALL}/exact/chat");
    for path in [ALL, &of_chat, &format!("{of_chat}/urn%3Auuid%3A0"), &format!("{ALL}/regexp/a")] {
        api.get(path).answer().await.refused(401);
        api.get(path).bearer(CHAT_KEY).answer().await.refused(403);
        api.get(path).bearer(&token(&["*"], &["chat"])).answer().await.refused(403);
        api.get(path).bearer(&ticket(&["chat"])).answer().await.refused(403);
    }
    let one = token(&[], &[&of_chat]);
    api.get(&of_chat).bearer(&one).answer().await.ok();
    // The same path in another spelling.
    api.get(&format!("{ALL}/exact/ch%61t?x")).bearer(&one).answer().await.ok();
    api.get(ALL).bearer(&one).answer().await.refused(403);
    api.get(&format!("{ALL}/exact/chats")).bearer(&one).answer().await.refused(403);
    let pattern = json!([{ "match": "/.well-known/mercure/subscriptions/exact/:text{/:subscriber}?", "match_type": "urlpattern" }]);
    let by_pattern = detailed(&json!([detail(&pattern, None)]));
    api.get(&of_chat).bearer(&by_pattern).answer().await.ok();
    api.get(&format!("{ALL}/urlpattern/chat")).bearer(&by_pattern).answer().await.refused(403);
    let anonymous = keyless_with(Settings::default()).await.get(ALL).answer().await.refused(404);
    assert!(anonymous.contains("`mercure_subscriptions = true`"), "{anonymous}");
}

/// Numbers 41 and 42: what there cannot be is 404; methods and parameters that are wrong are refused.
#[tokio::test]
async fn an_unknown_subscription_is_404() {
    let api = both().await;
    let nobody = "urn%3Auuid%3A00000000-0000-0000-0000-000000000000";
    for path in [
        "/regexp/a/b",
        "/exact/chat/x",
        "/exact/a/b/c",
        "/",
        "/exact/%ff/x",
        &format!("/exact/chat/{nobody}"),
    ] {
        api.get(&format!("{ALL}{path}")).bearer(KEY).answer().await.refused(404);
    }
    let none = api.get(&format!("{ALL}/exact/nobody")).bearer(KEY).answer().await.ok().json();
    assert_eq!(none["subscriptions"], json!([]));
    for parameter in ["limit=0", "limit=10001", "limit=x", "after=x", "limit=1&limit=2"] {
        api.get(&format!("{ALL}?{parameter}")).bearer(KEY).answer().await.refused(400);
    }
    api.ask(Method::POST, ALL).bearer(KEY).answer().await.refused(405);
}

/// Number 42: the link with the cursor, the entity tag, and what pages of other origins see of them.
#[tokio::test]
async fn a_response_names_the_cursor_and_has_an_entity_tag() {
    let api = both().await;
    let origin = |ask: Ask| ask.bearer(KEY).header("origin", "https://app.example");
    let first = origin(api.get(ALL)).answer().await.ok();
    let link = first.header("link").to_owned();
    assert!(
        link.starts_with("</.well-known/mercure>; rel=\"mercure\"; last-event-id=\"earliest\";"),
        "{link}"
    );
    assert!(first.header("access-control-expose-headers").contains("Link"));
    let id = api.form("topic=chat&data=hello").bearer(KEY).answer().await.ok().body;
    let etag = first.header("etag").to_owned();
    let again = origin(api.get(ALL)).header("if-none-match", &etag).answer().await;
    assert_eq!((again.status.as_u16(), &*again.body), (304, ""));
    assert!(again.header("link").contains(&format!("last-event-id=\"{id}\"")), "{}", again.header("link"));
    let _subscriber = api.get(&format!("{HUB}?match=chat")).stream().await;
    let changed = origin(api.get(ALL)).header("if-none-match", &etag).answer().await.ok();
    assert_ne!(changed.header("etag"), etag);
    assert_eq!(changed.header("cache-control"), "private, no-cache");
}

/// Number 41: a collection in pages.
#[tokio::test]
async fn pages_of_a_collection_are_linked() {
    let api = both().await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(api.get(&format!("{HUB}?match=chat&match_urlpattern=/:a")).stream().await);
    }
    for (path, count) in [(ALL.to_owned(), 10), (format!("{ALL}/exact/chat"), 5)] {
        let mut ids = Vec::new();
        let mut next = Some(format!("{path}?limit=3"));
        while let Some(target) = next.take() {
            let page = api.get(&target).bearer(KEY).answer().await.ok();
            let listed = page.json()["subscriptions"].as_array().expect("a list").clone();
            assert!(listed.len() <= 3);
            ids.extend(listed.iter().map(|one| one["id"].to_string()));
            let links = page.headers.get_all("link").iter().map(|link| link.to_str().expect("ASCII"));
            let link = links.filter(|link| link.contains("rel=\"next\"")).map(str::to_owned).next();
            next = link.map(|link| format!("{}&limit=3", link.split(['<', '>']).nth(1).expect("a target")));
        }
        let all = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!((ids.len(), all), (count, count), "{path}");
    }
}

/// The older revision: what the demonstration of hubs before 1.0 does.
#[tokio::test]
async fn a_token_of_the_older_revision_gets_the_documents_of_that_revision() {
    let api = both().await;
    let reader = older(&["/.well-known/mercure/subscriptions{/topic}{/subscriber}"], None);
    let subscriber = older(&[], Some(&json!({ "user": "ann" })));
    let target = format!("{HUB}?topic=chat&topic=https%3A%2F%2Fexample.com%2F%7Bid%7D");
    let _subscriber = api.get(&target).bearer(&subscriber).stream().await;
    let all = api.get(ALL).bearer(&reader).answer().await.ok();
    assert_eq!(all.header("content-type"), "application/ld+json");
    assert_eq!(all.header("link"), "</.well-known/mercure>; rel=\"mercure\"");
    let all = all.json();
    assert_eq!((&all["@context"], &all["type"]), (&json!("https://mercure.rocks/"), &json!("Subscriptions")));
    assert_eq!((&all["id"], &all["lastEventID"]), (&json!(ALL), &json!("earliest")));
    let listed = all["subscriptions"].as_array().expect("a list");
    let topics: Vec<_> = listed.iter().map(|one| one["topic"].as_str().expect("a topic")).collect();
    assert_eq!(topics, ["chat", "https://example.com/{id}"]);
    for one in listed {
        assert_eq!((&one["type"], &one["active"]), (&json!("Subscription"), &json!(true)));
        assert_eq!(one["payload"], json!({ "user": "ann" }));
        assert!(
            one.get("@context").is_none() && one.get("lastEventID").is_none() && one.get("match").is_none()
        );
        let id = one["id"].as_str().expect("an id");
        let alone = api.get(id).bearer(&reader).answer().await.ok().json();
        assert_eq!((&alone["topic"], &alone["lastEventID"]), (&one["topic"], &json!("earliest")));
        let of_topic = id.rsplit_once('/').expect("a path").0;
        let collection = api.get(of_topic).bearer(&reader).answer().await.ok().json();
        assert_eq!(collection["subscriptions"], json!([one]));
    }
    api.get(ALL).bearer(&older(&["chat"], None)).answer().await.refused(403);
    // The credentials that only this revision allows work here as for its streams.
    api.get(&format!("{ALL}?authorization={reader}")).answer().await.ok();
    api.get(ALL).header("cookie", format!("mercureAuthorization={reader}")).answer().await.ok();
}

/// A request is of the older revision by its credential or by what it accepts.
#[tokio::test]
async fn other_credentials_get_the_older_documents_on_request() {
    let api = both().await;
    let current = api.get(ALL).bearer(KEY).answer().await.ok();
    assert_eq!(current.json()["type"], "subscriptions");
    let older = api.get(ALL).bearer(KEY).header("accept", "application/ld+json").answer().await.ok();
    assert_eq!(older.json()["type"], "Subscriptions");
    let of_topic = api.get(&format!("{ALL}/chat")).bearer(KEY).answer().await.ok();
    assert_eq!(of_topic.json()["type"], "Subscriptions");
    let alone = api_without_older().await;
    let accepting = alone.get(ALL).bearer(KEY).header("accept", "application/ld+json").answer().await.ok();
    assert_eq!(accepting.json()["type"], "subscriptions");
    alone.get(&format!("{ALL}/chat")).bearer(KEY).answer().await.refused(404);
}

async fn api_without_older() -> Api {
    api(|_| {}).await
}
