//! Access without a credential: the host that a request names, the page that caused it, the proxy
//! that forwarded it.

use std::fs;

use tempfile::TempDir;
use tidings_testkit::{Connection, Hub};

const KEY: &str = "tk_a-key-that-may-do-everything";

/// A hub with one key and further lines in its configuration.
async fn with_key(lines: &str) -> (Hub, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidings.toml");
    let key =
        format!("[[key]]\nname = \"all\"\nsecret = \"{KEY}\"\npublish = [\"*\"]\nsubscribe = [\"*\"]\n");
    fs::write(&file, format!("{lines}\n{key}")).unwrap();
    (Hub::serve(&["--config", file.to_str().unwrap()]).await.unwrap(), folder)
}

/// The status and the body of the response to these lines of a request, without one of their own
/// for the host.
async fn answer(hub: &Hub, lines: &[&str]) -> (u16, String) {
    let mut connection = Connection::open(hub.address()).await.unwrap();
    connection.send(format!("{}\r\n\r\n", lines.join("\r\n"))).await.unwrap();
    let response = connection.response().await.unwrap();
    (response.status, response.text())
}

async fn status(hub: &Hub, lines: &[&str]) -> u16 {
    answer(hub, lines).await.0
}

const POST: &str = "POST /topics/a HTTP/1.1";
const JSON: &str = "GET /topics/a HTTP/1.1\r\nAccept: application/json";

/// A page of `evil.example` made that name point to the hub and read, published and deleted as a
/// page of the hub itself.
#[tokio::test]
async fn requests_for_a_foreign_host_name_are_refused_on_every_hub() {
    let (keyed, _folder) = with_key("public_url = \"https://hub.example\"").await;
    let hubs = [Hub::serve(&[]).await.unwrap(), Hub::serve(&["--no-auth"]).await.unwrap(), keyed];
    for hub in &hubs {
        for line in [JSON, POST, "DELETE /topics/a HTTP/1.1", "GET / HTTP/1.1", "GET /metrics HTTP/1.1"] {
            let (status, body) =
                answer(hub, &[line, "Host: evil.example", "Origin: http://evil.example"]).await;
            assert_eq!(status, 421, "{line}");
            assert!(body.contains("`evil.example`") && body.contains("--allow-host"), "{body}");
        }
        for host in ["localhost:8080", "127.0.0.1", "192.0.2.7:8080", "[::1]"] {
            assert_eq!(status(hub, &[JSON, &format!("Host: {host}")]).await, 200, "{host}");
        }
        let mut without_host = Connection::open(hub.address()).await.unwrap();
        without_host.send("GET /topics/a HTTP/1.0\r\nAccept: application/json\r\n\r\n").await.unwrap();
        assert!(without_host.rest().await.unwrap().starts_with(b"HTTP/1.0 200 "));
        for health in ["GET /healthz HTTP/1.1", "GET /readyz HTTP/1.1"] {
            assert_eq!(status(hub, &[health, "Host: evil.example"]).await, 200);
        }
    }
    assert_eq!(status(&hubs[2], &[JSON, "Host: hub.example"]).await, 200);
}

#[tokio::test]
async fn only_allowed_hosts_are_answered() {
    let flags = ["--no-auth", "--allow-host", "hub.internal", "--allow-host", "*.example.com"];
    let hub = Hub::serve(&flags).await.unwrap();
    for (host, expected) in [
        ("hub.internal:8080", 200),
        ("a.example.com", 200),
        ("a.b.example.com", 200),
        ("example.com", 421),
        ("other.internal", 421),
    ] {
        assert_eq!(status(&hub, &[JSON, &format!("Host: {host}")]).await, expected, "{host}");
    }
}

#[tokio::test]
async fn a_hub_with_keys_and_without_a_name_accepts_any_host_and_warns() {
    const WARNING: &str = "requests for any host name are accepted";
    let (mut unnamed, _folder) = with_key("").await;
    assert_eq!(status(&unnamed, &[JSON, "Host: any.example"]).await, 200);
    unnamed.printed(WARNING).await.unwrap();

    let (mut named, _other_folder) = with_key("allow_host = [\"hub.example\"]").await;
    assert_eq!(status(&named, &[JSON, "Host: any.example"]).await, 421);
    named.printed("listening").await.unwrap();
    assert!(!named.output().iter().any(|line| line.contains(WARNING)), "{:?}", named.output());
}

#[tokio::test]
async fn the_demo_accepts_this_machine_and_allowed_hosts() {
    let plain = Hub::start(["demo"]).await.unwrap();
    let allowing = Hub::start(["demo", "--allow-host", "chat.example"]).await.unwrap();
    let login = "GET /login HTTP/1.1";
    assert_eq!(status(&plain, &[login, "Host: chat.example"]).await, 421);
    assert_eq!(status(&plain, &[login, "Host: localhost"]).await, 200);
    assert_eq!(status(&allowing, &[login, "Host: chat.example"]).await, 200);
    assert_eq!(status(&allowing, &[login, "Host: evil.example"]).await, 421);
}

/// A proxy on the same machine exposed a hub without keys to every client of the proxy.
#[tokio::test]
async fn proxied_requests_are_refused_without_keys_unless_no_auth_is_given() {
    let (keyed, _folder) = with_key("").await;
    let (keyless, open) = (Hub::serve(&[]).await.unwrap(), Hub::serve(&["--no-auth"]).await.unwrap());
    let credential = format!("Authorization: Bearer {KEY}");
    for header in ["X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1", "Via: 1.1 proxy"] {
        let lines = [POST, "Host: localhost", header, &credential, "Content-Length: 0"];
        let (refused, body) = answer(&keyless, &lines).await;
        assert_eq!(refused, 403, "{header}");
        assert!(body.contains("tidings key new") && body.contains("--no-auth"), "{body}");
        for hub in [&open, &keyed] {
            assert_eq!(status(hub, &lines).await, 200, "{header}");
        }
    }
}

#[tokio::test]
async fn a_write_of_a_foreign_page_is_refused_with_an_origin_or_without() {
    let hub = Hub::serve(&[]).await.unwrap();
    for (header, expected) in [
        ("Origin: https://evil.example", 403),
        ("Sec-Fetch-Site: cross-site", 403),
        ("Sec-Fetch-Site: same-site", 403),
        ("Referer: https://evil.example/", 403),
        ("Sec-Fetch-Site: same-origin", 200),
        ("Referer: http://localhost/page", 200),
        ("X-Nothing: x", 200),
    ] {
        let lines = [POST, "Host: localhost", header, "Content-Length: 0"];
        assert_eq!(status(&hub, &lines).await, expected, "{header}");
    }
}
