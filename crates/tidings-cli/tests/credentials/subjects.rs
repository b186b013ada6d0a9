//! `--streams-per-subject-max`: a stream counts for its subject until it has ended, in whichever way.

use tidings_testkit::{Application, Connection, EventStream, Hub, PATIENCE, Reply};

/// An application for which everybody is user 42. The query says how long a stream lasts.
async fn application() -> Application {
    let grant = |request: &str| {
        let expires = if request.starts_with("GET /stream?short") { "&expires=1" } else { "" };
        Reply::subscribe(&format!("topic=chat&label=user-42{expires}"))
    };
    Application::start(grant).await.unwrap()
}

/// Opens a stream as soon as the subject may have one.
async fn open(hub: &Hub, target: &str) -> EventStream {
    let opened = async {
        loop {
            if let Ok(stream) = EventStream::open(hub.address(), target).await {
                return stream;
            }
        }
    };
    tokio::time::timeout(PATIENCE, opened).await.expect("the stream before has been released")
}

async fn is_refused(hub: &Hub) {
    let response = hub.request("GET /stream", b"").await.unwrap();
    assert_eq!(response.status, 429, "{response}");
}

async fn read_to_end(stream: &mut EventStream) {
    while stream.next_or_end().await.unwrap().is_some() {}
}

#[tokio::test]
async fn a_stream_that_has_ended_in_any_way_is_released() {
    let application = application().await;
    let args = ["--authorize", &application.url("/stream"), "--streams-per-subject-max", "1"];
    let mut hub = Hub::serve(&args).await.unwrap();

    let mut stream = open(&hub, "/stream").await;
    is_refused(&hub).await;
    let line = hub.printed("a limit was reached").await.unwrap();
    assert!(line.contains("streams_per_subject_max") && line.contains("--streams-per-subject-max"), "{line}");
    // The client closes its connection, resets it, or only ends its side.
    drop(stream);
    stream = open(&hub, "/stream").await;
    is_refused(&hub).await;
    stream.into_connection().reset().unwrap();
    stream = open(&hub, "/stream").await;
    is_refused(&hub).await;
    stream.connection().finish_sending().await.unwrap();
    read_to_end(&mut stream).await;
    // It is revoked.
    stream = open(&hub, "/stream").await;
    is_refused(&hub).await;
    assert_eq!(hub.request("POST /revoke", br#"{"label":"user-42"}"#).await.unwrap().status, 204);
    read_to_end(&mut stream).await;
    // It expires.
    stream = open(&hub, "/stream?short").await;
    is_refused(&hub).await;
    read_to_end(&mut stream).await;
    // It is not even opened: the client reads headers alone.
    let mut connection = Connection::open(hub.address()).await.unwrap();
    connection.request("HEAD /stream", b"").await.unwrap();
    assert_eq!(connection.head().await.unwrap().status, 200);
    open(&hub, "/stream").await;
    let lines = hub.output().into_iter().filter(|line| line.contains("a limit was reached")).count();
    assert_eq!(lines, 1, "once a minute");
}

#[tokio::test]
async fn a_stream_at_its_maximum_age_ends_with_a_notice_and_its_client_resumes() {
    let application = application().await;
    let url = application.url("/stream");
    let limits = ["--streams-per-subject-max", "1", "--stream-lifetime-secs-max", "1"];
    let hub = Hub::serve(&[&["--authorize", &url], &limits[..]].concat()).await.unwrap();
    let mut stream = open(&hub, "/stream").await;
    hub.publish("chat", "before").await.unwrap();
    assert_eq!(stream.messages(1).await.unwrap(), ["before"]);
    let notice = stream.next().await.unwrap();
    assert_eq!(notice.data, r#"{"kind":"reconnect","reason":"lifetime"}"#);
    assert!(stream.next_or_end().await.unwrap().is_none());
    hub.publish("chat", "meanwhile").await.unwrap();
    let asked = application.requests().len();
    let id = stream.last_event_id().to_owned();
    let mut resumed = open(&hub, &format!("/stream?lastEventId={}", id.replace('#', "%23"))).await;
    assert_eq!(resumed.messages(1).await.unwrap(), ["meanwhile"]);
    assert!(application.requests().len() > asked, "the application decides again");
}
