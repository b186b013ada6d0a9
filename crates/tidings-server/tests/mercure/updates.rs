//! The Mercure API. Each test names the checks of the protocol that it covers; the numbers are
//! those of the project's list.

use std::time::Duration;

use tidings_server::Settings;

use crate::support::{self, CHAT_KEY, HUB, KEY, keyless, keyless_with, token, with_keys, with_keys_and};

/// Numbers 13 and 20: "Publication".
#[tokio::test]
async fn a_form_is_published_and_answered_with_its_id_as_text() {
    let api = keyless().await;
    let mut stream = api.get(&format!("{HUB}?match=a")).stream().await;
    let answer = api.form("topic=a&data=hello+%C3%A9&unknown=1").answer().await.ok();
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(stream.event().await, format!("id: {}\ndata: hello é", answer.body));
}

/// Number 17: a generated id is a fragment.
#[tokio::test]
async fn a_generated_id_is_a_fragment_and_a_given_one_is_echoed() {
    let api = keyless().await;
    let generated = api.form("topic=a").answer().await.ok().body;
    assert!(generated.starts_with('#') && generated.len() <= 64, "{generated}");
    for id in ["urn:uuid:1", "not an IRI", "twice", "twice", "-50", "now"] {
        let body = api.form(&format!("topic=a&id={}", id.replace(' ', "+"))).answer().await.ok().body;
        assert_eq!(body, id);
    }
}

/// Number 13: at least one topic; the first is canonical, the rest are alternates, and an event is
/// dispatched if any matches.
#[tokio::test]
async fn an_event_is_dispatched_if_any_of_its_topics_matches() {
    let api = keyless().await;
    let mut stream = api.get(&format!("{HUB}?match=b")).stream().await;
    api.form("topic=a&topic=b&data=1").answer().await.ok();
    api.form("topic=a&data=2").answer().await.ok();
    api.form("topic=b&data=3").answer().await.ok();
    assert_eq!(stream.data().await, "1");
    assert_eq!(stream.data().await, "3");
    api.form("data=1").answer().await.refused(400);
    api.form("").answer().await.refused(400);
}

/// Number 13: urlencoded and in UTF-8.
#[tokio::test]
async fn only_a_form_in_utf8_is_published() {
    let api = keyless().await;
    for media_type in [
        "application/json",
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded; charset=iso-8859-1",
        "",
    ] {
        let answer = api.post(HUB, "topic=a").header("content-type", media_type).answer().await;
        answer.refused(415);
    }
    api.post(HUB, "topic=a").answer().await.refused(415);
    for media_type in [
        "application/x-www-form-urlencoded;charset=UTF-8",
        "Application/X-WWW-Form-Urlencoded ; charset=\"utf-8\"",
    ] {
        api.post(HUB, "topic=a").header("content-type", media_type).answer().await.ok();
    }
    for body in ["topic=%ff", "topic=a&data=%c3%28", "topic=a&data=%", "%ff=1&topic=a"] {
        api.form(body).answer().await.refused(400);
    }
    let raw =
        api.post(HUB, &b"topic=a&data=\xff"[..]).header("content-type", "application/x-www-form-urlencoded");
    raw.answer().await.refused(400);
    assert_eq!(api.hub.stats().published, 2);
}

/// Number 14: no publication to `*`, to invalid characters, or to the hub's own URL in any
/// spelling.
#[tokio::test]
async fn reserved_and_malformed_topics_are_refused() {
    let api = keyless().await;
    for topic in [
        "",
        "*",
        "a%00",
        "a%0D",
        "a%C2%85",
        "a%7F",
        "a%E2%80%AE",
        "%2F.well-known%2Fmercure",
        "%2F.well-known%2Fmercure%2Fsubscriptions%2Fexact%2Fa%2Fb",
        "https%3A%2F%2Felsewhere.example%2F.well-known%2Fmercure",
        "%2Fa%2F..%2F.well-known%2F.%2Fmercure",
        "%2F.well-known%2F%256Dercure",
        "%2F.well-known%2F%256dercure%2Fx",
        "%5C.well-known%5Cmercure",
        "mercure%2Fx",
    ] {
        api.form(&format!("topic=a&topic={topic}")).answer().await.refused(400);
    }
    assert_eq!(api.hub.stats().published, 0);
}

