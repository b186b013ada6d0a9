//! A publication that bypasses the router is answered as by the router: the same requests are sent
//! to both paths.

use std::{collections::BTreeMap, fmt::Write};

use tidings::{Event, Filter, Grants, Hub, Matcher};
use tidings_auth::Authenticator;
use tidings_server::{ConnectionSettings, Keyless, Settings, apis, router};

use crate::{
    served_support::Served,
    support::{Answer, CHAT_KEY, HUB, KEY, authenticator, hub, token},
};

/// Two hubs that differ only in the path.
struct Ways {
    early: Served,
    routed: Served,
}

impl Ways {
    async fn start(settings: Settings, keys: fn(&Hub) -> Option<Authenticator>) -> Self {
        let (early, routed) = (hub().await, hub().await);
        Self {
            early: Served::start_service(
                early.clone(),
                settings.clone(),
                ConnectionSettings::default(),
                |settings| {
                    let keys = keys(&early);
                    apis(early, keys, settings)
                },
            ),
            routed: Served::start_service(
                routed.clone(),
                settings,
                ConnectionSettings::default(),
                |settings| {
                    let keys = keys(&routed);
                    router(routed, keys, settings)
                },
            ),
        }
    }

    /// Sends a request to both paths, and returns the common response.
    async fn ask(&self, request: &[u8]) -> Answer {
        let shown = String::from_utf8_lossy(&request[..request.len().min(300)]).into_owned();
        let (early, routed) = (self.early.ask(request).await, self.routed.ask(request).await);
        assert_eq!(comparable(&early), comparable(&routed), "{shown}");
        early
    }

    /// Both hubs hold the same events and have counted the same.
    async fn assert_agree(&self) {
        assert_eq!(events(&self.early.hub).await, events(&self.routed.hub).await);
        let metrics = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let early = self.early.ask_at(self.early.admin_address, metrics).await;
        let routed = self.routed.ask_at(self.routed.admin_address, metrics).await;
        let [early, routed] = [early.ok().body, routed.ok().body];
        let (early, routed) = (counts(&early), counts(&routed));
        let differ = early.iter().zip(&routed).filter(|(early, routed)| early != routed).collect::<Vec<_>>();
        assert!(differ.is_empty() && early.len() == routed.len(), "{differ:#?}");
    }
}

/// What was counted. Durations and times, and what the system says of the process, differ at any
/// two moments, and the bytes of the log between two hubs: an epoch, which is in each id, may be a
/// digit shorter.
fn counts(metrics: &str) -> Vec<&str> {
    let differs = |line: &&str| {
        let is_time =
            ["_seconds_bucket", "_seconds_sum", "_timestamp_seconds "].map(|part| line.contains(part));
        line.starts_with("process_") || line.starts_with("tidings_log_bytes ") || is_time.contains(&true)
    };
    metrics.lines().filter(|line| !differs(line)).collect()
}

/// The response without what differs between two hubs and two moments: the epoch in generated ids,
/// and the date.
fn comparable(answer: &Answer) -> (u16, BTreeMap<String, Vec<String>>, String) {
    if let Some(length) = answer.headers.get("content-length").filter(|_| !answer.body.is_empty()) {
        assert_eq!(length.to_str().expect("ASCII"), answer.body.len().to_string());
    }
    let mut headers = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in &answer.headers {
        let value = value.to_str().expect("ASCII");
        // The length is that of the body, and an epoch may be a digit shorter.
        let value = if matches!(name.as_str(), "date" | "content-length") { "…" } else { value };
        headers.entry(name.to_string()).or_default().push(without_epochs(value));
    }
    (answer.status.as_u16(), headers, without_epochs(&answer.body))
}

fn without_epochs(text: &str) -> String {
    let mut parts = text.split('#');
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_digit = |character: char| character.is_ascii_alphanumeric() || "_~".contains(character);
        let rest = part.trim_start_matches(is_digit);
        kept.push('#');
        kept.push_str(if rest.starts_with('.') { rest } else { part });
    }
    kept
}

