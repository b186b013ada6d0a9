//! Which requests reach the application, and what it receives of them.

use std::fs;

use tidings_testkit::{Application, Connection, Hub, Reply};

use crate::application::{Raw, ok, values};

const KEY: &str = "tk_a-key-that-may-do-everything";

/// A hub with a key and an address for the application, which is returned.
async fn with_key(url: &str, args: &[&str]) -> (Hub, std::net::SocketAddr, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidings.toml");
    let text = format!(
        "[[key]]\nname = \"app\"\nsecret = \"{KEY}\"\npublish = [\"*\"]\nsubscribe = [\"*\"]\nadmin = true\n\
         [[ticket_secret]]\nid = \"a\"\nsecret = \"a secret of tickets that is long enough\"\n"
    );
    fs::write(&file, text).unwrap();
    let given = [
        &["--config", file.to_str().unwrap(), "--upstream", url, "--listen", "127.0.0.1:0", "--listen"][..],
        &["127.0.0.1:0?upstream=false"],
        args,
    ];
    let hub = Hub::serve_on_its_own(&given.concat()).await.unwrap();
    let own = hub.addresses()[1].parse().unwrap();
    (hub, own, folder)
}

#[tokio::test]
async fn what_is_not_the_hubs_is_answered_by_the_application_as_it_is() {
    let response = "HTTP/1.1 200 Fine\r\nServer: theirs\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nX-App: 1\r\n\
                    Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nKeep-Alive: timeout=5\r\nConnection: keep-alive, x-hop\r\n\
                    X-Hop: 1\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 5\r\n\r\nhello";
    let application = Application::start(|_| Reply::Bytes(response.to_owned())).await.unwrap();
    let hub = Hub::serve(&["--upstream", &application.url("")]).await.unwrap();
    for head in [
        "GET /",
        "GET /healthz",
        "GET /metrics",
        "GET /stream",
        "GET /stream?since=-5",
        "DELETE /tickets",
        "PROPFIND /a",
        // What the hub would refuse as a page of another origin, as a proxy, or as another host.
        "POST /revoke\nOrigin: https://evil.example",
        "GET /a\nX-Forwarded-For: 192.0.2.1",
        "OPTIONS /a\nOrigin: https://b.example\nAccess-Control-Request-Method: PUT",
    ] {
        let got = hub.request(head, b"").await.unwrap();
        assert_eq!((got.status, got.text().as_str()), (200, "hello"), "{head}");
        let fields: Vec<_> = got
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
            .collect();
        let expected = [
            "server: theirs",
            "date: Thu, 01 Jan 1970 00:00:00 GMT",
            "x-app: 1",
            "set-cookie: a=1",
            "set-cookie: b=2",
            "access-control-allow-origin: *",
            "content-length: 5",
        ];
        assert_eq!(fields, expected, "{head}");
    }
    let seen = application.requests().len();
    for (head, status) in [
        ("POST /topics/chat", 200),
        ("GET /topics/chat?foo=1", 400),
        ("GET /stream?topic=a&foo=1", 400),
        ("GET /.well-known/mercure", 400),
        ("GET /.well-known/mercure/x", 404),
        ("GET /assets/tidings.css", 200),
        ("GET /topics/a\nX-Forwarded-For: 192.0.2.1", 403),
    ] {
        assert_eq!(hub.request(head, b"").await.unwrap().status, status, "{head}");
    }
    assert_eq!(application.requests().len(), seen, "the hub has asked for its own paths");
}

