//! What is for operators: metrics, details of readiness, and listeners for them alone.

use http::{Method, StatusCode};
use tidings_server::{AllowedOrigin, Keyless, ListenerRole, Settings};

use crate::support::*;

const READY: &str = "/readyz";
const METRICS: &str = "/metrics";

#[tokio::test]
async fn the_metrics_of_a_hub_with_keys_need_a_key_with_admin() {
    let api = with_keys().await;
    let refused = api.get(METRICS).answer().await;
    let detail = refused.refused(401);
    assert!(detail.contains("`admin = true`") && detail.contains("--admin-listen"), "{detail}");
    assert!(refused.headers.contains_key("www-authenticate"));
    api.get(METRICS).bearer("tk_not-a-key-of-this-hub").answer().await.refused(401);
    // Not even one that may publish and receive everything.
    for credential in [KEY.to_owned(), token(&["*"], &["*"])] {
        let detail = api.get(METRICS).bearer(&credential).answer().await.refused(403);
        assert!(detail.contains("`admin = true`"), "{detail}");
    }
    let metrics = api.get(METRICS).bearer(ADMIN_KEY).answer().await.ok().body;
    assert!(metrics.contains("tidings_ready 1"), "{metrics}");
    // An operator is no publisher.
    api.post("/topics/chat", "x").bearer(ADMIN_KEY).answer().await.refused(403);
}

#[tokio::test]
async fn the_metrics_of_a_hub_without_keys_are_for_this_machine() {
    keyless().await.get(METRICS).answer().await.ok();
    let mut settings = Settings::default();
    settings.keyless = Keyless::Anywhere;
    let api = keyless_with(settings).await;
    let detail = api.get(METRICS).answer().await.refused(403);
    assert!(detail.contains("--admin-listen"), "{detail}");
    api.get(METRICS).through(ListenerRole::Admin).answer().await.ok();
}

#[tokio::test]
async fn an_address_for_operators_serves_them_alone_and_takes_these_routes_from_the_others() {
    for api in [keyless().await, with_keys().await] {
        api.get(METRICS).through(ListenerRole::Admin).answer().await.ok();
        for (method, path) in [
            (Method::GET, "/"),
            (Method::GET, "/stream?topic=chat"),
            (Method::POST, "/topics/chat"),
            (Method::GET, "/topics/chat"),
            (Method::POST, "/topics"),
            (Method::DELETE, "/topics/chat"),
            (Method::GET, HUB),
            (Method::POST, HUB),
            (Method::GET, "/metrics/"),
        ] {
            let ask = api.ask(method, path).bearer(KEY).through(ListenerRole::Admin);
            let detail = ask.answer().await.refused(404);
            assert!(detail.contains("for operators"), "{path}: {detail}");
        }
        // Elsewhere it is as if there were no such route, whatever the credential.
        let nothing = api.get("/metricz").through(ListenerRole::Clients).answer().await.refused(404);
        for credential in [KEY, ADMIN_KEY] {
            let ask = api.get(METRICS).bearer(credential).through(ListenerRole::Clients);
            assert_eq!(ask.answer().await.refused(404), nothing.replace("metricz", "metrics"));
        }
        assert_eq!(api.hub.stats().published, 0);
        for listener in [ListenerRole::Admin, ListenerRole::Clients, ListenerRole::All] {
            for path in ["/healthz", READY] {
                api.get(path).through(listener).answer().await.ok();
            }
        }
    }
}

/// The address needs no credential, and the browser of an operator may be able to reach it.
#[tokio::test]
async fn a_web_page_reads_nothing_on_an_address_for_operators() {
    const PAGE: &str = "https://app.example";
    let mut settings = Settings::default();
    settings.allow_origins = vec![PAGE.parse().expect("an origin"), AllowedOrigin::Any].into();
    let api = with_keys_and(settings).await;
    for page in [PAGE, "https://evil.example"] {
        for path in [METRICS, READY] {
            let ask = api.get(path).header("origin", page).through(ListenerRole::Admin);
            let answer = ask.answer().await.ok();
            assert!(!answer.headers.contains_key("access-control-allow-origin"), "{page} {path}: {answer:?}");
        }
        let preflight = api.ask(Method::OPTIONS, METRICS).header("access-control-request-method", "GET");
        let answer = preflight.header("origin", page).through(ListenerRole::Admin).answer().await;
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{page}: {answer:?}");
        let elsewhere = api.get("/healthz").header("origin", page).answer().await.ok();
        assert!(elsewhere.headers.contains_key("access-control-allow-origin"));
    }
}

#[tokio::test]
async fn why_a_hub_is_not_ready_is_for_operators() {
    let keyless = keyless().await;
    keyless.hub.close();
    assert!(keyless.get(READY).answer().await.refused(503).contains("closed"));
    let api = with_keys().await;
    api.hub.close();
    for (ask, sees_details) in [
        (api.get(READY), false),
        (api.get(READY).bearer(KEY), false),
        // A health check is never refused for its credential.
        (api.get(READY).bearer("tk_not-a-key-of-this-hub"), false),
        (api.get(READY).through(ListenerRole::Clients), false),
        (api.get(READY).bearer(ADMIN_KEY), true),
        (api.get(READY).bearer(ADMIN_KEY).through(ListenerRole::Clients), true),
        (api.get(READY).through(ListenerRole::Admin), true),
    ] {
        let answer = ask.answer().await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.refused(503).contains("closed"), sees_details, "{answer:?}");
    }
}