/// Number 15: data is split at all three line ends.
#[tokio::test]
async fn data_of_several_lines_is_one_event() {
    let api = keyless().await;
    let mut stream = api.get(&format!("{HUB}?match=a")).stream().await;
    api.form("topic=a&id=1&data=a%0Ab%0Dc%0D%0Ad").answer().await.ok();
    assert_eq!(stream.event().await, "id: 1\ndata: a\ndata: b\ndata: c\ndata: d");
    api.form("topic=a&id=2").answer().await.ok();
    assert_eq!(stream.until("\n\n").await, "id: 2\ndata: \n\n");
}

/// Numbers 7, 16 and 30: only the presence of `private` counts; a private event needs a match and a
/// permission.
#[tokio::test]
async fn only_the_presence_of_private_counts() {
    let api = with_keys().await;
    let mut anonymous = api.get(&format!("{HUB}?match=chat&match=news")).stream().await;
    let mut entitled = api.get(&format!("{HUB}?match=chat&match=news")).bearer(CHAT_KEY).stream().await;
    for value in ["private", "private=", "private=on", "private=false", "private=0"] {
        api.form(&format!("topic=chat&data=secret&{value}")).bearer(KEY).answer().await.ok();
        assert_eq!(entitled.data().await, "secret", "{value}");
    }
    api.form("topic=news&data=of+others&private").bearer(KEY).answer().await.ok();
    api.form("topic=news&topic=chat&data=alternate&private").bearer(KEY).answer().await.ok();
    api.form("topic=news&data=public").bearer(KEY).answer().await.ok();
    assert_eq!(entitled.data().await, "alternate");
    assert_eq!(entitled.data().await, "public");
    assert_eq!(anonymous.data().await, "public");
}

/// Numbers 17 and 18: ids, types and times that are refused.
#[tokio::test]
async fn malformed_ids_types_and_times_are_refused() {
    let api = keyless().await;
    for field in [
        "id=%23a",
        "id=earliest",
        "id=a%0Ab",
        "id=a%00",
        "id=a%C2%80",
        "id=a%E2%80%8B",
        "id=a+",
        "id=%20a",
        "id=%09a",
        "id=a%C2%A0",
        "type=mercure",
        "type=tidings",
        "type=a%0Db",
        "type=a%00",
        "retry=1s",
        "retry=-1",
        "retry=1.5",
        "retry=%D9%A1",
        "retry=",
        "id=a&id=b",
        "data=a&data=b",
        "retry=1&retry=2",
    ] {
        api.form(&format!("topic=a&{field}")).answer().await.refused(400);
    }
    assert_eq!(api.hub.stats().published, 0);
}

/// Number 18: type and retry are sent.
#[tokio::test]
async fn type_and_retry_are_sent() {
    let api = keyless().await;
    let mut stream = api.get(&format!("{HUB}?match=a")).stream().await;
    api.form("topic=a&type=news&retry=1234&id=1&data=x").answer().await.ok();
    assert_eq!(stream.event().await, "event: news\nretry: 1234\nid: 1\ndata: x");
    api.form("topic=a&retry=0&id=2&data=x").answer().await.ok();
    assert_eq!(stream.until("\n\n").await, "retry: 500\nid: 2\ndata: x\n\n");
    api.form("topic=a&type=&id=&data=x").answer().await.ok();
    assert!(!stream.event().await.contains("event:"));
}

