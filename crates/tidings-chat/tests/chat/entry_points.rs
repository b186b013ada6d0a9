//! Refused requests, and what the pages may load.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, Request, StatusCode, header};

use crate::kit::{Chat, post};

async fn posted_with(chat: &Chat, headers: &[(HeaderName, &str)]) -> StatusCode {
    let mut request = Request::post("/post").header(header::HOST, "chat.test:8080");
    request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    chat.send(request.body(Body::from("message=hello")).expect("a request")).await.status
}

#[tokio::test]
async fn only_our_own_pages_post() {
    let chat = Chat::start().await;
    let (origin, referer, cookie) = (header::ORIGIN, header::REFERER, header::COOKIE);
    let site = HeaderName::from_static("sec-fetch-site");
    let ours: &[&[_]] = &[
        &[],
        &[(origin.clone(), "http://chat.test:8080")],
        &[(origin.clone(), "https://chat.test:8080"), (cookie.clone(), "user=x")],
        &[(referer.clone(), "http://chat.test:8080/login?x"), (cookie.clone(), "user=x")],
        &[(site.clone(), "same-origin"), (cookie.clone(), "user=x")],
        &[(site.clone(), "none")],
    ];
    for headers in ours {
        assert_eq!(posted_with(&chat, headers).await, StatusCode::NO_CONTENT, "{headers:?}");
    }
    let foreign: &[&[_]] = &[
        &[(cookie.clone(), "user=x")],
        &[(origin.clone(), "null")],
        &[(origin.clone(), "")],
        &[(origin.clone(), "http://evil.test")],
        &[(origin.clone(), "http://chat.test")],
        &[(origin.clone(), "http://chat.test:8080@evil.test")],
        &[(origin.clone(), "http://evil.test"), (referer.clone(), "http://chat.test:8080/")],
        &[(referer, "http://evil.test/chat.test:8080"), (cookie, "user=x")],
        &[(site.clone(), "cross-site")],
        &[(site, "same-site")],
    ];
    for headers in foreign {
        assert_eq!(posted_with(&chat, headers).await, StatusCode::FORBIDDEN, "{headers:?}");
    }
}

#[tokio::test]
async fn another_site_logs_no_user_in_or_out() {
    let chat = Chat::start().await;
    for path in ["/login", "/logout"] {
        let mut request = post(path, "", "user=Eve");
        request.headers_mut().insert(header::ORIGIN, "http://evil.test".parse().expect("a value"));
        assert_eq!(chat.send(request).await.status, StatusCode::FORBIDDEN, "{path}");
    }
}

/// A page of `evil.test` can point that name at the chat, and could then read and post.
#[tokio::test]
async fn a_request_for_a_foreign_name_is_misdirected() {
    let chat = Chat::start().await;
    for (host, status) in [
        ("evil.test", StatusCode::MISDIRECTED_REQUEST),
        ("localhost.evil.test:8080", StatusCode::MISDIRECTED_REQUEST),
        ("chat.test:8080", StatusCode::OK),
        ("localhost", StatusCode::OK),
        ("192.0.2.1", StatusCode::OK),
        ("[::1]:8080", StatusCode::OK),
    ] {
        let request = Request::get("/login").header(header::HOST, host);
        let answer = chat.send(request.body(Body::empty()).expect("a request")).await;
        assert_eq!(answer.status, status, "{host}");
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_posts_are_answered_429() {
    let chat = Chat::start().await;
    let (busy, calm) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
    let say = async |peer| chat.send_from(peer, post("/post", "", "message=hello")).await;
    for _ in 0..20 {
        assert_eq!(say(busy).await.status, StatusCode::NO_CONTENT);
    }
    let answer = say(busy).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers[header::RETRY_AFTER], "1");
    assert_eq!(say(calm).await.status, StatusCode::NO_CONTENT);

    tokio::time::advance(Duration::from_secs(1)).await;
    for _ in 0..5 {
        assert_eq!(say(busy).await.status, StatusCode::NO_CONTENT);
    }
    assert_eq!(say(busy).await.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(start_paused = true)]
async fn an_address_is_the_same_however_it_is_written() {
    let chat = Chat::start().await;
    let plain = Ipv4Addr::new(192, 0, 2, 1);
    let mapped: Ipv6Addr = plain.to_ipv6_mapped();
    for _ in 0..20 {
        chat.send_from(plain.into(), post("/post", "", "message=hello")).await;
    }
    let answer = chat.send_from(mapped.into(), post("/post", "", "message=hello")).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(start_paused = true)]
async fn the_table_of_addresses_is_bounded() {
    let chat = Chat::start().await;
    for _ in 0..10_000 {
        assert_eq!(chat.send(post("/logout", "", "")).await.status, StatusCode::SEE_OTHER);
    }
    assert_eq!(chat.send(post("/logout", "", "")).await.status, StatusCode::TOO_MANY_REQUESTS);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(chat.send(post("/logout", "", "")).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn the_pages_load_nothing_from_other_origins() {
    let chat = Chat::start().await;
    let ada = chat.log_in("Ada").await;
    for path in ["/", "/login"] {
        let answer = chat.get(path, &ada).await;
        let policy = answer.headers[header::CONTENT_SECURITY_POLICY].to_str().expect("text");
        assert!(
            policy.starts_with("default-src 'none';") && policy.contains("script-src 'self';"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        for attribute in ["src=\"", "href=\""] {
            for target in answer.text.split(attribute).skip(1).filter_map(|rest| rest.split('"').next()) {
                let file = chat.get(target, "").await;
                assert_eq!(file.status, StatusCode::OK, "{target}");
                assert_eq!(file.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
            }
        }
    }
    assert_eq!(chat.get("/chat.js", "").await.headers[header::CONTENT_TYPE], "text/javascript");
    assert_eq!(chat.get("/chat.css", "").await.headers[header::CONTENT_TYPE], "text/css");
}
