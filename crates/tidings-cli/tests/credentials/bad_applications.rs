//! An application that decides about streams and hangs, lies or floods: its clients are refused in
//! time, and nobody else notices.

use std::fs;

use futures_util::future::join_all;
use tidings_testkit::{Application, Connection, EventStream, Hub, Reply, Response};

/// Streams that may wait for the application, and as many clients that ask for one at a time: a
/// permit that is not given back refuses one of the next.
const REQUESTS_MAX: usize = 4;
/// Events of others meanwhile.
const PUBLICATIONS: usize = 20;
/// More than the answers to all of them may take together, in kB.
const MEMORY_MAX_KB: u64 = 64 * 1024;

/// As much as the hub reads at a time.
const FLOOD_BYTES: usize = 32 * 1024;

const LATE: u16 = 504;
const BROKEN: u16 = 502;

const SUBSCRIBE: &str = "HTTP/1.1 200 OK\r\nTidings-Subscribe: topic=chat\r\nContent-Length: 0\r\n\r\n";

/// What is wrong with an application, and what its clients may get.
fn faults() -> Vec<(&'static str, Reply, u16)> {
    let bytes = |text: &str| Reply::Bytes(text.to_owned());
    let flood = |first: &str, further: &str| {
        Reply::Flood(first.to_owned(), further.repeat(FLOOD_BYTES / further.len()))
    };
    let refused =
        |length: usize, body: &str| format!("HTTP/1.1 403 No\r\nContent-Length: {length}\r\n\r\n{body}");
    let chunks = "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = "x".repeat(1_000);
    let redirect = "HTTP/1.1 302 Found\r\nLocation: /stream?0\r\nContent-Length: 0\r\n\r\n";
    let two_lengths = "HTTP/1.1 403 No\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx";
    vec![
        ("is silent", Reply::Hang(String::new()), LATE),
        ("stops in the headers", Reply::Hang("HTTP/1.1 200 OK\r\nX-App: ".to_owned()), LATE),
        ("stops in the body", Reply::Hang(refused(9, "begun")), LATE),
        ("drips headers", Reply::Drip(format!("HTTP/1.1 200 OK\r\nX-App: {long}")), LATE),
        ("drips a body", Reply::Drip(refused(1_000, &long)), LATE),
        ("drips interim responses", Reply::Drip("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100)), LATE),
        ("has endless headers", flood("HTTP/1.1 200 OK\r\n", "X-App: 1\r\n"), BROKEN),
        ("has an endless header", flood("HTTP/1.1 200 OK\r\nX-App: ", &long), BROKEN),
        ("has an endless status line", flood("HTTP/1.1 200 ", &long), BROKEN),
        ("has an endless body", flood("HTTP/1.1 403 No\r\n\r\n", &long), BROKEN),
        ("has endless chunks", flood(chunks, &format!("3e8\r\n{long}\r\n")), BROKEN),
        ("has endless trailers", flood(&format!("{chunks}0\r\n"), "X-App: 1\r\n"), BROKEN),
        ("has endless interim responses", flood("", "HTTP/1.1 103 Early Hints\r\n\r\n"), BROKEN),
        ("has endless 100 Continue", flood("", "HTTP/1.1 100 Continue\r\n\r\n"), BROKEN),
        ("speaks another protocol", Reply::Hang("SSH-2.0-OpenSSH_9.2\r\n".to_owned()), BROKEN),
        ("has no status", Reply::Hang("HTTP/1.1\r\n\r\n".to_owned()), BROKEN),
        ("sends zeros", flood("", "\0"), BROKEN),
        ("switches protocols", bytes("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), BROKEN),
        ("has two lengths", bytes(two_lengths), BROKEN),
        ("has a negative length", bytes("HTTP/1.1 403 No\r\nContent-Length: -1\r\n\r\n"), BROKEN),
        ("closes at once", Reply::Close(String::new()), BROKEN),
        ("closes in the headers", Reply::Close("HTTP/1.1 200 OK\r\nContent-Le".to_owned()), BROKEN),
        ("closes in the body", Reply::Close(refused(9, "begun")), BROKEN),
        // What is behind a response is not that to the next request.
        ("has more than its length", bytes(&(refused(3, "no!") + SUBSCRIBE)), 403),
        ("redirects", bytes(redirect), 302),
        ("grants a megabyte", Reply::subscribe(&format!("topic={}", "x".repeat(1 << 20))), BROKEN),
        ("grants nonsense", Reply::subscribe("\u{1F600};;=&&%00"), BROKEN),
        (
            "grants and never ends",
            flood("HTTP/1.1 200 OK\r\nTidings-Subscribe: topic=chat\r\n\r\n", &long),
            200,
        ),
    ]
}

fn memory_max_kb(hub: &Hub) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", hub.pid().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A hub that asks this application, and a stream of its own.
struct Asking {
    hub: Hub,
    other: EventStream,
    memory_kb: u64,
}

impl Asking {
    async fn start(application: &Application, secs: &str) -> Self {
        let max = REQUESTS_MAX.to_string();
        let url = application.url("/stream");
        let args = ["--authorize", &url, "--authorize-secs", secs, "--authorize-requests-max", &max];
        let hub = Hub::serve(&args).await.unwrap();
        let other = EventStream::open(hub.address(), "/topics/chat").await.unwrap();
        Self { memory_kb: memory_max_kb(&hub), hub, other }
    }

    /// As many clients as may wait ask for a stream at the same time.
    async fn ask(&self, query: usize) -> Vec<Connection> {
        join_all((0..REQUESTS_MAX).map(async |_| {
            let mut connection = Connection::open(self.hub.address()).await.unwrap();
            connection.request(&format!("GET /stream?{query}"), b"").await.unwrap();
            connection
        }))
        .await
    }

    async fn others_are_served(&mut self, text: &str) {
        for _ in 0..PUBLICATIONS {
            self.hub.publish("chat", text).await.unwrap();
            assert_eq!(self.other.messages(1).await.unwrap(), [text]);
        }
    }
}

async fn answers(clients: Vec<Connection>) -> Vec<Response> {
    join_all(clients.into_iter().map(async |mut client| client.head().await.unwrap())).await
}

#[tokio::test]
async fn an_application_that_hangs_lies_or_floods_affects_no_other_client() {
    let replies = faults();
    let application = Application::start(move |request| {
        let number: usize = request.split(['?', ' ']).nth(2).unwrap().parse().unwrap();
        replies.get(number).map_or_else(|| Reply::Bytes(SUBSCRIBE.to_owned()), |fault| fault.1.clone())
    });
    let application = application.await.unwrap();
    let mut hasty = Asking::start(&application, "1").await;
    let mut patient = Asking::start(&application, "20").await;
    for (number, (fault, _, expected)) in faults().into_iter().enumerate() {
        let asking = if expected == LATE { &mut hasty } else { &mut patient };
        let clients = asking.ask(number).await;
        asking.others_are_served(fault).await;
        for response in answers(clients).await {
            assert_eq!(response.status, expected, "{fault}: {response}");
            let is_asked_to_return = response.header("retry-after").is_some();
            assert!(expected != LATE || is_asked_to_return, "{fault}: {response}");
        }
    }
    for asking in [&hasty, &patient] {
        let memory_kb = memory_max_kb(&asking.hub) - asking.memory_kb;
        assert!(memory_kb < MEMORY_MAX_KB, "{memory_kb} kB");
        for response in answers(asking.ask(usize::MAX).await).await {
            assert_eq!(response.status, 200, "every permit was given back: {response}");
        }
    }
}
