//! `--access-log`.

use std::{net::Ipv4Addr, process::Stdio};

use serde_json::{Value, json};
use tidings_testkit::{Connection, EventStream, Hub};
use tokio::process::Command;

use crate::{
    application::Application,
    lines::{ACCESS, logged, printed_to_the_end},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

async fn hub(args: &[&str]) -> Hub {
    Hub::serve(&[&["--access-log", "--log", "json"], args].concat()).await.unwrap()
}

/// The line of the request whose response has this id.
async fn request(hub: &Hub, id: &str) -> Value {
    logged(hub, "request", |fields| fields["request_id"] == id).await
}

#[tokio::test]
async fn each_request_is_logged_with_its_route_and_named_in_its_response() {
    let hub = hub(&[]).await;
    let mut ids = Vec::new();
    for (head, route, status) in [
        ("GET /", "/", 200),
        ("GET /healthz", "/healthz", 200),
        ("HEAD /healthz", "/healthz", 200),
        ("GET /private-path?private=1", "other", 404),
        ("POST /topics/private-topic?type=private", "/topics/{topic}", 200),
        ("POST /topics/private-topic", "/topics/{topic}", 200),
        ("DELETE /topics/private-topic", "/topics/{topic}", 204),
        ("PATCH /topics", "/topics", 405),
        ("POST /.well-known/mercure\nContent-Type: application/x-www-form-urlencoded", "mercure", 200),
    ] {
        let mut connection = Connection::open(hub.address()).await.unwrap();
        let body: &[u8] = if head.contains("mercure") { b"topic=private-topic&data=x" } else { b"" };
        // No proxy is trusted, so the client does not choose what is logged.
        let head = format!("{head}\nX-Request-Id: private-id\ntraceparent: 00-{TRACE}-00f067aa0ba902b7-01");
        connection.request(&head, body).await.unwrap();
        let response = connection.head().await.unwrap();
        let id = response.header("x-request-id").unwrap_or_else(|| panic!("{head}: {response}")).to_owned();
        let fields = request(&hub, &id).await;
        let method = head.split(' ').next().unwrap();
        for (name, expected) in [
            ("method", json!(method)),
            ("route", json!(route)),
            ("status", json!(status)),
            ("client", json!("127.0.0.1")),
            ("trace_id", json!(TRACE)),
            ("complete", json!(true)),
        ] {
            assert_eq!(fields[name], expected, "{name} of {fields} for {head}");
        }
        let length = response.header("content-length").unwrap_or("0").parse::<u64>().unwrap();
        assert_eq!(fields["bytes"], if method == "HEAD" { 0 } else { length }, "{fields}");
        assert!(fields["duration_ms"].as_f64().unwrap() >= 0.0, "{fields}");
        ids.push(id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 9, "each has an id of its own");
    let printed = printed_to_the_end(hub).await;
    let printed: Vec<_> = printed.iter().filter(|line| line.contains(ACCESS)).collect();
    assert_eq!(printed.len(), 9, "one line each");
    assert!(!printed.iter().any(|line| line.contains("private")), "{printed:?}");
}

#[tokio::test]
async fn a_request_that_cannot_be_understood_is_logged_with_the_reason() {
    let hub = hub(&[]).await;
    let mut connection = Connection::open(hub.address()).await.unwrap();
    connection.send("GET /private HTTP/1.1\r\nno colon\r\n\r\n").await.unwrap();
    assert_eq!(connection.head().await.unwrap().status, 400);
    let fields = logged(&hub, "request refused", |_| true).await;
    assert_eq!((&fields["status"], &fields["client"]), (&json!(400), &json!("127.0.0.1")), "{fields}");
    assert_eq!(fields["reason"], "HeaderMalformed", "{fields}");
}

#[tokio::test]
async fn a_trusted_proxy_names_the_client_and_the_request() {
    let args = ["--no-auth", "--trusted-proxy", "127.0.0.2", "--client-address", "x-forwarded-for"];
    let hub = hub(&args).await;
    for (proxy, id, client) in [(2, "of-the-proxy", "192.0.2.7"), (3, "of-another-peer", "127.0.0.3")] {
        let from = Ipv4Addr::new(127, 0, 0, proxy).into();
        let mut connection = Connection::open_from(from, hub.address()).await.unwrap();
        let fields = format!("X-Forwarded-For: 192.0.2.7\nX-Request-Id: {id}");
        connection.request(&format!("GET /healthz\n{fields}"), b"").await.unwrap();
        let response = connection.response().await.unwrap();
        let answered = response.header("x-request-id").unwrap();
        assert_eq!(answered == id, proxy == 2, "{answered}");
        assert_eq!(request(&hub, answered).await["client"], client);
    }
}

#[tokio::test]
async fn a_stream_is_logged_when_it_is_opened_and_when_it_has_ended() {
    let hub = hub(&[]).await;
    // A shard has it.
    let stream = EventStream::open(hub.address(), "/stream?topic=private-topic").await.unwrap();
    let id = stream.response().header("x-request-id").unwrap().to_owned();
    let is_it = |fields: &Value| fields["request_id"] == *id;
    let opened = logged(&hub, "stream opened", is_it).await;
    assert_eq!((&opened["route"], &opened["status"]), (&json!("/stream"), &json!(200)), "{opened}");
    assert!(!hub.output().iter().any(|line| line.contains("stream ended")));
    drop(stream);
    let ended = logged(&hub, "stream ended", is_it).await;
    assert!(ended["duration_ms"].as_f64().unwrap() > 0.0, "{ended}");
    assert_eq!(ended["reason"], "client", "{ended}");

    // The connection pulls it.
    let mut old = Connection::open(hub.address()).await.unwrap();
    old.send("GET /topics/private-topic HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n").await.unwrap();
    let opened = logged(&hub, "stream opened", |fields| fields["route"] == "/topics/{topic}").await;
    drop(old);
    let ended = logged(&hub, "stream ended", |fields| fields["request_id"] == opened["request_id"]).await;
    assert_eq!(ended["reason"], "client", "{ended}");

    let _last = EventStream::open(hub.address(), "/stream?topic=private-topic").await.unwrap();
    let printed = printed_to_the_end(hub).await;
    assert!(!printed.iter().any(|line| line.contains("private-topic")), "{printed:?}");
    let ended = printed.iter().rfind(|line| line.contains("stream ended")).unwrap();
    assert!(ended.contains(r#""reason":"shutdown""#), "{ended}");
}

#[tokio::test]
async fn requests_and_streams_over_http_2_are_logged_alike() {
    let hub = hub(&[]).await;
    let curl = |target: &str| {
        let mut command = Command::new("curl");
        command.args(["-sSN", "--http2-prior-knowledge"]).arg(hub.url(target)).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let status = curl("/nothing").wait().await.unwrap();
    assert!(status.success(), "{status}");
    let fields = logged(&hub, "request", |fields| fields["status"] == 404).await;
    assert_eq!((&fields["complete"], &fields["method"]), (&json!(true), &json!("GET")), "{fields}");
    assert!(fields["bytes"].as_u64().unwrap() > 0, "{fields}");

    let mut stream = curl("/stream?topic=chat");
    let opened = logged(&hub, "stream opened", |_| true).await;
    stream.kill().await.unwrap();
    let ended = logged(&hub, "stream ended", |_| true).await;
    assert_eq!(ended["request_id"], opened["request_id"]);
}

#[tokio::test]
async fn requests_of_the_application_are_logged_without_their_paths_and_named_to_it() {
    let application = Application::start().await;
    let hub = hub(&["--upstream", &application.url]).await;
    let answered = hub.request("GET /reset/private-token?private=1", b"").await.unwrap();
    assert_eq!(answered.status, 201);
    let id = answered.header("x-request-id").unwrap();
    let fields = request(&hub, id).await;
    assert_eq!((&fields["route"], &fields["bytes"]), (&json!("upstream"), &json!(5)), "{fields}");
    let received = application.requests();
    assert!(received[0].contains(&format!("\r\nx-request-id: {id}\r\n")), "{received:?}");

    let named = hub.request("GET /named", b"").await.unwrap();
    assert_eq!(named.header("x-request-id"), Some("of-the-application"));

    let mut connection = Connection::open(hub.address()).await.unwrap();
    connection.request("GET /unfinished", b"").await.unwrap();
    connection.rest().await.unwrap();
    let cut = logged(&hub, "request", |fields| fields["complete"] == false).await;
    assert_eq!(cut["status"], 200, "{cut}");

    let stream = EventStream::open(hub.address(), "/granted").await.unwrap();
    let opened = logged(&hub, "stream opened", |_| true).await;
    assert_eq!(opened["route"], "upstream", "{opened}");
    drop(stream);
    logged(&hub, "stream ended", |fields| fields["request_id"] == opened["request_id"]).await;

    let mut socket = Connection::open(hub.address()).await.unwrap();
    socket.request("GET /socket\nConnection: Upgrade\nUpgrade: websocket", b"").await.unwrap();
    let switched = socket.head().await.unwrap();
    assert_eq!((switched.status, switched.header("x-request-id").is_some()), (101, true));
    let opened = logged(&hub, "tunnel opened", |fields| fields["status"] == 101).await;
    assert!(!hub.output().iter().any(|line| line.contains("tunnel ended")));
    drop(socket);
    let ended = logged(&hub, "tunnel ended", |_| true).await;
    assert_eq!(ended["request_id"], opened["request_id"]);

    let printed = printed_to_the_end(hub).await.join("\n");
    assert!(!printed.contains("private"), "{printed}");
}

#[tokio::test]
async fn without_the_setting_nothing_is_logged_and_no_response_is_named() {
    let hub = Hub::serve(&["--log", "json"]).await.unwrap();
    let response = hub.request("GET /healthz\nX-Request-Id: x", b"").await.unwrap();
    assert_eq!(response.header("x-request-id"), None);
    let printed = printed_to_the_end(hub).await.join("\n");
    assert!(printed.contains("listening") && !printed.contains(ACCESS), "{printed}");
}

#[tokio::test]
async fn the_level_of_the_access_log_is_its_own() {
    let quiet = hub(&["--log-level", "info,tidings::access=off"]).await;
    let response = quiet.request("GET /healthz", b"").await.unwrap();
    assert!(response.header("x-request-id").is_some());
    let printed = printed_to_the_end(quiet).await.join("\n");
    assert!(printed.contains("draining connections") && !printed.contains(ACCESS), "{printed}");
}
