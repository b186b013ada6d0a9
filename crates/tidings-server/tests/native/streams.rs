//! The native API, for curl and EventSource: streams.

use std::time::Duration;

use http::Method;
use tidings::Matcher;
use tidings_server::Settings;

use crate::support::{self, HUB, keyless, keyless_with, with_keys};

#[tokio::test]
async fn an_event_posted_to_a_topic_arrives_on_its_stream() {
    let api = keyless().await;
    let mut stream = api.get("/stream?topic=chat").stream().await;
    let receipt = api.post("/topics/chat", "hello").answer().await.ok().json();
    assert_eq!(receipt.as_object().map(serde_json::Map::len), Some(1), "the id and nothing else: {receipt}");
    let event = stream.event().await;
    assert_eq!(event, format!("id: {}\ndata: hello", receipt["id"].as_str().expect("an id")));
}

#[tokio::test]
async fn a_stream_begins_at_once_with_its_headers_and_preface() {
    let api = keyless().await;
    let mut stream = api.get("/stream?topic=chat").stream().await;
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    assert_eq!(stream.header("cache-control"), Some("no-store, no-transform"));
    assert_eq!(stream.header("x-accel-buffering"), Some("no"));
    assert_eq!(stream.header("x-content-type-options"), Some("nosniff"));
    let preface = stream.until("retry: ").await;
    assert!(preface.starts_with(": "), "{preface}");
}

#[tokio::test]
async fn the_charset_is_sent_if_the_operator_enables_it() {
    let mut settings = Settings::default();
    settings.charset_utf8 = true;
    let api = keyless_with(settings).await;
    for target in ["/stream?topic=chat", "/.well-known/mercure?match=chat"] {
        let stream = api.get(target).stream().await;
        assert_eq!(stream.header("content-type"), Some("text/event-stream; charset=utf-8"));
    }
}

#[tokio::test]
async fn a_stream_without_topics_has_the_default_topics() {
    let hub = support::hub().await;
    let mut settings = Settings::default();
    settings.default_topics = vec![hub.validator().exact("chat").expect("a topic")];
    let api = support::Api::new(hub, None, settings);
    let mut bare = api.get("/stream").stream().await;
    let mut named = api.get("/stream?topic=news").stream().await;
    api.post("/topics/chat", "to all").answer().await.ok();
    api.post("/topics/news", "to readers").answer().await.ok();
    assert_eq!(bare.data().await, "to all");
    assert_eq!(named.data().await, "to readers");
}

#[tokio::test]
async fn without_default_topics_a_stream_must_name_one() {
    let api = keyless().await;
    for target in ["/stream", "/stream?", "/stream?since=-50"] {
        let detail = api.get(target).answer().await.refused(400);
        assert!(detail.contains("/stream?topic=NAME"), "{detail}");
    }
}

#[tokio::test]
async fn a_stream_carries_topics_channels_and_patterns_together_each_event_once() {
    let api = keyless().await;
    let mut stream = api.get("/stream?topic=a&channel=b&pattern=books/:id&topic=a").stream().await;
    for topic in ["a", "c", "b", "books/1", "books/1/pages"] {
        api.post(&format!("/topics/{topic}"), topic).answer().await.ok();
    }
    api.post("/topics/a", "end").answer().await.ok();
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "end") {
        seen.push(stream.data().await);
    }
    assert_eq!(seen, ["a", "b", "books/1", "end"]);
}

#[tokio::test]
async fn a_star_is_every_topic() {
    let api = keyless().await;
    let mut named = api.get("/stream?topic=*").stream().await;
    let mut in_path = api.get("/topics/*").stream().await;
    api.post("/topics/whatever", "x").answer().await.ok();
    assert_eq!(named.data().await, "x");
    assert_eq!(in_path.data().await, "x");
}

