//! An application decides about streams: `--authorize URL`, and `[[authorize]]` for further paths.

use std::fs;

use tempfile::TempDir;
use tidings_testkit::{Application, Certificate, Connection, EventStream, Hub, Reply};

const KEY: &str = "tk_a-key-that-may-publish-everything";

/// A hub with a key, private topics of users, and an application that decides about `/stream`.
async fn hub(application: &Application, args: &[&str]) -> (Hub, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidings.toml");
    let text = format!(
        "private_topics = [\"user-*\"]\n[[key]]\nname = \"app\"\nsecret = \"{KEY}\"\npublish = [\"*\"]\n"
    );
    fs::write(&file, text).unwrap();
    let url = application.url("/stream");
    let args = [&["--config", file.to_str().unwrap(), "--authorize", &url], args].concat();
    (Hub::serve(&args).await.unwrap(), folder)
}

async fn publish(hub: &Hub, topic: &str, data: &str) {
    let head = format!("POST /topics/{topic}\nAuthorization: Bearer {KEY}");
    assert_eq!(hub.request(&head, data.as_bytes()).await.unwrap().status, 200);
}

/// The user that a request names in its cookie.
fn user_of(request: &str) -> Option<&str> {
    request.lines().find_map(|line| line.strip_prefix("cookie: user="))
}

/// Grants each user what is theirs, and shows everybody else how to log in.
fn by_cookie(request: &str) -> Reply {
    match user_of(request) {
        Some(user) => Reply::subscribe(&format!("topic=chat&topic=user-{user}")),
        None => Reply::with(
            "401 Unauthorized",
            "Content-Type: text/html\r\nX-App: 1\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
             Access-Control-Allow-Origin: *\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n",
            "<p>Log in</p>",
        ),
    }
}

/// The status and detail of the problem that a client other than a browser gets.
async fn refused(hub: &Hub, target: &str) -> (u16, String) {
    let response = hub.request(&format!("GET {target}"), b"").await.unwrap();
    assert_eq!(response.header("content-type"), Some("application/problem+json"), "{response}");
    (response.status, response.text())
}

#[tokio::test]
async fn each_user_receives_their_private_events_and_nobody_elses() {
    let application = Application::start(by_cookie).await.unwrap();
    let (hub, _folder) = hub(&application, &[]).await;
    let mut streams = Vec::new();
    for user in ["42", "43"] {
        let cookie = format!("Cookie: user={user}");
        streams.push(EventStream::open_with(hub.address(), "/stream", &[&cookie]).await.unwrap());
    }
    for (topic, data) in
        [("user-42", "for 42"), ("user-43", "for 43"), ("other", "unasked"), ("chat", "for all")]
    {
        publish(&hub, topic, data).await;
    }
    assert_eq!(streams[0].messages(2).await.unwrap(), ["for 42", "for all"]);
    assert_eq!(streams[1].messages(2).await.unwrap(), ["for 43", "for all"]);
    // Elsewhere the cookie of the application is worth nothing.
    let head = "GET /topics/user-42\nAccept: text/event-stream\nCookie: user=42";
    assert_eq!(hub.request(head, b"").await.unwrap().status, 401);
}

#[tokio::test]
async fn what_the_application_refuses_reaches_the_client_as_it_is() {
    let application = Application::start(by_cookie).await.unwrap();
    let (hub, _folder) = hub(&application, &[]).await;
    // A native EventSource, too: the application wants it to give up.
    for fields in ["", "\nAccept: text/event-stream\nCache-Control: no-cache"] {
        let response = hub.request(&format!("GET /stream{fields}"), b"").await.unwrap();
        assert_eq!((response.status, response.text().as_str()), (401, "<p>Log in</p>"));
        assert_eq!(response.header("content-type"), Some("text/html"));
        assert_eq!(response.header("x-app"), Some("1"));
        let cookies = response.headers.iter().filter(|(name, _)| name == "set-cookie");
        assert_eq!(cookies.map(|(_, value)| value.as_slice()).collect::<Vec<_>>(), [b"a=1", b"b=2"]);
        // Headers of the connection to the application, and its opinion about foreign pages.
        for name in ["x-hop", "connection", "access-control-allow-origin", "tidings-subscribe"] {
            assert_eq!(response.header(name), None, "{response}");
        }
        assert_eq!(response.header("cache-control"), Some("no-store"));
    }
    for (fields, status) in [("", 401), ("\nCookie: user=42", 200)] {
        let mut connection = Connection::open(hub.address()).await.unwrap();
        connection.request(&format!("HEAD /stream{fields}\nConnection: close"), b"").await.unwrap();
        assert_eq!(connection.head().await.unwrap().status, status);
        assert_eq!(connection.rest().await.unwrap(), b"", "a response to HEAD has no body");
    }
}

