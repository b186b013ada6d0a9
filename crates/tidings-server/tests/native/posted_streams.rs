//! `POST /stream` and `QUERY /stream`: the parameters of a subscription in the body.

use http::{Method, StatusCode};

use tidings::NewEvent;

use crate::{
    served_support::{Served, VERSIONS, lines_until},
    support::{CHAT_KEY, KEY, keyless, with_keys},
};

const FORM: &str = "application/x-www-form-urlencoded";
const METHODS: [Method; 2] = [Method::POST, Method::QUERY];

#[tokio::test]
async fn a_form_and_json_subscribe_as_a_query_does() {
    let api = keyless().await;
    api.post("/topics/a", "one").answer().await.id();
    for (content_type, body) in [
        (FORM, "topic=a&topic=b&since=earliest&format=json"),
        ("application/json", r#"{"topic":["a","b"],"since":"earliest","format":"json"}"#),
        (
            "application/json; charset=utf-8",
            r#"{"topic":"a","channel":["b"],"since":"earliest","format":"json"}"#,
        ),
    ] {
        for method in METHODS {
            let ask = api.ask(method, "/stream").body(body).header("content-type", content_type);
            let mut stream = ask.stream().await;
            assert!(stream.data().await.contains(r#""data":"one""#), "{body}");
            api.post("/topics/b", "two").answer().await.id();
            assert!(stream.data().await.contains(r#""topic":"b""#), "{body}");
            api.ask(Method::DELETE, "/topics/b").answer().await;
        }
    }
    // What a client adds to every URL still counts.
    let mut stream = api.post("/stream?hello=true", "topic=a").header("content-type", FORM).stream().await;
    assert_eq!(stream.notice().await["kind"], "hello");
}

#[tokio::test]
async fn topics_start_where_the_body_or_the_query_says() {
    let api = keyless().await;
    for (topic, data) in [("chat", "1"), ("typing", "2"), ("chat", "3"), ("chat", "4"), ("jobs", "5")] {
        api.post(&format!("/topics/{topic}"), data).answer().await.id();
    }
    let json = r#"{"topic":["chat","typing"],"pattern":"jobs","since":{"chat":"-2","jobs":"earliest"}}"#;
    let form = "topic=chat&since=-2&topic=typing&since=now&pattern=jobs&since=earliest";
    for mut stream in [
        api.get(&format!("/stream?{form}")).stream().await,
        api.post("/stream", form).header("content-type", FORM).stream().await,
        api.post("/stream", json).header("content-type", "application/json").stream().await,
    ] {
        api.post("/topics/typing", "6").answer().await.id();
        for data in ["3", "4", "5", "6"] {
            assert_eq!(stream.data().await, data);
        }
    }
    // A client that reconnects sends the id of the last event that it has, for all topics.
    let resumed = api.get("/stream?topic=chat&since=-2&topic=typing&since=now&format=json");
    let mut first = api.get("/stream?topic=chat&since=-3&format=json").stream().await;
    let first: serde_json::Value = serde_json::from_str(&first.data().await).expect("JSON");
    let mut resumed = resumed.header("last-event-id", first["id"].as_str().expect("an id")).stream().await;
    assert!(resumed.data().await.contains(r#""topic":"typing""#));
}

#[tokio::test]
async fn more_topics_than_fit_into_a_url_are_subscribed_at_once() {
    let api = keyless().await;
    let topics: Vec<_> = (0..100).map(|number| format!("{number}-{}", "x".repeat(4_000))).collect();
    let body = serde_json::json!({ "topic": topics }).to_string();
    assert!(body.len() > 400_000);
    let mut stream = api.post("/stream", body).header("content-type", "application/json").stream().await;
    api.post(&format!("/topics/{}", topics[99]), "last").answer().await.id();
    assert_eq!(stream.data().await, "last");
}

#[tokio::test]
async fn a_body_that_requests_no_stream_is_refused_with_the_reason() {
    let api = keyless().await;
    let many = serde_json::json!({ "topic": vec!["a"; 101] }).to_string();
    for (content_type, body, status, part) in [
        (FORM, "", 400, "names no topic"),
        (FORM, "topics=a", 400, "`topics` is unknown"),
        (FORM, "topic=%zz", 400, "%25"),
        (FORM, "topic=a&since=soon", 400, "ince"),
        (FORM, "topic=a&ticket=tt_x", 400, "a ticket is read in the URL"),
        (FORM, "topic=a&topic=b&since=-1&since=now", 400, "more than once"),
        ("application/json", r#"{"topic":["a","b"],"since":{"c":"now"}}"#, 400, "`c`"),
        ("application/json", r#"{"topic":"a","since":7}"#, 400, "an object with a string for each topic"),
        ("application/json", "", 400, "begin with `{`"),
        ("application/json", r#"["a"]"#, 400, "begin with `{`"),
        ("application/json", r#"{"topic":7}"#, 400, "a string or a list of strings"),
        ("application/json", r#"{"topics":"a"}"#, 400, "unknown field `topics`"),
        ("application/json", &many, 400, "101"),
        ("text/plain", "topic=a", 415, "application/json"),
    ] {
        for method in METHODS {
            let ask = api.ask(method, "/stream").body(body.to_owned()).header("content-type", content_type);
            let detail = ask.answer().await.refused(status);
            assert!(detail.contains(part), "{body}: {detail}");
        }
    }
    // RFC 10008: a QUERY without a media type fails.
    for method in METHODS {
        let answer = api.ask(method, "/stream").body("topic=a").answer().await;
        assert!(answer.refused(400).contains("application/json"), "{answer:?}");
    }
    let large = api.post("/stream", "x".repeat((1 << 20) + 1)).header("content-type", FORM).answer().await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn private_topics_in_a_body_need_the_same_grants() {
    let api = with_keys().await;
    let ask = || api.post("/stream", "topic=staff-1").header("content-type", FORM);
    ask().answer().await.refused(401);
    ask().bearer(CHAT_KEY).answer().await.refused(403);
    let mut stream = ask().bearer(KEY).stream().await;
    api.post("/topics/staff-1", "private").bearer(KEY).answer().await.id();
    assert_eq!(stream.data().await, "private");
}

/// RFC 10008: `Accept-Query` says that a path takes QUERY, and with which media types.
#[tokio::test]
async fn stream_says_that_it_takes_query_and_with_which_bodies() {
    let api = keyless().await;
    let types = "application/x-www-form-urlencoded, application/json";
    for (method, status) in [
        (Method::OPTIONS, 204),
        (Method::PUT, 405),
        (Method::DELETE, 405),
        (Method::from_bytes(b"query").expect("a method"), 405),
    ] {
        let answer = api.ask(method, "/stream").answer().await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (status, "GET,HEAD,POST,QUERY"));
        assert_eq!(answer.header("accept-query"), types);
    }
    let unsupported = api.ask(Method::QUERY, "/stream").body("SELECT").header("content-type", "text/sql");
    let answer = unsupported.answer().await;
    assert_eq!((answer.status.as_u16(), answer.header("accept-query")), (415, types));
    // Elsewhere it is a method like any other that is not allowed.
    let answer = api.ask(Method::QUERY, "/topics/chat").answer().await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "GET,HEAD,POST,DELETE"));
}

/// As the stream of a GET does, over HTTP/1.1 in a shard of the hub.
#[tokio::test]
async fn a_query_over_a_socket_receives_what_a_get_does() {
    for version in VERSIONS {
        let served = Served::start().await;
        for method in METHODS {
            let body = r#"{"topic":["chat"]}"#;
            let request = format!(
                "{method} /stream HTTP/{version}\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let mut stream = served.send(request).await;
            let head = lines_until(&mut stream, "retry: ").await;
            assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
            served.hub.publish(NewEvent::new("chat", "hello")).await.expect("published");
            lines_until(&mut stream, "data: hello\n").await;
        }
    }
}