async fn events(hub: &Hub) -> Vec<Event> {
    let everything = Filter { matchers: vec![Matcher::Any], grants: Grants::all() };
    let snapshot = hub.last_events(1_000, everything).await.expect("the in-memory log starts");
    snapshot.entries.iter().map(|entry| entry.event.clone()).collect()
}

/// A complete request that ends its connection.
fn request(method: &str, target: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let has_host = headers.iter().any(|line| line.to_ascii_lowercase().starts_with("host:"));
    let has_framing = headers
        .iter()
        .any(|line| line.starts_with("Transfer-Encoding") || line.starts_with("Content-Length"));
    let mut head = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n");
    for line in (!has_host).then_some(&"Host: localhost:8080").into_iter().chain(headers) {
        head.push_str(line);
        head.push_str("\r\n");
    }
    if !has_framing {
        write!(head, "Content-Length: {}\r\n", body.len()).expect("a string takes everything");
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded";

/// Targets below `/topics/`, valid and invalid.
const TARGETS: [&str; 45] = [
    "/topics/chat",
    "/topics/chat?",
    "/topics/chat?type=greeting&id=own&retry=1234&private",
    "/topics/chat?event=greeting",
    "/topics/chat?type=a&event=b",
    "/topics/chat?type=",
    "/topics/chat?type=message",
    "/topics/chat?type=tidings",
    "/topics/chat?type=mercure",
    "/topics/chat?type=a%0Db",
    "/topics/chat?id=a&id=b",
    "/topics/chat?id=",
    "/topics/chat?id=%23a",
    "/topics/chat?id=a%0Ab",
    "/topics/chat?id=earliest",
    "/topics/chat?id=%C3%A9",
    "/topics/chat?retry=soon",
    "/topics/chat?retry=",
    "/topics/chat?retry=99999999999999999999",
    "/topics/chat?private=perhaps",
    "/topics/chat?private=0",
    "/topics/chat?privat=1",
    "/topics/chat?except=abc-1",
    "/topics/chat?except=no%20connection",
    "/topics/chat?a=%zz",
    "/topics/chat?a=%ff",
    "/topics/staff-room",
    "/topics/a/b/c",
    "/topics//",
    "/topics//a",
    "/topics/a//b/",
    "/topics/a%2Fb",
    "/topics/a+b%20c",
    "/topics/%C3%A9",
    "/topics/%ff",
    "/topics/%zz",
    "/topics/%",
    "/topics/*",
    "/topics/%2A",
    "/topics/a%0Ab",
    "/topics/..",
    "/topics/../stream",
    "/topics/mercure",
    "/topics/https://other.example/.well-known/mercure/x",
    "/topics/https://other.example/books/1?id=1",
];

/// Requests that the fast path must leave to the router, or must not be confused by.
fn others() -> Vec<Vec<u8>> {
    let mut requests: Vec<_> =
        ["/topics/", "/topics", "/topicsx/a", "//topics/chat", "/TOPICS/chat", "/", "/nothing", "/healthz"]
            .map(|target| request("POST", target, &[], "x"))
            .into();
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "post"] {
        let accept = "Accept: application/json";
        requests.push(request(method, "/topics/never", &[accept], ""));
        requests.push(request(method, "/topics/", &[accept], ""));
    }
    requests.push(request("POST", "/topics", &[], "{\"topic\":\"chat\",\"data\":1}\n"));
    for origin in ["http://localhost:3000", "https://app.example", "https://evil.example"] {
        let origin = format!("Origin: {origin}");
        let headers = [&*origin, "Access-Control-Request-Method: POST"];
        requests.push(request("OPTIONS", "/topics/chat", &headers, ""));
        requests.push(request("OPTIONS", HUB, &headers, ""));
    }
    requests
}

/// Headers of a publication, valid and invalid.
fn heads() -> Vec<Vec<String>> {
    let lines = |lines: &[&str]| lines.iter().map(ToString::to_string).collect();
    vec![
        lines(&["Host: hub.example"]),
        lines(&["Host: 127.0.0.1:1"]),
        lines(&["Host: [::1]"]),
        lines(&["Host: evil.example"]),
        lines(&["Host: localhost.evil.example"]),
        lines(&["Origin: http://localhost:3000"]),
        lines(&["Origin: http://localhost:8080"]),
        lines(&["Origin: https://app.example"]),
        lines(&["Origin: https://evil.example"]),
        lines(&["Origin: null"]),
        lines(&["Origin: https://app.example", "Origin: https://app.example"]),
        lines(&["Idempotency-Key: again"]),
        lines(&["Idempotency-Key: again"]),
        lines(&["Idempotency-Key: \"again\""]),
        lines(&["Idempotency-Key: a b"]),
        lines(&["Idempotency-Key: \"a"]),
        lines(&["Idempotency-Key: a", "Idempotency-Key: b"]),
        lines(&[&format!("Idempotency-Key: {}", "k".repeat(256))]),
        lines(&["Content-Type: text/plain; charset=iso-8859-1"]),
        lines(&["Content-Type: application/x-www-form-urlencoded; charset=latin1"]),
        lines(&["Content-Length: 1000"]),
        lines(&["Content-Length: 1000", "Expect: 100-continue"]),
        lines(&["Authorization: Basic YTpi"]),
        lines(&["Authorization: Bearer nonsense"]),
        lines(&["Authorization: Bearer a", "Authorization: Bearer b"]),
        lines(&[&format!("Authorization: Bearer {KEY}")]),
        lines(&[&format!("Authorization: Bearer {CHAT_KEY}")]),
        lines(&[&format!("Authorization: Bearer {}", token(&["chat"], &[]))]),
        lines(&[&format!("Authorization: Bearer {}", token(&["other"], &[]))]),
        lines(&[&format!("Authorization: Bearer {KEY}"), "Origin: https://evil.example"]),
    ]
}

/// Every request of the tables, for a hub that takes bodies of 100 bytes.
fn table() -> Vec<Vec<u8>> {
    let key = format!("Authorization: Bearer {KEY}");
    let mut requests = others();
    for target in TARGETS {
        requests.push(request("POST", target, &[], "x"));
        requests.push(request("POST", target, &[&key], "x"));
    }
    for head in heads() {
        let mut head: Vec<_> = head.iter().map(String::as_str).collect();
        requests.push(request("POST", "/topics/chat", &head, "x"));
        requests.push(request("POST", "/topics/other", &head, "x"));
        if !head.iter().any(|line| line.starts_with("Content-Type")) {
            head.push(FORM);
        }
        requests.push(request("POST", HUB, &head, "topic=chat&data=x"));
    }
    let bodies: [&[u8]; 6] = [b"", b"two\r\nlines", b"ab\xff", "é".as_bytes(), &[b'x'; 100], &[b'x'; 101]];
    for body in bodies {
        requests.push(request("POST", "/topics/chat", &[&key], body));
        requests.push(request("POST", HUB, &[&key, FORM], body));
    }
    let chunked: [&[u8]; 4] = [
        b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        b"0\r\n\r\n",
        &[b"66\r\n", &[b'x'; 102][..], b"\r\n0\r\n\r\n"].concat(),
        b"zz\r\n",
    ];
    for body in chunked {
        requests.push(request("POST", "/topics/chat", &[&key, "Transfer-Encoding: chunked"], body));
    }
    for form in [
        "topic=chat&topic=b&data=%C3%A9&id=own&type=t&retry=5&private=on",
        "data=x",
        "topic=chat&retry=x",
        "topic=%zz",
        "topic=staff-a",
    ] {
        requests.push(request("POST", HUB, &[&key, FORM], form));
        requests.push(request("POST", &format!("{HUB}?topic=a"), &[&key, FORM], form));
        requests.push(request("POST", &format!("{HUB}/"), &[&key, FORM], form));
        requests.push(request("POST", &format!("{HUB}/x"), &[&key, FORM], form));
    }
    for target in [
        "http://localhost/topics/chat",
        "http://evil.example/topics/chat",
        "http://localhost/.well-known/mercure",
    ] {
        requests.push(request("POST", target, &["Host: evil.example", &key], "x"));
    }
    requests.push(b"POST /topics/chat HTTP/1.0\r\nContent-Length: 1\r\n\r\nx".to_vec());
    requests.push(b"POST /topics/chat HTTP/1.0\r\nHost: evil.example\r\nContent-Length: 1\r\n\r\nx".to_vec());
    requests
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.body_bytes_max = 100;
    settings.allow_origins = vec!["https://app.example".parse().expect("an origin")].into();
    settings
}

async fn assert_same_answers(settings: Settings, keys: fn(&Hub) -> Option<Authenticator>) {
    let ways = Ways::start(settings, keys).await;
    let mut statuses = BTreeMap::<u16, usize>::new();
    for request in table() {
        *statuses.entry(ways.ask(&request).await.status.as_u16()).or_default() += 1;
    }
    // The table is only useful while its responses are diverse.
    assert!(statuses.len() >= 8 && statuses[&200] >= 20, "{statuses:?}");
    ways.assert_agree().await;
}

#[tokio::test]
async fn both_paths_answer_alike_without_keys() {
    assert_same_answers(settings(), |_| None).await;
}

#[tokio::test]
async fn both_paths_answer_alike_with_no_auth() {
    let mut settings = settings();
    settings.keyless = Keyless::Anywhere;
    assert_same_answers(settings, |_| None).await;
}

#[tokio::test]
async fn both_paths_answer_alike_with_keys() {
    assert_same_answers(settings(), |hub| Some(authenticator(hub))).await;
}

#[tokio::test]
async fn both_paths_time_out_alike_on_a_missing_body() {
    let mut settings = settings();
    settings.body_secs = 0;
    let ways = Ways::start(settings, |_| None).await;
    for target in ["/topics/chat", HUB] {
        let answer = ways.ask(&request("POST", target, &[FORM, "Content-Length: 9"], "x")).await;
        answer.refused(408);
    }
    ways.assert_agree().await;
}

#[tokio::test]
async fn both_paths_refuse_alike_when_the_hub_is_closed() {
    let ways = Ways::start(settings(), |_| None).await;
    ways.early.hub.close();
    ways.routed.hub.close();
    ways.ask(&request("POST", "/topics/chat", &[], "x")).await.refused(503);
    ways.ask(&request("POST", HUB, &[FORM], "topic=chat")).await.refused(503);
    ways.assert_agree().await;
}

#[tokio::test]
async fn pipelined_publications_are_answered_in_order() {
    let served = Served::start().await;
    let mut requests = String::new();
    for number in 0..50 {
        let (target, close) = match number {
            10 => ("/topics/%zz".to_owned(), ""),
            20 => ("/healthz?".to_owned(), ""),
            49 => (format!("/topics/chat?id=n{number}"), "Connection: close\r\n"),
            _ => (format!("/topics/chat?id=n{number}"), ""),
        };
        write!(
            requests,
            "POST {target} HTTP/1.1\r\nHost: localhost\r\n{close}Content-Length: 2\r\n\r\n{number:02}"
        )
        .expect("a string takes everything");
    }
    let answers = served.ask(requests).await;
    let raw = answers.body;
    let ids: Vec<_> = raw.split("{\"id\":\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let expected: Vec<_> =
        (0..50).filter(|number| ![10, 20].contains(number)).map(|number| format!("n{number}")).collect();
    // The headers of the first response have been removed, its body has not.
    assert_eq!(ids, expected);
    assert_eq!((raw.matches("HTTP/1.1 400").count(), raw.matches("HTTP/1.1 405").count()), (1, 1));
    let data: Vec<_> = events(&served.hub).await.into_iter().map(|event| event.data).collect();
    let expected: Vec<_> =
        (0..50).filter(|number| ![10, 20].contains(number)).map(|number| format!("{number:02}")).collect();
    assert_eq!(data, expected);
}
