//! Web pages of other sites, and requests for unknown hosts.

use http::Method;
use tidings_server::{AllowedHosts, Keyless, Settings};

use crate::support::{Answer, Api, Ask, HUB, KEY, keyless, keyless_with, with_keys, with_keys_and};

fn allowing(origins: &[&str]) -> Settings {
    let mut settings = Settings::default();
    let origins: Vec<_> = origins.iter().map(|origin| origin.parse().expect("an origin")).collect();
    settings.allow_origins = origins.into();
    settings
}

fn preflight(api: &Api, target: &str, origin: &str) -> Ask {
    api.ask(Method::OPTIONS, target).header("origin", origin).header("access-control-request-method", "POST")
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.headers.get("access-control-allow-origin").map(|value| value.to_str().expect("ASCII"))
}

#[tokio::test]
async fn replaced_origins_hold_for_later_requests() {
    let settings = allowing(&["https://old.example"]);
    let origins = settings.allow_origins.clone();
    let api = with_keys_and(settings).await;
    for (replaced, old, new) in [(false, true, false), (true, false, true)] {
        if replaced {
            origins.replace(vec!["https://new.example".parse().expect("an origin")]);
        }
        for (origin, is_allowed) in [("https://old.example", old), ("https://new.example", new)] {
            let answer = api
                .get("/topics/chat")
                .header("accept", "application/json")
                .header("origin", origin)
                .answer()
                .await;
            assert_eq!(allowed(&answer).is_some(), is_allowed, "{origin}");
        }
    }
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
async fn without_keys_local_pages_may_read_and_publish() {
    let api = keyless().await;
    for origin in LOOPBACK {
        for ask in [
            api.get("/topics/chat").header("accept", "application/json"),
            api.post("/topics/chat", "x"),
            api.form("topic=chat"),
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
        let answer = preflight(&api, "/topics/chat", origin).answer().await;
        assert_eq!((answer.status.as_u16(), allowed(&answer)), (204, Some(origin)));
    }
}

#[tokio::test]
async fn without_keys_a_foreign_page_publishes_nothing_and_reads_nothing() {
    let api = keyless().await;
    for origin in FOREIGN {
        for ask in [
            api.post("/topics/chat", "x"),
            api.form("topic=chat"),
            api.post("/topics", r#"{"topic":"chat","data":1}"#),
        ] {
            let answer = ask.header("origin", origin).answer().await;
            assert!(answer.refused(403).contains("--allow-origin"), "{answer:?}");
            assert_eq!(allowed(&answer), None);
        }
        let answer = preflight(&api, "/topics/chat", origin).answer().await;
        assert_eq!((answer.status.as_u16(), allowed(&answer)), (403, None), "{origin}");
        let stream = api.get("/stream?topic=chat").header("origin", origin).stream().await;
        assert_eq!(stream.header("access-control-allow-origin"), None);
    }
    assert_eq!(api.hub.stats().published, 0);
}

#[tokio::test]
async fn two_origin_headers_count_as_none() {
    let api = keyless().await;
    let ask = api
        .post("/topics/chat", "x")
        .header("origin", "http://localhost")
        .header("origin", "https://evil.example");
    ask.answer().await.refused(403);
}

#[tokio::test]
async fn a_page_of_the_hub_may_publish_with_any_spelling_of_the_port() {
    let api = keyless().await;
    for (origin, host) in [
        ("http://localhost:8080", "localhost:8080"),
        ("https://hub.example", "hub.example"),
        ("https://hub.example", "hub.example:443"),
        ("https://hub.example", "localhost:8080"),
    ] {
        api.post("/topics/chat", "x").header("origin", origin).header("host", host).answer().await.ok();
    }
    for (origin, host) in
        [("https://hub.example:444", "hub.example"), ("http://hub.example", "hub.example:443")]
    {
        api.post("/topics/chat", "x")
            .header("origin", origin)
            .header("host", host)
            .answer()
            .await
            .refused(403);
    }
}

#[tokio::test]
async fn a_request_without_an_origin_is_accepted() {
    let api = keyless().await;
    let answer = api.post("/topics/chat", "x").answer().await.ok();
    assert_eq!(allowed(&answer), None);
}

#[tokio::test]
async fn a_named_origin_is_echoed_with_credentials() {
    for api in [
        keyless_with(allowing(&["https://app.example"])).await,
        with_keys_and(allowing(&["https://app.example"])).await,
    ] {
        for ask in [
            api.get("/topics/chat").header("accept", "application/json"),
            api.post("/topics/chat", "x").bearer(KEY),
        ] {
            let answer = ask.header("origin", "https://app.example").answer().await.ok();
            assert_eq!(allowed(&answer), Some("https://app.example"));
            assert_eq!(answer.header("access-control-allow-credentials"), "true");
            assert!(answer.headers.get_all("vary").iter().any(|value| value == "Origin"));
        }
        let stream =
            api.get(&format!("{HUB}?match=a")).header("origin", "https://app.example").stream().await;
        assert_eq!(stream.header("access-control-allow-origin"), Some("https://app.example"));
    }
}

#[tokio::test]
async fn with_keys_only_named_origins_may_read_even_locally() {
    let api = with_keys_and(allowing(&["https://app.example"])).await;
    for origin in LOOPBACK.into_iter().chain(FOREIGN) {
        let stream = api.get("/stream?topic=chat").header("origin", origin).stream().await;
        assert_eq!(stream.header("access-control-allow-origin"), None);
        preflight(&api, HUB, origin).answer().await.refused(403);
    }
}

#[tokio::test]
async fn with_keys_the_credential_decides_about_publishing() {
    let api = with_keys().await;
    let answer = api
        .post("/topics/chat", "x")
        .bearer(KEY)
        .header("origin", "https://elsewhere.example")
        .answer()
        .await
        .ok();
    assert_eq!(allowed(&answer), None);
}

#[tokio::test]
async fn a_star_allows_every_origin_and_null_without_credentials() {
    let api = with_keys_and(allowing(&["*", "https://app.example"])).await;
    for origin in ["https://any.example", "null"] {
        let any = api.get("/healthz").header("origin", origin).answer().await;
        assert_eq!(allowed(&any), Some("*"), "{origin}");
        assert!(!any.headers.contains_key("access-control-allow-credentials"));
        let asked = preflight(&api, "/topics/chat", origin).answer().await;
        assert_eq!((asked.status.as_u16(), allowed(&asked)), (204, Some("*")), "{origin}");
    }
    let named = api.get("/healthz").header("origin", "https://app.example").answer().await;
    assert_eq!(allowed(&named), Some("https://app.example"));
    assert_eq!(named.header("access-control-allow-credentials"), "true");
}

#[tokio::test]
async fn a_wildcard_origin_is_echoed_with_credentials_but_not_its_domain() {
    let api = with_keys_and(allowing(&["https://*.example.com"])).await;
    for origin in ["https://app.example.com", "https://a.b.example.com"] {
        let answer = api.get("/healthz").header("origin", origin).answer().await;
        assert_eq!(allowed(&answer), Some(origin));
        assert_eq!(answer.header("access-control-allow-credentials"), "true");
    }
    for origin in [
        "https://example.com",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://evilexample.com",
    ] {
        let answer = api.get("/healthz").header("origin", origin).answer().await;
        assert_eq!(allowed(&answer), None, "{origin}");
    }
}

#[tokio::test]
async fn a_refusal_can_be_read_by_the_page_that_caused_it() {
    let api = keyless().await;
    for ask in [api.get("/nowhere"), api.get("/stream"), api.ask(Method::PUT, "/stream")] {
        let answer = ask.header("origin", "http://localhost:5173").answer().await;
        assert!(answer.status.is_client_error());
        assert_eq!(allowed(&answer), Some("http://localhost:5173"));
    }
}

#[tokio::test]
async fn a_preflight_names_what_clients_need_and_is_remembered() {
    let api = keyless().await;
    for target in ["/topics/chat", "/stream", HUB, "/topics"] {
        let answer = preflight(&api, target, "http://localhost:5173").answer().await;
        assert_eq!(answer.status, 204);
        let methods = match target {
            "/stream" | HUB => "GET, HEAD, POST, QUERY",
            "/topics/chat" => "GET, HEAD, POST, DELETE",
            _ => "GET, HEAD, POST",
        };
        assert_eq!(answer.header("access-control-allow-methods"), methods);
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

/// Regression: pages with a tracing library send headers such as `baggage`, and were blocked.
#[tokio::test]
async fn an_allowed_page_may_send_any_header_and_others_none() {
    let api = with_keys_and(allowing(&["https://app.example"])).await;
    let ask = |origin, names: &str| {
        preflight(&api, "/topics/chat", origin).header("access-control-request-headers", names)
    };
    let answer = ask("https://app.example", "baggage,sentry-trace, X_Odd.Name").answer().await;
    let names: Vec<_> = answer.header("access-control-allow-headers").split(", ").collect();
    for name in ["baggage", "sentry-trace", "x_odd.name", "Last-Event-ID"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let varies: Vec<_> = answer.headers.get_all("vary").iter().collect();
    assert!(varies.contains(&&"Access-Control-Request-Headers".parse().expect("a value")), "{varies:?}");

    let malformed = ask("https://app.example", "a b,,x:y,\u{e9},good").answer().await;
    assert!(
        malformed.header("access-control-allow-headers").ends_with("Idempotency-Key, good"),
        "{malformed:?}"
    );
    let foreign = ask("https://evil.example", "baggage").answer().await;
    assert!(foreign.refused(403).contains("`--allow-origin https://evil.example`"), "{foreign:?}");
    let opened_from_a_file = ask("null", "baggage").answer().await.refused(403);
    assert!(
        opened_from_a_file.contains("--allow-origin '*'") && !opened_from_a_file.contains("null"),
        "{opened_from_a_file}"
    );
    assert!(!foreign.headers.contains_key("access-control-allow-headers"));
}

#[tokio::test]
async fn a_preflight_answers_with_a_bounded_list_of_headers() {
    let api = keyless().await;
    let many: Vec<_> = (0..1_000).map(|number| format!("x-{number}")).collect();
    let long = vec!["x".repeat(3_000); 10];
    for (names, count_max) in [(many, 64), (long, 1)] {
        let ask = preflight(&api, "/topics/chat", "http://localhost:5173");
        let answer = ask.header("access-control-request-headers", names.join(",")).answer().await;
        let allowed =
            answer.header("access-control-allow-headers").split(", ").filter(|name| name.starts_with('x'));
        assert_eq!(allowed.count(), count_max);
    }
}

/// DNS rebinding: a page of `evil.example` can make that name resolve to 127.0.0.1 and read from
/// what is then its own origin: everything from a hub without keys, public events from one with
/// keys or with `--no-auth`.
#[tokio::test]
async fn a_request_for_an_unknown_host_is_misdirected_on_every_hub() {
    let mut open = Settings::default();
    open.keyless = Keyless::Anywhere;
    for api in [keyless().await, keyless_with(open).await, with_keys().await] {
        for host in ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example"]
        {
            for ask in [
                api.get("/stream?topic=chat"),
                api.get("/"),
                api.post("/topics/chat", "x").header("origin", format!("http://{host}")),
                api.ask(Method::DELETE, "/topics/chat"),
                api.form("topic=chat"),
                api.get(&format!("{HUB}?match=a")),
                api.get("/metrics"),
                api.get("/nowhere"),
                preflight(&api, "/topics/chat", "http://localhost"),
            ] {
                let detail = ask.header("host", host).answer().await.refused(421);
                assert!(detail.contains("--allow-host") && !detail.contains(":8080"), "{detail}");
            }
            for health in ["/healthz", "/readyz"] {
                api.get(health).header("host", host).answer().await.ok();
            }
        }
        assert_eq!(api.hub.stats().published, 0);
    }
}

#[tokio::test]
async fn addresses_loopback_the_public_url_and_listed_hosts_are_served() {
    let mut settings = Settings::default();
    let listed = ["hub.internal", "*.example.com"].map(|name| name.parse().expect("a host name"));
    settings.allow_hosts = AllowedHosts::Listed(listed.into_iter().collect());
    for api in [keyless_with(settings.clone()).await, with_keys_and(settings).await] {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:8080",
            "127.1.2.3",
            "192.0.2.1:8080",
            "[::1]:8080",
            "app.localhost",
            "hub.example",
            "Hub.Example:8443",
            "hub.internal:8080",
            "a.b.example.com",
        ] {
            api.get("/topics/chat")
                .header("accept", "application/json")
                .header("host", host)
                .answer()
                .await
                .ok();
        }
        for host in ["example.com", "a.hub.internal"] {
            api.get("/topics/chat")
                .header("accept", "application/json")
                .header("host", host)
                .answer()
                .await
                .refused(421);
        }
    }
}

#[tokio::test]
async fn a_hub_that_allows_any_host_serves_any_host() {
    let mut settings = Settings::default();
    settings.allow_hosts = AllowedHosts::Any;
    let api = with_keys_and(settings).await;
    api.get("/topics/chat")
        .header("accept", "application/json")
        .header("host", "any.example")
        .answer()
        .await
        .ok();
}

const OF_PROXIES: [(&str, &str); 6] = [
    ("forwarded", "for=192.0.2.1"),
    ("via", "1.1 proxy"),
    ("x-forwarded-for", "192.0.2.1"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-anything", ""),
    ("x-real-ip", "192.0.2.1"),
];

/// Behind a proxy, a hub without keys would be open to every client of the proxy.
#[tokio::test]
async fn without_keys_a_forwarded_request_is_refused() {
    let api = keyless().await;
    for (name, value) in OF_PROXIES {
        for ask in [
            api.post("/topics/chat", "x"),
            api.form("topic=chat"),
            api.ask(Method::DELETE, "/topics/chat"),
            api.get("/stream?topic=chat"),
            api.get("/"),
            api.get("/metrics"),
        ] {
            let detail = ask.header(name, value).answer().await.refused(403);
            assert!(detail.contains("tidings key new") && detail.contains("--no-auth"), "{detail}");
        }
        api.get("/healthz").header(name, value).answer().await.ok();
    }
    assert_eq!(api.hub.stats().published, 0);
}

#[tokio::test]
async fn a_hub_with_keys_or_no_auth_may_run_behind_a_proxy() {
    let mut open = Settings::default();
    open.keyless = Keyless::Anywhere;
    for api in [keyless_with(open).await, with_keys().await] {
        for (name, value) in OF_PROXIES {
            api.post("/topics/chat", "x").bearer(KEY).header(name, value).answer().await.ok();
        }
    }
}

/// A bare `proxy_pass` of nginx forwards a request with the address of the hub as the host and
/// without a header of its own. A hub cannot detect that: hence every guide for a proxy begins with
/// keys.
#[tokio::test]
async fn a_proxy_that_adds_no_header_is_not_detected() {
    let api = keyless().await;
    let ask = api.post("/topics/chat", "x").header("host", "127.0.0.1:8080").header("connection", "close");
    ask.answer().await.ok();
}

/// A browser that sends no `Origin`, or a proxy that removes it, must not make the request of a
/// foreign page look like one of a program.
#[tokio::test]
async fn without_keys_a_foreign_write_without_an_origin_is_refused_too() {
    let mut open = Settings::default();
    open.keyless = Keyless::Anywhere;
    for api in [keyless().await, keyless_with(open).await] {
        let writes = || {
            [
                api.post("/topics/chat", "x"),
                api.form("topic=chat"),
                api.post("/topics", r#"{"topic":"chat","data":1}"#),
                api.ask(Method::DELETE, "/topics/chat"),
            ]
        };
        for (name, value) in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("referer", "https://evil.example/page"),
            ("referer", "https://localhost.evil.example/"),
            ("referer", "nonsense"),
        ] {
            for ask in writes() {
                ask.header(name, value).answer().await.refused(403);
            }
        }
        for (name, value) in [
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "none"),
            ("referer", "http://localhost:8080/topics/chat"),
            ("referer", "http://localhost:5173/"),
        ] {
            for ask in writes() {
                let status = ask.header(name, value).answer().await.status;
                assert!(status.is_success(), "{name}: {value} is answered {status}");
            }
        }
        // The same-origin policy of the browser protects reads.
        let ask = api.get("/topics/chat").header("accept", "application/json");
        ask.header("sec-fetch-site", "cross-site").answer().await.ok();
    }
}
