//! The older revision (0.x) of the Mercure protocol. Each test names the checks of the protocol that
//! it covers; the numbers are those of the project's list.

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use tidings_auth::{IssuerConfig, IssuerKeyConfig, MercureRevision, Secret};
use tidings_server::Settings;

use crate::support::{
    Api, HUB, KEY, authenticator_with, hub, keyless, keyless_with, token, unix_secs, with_keys,
};

const OLDER_SECRET: &str = "the secret of an application that signs tokens of the older revision";

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.older_mercure_revision = true;
    settings
}

/// A hub that serves both revisions, with an issuer of each.
async fn both() -> Api {
    let hub = hub().await;
    let authenticator = authenticator_with(&hub, |config| {
        config.issuers.push(IssuerConfig {
            issuer: "symfony".to_owned(),
            revision: MercureRevision::Older,
            keys: vec![IssuerKeyConfig { kid: None, key: Secret::new(OLDER_SECRET) }],
            ..IssuerConfig::default()
        });
    });
    let mut settings = settings();
    settings.allow_origins = vec!["https://app.example".parse().expect("an origin")].into();
    Api::new(hub, Some(authenticator), settings)
}

/// A token as the libraries for hubs before 1.0 make it.
fn older(claims: &Value) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(OLDER_SECRET.as_bytes())).expect("a token")
}

fn subscriber(topics: &[&str]) -> String {
    older(&json!({ "mercure": { "subscribe": topics } }))
}

