//! The method QUERY on the path of the Mercure API: the parameters of a subscription in a form.
//! Number 1 of the project's list.

use http::{Method, StatusCode};

use tidings::NewEvent;
use tidings_server::Settings;

use crate::{
    served_support::{Served, VERSIONS, lines_until},
    support::{Api, Ask, CHAT_KEY, HUB, KEY, keyless, keyless_with, with_keys},
};

const FORM: &str = "application/x-www-form-urlencoded";

fn query(api: &Api, target: &str, body: impl Into<axum::body::Body>) -> Ask {
    api.ask(Method::QUERY, target).body(body).header("content-type", FORM)
}

#[tokio::test]
async fn the_matchers_of_the_body_and_of_the_url_count_together() {
    let api = keyless().await;
    let target = format!("{HUB}?match=a&match_urlpattern=%2Frooms%2F%3Aid");
    let body = "match=b&match_exact=c&match_urlpattern=%2Fusers%2F%3Aid&unknown=1";
    let mut stream = query(&api, &target, body).stream().await;
    for topic in ["a", "other", "b", "c", "/rooms/1", "/users/1", "/users/1/2", "b"] {
        api.form(&format!("topic={topic}&data={topic}")).answer().await.ok();
    }
    for data in ["a", "b", "c", "/rooms/1", "/users/1", "b"] {
        assert_eq!(stream.data().await, data);
    }
    // Either may be empty.
    query(&api, HUB, "match=a").stream().await;
    query(&api, &format!("{HUB}?match=a"), "").stream().await;
    assert!(query(&api, HUB, "").answer().await.refused(400).contains("names no topic"));
}

#[tokio::test]
async fn the_header_beats_the_id_of_the_url_which_beats_that_of_the_body() {
    let api = keyless().await;
    for id in ["1", "2", "3", "4"] {
        api.form(&format!("topic=a&id={id}&data={id}")).answer().await.ok();
    }
    let with = |target: &str, body: &str| query(&api, &format!("{HUB}{target}"), body.to_owned());
    for (ask, after) in [
        (with("", "match=a&last_event_id=1"), "1"),
        (with("?last_event_id=2", "match=a&last_event_id=1"), "2"),
        (with("?last_event_id=1", "match=a&last_event_id=2"), "1"),
        (with("?last_event_id=2", "match=a&last_event_id=1").header("last-event-id", "3"), "3"),
    ] {
        let mut stream = ask.stream().await;
        assert_eq!(stream.header("mercure-last-event-id"), Some(after));
        let next = after.parse::<u32>().expect("a number") + 1;
        assert_eq!(stream.data().await, next.to_string());
    }
}

#[tokio::test]
async fn a_query_that_requests_no_stream_is_refused_with_the_reason() {
    let api = keyless().await;
    let matchers = |count: usize| {
        let each: Vec<_> = (0..count).map(|index| format!("match={index}")).collect();
        each.join("&")
    };
    for (body, status, part) in [
        ("match=a&Match=b".to_owned(), 400, "match_urlpattern"),
        ("match=a&matchURLPattern=b".to_owned(), 400, "match_urlpattern"),
        ("match=%ff".to_owned(), 400, "UTF-8"),
        ("match=%zz".to_owned(), 400, "%25"),
        ("match=a%00".to_owned(), 400, ""),
        ("match_urlpattern=%2F(".to_owned(), 400, ""),
        ("topic=a".to_owned(), 400, "mercure_revisions"),
        (matchers(101), 400, "101"),
        (matchers(2_000), 400, "2000"),
        ("match=a&ticket=tt_x".to_owned(), 400, "`ticket`"),
        ("match=a&authorization=x".to_owned(), 400, "`authorization`"),
        ("match=a&access_token=x".to_owned(), 400, "`access_token`"),
    ] {
        let detail = query(&api, HUB, body.clone()).answer().await.refused(status);
        assert!(detail.contains(part), "{body}: {detail}");
    }
    query(&api, HUB, &b"match=\xff"[..]).answer().await.refused(400);
    for media_type in ["application/json", "text/plain", "application/x-www-form-urlencoded;charset=latin1"] {
        let ask = api.ask(Method::QUERY, HUB).body("match=a").header("content-type", media_type);
        let answer = ask.answer().await;
        assert!(answer.refused(415).contains(FORM), "{answer:?}");
        assert_eq!(answer.header("accept-query"), FORM);
    }
    api.ask(Method::QUERY, HUB).body("match=a").answer().await.refused(415);
    query(&api, HUB, "match=a").header("accept", "application/json").answer().await.refused(406);
    let deflated = query(&api, HUB, "match=a").header("content-encoding", "deflate");
    deflated.answer().await.refused(415);
}

