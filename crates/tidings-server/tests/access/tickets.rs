//! Tickets and cookies: how they are made, what they allow, and what a browser receives that comes
//! with one that has expired.

use std::num::NonZeroU32;

use serde_json::json;
use tidings_server::{AllowedOrigin, Settings};

use crate::support::*;

const FORM: &str = "application/x-www-form-urlencoded";
const COOKIE: &str = "__Secure-mercure_access_token";
const PAGE: &str = "https://app.example";

fn make(api: &Api, body: &str) -> Ask {
    api.post("/tickets", body.to_owned()).header("content-type", FORM)
}

fn make_json(api: &Api, body: &serde_json::Value) -> Ask {
    api.post("/tickets", body.to_string()).header("content-type", "application/json")
}

async fn publish(api: &Api, topic: &str, data: &str) {
    api.post(&format!("/topics/{topic}"), data.to_owned()).bearer(KEY).answer().await.ok();
}

#[tokio::test]
async fn a_ticket_is_made_from_a_form_or_json_and_answered_as_text_or_json() {
    let api = with_keys().await;
    let text = make(&api, "topic=staff-1&label=kevin&expires=60").bearer(KEY).answer().await.ok();
    assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(text.header("cache-control"), "no-store");
    let wanted = json!({ "topic": "staff-1", "label": "kevin", "expires": 60 });
    let answer =
        make_json(&api, &wanted).bearer(KEY).header("accept", "application/json").answer().await.ok();
    let answer = answer.json();
    assert!(answer["id"].as_str().is_some_and(|id| id.len() >= 16), "{answer}");
    let expires_at = answer["expires_at"].as_u64().expect("a number");
    assert!((unix_secs()..unix_secs() + 61).contains(&(expires_at - 1)), "{answer}");
    for ticket in [&text.body, answer["ticket"].as_str().expect("a ticket")] {
        let mut stream = api.get(&format!("/stream?ticket={ticket}")).stream().await;
        stream.until("retry: ").await;
        publish(&api, "staff-1", "for kevin").await;
        stream.until("data: for kevin\n\n").await;
    }
}

#[tokio::test]
async fn a_list_of_topics_and_patterns_is_written_alike_in_a_form_and_in_json() {
    let api = with_keys().await;
    let form = make(&api, "topic=a&topic=b&pattern=%2Frooms%2F%3Aid&streams_max=3&address=192.0.2.7");
    let list =
        json!({ "topic": ["a", "b"], "pattern": ["/rooms/:id"], "streams_max": 3, "address": "192.0.2.7" });
    for ask in [form, make_json(&api, &list)] {
        let ticket = ask.bearer(KEY).answer().await.ok().body;
        let mut stream = api.get(&format!("/stream?ticket={ticket}")).from("192.0.2.7:1000").stream().await;
        stream.until("retry: ").await;
        for topic in ["a", "b", "other", "rooms/7", "/rooms/7"] {
            publish(&api, topic, &format!("on {topic}")).await;
        }
        let received = stream.until("data: on /rooms/7\n\n").await;
        assert!(received.contains("on a\n") && received.contains("on b\n") && !received.contains("on other"));
    }
}

#[tokio::test]
async fn a_ticket_is_made_only_by_a_key_that_covers_it() {
    let api = with_keys().await;
    let chat = make(&api, "topic=chat").bearer(CHAT_KEY).answer().await.ok().body;
    for (body, part) in [
        ("topic=staff-1", "`staff-1`"),
        ("topic=chat&topic=news", "`news`"),
        ("topic=*", "every topic"),
        ("pattern=*", "every topic"),
        ("pattern=%2Fchat%2F%3Aid", "the very pattern `/chat/:id`"),
    ] {
        let detail = make(&api, body).bearer(CHAT_KEY).answer().await.refused(403);
        assert!(detail.contains(part), "{detail}");
    }
    make(&api, "topic=chat").answer().await.refused(401);
    make(&api, "topic=chat").bearer("wrong").answer().await.refused(401);
    for (credential, part) in [(token(&["*"], &["*"]), "Only a key"), (chat, "only allows to subscribe")] {
        let detail = make(&api, "topic=chat").bearer(&credential).answer().await.refused(403);
        assert!(detail.contains(part), "{detail}");
    }
}

