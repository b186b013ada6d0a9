//! The native API: publishing one event or many, and refusals.

use http::Method;
use tidings::{Hub, HubSettings, MemoryLimits};
use tidings_delayed_log::{DelayedLog, Faults};
use tidings_server::Settings;

use crate::support::{self, CHAT_KEY, HUB, KEY, keyless, keyless_with, token, with_keys};

#[tokio::test]
async fn the_body_is_the_data_for_any_content_type() {
    let api = keyless().await;
    let mut stream = api.get("/stream?topic=chat").stream().await;
    for (media_type, body) in [
        ("application/x-www-form-urlencoded", "a=b&c=%20"),
        ("application/json", "{ \"a\": 1 }"),
        ("text/plain; charset=\"UTF-8\"", "é"),
        ("application/octet-stream", "é"),
        ("nonsense", "x"),
    ] {
        api.post("/topics/chat", body).header("content-type", media_type).answer().await.ok();
        assert_eq!(stream.data().await, body);
    }
    api.post("/topics/chat", "two\r\nlines").answer().await.ok();
    assert_eq!(stream.data().await, "two\nlines");
}

// Regression: a form with files was published as its encoded parts.
#[tokio::test]
async fn an_encoded_body_is_refused_with_the_correct_command() {
    let api = keyless().await;
    let part = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--x--\r\n";
    for (target, command) in [
        ("/topics/chat", "curl --data-binary @FILE URL"),
        ("/topics", "curl --data-binary @EVENTS.ndjson URL"),
    ] {
        for media_type in
            ["multipart/form-data; boundary=x", "Multipart/Mixed; boundary=\"x\"", "multipart/form-data"]
        {
            let detail =
                api.post(target, part).header("content-type", media_type).answer().await.refused(415);
            assert!(detail.contains(command), "{detail}");
        }
    }
    let line = r#"{"topic":"chat","data":"x"}"#;
    for (target, body) in [("/topics/chat", "x"), ("/topics", line), (HUB, "topic=chat")] {
        let form = "application/x-www-form-urlencoded";
        for (name, value) in [
            ("content-encoding", "gzip"),
            ("content-encoding", "br, identity"),
            ("content-type", "text/plain; charset=iso-8859-1"),
            ("content-type", "application/x-www-form-urlencoded; charset=\"latin1\""),
        ] {
            let ask = api.post(target, body).header(name, value);
            let ask = if name == "content-type" { ask } else { ask.header("content-type", form) };
            let answer = ask.answer().await;
            let detail = answer.refused(415);
            assert!(detail.contains(&format!("`{}`", value.replace('"', "\\\""))), "{detail}");
            assert_eq!(answer.headers.contains_key("accept-encoding"), name == "content-encoding");
        }
        let plain =
            api.post(target, body).header("content-type", form).header("content-encoding", "identity");
        plain.answer().await.ok();
    }
    assert_eq!(api.hub.stats().published, 3);
}