#[tokio::test]
async fn a_query_with_a_body_beyond_the_limit_is_413() {
    let mut settings = Settings::default();
    settings.body_bytes_max = 100;
    let api = keyless_with(settings).await;
    query(&api, HUB, format!("match=a&x={}", "x".repeat(90))).stream().await;
    query(&api, HUB, format!("match=a&x={}", "x".repeat(91))).answer().await.refused(413);
}

#[tokio::test]
async fn private_events_of_a_query_need_the_same_grants() {
    let api = with_keys().await;
    query(&api, HUB, "match=a").bearer("tk_unknown").answer().await.refused(401);
    let mut allowed = query(&api, HUB, "match=staff-1").bearer(KEY).stream().await;
    let mut other = query(&api, HUB, "match=staff-1&match=chat").bearer(CHAT_KEY).stream().await;
    api.form("topic=staff-1&data=private").bearer(KEY).answer().await.ok();
    api.form("topic=chat&data=public").bearer(KEY).answer().await.ok();
    assert_eq!(allowed.data().await, "private");
    assert_eq!(other.data().await, "public");
}

#[tokio::test]
async fn the_older_revision_takes_its_parameters_in_a_form_as_well() {
    let mut settings = Settings::default();
    settings.older_mercure_revision = true;
    let api = keyless_with(settings).await;
    for id in ["1", "2"] {
        api.form(&format!("topic=books/{id}&id={id}&data={id}")).answer().await.ok();
    }
    let mut stream = query(&api, HUB, "topic=books%2F%7Bid%7D&lastEventID=1").stream().await;
    assert_eq!(stream.header("last-event-id"), Some("1"));
    assert_eq!(stream.data().await, "2");
}

/// RFC 9110, section 15.5.6, and RFC 10008: what the path takes.
#[tokio::test]
async fn the_path_says_which_methods_and_bodies_it_takes() {
    let api = keyless().await;
    for (method, status) in [
        (Method::OPTIONS, StatusCode::NO_CONTENT),
        (Method::PUT, StatusCode::METHOD_NOT_ALLOWED),
        (Method::DELETE, StatusCode::METHOD_NOT_ALLOWED),
        (Method::PATCH, StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let answer = api.ask(method, HUB).answer().await;
        assert_eq!((answer.status, answer.header("allow")), (status, "GET,HEAD,POST,QUERY"));
        assert_eq!(answer.header("accept-query"), FORM);
    }
}

#[tokio::test]
async fn the_preflight_of_a_query_allows_it() {
    let api = keyless().await;
    let ask = api.ask(Method::OPTIONS, HUB).header("origin", "http://localhost:5173");
    let answer = ask.header("access-control-request-method", "QUERY").answer().await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(answer.header("access-control-allow-methods"), "GET, HEAD, POST, QUERY");
    assert_eq!(answer.header("access-control-allow-origin"), "http://localhost:5173");
}

/// As the stream of a GET does, over HTTP/1.1 in a shard of the hub.
#[tokio::test]
async fn a_query_over_a_socket_receives_what_a_get_does() {
    for version in VERSIONS {
        let served = Served::start().await;
        let body = "match=chat";
        let request = format!(
            "QUERY {HUB} HTTP/{version}\r\nHost: localhost\r\nContent-Type: {FORM}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = served.send(request).await;
        let head = lines_until(&mut stream, "retry: ").await;
        assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
        served.hub.publish(NewEvent::new("chat", "hello")).await.expect("published");
        lines_until(&mut stream, "data: hello\n").await;
    }
}
