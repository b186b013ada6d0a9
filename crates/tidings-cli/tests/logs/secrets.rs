//! What clients and operators keep secret is in no line, at any level.

use std::{fs, process::Stdio};

use base64::{Engine, prelude::BASE64_STANDARD};
use tidings_testkit::{Connection, EventStream, Hub};
use tokio::process::Command;

use crate::{application::Application, lines::printed_to_the_end};

const KEY: &str = "planted-key-of-some-length";
const TICKET_SECRET: &str = "planted ticket secret of thirty-two bytes or more";
const ISSUER_SECRET: &str = "planted issuer secret of thirty-two bytes or more";
const PASSWORD: &str = "planted-password";

/// Secrets that a client sends where they belong, and where they do not.
const HEADERS: [&str; 7] = [
    "Authorization: Bearer planted-wrong-key",
    "Authorization: Basic cGxhbnRlZDpwbGFudGVk",
    "Cookie: __Secure-mercure_access_token=planted-cookie; session=planted-session",
    "X-Request-Id: planted-id",
    "traceparent: planted-trace",
    "X-Forwarded-For: planted-client",
    "Tidings-Token: planted-token",
];

async fn hub(application: &Application, level: &str, folder: &std::path::Path) -> Hub {
    let config = folder.join("tidings.toml");
    let text = format!(
        "[[key]]\nname = \"all\"\nsecret = \"{KEY}\"\npublish = [\"*\"]\nsubscribe = [\"*\"]\nadmin = true\n\
         [[ticket_secret]]\nid = \"1\"\nsecret = \"{TICKET_SECRET}\"\n\
         [[issuer]]\niss = \"https://issuer.example\"\naudience = \"https://hub.example/\"\nsecret = \"{ISSUER_SECRET}\"\n"
    );
    fs::write(&config, text).unwrap();
    let args = ["--config", config.to_str().unwrap(), "--upstream", &application.url, "--access-log"];
    let bridge = format!("redis://:{PASSWORD}@127.0.0.1:1?channels=news");
    Hub::serve(&[&args[..], &["--bridge", &bridge, "--log-level", level]].concat()).await.unwrap()
}

/// A ticket for the topic `chat`, and one that is no longer intact.
async fn tickets(hub: &Hub, folder: &std::path::Path) -> [String; 2] {
    let config = folder.join("tidings.toml");
    let args = ["ticket", "new", "--config", config.to_str().unwrap(), "--topic", "chat"];
    let made = Command::new(tidings_testkit::binary().unwrap()).args(args).output().await.unwrap();
    assert!(made.status.success(), "{} {}", String::from_utf8_lossy(&made.stderr), hub.url(""));
    let ticket = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let broken = format!("{}x", &ticket[..ticket.len() - 1]);
    [ticket, broken]
}

async fn assert_nothing_planted_is_printed(level: &str) {
    let folder = tempfile::tempdir().unwrap();
    let application = Application::start().await;
    let hub = hub(&application, level, folder.path()).await;
    let [ticket, broken] = tickets(&hub, folder.path()).await;

    let accepted = format!("POST /topics/chat\nAuthorization: Bearer {KEY}");
    assert_eq!(hub.request(&accepted, b"planted-data").await.unwrap().status, 200);
    let stream = EventStream::open(hub.address(), &format!("/stream?topic=chat&ticket={ticket}")).await;
    drop(stream.unwrap());
    let denied = hub.request(&format!("GET /stream?topic=chat&ticket={broken}"), b"").await.unwrap();
    assert!(denied.status == 401 || denied.status == 403, "{}", denied.status);
    for header in HEADERS {
        for request in [
            "POST /topics/chat?authorization=planted-parameter",
            "GET /stream?topic=chat&access_token=planted-parameter",
            "GET /.well-known/mercure?topic=chat&authorization=planted-parameter",
            "GET /page?token=planted-parameter",
            "POST /revoke",
        ] {
            // A stream does not end, so only its headers are read.
            let mut connection = Connection::open(hub.address()).await.unwrap();
            connection.request(&format!("{request}\n{header}"), b"planted-body").await.unwrap();
            connection.head().await.unwrap();
        }
    }
    let mut malformed = Connection::open(hub.address()).await.unwrap();
    malformed.send("GET /?planted HTTP/1.1\r\nplanted malformed\r\n\r\n").await.unwrap();
    malformed.head().await.unwrap();
    for target in ["/topics/chat?ticket=planted-ticket", "/page?planted-query"] {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--http2-prior-knowledge", "--max-time", "20", "-X", "DELETE"]);
        curl.args(HEADERS.iter().flat_map(|header| ["-H", header])).arg(hub.url(target));
        let status =
            curl.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).status().await.unwrap();
        assert!(status.success(), "{status}");
    }
    assert!(application.requests().iter().any(|request| request.contains("planted-session")));

    let printed = printed_to_the_end(hub).await.join("\n");
    assert!(printed.contains("tidings::access") && printed.contains("credentials were refused"), "{printed}");
    let encoded = BASE64_STANDARD.encode("planted:planted");
    for secret in ["planted", &encoded, &ticket[..30], &broken[broken.len() - 12..]] {
        let line = printed.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} at the level {level}");
    }
}

#[tokio::test]
async fn nothing_secret_is_logged_at_the_level_info() {
    assert_nothing_planted_is_printed("info").await;
}

#[tokio::test]
async fn nothing_secret_is_logged_at_the_level_debug() {
    assert_nothing_planted_is_printed("debug").await;
}

#[tokio::test]
async fn nothing_secret_is_logged_at_the_level_trace() {
    assert_nothing_planted_is_printed("trace").await;
}