#[tokio::test]
async fn reconnect_resumes_after_the_last_event() {
    let api = keyless().await;
    let first = api.post("/topics/chat", "1").answer().await.id();
    api.post("/topics/chat", "2").answer().await.ok();
    let mut stream = api.get("/stream?topic=chat").header("last-event-id", &first).stream().await;
    assert_eq!(stream.data().await, "2");
}

#[tokio::test]
async fn the_header_wins_over_a_stale_parameter_and_both_together_are_normal() {
    let api = keyless().await;
    let first = api.post("/topics/chat", "1").answer().await.id();
    let second = api.post("/topics/chat", "2").answer().await.id();
    api.post("/topics/chat", "3").answer().await.ok();
    for name in ["since", "lastEventId", "last_event_id"] {
        let target = format!("/stream?topic=chat&{name}={}", first.replace('#', "%23"));
        let mut stream = api.get(&target).header("last-event-id", &second).stream().await;
        assert_eq!(stream.data().await, "3");
    }
}

#[tokio::test]
async fn every_spelling_of_a_cursor_parameter_resumes() {
    let api = keyless().await;
    let first = api.post("/topics/chat", "1").answer().await.id();
    api.post("/topics/chat", "2").answer().await.ok();
    let id = first.replace('#', "%23");
    for name in ["since", "lastEventId", "Last-Event-ID", "lastEventID", "last_event_id", "evs_last_event_id"]
    {
        let mut stream = api.get(&format!("/stream?topic=chat&{name}={id}")).stream().await;
        assert_eq!(stream.data().await, "2", "{name}");
    }
    // As when an id was pasted without its number sign.
    let mut stream = api.get(&format!("/stream?topic=chat&since={}", &first[1..])).stream().await;
    assert_eq!(stream.data().await, "2");
}

#[tokio::test]
async fn since_accepts_keywords_counts_durations_and_ids() {
    let api = keyless().await;
    api.post("/topics/chat?id=now", "1").answer().await.ok();
    api.post("/topics/chat", "2").answer().await.ok();
    for (word, first) in [("earliest", "1"), ("-1", "2"), ("-50", "1"), ("10m", "1"), ("id:now", "2")] {
        let mut stream = api.get(&format!("/stream?topic=chat&since={word}")).stream().await;
        assert_eq!(stream.data().await, first, "{word}");
    }
    let mut stream = api.get("/stream?topic=chat&since=now").stream().await;
    api.post("/topics/chat", "3").answer().await.ok();
    assert_eq!(stream.data().await, "3");
}

#[tokio::test]
async fn an_id_that_node_sends_as_latin_1_is_found() {
    let api = keyless().await;
    api.post("/topics/chat?id=caf%C3%A9", "1").answer().await.ok();
    api.post("/topics/chat", "2").answer().await.ok();
    for id in ["café".as_bytes(), b"caf\xe9"] {
        let mut stream = api.get("/stream?topic=chat").header("last-event-id", id).stream().await;
        assert_eq!(stream.data().await, "2");
    }
}

#[tokio::test]
async fn an_unknown_cursor_is_reported_as_a_gap_and_the_stream_continues() {
    let api = keyless().await;
    api.post("/topics/chat", "1").answer().await.ok();
    let mut stream = api.get("/stream?topic=chat").header("last-event-id", "nobody-knows").stream().await;
    let notice = stream.notice().await;
    assert_eq!((&notice["kind"], &notice["reason"]), (&"gap".into(), &"unknown".into()));
    assert_eq!(notice["requested"], "nobody-knows");
    assert_eq!(stream.data().await, "1");
}

#[tokio::test]
async fn hello_names_the_connection_that_except_excludes() {
    let api = keyless().await;
    let mut mine = api.get("/stream?topic=chat&hello").stream().await;
    let mut other = api.get("/stream?topic=chat").stream().await;
    let notice = mine.notice().await;
    // The client waits for its heartbeats.
    assert_eq!((&notice["kind"], &notice["heartbeat_secs"]), (&"hello".into(), &15.into()));
    let connection = notice["connection"].as_str().expect("a connection");
    api.post(&format!("/topics/chat?except={connection}"), "to others").answer().await.ok();
    api.post("/topics/chat", "to all").answer().await.ok();
    assert_eq!(other.data().await, "to others");
    assert_eq!(mine.data().await, "to all");
}