/// Number 21: what exceeds a limit is 413, checked before anything is matched (Security 13).
#[tokio::test]
async fn an_exceeded_limit_is_413() {
    let mut settings = Settings::default();
    settings.body_bytes_max = 20_000;
    let api = keyless_with(settings).await;
    let most = api.hub.validator().topics_max;
    api.form(&"topic=a&".repeat(most)).answer().await.ok();
    api.form(&"topic=a&".repeat(most + 1)).answer().await.refused(413);
    api.form(&format!("topic=a{}", "&x=1".repeat(1_000))).answer().await.refused(413);
    api.form(&format!("topic=a&data={}", "x".repeat(20_000))).answer().await.refused(413);
    // Whatever else is wrong: none of the topics is looked at, and no permission for them.
    api.form(&"topic=*&".repeat(most + 1)).answer().await.refused(413);
    assert_eq!(api.hub.stats().published, 1);
    let api = with_keys().await;
    api.form(&"topic=a&".repeat(most + 1)).bearer(&token(&["b"], &[])).answer().await.refused(413);
}

/// Number 2: names are case-sensitive, and a name that begins with `match` must be a type.
#[tokio::test]
async fn an_unknown_matcher_type_is_refused_and_other_names_are_ignored() {
    let api = keyless().await;
    for name in [
        "Match",
        "MATCH",
        "match_regexp",
        "match_Exact",
        "matchURLPattern",
        "match%5B%5D",
        "matched",
        "match_",
    ] {
        let detail = api.get(&format!("{HUB}?match=a&{name}=b")).answer().await.refused(400);
        assert!(detail.contains("match_urlpattern"), "{detail}");
    }
    api.get(&format!("{HUB}?match=a&mat=b&xmatch=c&Last_Event_Id=d")).stream().await;
}

/// Numbers 2 and 5: no matcher is no subscription.
#[tokio::test]
async fn a_subscription_without_a_matcher_is_refused() {
    let api = keyless().await;
    for query in ["", "?", "?last_event_id=a", "?match=", "?match_exact="] {
        api.get(&format!("{HUB}{query}")).answer().await.refused(400);
    }
}

/// Number 3: matchers are UTF-8 without control and format characters, and patterns compile.
#[tokio::test]
async fn malformed_matchers_are_refused_without_internals() {
    let api = keyless().await;
    for matcher in [
        "match=%ff",
        "match=a%00",
        "match_exact=a%0A",
        "match=a%C2%9F",
        "match=a%E2%81%A0",
        "match_urlpattern=(",
        "match_urlpattern=%2F(%5Ba-z)",
    ] {
        let detail = api.get(&format!("{HUB}?{matcher}")).answer().await.refused(400);
        assert!(!detail.contains("regex") && !detail.contains("parse error"), "{detail}");
    }
}

/// Number 4: too many matchers are 400, before any of them is parsed or compiled (Security 13).
#[tokio::test]
async fn too_many_matchers_are_400() {
    let api = keyless().await;
    let most = api.hub.validator().matchers_max;
    api.get(&format!("{HUB}?{}", "match=a&".repeat(most))).stream().await;
    let detail = api.get(&format!("{HUB}?{}", "match=a&".repeat(most + 1))).answer().await.refused(400);
    assert!(detail.contains(&most.to_string()), "{detail}");
    for invalid in ["match=%00&", "match_urlpattern=(&"] {
        let also = api.get(&format!("{HUB}?{}", invalid.repeat(most + 1))).answer().await.refused(400);
        assert_eq!(also, detail, "{invalid}");
    }
    let long = "a".repeat(5_000);
    api.get(&format!("{HUB}?match={long}")).answer().await.refused(400);
}

