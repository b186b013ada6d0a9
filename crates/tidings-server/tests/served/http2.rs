//! Streams and publications over HTTP/2: responses do not depend on the HTTP version.

use std::{collections::HashMap, net::Shutdown, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidings::NewEvent;
use tidings_server::{Applications, AuthorizedPath, ConnectionSettings, RequestBody, Settings};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    served_support::{self, Served},
    support::{self, Answer, HUB, within},
};

/// One connection, with many concurrent requests.
struct Client {
    sender: SendRequest<Full<Bytes>>,
    connection: JoinHandle<hyper::Result<()>>,
    socket: std::net::TcpStream,
}

impl Client {
    async fn connect(served: &Served) -> Self {
        let socket = TcpStream::connect(served.address).await.expect("the server listens");
        let socket = socket.into_std().expect("a socket");
        let io = TcpStream::from_std(socket.try_clone().expect("a descriptor")).expect("a socket");
        let (sender, connection) =
            within(handshake(TokioExecutor::new(), TokioIo::new(io))).await.expect("an HTTP/2 handshake");
        Self { sender, connection: tokio::spawn(connection), socket }
    }

    /// Closes the connection abruptly.
    fn cut(&self) {
        self.socket.shutdown(Shutdown::Both).expect("it is connected");
    }

    async fn send(
        &mut self,
        method: &Method,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response<Incoming> {
        let host = headers.iter().find(|(name, _)| *name == "host").map_or("localhost", |(_, host)| *host);
        let mut request = Request::builder().method(method).uri(format!("http://{host}{target}"));
        for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned())).expect("a valid request");
        within(self.sender.send_request(request)).await.expect("an answer")
    }

    /// A request with a finite response.
    async fn ask(&mut self, method: &Method, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let (parts, body) = self.send(method, target, headers, body).await.into_parts();
        let body = within(body.collect()).await.expect("a complete body").to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(body.into()).expect("text"),
        }
    }

    async fn stream(&mut self, target: &str, headers: &[(&str, &str)]) -> Stream {
        let response = self.send(&Method::GET, target, headers, "").await;
        assert_eq!(response.status(), StatusCode::OK);
        let (parts, body) = response.into_parts();
        assert_eq!(parts.headers[header::CONTENT_TYPE], "text/event-stream");
        Stream { headers: parts.headers, body, read: String::new() }
    }
}

struct Stream {
    headers: HeaderMap,
    body: Incoming,
    read: String,
}

impl Stream {
    /// Reads until this text has arrived.
    async fn until(&mut self, text: &str) -> String {
        within(async {
            loop {
                if let Some(found) = self.read.find(text) {
                    let rest = self.read.split_off(found + text.len());
                    return std::mem::replace(&mut self.read, rest);
                }
                let frame = self.body.frame().await;
                let frame =
                    frame.unwrap_or_else(|| panic!("the stream ended before {text:?}: {}", self.read));
                let data = frame.expect("no error").into_data().expect("no trailers");
                self.read.push_str(str::from_utf8(&data).expect("text"));
            }
        })
        .await
    }

    /// Id and data of the next event.
    async fn event(&mut self) -> (String, String) {
        let block = self.until("\n\n").await;
        let field =
            |name| block.lines().find_map(|line: &str| line.strip_prefix(name)).expect("a field").to_owned();
        (field("id: "), field("data: "))
    }
}

async fn served(settings: Settings) -> Served {
    Served::start_with(settings, ConnectionSettings::default()).await
}

#[tokio::test]
async fn the_two_printed_commands_work_together() {
    let served = served(Settings::default()).await;
    let mut client = Client::connect(&served).await;
    let mut stream = client.stream("/stream?topic=chat", &[("accept", "*/*")]).await;
    stream.until("retry: ").await;
    assert!(
        !stream.headers.contains_key("transfer-encoding") && !stream.headers.contains_key("content-length")
    );
    assert!(stream.headers.contains_key("date"));
    let answer = client.ask(&Method::POST, "/topics/chat", &[], "hello").await.ok();
    assert!(answer.json()["id"].is_string());
    stream.until("data: hello\n\n").await;
}

/// Method, target, headers and body.
type Ask<'a> = (Method, &'a str, &'a [(&'a str, &'a str)], &'a str);

/// Everything except what depends on the version or on the time.
fn comparable(mut answer: Answer) -> (StatusCode, Vec<(String, String)>, String) {
    for name in ["connection", "transfer-encoding", "date"] {
        answer.headers.remove(name);
    }
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()))
        .collect();
    headers.sort();
    (answer.status, headers, answer.body)
}

