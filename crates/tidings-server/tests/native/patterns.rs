//! Budgets for URL Patterns, per address and for the hub, and the responses when they are exceeded.

use futures_util::future::join_all;
use tidings::{Hub, HubSettings};
use tidings_server::Settings;

use crate::support::{Api, HUB, keyless_with};

const ADDRESS: &str = "192.0.2.1:1000";

fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings);
    settings
}

async fn hub(change: impl FnOnce(&mut HubSettings)) -> Api {
    let mut settings = HubSettings::default();
    change(&mut settings);
    let hub = Hub::builder().settings(settings).start().await.expect("the in-memory log starts");
    Api::new(hub, None, Settings::default())
}

fn stream_of(patterns: &[&str]) -> [String; 2] {
    let query = |name| patterns.iter().map(|text| format!("{name}={text}")).collect::<Vec<_>>().join("&");
    [format!("/stream?{}", query("pattern")), format!("{HUB}?{}", query("match_urlpattern"))]
}

#[tokio::test]
async fn an_address_at_its_pattern_limit_gets_429_and_others_are_served() {
    let api = keyless_with(settings(|settings| settings.patterns_per_address_max = 2)).await;
    let held = api.get("/stream?pattern=/a/:id&pattern=/b/:id").from(ADDRESS).stream().await;
    for target in stream_of(&["/a/:id", "/c/:id"]) {
        let answer = api.get(&target).from(ADDRESS).answer().await;
        assert!(answer.refused(429).contains("`patterns_per_address_max`"), "{answer:?}");
        assert!(answer.headers.contains_key("retry-after"));
        api.get(&target).from(ADDRESS).like_a_browser().answer().await.ok();
        api.get(&target).from("192.0.2.2:1000").stream().await;
    }
    api.get("/stream?pattern=/a/:id&topic=c").from(ADDRESS).stream().await;
    drop(held);
    api.get("/stream?pattern=/c/:id").from(ADDRESS).stream().await;
}

#[tokio::test]
async fn patterns_that_are_compared_with_every_topic_have_a_smaller_budget() {
    let api = keyless_with(settings(|settings| settings.pattern_weight_per_address_max = 200)).await;
    let texts: Vec<_> = (0..98).map(|number| format!("/:a(\\d%2B)x{number}")).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    for target in stream_of(&texts) {
        let answer = api.get(&target).from(ADDRESS).answer().await;
        assert!(answer.refused(429).contains("`pattern_weight_per_address_max`"), "{answer:?}");
    }
    let with_beginning: Vec<_> = (0..98).map(|number| format!("/p{number}/:a(\\d%2B)x")).collect();
    let with_beginning: Vec<_> = with_beginning.iter().map(String::as_str).collect();
    let _held = api.get(&stream_of(&with_beginning)[0]).from(ADDRESS).stream().await;
}

#[tokio::test]
async fn a_hub_at_its_pattern_limit_answers_503_with_its_name() {
    for (api, limit) in [
        (hub(|settings| settings.patterns_max = 2).await, "`patterns_max`"),
        (hub(|settings| settings.pattern_weight_max = 20).await, "`pattern_weight_max`"),
    ] {
        let held = api.get("/stream?pattern=/a/:id&pattern=/a/b/:id").stream().await;
        for target in stream_of(&["/a/c/:id", "/a/b/c/:id"]) {
            let answer = api.get(&target).answer().await;
            assert!(answer.refused(503).contains(limit), "{answer:?}");
            assert!(answer.headers.contains_key("retry-after"));
            let shed = api.get(&target).like_a_browser().answer().await.ok();
            assert!(shed.body.contains("retry: "), "{shed:?}");
        }
        assert_eq!(api.hub.stats().patterns, 2, "a refused subscription holds no pattern");
        api.get("/stream?pattern=/a/:id&topic=x").stream().await;
        drop(held);
        api.get("/stream?pattern=/a/c/:id").stream().await;
    }
}

#[tokio::test]
async fn the_patterns_of_one_request_are_bounded_in_bytes() {
    let api = keyless_with(settings(|settings| settings.pattern_bytes_max = 20)).await;
    for target in stream_of(&["/123456789", "/123456789", "/1"]) {
        let answer = api.get(&target).answer().await;
        assert!(answer.refused(400).contains("22 bytes together; the limit is 20"), "{answer:?}");
    }
    let _held = api.get("/stream?pattern=/123456789&pattern=/123456789").stream().await;
}

#[tokio::test]
async fn one_pattern_of_many_streams_is_stored_once() {
    let api = keyless_with(Settings::default()).await;
    let held = join_all((0..1_000).map(|_| api.get("/stream?pattern=/users/:id").stream())).await;
    assert_eq!((api.hub.stats().patterns, api.hub.stats().feeds), (1, 1));
    drop(held);
    assert_eq!((api.hub.stats().patterns, api.hub.stats().feeds), (0, 0));
}

#[tokio::test]
async fn a_topic_that_is_longer_than_any_matcher_cannot_be_published() {
    let api = keyless_with(Settings::default()).await;
    let [longest, longer] = [4_096, 4_097].map(|length| "a".repeat(length));
    api.post(&format!("/topics/{longest}"), "x").answer().await.ok();
    api.form(&format!("topic={longest}&data=x")).answer().await.ok();
    api.post("/topics", format!(r#"{{"topic":"{longest}","data":"x"}}"#)).answer().await.ok();
    for answer in [
        api.post(&format!("/topics/{longer}"), "x").answer().await,
        api.form(&format!("topic=a&topic={longer}&data=x")).answer().await,
        api.post("/topics", format!(r#"{{"topics":["a","{longer}"],"data":"x"}}"#)).answer().await,
    ] {
        assert!(answer.refused(413).contains("has 4097 bytes; the limit is 4096"), "{answer:?}");
    }
    api.get(&format!("/topics/{longer}")).answer().await.refused(400);
    api.ask(http::Method::DELETE, &format!("/topics/{longer}")).answer().await.refused(400);
}