/// Numbers 5, 10, 11 and 12: one match is enough; `*`, exact and URL Pattern.
#[tokio::test]
async fn each_matcher_matches_as_its_type_says() {
    let api = keyless().await;
    let mut everything = api.get(&format!("{HUB}?match=*")).stream().await;
    let mut every_pattern = api.get(&format!("{HUB}?match_urlpattern=*")).stream().await;
    let mut exact =
        api.get(&format!("{HUB}?match=https%3A%2F%2Fhub.example%2Fa&match_exact=b")).stream().await;
    let mut pattern = api.get(&format!("{HUB}?match_urlpattern=%2Fbooks%2F%3Aid")).stream().await;
    // Topics are compared by bytes: the first is another topic to an exact matcher and the same URL
    // to a pattern.
    for topic in [
        "https://HUB.example/a",
        "https://hub.example/a",
        "b",
        "https://hub.example/books/1",
        "/books/2",
        "/Books/3",
        "not a url: %",
    ] {
        let encoded: String = url::form_urlencoded::byte_serialize(topic.as_bytes()).collect();
        api.form(&format!("topic={encoded}&data={encoded}")).answer().await.ok();
        assert_eq!(everything.data().await, topic);
        assert_eq!(every_pattern.data().await, topic);
    }
    assert_eq!(exact.data().await, "https://hub.example/a");
    assert_eq!(exact.data().await, "b");
    assert_eq!(pattern.data().await, "https://hub.example/books/1");
    assert_eq!(pattern.data().await, "/books/2");
}

/// RFC 9110, section 12.5.1: a client that does not accept the only format is not subscribed.
#[tokio::test]
async fn a_client_that_accepts_no_event_stream_is_refused() {
    let api = keyless().await;
    for accept in ["text/event-stream;q=0", "application/json", "*/*, text/event-stream;q=0.0"] {
        for method in [http::Method::GET, http::Method::HEAD] {
            let answer = api.ask(method, &format!("{HUB}?match=a")).header("accept", accept).answer().await;
            assert_eq!(answer.status, 406, "{accept}");
        }
        let detail = api.get(&format!("{HUB}?match=a")).header("accept", accept).answer().await.refused(406);
        assert!(detail.contains("`text/event-stream`"), "{detail}");
        api.get("/stream?topic=a").header("accept", "text/event-stream;q=0").stream().await;
    }
    for accept in ["text/event-stream", "*/*", "text/html, */*;q=0.1", "", "text/*"] {
        api.get(&format!("{HUB}?match=a")).header("accept", accept).stream().await;
    }
}

/// Numbers 7 and 27: anonymous subscribers are a setting.
#[tokio::test]
async fn anonymous_subscribers_are_admitted_or_asked_for_a_token() {
    with_keys().await.get(&format!("{HUB}?match=a")).stream().await;
    let mut settings = Settings::default();
    settings.anonymous_subscribers = false;
    let api = with_keys_and(settings).await;
    for target in [&format!("{HUB}?match=a"), "/stream?topic=a", "/topics/a"] {
        let answer = api.get(target).answer().await;
        answer.refused(401);
        // Without a token there is no error code.
        let challenge = answer.header("www-authenticate");
        assert!(challenge.starts_with("Bearer") && !challenge.contains("error"), "{challenge}");
        api.get(target).bearer(&token(&[], &[])).stream().await;
    }
}

/// Numbers 22 to 25 and 27: any defect of a token is 401 `invalid_token`. The defects themselves
/// are tested with the tokens.
#[tokio::test]
async fn an_invalid_token_is_refused_to_subscribe_and_to_publish() {
    let api = with_keys().await;
    let good = token(&["*"], &["*"]);
    let (head, _) = good.rsplit_once('.').expect("three parts");
    let expired = support::token_until(&["*"], &["*"], support::unix_secs() - 1);
    for bad in [format!("{head}."), format!("{head}.AAAA"), expired, "a.b.c".to_owned()] {
        for ask in [api.get(&format!("{HUB}?match=a")), api.form("topic=a")] {
            let answer = ask.bearer(&bad).answer().await;
            answer.refused(401);
            assert!(answer.header("www-authenticate").starts_with("Bearer error=\"invalid_token\""));
        }
    }
    assert_eq!(api.hub.stats().published, 0);
}