#[tokio::test]
async fn a_request_for_a_ticket_that_is_wrong_is_refused_with_the_field() {
    let api = with_keys().await;
    for (body, part) in [
        ("", "`topics`"),
        ("topic=", "cannot be used"),
        ("topics=a", "Did you mean `topic`?"),
        ("topic=a&expires=1h", "`expires` is `1h`"),
        ("topic=a&expires=-1", "`expires`"),
        ("topic=a&expires=0", "expires before"),
        ("topic=a&expires=86401", "longer than a day"),
        ("topic=a&expires=60&expires=70", "more than once"),
        ("topic=a&streams_max=0", "`streams_max` is `0`"),
        ("topic=a&address=localhost", "`address` is `localhost`"),
        ("topic=a&label=", "`label`"),
        ("topic=a&label=a%0Ab", "`label`"),
        ("pattern=%2Fa%2F%3A", "names the pattern"),
    ] {
        let detail = make(&api, body).bearer(KEY).answer().await.refused(400);
        assert!(detail.contains(part), "{body}: {detail}");
    }
    for (body, part) in [
        ("", "begin with `{`"),
        ("{", "EOF"),
        (r#"[["a"]]"#, "begin with `{`"),
        ("[]", "like `{\"topic\":"),
        (r#"{"topic":1}"#, "a string or a list of strings"),
        (r#"{"topic":"a","topics":["b"]}"#, "unknown field `topics`"),
        (r#"{"topic":"a","topic":"b"}"#, "duplicate field `topic`"),
        (r#"{"topic":"a","expires":"60"}"#, "expected u64"),
    ] {
        let ask = api.post("/tickets", body.to_owned()).header("content-type", "application/json");
        let detail = ask.bearer(KEY).answer().await.refused(400);
        assert!(detail.contains(part), "{body}: {detail}");
    }
    let plain = api.post("/tickets", "topic=a").header("content-type", "text/plain").bearer(KEY);
    assert!(plain.answer().await.refused(415).contains("application/json"));
    let long = format!("topic={}", "x".repeat(4_000));
    assert!(make(&api, &long).bearer(KEY).answer().await.refused(400).contains("4096"));
    let query = api.post("/tickets?topic=a", "").header("content-type", FORM).bearer(KEY);
    assert!(query.answer().await.refused(400).contains("`topic`"));
    api.get("/tickets").bearer(KEY).answer().await.refused(405);
}

#[tokio::test]
async fn a_hub_without_keys_names_the_missing_setting() {
    let api = keyless().await;
    let detail = make(&api, "topic=a").answer().await.refused(404);
    assert!(detail.contains("[[ticket_secret]]"), "{detail}");
    let detail = api.get(&format!("/stream?ticket={}", ticket(&["a"]))).answer().await.refused(401);
    assert!(detail.contains("[[ticket_secret]]"), "{detail}");
}

/// Fault C1: a browser could not receive a private event at all.
#[tokio::test]
async fn a_plain_event_source_receives_private_events_with_a_ticket() {
    let api = with_keys().await;
    let ticket = ticket(&["staff-1", "staff-2"]);
    for target in [
        format!("/stream?ticket={ticket}"),
        format!("/stream?topic=staff-1&ticket={ticket}"),
        format!("/topics/staff-1?ticket={ticket}"),
        format!("{HUB}?ticket={ticket}"),
        format!("{HUB}?match=staff-1&ticket={ticket}"),
    ] {
        let mut stream = api.get(&target).like_a_browser().stream().await;
        stream.until("retry: ").await;
        publish(&api, "staff-1", "private").await;
        stream.until("data: private\n\n").await;
    }
    let summary = api.get(&format!("/topics/staff-1?ticket={ticket}")).header("accept", "application/json");
    assert_eq!(summary.answer().await.ok().json()["events"].as_array().map(Vec::len), Some(5));
}

#[tokio::test]
async fn a_stream_chooses_within_its_ticket() {
    let api = with_keys().await;
    let ticket = ticket_with(&["staff-1", "chat"], |ticket| ticket.patterns = vec!["/rooms/:id".to_owned()]);
    let mut stream = api.get(&format!("/stream?topic=staff-1&ticket={ticket}")).stream().await;
    stream.until("retry: ").await;
    publish(&api, "chat", "allowed, and not chosen").await;
    publish(&api, "staff-1", "chosen").await;
    let received = stream.until("data: chosen\n\n").await;
    assert!(!received.contains("not chosen"), "{received}");

    for choice in ["topic=/rooms/7", "pattern=/rooms/:id", "topic=chat&pattern=/rooms/:id"] {
        api.get(&format!("/stream?{choice}&ticket={ticket}")).stream().await;
    }
    for (choice, part) in [
        ("topic=staff-2", "`staff-2`"),
        // Public, but not in the ticket.
        ("topic=news", "`news`"),
        ("topic=staff-1&topic=news", "`news`"),
        ("topic=*", "`*`"),
        ("pattern=*", "`*`"),
        ("pattern=/rooms/:other", "`/rooms/:other`"),
    ] {
        let detail = api.get(&format!("/stream?{choice}&ticket={ticket}")).answer().await.refused(403);
        assert!(detail.contains(part), "{choice}: {detail}");
    }
    let summary = api.get(&format!("/topics/news?ticket={ticket}")).header("accept", "application/json");
    summary.answer().await.refused(403);
    api.get(&format!("/topics/news?ticket={ticket}")).answer().await.refused(403);
    api.get(&format!("{HUB}?match=news&ticket={ticket}")).answer().await.refused(403);
}

#[tokio::test]
async fn the_topics_of_a_ticket_come_before_those_of_the_configuration() {
    let hub = hub().await;
    let mut settings = Settings::default();
    settings.default_topics = vec![hub.validator().exact("news").expect("valid")];
    let api = Api::new(hub.clone(), Some(authenticator(&hub)), settings);
    let mut stream = api.get(&format!("/stream?ticket={}", ticket(&["staff-1"]))).stream().await;
    stream.until("retry: ").await;
    publish(&api, "news", "configured").await;
    publish(&api, "staff-1", "of the ticket").await;
    let received = stream.until("data: of the ticket\n\n").await;
    assert!(!received.contains("configured"), "{received}");
}

#[tokio::test]
async fn a_ticket_writes_nothing() {
    let api = with_keys().await;
    let everything = ticket(&["*"]);
    for ask in [
        api.post("/topics/chat", "x"),
        api.post(&format!("/topics/chat?ticket={everything}"), "x"),
        api.ask(http::Method::DELETE, "/topics/chat"),
        api.form("topic=chat&data=x"),
    ] {
        let detail = ask.bearer(&everything).answer().await.refused(403);
        assert!(detail.contains("only allows to subscribe"), "{detail}");
    }
    api.post(&format!("/topics/chat?ticket={everything}"), "x").answer().await.refused(403);
    assert_eq!(api.hub.stats().published, 0);
}

#[tokio::test]
async fn a_ticket_for_another_address_is_refused() {
    let api = with_keys().await;
    let ticket = ticket_with(&["staff-1"], |ticket| ticket.address = Some([192, 0, 2, 7].into()));
    let target = format!("/stream?ticket={ticket}");
    api.get(&target).from("192.0.2.7:1000").stream().await;
    for ask in [api.get(&target).from("192.0.2.8:1000"), api.get(&target), api.get(&target).like_a_browser()]
    {
        let detail = ask.answer().await.refused(403);
        assert!(detail.contains("another address") && !detail.contains("192.0.2"), "{detail}");
    }
}

/// What a native EventSource receives in the place of an error, which would close it for good.
#[track_caller]
fn notice(answer: &Answer, kind: &str, retry_secs: std::ops::Range<u64>) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.header("connection"), "close");
    let lines: Vec<_> = answer.body.lines().collect();
    let [event, retry, data, ""] = lines[..] else { panic!("{answer:?}") };
    assert_eq!((event, data), ("event: tidings", format!(r#"data: {{"kind":"{kind}"}}"#).as_str()));
    let millis: u64 = retry.strip_prefix("retry: ").and_then(|text| text.parse().ok()).expect("a number");
    assert!((retry_secs.start * 1_000..retry_secs.end * 1_000 + 1).contains(&millis), "{millis}");
}

#[tokio::test]
async fn a_native_event_source_with_an_expired_credential_gets_a_notice_and_others_401() {
    let api = with_keys().await;
    let ticket = expired_ticket(&["staff-1"]);
    let token = token_until(&[], &["staff-1"], unix_secs() - 1);
    for target in ["/stream?topic=staff-1&", "/topics/staff-1?", &format!("{HUB}?match=staff-1&")] {
        let by_ticket = || api.get(&format!("{target}ticket={ticket}"));
        let by_cookie = || api.get(target).header("cookie", format!("{COOKIE}={token}"));
        notice(&by_ticket().like_a_browser().answer().await, "expired", 150..450);
        notice(&by_cookie().like_a_browser().answer().await, "expired", 150..450);
        for ask in [by_ticket(), by_cookie(), api.get(target).bearer(&token).like_a_browser()] {
            let answer = ask.answer().await;
            assert!(answer.refused(401).contains("has expired"), "{answer:?}");
            assert!(answer.header("www-authenticate").contains("invalid_token"));
        }
    }
    // Only what was valid once: a page must learn that its ticket is wrong.
    let last = if ticket.ends_with('A') { 'E' } else { 'A' };
    let tampered = format!("{}{last}", &ticket[..ticket.len() - 1]);
    for wrong in [tampered, ticket[..ticket.len() - 1].to_owned(), "tt1.1.e30.AAAA".to_owned()] {
        let ask = api.get(&format!("/stream?ticket={wrong}")).like_a_browser();
        ask.answer().await.refused(401);
    }
}

#[tokio::test]
async fn the_notice_of_an_expired_ticket_is_readable_for_an_allowed_page() {
    let mut settings = Settings::default();
    settings.allow_origins = vec![PAGE.parse().expect("an origin")].into();
    let api = with_keys_and(settings).await;
    let target = format!("/stream?ticket={}", expired_ticket(&["staff-1"]));
    let answer = api.get(&target).like_a_browser().header("origin", PAGE).answer().await;
    notice(&answer, "expired", 150..450);
    assert_eq!(answer.header("access-control-allow-origin"), PAGE);
}

#[tokio::test]
async fn streams_beyond_the_limit_of_a_ticket_get_429_or_a_notice() {
    let api = with_keys().await;
    let ticket = ticket_with(&["staff-1"], |ticket| ticket.streams_max = NonZeroU32::new(2));
    let target = format!("/stream?ticket={ticket}");
    let open = [api.get(&target).stream().await, api.get(&target).stream().await];
    let answer = api.get(&target).answer().await;
    assert!(answer.refused(429).contains("limit of 2 open streams"), "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"));
    notice(&api.get(&target).like_a_browser().answer().await, "over-limit", 15..45);
    drop(open);
    api.get(&target).stream().await;
}

fn with_origin() -> Settings {
    let mut settings = Settings::default();
    settings.allow_origins = vec![PAGE.parse().expect("an origin"), AllowedOrigin::Any].into();
    settings
}

#[tokio::test]
async fn a_cookie_carries_a_key_a_token_or_a_ticket() {
    let api = with_keys().await;
    for credential in [KEY.to_owned(), token(&[], &["staff-1"]), ticket(&["staff-1"])] {
        let cookie = format!("session=1; {COOKIE}={credential}");
        let mut stream = api.get("/stream?topic=staff-1").header("cookie", cookie).stream().await;
        stream.until("retry: ").await;
        publish(&api, "staff-1", "private").await;
        stream.until("data: private\n\n").await;
    }
    api.get("/stream?topic=staff-1").header("cookie", format!("{COOKIE}=wrong")).answer().await.refused(401);
}

/// torture.md, security 7: a browser sends its cookies for every page.
#[tokio::test]
async fn a_write_with_a_cookie_needs_an_allowed_page_security_7() {
    let api = with_keys_and(with_origin()).await;
    let writes = [
        ("POST", "/topics/chat", "", "x"),
        ("DELETE", "/topics/chat", "", ""),
        ("POST", "/topics", "application/x-ndjson", r#"{"topic":"chat","data":"x"}"#),
        ("POST", HUB, FORM, "topic=chat&data=x"),
        ("POST", "/tickets", FORM, "topic=chat"),
    ];
    for (method, target, content_type, body) in writes {
        let ask = || {
            let ask = api.ask(method.parse().expect("a method"), target).body(body);
            let ask = ask.header("cookie", format!("{COOKIE}={KEY}"));
            if content_type.is_empty() { ask } else { ask.header("content-type", content_type) }
        };
        for (name, value) in [
            ("origin", PAGE),
            ("origin", "http://localhost:8080"),
            ("origin", "https://hub.example"),
            ("referer", "https://app.example/page"),
            ("referer", "https://hub.example/page"),
        ] {
            let answer = ask().header(name, value).answer().await;
            assert!(answer.status.is_success(), "{target} {value}: {answer:?}");
        }
        for (name, value) in [
            // Allowed by `*`, which is without credentials.
            ("origin", "https://evil.example"),
            ("origin", "https://app.example.evil.example"),
            ("origin", "null"),
            ("origin", ""),
            ("referer", "https://evil.example/https://app.example/"),
            ("referer", ""),
            ("referer", "about:blank"),
            // The hub has TLS: anyone between it and the browser writes pages without.
            ("origin", "http://hub.example"),
            ("referer", "http://hub.example/page"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "cross-site"),
            ("x-nothing", "x"),
        ] {
            ask().header(name, value).header("host", "hub.example").answer().await.refused(403);
        }
        // Programs need no page: they send the header, which then counts.
        let answer = ask().bearer(KEY).answer().await;
        assert!(answer.status.is_success(), "{target}: {answer:?}");
    }
}
