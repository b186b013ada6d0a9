//! The client against scripted servers, over real connections.

use std::{future::Future, net::SocketAddr, time::Duration};

use futures_util::StreamExt;
use tidings_client::{Client, ClientError, ClientEvent, Publish, Subscribe, Subscription, Token};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

/// How long anything here may take before the test fails; no test depends on it being short.
const PATIENCE: Duration = Duration::from_secs(30);

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

/// A server on a free port that sees one request per connection.
struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

/// A request as received: the headers, and as much of a body as they announce.
struct Request {
    text: String,
    connection: TcpStream,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn client(&self) -> Client {
        Client::new(&self.url(""), Some(Token::new("secret").unwrap())).unwrap()
    }

    fn subscribe(&self) -> Subscription {
        self.client().subscribe(&Subscribe::new().topic("a b")).unwrap()
    }

    async fn request(&self) -> Request {
        let (mut connection, _) = patiently(self.listener.accept()).await.unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(patiently(connection.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(bytes).unwrap();
        let length = header_of(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        patiently(connection.read_exact(&mut body)).await.unwrap();
        Request { text: head + std::str::from_utf8(&body).unwrap(), connection }
    }
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        header_of(&self.text, name)
    }

    fn line(&self) -> &str {
        self.text.lines().next().unwrap()
    }

    /// Answers, and closes the connection.
    async fn answer(mut self, answer: &str) {
        self.connection.write_all(answer.as_bytes()).await.unwrap();
        self.connection.shutdown().await.unwrap();
    }

    async fn redirect(self, status: u16, location: &str) {
        self.answer(&format!("HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"))
            .await;
    }
}

fn header_of<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case(wanted).then_some(value)
    })
}

async fn patiently<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("nothing arrived in time")
}

async fn next(subscription: &mut Subscription) -> Option<Result<ClientEvent, ClientError>> {
    patiently(subscription.next()).await
}

/// The data of the next messages, whatever arrives between them.
async fn data(subscription: &mut Subscription, count: usize) -> Vec<String> {
    let mut messages = Vec::new();
    while messages.len() < count {
        if let ClientEvent::Message(message) = next(subscription).await.unwrap().unwrap() {
            messages.push(message.data);
        }
    }
    messages
}

/// The error that ends the subscription.
async fn fatal(subscription: &mut Subscription) -> ClientError {
    let error = next(subscription).await.unwrap().unwrap_err();
    assert!(next(subscription).await.is_none(), "an error is the last item");
    error
}

#[tokio::test]
async fn a_subscription_sends_its_parameters() {
    let server = Server::start().await;
    let subscribe = Subscribe::new().topic("a/b&c").topic("é").pattern("/x/:y").since("-50").json();
    let mut subscription = server.client().subscribe(&subscribe).unwrap();
    let (request, _) =
        tokio::join!(server.request(), timeout(Duration::from_secs(1), next(&mut subscription)));
    assert_eq!(
        request.line(),
        "GET /stream?topic=a%2Fb%26c&topic=%C3%A9&pattern=%2Fx%2F%3Ay&since=-50&format=json&hello=true HTTP/1.1"
    );
    // A hub takes other headers for those of a browser, and hides errors from it.
    assert_eq!(request.header("accept"), Some("text/event-stream, application/problem+json;q=0.9"));
    assert_eq!(request.header("cache-control"), Some("no-cache"));
    assert_eq!(request.header("authorization"), Some("Bearer secret"));
    assert_eq!(request.header("last-event-id"), None);
}

#[tokio::test]
async fn resuming_after_a_cut_misses_nothing() {
    let server = Server::start().await;
    let mut subscription = server.subscribe();
    let serve = async {
        let first = server.request().await;
        // Cut in the middle of an event, and of a character.
        let mut bytes = format!("{HEAD}retry: 100\nid: é1\ndata: one\n\nid: é2\ndata: tw").into_bytes();
        bytes.push("é".as_bytes()[0]);
        let mut connection = first.connection;
        connection.write_all(&bytes).await.unwrap();
        drop(connection);
        let second = server.request().await;
        assert_eq!(second.header("last-event-id"), Some("é1"));
        second.answer(&format!("{HEAD}id: é2\ndata: two\n\ndata: three\n\n")).await;
        let third = server.request().await;
        assert_eq!(third.header("last-event-id"), Some("é2"));
        third.answer(&format!("{HEAD}data: four\n\n")).await;
    };
    let ((), received) = tokio::join!(serve, data(&mut subscription, 4));
    assert_eq!(received, ["one", "two", "three", "four"]);
}