// Regression: `POST /topics?private` published public events.
#[tokio::test]
async fn a_query_of_a_batch_is_refused() {
    let api = keyless().await;
    for query in ["private", "private=1&type=x", "topic=chat"] {
        let ask = api.post(&format!("/topics?{query}"), r#"{"topic":"chat","data":1}"#);
        let detail = ask.answer().await.refused(400);
        assert!(detail.contains("each line"), "{detail}");
    }
    assert_eq!(api.hub.stats().published, 0);
}

#[tokio::test]
async fn an_id_that_a_header_cannot_carry_is_refused_by_every_api() {
    let api = keyless().await;
    for id in ["a ", " a", " "] {
        let encoded = id.replace(' ', "%20");
        let line = format!(r#"{{"topic":"chat","data":1,"id":"{id}"}}"#);
        for ask in [
            api.post(&format!("/topics/chat?id={encoded}"), "x"),
            api.post("/topics", line),
            api.form(&format!("topic=chat&id={encoded}")),
        ] {
            let detail = ask.answer().await.refused(400);
            assert!(detail.contains("white space"), "{detail}");
        }
    }
    assert!(api.hub.publish(tidings::NewEvent::new("chat", "x").id("a ")).await.is_err());
    assert_eq!(api.hub.stats().published, 0);
}

// Regression: `retry: 0` made all subscribers of a topic reconnect in a tight loop.
#[tokio::test]
async fn a_retry_below_the_minimum_is_raised_by_every_api() {
    let api = keyless().await;
    let mut stream = api.get("/stream?topic=chat").stream().await;
    api.post("/topics/chat?retry=0&id=1", "x").answer().await.ok();
    api.post("/topics", r#"{"topic":"chat","data":"x","id":"2","retry":499}"#).answer().await.ok();
    api.hub.publish(tidings::NewEvent::new("chat", "x").id("3").retry_millis(1)).await.expect("published");
    for id in 1..=3 {
        let event = stream.until("\n\n").await;
        assert!(event.ends_with(&format!("retry: 500\nid: {id}\ndata: x\n\n")), "{event}");
    }
}

#[tokio::test]
async fn an_empty_body_is_an_event_too() {
    let api = keyless().await;
    let mut stream = api.get("/stream?topic=chat").stream().await;
    let id = api.post("/topics/chat", "").answer().await.id();
    assert_eq!(
        stream.until("data: \n\n").await.lines().find(|line| line.starts_with("id")),
        Some(&*format!("id: {id}"))
    );
}

#[tokio::test]
async fn a_body_that_is_not_utf8_is_refused_with_the_offset() {
    let api = keyless().await;
    let detail = api.post("/topics/chat", &b"ab\xff"[..]).answer().await.refused(400);
    assert!(detail.contains("byte 2"), "{detail}");
}

#[tokio::test]
async fn the_query_has_all_fields_except_the_data() {
    let api = keyless().await;
    let mut stream = api.get("/stream?topic=chat").stream().await;
    for name in ["type", "event"] {
        let id = api
            .post(&format!("/topics/chat?{name}=greeting&id=own&retry=1234&private"), "x")
            .answer()
            .await
            .id();
        assert_eq!(id, "own");
        assert_eq!(stream.event().await, "event: greeting\nretry: 1234\nid: own\ndata: x");
    }
}

#[tokio::test]
async fn an_ambiguous_query_is_refused_by_name() {
    let api = keyless().await;
    for (query, named) in [
        ("privat=1", "`privat`"),
        ("private=perhaps", "`private`"),
        ("private=1&private=0", "`private`"),
        ("id=a&id=b", "`id`"),
        ("type=a&event=b", "`event`"),
        ("retry=soon", "`soon`"),
        ("retry=", "retry"),
        ("id=%23a", "`#a`"),
        ("id=a%0Ab", "U+000A"),
        ("id=", "id"),
        ("type=tidings", "`tidings`"),
        ("type=mercure", "`mercure`"),
        ("type=a%0Db", "U+000D"),
        ("except=no%20connection", "`except`"),
    ] {
        let detail = api.post(&format!("/topics/chat?{query}"), "x").answer().await.refused(400);
        assert!(detail.contains(named), "{query}: {detail}");
    }
    assert_eq!(api.hub.stats().published, 0);
}

#[tokio::test]
async fn private_is_a_switch() {
    let api = with_keys().await;
    let mut stream = api.get("/stream?topic=chat").stream().await;
    for (query, private) in [
        ("private", true),
        ("private=true", true),
        ("private=1", true),
        ("private=false", false),
        ("private=0", false),
    ] {
        api.post(&format!("/topics/chat?{query}"), query).bearer(KEY).answer().await.ok();
        if !private {
            assert_eq!(stream.data().await, query);
        }
    }
}

#[tokio::test]
async fn reserved_topics_cannot_be_published_to() {
    let api = keyless().await;
    for path in [
        "*",
        "%2A",
        "a%00b",
        "a%0Ab",
        "a%E2%80%8Bb",
        "/.well-known/mercure",
        "/.well-known/mercure/subscriptions",
        "https://x.example/.well-known/%6Dercure/a",
    ] {
        api.post(&format!("/topics/{path}"), "x").answer().await.refused(400);
    }
    assert_eq!(api.hub.stats().published, 0);
}

#[tokio::test]
async fn many_events_are_published_together_in_their_order() {
    let api = keyless().await;
    let mut stream = api.get("/stream?topic=a&topic=b").stream().await;
    let batch = concat!(
        r#"{"topic":"a","data":"text"}"#,
        "\r\n",
        "\n",
        r#"{"topics":["b","a"],"data":{ "n": 1.0, "s": "x y" },"type":"json","id":"own","retry":1234}"#,
        "\n",
        r#"{"topic":"b","data":null,"private":true}"#,
    );
    let receipts = api.post("/topics", batch).answer().await.ok().json();
    let receipts = receipts["events"].as_array().expect("receipts");
    assert_eq!(receipts.len(), 3);
    assert_eq!(receipts[1]["id"], "own");
    assert!(receipts.iter().all(|receipt| receipt["id"].is_string()));
    assert_eq!(stream.data().await, "text");
    assert_eq!(stream.event().await, "event: json\nretry: 1234\nid: own\ndata: {\"n\":1.0,\"s\":\"x y\"}");
    assert_eq!(stream.data().await, "null");
}

#[tokio::test]
async fn a_batch_with_an_invalid_line_publishes_nothing_and_names_it() {
    let api = keyless().await;
    for (line, named) in [
        (r#"{"topic":"a","data":"x","typ":"y"}"#, "`typ`"),
        (r#"{"topic":"a"}"#, "`data`"),
        (r#"{"data":"x"}"#, "topic"),
        (r#"{"topic":"a","topics":["b"],"data":"x"}"#, "`topics`"),
        (r#"{"topic":"a","topic":"b","data":"x"}"#, "`topic`"),
        (r#"{"topic":"*","data":"x"}"#, "`*`"),
        (r#"{"topic":"a","data":"x","retry":"5"}"#, "string"),
        (r#"{"topic":"a","data":"x","private":"yes"}"#, "string"),
        (r#"{"topic":"a","data":"x","except":""}"#, "`except`"),
        (r#"{"topic":"a","data":"\ud800"}"#, "`data`"),
        (r#"{"topic":"a","data":"x"} {}"#, "Column"),
        ("[]", "Column"),
        ("hello", "Column"),
    ] {
        let batch = format!("{{\"topic\":\"a\",\"data\":\"x\"}}\n\n{line}\n");
        let detail = api.post("/topics", batch).answer().await.refused(400);
        assert!(detail.starts_with("Line 3: ") && detail.contains(named), "{line}: {detail}");
    }
    let detail = api.post("/topics", "\n \n").answer().await.refused(400);
    assert!(detail.contains("no events"), "{detail}");
    assert_eq!(api.hub.stats().published, 0);
}

#[tokio::test]
async fn publishing_needs_a_credential_where_there_are_keys() {
    let api = with_keys().await;
    for ask in [
        api.post("/topics/chat", "x"),
        api.post("/topics", r#"{"topic":"chat","data":"x"}"#),
        api.form("topic=chat"),
    ] {
        let answer = ask.answer().await;
        answer.refused(401);
        let challenge = answer.header("www-authenticate");
        assert!(challenge.starts_with("Bearer") && !challenge.contains("error"), "{challenge}");
    }
    assert_eq!(api.hub.stats().published, 0);
}

#[tokio::test]
async fn an_invalid_credential_is_never_treated_as_absent() {
    let api = with_keys().await;
    for target in ["/stream?topic=chat", "/topics/chat", "/.well-known/mercure?match=chat"] {
        let answer = api.get(target).bearer("tk_nobody-knows-this-key").answer().await;
        answer.refused(401);
        assert!(answer.header("www-authenticate").contains("invalid_token"), "{answer:?}");
        let answer = api.get(target).header("authorization", "Bearer").answer().await;
        answer.refused(400);
        assert!(answer.header("www-authenticate").contains("invalid_request"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_credential_must_cover_every_topic_of_every_event() {
    let api = with_keys().await;
    api.post("/topics/chat", "x").bearer(CHAT_KEY).answer().await.ok();
    let batch = "{\"topic\":\"chat\",\"data\":1}\n{\"topics\":[\"chat\",\"news\"],\"data\":2}";
    for ask in [api.post("/topics/news", "x"), api.post("/topics", batch)] {
        let answer = ask.bearer(CHAT_KEY).answer().await;
        assert!(answer.refused(403).contains("`news`"), "{answer:?}");
        assert!(answer.header("www-authenticate").contains("insufficient_scope"));
    }
    let token = token(&["news"], &[]);
    api.post("/topics/news", "x").bearer(&token).answer().await.ok();
    api.post("/topics/chat", "x").bearer(&token).answer().await.refused(403);
    assert_eq!(api.hub.stats().published, 2);
}

#[tokio::test]
async fn a_refused_method_lists_the_allowed_ones() {
    let api = keyless().await;
    for (method, target, allowed) in [
        (Method::PUT, "/topics/chat", "GET,HEAD,POST,DELETE"),
        (Method::PUT, "/stream?topic=chat", "GET,HEAD,POST,QUERY"),
        (Method::GET, "/revoke", "POST"),
        (Method::GET, "/topics", "POST"),
        (Method::DELETE, support::HUB, "GET,HEAD,POST,QUERY"),
        (Method::POST, "/", "GET,HEAD"),
    ] {
        let answer = api.ask(method, target).answer().await;
        answer.refused(405);
        assert_eq!(answer.header("allow"), allowed);
    }
    let answer = api.ask(Method::OPTIONS, "/topics/chat").answer().await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (204, "GET,HEAD,POST,DELETE"));
}

#[tokio::test]
async fn an_unknown_path_is_answered_with_the_known_ones() {
    let api = keyless().await;
    let detail = api.get("/steam?topic=chat").answer().await.refused(404);
    assert!(detail.contains("`/steam`") && detail.contains("/stream?topic="), "{detail}");
    assert!(!detail.contains("chat"), "the query is not repeated: {detail}");
}

#[tokio::test]
async fn a_refusal_repeats_little_input_and_no_internals() {
    let api = keyless().await;
    let long = "x".repeat(3_000);
    for target in
        [format!("/stream?topic=a&format={long}"), format!("/{long}"), format!("/stream?pattern=({long}")]
    {
        let detail = api.get(&target).answer().await;
        assert!(detail.body.len() < 500, "{detail:?}");
    }
    let detail = api.get("/stream?pattern=(%3F%3Cbroken").answer().await.refused(400);
    assert!(!detail.to_lowercase().contains("regex"), "{detail}");
}

#[tokio::test]
async fn too_many_publications_at_once_are_asked_to_wait() {
    let mut settings = HubSettings::default();
    settings.appends_max = 0;
    let hub = Hub::builder().settings(settings).start().await.expect("the in-memory log starts");
    let api = support::Api::new(hub, None, Settings::default());
    for ask in [api.post("/topics/chat", "x"), api.form("topic=chat")] {
        let answer = ask.answer().await;
        assert!(answer.refused(503).contains("Nothing was published"), "{answer:?}");
        assert_eq!(answer.header("retry-after"), "1");
    }
}

#[tokio::test]
async fn an_unknown_outcome_differs_from_an_unreachable_log_on_publish() {
    let away = Faults { append_unavailable_per_mille: 1_000, ..Faults::default() };
    let silent = Faults { outcome_unknown_per_mille: 1_000, ..Faults::default() };
    for (faults, reported, retries) in
        [(away, "Nothing was published", true), (silent, "may or may not", false)]
    {
        let log = DelayedLog::new(1, faults, MemoryLimits::default());
        let hub = Hub::builder().log(log).start().await.expect("reading works");
        let api = support::Api::new(hub, None, Settings::default());
        for ask in [api.post("/topics/chat", "x"), api.form("topic=chat")] {
            let answer = ask.answer().await;
            assert!(answer.refused(503).contains(reported), "{answer:?}");
            // A retry would publish twice.
            assert_eq!(answer.headers.contains_key("retry-after"), retries);
        }
    }
}

#[tokio::test]
async fn a_hub_that_shuts_down_publishes_nothing_and_is_not_ready() {
    let api = keyless().await;
    api.get("/readyz").answer().await.ok();
    api.hub.close();
    let answer = api.post("/topics/chat", "x").answer().await;
    assert!(answer.refused(503).contains("Nothing was published"), "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"));
    let detail = api.get("/readyz").answer().await.refused(503);
    assert!(detail.contains("closed"), "{detail}");
    assert!(api.get("/metrics").answer().await.ok().body.contains("\ntidings_ready 0\n"));
    api.get("/healthz").answer().await.ok();
}

#[tokio::test]
async fn the_metrics_count_without_naming_topics() {
    let api = keyless().await;
    let mut stream = api.get("/stream?topic=very-secret").stream().await;
    stream.until("retry: ").await;
    api.post("/topics/very-secret", "x").answer().await.ok();
    api.post("/topics/very-secret?id=%23", "x").answer().await.refused(400);
    let answer = api.get("/metrics").answer().await.ok();
    for line in [
        "tidings_events_published_total{api=\"native\",outcome=\"stored\"} 1",
        "tidings_subscribers 1",
        "tidings_streams_opened_total{transport=\"http1\"} 1",
        "tidings_streams_closed_total{reason=\"client\"} 0",
        "tidings_events_published_total{api=\"native\",outcome=\"refused\"} 1",
        "tidings_feeds 1",
        "tidings_ready 1",
    ] {
        assert!(answer.body.lines().any(|found| found == line), "{line} is missing: {}", answer.body);
    }
    assert!(!answer.body.contains("secret"));
    drop(stream);
    let after = api.get("/metrics").answer().await.ok().body;
    assert!(
        after.contains("tidings_streams_closed_total{reason=\"client\"} 1")
            && after.contains("tidings_subscribers 0"),
        "{after}"
    );
}

/// A sample's name without its labels, and the name and kind of the family that was described last.
fn assert_sample_of(line: &str, family: Option<(&str, &str)>, suffix: &str) {
    let (name, kind) = family.expect("a family is described before its samples");
    let sample = line.split(['{', ' ']).next().unwrap_or_default();
    match kind {
        "counter" => assert_eq!(sample, format!("{name}{suffix}"), "{line}"),
        "histogram" => assert!(
            ["_bucket", "_sum", "_count"].iter().any(|part| sample == format!("{name}{part}")),
            "{line}"
        ),
        _ => assert_eq!(sample, name, "{line}"),
    }
    let value = line.rsplit(' ').next().unwrap_or_default();
    assert!(value.parse::<f64>().is_ok(), "{line}");
}

// Regression: every scraper got OpenMetrics, whatever it accepted; most tools read only the text
// format.
#[tokio::test]
async fn metrics_have_the_requested_format() {
    let api = keyless().await;
    api.get("/stream").answer().await.refused(400);
    let openmetrics = "application/openmetrics-text";
    for (accept, is_openmetrics) in [
        (None, false),
        (Some("*/*"), false),
        (Some("text/plain;version=0.0.4;q=1,*/*;q=0.1"), false),
        (Some("application/openmetrics-text;q=0"), false),
        (Some(openmetrics), true),
        (
            Some("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"),
            true,
        ),
    ] {
        let ask = api.get("/metrics");
        let ask = match accept {
            Some(accept) => ask.header("accept", accept),
            None => ask,
        };
        let answer = ask.answer().await.ok();
        assert!(answer.headers.get_all("vary").iter().any(|value| value == "Accept"));
        let (media_type, suffix) = if is_openmetrics {
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", "_total")
        } else {
            ("text/plain; version=0.0.4; charset=utf-8", "")
        };
        assert_eq!(answer.header("content-type"), media_type, "{accept:?}");
        assert_eq!(answer.body.ends_with("\n# EOF\n"), is_openmetrics, "{}", answer.body);
        let (mut family, mut samples, mut described) = (None, 0, None);
        for line in answer.body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                described = help.split(' ').next();
            } else if let Some(typed) = line.strip_prefix("# TYPE ") {
                family = typed.split_once(' ');
                assert_eq!(family.map(|(name, _)| name), described, "{line}");
                let (name, kind) = family.expect("a name and a kind");
                assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
                assert_eq!(name.ends_with("_total"), kind == "counter" && !is_openmetrics, "{line}");
            } else if line != "# EOF" {
                assert_sample_of(line, family, suffix);
                samples += 1;
            }
        }
        assert!(samples > 5, "{}", answer.body);
        let sample = "\ntidings_requests_total{route=\"/stream\",method=\"GET\",status=\"4xx\"} 1\n";
        assert!(answer.body.contains(sample), "{}", answer.body);
    }
}

#[tokio::test]
async fn uncacheable_responses_are_marked() {
    let api = keyless_with(Settings::default()).await;
    for ask in [api.post("/topics/chat", "x"), api.get("/healthz"), api.get("/nowhere"), api.get("/")] {
        let answer = ask.answer().await;
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}
