//! The commands together, over real sockets: a hub, and the clients that a new user tries first.

use std::{
    fs,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tidings_testkit::{EventStream, Hub, PATIENCE};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
    time::timeout,
};

/// A command with an empty environment.
fn tidings(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.args(args).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

/// Publishes with the command, and returns the id that it printed.
async fn publish(hub: &Hub, args: &[&str]) -> String {
    let output = tidings(&[&["publish", "--url", &hub.url("")], args].concat()).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// A running `tidings subscribe`.
struct Subscriber {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Subscriber {
    fn start(hub: &Hub, args: &[&str]) -> Self {
        let mut child = tidings(&[&["subscribe", "--url", &hub.url("")], args].concat()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, stdout, stderr }
    }

    /// Starts one that prints JSON, and waits until it is connected.
    async fn json(hub: &Hub, args: &[&str]) -> Self {
        let mut subscriber = Self::start(hub, &[args, &["--json"]].concat());
        assert_eq!(subscriber.value().await["kind"], "hello");
        subscriber
    }

    async fn line(&mut self) -> String {
        timeout(PATIENCE, self.stdout.next_line()).await.unwrap().unwrap().expect("the output continues")
    }

    async fn value(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    /// Waits for a line on standard error that contains this.
    async fn says(&mut self, part: &str) -> String {
        loop {
            let line = timeout(PATIENCE, self.stderr.next_line()).await.expect(part).unwrap().expect(part);
            if line.contains(part) {
                return line;
            }
        }
    }

    async fn exit_code(&mut self) -> Option<i32> {
        timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap().code()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

#[tokio::test]
async fn published_events_are_printed() {
    let hub = Hub::serve(&[]).await.unwrap();
    let mut subscriber = Subscriber::json(&hub, &["chat"]).await;
    let id = publish(&hub, &["chat", "hello", "--type", "greeting"]).await;
    let event = subscriber.value().await;
    assert_eq!(event["id"], *id);
    assert_eq!(
        (&event["topic"], &event["type"], &event["data"]),
        (&"chat".into(), &"greeting".into(), &"hello".into())
    );

    let mut piped = tidings(&["publish", "chat", "--id", "mine", "--url", &hub.url("")])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    piped.stdin.take().unwrap().write_all("two\nlines é\n".as_bytes()).await.unwrap();
    assert!(piped.wait().await.unwrap().success());
    let event = subscriber.value().await;
    assert_eq!((&event["id"], &event["data"]), (&"mine".into(), &"two\nlines é".into()));

    publish(&hub, &["chat", "", "--allow-empty"]).await;
    assert_eq!(subscriber.value().await["data"], "");

    assert_eq!(publish(&hub, &["chat", "typing", "--ephemeral"]).await, "", "it has no id");
    assert_eq!(subscriber.value().await["data"], "typing");

    let again = ["chat", "once", "--idempotency-key", "k-1"];
    let first = publish(&hub, &again).await;
    assert_eq!(publish(&hub, &again).await, first);
    let printed = publish(&hub, &[&again[..], &["--json"]].concat()).await;
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(printed, serde_json::json!({ "id": first, "duplicate": true }));
    assert_eq!(subscriber.value().await["data"], "once");

    let mut late = Subscriber::start(&hub, &["chat", "--since", "-3"]);
    for expected in ["two", "lines é", "", "once"] {
        assert_eq!(late.line().await, expected);
    }
}

#[tokio::test]
async fn a_stream_without_parameters_subscribes_to_the_default_topics() {
    let hub = Hub::serve(&["--stream", "news"]).await.unwrap();
    let mut subscriber = Subscriber::json(&hub, &[]).await;
    publish(&hub, &["other", "no"]).await;
    publish(&hub, &["news", "yes"]).await;
    assert_eq!(subscriber.value().await["data"], "yes");
}

#[tokio::test]
async fn a_subscriber_survives_a_restart_and_gets_a_gap_notice() {
    let mut hub = Hub::serve(&["--retry-millis", "200"]).await.unwrap();
    let mut text = Subscriber::start(&hub, &["chat", "--since", "earliest"]);
    let mut json = Subscriber::json(&hub, &["chat"]).await;
    publish(&hub, &["chat", "before"]).await;
    assert_eq!(text.line().await, "before");
    assert_eq!(json.value().await["data"], "before");

    hub.kill().await.unwrap();
    text.says("next attempt in").await;
    hub.start_again().await.unwrap();
    text.says("gap: events are missing").await;
    let gap = json.value().await;
    assert_eq!((&gap["kind"], &gap["reason"]), (&"gap".into(), &"other-log".into()));
    publish(&hub, &["chat", "after"]).await;
    assert_eq!(text.line().await, "after");
}

#[tokio::test]
async fn a_hub_that_stops_notifies_subscribers_and_exits_cleanly() {
    let mut hub = Hub::serve(&[]).await.unwrap();
    let mut subscriber = Subscriber::json(&hub, &["chat"]).await;
    let status = hub.stop().await.unwrap();
    assert!(status.success(), "{status}");
    let notice = subscriber.value().await;
    assert_eq!((&notice["kind"], &notice["reason"]), (&"reconnect".into(), &"shutdown".into()));
    subscriber.says("next attempt in").await;
}

#[tokio::test]
async fn control_c_ends_a_subscriber_cleanly() {
    let hub = Hub::serve(&[]).await.unwrap();
    let mut subscriber = Subscriber::json(&hub, &["chat"]).await;
    // A signal for a hub, sent to every process of this name.
    subscriber.signal(Signal::USR2);
    publish(&hub, &["chat", "still here"]).await;
    assert_eq!(subscriber.value().await["data"], "still here");
    subscriber.signal(Signal::INT);
    assert_eq!(subscriber.exit_code().await, Some(0));
    assert_eq!(subscriber.stderr.next_line().await.unwrap(), None);
}

/// `tidings subscribe … | head -2`: on a quiet topic no write fails when the reader has exited.
#[tokio::test]
async fn a_closed_output_ends_a_subscriber_without_another_event() {
    let hub = Hub::serve(&[]).await.unwrap();
    let subscriber = Subscriber::json(&hub, &["chat"]).await;
    let Subscriber { mut child, stdout, mut stderr } = subscriber;
    drop(stdout);
    let status = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(stderr.next_line().await.unwrap(), None);

    // The output may also be a socket, as under inetd or with the pipes of some languages.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = tidings(&["subscribe", "--url", &hub.url(""), "--json", "chat"]);
    let mut child = command.stdout(OwnedFd::from(theirs)).spawn().unwrap();
    drop(command);
    ours.set_nonblocking(true).unwrap();
    let mut lines = BufReader::new(tokio::net::UnixStream::from_std(ours).unwrap()).lines();
    assert!(timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap().contains("hello"));
    drop(lines);
    let status = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}

/// A result that cannot be written is a failure. The messages of a hub are not results
/// (`output.rs`).
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_result_that_cannot_be_written_is_an_error() {
    let hub = Hub::serve(&[]).await.unwrap();
    let url = hub.url("");
    publish(&hub, &["chat", "x"]).await;
    for args in [
        &["publish", "chat", "x", "--url", &url][..],
        &["subscribe", "chat", "--since", "earliest", "--url", &url],
        &["key", "new"],
        &["serve", "--check"],
        &["--help"],
        &["--version"],
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        // `output` would capture standard output.
        let child = tidings(args).stdout(full).spawn().unwrap();
        let output = timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
        let line = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?} {line}");
        assert!(line.contains("cannot write to standard output: "), "{args:?} {line}");
        // The id shows a caller that a retry would publish twice.
        assert_eq!(line.contains("published as #"), args[0] == "publish", "{args:?} {line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
}

#[tokio::test]
async fn an_invalid_log_filter_is_reported() {
    let mut hub = Hub::not_started(["serve"]).unwrap().with_environment("RUST_LOG", "tidings=loud");
    hub.start_again().await.unwrap();
    hub.printed("RUST_LOG is ignored").await.unwrap();
}

#[tokio::test]
async fn failed_credentials_are_counted_in_the_log_and_never_shown() {
    const WRONG: u64 = 50;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("t.toml");
    let key = "[[key]]\nname = \"app\"\nsecret = \"0123456789abcdef0123456789abcdef\"\npublish = [\"*\"]\n";
    fs::write(&config, key).unwrap();
    let args = ["--config", config.to_str().unwrap(), "--log", "json"];
    let mut hub = Hub::serve(&args).await.unwrap();
    for number in 0..WRONG {
        let request = format!("POST /topics/chat\nAuthorization: Bearer wrong-{number}");
        assert_eq!(hub.request(&request, b"x").await.unwrap().status, 401);
    }
    assert_eq!(hub.request("POST /topics/chat", b"x").await.unwrap().status, 401);
    // The first one is logged at once.
    hub.printed("credentials were refused").await.unwrap();
    let mut output = hub.watch_output().unwrap();
    assert!(hub.stop().await.unwrap().success());
    while output.changed().await.is_ok() {}
    let output = output.borrow().clone();
    let lines: Vec<Value> = output.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    let lines: Vec<&Value> = lines
        .iter()
        .map(|line| &line["fields"])
        .filter(|fields| fields["message"].as_str().unwrap().contains("credentials were refused"))
        .collect();
    assert_eq!(lines.iter().map(|fields| fields["count"].as_u64().unwrap()).sum::<u64>(), WRONG + 1);
    let [first, .., last] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(first["reasons"], "invalid_token=1");
    assert!(last["reasons"].as_str().unwrap().contains("missing=1"), "{last}");
    assert_eq!(last["client"], "127.0.0.1", "{last}");
    assert!(!output.join("\n").contains("wrong-"), "{output:?}");
}

#[tokio::test]
async fn verbose_prints_each_event_on_one_line() {
    let mut hub = Hub::serve(&["-v"]).await.unwrap();
    publish(&hub, &["chat", "two\nlines\u{1b}[2J", "--type", "x", "--private"]).await;
    assert_eq!(hub.printed("chat (x)").await.unwrap(), "chat (x): two\\nlines\\u{1b}[2J");
}

#[tokio::test]
async fn keys_and_tokens_grant_only_the_topics_they_name() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("t.toml");
    let secret = "0123456789abcdef0123456789abcdef";
    fs::write(
        &config,
        format!(
            "private_topics = [\"user-*\"]\n\
             [[key]]\nname = \"app\"\nsecret = \"key-{secret}\"\npublish = [\"*\"]\n\
             [[issuer]]\niss = \"https://app.example\"\naudience = \"https://hub.example\"\nsecret = \"{secret}\"\n"
        ),
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let mut hub = Hub::serve(&["--config", config, "--verbose"]).await.unwrap();
    hub.printed("credentials=\"configured\"").await.unwrap();

    let mint = ["token", "new", "--config", config, "--subscribe", "user-42"];
    let token = tidings(&mint).output().await.unwrap();
    assert!(token.status.success(), "{}", String::from_utf8_lossy(&token.stderr));
    let token = String::from_utf8(token.stdout).unwrap();

    let mut holder = Subscriber::json(&hub, &["user-42", "news", "--token", token.trim_end()]).await;
    let mut anybody = Subscriber::json(&hub, &["*"]).await;
    for (args, status) in
        [(&["user-42", "news"][..], "401"), (&["user-7", "news", "--token", token.trim_end()], "403")]
    {
        let mut refused = Subscriber::start(&hub, args);
        let line = refused.says(status).await;
        assert!(line.contains("is private"), "{line}");
        assert_eq!(refused.exit_code().await, Some(3));
    }
    let refused = tidings(&["publish", "news", "x", "--url", &hub.url("")]).output().await.unwrap();
    let line = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3));
    assert!(line.contains("401") && line.contains("--token") && line.lines().count() == 1, "{line}");

    let key = format!("key-{secret}");
    for (topic, data) in [("user-7", "not yours"), ("user-42", "yours"), ("news", "public")] {
        publish(&hub, &[topic, data, "--token", &key]).await;
    }
    assert_eq!(holder.value().await["data"], "yours");
    assert_eq!(holder.value().await["data"], "public");
    assert_eq!(anybody.value().await["data"], "public");

    let health = async |url: &str| tidings(&["health", "--url", url]).output().await.unwrap();
    let ready = health(&hub.url("")).await;
    assert_eq!(ready.status.code(), Some(0), "{}", String::from_utf8_lossy(&ready.stderr));
    assert!(String::from_utf8(ready.stdout).unwrap().ends_with(" is ready\n"));
    let unready = health(&hub.url("/nothing")).await;
    let line = String::from_utf8(unready.stderr).unwrap();
    assert_eq!(unready.status.code(), Some(3));
    assert!(
        line.starts_with("error: the hub at http://") && line.contains("is not ready (status 4"),
        "{line}"
    );

    let in_url = hub.url("").replace("http://", &format!("http://:{key}@"));
    let published =
        tidings(&["publish", "news", "by the key of the URL"]).env("TIDINGS_URL", &in_url).output();
    let published = published.await.unwrap();
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    assert_eq!(anybody.value().await["data"], "by the key of the URL");

    for request in [
        format!("GET /stream?topic=news&access_token={key}"),
        format!("GET /.well-known/mercure?match=news&authorization={key}"),
        format!("POST /topics/news?token={key}"),
        format!("GET /stream?topic=news\nCookie: mercureAuthorization={key}"),
        format!("GET /stream?topic=news\nAuthorization: Token {key}"),
        format!("GET /stream?topic=news\nAuthorization: Bearer {key}x"),
    ] {
        let answer = hub.request(&request, b"").await.unwrap();
        assert!(matches!(answer.status, 400 | 401), "{request}: {}", answer.status);
        assert!(!answer.text().contains(secret), "{}", answer.text());
    }

    // The log of a hub names no credential.
    let printed = hub.output().join("\n");
    assert!(!printed.contains(secret) && !printed.contains(token.trim_end()), "{printed}");
}

#[tokio::test]
async fn a_stream_ends_when_its_token_expires() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("t.toml");
    let issuer = "[[issuer]]\niss = \"a\"\naudience = \"https://b.example\"\nsecret = \"0123456789abcdef0123456789abcdef\"";
    fs::write(&config, issuer).unwrap();
    let config = config.to_str().unwrap();
    let hub = Hub::serve(&["--config", config, "--retry-millis", "1000"]).await.unwrap();
    let mint = ["token", "new", "--config", config, "--subscribe", "*", "--expires", "6s"];
    let token = String::from_utf8(tidings(&mint).output().await.unwrap().stdout).unwrap();
    let mut subscriber = Subscriber::json(&hub, &["chat", "--token", token.trim_end()]).await;
    let expiring = subscriber.value().await;
    assert_eq!(expiring["kind"], "expiring");
    assert!(matches!(expiring["remaining_secs"].as_u64(), Some(1..=3)), "{expiring}");
    assert_eq!(subscriber.value().await["kind"], "expired");
    subscriber.says("error: the server answered 401").await;
    assert_eq!(subscriber.exit_code().await, Some(3));
}

#[tokio::test]
async fn topics_are_shown_and_deleted() {
    let hub = Hub::serve(&[]).await.unwrap();
    let url = hub.url("");
    let topics = async |args: &[&str]| {
        let output = tidings(&[&["topics"], args, &["--url", &url]].concat()).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for data in ["one", "two"] {
        publish(&hub, &["a/b c", data]).await;
    }
    let shown = topics(&["show", "a/b c", "empty"]).await;
    for line in ["topic        a/b c", "subscribers  0", "topic        empty", "newest       none"] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in {shown}");
    }
    let shown = topics(&["show", "--json", "a/b c"]).await;
    let summary: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((shown.lines().count(), &summary["events"][1]["data"]), (1, &"two".into()));

    // The cursor is where a subscription continues.
    let mut subscriber =
        Subscriber::json(&hub, &["a/b c", "--since", summary["cursor"].as_str().unwrap()]).await;
    publish(&hub, &["a/b c", "three"]).await;
    assert_eq!(subscriber.value().await["data"], "three");

    assert_eq!(
        topics(&["delete", "a/b c", "empty"]).await,
        "a/b c: 3 events deleted\nempty: 0 events deleted\n"
    );
    publish(&hub, &["a/b c", "four"]).await;
    let deleted: Value = serde_json::from_str(&topics(&["delete", "a/b c", "--json"]).await).unwrap();
    assert_eq!(deleted, serde_json::json!({ "topic": "a/b c", "deleted": 1, "kept": 0 }));
}

/// A server that answers each connection with this status.
async fn server(status: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: 7\r\nConnection: close\r\n\r\nno luck");
            let mut request = BufReader::new(&mut connection).lines();
            while request.next_line().await.is_ok_and(|line| line.is_some_and(|line| !line.is_empty())) {}
            let _ = connection.write_all(answer.as_bytes()).await;
            let _ = connection.shutdown().await;
        }
    });
    url
}

#[tokio::test]
async fn exit_codes_tell_a_refusal_from_a_hub_that_cannot_answer() {
    for (status, code) in
        [("400 X", 3), ("404 X", 3), ("413 X", 3), ("429 X", 4), ("408 X", 4), ("500 X", 4), ("503 X", 4)]
    {
        let url = server(status).await;
        for args in [
            &["publish", "a", "b"][..],
            &["publish", "a", "b", "--json"],
            &["topics", "show", "a"],
            &["topics", "delete", "a"],
            &["health"],
        ] {
            let output = tidings(&[args, &["--url", &url]].concat()).output().await.unwrap();
            let line = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(code), "{args:?} {status} {line}");
            assert!(line.starts_with("error: ") && line.lines().count() == 1, "{line}");
            assert!(
                line.contains(&status[..3]) && line.contains("no luck") && output.stdout.is_empty(),
                "{line}"
            );
        }
    }
}

#[tokio::test]
async fn the_demo_is_the_chat_of_the_old_answer() {
    let mut hub = Hub::start(["demo"]).await.unwrap();
    hub.printed(&format!("curl -d message=hello {}", hub.url("/post"))).await.unwrap();
    let mut stream = EventStream::open(hub.address(), "/stream").await.unwrap();
    let form = "POST /post\nContent-Type: application/x-www-form-urlencoded";
    let answer = hub.request(form, b"message=hello").await.unwrap();
    assert_eq!(answer.status, 204, "{}", answer.text());
    loop {
        let event = timeout(Duration::from_secs(30), stream.next()).await.unwrap().unwrap();
        if event.event_type == "message" {
            assert!(event.data.ends_with("] anonymous: hello"), "{}", event.data);
            break;
        }
    }
}

#[tokio::test]
async fn an_inherited_socket_overrides_the_address_with_a_warning() {
    let mut hub = Hub::serve(&["--listen", "127.0.0.1:9"]).await.unwrap();
    hub.printed("has no effect").await.unwrap();
}