#[tokio::test]
async fn responses_are_equal_to_those_of_http_1() {
    let mut settings = Settings::default();
    settings.body_bytes_max = 1_000;
    let served = served(settings).await;
    served.hub.publish(NewEvent::new("chat", "hello")).await.expect("published");
    let mut client = Client::connect(&served).await;
    let preflight = [("access-control-request-method", "POST")];
    let from = |origin| [("origin", origin), preflight[0]];
    let large = "x".repeat(1_001);
    let cases: &[Ask<'_>] = &[
        (Method::GET, "/healthz", &[], ""),
        (Method::GET, "/", &[("accept", "text/html")], ""),
        (Method::HEAD, "/", &[("accept", "text/html")], ""),
        (Method::GET, "/assets/tidings.css", &[], ""),
        (Method::GET, "/topics/chat", &[("accept", "application/json")], ""),
        (Method::HEAD, "/topics/chat", &[("accept", "application/json")], ""),
        (Method::HEAD, "/stream?topic=chat", &[], ""),
        (Method::GET, "/stream", &[], ""),
        (Method::GET, "/nowhere", &[], ""),
        (Method::DELETE, "/healthz", &[], ""),
        (Method::POST, "/topics/", &[], "x"),
        (Method::POST, "/topics", &[], "no json"),
        (Method::POST, "/topics/chat?type=tidings", &[], "x"),
        (Method::POST, "/topics/chat", &[], &large),
        (Method::POST, "/topics/chat", &[("origin", "http://evil.example")], "x"),
        (Method::OPTIONS, "/topics/chat", &from("http://localhost:5173"), ""),
        (Method::OPTIONS, "/topics/chat", &from("http://evil.example"), ""),
        (Method::GET, "/metrics", &[("host", "evil.example")], ""),
        (Method::GET, HUB, &[], ""),
        (Method::POST, HUB, &[("content-type", "application/x-www-form-urlencoded")], "data=without+a+topic"),
        (Method::POST, HUB, &[("content-type", "text/plain")], "x"),
    ];
    for (method, target, headers, body) in cases {
        let mut lines =
            format!("{method} {target} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        if headers.iter().all(|(name, _)| *name != "host") {
            lines.push_str("Host: localhost\r\n");
        }
        for (name, value) in *headers {
            lines += &[name, ": ", value, "\r\n"].concat();
        }
        let first = served.ask(format!("{lines}\r\n{body}")).await;
        let second = client.ask(method, target, headers, body).await;
        assert_eq!(comparable(second), comparable(first), "{method} {target} {headers:?}");
    }
}

#[tokio::test]
async fn streams_of_one_connection_each_receive_their_events_in_order() {
    const STREAMS: usize = 100;
    const TOPICS: usize = 10;
    const EVENTS: usize = 200;
    let served = served(Settings::default()).await;
    let mut client = Client::connect(&served).await;
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        let mut stream = client.stream(&format!("/stream?topic=t{}", number % TOPICS), &[]).await;
        stream.until("retry: ").await;
        stream.until("\n").await;
        streams.push(stream);
    }
    assert_eq!(served.hub.stats().subscribers, STREAMS);
    for number in 0..EVENTS {
        let event = NewEvent::new(format!("t{}", number % TOPICS), number.to_string());
        served.hub.publish(event).await.expect("published");
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        for round in 0..EVENTS / TOPICS {
            let (_, data) = stream.event().await;
            assert_eq!(data, (number % TOPICS + round * TOPICS).to_string(), "stream {number}");
        }
    }
}

#[tokio::test]
async fn a_finite_read_ends_its_stream() {
    let served = served(Settings::default()).await;
    let mut client = Client::connect(&served).await;
    for number in ["1", "2"] {
        client.ask(&Method::POST, "/topics/chat", &[], number).await.ok();
    }
    for target in ["/topics/chat?since=earliest&until=now", "/stream?topic=chat&since=-2&until=now"] {
        let answer = client.ask(&Method::GET, target, &[], "").await.ok();
        let (one, two) =
            (answer.body.find("data: 1\n").expect("1"), answer.body.find("data: 2\n").expect("2"));
        let end = answer.body.find("data: {\"kind\":\"end\"}\n\n").expect("a notice");
        assert!(one < two && two < end, "{answer:?}");
    }
}

