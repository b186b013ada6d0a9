//! Web pages of other sites, and names that are not ours.

mod support;

use http::Method;
use support::{Answer, Ask, Face, HUB, KEY, keyless, keyless_with, with_keys, with_keys_and};
use tidings_server::{Keyless, Settings};

fn allowing(origins: &[&str]) -> Settings {
    let mut settings = Settings::default();
    settings.allow_origins = origins.iter().map(|origin| origin.parse().expect("an origin")).collect();
    settings
}

fn preflight(face: &Face, target: &str, origin: &str) -> Ask {
    face.ask(Method::OPTIONS, target).header("origin", origin).header("access-control-request-method", "POST")
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.headers.get("access-control-allow-origin").map(|value| value.to_str().expect("ASCII"))
}

const LOOPBACK: [&str; 5] = [
    "http://localhost:5173",
    "https://localhost",
    "http://127.0.0.1:8000",
    "http://[::1]:1",
    "http://app.localhost:3000",
];

const FOREIGN: [&str; 8] = [
    "https://evil.example",
    "null",
    "http://localhost.evil.example",
    "http://127.0.0.1.evil.example",
    "http://localhost:5173/path",
    "http://user@localhost",
    "file://localhost",
    "nonsense",
];

#[tokio::test]
async fn without_keys_any_page_of_this_machine_may_read_and_publish_without_credentials() {
    let face = keyless().await;
    for origin in LOOPBACK {
        for ask in [
            face.get("/topics/chat").header("accept", "application/json"),
            face.post("/topics/chat", "x"),
            face.form("topic=chat"),
        ] {
            let answer = ask.header("origin", origin).answer().await.ok();
            assert_eq!(allowed(&answer), Some(origin));
            assert!(!answer.headers.contains_key("access-control-allow-credentials"));
            assert!(answer.headers.get_all("vary").iter().any(|value| value == "Origin"));
            let exposed = answer.header("access-control-expose-headers");
            for name in ["Mercure-Last-Event-ID", "Last-Event-ID", "Link", "Retry-After"] {
                assert!(exposed.contains(name), "{name}");
            }
        }
        let answer = preflight(&face, "/topics/chat", origin).answer().await;
        assert_eq!((answer.status.as_u16(), allowed(&answer)), (204, Some(origin)));
    }
}