#[tokio::test]
async fn a_reset_connection_and_a_broken_chunk_are_reconnected() {
    let server = Server::start().await;
    let mut subscription = server.subscribe();
    let chunked = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let serve = async {
        server.request().await.answer(&format!("{chunked}14\r\nretry: 100\ndata: 1\n\n\r\n14\r\nda")).await;
        drop(server.request().await);
        server.request().await.answer(&format!("{HEAD}data: 2\n\n")).await;
    };
    let ((), received) = tokio::join!(serve, data(&mut subscription, 2));
    assert_eq!(received, ["1", "2"]);
}

#[tokio::test]
async fn an_unavailable_server_is_retried() {
    let server = Server::start().await;
    let mut subscription = server.subscribe();
    let serve = async {
        let problem = r#"{"title":"Service Unavailable","detail":"the hub is full"}"#;
        let length = problem.len();
        let busy = format!("HTTP/1.1 503 X\r\nRetry-After: 0\r\nContent-Length: {length}\r\n\r\n{problem}");
        server.request().await.answer(&busy).await;
        server.request().await.answer("HTTP/1.1 429 X\r\nContent-Length: 0\r\n\r\n").await;
        server.request().await.answer(&format!("{HEAD}data: 1\n\n")).await;
    };
    let received = async {
        let Some(Ok(ClientEvent::Waiting { reason, .. })) = next(&mut subscription).await else {
            panic!("the first answer is a reason to wait")
        };
        assert_eq!(reason.to_string(), "the server answered 503: the hub is full");
        data(&mut subscription, 1).await
    };
    assert_eq!(tokio::join!(serve, received).1, ["1"]);
}

#[tokio::test]
async fn a_refused_connection_is_tried_again() {
    // A socket that has its address and does not listen yet.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let client = Client::new(&format!("http://{address}"), None).unwrap();
    let mut subscription = client.subscribe(&Subscribe::new()).unwrap();
    let Some(Ok(ClientEvent::Waiting { reason, .. })) = next(&mut subscription).await else {
        panic!("nothing listens there")
    };
    assert!(reason.to_string().starts_with(&format!("cannot reach http://{address}: ")), "{reason}");
    let server = Server { listener: socket.listen(8).unwrap(), address };
    let serve = async { server.request().await.answer(&format!("{HEAD}data: 1\n\n")).await };
    assert_eq!(tokio::join!(serve, data(&mut subscription, 1)).1, ["1"]);
}

#[tokio::test]
async fn a_refusal_is_final_and_gives_the_reason() {
    let server = Server::start().await;
    let mut subscription = server.subscribe();
    let serve = async {
        let problem = r#"{"detail":"the token expired"}"#;
        let length = problem.len();
        server
            .request()
            .await
            .answer(&format!("HTTP/1.1 401 X\r\nContent-Length: {length}\r\n\r\n{problem}"))
            .await;
    };
    let ((), error) = tokio::join!(serve, fatal(&mut subscription));
    assert_eq!(error.status(), Some(401));
    assert_eq!(error.to_string(), "the server answered 401: the token expired");
}

#[tokio::test]
async fn an_answer_that_is_no_event_stream_is_final() {
    for head in ["200 OK\r\nContent-Type: text/html", "200 OK", "205 X\r\nContent-Type: text/event-stream"] {
        let server = Server::start().await;
        let mut subscription = server.subscribe();
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n");
        let ((), error) =
            tokio::join!(async { server.request().await.answer(&answer).await }, fatal(&mut subscription));
        assert!(matches!(error, ClientError::NotEventStream { .. }), "{head}: {error}");
    }
}