#[tokio::test]
async fn the_application_receives_the_request_as_it_came() {
    let application = Application::start(|_| Reply::subscribe("topic=chat")).await.unwrap();
    let (hub, _folder) = hub(&application, &["--public-url", "https://hub.example"]).await;
    let fields = [
        "Cookie: user=42; theme=dark",
        "Last-Event-ID: #1.a",
        "X-Forwarded-For: 192.0.2.1",
        "X_Forwarded_For: 192.0.2.2",
        "Forwarded: for=192.0.2.3",
        "Authorization: Bearer of-the-application",
    ];
    EventStream::open_with(hub.address(), "/stream?topic=user-1&%zz&access_token=x", &fields).await.unwrap();
    let [request] = &application.requests()[..] else { panic!("one request") };
    let mut lines = request.lines();
    assert_eq!(lines.next(), Some("GET /stream?topic=user-1&%zz&access_token=x HTTP/1.1"));
    let mut fields: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    fields.sort_unstable();
    let host = format!("host: {}", hub.address());
    let forwarded_host = format!("x-forwarded-host: {}", hub.address());
    let version = format!("tidings-version: {}", env!("CARGO_PKG_VERSION"));
    let mut expected = [
        "accept: text/event-stream",
        "authorization: Bearer of-the-application",
        "cookie: user=42; theme=dark",
        &host,
        "last-event-id: #1.a",
        &version,
        "x-forwarded-for: 127.0.0.1",
        &forwarded_host,
        "x-forwarded-proto: https",
    ];
    expected.sort_unstable();
    assert_eq!(fields, expected);
}