#[tokio::test]
async fn a_query_with_its_parameters_in_the_body_is_a_stream() {
    let served = served(Settings::default()).await;
    let mut client = Client::connect(&served).await;
    for (target, content_type, body) in [
        ("/stream", "application/json", r#"{"topic":"chat"}"#),
        (HUB, "application/x-www-form-urlencoded", "match=chat"),
    ] {
        let response = client.send(&Method::QUERY, target, &[("content-type", content_type)], body).await;
        assert_eq!(response.status(), StatusCode::OK);
        let (parts, body) = response.into_parts();
        let mut stream = Stream { headers: parts.headers, body, read: String::new() };
        stream.until("retry: ").await;
        served.hub.publish(NewEvent::new("chat", "hello")).await.expect("published");
        stream.until("data: hello\n\n").await;
    }
}

#[tokio::test]
async fn reconnect_with_the_last_id_loses_and_repeats_no_event() {
    const EVENTS: usize = 500;
    let served = served(Settings::default()).await;
    let hub = served.hub.clone();
    let publisher = tokio::spawn(async move {
        for number in 0..EVENTS {
            hub.publish(NewEvent::new("chat", number.to_string())).await.expect("published");
            tokio::task::yield_now().await;
        }
    });
    let mut last_id = None::<String>;
    let mut next = 0;
    while next < EVENTS {
        let mut client = Client::connect(&served).await;
        let since = last_id.as_ref().map(|id| ("last-event-id", id.as_str()));
        let target = if since.is_some() { "/stream?topic=chat" } else { "/stream?topic=chat&since=earliest" };
        let mut stream = client.stream(target, since.as_slice()).await;
        stream.until("retry: ").await;
        stream.until("\n").await;
        // Each connection lasts for a different number of events.
        for _ in 0..=next % 37 {
            let (id, data) = stream.event().await;
            assert_eq!(data, next.to_string());
            next += 1;
            last_id = Some(id);
            if next == EVENTS {
                break;
            }
        }
        // Some connections are cut, others reset their stream first.
        if next % 2 == 0 {
            client.cut();
        }
    }
    publisher.await.expect("no panic");
    served.all_have_left().await;
}

#[tokio::test]
async fn a_reset_ends_one_stream_and_a_closed_connection_ends_all() {
    let served = served(Settings::default()).await;
    let mut client = Client::connect(&served).await;
    let mut stream = client.stream("/stream?topic=chat", &[]).await;
    stream.until("retry: ").await;
    drop(stream);
    served.all_have_left().await;
    client.ask(&Method::GET, "/healthz", &[], "").await.ok();

    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(client.stream("/stream?topic=chat", &[]).await);
    }
    assert_eq!(served.hub.stats().subscribers, 20);
    client.cut();
    served.all_have_left().await;
}

/// A request that is cancelled while an application is asked about it cancels the question, too.
#[tokio::test]
async fn a_request_that_is_cancelled_is_not_waited_for_by_an_application() {
    let application = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", application.local_addr().expect("it is bound"));
    let mut settings = Settings::default();
    let path = AuthorizedPath::new("/stream", &url).expect("valid").with_time(Duration::from_secs(600));
    settings.authorize = Applications::new(&[path], 1);
    let served = served(settings).await;
    for cut_connection in [false, true] {
        let client = Client::connect(&served).await;
        let request = Request::get("http://localhost/stream").body(Full::default()).expect("valid");
        let mut sender = client.sender.clone();
        let asking = tokio::spawn(async move { sender.send_request(request).await });
        let (mut question, _) = within(application.accept()).await.expect("the only permit is free");
        if cut_connection {
            client.cut();
        } else {
            asking.abort();
        }
        let mut received = Vec::new();
        within(question.read_to_end(&mut received)).await.expect("the question is withdrawn");
        assert!(received.starts_with(b"GET / HTTP/1.1\r\n"));
    }
}

