//! `POST /revoke`: streams end, and what was revoked opens no further ones.

#![cfg(unix)]

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tidings_auth::{NewToken, Secret, SigningKey, inspect, mint};
use tidings_testkit::{Application, EventStream, Hub, NatsServer, RedisServer, Reply};

const OPERATOR: &str = "tk_a-key-that-operates-the-hub";
const PUBLISHER: &str = "tk_a-key-that-may-only-publish";
const SIGNING: &str = "0123456789abcdef0123456789abcdef";
const TICKETS: &str = "fedcba9876543210fedcba9876543210";
/// The promise.
const BOUND: Duration = Duration::from_secs(5);

/// The arguments of a hub with keys and an issuer.
fn configured(folder: &TempDir) -> [String; 2] {
    let file = folder.path().join("tidings.toml");
    let text = format!(
        "private_topics = [\"user-*\"]\n\
         [[key]]\nname = \"operator\"\nsecret = \"{OPERATOR}\"\nadmin = true\n\
         [[key]]\nname = \"app\"\nsecret = \"{PUBLISHER}\"\npublish = [\"*\"]\nsubscribe = [\"*\"]\n\
         [[ticket_secret]]\nid = \"1\"\nsecret = \"{TICKETS}\"\n\
         [[issuer]]\niss = \"app\"\naudience = \"https://hub.example/\"\nsecret = \"{SIGNING}\"\n"
    );
    fs::write(&file, text).unwrap();
    ["--config".to_owned(), file.to_str().unwrap().to_owned()]
}

async fn serve(folder: &TempDir, args: &[&str]) -> Hub {
    let configured = configured(folder);
    let args: Vec<_> = configured.iter().map(String::as_str).chain(args.iter().copied()).collect();
    Hub::serve(&args).await.unwrap()
}

/// A token for user 42, and its id.
fn token() -> (String, String) {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let token = NewToken {
        issuer: "app".to_owned(),
        audience: "https://hub.example/".to_owned(),
        subject: "42".to_owned(),
        issued_at: now,
        expires_at: now + 3_600,
        publish: Vec::new(),
        subscribe: vec!["user-42".into()],
        payload: None,
    };
    let token = mint(&token, &SigningKey::new(&Secret::new(SIGNING), None).unwrap()).unwrap();
    let id = inspect(&token).unwrap().claims["jti"].as_str().unwrap().to_owned();
    (token, id)
}

async fn revoke(hub: &Hub, body: &str) {
    let head = format!("POST /revoke\nAuthorization: Bearer {OPERATOR}");
    let response = hub.request(&head, body.as_bytes()).await.unwrap();
    assert_eq!(response.status, 204, "{response}");
}

async fn publish(hub: &Hub, topic: &str, data: &str) {
    let head = format!("POST /topics/{topic}\nAuthorization: Bearer {PUBLISHER}");
    assert_eq!(hub.request(&head, data.as_bytes()).await.unwrap().status, 200);
}

