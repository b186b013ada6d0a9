//! Shared by the tests of the HTTP APIs: a router that is called directly, without sockets, and
//! streams that are read event by event.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::{net::SocketAddr, time::Duration};

use axum::{Router, body::Body};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tidings::{Hub, HubSettings, Validator};
use tidings_auth::{
    AuthConfig, Authenticator, IssuerConfig, IssuerKeyConfig, KeyConfig, MatcherText, NewTicket, NewToken,
    Secret, SigningKey, TicketSecret, TicketSecretConfig, mint,
};
use tidings_server::{Client, ClientAddress, ListenerRole, Settings, router};
use tower::ServiceExt;

pub const PUBLIC_URL: &str = "https://hub.example/.well-known/mercure";
pub const HUB: &str = "/.well-known/mercure";
pub const ISSUER: &str = "https://issuer.example";
pub const SIGNING_SECRET: &str = "0123456789abcdef0123456789abcdef";
pub const TICKET_SECRET: &str = "a secret of tickets that is long enough";
pub const KEY: &str = "tk_a-key-that-may-do-everything";
pub const CHAT_KEY: &str = "tk_a-key-that-may-publish-chat";
/// The key of an operator.
pub const ADMIN_KEY: &str = "tk_the-key-of-an-operator";

/// A hub without keys, as `tidings serve` starts it.
pub async fn keyless() -> Api {
    keyless_with(Settings::default()).await
}

pub async fn keyless_with(settings: Settings) -> Api {
    Api::new(hub().await, None, settings)
}

/// A hub with two keys and an issuer of tokens.
pub async fn with_keys() -> Api {
    with_keys_and(Settings::default()).await
}

pub async fn with_keys_and(settings: Settings) -> Api {
    let hub = hub().await;
    let authenticator = authenticator(&hub);
    Api::new(hub, Some(authenticator), settings)
}

/// Two keys and an issuer of tokens.
pub fn authenticator(hub: &Hub) -> Authenticator {
    authenticator_with(hub, |_| {})
}

pub fn authenticator_with(hub: &Hub, change: impl FnOnce(&mut AuthConfig)) -> Authenticator {
    let key = |name: &str, secret: &str, matchers: &[&str]| KeyConfig {
        name: name.to_owned(),
        secret: Secret::new(secret),
        publish: matchers.iter().map(|&text| text.into()).collect(),
        subscribe: matchers.iter().map(|&text| text.into()).collect(),
        admin: false,
        streams_max: None,
    };
    let mut config = AuthConfig {
        keys: vec![
            key("all", KEY, &["*"]),
            key("chat", CHAT_KEY, &["chat"]),
            KeyConfig { admin: true, ..key("operator", ADMIN_KEY, &[]) },
        ],
        issuers: vec![IssuerConfig {
            issuer: ISSUER.to_owned(),
            audiences: vec![PUBLIC_URL.to_owned()],
            keys: vec![IssuerKeyConfig { kid: None, key: Secret::new(SIGNING_SECRET) }],
            ..IssuerConfig::default()
        }],
        ticket_secrets: vec![ticket_secret()],
        ..AuthConfig::default()
    };
    change(&mut config);
    Authenticator::new(config, hub.validator()).expect("a valid configuration")
}

/// Topics `staff-…` are private.
pub async fn hub() -> Hub {
    let validator = Validator::new(PUBLIC_URL.parse().expect("a URL"));
    let mut settings = HubSettings::default();
    settings.private_topics = vec!["staff-*".parse().expect("a glob")];
    Hub::builder().validator(validator).settings(settings).start().await.expect("the in-memory log starts")
}

/// A token that may publish and receive these topics, for an hour.
pub fn token(publish: &[&str], subscribe: &[&str]) -> String {
    token_until(publish, subscribe, unix_secs() + 3_600)
}

pub fn token_until(publish: &[&str], subscribe: &[&str], expires_at: u64) -> String {
    let texts = |texts: &[&str]| texts.iter().map(|&text| MatcherText::from(text)).collect();
    let token = NewToken {
        issuer: ISSUER.to_owned(),
        audience: PUBLIC_URL.to_owned(),
        subject: "somebody".to_owned(),
        issued_at: unix_secs(),
        expires_at,
        publish: texts(publish),
        subscribe: texts(subscribe),
        payload: None,
    };
    let key = SigningKey::new(&Secret::new(SIGNING_SECRET), None).expect("a valid key");
    mint(&token, &key).expect("a small token")
}

fn ticket_secret() -> TicketSecretConfig {
    TicketSecretConfig { id: "1".to_owned(), secret: Secret::new(TICKET_SECRET) }
}

/// A ticket for these topics, as an application makes it offline, for an hour.
pub fn ticket(topics: &[&str]) -> String {
    ticket_with(topics, |_| {})
}

pub fn ticket_with(topics: &[&str], change: impl FnOnce(&mut NewTicket)) -> String {
    let mut ticket = NewTicket {
        topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
        issued_at: unix_secs(),
        expires_at: unix_secs() + 3_600,
        ..NewTicket::default()
    };
    change(&mut ticket);
    let secret = TicketSecret::new(&ticket_secret()).expect("a valid secret");
    ticket.mint(&secret, &Validator::default()).expect("a valid ticket").ticket
}

/// A ticket that has expired.
pub fn expired_ticket(topics: &[&str]) -> String {
    ticket_with(topics, |ticket| {
        ticket.issued_at -= 7_200;
        ticket.expires_at = ticket.issued_at + 3_600;
    })
}

pub fn unix_secs() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
}

/// A hub with its HTTP APIs.
pub struct Api {
    pub hub: Hub,
    router: Router,
}