#[tokio::test]
async fn the_json_format_has_all_fields_in_one_kind_of_message() {
    let api = keyless().await;
    let mut stream = api.get("/stream?topic=chat&format=json").stream().await;
    api.post("/topics/chat?type=greeting&id=1", "a\nb").answer().await.ok();
    let event = stream.event().await;
    assert!(event.starts_with("id: 1\ndata: "), "{event}");
    let data: serde_json::Value = serde_json::from_str(&event["id: 1\ndata: ".len()..]).expect("JSON");
    assert_eq!(
        (&data["topic"], &data["type"], &data["data"]),
        (&"chat".into(), &"greeting".into(), &"a\nb".into())
    );
}

#[tokio::test]
async fn an_unknown_format_is_refused_by_name() {
    let api = keyless().await;
    let detail = api.get("/stream?topic=chat&format=xml").answer().await.refused(400);
    assert!(detail.contains("`xml`") && detail.contains("format=json"), "{detail}");
}

// The list is that of the polyfills and clients that the hub is tested with.
#[tokio::test]
async fn parameters_that_known_clients_add_are_ignored() {
    let api = keyless().await;
    for parameters in [
        "padding=true&lastEventId=",
        "_=1700000000",
        "evs_preamble=2056&evs_buffer_size_limit=262144&evs_last_event_id=",
        "Last-Event-ID=&lastEventID=&last_event_id=",
        "datastar=%7B%22unread%22%3A3%7D",
        "hello=true&format=json&since=now",
    ] {
        api.get(&format!("/stream?topic=chat&{parameters}")).stream().await;
        api.get(&format!("/topics/chat?{parameters}")).stream().await;
    }
}

// Regression: `&sinc=5m` was ignored: the stream began with new events, and history was silently
// missing.
#[tokio::test]
async fn an_unknown_parameter_of_a_stream_is_refused_with_the_nearest_name() {
    let api = keyless().await;
    for (parameter, hint) in [
        ("sinc=5m", "Did you mean `since`?"),
        ("Since=5m", "Did you mean `since`?"),
        ("fromat=json", "Did you mean `format`?"),
        ("last-event-id=1", "Did you mean `Last-Event-ID`?"),
        ("colour=red", "`since`, `until`, `format`, `hello`"),
    ] {
        for target in [format!("/stream?topic=chat&{parameter}"), format!("/topics/chat?{parameter}")] {
            for accept in ["text/event-stream", "application/json"] {
                let detail = api.get(&target).header("accept", accept).answer().await.refused(400);
                assert!(detail.contains(hint), "{target}: {detail}");
            }
        }
    }
    assert_eq!(api.hub.stats().subscribers, 0);
}

#[tokio::test]
async fn a_parameter_that_has_no_effect_on_a_summary_is_refused() {
    let api = keyless().await;
    for parameter in ["since=-5", "hello=true"] {
        let ask = api.get(&format!("/topics/chat?{parameter}")).header("accept", "application/json");
        let detail = ask.answer().await.refused(400);
        assert!(detail.contains("summary"), "{detail}");
    }
    api.get("/topics/chat?_=1").header("accept", "application/json").answer().await.ok();
}

