//! Any body as a form of the Mercure API, of `POST /stream` and of `POST /tickets`: it is refused as
//! the fault of the client, or does what a lenient reading of the same form says.

#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use axum::{Router, body::Body};
use http::{Request, Response};
use http_body_util::BodyExt;
use libfuzzer_sys::fuzz_target;
use tidings::{Filter, Grants, Hub, MemoryLimits, MemoryLog};
use tidings_auth::{AuthConfig, Authenticator, KeyConfig, TicketSecretConfig};
use tidings_server::{Settings, router};
use tokio::runtime::Runtime;
use tower::ServiceExt;

const SECRET: &str = "a secret of tickets that is long enough";
const KEY: &str = "tk_a-key-that-may-do-everything";

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

static HUB: LazyLock<(Hub, Router)> = LazyLock::new(|| {
    RUNTIME.block_on(async {
        let log = MemoryLog::new(MemoryLimits { count_max: Some(100), ..MemoryLimits::default() });
        let hub = Hub::builder().log(log).start().await.expect("it starts");
        let key = KeyConfig {
            name: "all".to_owned(),
            secret: KEY.into(),
            publish: vec!["*".into()],
            subscribe: vec!["*".into()],
            admin: false,
            streams_max: None,
        };
        let secret = TicketSecretConfig { id: "1".to_owned(), secret: SECRET.into() };
        let config = AuthConfig { keys: vec![key], ticket_secrets: vec![secret], ..AuthConfig::default() };
        let authenticator = Authenticator::new(config, hub.validator()).expect("a valid configuration");
        (hub.clone(), router(hub, Some(authenticator), Settings::default()))
    })
});

#[derive(Arbitrary, Debug)]
enum Form<'a> {
    Publication(&'a [u8]),
    Stream { query: &'a str, body: &'a [u8] },
    StreamJson(&'a [u8]),
    Ticket(&'a [u8]),
}

fuzz_target!(|form: Form<'_>| {
    LazyLock::force(&HUB);
    RUNTIME.block_on(async {
        match form {
            Form::Publication(body) => publication(body).await,
            Form::Stream { query, body } => {
                let query: String = query.chars().filter(char::is_ascii_alphanumeric).collect();
                let target = format!("/stream?topic={query}");
                let target = if query.is_empty() { "/stream" } else { &target };
                stream(target, "application/x-www-form-urlencoded", body).await;
            }
            Form::StreamJson(body) => stream("/stream", "application/json", body).await,
            Form::Ticket(body) => {
                let response = post("/tickets", "application/x-www-form-urlencoded", body).await;
                if response.status() == 200 {
                    assert!(single(body, "topic").is_some() || single(body, "pattern").is_some());
                }
            }
        }
    });
});

async fn publication(body: &[u8]) {
    let response = post("/.well-known/mercure", "application/x-www-form-urlencoded", body).await;
    if response.status() != 200 {
        return;
    }
    let id = response.into_body().collect().await.expect("a body").to_bytes();
    let everything = Filter { grants: Grants::all(), ..Filter::everything_public() };
    let newest = HUB.0.last_events(1, everything).await.expect("in memory").entries;
    let event = &newest[0].event;
    assert_eq!(newest[0].id.as_str().as_bytes(), &*id);
    let has = |name: &str| form(body).any(|(found, _)| found == name);
    assert_eq!(event.private, has("private"));
    let topics = form(body).filter(|(name, _)| name == "topic").map(|(_, topic)| topic);
    assert!(topics.eq(event.topics.iter().map(|topic| topic.as_str().to_owned())));
    // Line breaks of the three kinds are one in the stream.
    let data = single(body, "data").unwrap_or_default().replace("\r\n", "\n").replace('\r', "\n");
    assert_eq!(event.data.replace("\r\n", "\n").replace('\r', "\n"), data);
    let event_type = single(body, "type").filter(|text| !text.is_empty());
    assert_eq!(event.event_type.as_ref().map(|text| text.as_str().to_owned()), event_type);
}

async fn stream(target: &str, content_type: &str, body: &[u8]) {
    let response = post(target, content_type, body).await;
    if response.status() == 200 {
        assert_eq!(response.headers()["content-type"], "text/event-stream");
    }
}

/// The response, which is a success or the fault of the client. A pattern may be refused because
/// others are still waiting.
async fn post(target: &str, content_type: &str, body: &[u8]) -> Response<Body> {
    let request = Request::post(target)
        .header("host", "localhost")
        .header("authorization", format!("Bearer {KEY}"))
        .header("content-type", content_type)
        .body(Body::from(body.to_vec()))
        .expect("a request");
    let response = HUB.1.clone().oneshot(request).await.expect("a router never fails");
    let status = response.status().as_u16();
    assert!(matches!(status, 200 | 400 | 413 | 429 | 503), "{status}");
    response
}

/// The fields of a form, read leniently.
fn form(body: &[u8]) -> impl Iterator<Item = (String, String)> + '_ {
    url::form_urlencoded::parse(body).map(|(name, value)| (name.into_owned(), value.into_owned()))
}

fn single(body: &[u8], name: &str) -> Option<String> {
    form(body).find(|(found, _)| found == name).map(|(_, value)| value)
}