#[tokio::test]
async fn without_keys_a_foreign_page_publishes_nothing_and_reads_nothing() {
    let face = keyless().await;
    for origin in FOREIGN {
        for ask in [
            face.post("/topics/chat", "x"),
            face.form("topic=chat"),
            face.post("/topics", r#"{"topic":"chat","data":1}"#),
        ] {
            let answer = ask.header("origin", origin).answer().await;
            assert!(answer.refused(403).contains("--allow-origin"), "{answer:?}");
            assert_eq!(allowed(&answer), None);
        }
        let answer = preflight(&face, "/topics/chat", origin).answer().await;
        assert_eq!((answer.status.as_u16(), allowed(&answer)), (403, None), "{origin}");
        let stream = face.get("/stream?topic=chat").header("origin", origin).stream().await;
        assert_eq!(stream.header("access-control-allow-origin"), None);
    }
    assert_eq!(face.hub.stats().published, 0);
}

#[tokio::test]
async fn two_origins_are_none() {
    let face = keyless().await;
    let ask = face
        .post("/topics/chat", "x")
        .header("origin", "http://localhost")
        .header("origin", "https://evil.example");
    ask.answer().await.refused(403);
}

#[tokio::test]
async fn a_page_of_the_hub_itself_may_publish_however_its_port_is_spelled() {
    let face = keyless().await;
    for (origin, host) in [
        ("http://localhost:8080", "localhost:8080"),
        ("https://hub.example", "hub.example"),
        ("https://hub.example", "hub.example:443"),
        ("https://hub.example", "localhost:8080"),
    ] {
        face.post("/topics/chat", "x").header("origin", origin).header("host", host).answer().await.ok();
    }
    for (origin, host) in
        [("https://hub.example:444", "hub.example"), ("http://hub.example", "hub.example:443")]
    {
        face.post("/topics/chat", "x")
            .header("origin", origin)
            .header("host", host)
            .answer()
            .await
            .refused(403);
    }
}

#[tokio::test]
async fn curl_sends_no_origin_and_is_welcome() {
    let face = keyless().await;
    let answer = face.post("/topics/chat", "x").answer().await.ok();
    assert_eq!(allowed(&answer), None);
}

#[tokio::test]
async fn a_named_origin_is_echoed_with_credentials() {
    for face in [
        keyless_with(allowing(&["https://app.example"])).await,
        with_keys_and(allowing(&["https://app.example"])).await,
    ] {
        for ask in [
            face.get("/topics/chat").header("accept", "application/json"),
            face.post("/topics/chat", "x").bearer(KEY),
        ] {
            let answer = ask.header("origin", "https://app.example").answer().await.ok();
            assert_eq!(allowed(&answer), Some("https://app.example"));
            assert_eq!(answer.header("access-control-allow-credentials"), "true");
            assert!(answer.headers.get_all("vary").iter().any(|value| value == "Origin"));
        }
        let stream =
            face.get(&format!("{HUB}?match=a")).header("origin", "https://app.example").stream().await;
        assert_eq!(stream.header("access-control-allow-origin"), Some("https://app.example"));
    }
}

#[tokio::test]
async fn with_keys_only_named_origins_read_even_of_this_machine() {
    let face = with_keys_and(allowing(&["https://app.example"])).await;
    for origin in LOOPBACK.into_iter().chain(FOREIGN) {
        let stream = face.get("/stream?topic=chat").header("origin", origin).stream().await;
        assert_eq!(stream.header("access-control-allow-origin"), None);
        preflight(&face, HUB, origin).answer().await.refused(403);
    }
}

#[tokio::test]
async fn with_keys_the_credential_decides_who_publishes() {
    let face = with_keys().await;
    let answer = face
        .post("/topics/chat", "x")
        .bearer(KEY)
        .header("origin", "https://elsewhere.example")
        .answer()
        .await
        .ok();
    assert_eq!(allowed(&answer), None);
}

#[tokio::test]
async fn all_origins_are_allowed_without_credentials_and_null_never() {
    let face = with_keys_and(allowing(&["*", "https://app.example"])).await;
    let any = face.get("/healthz").header("origin", "https://any.example").answer().await;
    assert_eq!(allowed(&any), Some("*"));
    assert!(!any.headers.contains_key("access-control-allow-credentials"));
    let named = face.get("/healthz").header("origin", "https://app.example").answer().await;
    assert_eq!(allowed(&named), Some("https://app.example"));
    assert_eq!(named.header("access-control-allow-credentials"), "true");
    let null = face.get("/healthz").header("origin", "null").answer().await;
    assert_eq!(allowed(&null), None);
}

#[tokio::test]
async fn a_refusal_can_be_read_by_the_page_that_caused_it() {
    let face = keyless().await;
    for ask in [face.get("/nowhere"), face.get("/stream"), face.ask(Method::PUT, "/stream")] {
        let answer = ask.header("origin", "http://localhost:5173").answer().await;
        assert!(answer.status.is_client_error());
        assert_eq!(allowed(&answer), Some("http://localhost:5173"));
    }
}

#[tokio::test]
async fn a_preflight_names_what_clients_need_and_is_remembered() {
    let face = keyless().await;
    for target in ["/topics/chat", "/stream", HUB, "/topics"] {
        let answer = preflight(&face, target, "http://localhost:5173").answer().await;
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("access-control-allow-methods"), "GET, HEAD, POST, DELETE");
        let headers = answer.header("access-control-allow-headers");
        for name in [
            "Authorization",
            "Cache-Control",
            "Content-Type",
            "Last-Event-ID",
            "X-Requested-With",
            "Datastar-Request",
            "Idempotency-Key",
        ] {
            assert!(headers.contains(name), "{name}");
        }
        assert!(answer.header("access-control-max-age").parse::<u32>().is_ok_and(|secs| secs > 0));
    }
}

/// A page of `evil.example` can let that name point to 127.0.0.1 and read from what is then its own origin.
#[tokio::test]
async fn without_keys_a_foreign_name_is_misdirected() {
    let face = keyless().await;
    for host in [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.0.2.1:8080",
        "0.0.0.0:8080",
    ] {
        for ask in [
            face.get("/stream?topic=chat"),
            face.get("/"),
            face.post("/topics/chat", "x"),
            face.get(&format!("{HUB}?match=a")),
            face.get("/metrics"),
            face.get("/nowhere"),
            preflight(&face, "/topics/chat", "http://localhost"),
        ] {
            let detail = ask.header("host", host).answer().await.refused(421);
            assert!(detail.contains("localhost"), "{detail}");
        }
    }
    assert_eq!(face.hub.stats().published, 0);
}

#[tokio::test]
async fn this_machine_and_the_public_url_are_our_names() {
    let face = keyless().await;
    for host in [
        "localhost",
        "LOCALHOST:8080",
        "127.0.0.1:8080",
        "127.1.2.3",
        "[::1]:8080",
        "app.localhost",
        "hub.example",
        "Hub.Example:8443",
    ] {
        face.get("/healthz").header("host", host).answer().await.ok();
    }
}

#[tokio::test]
async fn whoever_is_served_on_purpose_may_use_any_name() {
    let mut settings = Settings::default();
    settings.keyless = Keyless::Anywhere;
    for face in [keyless_with(settings).await, with_keys().await] {
        face.get("/healthz").header("host", "any.example").answer().await.ok();
    }
}