fn publisher(topics: &[&str]) -> String {
    older(&json!({ "mercure": { "publish": topics } }))
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Number 46: every topic, one topic, or a template.
#[tokio::test]
async fn a_topic_parameter_is_every_topic_one_topic_or_a_template() {
    let api = keyless_with(settings()).await;
    let one = encoded("https://example.com/books/1");
    let template = encoded("https://example.com/books/{id}");
    let mut exact = api.get(&format!("{HUB}?topic={one}")).stream().await;
    let mut by_template = api.get(&format!("{HUB}?topic={template}&topic=news")).stream().await;
    let mut all = api.get(&format!("{HUB}?topic=*")).stream().await;
    for topic in [
        "https://example.com/books/1",
        "https://example.com/books/2",
        "https://example.com/books/2/x",
        "news",
    ] {
        api.form(&format!("topic={}&data={topic}", encoded(topic))).answer().await.ok();
    }
    for topic in [
        "https://example.com/books/1",
        "https://example.com/books/2",
        "https://example.com/books/2/x",
        "news",
    ] {
        assert_eq!(all.data().await, topic);
    }
    for topic in ["https://example.com/books/1", "https://example.com/books/2", "news"] {
        assert_eq!(by_template.data().await, topic);
    }
    assert_eq!(exact.data().await, "https://example.com/books/1");
}

/// Number 46: a large template is refused before it is compiled, and an alternate topic counts.
#[tokio::test]
async fn templates_are_bounded_and_compared_with_every_topic_of_an_event() {
    let api = keyless_with(settings()).await;
    let detail = api.get(&format!("{HUB}?topic={}", encoded("{a:9999}"))).answer().await.refused(400);
    assert!(detail.contains("URI Template"), "{detail}");
    let long = encoded(&format!("{{a}}{}", "b".repeat(4_000)));
    let many = [long.as_str(); 5].join("&topic=");
    api.get(&format!("{HUB}?topic={many}")).answer().await.refused(400);
    api.get(&format!("{HUB}?topic=")).answer().await.refused(400);
    let mut stream = api.get(&format!("{HUB}?topic={}", encoded("/b/{id}"))).stream().await;
    api.form("topic=/a&data=no").answer().await.ok();
    api.form("topic=/a&topic=/b/1&data=yes").answer().await.ok();
    assert_eq!(stream.data().await, "yes");
}

/// Clients of both revisions use one hub, one log and one order, in one request even.
#[tokio::test]
async fn clients_of_both_revisions_receive_one_order() {
    let api = both().await;
    let by_pattern = format!("{HUB}?match_urlpattern={}", encoded("/rooms/:id"));
    let by_template = format!("{HUB}?topic={}", encoded("/rooms/{id}"));
    let both_in_one = format!("{HUB}?match=%2Frooms%2F1&topic={}", encoded("/rooms/{id}"));
    let current = token(&[], &["/rooms/1", "/rooms/2"]);
    let mut streams = [
        api.get(&by_pattern).bearer(&current).stream().await,
        api.get(&by_template).bearer(&subscriber(&["/rooms/{id}"])).stream().await,
        api.get(&both_in_one).bearer(&subscriber(&["*"])).stream().await,
    ];
    for number in 0..40 {
        let topic = format!("/rooms/{}", 1 + number % 2);
        let credential = if number % 3 == 0 { publisher(&["/rooms/{id}"]) } else { token(&[&topic], &[]) };
        let private = if number % 4 == 0 { "&private=on" } else { "" };
        api.form(&format!("topic={topic}&data={number}{private}")).bearer(&credential).answer().await.ok();
    }
    for stream in &mut streams {
        for number in 0..40 {
            assert_eq!(stream.data().await, number.to_string());
        }
    }
}

/// Number 47: publishing needs every topic, receiving a private event one of them.
#[tokio::test]
async fn a_token_of_the_older_revision_allows_what_it_names() {
    let api = both().await;
    let url = format!("{HUB}?topic=a&topic=b");
    let mut entitled = api.get(&url).bearer(&subscriber(&["b"])).stream().await;
    let mut without = api.get(&url).bearer(&older(&json!({}))).stream().await;
    let mut anonymous = api.get(&url).stream().await;
    let publish = |body: &str, credential: &str| api.form(body).bearer(credential).answer();
    publish("topic=a&topic=b&data=private&private=on", &publisher(&["a", "b"])).await.ok();
    publish("topic=a&topic=c&data=x", &publisher(&["a", "b"])).await.refused(403);
    publish("topic=a&data=x", &subscriber(&["*"])).await.refused(403);
    publish("topic=a&data=x", &older(&json!({}))).await.refused(403);
    publish("topic=a&data=public", &publisher(&["*"])).await.ok();
    assert_eq!(entitled.data().await, "private");
    assert_eq!(entitled.data().await, "public");
    assert_eq!(without.data().await, "public");
    assert_eq!(anonymous.data().await, "public");
    let expired = older(&json!({ "mercure": { "publish": ["*"] }, "exp": unix_secs() - 1 }));
    publish("topic=a", &expired).await.refused(401);
}

/// Number 48: the header counts first, then the parameter, then the cookies. Number 32: a cookie that
/// writes needs the origin of an allowed page.
#[tokio::test]
async fn a_token_may_be_in_the_url_or_in_the_cookie_of_the_older_revision() {
    let api = both().await;
    let (a, b) = (subscriber(&["a"]), subscriber(&["b"]));
    let cookie = format!("other=1; mercureAuthorization={b}");
    let url = format!("{HUB}?topic=a&topic=b&authorization={a}");
    let mut by_parameter = api.get(&url).header("cookie", &cookie).stream().await;
    let mut by_cookie = api.get(&format!("{HUB}?topic=a&topic=b")).header("cookie", &cookie).stream().await;
    let mut by_header = api.get(&url).bearer(&b).stream().await;
    for topic in ["a", "b"] {
        api.form(&format!("topic={topic}&data={topic}&private=on")).bearer(KEY).answer().await.ok();
    }
    assert_eq!(by_parameter.data().await, "a");
    assert_eq!(by_cookie.data().await, "b");
    assert_eq!(by_header.data().await, "b");

    let publisher = publisher(&["a"]);
    let with_cookie = || api.form("topic=a").header("cookie", format!("mercureAuthorization={publisher}"));
    with_cookie().answer().await.refused(403);
    with_cookie().header("origin", "https://elsewhere.example").answer().await.refused(403);
    with_cookie().header("origin", "https://app.example").answer().await.ok();
    let in_url = api.post(&format!("{HUB}?authorization={publisher}"), "topic=a");
    in_url.header("content-type", "application/x-www-form-urlencoded").answer().await.ok();
}

/// What the older revision has in a URL is read on its path alone, and nothing else is read there.
#[tokio::test]
async fn only_tokens_of_the_older_revision_are_read_in_the_url_and_only_on_its_path() {
    let api = both().await;
    let older = subscriber(&["*"]);
    for target in
        [format!("/stream?topic=a&authorization={older}"), format!("/topics/a?authorization={older}")]
    {
        api.get(&target).header("accept", "text/event-stream").answer().await.refused(401);
    }
    for credential in [KEY.to_owned(), token(&[], &["*"])] {
        let detail =
            api.get(&format!("{HUB}?topic=a&authorization={credential}")).answer().await.refused(401);
        assert!(detail.contains("`authorization`") && !detail.contains(&credential), "{detail}");
    }
    api.get("/stream?topic=a")
        .header("cookie", format!("mercureAuthorization={older}"))
        .answer()
        .await
        .refused(401);
}

/// Numbers 36 and 50: every spelling of the cursor, and both headers of the reply.
#[tokio::test]
async fn a_client_of_the_older_revision_resumes_by_every_spelling_of_its_cursor() {
    let api = keyless_with(settings()).await;
    for id in ["1", "2", "3"] {
        api.form(&format!("topic=a&id={id}&data={id}")).answer().await.ok();
    }
    for name in ["lastEventID", "Last-Event-ID", "last_event_id", "lastEventId"] {
        for (parameter, revision) in [("topic", "0.x"), ("match", "1.0")] {
            let mut stream = api.get(&format!("{HUB}?{parameter}=a&{name}=2")).stream().await;
            for header in ["last-event-id", "mercure-last-event-id"] {
                assert_eq!(stream.header(header), Some("2"), "{name} {revision}");
            }
            assert_eq!(stream.data().await, "3", "{name} {revision}");
        }
    }
    let mut both =
        api.get(&format!("{HUB}?topic=a&lastEventID=2")).header("last-event-id", "1").stream().await;
    assert_eq!(both.header("last-event-id"), Some("1"));
    assert_eq!(both.data().await, "2");
    let all = api.get(&format!("{HUB}?topic=a&lastEventID=earliest")).stream().await;
    assert_eq!(all.header("last-event-id"), Some("earliest"));
    let none = api.get(&format!("{HUB}?topic=a")).stream().await;
    assert_eq!((none.header("last-event-id"), none.header("mercure-last-event-id")), (None, None));
}

/// By default nothing of the older revision is served, and each refusal names the setting.
#[tokio::test]
async fn a_hub_of_the_current_revision_alone_names_the_setting() {
    let setting = "`mercure_revisions = [\"1.0\", \"0.x\"]`";
    let api = keyless().await;
    for query in ["topic=a", "match=a&topic=b", "topic=*"] {
        let detail = api.get(&format!("{HUB}?{query}")).answer().await.refused(400);
        assert!(detail.contains(setting), "{detail}");
    }
    api.form("topic=a&id=1").answer().await.ok();
    let stream = api.get(&format!("{HUB}?match=a&lastEventID=1")).stream().await;
    assert_eq!((stream.header("mercure-last-event-id"), stream.header("last-event-id")), (Some("1"), None));

    let api = with_keys().await;
    let older = subscriber(&["*"]);
    let detail = api.get(&format!("{HUB}?match=a")).bearer(&older).answer().await.refused(401);
    assert!(detail.contains(setting), "{detail}");
    api.get(&format!("{HUB}?match=a&authorization={older}")).answer().await.refused(401);
    let cookie = format!("mercureAuthorization={older}");
    api.get(&format!("{HUB}?match=a")).header("cookie", cookie).answer().await.refused(401);
}