#[tokio::test]
async fn a_204_stops_the_client() {
    let server = Server::start().await;
    let mut subscription = server.subscribe();
    let serve = async { server.request().await.answer("HTTP/1.1 204 No Content\r\n\r\n").await };
    assert!(tokio::join!(serve, next(&mut subscription)).1.is_none());
}

#[tokio::test]
async fn the_token_does_not_follow_a_redirect_to_another_origin() {
    let home = Server::start().await;
    let stranger = Server::start().await;
    let mut subscription = home.subscribe();
    let serve = async {
        let request = home.request().await;
        assert!(request.header("authorization").is_some());
        request.redirect(307, "/elsewhere").await;
        let request = home.request().await;
        assert_eq!(request.line(), "GET /elsewhere HTTP/1.1");
        assert!(request.header("authorization").is_some(), "the same origin gets it");
        // Credentials in the target are not sent either.
        request.redirect(302, &stranger.url("/a").replace("//", "//user:password@")).await;
        let request = stranger.request().await;
        assert_eq!(request.header("authorization"), None);
        request.redirect(301, &home.url("/b")).await;
        let request = home.request().await;
        assert_eq!(request.header("authorization"), None, "another origin chose this URL");
        request.answer(&format!("{HEAD}retry: 100\ndata: 1\n\n")).await;
        // Every reconnect starts at the original URL.
        let request = home.request().await;
        assert_eq!(request.line(), "GET /stream?topic=a+b&hello=true HTTP/1.1");
        assert!(request.header("authorization").is_some());
        request.answer(&format!("{HEAD}data: 2\n\n")).await;
    };
    assert_eq!(tokio::join!(serve, data(&mut subscription, 2)).1, ["1", "2"]);
}

#[tokio::test]
async fn a_redirect_loop_or_one_away_from_http_is_final() {
    let server = Server::start().await;
    let mut subscription = server.subscribe();
    let serve = async {
        for _ in 0..=10 {
            server.request().await.redirect(308, "/again").await;
        }
    };
    let ((), error) = tokio::join!(serve, fatal(&mut subscription));
    assert!(matches!(error, ClientError::Redirect { .. }), "{error}");

    let mut subscription = server.subscribe();
    let serve = async { server.request().await.redirect(302, "file:///etc/passwd").await };
    let ((), error) = tokio::join!(serve, fatal(&mut subscription));
    assert_eq!(
        error.to_string(),
        "the redirect to file:///etc/passwd is not followed: it leads away from HTTP"
    );
}