/// Numbers 26 and 27: the scheme is case-insensitive; a malformed presentation is 400
/// `invalid_request`.
#[tokio::test]
async fn a_token_is_presented_once_and_in_the_header() {
    let api = with_keys().await;
    let token = token(&["a"], &[]);
    api.form("topic=a").header("authorization", format!("bEARER {token}")).answer().await.ok();
    let twice = api.form("topic=a").bearer(&token).bearer(&token).answer().await;
    twice.refused(400);
    assert!(twice.header("www-authenticate").contains("invalid_request"));
    let in_url = api.post(&format!("{HUB}?authorization={token}"), "topic=a");
    in_url.header("content-type", "application/x-www-form-urlencoded").answer().await.refused(401);
}

/// Number 29: a permission for every topic, or nothing is dispatched.
#[tokio::test]
async fn publishing_needs_permission_for_every_topic() {
    let api = with_keys().await;
    let token = token(&["a", "/books/*"], &[]);
    let answer = api.form("topic=a&topic=b").bearer(&token).answer().await;
    answer.refused(403);
    assert!(answer.header("www-authenticate").contains("insufficient_scope"));
    api.form("topic=a&topic=%2Fbooks%2F1").bearer(&token).answer().await.ok();
    assert_eq!(api.hub.stats().published, 1);
}

/// Number 31: a stream ends at the `exp` of its token.
#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_token_expires() {
    let api = with_keys().await;
    // Not in the next second: with little time left, it could have expired before it is presented.
    let token = support::token_until(&[], &["a"], support::unix_secs() + 600);
    let mut stream = api.get(&format!("{HUB}?match=a")).bearer(&token).stream().await;
    tokio::time::advance(Duration::from_secs(540)).await;
    assert_eq!(stream.notice().await["kind"], "expiring");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(stream.notice().await["kind"], "expired");
}

/// Numbers 33 and 36: the header wins; the response names the id before the first event.
#[tokio::test]
async fn a_stream_resumes_after_the_id_and_reports_it() {
    let api = keyless().await;
    for id in ["1", "2", "3"] {
        api.form(&format!("topic=a&id={id}&data={id}")).answer().await.ok();
    }
    let mut by_header =
        api.get(&format!("{HUB}?match=a&last_event_id=1")).header("last-event-id", "2").stream().await;
    assert_eq!(by_header.header("mercure-last-event-id"), Some("2"));
    assert_eq!(by_header.data().await, "3");
    let mut by_parameter = api.get(&format!("{HUB}?match=a&last_event_id=1")).stream().await;
    assert_eq!(by_parameter.header("mercure-last-event-id"), Some("1"));
    assert_eq!(by_parameter.data().await, "2");
    let without = api.get(&format!("{HUB}?match=a")).stream().await;
    assert_eq!(without.header("mercure-last-event-id"), None);
}

/// Numbers 34 and 36: `earliest` is all history; so is the response to an unknown id.
#[tokio::test]
async fn earliest_and_unknown_ids_begin_with_the_oldest() {
    let api = keyless().await;
    api.form("topic=a&id=1&data=1").answer().await.ok();
    let mut earliest = api.get(&format!("{HUB}?match=a&last_event_id=earliest")).stream().await;
    assert_eq!(earliest.header("mercure-last-event-id"), Some("earliest"));
    assert_eq!(earliest.data().await, "1");
    for unknown in ["nobody-knows", "-50", "now", "10m"] {
        let mut stream = api.get(&format!("{HUB}?match=a&last_event_id={unknown}")).stream().await;
        assert_eq!(stream.header("mercure-last-event-id"), Some("earliest"), "{unknown}");
        assert_eq!(stream.notice().await["kind"], "gap");
        assert_eq!(stream.data().await, "1");
    }
}

/// Number 35: of a duplicate id, the earliest event counts.
#[tokio::test]
async fn a_duplicate_id_resumes_after_its_earliest_event() {
    let api = keyless().await;
    for data in ["1", "2", "3"] {
        api.form(&format!("topic=a&id=same&data={data}")).answer().await.ok();
    }
    let mut stream = api.get(&format!("{HUB}?match=a&last_event_id=same")).stream().await;
    assert_eq!(stream.data().await, "2");
    assert_eq!(stream.data().await, "3");
}