#[tokio::test]
async fn everything_that_the_application_may_say_has_its_effect() {
    let grants = |request: &str| match request.split(' ').nth(1) {
        Some("/stream?patterns") => {
            Reply::subscribe("pattern=%2Frooms%2F:room&since=earliest&format=json&hello=true")
        }
        Some("/stream?several") => Reply::with(
            "200 OK",
            "Tidings-Subscribe: topic=chat\r\nTidings-Subscribe: topic=user-42&since=earliest\r\n",
            "",
        ),
        Some("/stream?cookie") => Reply::with(
            "200 OK",
            "Tidings-Subscribe: topic=chat\r\nSet-Cookie: a=1\r\nX-App: 1\r\n",
            "unread",
        ),
        _ => Reply::subscribe("topic=chat&expires=1"),
    };
    let application = Application::start(grants).await.unwrap();
    let (hub, _folder) = hub(&application, &["--retry-millis", "100"]).await;
    publish(&hub, "user-42", "private").await;
    publish(&hub, "/rooms/1", "in a room").await;

    let mut patterns = EventStream::open(hub.address(), "/stream?patterns").await.unwrap();
    assert!(patterns.next().await.unwrap().data.contains("hello"));
    assert!(patterns.next().await.unwrap().data.contains(r#""topic":"/rooms/1""#));

    let mut several = EventStream::open(hub.address(), "/stream?several").await.unwrap();
    assert_eq!(several.messages(1).await.unwrap(), ["private"]);

    let cookie = EventStream::open(hub.address(), "/stream?cookie").await.unwrap();
    assert_eq!(cookie.response().header("set-cookie"), Some("a=1"));
    assert_eq!(cookie.response().header("x-app"), None);
    assert_eq!(cookie.response().header("cache-control"), Some("no-store, no-transform"));

    // At its expiry the stream ends, and the application is asked again.
    let asked = application.requests().len();
    let mut expiring = EventStream::open(hub.address(), "/stream").await.unwrap();
    while expiring.next_or_end().await.unwrap().is_some() {}
    EventStream::open(hub.address(), "/stream").await.unwrap();
    assert_eq!(application.requests().len(), asked + 2, "nothing is cached");
}

#[tokio::test]
async fn a_client_that_reconnects_continues_whatever_since_says() {
    let application = Application::start(|_| Reply::subscribe("topic=chat&since=earliest")).await.unwrap();
    let (hub, _folder) = hub(&application, &[]).await;
    publish(&hub, "chat", "one").await;
    let mut first = EventStream::open(hub.address(), "/stream").await.unwrap();
    assert_eq!(first.messages(1).await.unwrap(), ["one"]);
    let id = first.last_event_id().to_owned();
    publish(&hub, "chat", "two").await;
    let mut resumed = EventStream::resume(hub.address(), "/stream", &id).await.unwrap();
    assert_eq!(resumed.messages(1).await.unwrap(), ["two"]);
    // A polyfill cannot send the header.
    let target = format!("/stream?lastEventId={}&since=ignored", id.replace('#', "%23"));
    let mut polyfill = EventStream::open(hub.address(), &target).await.unwrap();
    assert_eq!(polyfill.messages(1).await.unwrap(), ["two"]);
}

#[tokio::test]
async fn a_redirect_is_passed_on_and_not_followed() {
    let application = Application::start(|request| {
        assert!(!request.starts_with("GET /elsewhere"), "the hub follows no redirect");
        Reply::with("302 Found", "Location: /elsewhere\r\n", "")
    });
    let application = application.await.unwrap();
    let (hub, _folder) = hub(&application, &[]).await;
    let response = hub.request("GET /stream", b"").await.unwrap();
    assert_eq!((response.status, response.header("location")), (302, Some("/elsewhere")));
    assert_eq!(application.requests().len(), 1);
}

#[tokio::test]
async fn a_response_that_the_hub_cannot_use_is_502_and_the_log_says_why() {
    let malformed = |request: &str| match request.split(['?', ' ']).nth(2) {
        Some("nothing") => Reply::subscribe(""),
        Some("misspelt") => Reply::subscribe("topics=secret-topic"),
        Some("encoding") => Reply::subscribe("topic=%zz"),
        Some("pattern") => Reply::subscribe("pattern=%2F("),
        Some("since") => Reply::subscribe("topic=a&since=soon"),
        Some("expires") => Reply::subscribe("topic=a&expires=1h"),
        Some("label") => Reply::subscribe("topic=a&label="),
        Some("many") => Reply::subscribe(&vec!["topic=a"; 101].join("&")),
        Some("status") => Reply::with("201 Created", "Tidings-Subscribe: topic=a\r\n", ""),
        Some("large") => Reply::with("403 Forbidden", "", &"x".repeat(1_048_577)),
        Some("headers") => Reply::with("200 OK", &"X-App: 1\r\n".repeat(200), ""),
        other => panic!("{other:?}"),
    };
    let application = Application::start(malformed).await.unwrap();
    let (mut hub, _folder) = hub(&application, &[]).await;
    for asked in [
        "nothing", "misspelt", "encoding", "pattern", "since", "expires", "label", "many", "status", "large",
        "headers",
    ] {
        let (status, detail) = refused(&hub, &format!("/stream?{asked}")).await;
        assert_eq!(status, 502, "{asked}: {detail}");
        assert!(!detail.contains("secret-topic"), "{detail}");
    }
    let line = hub.printed("has not decided about streams").await.unwrap();
    assert!(line.contains("names no topic") && line.contains(&application.url("/stream")), "{line}");
}

#[tokio::test]
async fn an_application_that_is_down_or_hangs_refuses_streams_and_browsers_come_back() {
    let never = Application::start(|_| Reply::Hang(String::new())).await.unwrap();
    let (hanging, _folder) = hub(&never, &["--authorize-secs", "1"]).await;
    let early =
        Application::start(|_| Reply::Close("HTTP/1.1 200 OK\r\nContent-Le".to_owned())).await.unwrap();
    let (closing, _folder) = hub(&early, &[]).await;
    let slow = |_: &str| Reply::Hang("HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nbegun".to_owned());
    let slow = Application::start(slow).await.unwrap();
    let (waiting, _folder) = hub(&slow, &["--authorize-secs", "1"]).await;
    let gone = Application::start(by_cookie).await.unwrap();
    let (alone, _folder) = hub(&gone, &[]).await;
    drop(gone);
    for (hub, expected) in [(&hanging, 504), (&waiting, 504), (&closing, 502), (&alone, 502)] {
        let response = hub.request("GET /stream", b"").await.unwrap();
        assert_eq!(response.status, expected, "{response}");
        assert!(response.header("retry-after").is_some());
        let native = "GET /stream\nAccept: text/event-stream\nCache-Control: no-cache";
        let response = hub.request(native, b"").await.unwrap();
        assert_eq!(response.status, 200, "an error status would close it for good");
        assert!(response.text().contains("\nretry: "), "{response}");
        assert!(!response.text().contains("data:"), "{response}");
    }
}

/// A flood of headers or of a body ends where the limits are, and memory does not grow with it.
#[tokio::test]
async fn an_application_that_floods_is_cut_off() {
    let flood = |request: &str| match request.split(['?', ' ']).nth(2) {
        Some("headers") => {
            Reply::Flood("HTTP/1.1 200 OK\r\n".to_owned(), format!("X-App: {}\r\n", "x".repeat(900)))
        }
        Some("line") => Reply::Flood("HTTP/1.1 200 OK\r\nX-App: ".to_owned(), "x".repeat(1_000)),
        Some("interim") => Reply::Flood(String::new(), "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100)),
        _ => Reply::Flood("HTTP/1.1 403 Forbidden\r\n\r\n".to_owned(), "x".repeat(1_000)),
    };
    let application = Application::start(flood).await.unwrap();
    let (hub, _folder) = hub(&application, &["--authorize-secs", "2"]).await;
    for (asked, expected) in [("headers", 502), ("line", 502), ("interim", 502), ("body", 502)] {
        let (status, detail) = refused(&hub, &format!("/stream?{asked}")).await;
        assert_eq!(status, expected, "{asked}: {detail}");
    }
}

#[tokio::test]
async fn an_application_that_hangs_affects_no_other_client() {
    let hanging = Application::start(|_| Reply::Hang(String::new())).await.unwrap();
    let working = Application::start(|_| Reply::subscribe("topic=chat")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidings.toml");
    let text = format!(
        "authorize_requests_max = 4\nrequests_max = 16\nauthorize_secs = 600\n\
         [[authorize]]\npath = \"/hangs\"\nurl = \"{}\"\n[[authorize]]\npath = \"/works\"\nurl = \"{}\"\n",
        hanging.url("/"),
        working.url("/")
    );
    fs::write(&file, text).unwrap();
    let hub = Hub::serve(&["--config", file.to_str().unwrap()]).await.unwrap();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let mut connection = Connection::open(hub.address()).await.unwrap();
        connection.request("GET /hangs", b"").await.unwrap();
        waiting.push(connection);
    }
    hanging.has_requests(4).await.unwrap();
    // One more is refused at once, and everything else is served.
    for _ in 0..32 {
        let response = hub.request("GET /hangs", b"").await.unwrap();
        assert_eq!(response.status, 503, "{response}");
        assert!(response.header("retry-after").is_some());
    }
    let mut own = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
    let mut other = EventStream::open(hub.address(), "/works").await.unwrap();
    hub.publish("chat", "served").await.unwrap();
    assert_eq!(own.messages(1).await.unwrap(), ["served"]);
    assert_eq!(other.messages(1).await.unwrap(), ["served"]);
}

/// A client that left used to count until the application had answered or timed out: a page that
/// was reloaded 128 times shut out everybody else for ten seconds.
#[tokio::test]
async fn a_client_that_disconnects_frees_what_it_took_of_an_application_that_hangs() {
    let hanging = Application::start(|_| Reply::Hang(String::new())).await.unwrap();
    let limits = ["--authorize-secs", "600", "--authorize-requests-max", "4"];
    let (hub, _folder) = hub(&hanging, &limits).await;
    let close = |connection: Connection| drop(connection);
    let reset = |connection: Connection| connection.reset().unwrap();
    let leave: [fn(Connection); 3] = [close, reset, close];
    for (count, leave) in (4..).step_by(4).zip(leave) {
        let mut waiting = Vec::new();
        for _ in 0..4 {
            let mut connection = Connection::open(hub.address()).await.unwrap();
            connection.request("GET /stream", b"").await.unwrap();
            waiting.push(connection);
        }
        hanging.has_requests(count).await.unwrap();
        assert_eq!(refused(&hub, "/stream").await.0, 503, "all permits are taken");
        waiting.into_iter().for_each(leave);
        hanging.is_abandoned(count).await.unwrap();
    }
}

/// It looks like one that has left.
#[tokio::test]
async fn a_client_that_ends_its_side_while_the_application_is_asked_is_asked_to_keep_it_open() {
    let hanging = Application::start(|_| Reply::Hang(String::new())).await.unwrap();
    let hub = Hub::serve(&["--authorize", &hanging.url("/"), "--authorize-secs", "600"]).await.unwrap();
    let mut connection = Connection::open(hub.address()).await.unwrap();
    connection.request("GET /stream", b"").await.unwrap();
    hanging.has_requests(1).await.unwrap();
    connection.finish_sending().await.unwrap();
    let response = connection.response().await.unwrap();
    assert_eq!(response.status, 400, "{response}");
    assert!(response.text().contains("keep it open"), "{response}");
    hanging.is_abandoned(1).await.unwrap();
    let metrics = hub.request("GET /metrics", b"").await.unwrap().text();
    assert!(metrics.contains("tidings_authorizations_total{outcome=\"abandoned\"} 1"), "{metrics}");
}

#[tokio::test]
async fn connections_to_the_application_are_reused() {
    let application = Application::start(by_cookie).await.unwrap();
    let (hub, _folder) = hub(&application, &[]).await;
    for _ in 0..20 {
        assert_eq!(hub.request("GET /stream", b"").await.unwrap().status, 401);
    }
    assert_eq!(application.requests().len(), 20);
    assert!(application.connections() < 20, "{}", application.connections());
}

#[tokio::test]
async fn a_path_that_an_application_decides_about_takes_get_alone() {
    let application = Application::start(by_cookie).await.unwrap();
    let (hub, _folder) = hub(&application, &["--allow-origin", "https://app.example"]).await;
    let response = hub.request("POST /stream", b"topic=user-42").await.unwrap();
    assert_eq!((response.status, response.header("allow")), (405, Some("GET,HEAD")));
    let options = hub.request("OPTIONS /stream", b"").await.unwrap();
    assert_eq!(options.status, 204);
    let preflight = "OPTIONS /stream\nOrigin: https://app.example\nAccess-Control-Request-Method: GET";
    let preflight = hub.request(preflight, b"").await.unwrap();
    assert_eq!(preflight.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(application.requests().len(), 0, "the hub answers these");
    let fields = ["Origin: https://app.example", "Cookie: user=42"];
    let stream = EventStream::open_with(hub.address(), "/stream", &fields).await.unwrap();
    assert_eq!(stream.response().header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(stream.response().header("access-control-allow-credentials"), Some("true"));
}

#[tokio::test]
async fn a_configuration_that_cannot_work_does_not_start() {
    for (args, part) in [
        (
            &["--authorize", "127.0.0.1:5000/stream"][..],
            "--authorize: `127.0.0.1:5000/stream` is not a URL of HTTP",
        ),
        (&["--authorize", "http://me:secret@a/"], "contains a user or a password"),
        (&["--authorize", "http://a/", "--stream", "chat"], "--stream: an application decides about /stream"),
        (&["--authorize", "http://a/", "--authorize-requests-max", "513"], "more than half of requests_max"),
    ] {
        let refused = Hub::serve(args).await.unwrap_err().to_string();
        assert!(refused.contains(part) && !refused.contains("secret@"), "{refused}");
    }
}

#[tokio::test]
async fn the_certificate_of_an_application_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::create(folder.path(), "application", &["127.0.0.1"]).unwrap();
    let application = Application::start_tls(&certificate, |_| Reply::subscribe("topic=chat")).await.unwrap();
    let url = application.url("/stream");
    let hub = Hub::not_started(["serve", "--authorize", &url]).unwrap();
    let mut hub = hub.with_environment("SSL_CERT_FILE", certificate.certificate.to_str().unwrap());
    hub.start_again().await.unwrap();
    let mut stream = EventStream::open(hub.address(), "/stream").await.unwrap();
    hub.publish("chat", "over TLS").await.unwrap();
    assert_eq!(stream.messages(1).await.unwrap(), ["over TLS"]);

    let mut distrusting = Hub::serve(&["--authorize", &url]).await.unwrap();
    let (status, detail) = refused(&distrusting, "/stream").await;
    assert!(status == 502 && !detail.contains("certificate"), "{status} {detail}");
    let line = distrusting.printed("has not decided about streams").await.unwrap();
    assert!(line.contains("certificate") && line.contains("unreachable"), "{line}");
}