// Regression: a misspelt `since` was taken for an unknown id: a false gap notice, and the complete
// history.
#[tokio::test]
async fn an_invalid_since_is_refused_with_the_accepted_forms() {
    let api = keyless().await;
    for word in ["10min", "order-42", "2026-11-29", "", "5"] {
        let stale = api.get(&format!("/stream?topic=chat&since={word}")).header("last-event-id", "a");
        for ask in [
            api.get(&format!("/stream?topic=chat&since={word}")),
            api.get(&format!("/topics/chat?since={word}")),
            stale,
        ] {
            let detail = ask.answer().await.refused(400);
            assert!(detail.contains("`1h30m`") && detail.contains("`id:`"), "{detail}");
        }
    }
    let twice = api.get("/topics/chat?since=-5&since=now").answer().await.refused(400);
    assert!(twice.contains("more than once"), "{twice}");
    api.post("/topics/chat?id=order-42", "1").answer().await.ok();
    api.post("/topics/chat", "2").answer().await.ok();
    for (query, first) in [
        ("since=id:order-42", "2"),
        ("lastEventId=order-42", "2"),
        ("since=1h30m", "1"),
        ("since=2020-02-29T12:00:00Z", "1"),
        ("since=2020-02-29T12:00:00%2B02:00", "1"),
    ] {
        let mut stream = api.get(&format!("/stream?topic=chat&{query}")).stream().await;
        assert_eq!(stream.data().await, first, "{query}");
    }
    let mut later = api.get("/stream?topic=chat&since=2999-01-01T00:00:00Z").stream().await;
    api.post("/topics/chat", "3").answer().await.ok();
    assert_eq!(later.data().await, "3");
}

// Regression: a reader without a grant got 200 and no event.
#[tokio::test]
async fn a_private_topic_by_name_needs_a_grant() {
    let api = with_keys().await;
    let granted = support::token(&[], &["staff-1"]);
    for target in [
        "/topics/staff-1",
        "/stream?topic=staff-1",
        "/stream?topic=chat&topic=staff-1",
        "/stream?topic=./staff-1",
    ] {
        for accept in ["text/event-stream", "application/json"] {
            let ask = || api.get(target).header("accept", accept);
            let anonymous = ask().answer().await;
            let detail = anonymous.refused(401);
            assert_eq!(anonymous.header("www-authenticate"), "Bearer");
            assert!(detail.contains("staff-1`") && detail.contains("`Authorization: Bearer …`"), "{detail}");
            let insufficient = ask().bearer(support::CHAT_KEY).answer().await;
            let detail = insufficient.refused(403);
            assert!(insufficient.header("www-authenticate").contains("insufficient_scope"));
            assert!(detail.contains("staff-1`"), "{detail}");
        }
    }
    for target in ["/topics/staff-1", "/stream?topic=chat&topic=staff-1"] {
        api.get(target).bearer(&granted).stream().await;
        api.get(target).header("accept", "text/html").answer().await.ok();
    }
    // Patterns and `*` receive what the grants cover, and so does every subscription of the Mercure
    // API.
    for target in
        ["/stream?topic=*", "/stream?pattern=staff-:id", "/topics/*", &format!("{HUB}?match=staff-1")]
    {
        api.get(target).stream().await;
    }
    keyless().await.get("/topics/staff-1").stream().await;
    let mut settings = Settings::default();
    settings.keyless = tidings_server::Keyless::Anywhere;
    let detail = keyless_with(settings).await.get("/topics/staff-1").answer().await.refused(403);
    assert!(detail.contains("no keys"), "{detail}");
}

// Regression: a topic was private by its bytes, while a URL Pattern matched it in every spelling of
// its URL.
#[tokio::test]
async fn another_spelling_of_a_private_topic_is_private_too() {
    let api = with_keys().await;
    let mut pattern = api.get("/stream?pattern=staff-:id&topic=end").stream().await;
    for path in [
        "staff-1",
        "./staff-1",
        "a/../staff-1",
        "https://HUB.example:443/.well-known/staff-1",
        "staff-1%23a",
        "staff-1%3Fa",
    ] {
        api.post(&format!("/topics/{path}"), "secret").bearer(support::KEY).answer().await.ok();
    }
    api.post("/topics/end", "end").bearer(support::KEY).answer().await.ok();
    assert_eq!(pattern.data().await, "end");
}

