//! The HTML pages, and the log lines of refusals.

use http::Method;
use tidings_server::{Keyless, Settings};

use crate::{
    log_support::logging,
    support::{Answer, KEY, keyless, keyless_with, with_keys, with_keys_and},
};

fn is_locked_down(page: &Answer) {
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(
        !policy.contains("unsafe") && !policy.contains("http") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert_eq!(page.header("x-frame-options"), "DENY");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(page.header("referrer-policy"), "no-referrer");
}

#[tokio::test]
async fn the_first_page_has_instructions_for_curl_and_browsers() {
    let api = keyless().await;
    let text = api.get("/").header("accept", "*/*").answer().await.ok();
    assert!(text.header("content-type").starts_with("text/plain"));
    let page = api.get("/").header("accept", "text/html,*/*;q=0.8").answer().await.ok();
    is_locked_down(&page);
    for body in [&text.body, &page.body] {
        assert!(body.contains("curl -N 'http://localhost:8080/stream?topic=chat'"), "{body}");
        assert!(body.contains("curl -d 'hello' http://localhost:8080/topics/chat"), "{body}");
        assert!(body.contains("new EventSource('http://localhost:8080/stream?topic=chat')"), "{body}");
    }
    let public = with_keys().await.get("/").header("accept", "text/html").answer().await.ok().body;
    assert!(public.contains("https://hub.example/stream"), "{public}");
}

/// They began with `http:` on every hub without keys, and such a command gets 400 at a port with TLS.
#[tokio::test]
async fn the_instructions_of_a_hub_with_tls_begin_with_https() {
    let text = keyless().await.get("/").over_tls().answer().await.ok().body;
    assert!(text.contains("curl -N 'https://localhost:8080/stream?topic=chat'"), "{text}");
}

#[tokio::test]
async fn the_printed_commands_work_together() {
    let api = keyless().await;
    let mut stream = api.get("/stream?topic=chat").stream().await;
    let curl = api.post("/topics/chat", "hello").header("content-type", "application/x-www-form-urlencoded");
    curl.answer().await.ok();
    assert_eq!(stream.data().await, "hello");
}

#[tokio::test]
async fn a_page_shows_a_hostile_topic_as_text() {
    let api = keyless().await;
    let hostile = "%3Cscript%3Ealert(1)%3C%2Fscript%3E%22%27%26%7B%7Blive%7D%7D";
    let page = api.get(&format!("/topics/{hostile}")).header("accept", "text/html").answer().await.ok();
    is_locked_down(&page);
    assert!(!page.body.contains("<script>alert"), "{}", page.body);
    assert!(
        page.body.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;{{live}}"),
        "{}",
        page.body
    );
    assert_eq!(page.body.matches("id=\"live\"").count(), 1);
}

#[tokio::test]
async fn a_page_loads_only_own_assets_and_has_no_inline_script() {
    let api = keyless().await;
    for target in ["/", "/topics/chat", "/stream?topic=chat"] {
        let page = api.get(target).header("accept", "text/html").answer().await.ok();
        for tag in page.body.split('<').filter(|tag| tag.starts_with("script") || tag.starts_with("link")) {
            let address = tag.split('"').find(|part| part.starts_with('/') || part.starts_with("data:"));
            assert!(address.is_some(), "{tag}");
            assert!(!tag.contains("//"), "{tag}");
        }
        assert!(!page.body.contains(" on") || !page.body.contains("onclick"), "{}", page.body);
    }
    for (asset, media_type) in
        [("/assets/tidings.js", "text/javascript"), ("/assets/tidings.css", "text/css")]
    {
        let asset = api.get(asset).answer().await.ok();
        assert!(asset.header("content-type").starts_with(media_type));
        for forbidden in ["http:", "https:", "innerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!asset.body.contains(forbidden), "{forbidden}");
        }
    }
}

/// Regression: on a phone, the live view was below the fold.
#[tokio::test]
async fn the_page_begins_with_the_live_view() {
    for api in [keyless().await, with_keys().await] {
        let page = api.get("/").header("accept", "text/html").answer().await.ok().body;
        let at = |part: &str| page.find(part).unwrap_or_else(|| panic!("no {part} in {page}"));
        assert!(at("id=\"live\"") < at("<pre>") && at("id=\"publish\"") < at("<pre>"), "{page}");
    }
}

/// The page is static and contains no event; its script shows what the user's credential may
/// receive.
#[tokio::test]
async fn only_the_page_of_a_keyless_hub_on_loopback_connects_at_once() {
    let mut settings = Settings::default();
    settings.keyless = Keyless::Anywhere;
    for (api, watches_at_once, asks_for_credential) in [
        (keyless().await, true, false),
        (keyless_with(settings).await, false, false),
        (with_keys().await, false, true),
    ] {
        let anonymous = api.get("/").header("accept", "text/html").answer().await.ok().body;
        assert_eq!(anonymous.contains(" data-start"), watches_at_once, "{anonymous}");
        assert_eq!(anonymous.contains("type=\"password\""), asks_for_credential, "{anonymous}");
        let entitled = api.get("/").header("accept", "text/html").bearer(KEY).answer().await.ok().body;
        assert_eq!(entitled, anonymous);
    }
}

/// A browser cannot send a credential when it navigates, so the page is served without one and asks
/// for it.
#[tokio::test]
async fn a_page_is_served_where_receiving_needs_a_credential() {
    let mut settings = Settings::default();
    settings.anonymous_subscribers = false;
    let api = with_keys_and(settings).await;
    for target in ["/topics/staff-1", "/stream?topic=staff-1"] {
        api.get(target).answer().await.refused(401);
        let page = api.get(target).header("accept", "text/html").answer().await.ok();
        assert!(page.body.contains("type=\"password\""), "{}", page.body);
    }
}

#[tokio::test]
async fn a_browser_gets_a_refusal_as_a_page_and_a_program_as_json() {
    let api = keyless().await;
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for (target, host, status) in [
        ("/no<b>where", "localhost", 404),
        ("/topics/%ff", "localhost", 400),
        ("/topics/a?sinc=5m", "localhost", 400),
        ("/", "evil.example", 421),
    ] {
        let target = target.replace('<', "%3C").replace('>', "%3E");
        let ask = || api.get(&target).header("host", host);
        let page = ask().header("accept", browser).answer().await;
        assert_eq!(page.status, status);
        assert!(page.header("content-type").starts_with("text/html"), "{page:?}");
        is_locked_down(&page);
        for accept in ["*/*", "application/json", "text/event-stream"] {
            let refused = ask().header("accept", accept).answer().await;
            let detail = refused.refused(status);
            let escaped = detail.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            assert!(page.body.contains(&escaped), "{escaped} in {}", page.body);
        }
    }
    let not_allowed = api.ask(Method::PUT, "/healthz").header("accept", browser).answer().await;
    assert_eq!((not_allowed.status.as_u16(), not_allowed.header("allow")), (405, "GET,HEAD"));
    assert!(not_allowed.body.starts_with("<!doctype html>"), "{}", not_allowed.body);
}

#[tokio::test]
async fn a_refusal_is_one_line_without_credentials_queries_or_data() {
    let (log, _guard) = logging();
    let api = with_keys().await;
    api.post("/topics/chat%0Aforged?id=query-part", "data-part")
        .bearer("tk_credential-part")
        .answer()
        .await
        .refused(401);
    api.post("/topics", "{\"topic\":\"chat\",\"data\":\"data-part\",\"id\":5}")
        .bearer(KEY)
        .answer()
        .await
        .refused(400);
    let text = log.text();
    assert_eq!(text.lines().filter(|line| line.contains("a request was refused")).count(), 2, "{text}");
    assert!(
        text.contains("status=401")
            && text.contains("reason=\"credential\"")
            && text.contains("/topics/chat%0Aforged"),
        "{text}"
    );
    for secret in ["query-part", "data-part", "credential-part", KEY] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

#[tokio::test]
async fn a_refused_origin_is_logged_once_with_the_flag_that_allows_it() {
    let (log, _guard) = logging();
    let api = keyless().await;
    for _ in 0..3 {
        api.get("/healthz").header("origin", "https://app.example").answer().await.ok();
    }
    for number in 0..500 {
        api.get("/healthz").header("origin", format!("https://{number}.example")).answer().await.ok();
    }
    let text = log.text();
    let reported: Vec<_> = text.lines().filter(|line| line.contains("--allow-origin")).collect();
    assert_eq!(reported.iter().filter(|line| line.contains("--allow-origin https://app.example")).count(), 1);
    assert_eq!(reported.len(), 100);
}

/// Regression: a page that was opened from disk failed silently, in the browser and in the log.
#[tokio::test]
async fn a_page_opened_from_a_file_is_logged_with_the_remedy() {
    let (log, _guard) = logging();
    let api = keyless().await;
    for _ in 0..3 {
        api.get("/stream?topic=chat").header("origin", "null").stream().await;
    }
    let text = log.text();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("opened from a file")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(
        lines[0].contains("python3 -m http.server 8000") && lines[0].contains("--allow-origin '*'"),
        "{text}"
    );
    assert!(!text.contains("--allow-origin null"), "{text}");
}