#[tokio::test]
async fn a_hub_that_closes_sends_a_notice_and_ends_streams_cleanly() {
    let mut served = served(Settings::default()).await;
    let mut client = Client::connect(&served).await;
    let mut stream = client.stream("/stream?topic=chat", &[]).await;
    stream.until("retry: ").await;
    served.hub.close();
    drop(served.stop.take());
    let rest = stream.until("\"kind\":\"reconnect\"").await;
    assert!(rest.contains("event: tidings\n"), "{rest}");
    stream.until("\n\n").await;
    let rest = within(stream.body.collect()).await.expect("a proper end").to_bytes();
    assert!(rest.is_empty(), "{rest:?}");
    within(&mut served.server).await.expect("no panic");
    within(client.connection).await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn a_stream_beyond_the_limit_is_shed_as_over_http_1() {
    let mut settings = Settings::default();
    settings.streams_max = 1;
    let served = served(settings).await;
    let mut client = Client::connect(&served).await;
    let mut stream = client.stream("/stream?topic=chat", &[]).await;
    stream.until("retry: ").await;
    let refused = client.ask(&Method::GET, "/stream?topic=chat", &[], "").await;
    refused.refused(503);
    assert!(refused.headers.contains_key("retry-after"));
    let browser = [("accept", "text/event-stream"), ("cache-control", "no-cache")];
    let reported = client.ask(&Method::GET, "/stream?topic=chat", &browser, "").await.ok();
    assert!(
        reported.body.contains("\nretry: ") && !reported.headers.contains_key("connection"),
        "{reported:?}"
    );
}

#[tokio::test]
async fn a_connection_beyond_the_capacity_is_rejected_and_ends() {
    let connections = ConnectionSettings { connections_max: 1, ..ConnectionSettings::default() };
    let served = Served::start_with(Settings::default(), connections).await;
    let mut client = Client::connect(&served).await;
    let mut stream = client.stream("/stream?topic=chat", &[]).await;
    stream.until("retry: ").await;
    for (target, status) in [("/topics/chat", 503), ("/healthz", 200)] {
        let mut late = Client::connect(&served).await;
        let answer = late.ask(&Method::GET, target, &[], "").await;
        assert_eq!(answer.status, status, "{target}");
        within(late.connection).await.expect("no panic").expect("a clean end");
    }
}

#[tokio::test]
async fn a_connection_with_many_streams_counts_once() {
    let served = served(Settings::default()).await;
    let mut client = Client::connect(&served).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(client.stream("/stream?topic=chat", &[]).await);
    }
    let metrics = client.ask(&Method::GET, "/metrics", &[], "").await.ok().body;
    let samples: HashMap<_, _> = metrics.lines().filter_map(|line| line.rsplit_once(' ')).collect();
    assert_eq!(samples["tidings_connections_open"], "1");
    assert_eq!(samples["tidings_streams_opened_total{transport=\"http2\"}"], "10");
    assert_eq!(samples["tidings_requests_total{route=\"/stream\",method=\"GET\",status=\"2xx\"}"], "10");
    assert_eq!(samples["tidings_connections_refused_total{reason=\"flood\"}"], "0");
}

/// RFC 9110, 9.3.7.
#[tokio::test]
async fn options_of_the_server_as_a_whole_is_204_over_both_versions() {
    let served = served(Settings::default()).await;
    let mut client = Client::connect(&served).await;
    let ask = Request::options("*").header("host", "localhost").body(Full::default()).expect("a request");
    let answer = within(client.sender.send_request(ask)).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    let mut first = served.send("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    served_support::lines_until(&mut first, "HTTP/1.1 204 No Content").await;
}

/// RFC 9113, 8.2.3: browsers send each cookie in a separate field.
#[tokio::test]
async fn cookies_in_several_fields_are_one_header() {
    let hub = support::hub().await;
    let connections = ConnectionSettings::default();
    let served = Served::start_service(hub, Settings::default(), connections, |_| {
        tower::service_fn(async |request: Request<RequestBody>| {
            let cookies = request.headers().get_all(header::COOKIE).iter();
            let cookies: Vec<_> = cookies.map(|value| value.to_str().expect("text").to_owned()).collect();
            Ok(Response::new(Body::from(cookies.join("|"))))
        })
    });
    let mut client = Client::connect(&served).await;
    let answer =
        client.ask(&Method::GET, "/", &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")], "");
    assert_eq!(answer.await.ok().body, "a=1; b=2; c=3");
}

#[tokio::test]
async fn a_stream_changes_its_topics_over_the_connection_that_it_shares() {
    let served = served(Settings::default()).await;
    let mut client = Client::connect(&served).await;
    let mut stream = client.stream("/stream?topic=a&hello=true", &[]).await;
    let (_, hello) = stream.event().await;
    let hello: serde_json::Value = serde_json::from_str(&hello).expect("JSON");
    let target = format!("/connections/{}", hello["connection"].as_str().expect("a connection"));
    let headers = [("content-type", "application/json")];
    for (add, remove, expected) in [("b", "a", "b"), ("a", "x", "a"), ("c", "b", "c")] {
        let body = serde_json::json!({ "add": add, "remove": remove, "secret": hello["secret"] });
        client.ask(&Method::PATCH, &target, &headers, &body.to_string()).await.ok();
        for topic in ["x", expected] {
            served.hub.publish(NewEvent::new(topic, topic)).await.expect("published");
        }
        assert_eq!(stream.event().await.1, expected);
    }
    let stranger = serde_json::json!({ "add": "x", "secret": "0" });
    let refused = client.ask(&Method::PATCH, &target, &headers, &stranger.to_string()).await;
    refused.refused(403);
}
