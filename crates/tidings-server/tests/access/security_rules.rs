//! Rules that hold for every route, each named by its number in the list of rules that hostile
//! clients are tested by. Rules of one part of the hub are tested with that part.

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tidings_server::Settings;

use crate::support::*;

/// Topics are texts, and nothing that joins them has a separator that a topic could contain.
#[tokio::test]
async fn rule_2_topics_with_separators_are_topics_of_their_own() {
    let api = keyless().await;
    let names = [
        "a",
        "b",
        "a,b",
        "a b",
        "a&b",
        "a;b",
        "a|b",
        "a/b",
        "a//b",
        "a:b",
        "a%2Cb",
        "a%00b",
        "a+b",
        "a=b",
        "a*",
        "a?b",
        "a#b",
        "[\"a\",\"b\"]",
        "A",
        "\u{e1}",
        "a\u{301}",
        "a\u{200b}b",
    ];
    let path = |name: &str| format!("/topics/{}", utf8_percent_encode(name, NON_ALPHANUMERIC));
    let mut accepted = Vec::new();
    for name in names {
        let answer = api.post(&path(name), name.to_owned()).answer().await;
        // Format characters are refused; all others are topics.
        assert_eq!(answer.status == 200, name != "a\u{200b}b", "{name}: {answer:?}");
        if answer.status == 200 {
            accepted.push(name);
        }
    }
    for name in accepted {
        let summary = api.get(&path(name)).header("accept", "application/json").answer().await.ok().json();
        let data: Vec<_> =
            summary["events"].as_array().expect("a list").iter().map(|event| &event["data"]).collect();
        assert_eq!(data, [name], "events of other topics");
    }
}

/// No part of a request becomes the target of a redirect, so no link to a hub leads elsewhere.
#[tokio::test]
async fn rule_10_no_request_is_redirected() {
    let api = with_keys().await;
    for target in [
        "//evil.example",
        "//evil.example/stream",
        "/\\evil.example",
        "/%2f%2fevil.example",
        "/.//evil.example",
        "/topics/..//evil.example",
        "/topics//evil.example",
        "/topics",
        "/topics/",
        "/stream/",
        "/assets",
        "/assets/",
        "/stream?topic=a&url=https://evil.example&next=//evil.example&redirect=//evil.example",
        "/?url=//evil.example",
        "http://evil.example/",
        "/.well-known/mercure/",
        "/tickets/",
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE, Method::OPTIONS, Method::PUT] {
            for accept in ["text/html", "application/json"] {
                let ask = api.ask(method.clone(), target).bearer(KEY).header("accept", accept);
                let response = ask.header("referer", "https://evil.example/").send().await;
                assert!(!response.status().is_redirection(), "{method} {target}: {}", response.status());
                for name in ["location", "refresh", "content-location", "link"] {
                    assert!(!response.headers().contains_key(name), "{method} {target}: {name}");
                }
            }
        }
    }
}

/// A client of the internet needs no credential to send `POST /stream` with a body that never ends.
/// Only the number of all connections bounded them.
#[tokio::test]
async fn rule_13_bodies_of_subscriptions_count_for_their_address_before_they_arrive() {
    let mut settings = Settings::default();
    settings.streams_per_address_max = 2;
    let api = with_keys_and(settings).await;
    let never = || Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>());
    let posted = |address: &str| {
        let ask = api.post("/stream", never()).header("content-type", "application/x-www-form-urlencoded");
        ask.from(address)
    };
    let waiting: Vec<_> = (0..2).map(|_| tokio::spawn(posted("192.0.2.1:1").send())).collect();
    // Both wait for their bodies when nothing else is left to do.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(posted("192.0.2.1:2").answer().await.refused(429).contains("open streams"));
    let other = api.get("/stream?topic=a").from("192.0.2.2:1").send().await;
    assert_eq!(other.status(), 200);
    for one in waiting {
        one.abort();
        assert!(one.await.is_err_and(|error| error.is_cancelled()));
    }
    api.get("/stream?topic=a").from("192.0.2.1:3").stream().await;
}