// Regression: each was answered as a request without a credential: 200 and no event.
#[tokio::test]
async fn a_credential_in_the_wrong_place_is_refused_and_never_repeated() {
    let api = with_keys().await;
    let json = |ask: support::Ask| ask.header("accept", "application/json");
    for (query, cookie, place) in [
        ("authorization", "", "`authorization`"),
        ("access_token", "", "`access_token`"),
        ("token", "", "`token`"),
        ("jwt", "", "`jwt`"),
        ("ticket", "", "`ticket`"),
        ("", "mercureAuthorization", "`mercureAuthorization`"),
    ] {
        let at = |target: &str, separator: char| match query {
            "" => target.to_owned(),
            name => format!("{target}{separator}{name}={}", support::KEY),
        };
        for ask in [
            api.get(&at("/stream?topic=chat", '&')),
            api.get(&at("/topics/chat", '?')),
            json(api.get(&at("/topics/chat", '?'))),
            api.ask(Method::HEAD, &at("/topics/chat", '?')),
            api.get(&at(&format!("{HUB}?match=chat"), '&')),
            api.post(&at("/topics/chat", '?'), "x"),
            api.post(&at("/topics", '?'), r#"{"topic":"chat","data":1}"#),
            api.ask(Method::DELETE, &at("/topics/chat", '?')),
            api.post(&at(HUB, '?'), "topic=chat").header("content-type", "application/x-www-form-urlencoded"),
        ] {
            let ask = match cookie {
                "" => ask,
                name => ask.header("cookie", format!("theme=dark; {name}={}", support::KEY)),
            };
            let answer = ask.answer().await;
            assert_eq!(answer.status, 401, "{place}: {answer:?}");
            let challenge = answer.header("www-authenticate");
            assert!(challenge.starts_with("Bearer") && !challenge.contains("error"), "{challenge}");
            assert!(!format!("{answer:?}").contains(support::KEY), "{answer:?}");
            if !answer.body.is_empty() {
                let detail = answer.refused(401);
                assert!(detail.contains(place) && detail.contains("`Authorization: Bearer …`"), "{detail}");
            }
        }
    }
    assert_eq!(api.hub.stats().published, 0);
    // Cookies of the application are ignored.
    api.get("/stream?topic=chat").header("cookie", "session=1; token=2; jwt=3").stream().await;
    api.get(&format!("{HUB}?match=chat&tokens=1")).stream().await;
}

#[tokio::test]
async fn a_hub_without_keys_refuses_a_credential_in_the_url_too() {
    let api = keyless().await;
    for target in [
        "/stream?topic=chat&access_token=a",
        "/topics/chat?token=a",
        &format!("{HUB}?match=chat&authorization=a"),
    ] {
        api.get(target).answer().await.refused(401);
    }
    api.get("/stream?topic=chat").header("cookie", "mercureAuthorization=a").stream().await;
}

#[tokio::test]
async fn head_answers_as_get_does_and_opens_no_stream() {
    let api = keyless().await;
    for target in ["/stream?topic=chat", "/topics/chat", "/.well-known/mercure?match=chat"] {
        let answer = api.ask(Method::HEAD, target).answer().await.ok();
        assert_eq!(answer.header("content-type"), "text/event-stream");
        assert!(!answer.headers.contains_key("content-length"), "{answer:?}");
        assert_eq!(answer.body, "");
    }
    assert_eq!(api.ask(Method::HEAD, "/stream").answer().await.status, 400);
    assert_eq!(api.hub.stats().subscribers, 0);
    let metrics = api.get("/metrics").answer().await.body;
    assert!(metrics.contains("tidings_streams_opened_total{transport=\"http1\"} 0"), "{metrics}");
}

#[tokio::test]
async fn a_malformed_query_is_refused() {
    let api = keyless().await;
    for target in [
        "/stream?topic=%",
        "/stream?topic=%zz",
        "/stream?topic=%ff",
        "/stream?%c3=1",
        "/topics/%ff",
        "/topics/a%2",
    ] {
        api.get(target).answer().await.refused(400);
        if target.starts_with("/topics") {
            api.post(target, "x").answer().await.refused(400);
        }
    }
}

#[tokio::test]
async fn a_topic_is_the_rest_of_the_path_decoded_once() {
    let api = keyless().await;
    let mut stream = api.get("/stream?topic=*&format=json").stream().await;
    for (path, topic) in [
        ("/topics/a/b/c", "a/b/c"),
        ("/topics/a//b", "a//b"),
        ("/topics//", "/"),
        ("/topics/a/", "a/"),
        ("/topics/a/../b", "a/../b"),
        ("/topics/./a", "./a"),
        ("/topics/a%2Fb", "a/b"),
        ("/topics/a%252Fb", "a%2Fb"),
        ("/topics/a+b%20c", "a+b c"),
        ("/topics/caf%C3%A9", "café"),
        ("/topics/https://example.com/a%3Fb", "https://example.com/a?b"),
    ] {
        api.post(path, "x").answer().await.ok();
        let data: serde_json::Value = serde_json::from_str(&stream.data().await).expect("JSON");
        assert_eq!(data["topic"], topic, "{path}");
        let summary = api.get(path).header("accept", "application/json").answer().await.ok().json();
        assert_eq!(summary["topic"], topic, "{path}");
    }
}

#[tokio::test]
async fn a_missing_topic_is_refused_with_an_example() {
    let api = keyless().await;
    assert!(api.post("/topics/", "x").answer().await.refused(400).contains("/topics/chat"));
    assert!(api.get("/topics/").answer().await.refused(400).contains("/topics/chat"));
}

#[tokio::test]
async fn a_topic_in_the_path_excludes_further_topics() {
    let api = keyless().await;
    let detail = api.get("/topics/a?topic=b").answer().await.refused(400);
    assert!(detail.contains("/stream?topic=a&topic=b"), "{detail}");
}

#[tokio::test]
async fn the_summary_has_the_newest_events_and_a_cursor() {
    let api = keyless().await;
    let empty = api.get("/topics/chat").header("accept", "application/json").answer().await.ok();
    assert_eq!(empty.json()["newest"], serde_json::Value::Null);
    assert!(empty.headers.get_all("vary").iter().any(|value| value == "Accept"));

    let _stream = api.get("/stream?topic=chat").stream().await;
    api.post("/topics/chat?type=greeting", "1").answer().await.ok();
    let newest = api.post("/topics/chat", "2").answer().await.id();
    api.post("/topics/other", "3").answer().await.ok();
    let summary = api.get("/topics/chat").header("accept", "application/json").answer().await.ok().json();
    assert_eq!(summary["subscribers"], 1);
    assert_eq!(summary["newest"], newest);
    let events = summary["events"].as_array().expect("events");
    let reported: Vec<_> = events.iter().map(|event| (&event["type"], &event["data"])).collect();
    assert_eq!(reported, [(&"greeting".into(), &"1".into()), (&"message".into(), &"2".into())]);

    let cursor = summary["cursor"].as_str().expect("a cursor").replace('#', "%23");
    let mut stream = api.get(&format!("/stream?topic=chat&since={cursor}")).stream().await;
    api.post("/topics/chat", "4").answer().await.ok();
    assert_eq!(stream.data().await, "4");
}

#[tokio::test]
async fn a_browser_that_navigates_gets_a_page_other_clients_the_stream() {
    let api = keyless().await;
    let navigation = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for target in ["/topics/chat", "/stream?topic=chat"] {
        let page = api.get(target).header("accept", navigation).answer().await.ok();
        assert!(page.header("content-type").starts_with("text/html"));
        assert!(page.headers.get_all("vary").iter().any(|value| value == "Accept"));
        for accept in ["text/event-stream", "*/*", "image/png", "text/html, text/event-stream"] {
            let stream = api.get(target).header("accept", accept).stream().await;
            assert!(stream.headers.get_all("vary").iter().any(|value| value == "Accept"));
        }
    }
}

#[tokio::test]
async fn a_private_event_needs_a_grant_live_replayed_and_in_the_summary() {
    let api = with_keys().await;
    let mut owner =
        api.get("/stream?topic=user-42&topic=chat").bearer(&support::token(&[], &["user-42"])).stream().await;
    let mut other = api.get("/stream?topic=user-42&topic=chat").bearer(support::CHAT_KEY).stream().await;
    let mut anonymous = api.get("/stream?topic=user-42&topic=chat").stream().await;
    api.post("/topics/user-42?private&id=secret", "for 42").bearer(support::KEY).answer().await.ok();
    api.post("/topics/chat", "for all").bearer(support::KEY).answer().await.ok();
    assert_eq!(owner.data().await, "for 42");
    assert_eq!(other.data().await, "for all");
    assert_eq!(anonymous.data().await, "for all");

    let mut replayed = api.get("/stream?topic=user-42&topic=chat&since=earliest").stream().await;
    assert_eq!(replayed.data().await, "for all");
    let ask = |credential: Option<&str>| {
        let ask = api.get("/topics/user-42").header("accept", "application/json");
        credential.map_or_else(
            || api.get("/topics/user-42").header("accept", "application/json"),
            |it| ask.bearer(it),
        )
    };
    let seen = ask(Some(support::KEY)).answer().await.ok().json();
    assert_eq!((&seen["newest"], seen["events"].as_array().map(Vec::len)), (&"secret".into(), Some(1)));
    let hidden = ask(None).answer().await.ok();
    assert!(!hidden.body.contains("secret") && !hidden.body.contains("for 42"), "{hidden:?}");
    // The id of an event that the reader may not receive is treated as unknown.
    let mut stream = api.get(&format!("{HUB}?match=user-42&last_event_id=secret")).stream().await;
    assert_eq!(stream.header("mercure-last-event-id"), Some("earliest"));
    assert_eq!(stream.notice().await["reason"], "unknown");
}

#[tokio::test]
async fn a_summary_counts_subscribers_only_for_credentials_that_cover_the_topic() {
    let api = with_keys().await;
    let _owner = api.get("/topics/staff-1").bearer(&support::token(&[], &["staff-1"])).stream().await;
    let owner = support::token(&[], &["staff-1"]);
    let count = async |target: &str, credential: Option<&str>| {
        let ask = api.get(target).header("accept", "application/json");
        let ask = match credential {
            Some(credential) => ask.bearer(credential),
            None => ask,
        };
        ask.answer().await.ok().json().get("subscribers").cloned()
    };
    // A private topic, a public one and all of them.
    for (target, owners, alls) in
        [("/topics/staff-1", Some(1), 1), ("/topics/chat", None, 0), ("/topics/*", None, 1)]
    {
        assert_eq!(count(target, Some(support::KEY)).await, Some(alls.into()), "{target}");
        assert_eq!(count(target, Some(&owner)).await, owners.map(serde_json::Value::from), "{target}");
    }
    for target in ["/topics/chat", "/topics/*"] {
        assert_eq!(count(target, None).await, None, "{target}");
    }
    api.get("/topics/staff-1").header("accept", "application/json").answer().await.refused(401);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_token_does() {
    let api = with_keys().await;
    // Not in the next second: with little time left, it could have expired before it is presented.
    let token = support::token_until(&[], &["chat"], support::unix_secs() + 600);
    let mut stream = api.get("/stream?topic=chat").bearer(&token).stream().await;
    tokio::time::advance(Duration::from_secs(540)).await;
    assert_eq!(stream.notice().await["kind"], "expiring");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(stream.notice().await["kind"], "expired");
}

#[tokio::test]
async fn a_summary_of_a_matcher_is_that_of_everything() {
    let api = keyless().await;
    api.post("/topics/a", "1").answer().await.ok();
    let summary = api.get("/topics/*").header("accept", "application/json").answer().await.ok().json();
    assert_eq!(summary["topic"], Matcher::Any.as_str());
    assert_eq!(summary["events"][0]["topic"], "a");
}