/// Reads a stream to its end, which has to be a revocation. Returns how long that took.
async fn revoked(stream: &mut EventStream) -> Duration {
    let began = Instant::now();
    let notice = stream.next().await.unwrap();
    assert_eq!((notice.event_type.as_str(), notice.data.as_str()), ("tidings", r#"{"kind":"revoked"}"#));
    assert!(stream.next_or_end().await.unwrap().is_none());
    began.elapsed()
}

/// A stream of user 42, by token.
async fn with_token(hub: &Hub, token: &str) -> Result<EventStream, String> {
    let field = format!("Authorization: Bearer {token}");
    let stream = EventStream::open_with(hub.address(), "/stream?topic=user-42", &[&field]).await;
    stream.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_revoked_token_ends_its_streams_and_opens_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let hub = serve(&folder, &[]).await;
    let ((token, id), (other, _)) = (token(), token());
    let mut streams = [with_token(&hub, &token).await.unwrap(), with_token(&hub, &token).await.unwrap()];
    let mut other = with_token(&hub, &other).await.unwrap();
    revoke(&hub, &format!(r#"{{"id":"{id}"}}"#)).await;
    for stream in &mut streams {
        assert!(revoked(stream).await < BOUND);
    }
    publish(&hub, "user-42", "for 42").await;
    assert_eq!(other.messages(1).await.unwrap(), ["for 42"]);
    let refused = with_token(&hub, &token).await.unwrap_err();
    assert!(refused.contains("401") && refused.contains("revoked"), "{refused}");
}

/// Another issuer may use the same id, and so may a ticket.
#[tokio::test]
async fn a_token_is_revoked_by_its_issuer_and_a_ticket_as_a_ticket() {
    let folder = tempfile::tempdir().unwrap();
    let hub = serve(&folder, &[]).await;
    let (token, id) = token();
    let mut stream = with_token(&hub, &token).await.unwrap();
    revoke(&hub, &format!(r#"{{"jti":"{id}","issuer":"another"}}"#)).await;
    revoke(&hub, &format!(r#"{{"ticket":"{id}"}}"#)).await;
    publish(&hub, "user-42", "not revoked").await;
    assert_eq!(stream.messages(1).await.unwrap(), ["not revoked"]);
    revoke(&hub, &format!(r#"{{"jti":"{id}","issuer":"app"}}"#)).await;
    assert!(revoked(&mut stream).await < BOUND);
    assert!(with_token(&hub, &token).await.unwrap_err().contains("revoked"));

    let head = format!(
        "POST /tickets\nAuthorization: Bearer {PUBLISHER}\nAccept: application/json\nContent-Type: application/json"
    );
    let made = hub.request(&head, br#"{"topic":"user-42"}"#).await.unwrap();
    let made: serde_json::Value = serde_json::from_slice(&made.body).unwrap();
    let target = format!("/stream?ticket={}", made["ticket"].as_str().unwrap());
    let mut stream = EventStream::open(hub.address(), &target).await.unwrap();
    let id = made["id"].as_str().unwrap();
    revoke(&hub, &format!(r#"{{"jti":"{id}","issuer":"app"}}"#)).await;
    publish(&hub, "user-42", "not revoked").await;
    assert_eq!(stream.messages(1).await.unwrap(), ["not revoked"]);
    revoke(&hub, &format!(r#"{{"ticket":"{id}"}}"#)).await;
    assert!(revoked(&mut stream).await < BOUND);
    assert_eq!(hub.request(&format!("GET {target}"), b"").await.unwrap().status, 401);
}

/// A ticket for user 42, as the hub makes them.
async fn ticket(hub: &Hub) -> String {
    let head = format!(
        "POST /tickets\nAuthorization: Bearer {PUBLISHER}\nContent-Type: application/x-www-form-urlencoded"
    );
    let response = hub.request(&head, b"topic=user-42&label=user-42").await.unwrap();
    assert_eq!(response.status, 200, "{response}");
    response.text()
}

#[tokio::test]
async fn a_revoked_label_refuses_the_tickets_that_were_made_before_and_no_later_ones() {
    let folder = tempfile::tempdir().unwrap();
    let hub = serve(&folder, &[]).await;
    let old = format!("/stream?ticket={}", ticket(&hub).await);
    let mut stream = EventStream::open(hub.address(), &old).await.unwrap();
    revoke(&hub, r#"{"label":"user-42"}"#).await;
    assert!(revoked(&mut stream).await < BOUND);
    assert_eq!(hub.request(&format!("GET {old}"), b"").await.unwrap().status, 401);
    // An error status would close a native EventSource for good.
    let native = format!("GET {old}\nAccept: text/event-stream\nCache-Control: no-cache");
    let response = hub.request(&native, b"").await.unwrap();
    assert_eq!(response.status, 200);
    let text = response.text();
    assert!(text.contains("\nretry: ") && text.contains(r#"data: {"kind":"revoked"}"#), "{text}");
    // Times are in seconds, so that a ticket counts as later from the next one on.
    let later = async {
        loop {
            let target = format!("/stream?ticket={}", ticket(&hub).await);
            if let Ok(stream) = EventStream::open(hub.address(), &target).await {
                return stream;
            }
        }
    };
    let mut later = tokio::time::timeout(BOUND, later).await.expect("within the bound");
    publish(&hub, "user-42", "back").await;
    assert_eq!(later.messages(1).await.unwrap(), ["back"]);
}

#[tokio::test]
async fn after_a_log_out_the_application_decides_anew() {
    let is_logged_in = Arc::new(AtomicBool::new(true));
    let session = Arc::clone(&is_logged_in);
    let application = Application::start(move |_| {
        if session.load(Ordering::Relaxed) {
            Reply::subscribe("topic=user-42&label=session-7")
        } else {
            Reply::with("401 Unauthorized", "", "")
        }
    });
    let application = application.await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let hub = serve(&folder, &["--authorize", &application.url("/")]).await;
    let mut stream = EventStream::open(hub.address(), "/stream").await.unwrap();

    is_logged_in.store(false, Ordering::Relaxed);
    revoke(&hub, r#"{"label":"session-7"}"#).await;
    assert!(revoked(&mut stream).await < BOUND);
    assert_eq!(hub.request("GET /stream", b"").await.unwrap().status, 401);

    is_logged_in.store(true, Ordering::Relaxed);
    let mut again = EventStream::open(hub.address(), "/stream").await.unwrap();
    publish(&hub, "user-42", "back").await;
    assert_eq!(again.messages(1).await.unwrap(), ["back"]);
}

/// The application has said yes, and the user logs out before the hub has the answer.
#[tokio::test]
async fn an_answer_that_is_on_its_way_when_its_label_is_revoked_opens_no_stream() {
    let hub_address = Arc::new(std::sync::OnceLock::<std::net::SocketAddr>::new());
    let address = Arc::clone(&hub_address);
    let application = Application::start(move |_| {
        let mut connection = std::net::TcpStream::connect(address.get().unwrap()).unwrap();
        let body = r#"{"label":"session-7"}"#;
        let request = format!(
            "POST /revoke HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OPERATOR}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        std::io::Write::write_all(&mut connection, request.as_bytes()).unwrap();
        let response = std::io::read_to_string(connection).unwrap();
        assert!(response.starts_with("HTTP/1.1 204"), "{response}");
        Reply::subscribe("topic=user-42&label=session-7")
    });
    let application = application.await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let hub = serve(&folder, &["--authorize", &application.url("/")]).await;
    hub_address.set(hub.address()).unwrap();
    let response = hub.request("GET /stream", b"").await.unwrap();
    assert_eq!(response.status, 503, "{response}");
    let native = "GET /stream\nAccept: text/event-stream\nCache-Control: no-cache";
    let response = hub.request(native, b"").await.unwrap();
    assert!(response.status == 200 && response.text().contains("\nretry: "), "{response}");
}

#[tokio::test]
async fn a_connection_is_ended_by_the_name_in_its_hello() {
    let hub = Hub::serve(&[]).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = EventStream::open(hub.address(), "/stream?topic=chat&hello=true").await.unwrap();
        let hello: serde_json::Value = serde_json::from_str(&stream.next().await.unwrap().data).unwrap();
        streams.push((stream, hello["connection"].as_str().unwrap().to_owned()));
    }
    let (mut other, _) = streams.pop().unwrap();
    let (mut stream, name) = streams.pop().unwrap();
    // A hub without keys, on this machine, needs no permission.
    let response = hub.request("POST /revoke", format!(r#"{{"connection":"{name}"}}"#).as_bytes()).await;
    assert_eq!(response.unwrap().status, 204);
    assert!(revoked(&mut stream).await < BOUND);
    hub.publish("chat", "still here").await.unwrap();
    assert_eq!(other.messages(1).await.unwrap(), ["still here"]);
}

#[tokio::test]
async fn only_a_key_of_an_operator_may_revoke() {
    let folder = tempfile::tempdir().unwrap();
    let hub = serve(&folder, &[]).await;
    let (token, _) = token();
    let body = br#"{"label":"x"}"#;
    for (field, status) in [
        (String::new(), 401),
        (format!("\nAuthorization: Bearer {PUBLISHER}"), 403),
        (format!("\nAuthorization: Bearer {token}"), 403),
        (format!("\nAuthorization: Bearer {OPERATOR}"), 204),
    ] {
        let response = hub.request(&format!("POST /revoke{field}"), body).await.unwrap();
        assert_eq!(response.status, status, "{response}");
    }
    // A page of another site makes a browser send it.
    let keyless = Hub::serve(&[]).await.unwrap();
    let response = keyless.request("POST /revoke\nOrigin: https://evil.example", body).await.unwrap();
    assert_eq!(response.status, 403);
    // Any client could end the streams of all others.
    let open = Hub::serve(&["--no-auth"]).await.unwrap();
    assert_eq!(open.request("POST /revoke", body).await.unwrap().status, 403);
}

#[tokio::test]
async fn a_body_that_names_nothing_to_revoke_is_refused_with_the_reason() {
    let hub = Hub::serve(&[]).await.unwrap();
    let long = format!(r#"{{"label":"{}"}}"#, "x".repeat(1_001));
    let together = format!(r#"{{"jti":"{}","issuer":"{}"}}"#, "x".repeat(501), "y".repeat(500));
    for (body, part) in [
        ("", "begin with `{`"),
        ("label=x", "begin with `{`"),
        ("{}", "one of `label`, `id`, `ticket`, `connection`, and `jti` with its `issuer`"),
        (r#"{"label":"a","id":"b"}"#, "one of `label`"),
        (r#"{"ticket":"a","jti":"b","issuer":"c"}"#, "one of `label`"),
        (r#"{"jti":"a"}"#, "`jti` with its `issuer`"),
        (r#"{"label":"a","issuer":"b"}"#, "`jti` with its `issuer`"),
        (r#"{"jti":"","issuer":"b"}"#, "has 0 bytes"),
        (&together, "have 1001 bytes together"),
        (r#"{"label":""}"#, "has 0 bytes"),
        (&long, "has 1001 bytes"),
        (r#"{"label":7}"#, "invalid type"),
        (r#"{"lable":"a"}"#, "unknown field `lable`"),
        (r#"{"connection":"a"}"#, "`a` of `connection` is not a connection"),
        (r#"{"label":"a","expires_secs":0}"#, "1 to 604800 seconds"),
        (r#"{"label":"a","expires_secs":604801}"#, "1 to 604800 seconds"),
    ] {
        let response = hub.request("POST /revoke", body.as_bytes()).await.unwrap();
        assert_eq!(response.status, 400, "{body}: {response}");
        assert!(response.text().contains(part), "{body}: {response}");
    }
    // Tokens may be valid for longer than the day of a ticket.
    revoke(&hub, r#"{"label":"a","expires_secs":604800}"#).await;
}

/// Revokes at the first of these hubs; each has a stream and must refuse the token afterwards.
async fn revoke_at_one_of(hubs: &[Hub]) {
    let (token, id) = token();
    let mut streams = Vec::new();
    for hub in hubs {
        streams.push(with_token(hub, &token).await.unwrap());
    }
    let began = Instant::now();
    revoke(&hubs[0], &format!(r#"{{"jti":"{id}","issuer":"app"}}"#)).await;
    for stream in &mut streams {
        revoked(stream).await;
    }
    assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    for hub in hubs {
        assert!(with_token(hub, &token).await.unwrap_err().contains("401"));
    }
}

async fn three_hubs(folder: &TempDir, store: &str) -> Vec<Hub> {
    let mut hubs = Vec::new();
    for _ in 0..3 {
        hubs.push(serve(folder, &["--store", store]).await);
    }
    hubs
}

#[tokio::test]
async fn three_hubs_on_redis_end_what_one_of_them_revokes_also_after_a_restart() {
    let server = RedisServer::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut hubs = three_hubs(&folder, &server.url()).await;
    revoke_at_one_of(&hubs).await;
    // A hub that was away learns of it when it is back.
    let (token, id) = token();
    hubs[2].stop().await.unwrap();
    revoke(&hubs[0], &format!(r#"{{"id":"{id}"}}"#)).await;
    hubs[2].start_again().await.unwrap();
    let refused = async { while with_token(&hubs[2], &token).await.is_ok() {} };
    tokio::time::timeout(BOUND, refused).await.expect("within the bound");
}

#[tokio::test]
async fn three_hubs_on_nats_end_what_one_of_them_revokes() {
    let server = NatsServer::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let hubs = three_hubs(&folder, &format!("{}/revoked", server.url())).await;
    revoke_at_one_of(&hubs).await;
}

#[tokio::test]
async fn a_revocation_that_the_store_does_not_take_is_not_acknowledged() {
    let mut server = RedisServer::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let hub = serve(&folder, &["--store", &server.url()]).await;
    server.stop().await.unwrap();
    let head = format!("POST /revoke\nAuthorization: Bearer {OPERATOR}");
    let response = hub.request(&head, br#"{"label":"x"}"#).await.unwrap();
    assert_eq!(response.status, 503, "{response}");
    assert!(response.header("retry-after").is_some() && !response.text().contains("127.0.0.1"));
}

/// The file is synced before the answer, so a crash loses nothing.
#[tokio::test]
async fn a_hub_on_files_refuses_what_was_revoked_before_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("events");
    let mut hub = serve(&folder, &["--store", store.to_str().unwrap()]).await;
    let ((token, id), (scoped, scoped_id), (other, _)) = (token(), token(), token());
    revoke(&hub, &format!(r#"{{"id":"{id}"}}"#)).await;
    revoke(&hub, &format!(r#"{{"jti":"{scoped_id}","issuer":"app"}}"#)).await;
    revoke(&hub, r#"{"label":"short","expires_secs":1}"#).await;
    hub.kill().await.unwrap();
    hub.start_again().await.unwrap();
    for revoked in [&token, &scoped] {
        assert!(with_token(&hub, revoked).await.unwrap_err().contains("401"));
    }
    with_token(&hub, &other).await.unwrap();
    hub.stop().await.unwrap();
    verify(&store);
    // Damage is reported, and does not open what was closed.
    fs::write(store.join("revocations"), "nonsense\n").unwrap();
    let refused = hub.start_again().await.unwrap_err().to_string();
    assert!(refused.contains("line 1 of ") && refused.contains("is not a revocation"), "{refused}");
}

/// The file is no damage of the store.
fn verify(store: &Path) {
    let binary = tidings_testkit::binary().unwrap();
    let output = std::process::Command::new(binary).args(["store", "verify"]).arg(store).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn a_hub_in_memory_forgets_what_was_revoked_when_it_is_restarted() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = serve(&folder, &[]).await;
    let (token, id) = token();
    revoke(&hub, &format!(r#"{{"id":"{id}"}}"#)).await;
    assert!(with_token(&hub, &token).await.is_err());
    hub.stop().await.unwrap();
    hub.start_again().await.unwrap();
    with_token(&hub, &token).await.unwrap();
}