/// Number 36: an empty cursor begins with new events, and the response names an id as well.
#[tokio::test]
async fn an_empty_cursor_is_answered_with_the_newest_id() {
    let api = keyless().await;
    let nothing = api.get(&format!("{HUB}?match=a&last_event_id=")).stream().await;
    assert_eq!(nothing.header("mercure-last-event-id"), Some("earliest"));
    api.form("topic=a&data=1").answer().await.ok();
    for ask in [
        api.get(&format!("{HUB}?match=a&last_event_id=")),
        api.get(&format!("{HUB}?match=a")).header("last-event-id", ""),
    ] {
        let mut stream = ask.stream().await;
        let before = stream.header("mercure-last-event-id").expect("a cursor was given").to_owned();
        api.form("topic=a&data=2").answer().await.ok();
        assert_eq!(stream.data().await, "2");
        let mut again = api.get(&format!("{HUB}?match=a")).header("last-event-id", &before).stream().await;
        assert_eq!(again.data().await, "2");
    }
}

/// Number 36: an id that is not ASCII is returned in the header as its bytes.
#[tokio::test]
async fn an_id_that_is_not_ascii_is_echoed_as_its_bytes() {
    let api = keyless().await;
    api.form("topic=a&id=caf%C3%A9").answer().await.ok();
    let stream = api.get(&format!("{HUB}?match=a&last_event_id=caf%C3%A9")).stream().await;
    assert_eq!(stream.headers["mercure-last-event-id"].as_bytes(), "café".as_bytes());
}

/// Number 33: every replayed event is authorised against the current token; the id of an
/// unauthorised one is unknown (Security 12).
#[tokio::test]
async fn replay_and_its_header_reveal_only_authorised_events() {
    let api = with_keys().await;
    api.form("topic=a&id=open&data=1").bearer(KEY).answer().await.ok();
    api.form("topic=a&id=hidden&data=2&private").bearer(KEY).answer().await.ok();
    api.form("topic=a&data=3").bearer(KEY).answer().await.ok();
    let mut anonymous = api.get(&format!("{HUB}?match=a&last_event_id=open")).stream().await;
    assert_eq!(anonymous.data().await, "3");
    let unknown = api.get(&format!("{HUB}?match=a&last_event_id=hidden")).stream().await;
    assert_eq!(unknown.header("mercure-last-event-id"), Some("earliest"));
    let mut entitled =
        api.get(&format!("{HUB}?match=a&last_event_id=hidden")).bearer(&token(&[], &["a"])).stream().await;
    assert_eq!(entitled.header("mercure-last-event-id"), Some("hidden"));
    assert_eq!(entitled.data().await, "3");
}

/// Number 6: a valid stream in which every event has an id.
#[tokio::test]
async fn every_event_has_an_id() {
    let api = keyless().await;
    let mut stream = api.get(&format!("{HUB}?match=*")).stream().await;
    for form in ["topic=a", "topic=a&type=x", "topic=a&id=own", "topic=a&private"] {
        let id = api.form(form).answer().await.ok().body;
        assert!(stream.until("\n\n").await.lines().any(|line| line == format!("id: {id}")));
    }
}

/// The path of the hub is that of its public URL.
#[tokio::test]
async fn the_mercure_api_is_at_the_path_of_the_public_url() {
    let validator = tidings::Validator::new("https://hub.example/push/:hub".parse().expect("a URL"));
    let hub = tidings::Hub::builder().validator(validator).start().await.expect("the in-memory log starts");
    let api = support::Api::new(hub, None, Settings::default());
    api.get("/push/:hub?match=a").stream().await;
    api.get("/push/other?match=a").answer().await.refused(404);
    api.get(&format!("{HUB}?match=a")).answer().await.refused(404);
}