#[tokio::test]
async fn the_application_has_an_address_of_the_hub_for_itself() {
    let application = Application::start(|_| Reply::with("200 OK", "", "theirs")).await.unwrap();
    let (hub, own, _folder) = with_key(&application.url(""), &["--admin-listen", "127.0.0.1:0"]).await;
    let ask = async |address, head: &str, body: &[u8]| {
        let mut connection = Connection::open(address).await.unwrap();
        let fields = format!("Authorization: Bearer {KEY}\nContent-Type: application/json");
        connection.request(&format!("{head}\n{fields}"), body).await.unwrap();
        connection.response().await.unwrap()
    };
    let ticket = br#"{"topic":["chat"]}"#;
    for (head, body, status) in [
        ("POST /topics/chat", &b"x"[..], 200),
        ("POST /tickets", ticket, 200),
        ("POST /revoke", br#"{"label":"user-42"}"#, 204),
        ("GET /healthz", b"", 200),
        ("GET /metrics", b"", 200),
        ("GET /nothing", b"", 404),
    ] {
        let response = ask(own, head, body).await;
        assert_eq!(response.status, status, "{head}: {}", response.text());
    }
    assert_eq!(application.requests().len(), 0);
    assert_eq!(ask(hub.address(), "GET /nothing", b"").await.text(), "theirs");
    let admin = hub.admin_addresses()[0].parse().unwrap();
    let metrics = ask(admin, "GET /metrics", b"").await.text();
    assert!(metrics.contains("tidings_upstream_requests_total{outcome=\"answered\"} 1"), "{metrics}");
    assert_eq!(ask(admin, "GET /nothing", b"").await.status, 404);
}

#[tokio::test]
async fn a_ticket_makes_a_stream_that_names_no_topic_the_hubs() {
    let application = Application::start(|_| Reply::with("200 OK", "", "theirs")).await.unwrap();
    let (hub, own, _folder) = with_key(&application.url(""), &[]).await;
    let mut connection = Connection::open(own).await.unwrap();
    let head = format!("POST /tickets\nAuthorization: Bearer {KEY}\nContent-Type: application/json");
    connection.request(&head, br#"{"topic":["chat"]}"#).await.unwrap();
    let ticket = connection.response().await.unwrap().text().trim().to_owned();
    for (fields, is_stream) in [
        (format!("\nAuthorization: Bearer {ticket}"), true),
        ("\nAuthorization: Bearer of-the-application".to_owned(), false),
        // A key names no topic.
        (format!("\nAuthorization: Bearer {KEY}"), false),
    ] {
        let mut connection = Connection::open(hub.address()).await.unwrap();
        connection.request(&format!("GET /stream{fields}"), b"").await.unwrap();
        let is_streamed =
            connection.head().await.unwrap().header("content-type") == Some("text/event-stream");
        assert_eq!(is_streamed, is_stream, "{fields}");
    }
}

#[tokio::test]
async fn the_application_receives_the_request_as_it_came() {
    let (raw, hub) = Raw::behind_hub(&["--public-url", "https://hub.example"]).await;
    let head = "PUT //a/../b;c?d=%zz&e=%20+\nX-App: 1\nx-app: 2\nCookie: a=1\nAccept: */*\nProxy: http://evil\n\
                X-Forwarded-For: 192.0.2.1\nX_Forwarded_Proto: http\nForwarded: for=192.0.2.3\nVia: 1.1 x\n\
                Connection: close, X-Hop, host, x-forwarded-for\nX-Hop: 1\nTE: trailers\nUpgrade: h2c\n\
                Tidings-Version: 9\nAuthorization: Bearer x";
    let asking = hub.request(head, b"hello");
    let answering = async {
        let (mut peer, request) = raw.request().await;
        let body = peer.bytes(5).await;
        peer.send(ok("")).await;
        (request, body)
    };
    let (response, (request, body)) = tokio::join!(asking, answering);
    assert_eq!(response.unwrap().status, 200);
    assert_eq!(body, b"hello");
    let mut lines: Vec<_> = request.lines().collect();
    assert_eq!(lines.remove(0), "PUT //a/../b;c?d=%zz&e=%20+ HTTP/1.1");
    lines.sort_unstable();
    let (host, forwarded) =
        (format!("host: {}", hub.address()), format!("x-forwarded-host: {}", hub.address()));
    let version = format!("tidings-version: {}", env!("CARGO_PKG_VERSION"));
    let mut expected = vec![
        "accept: */*",
        "authorization: Bearer x",
        "content-length: 5",
        "cookie: a=1",
        &host,
        &version,
        "via: 1.1 x",
        "x-app: 1",
        "x-app: 2",
        "x-forwarded-for: 127.0.0.1",
        &forwarded,
        "x-forwarded-proto: https",
    ];
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn an_application_at_a_unix_socket_is_asked_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let hub = Hub::serve(&["--upstream", &format!("unix:{}", path.display())]).await.unwrap();
    let answering = async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let count = stream.read(&mut request).await.unwrap();
        stream.write_all(ok("from a socket").as_bytes()).await.unwrap();
        String::from_utf8(request[..count].to_vec()).unwrap()
    };
    let (response, request) = tokio::join!(hub.request("GET /a?b", b""), answering);
    assert_eq!(response.unwrap().text(), "from a socket");
    assert!(request.starts_with("GET /a?b HTTP/1.1\r\n"), "{request}");
    assert_eq!(values(&request, "host"), [hub.address().to_string()]);
}

#[tokio::test]
async fn clients_of_http_1_0_and_connections_with_several_requests_are_served() {
    let application = Application::start(|request| {
        let target = request.split(' ').nth(1).unwrap_or_default().to_owned();
        Reply::with("200 OK", "", &target)
    });
    let application = application.await.unwrap();
    let hub = Hub::serve(&["--upstream", &application.url("")]).await.unwrap();
    let mut old = Connection::open(hub.address()).await.unwrap();
    old.send("GET /old HTTP/1.0\r\n\r\n").await.unwrap();
    let response = String::from_utf8(old.rest().await.unwrap()).unwrap();
    assert!(response.starts_with("HTTP/1.0 200 OK\r\n") && response.ends_with("\r\n\r\n/old"), "{response}");
    let mut connection = Connection::open(hub.address()).await.unwrap();
    for target in ["/1", "/2"] {
        connection.request(&format!("GET {target}"), b"").await.unwrap();
    }
    // Between two of the application's, one of the hub's.
    connection.request("POST /topics/chat", b"x").await.unwrap();
    connection.request("POST /3", b"body").await.unwrap();
    for expected in ["/1", "/2"] {
        assert_eq!(connection.response().await.unwrap().text(), expected);
    }
    assert_eq!(connection.response().await.unwrap().status, 200);
    assert_eq!(connection.response().await.unwrap().text(), "/3");
    let host =
        application.requests().iter().find(|request| request.starts_with("GET /old")).cloned().unwrap();
    assert_eq!(values(&host, "host").len(), 1, "{host}");
}
