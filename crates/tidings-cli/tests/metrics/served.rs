//! What moves the metrics of requests, streams, connections and the process.

use std::{fs, path::Path};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tidings_testkit::{Application, Connection, EventStream, Hub, Port, RedisServer, Reply};

use crate::moves::{
    Case,
    Change::{By, To, Up},
};

/// A browser's request, which is rejected by an empty stream.
const NATIVE: &str = "GET /stream?topic=chat\nAccept: text/event-stream\nCache-Control: no-cache";
const KEY: &str = "tk_a-key-that-operates-the-hub";

/// A hub with a key that is allowed nothing but to operate it.
async fn with_key(folder: &Path) -> Hub {
    let file = folder.join("tidings.toml");
    let text = format!(
        "[[key]]\nname = \"operator\"\nsecret = \"{KEY}\"\nadmin = true\n\
         [[ticket_secret]]\nid = \"1\"\nsecret = \"a secret of tickets that is long enough\"\n"
    );
    fs::write(&file, text).unwrap();
    Hub::serve(&["--config", file.to_str().unwrap()]).await.unwrap()
}

async fn status(hub: &Hub, head: &str, body: &[u8]) -> u16 {
    hub.request(head, body).await.unwrap().status
}

/// Streams that wait for an application, and how it answers.
async fn asked(reply: Reply) -> (Application, Hub) {
    let application = Application::start(move |_| reply.clone()).await.unwrap();
    let hub = Hub::serve(&["--authorize", &application.url("/")]).await.unwrap();
    (application, hub)
}

/// A hub before an application, with an address for operators.
async fn before_application(url: &str, more: &[&str]) -> Hub {
    let given = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--upstream", url];
    Hub::serve_on_its_own(&[&given, more].concat()).await.unwrap()
}

