//! `tidings publish --lines` and `--ndjson`: standard input, published line by line.

use std::{process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tidings_testkit::{EventStream, Hub, PATIENCE};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// A running `tidings publish` whose standard input is open.
struct Publisher {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Publisher {
    fn start(url: &str, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidings"))
            .args([&["publish", "--url", url], args].concat())
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { stdin: child.stdin.take(), child, stdout }
    }

    async fn write(&mut self, input: impl AsRef<[u8]>) {
        self.stdin.as_mut().unwrap().write_all(input.as_ref()).await.unwrap();
    }

    async fn line(&mut self) -> String {
        timeout(PATIENCE, self.stdout.next_line()).await.unwrap().unwrap().expect("the output continues")
    }

    async fn value(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    /// Ends the input and returns the exit code, what it printed until then, and the error.
    async fn end(mut self) -> (Option<i32>, Vec<String>, String) {
        self.stdin = None;
        self.exit().await
    }

    async fn exit(mut self) -> (Option<i32>, Vec<String>, String) {
        let mut printed = Vec::new();
        while let Some(line) = timeout(PATIENCE, self.stdout.next_line()).await.unwrap().unwrap() {
            printed.push(line);
        }
        let mut error = String::new();
        timeout(PATIENCE, self.child.stderr.take().unwrap().read_to_string(&mut error))
            .await
            .unwrap()
            .unwrap();
        let status = timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        (status.code(), printed, error.trim_end().to_owned())
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

/// The data of all events of a topic, from the hub's summary, which has the newest 50.
async fn history(hub: &Hub, topic: &str) -> Vec<String> {
    let request = format!("GET /topics/{topic}\nAccept: application/json");
    let summary = hub.request(&request, b"").await.unwrap();
    let summary: Value = serde_json::from_str(&summary.text()).unwrap();
    summary["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["data"].as_str().unwrap().to_owned())
        .collect()
}

/// Nothing but the line before makes the next one arrive: a line waits neither for the end of the
/// input nor for a full batch.
#[tokio::test]
async fn each_line_is_published_when_it_arrives() {
    let hub = Hub::serve(&[]).await.unwrap();
    let mut stream = EventStream::open(hub.address(), "/stream?topic=logs").await.unwrap();
    let mut publisher = Publisher::start(&hub.url(""), &["logs", "--lines", "--type", "line"]);
    for text in ["one", "two é", " three "] {
        publisher.write(format!("{text}\n")).await;
        let id = publisher.line().await;
        let event = stream.next().await.unwrap();
        assert_eq!((&*event.last_event_id, &*event.data, &*event.event_type), (&*id, text, "line"));
    }
    // The last line may lack its end, and \r\n is one.
    publisher.write("\r\nfour\r\n\nfive").await;
    let (code, printed, error) = publisher.end().await;
    assert_eq!((code, printed.len(), &*error), (Some(0), 2, ""));
    assert_eq!(history(&hub, "logs").await, ["one", "two é", " three ", "four", "five"]);
}

#[tokio::test]
async fn many_lines_arrive_complete_and_in_order() {
    let hub = Hub::serve(&["--retain-bytes", "64MiB"]).await.unwrap();
    let mut stream = EventStream::open(hub.address(), "/stream?topic=logs").await.unwrap();
    let mut publisher = Publisher::start(&hub.url(""), &["logs", "--lines", "--json"]);
    let count = 5_000_u64;
    let input = (1..=count).map(|number| number.to_string()).collect::<Vec<_>>().join("\n");
    let mut stdin = publisher.stdin.take().unwrap();
    let writer = tokio::spawn(async move { stdin.write_all(input.as_bytes()).await.unwrap() });
    for number in 1..=count {
        let answer = publisher.value().await;
        assert_eq!((&answer["line"], &answer["duplicate"]), (&json!(number), &json!(false)));
        let event = stream.next().await.unwrap();
        let id = answer["id"].as_str().unwrap();
        assert_eq!((&*event.data, &*event.last_event_id), (&*number.to_string(), id));
    }
    writer.await.unwrap();
    assert_eq!(publisher.exit().await.0, Some(0));
}

#[tokio::test]
async fn ndjson_lines_say_everything_about_their_events() {
    let hub = Hub::serve(&[]).await.unwrap();
    let mut stream = EventStream::open(hub.address(), "/stream?topic=a&topic=b&format=json").await.unwrap();
    let mut publisher = Publisher::start(&hub.url(""), &["--ndjson", "--json"]);
    publisher
        .write("{\"topic\":\"a\",\"data\":{\"n\": 1},\"id\":\"mine\"}\n \n{\"topic\":\"b\",\"data\":\"typing\",\"ephemeral\":true}\n")
        .await;
    assert_eq!(publisher.value().await, json!({ "line": 1, "id": "mine", "duplicate": false }));
    assert_eq!(publisher.value().await, json!({ "line": 3, "id": null, "duplicate": false }));
    for (topic, data) in [("a", "{\"n\":1}"), ("b", "typing")] {
        let event: Value = serde_json::from_str(&stream.next().await.unwrap().data).unwrap();
        assert_eq!((&event["topic"], &event["data"]), (&json!(topic), &json!(data)));
    }
    assert_eq!(publisher.end().await, (Some(0), vec![], String::new()));
}

/// What is published before an error does not depend on what shared a request with the line.
#[tokio::test]
async fn an_error_names_its_line_and_all_lines_before_it_are_published() {
    let hub = Hub::serve(&["--body-bytes-max", "2KiB"]).await.unwrap();
    let url = hub.url("");
    for (topic, args, input, code, parts) in [
        (
            "json",
            &["--ndjson"][..],
            &b"{\"topic\":\"json\",\"data\":\"1\"}\n\n{\"topic\":\"json\",\"data\":\"2\"}\n{\"topic\":\"json\"}\n{\"topic\":\"json\",\"data\":\"no\"}\n"[..],
            3,
            &["line 4: the server answered 400: ", "data", "2 events were published before"][..],
        ),
        ("text", &["text", "--lines"], b"1\n2\n\xff\nno\n", 1, &["line 3 ", "UTF-8", "2 events were"]),
        ("first", &["first", "--lines"], b"\xff\nno\n", 1, &["line 1 ", "nothing was published before"]),
        (
            "large",
            &["large", "--lines"],
            &[&b"1\n2\n"[..], &[b'x'; 4_000], b"\nno\n"].concat(),
            3,
            &["line 3: ", "413", "2 events were published before"],
        ),
    ] {
        let mut publisher = Publisher::start(&url, args);
        publisher.write(input).await;
        let (exit, printed, error) = publisher.end().await;
        assert_eq!(exit, Some(code), "{error}");
        assert!(error.starts_with("error: ") && error.lines().count() == 1, "{error}");
        assert!(!error.contains("Line 1"), "{error}");
        for part in parts {
            assert!(error.contains(part), "{part} in {error}");
        }
        let expected = if topic == "first" { &[][..] } else { &["1", "2"] };
        assert_eq!(printed.len(), expected.len());
        assert_eq!(history(&hub, topic).await, expected, "{error}");
    }
}

#[tokio::test]
async fn lines_larger_than_a_request_of_several_are_published_one_by_one() {
    let hub = Hub::serve(&["--body-bytes-max", "2KiB", "--batch-events-max", "2"]).await.unwrap();
    let mut publisher = Publisher::start(&hub.url(""), &["logs", "--lines"]);
    let lines: Vec<_> = (0..5).map(|number| number.to_string().repeat(1_000)).collect();
    publisher.write(lines.join("\n")).await;
    let (code, printed, error) = publisher.end().await;
    assert_eq!((code, printed.len(), &*error), (Some(0), 5, ""));
    assert_eq!(history(&hub, "logs").await, lines);
}

#[tokio::test]
async fn without_a_hub_the_exit_code_is_4_and_the_open_lines_are_named() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // Ephemeral events are not sent again.
    let mut publisher = Publisher::start(&format!("http://{closed}"), &["logs", "--lines", "--ephemeral"]);
    publisher.write("1\n2\n").await;
    let (code, _, error) = publisher.end().await;
    assert_eq!(code, Some(4), "{error}");
    assert!(error.contains("; lines 1 to 2 may or may not be published; nothing was"), "{error}");
}

/// A request that is repeated while the hub restarts is published once.
#[tokio::test]
async fn lines_are_published_once_across_a_restart_of_the_hub() {
    let store = tempfile::tempdir().unwrap();
    let mut hub = Hub::serve(&["--store", store.path().to_str().unwrap()]).await.unwrap();
    let mut publisher = Publisher::start(&hub.url(""), &["logs", "--lines"]);
    publisher.write("1\n").await;
    publisher.line().await;
    hub.kill().await.unwrap();
    publisher.write("2\n").await;
    hub.start_again().await.unwrap();
    publisher.line().await;
    publisher.write("3\n").await;
    let (code, _, error) = publisher.end().await;
    assert_eq!((code, &*error), (Some(0), ""));
    assert_eq!(history(&hub, "logs").await, ["1", "2", "3"]);
}

#[tokio::test]
async fn an_interrupt_ends_the_command_after_the_lines_that_it_has_read() {
    let hub = Hub::serve(&[]).await.unwrap();
    for signal in [Signal::INT, Signal::TERM] {
        let mut publisher = Publisher::start(&hub.url(""), &["logs", "--lines"]);
        publisher.write("1\nincomplete").await;
        publisher.line().await;
        publisher.signal(signal);
        assert_eq!(publisher.exit().await, (Some(0), vec![], String::new()));
    }
    assert_eq!(history(&hub, "logs").await, ["1", "1"]);
}

#[tokio::test]
async fn a_second_interrupt_ends_a_command_that_waits_for_the_hub() {
    // It accepts connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut publisher = Publisher::start(&url, &["logs", "--lines"]);
    publisher.write("1\n2\n").await;
    let (mut connection, _) = timeout(PATIENCE, silent.accept()).await.unwrap().unwrap();
    // The request is on its way, so the first interrupt does not end the command.
    timeout(PATIENCE, connection.read_u8()).await.unwrap().unwrap();
    publisher.signal(Signal::INT);
    // Two that arrive together may count as one.
    let ended = timeout(PATIENCE, async {
        while publisher.child.try_wait().unwrap().is_none() {
            publisher.signal(Signal::INT);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    ended.await.unwrap();
    let (code, printed, error) = publisher.exit().await;
    assert_eq!((code, printed.len()), (Some(1), 0));
    assert!(error.contains("interrupted; lines 1 to 2 may or may not be published"), "{error}");
}

#[tokio::test]
async fn a_reader_that_closes_the_output_ends_the_command_with_an_error() {
    let hub = Hub::serve(&[]).await.unwrap();
    let mut publisher = Publisher::start(&hub.url(""), &["logs", "--lines"]);
    publisher.write("1\n").await;
    publisher.line().await;
    let Publisher { child, stdin, stdout } = publisher;
    drop(stdout);
    let mut stdin = stdin.unwrap();
    stdin.write_all(b"2\n").await.unwrap();
    let output = timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("closed by its reader; 2 events were published before"), "{error}");
    assert_eq!(history(&hub, "logs").await, ["1", "2"]);
}

#[tokio::test]
async fn options_that_cannot_be_combined_are_a_usage_error() {
    for args in [
        &["chat", "data", "--lines"][..],
        &["chat", "--lines", "--id", "x"],
        &["chat", "--lines", "--idempotency-key", "x"],
        &["chat", "--ndjson"],
        &["--ndjson", "--type", "x"],
        &["--ndjson", "--lines"],
        &["--lines"],
    ] {
        let (code, _, error) = Publisher::start("http://127.0.0.1:9", args).end().await;
        assert_eq!(code, Some(2), "{args:?}: {error}");
    }
}