#[tokio::test]
async fn a_publication_is_one_post_with_its_data_verbatim() {
    let server = Server::start().await;
    let options = Publish::new()
        .event_type("note")
        .id("a&b")
        .retry_millis(1500)
        .private()
        .except("c-1")
        .idempotency_key("k-1");
    let client = server.client();
    let serve = async {
        let request = server.request().await;
        assert_eq!(
            request.line(),
            "POST /topics/a%2Fb%20%C3%A9?type=note&id=a%26b&retry=1500&private=true&except=c-1 HTTP/1.1"
        );
        assert_eq!(request.header("authorization"), Some("Bearer secret"));
        assert_eq!(request.header("idempotency-key"), Some("k-1"));
        assert!(request.text.ends_with("\r\n\r\n two\r\nlines\n"), "{:?}", request.text);
        let reply = r##"{"id":"#a.1","duplicate":true,"later":7}"##;
        request.answer(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{reply}", reply.len())).await;
    };
    let (published, ()) = tokio::join!(client.publish("a/b é", " two\r\nlines\n", &options), serve);
    let published = published.unwrap();
    assert_eq!((published.id.as_deref(), published.duplicate), (Some("#a.1"), true));
}

#[tokio::test]
async fn a_failed_publication_gives_the_reason_and_is_not_repeated() {
    let answers = [
        ("403 X\r\nContent-Length: 2\r\n\r\nno", "the server answered 403: no"),
        ("503 X\r\nContent-Length: 0\r\n\r\n", "the server answered 503: Service Unavailable"),
        (
            "200 OK\r\nContent-Length: 2\r\n\r\nok",
            "the server accepted the request, but its answer cannot be read: is the URL that of a hub?",
        ),
        (
            "302 X\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n",
            "the redirect to /b is not followed: a publication would be lost on the way; give the URL that it leads to",
        ),
    ];
    for (answer, expected) in answers {
        let server = Server::start().await;
        let client = server.client();
        let options = Publish::new();
        let answer = format!("HTTP/1.1 {answer}");
        let ((), published) = tokio::join!(
            async { server.request().await.answer(&answer).await },
            client.publish("a", "b", &options)
        );
        assert_eq!(published.unwrap_err().to_string(), expected);
    }
}

#[tokio::test]
async fn a_publication_with_a_key_is_repeated_until_its_outcome_is_known() {
    let server = Server::start().await;
    let client = server.client();
    let options = Publish::new().idempotency_key("k-1");
    let serve = async {
        drop(server.request().await);
        for status in ["503", "502"] {
            let busy = format!("HTTP/1.1 {status} X\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n");
            server.request().await.answer(&busy).await;
        }
        let request = server.request().await;
        assert_eq!(request.header("idempotency-key"), Some("k-1"));
        assert!(request.text.ends_with("\r\n\r\ndata"));
        let reply = r#"{"id":"1","duplicate":true}"#;
        request.answer(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{reply}", reply.len())).await;
    };
    let (published, ()) =
        patiently(async { tokio::join!(client.publish("a", "data", &options), serve) }).await;
    assert!(published.unwrap().duplicate);
}

#[tokio::test]
async fn a_publication_with_a_key_is_not_repeated_after_a_final_error() {
    for (status, retry_after, attempts) in
        [("403", "0", 1), ("507", "0", 1), ("503", "3600", 1), ("503", "0", 4)]
    {
        let server = Server::start().await;
        let client = server.client();
        let options = Publish::new().idempotency_key("k-1");
        let serve = async {
            for _ in 0..attempts {
                let answer =
                    format!("HTTP/1.1 {status} X\r\nRetry-After: {retry_after}\r\nContent-Length: 0\r\n\r\n");
                server.request().await.answer(&answer).await;
            }
        };
        let (published, ()) = tokio::join!(client.publish("a", "b", &options), serve);
        assert_eq!(published.unwrap_err().status(), Some(status.parse().unwrap()));
    }
}

#[tokio::test]
async fn an_ephemeral_event_has_no_id() {
    let server = Server::start().await;
    let client = server.client();
    let options = Publish::new().ephemeral();
    let serve = async {
        let request = server.request().await;
        assert_eq!(request.line(), "POST /topics/a?ephemeral=true HTTP/1.1");
        request.answer("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"id\":null}").await;
    };
    let (published, ()) = tokio::join!(client.publish("a", "data", &options), serve);
    assert_eq!(published.unwrap().id, None);
}

#[tokio::test]
async fn a_redirected_publication_is_sent_again_completely() {
    let server = Server::start().await;
    let client = server.client();
    let options = Publish::new();
    let serve = async {
        server.request().await.redirect(308, "/topics/b").await;
        let request = server.request().await;
        assert!(request.line().starts_with("POST /topics/b "));
        assert!(request.text.ends_with("\r\n\r\ndata"));
        request.answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"id\":\"1\"}").await;
    };
    let (published, ()) = tokio::join!(client.publish("a", "data", &options), serve);
    assert_eq!(published.unwrap().id.as_deref(), Some("1"));
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let server = Server::start().await;
    let client = server.client();
    let options = Publish::new();
    let serve = async {
        let mut connection = server.request().await.connection;
        connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while connection.write_all(&[b' '; 8192]).await.is_ok() {}
    };
    let (published, ()) =
        patiently(async { tokio::join!(client.publish("a", "data", &options), serve) }).await;
    assert!(matches!(published, Err(ClientError::UnreadableReply)));
}