pub(crate) const CASES: &[Case] = &[
    Case {
        action: "requests of known and unknown routes and methods are answered",
        series: &[
            (r#"tidings_requests_total{route="/topics/{topic}",method="POST",status="2xx"}"#, By(1.0)),
            (r#"tidings_requests_total{route="/topics/{topic}",method="POST",status="4xx"}"#, By(1.0)),
            (r#"tidings_requests_total{route="/stream",method="GET",status="4xx"}"#, By(1.0)),
            (r#"tidings_requests_total{route="/",method="GET",status="2xx"}"#, By(1.0)),
            (r#"tidings_requests_total{route="mercure",method="POST",status="4xx"}"#, By(1.0)),
            (r#"tidings_requests_total{route="other",method="other",status="4xx"}"#, By(1.0)),
            (r#"tidings_requests_total{route="/healthz",method="HEAD",status="2xx"}"#, By(1.0)),
            ("tidings_connections_accepted_total", By(7.0)),
        ],
        run: |mut moves| {
            Box::pin(async move {
                let hub = Hub::serve(&[]).await.unwrap();
                moves.before(hub.address()).await;
                for (head, expected) in [
                    ("POST /topics/chat", 200),
                    ("POST /topics/chat?unknown=1", 400),
                    ("GET /stream", 400),
                    ("GET /", 200),
                    ("POST /.well-known/mercure", 415),
                    ("PROPFIND /nothing", 404),
                ] {
                    assert_eq!(status(&hub, head, b"x").await, expected, "{head}");
                }
                let mut connection = Connection::open(hub.address()).await.unwrap();
                connection.request("HEAD /healthz", b"").await.unwrap();
                assert_eq!(connection.head().await.unwrap().status, 200);
                moves.after().await
            })
        },
    },
    Case {
        action: "events are published, repeated and refused over both APIs",
        series: &[
            (r#"tidings_events_published_total{api="native",outcome="stored"}"#, By(4.0)),
            (r#"tidings_events_published_total{api="native",outcome="duplicate"}"#, By(1.0)),
            (r#"tidings_events_published_total{api="native",outcome="ephemeral"}"#, By(1.0)),
            (r#"tidings_events_published_total{api="native",outcome="refused"}"#, By(1.0)),
            (r#"tidings_events_published_total{api="mercure",outcome="stored"}"#, By(1.0)),
            (r#"tidings_events_published_total{api="mercure",outcome="refused"}"#, By(1.0)),
            (r#"tidings_publish_duration_seconds_count{api="native"}"#, By(5.0)),
            (r#"tidings_publish_duration_seconds_count{api="mercure"}"#, By(1.0)),
            (r#"tidings_publish_duration_seconds_sum{api="mercure"}"#, Up),
            (r#"tidings_publish_duration_seconds_bucket{le="+Inf",api="mercure"}"#, By(1.0)),
        ],
        run: |mut moves| {
            Box::pin(async move {
                let hub = Hub::serve(&[]).await.unwrap();
                moves.before(hub.address()).await;
                let form = "POST /.well-known/mercure\nContent-Type: application/x-www-form-urlencoded";
                for (head, body, expected) in [
                    ("POST /topics/chat", "x", 200),
                    ("POST /topics/chat\nIdempotency-Key: \"one\"", "x", 200),
                    ("POST /topics/chat\nIdempotency-Key: \"one\"", "x", 200),
                    ("POST /topics", "{\"topic\":\"a\",\"data\":1}\n{\"topic\":\"b\",\"data\":2}", 200),
                    ("POST /topics/chat?ephemeral=true", "x", 200),
                    ("POST /topics/chat?id=%23", "x", 400),
                    (form, "topic=chat&data=x", 200),
                    (form, "data=x", 400),
                ] {
                    assert_eq!(status(&hub, head, body.as_bytes()).await, expected, "{head} {body}");
                }
                moves.after().await
            })
        },
    },
    Case {
        action: "the store is killed, and an event is published",
        series: &[
            (r#"tidings_events_published_total{api="native",outcome="unavailable"}"#, By(1.0)),
            (r#"tidings_requests_total{route="/topics/{topic}",method="POST",status="5xx"}"#, By(1.0)),
        ],
        run: |mut moves| {
            Box::pin(async move {
                let mut server = RedisServer::start().await.unwrap();
                let hub = Hub::serve(&["--store", &server.url()]).await.unwrap();
                moves.before(hub.address()).await;
                server.kill().await.unwrap();
                assert_eq!(status(&hub, "POST /topics/chat", b"x").await, 503);
                moves.after().await
            })
        },
    },
    Case {
        action: "a stream is opened",
        series: &[
            (r#"tidings_streams{transport="http1"}"#, By(1.0)),
            (r#"tidings_streams_opened_total{transport="http1"}"#, By(1.0)),
            ("tidings_streams_max", To(7.0)),
            ("tidings_connections_open", By(1.0)),
            ("tidings_connections_max", To(9.0)),
            ("process_open_fds", Up),
        ],
        run: |mut moves| {
            Box::pin(async move {
                let hub = Hub::serve(&["--streams-max", "7", "--connections-max", "9"]).await.unwrap();
                moves.before(hub.address()).await;
                let _stream = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
                moves.after().await
            })
        },
    },
    Case {
        action: "a stream ends with its client",
        series: &[
            (r#"tidings_streams{transport="http1"}"#, By(-1.0)),
            ("tidings_connections_open", By(-1.0)),
            (r#"tidings_streams_closed_total{reason="client"}"#, By(1.0)),
        ],
        run: |mut moves| {
            Box::pin(async move {
                let hub = Hub::serve(&[]).await.unwrap();
                let stream = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
                moves.before(hub.address()).await;
                drop(stream);
                moves.after().await
            })
        },
    },
    Case {
        action: "streams beyond the limit are rejected",
        series: &[(r#"tidings_streams_rejected_total{reason="full"}"#, By(2.0))],
        run: |mut moves| {
            Box::pin(async move {
                let hub = Hub::serve(&["--streams-max", "1"]).await.unwrap();
                let _stream = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
                moves.before(hub.address()).await;
                assert_eq!(status(&hub, "GET /stream?topic=chat", b"").await, 503);
                assert_eq!(status(&hub, NATIVE, b"").await, 200);
                moves.after().await
            })
        },
    },
    Case {
        action: "credentials are missing, malformed, unknown and not enough",
        series: &[
            (r#"tidings_authentication_failures_total{reason="missing"}"#, By(1.0)),
            (r#"tidings_authentication_failures_total{reason="invalid_request"}"#, By(1.0)),
            (r#"tidings_authentication_failures_total{reason="invalid_token"}"#, By(1.0)),
            (r#"tidings_authentication_failures_total{reason="insufficient_scope"}"#, By(1.0)),
        ],
        run: |mut moves| {
            Box::pin(async move {
                let folder = tempfile::tempdir().unwrap();
                let hub = with_key(folder.path()).await;
                let operator = format!("Authorization: Bearer {KEY}");
                moves.before_as(hub.address(), &operator).await;
                for (fields, expected) in [
                    (String::new(), 401),
                    ("\nAuthorization: Bearer ".to_owned(), 400),
                    ("\nAuthorization: Bearer tk_an-unknown-key-of-good-length".to_owned(), 401),
                    (format!("\n{operator}"), 403),
                ] {
                    let head = format!("POST /topics/chat{fields}");
                    assert_eq!(status(&hub, &head, b"x").await, expected, "{head}");
                }
                moves.after().await
            })
        },
    },
    Case {
        action: "an application grants a stream",
        series: &[
            (r#"tidings_authorizations_total{outcome="subscribed"}"#, By(1.0)),
            (r#"tidings_requests_total{route="/stream",method="GET",status="2xx"}"#, By(1.0)),
        ],
        run: |mut moves| {
            Box::pin(async move {
                let (_application, hub) = asked(Reply::subscribe("topic=chat")).await;
                moves.before(hub.address()).await;
                let _stream = EventStream::open(hub.address(), "/stream").await.unwrap();
                moves.after().await
            })
        },
    },
    Case {
        action: "an application that is asked about a stream fails",
        series: &[
            (r#"tidings_authorizations_total{outcome="failed"}"#, By(1.0)),
            (r#"tidings_streams_rejected_total{reason="application"}"#, By(1.0)),
        ],
        run: |mut moves| {
            Box::pin(async move {
                let (_application, hub) = asked(Reply::Close(String::new())).await;
                moves.before(hub.address()).await;
                assert_eq!(status(&hub, "GET /stream", b"").await, 502);
                moves.after().await
            })
        },
    },
    Case {
        action: "the application behind the hub answers",
        series: &[
            (r#"tidings_upstream_requests_total{outcome="answered"}"#, By(1.0)),
            (r#"tidings_requests_total{route="upstream",method="GET",status="4xx"}"#, By(1.0)),
            ("tidings_upstream_request_duration_seconds_count", By(1.0)),
            ("tidings_upstream_request_duration_seconds_sum", Up),
            ("tidings_upstream_up", To(1.0)),
        ],
        run: |mut moves| {
            Box::pin(async move {
                let application = Application::start(|_| Reply::with("404 Not Found", "", "")).await.unwrap();
                let hub = before_application(&application.url(""), &[]).await;
                moves.before(hub.admin_addresses()[0].parse().unwrap()).await;
                assert_eq!(status(&hub, "GET /a/path", b"").await, 404);
                moves.after().await
            })
        },
    },
    Case {
        action: "the application behind the hub is down",
        series: &[
            (r#"tidings_upstream_requests_total{outcome="failed"}"#, By(1.0)),
            (r#"tidings_requests_total{route="upstream",method="GET",status="5xx"}"#, By(1.0)),
            ("tidings_upstream_up", To(0.0)),
        ],
        run: |mut moves| {
            Box::pin(async move {
                let port = Port::reserve().unwrap();
                let url = format!("http://127.0.0.1:{}", port.number());
                let hub = before_application(&url, &["--upstream-wait-secs", "1"]).await;
                moves.before(hub.admin_addresses()[0].parse().unwrap()).await;
                assert_eq!(status(&hub, "GET /a/path", b"").await, 502);
                moves.after().await
            })
        },
    },
    Case {
        action: "a connection is malformed",
        series: &[(r#"tidings_connections_refused_total{reason="malformed"}"#, By(1.0))],
        run: |mut moves| {
            Box::pin(async move {
                let hub = Hub::serve(&[]).await.unwrap();
                moves.before(hub.address()).await;
                let mut malformed = Connection::open(hub.address()).await.unwrap();
                malformed.send("GET\r\n\r\n").await.unwrap();
                malformed.rest().await.unwrap();
                moves.after().await
            })
        },
    },
    Case {
        action: "there are too many connections",
        series: &[(r#"tidings_connections_refused_total{reason="full"}"#, Up)],
        run: |mut moves| {
            Box::pin(async move {
                let hub = Hub::serve(&["--connections-max", "2", "--streams-max", "1"]).await.unwrap();
                moves.before(hub.address()).await;
                let _stream = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
                let head = "POST /topics/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n";
                let mut unfinished = Vec::new();
                for _ in 0..5 {
                    let mut connection = Connection::open(hub.address()).await.unwrap();
                    connection.send(head).await.unwrap();
                    unfinished.push(connection);
                }
                moves.after().await
            })
        },
    },
    Case {
        action: "a connection is idle for too long",
        series: &[("tidings_connections_idle_closed_total", By(1.0))],
        run: |mut moves| {
            Box::pin(async move {
                let hub = Hub::serve(&["--keep-alive-secs", "1"]).await.unwrap();
                moves.before(hub.address()).await;
                let mut connection = Connection::open(hub.address()).await.unwrap();
                connection.request("GET /healthz", b"").await.unwrap();
                connection.response().await.unwrap();
                let after = moves.after().await;
                drop(connection);
                after
            })
        },
    },
    Case {
        action: "a client does not read a large response",
        series: &[("tidings_responses_cut_total", By(1.0))],
        run: |mut moves| {
            Box::pin(async move {
                let hub = Hub::serve(&["--response-secs", "1"]).await.unwrap();
                for _ in 0..20 {
                    hub.publish("chat", "x".repeat(500_000)).await.unwrap();
                }
                moves.before(hub.address()).await;
                let mut frozen = Connection::open_narrow(hub.address(), 4 * 1024).await.unwrap();
                frozen.request("GET /topics/chat\nAccept: application/json", b"").await.unwrap();
                moves.after().await
            })
        },
    },
    Case {
        action: "the hub works",
        series: &[
            ("process_cpu_seconds_total", Up),
            ("process_resident_memory_bytes", Up),
            ("process_virtual_memory_bytes", Up),
            ("process_max_fds", To(300.0)),
        ],
        run: |mut moves| {
            Box::pin(async move {
                let hub = Hub::serve(&[]).await.unwrap();
                moves.before(hub.address()).await;
                let pid = Pid::from_raw(hub.pid().unwrap().cast_signed());
                let files = Rlimit { current: Some(300), maximum: Some(300) };
                prlimit(pid, Resource::Nofile, files).unwrap();
                for _ in 0..40 {
                    hub.publish("chat", "x".repeat(1_000_000)).await.unwrap();
                }
                moves.after().await
            })
        },
    },
];
