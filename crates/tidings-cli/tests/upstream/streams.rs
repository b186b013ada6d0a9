//! A response with `Tidings-Subscribe` becomes a stream, on every path.

use tidings_testkit::{Application, Connection, EventStream, Hub, Reply};

/// Grants a stream of the topic that the cookie names.
fn by_cookie(request: &str) -> Reply {
    match request.lines().find_map(|line| line.strip_prefix("cookie: user=")) {
        Some(user) => Reply::with(
            "200 OK",
            &format!(
                "Tidings-Subscribe: topic=user-{user}\r\nSet-Cookie: seen=1\r\nX-App: 1\r\nServer: theirs\r\n"
            ),
            "ignored",
        ),
        None => Reply::with("401 Unauthorized", "", "log in"),
    }
}

#[tokio::test]
async fn every_path_of_the_application_may_grant_a_stream() {
    let application = Application::start(by_cookie).await.unwrap();
    let hub = Hub::serve(&["--upstream", &application.url("")]).await.unwrap();
    for target in ["/stream", "/events/live?a=b", "/"] {
        let mut stream = EventStream::open_with(hub.address(), target, &["Cookie: user=42"]).await.unwrap();
        let response = stream.response().clone();
        assert_eq!(response.header("set-cookie"), Some("seen=1"));
        for name in ["x-app", "server", "tidings-subscribe", "content-length"] {
            assert_eq!(response.header(name), None, "{response}");
        }
        hub.publish("user-42?private", "for 42").await.unwrap();
        assert_eq!(stream.messages(1).await.unwrap(), ["for 42"]);
        let id = stream.last_event_id().to_owned();
        drop(stream);
        hub.publish("user-42?private", "missed").await.unwrap();
        let fields = ["Cookie: user=42", &format!("Last-Event-ID: {id}")];
        let mut stream = EventStream::open_with(hub.address(), target, &fields).await.unwrap();
        assert_eq!(stream.messages(1).await.unwrap(), ["missed"]);
        let refused = hub.request(&format!("GET {target}"), b"").await.unwrap();
        assert_eq!((refused.status, refused.text().as_str()), (401, "log in"));
    }
}

#[tokio::test]
async fn the_connection_to_the_application_is_free_once_the_stream_is_open() {
    let application = Application::start(|_| Reply::subscribe("topic=chat")).await.unwrap();
    let args = ["--upstream", &application.url(""), "--upstream-requests-max", "1"];
    let hub = Hub::serve(&args).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(EventStream::open(hub.address(), "/stream").await.unwrap());
    }
    drop(application);
    hub.publish("chat", "x").await.unwrap();
    for stream in &mut streams {
        assert_eq!(stream.messages(1).await.unwrap(), ["x"]);
    }
}

#[tokio::test]
async fn a_stream_that_makes_no_sense_is_502() {
    let application = Application::start(|request| {
        let (method, rest) = request.split_once(' ').unwrap();
        match (method, rest.split_once(' ').unwrap().0) {
            (_, "/status") => Reply::with("201 Created", "Tidings-Subscribe: topic=a\r\n", ""),
            (_, "/topic") => Reply::subscribe("topics=a"),
            (_, "/none") => Reply::subscribe("format=json"),
            _ => Reply::subscribe("topic=a"),
        }
    });
    let application = application.await.unwrap();
    let mut hub = Hub::serve(&["--upstream", &application.url("")]).await.unwrap();
    for head in ["GET /status", "GET /topic", "GET /none", "POST /a", "DELETE /a"] {
        let response = hub.request(head, b"").await.unwrap();
        assert_eq!(response.status, 502, "{head}");
        assert_eq!(response.header("tidings-subscribe"), None, "{response}");
    }
    hub.printed("malformed=").await.unwrap();
    let mut connection = Connection::open(hub.address()).await.unwrap();
    connection.request("HEAD /a\nConnection: close", b"").await.unwrap();
    let head = connection.head().await.unwrap();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(connection.rest().await.unwrap(), b"");
}

/// An application may stream by itself, for as long as it likes.
#[tokio::test]
async fn the_applications_own_event_streams_are_passed_on() {
    let (raw, hub) = crate::application::Raw::behind_hub(&["--response-secs", "1"]).await;
    let mut client = Connection::open(hub.address()).await.unwrap();
    client.request("GET /own\nAccept: text/event-stream", b"").await.unwrap();
    let (mut peer, _) = raw.request().await;
    peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").await;
    assert_eq!(client.head().await.unwrap().status, 200);
    assert_eq!(client.chunk().await.unwrap().as_deref(), Some(&b"data: 1\n\n"[..]));
    peer.send("data: 2\n\n").await;
    assert_eq!(client.chunk().await.unwrap().as_deref(), Some(&b"data: 2\n\n"[..]));
    drop(client);
    assert_eq!(peer.rest().await, b"", "the application learns that the client has left");
}