impl Api {
    pub fn new(hub: Hub, authenticator: Option<Authenticator>, settings: Settings) -> Self {
        Self { router: router(hub.clone(), authenticator, settings), hub }
    }

    pub fn get(&self, target: &str) -> Ask {
        self.ask(Method::GET, target)
    }

    pub fn post(&self, target: &str, body: impl Into<Body>) -> Ask {
        self.ask(Method::POST, target).body(body)
    }

    /// Publishes on the Mercure API.
    pub fn form(&self, body: &str) -> Ask {
        self.post(HUB, body.to_owned()).header("content-type", "application/x-www-form-urlencoded")
    }

    pub fn ask(&self, method: Method, target: &str) -> Ask {
        let request = Request::builder().method(method).uri(target).header(header::HOST, "localhost:8080");
        Ask { router: self.router.clone(), request, body: Body::empty() }
    }
}

/// A request that is being put together.
pub struct Ask {
    router: Router,
    request: http::request::Builder,
    body: Body,
}

impl Ask {
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let headers = self.request.headers_mut().expect("a valid request");
        let name: http::HeaderName = name.parse().expect("a field name");
        let value = http::HeaderValue::from_bytes(value.as_ref()).expect("a field value");
        if name == header::HOST {
            headers.insert(name, value);
        } else {
            headers.append(name, value);
        }
        self
    }

    pub fn bearer(self, credential: &str) -> Self {
        self.header("authorization", format!("Bearer {credential}"))
    }

    /// With the headers of a native EventSource.
    pub fn like_a_browser(self) -> Self {
        self.header("accept", "text/event-stream").header("cache-control", "no-cache")
    }

    pub fn from(mut self, peer: &str) -> Self {
        let peer: SocketAddr = peer.parse().expect("an address");
        let client = Client {
            address: ClientAddress::Ip(peer.ip()),
            listener: ListenerRole::All,
            is_encrypted: false,
        };
        self.request = self.request.extension(client);
        self
    }

    /// Through a listener of this kind.
    pub fn through(mut self, listener: ListenerRole) -> Self {
        let client = Client { address: ClientAddress::Unknown, listener, is_encrypted: false };
        self.request = self.request.extension(client);
        self
    }

    /// Over a connection that the server encrypts.
    pub fn over_tls(mut self) -> Self {
        let client =
            Client { address: ClientAddress::Unknown, listener: ListenerRole::All, is_encrypted: true };
        self.request = self.request.extension(client);
        self
    }

    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// The complete response.
    pub async fn answer(self) -> Answer {
        let response = self.send().await;
        let (parts, body) = response.into_parts();
        let body = within(body.collect()).await.expect("a body without errors").to_bytes();
        let body = String::from_utf8(body.into()).expect("UTF-8");
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// A streamed response, which is read incrementally.
    pub async fn stream(self) -> Stream {
        let response = self.send().await;
        assert_eq!(response.status(), StatusCode::OK);
        let (parts, body) = response.into_parts();
        let media_type = parts.headers[header::CONTENT_TYPE].to_str().expect("ASCII");
        assert!(media_type.starts_with("text/event-stream"), "{media_type}");
        Stream { headers: parts.headers, body, read: String::new() }
    }

    /// The response, nothing of whose body has been read.
    pub async fn send(self) -> http::Response<Body> {
        let request = self.request.body(self.body).expect("a valid request");
        within(self.router.oneshot(request)).await.expect("a router never fails")
    }
}

/// A finite response.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}"));
        value.to_str().expect("ASCII")
    }

    /// Checks that the response is a problem document, and returns its detail.
    #[track_caller]
    pub fn refused(&self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], "about:blank");
        assert!(problem["title"].is_string());
        problem["detail"].as_str().expect("a detail").to_owned()
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        self
    }

    /// The id of a publication.
    #[track_caller]
    pub fn id(self) -> String {
        self.ok().json()["id"].as_str().expect("an id").to_owned()
    }
}

/// An open stream.
pub struct Stream {
    pub headers: HeaderMap,
    body: Body,
    read: String,
}

impl Stream {
    /// Reads until this text has arrived, and returns everything since the last call.
    pub async fn until(&mut self, text: &str) -> String {
        // Heartbeats keep a stream open forever: the time-out covers the complete wait, not each
        // frame.
        let end = within(self.find(text)).await;
        let rest = self.read.split_off(end);
        std::mem::replace(&mut self.read, rest)
    }

    /// Reads until this text has arrived, and returns where it ends.
    async fn find(&mut self, text: &str) -> usize {
        loop {
            if let Some(found) = self.read.find(text) {
                return found + text.len();
            }
            let Some(frame) = self.body.frame().await else {
                panic!("the stream ended before {text:?}: {:?}", self.read)
            };
            let data = frame.expect("no errors").into_data().expect("no trailers");
            self.read.push_str(std::str::from_utf8(&data).expect("UTF-8"));
        }
    }

    /// The next event: its lines up to the empty one, without comments and the preface.
    pub async fn event(&mut self) -> String {
        let block = self.until("\n\n").await;
        let mut lines: Vec<_> = block.lines().filter(|line| !line.starts_with(':')).collect();
        if lines.first().is_some_and(|line| line.starts_with("retry: ")) {
            lines.remove(0);
        }
        lines.join("\n").trim_end().to_owned()
    }

    /// The data of the next event.
    pub async fn data(&mut self) -> String {
        let event = self.event().await;
        let lines: Vec<_> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        lines.join("\n")
    }

    /// The data of the next notice, as JSON.
    pub async fn notice(&mut self) -> Value {
        let event = self.event().await;
        assert!(event.starts_with("event: tidings\n"), "{event}");
        let data = event.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
        serde_json::from_str(data).expect("JSON")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }
}

/// A test that waits in vain fails instead of hanging.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it completes within 20 seconds")
}
