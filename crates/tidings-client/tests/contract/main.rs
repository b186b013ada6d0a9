//! The client against servers that are not ours: those in the standard libraries of Node, Python
//! and Go. `cases.json` says what a server answers and what the client must return for it, grouped
//! as parsing, byte order mark, line ends, comments, payload sizes, HTTP behaviour, reconnection
//! and limits. Three small programs serve the same table.
//!
//! A case is requested at `/RUN/NAME`, where RUN is different for each, and the parameters of the
//! URL choose line ends, the size of chunks, and `{payload}`. The n-th request gets the n-th answer
//! of the table; after the last one a 204 ends the subscription, so that no test waits for
//! something that must not happen.
//!
//! The server of Go is left out where Go is not installed.
//!
//! Needs: node, python3.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tidings_client::{ClientError, ClientEvent, EventSource, Message};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// How long anything here may take before the test fails; no test depends on it being short.
const PATIENCE: Duration = Duration::from_secs(60);
/// Subscriptions at a time.
const CONCURRENT: usize = 24;
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/contract/cases.json");

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    group: String,
    name: String,
    #[serde(default)]
    client: Settings,
    #[serde(default = "once")]
    split: Vec<usize>,
    #[serde(default = "lf")]
    line_end: Vec<String>,
    #[serde(default = "once")]
    payload: Vec<usize>,
    #[serde(rename = "repeats", default)]
    _repeats: bool,
    #[serde(rename = "answers")]
    _answers: Vec<Value>,
    /// What the client returns. Without it the case is the target of a redirect.
    receives: Option<Vec<Value>>,
}

fn once() -> Vec<usize> {
    vec![0]
}

fn lf() -> Vec<String> {
    vec!["lf".to_owned()]
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// A query in place of the parameters.
    query: Option<String>,
    user: Option<String>,
    method: Option<String>,
    headers: BTreeMap<String, String>,
    body: Option<String>,
    last_event_id: String,
    comments: bool,
    event_bytes_max: Option<usize>,
    line_bytes_max: Option<usize>,
    idle_timeout_millis: Option<u64>,
    reconnect_delay_millis: u64,
    /// Restart after this many messages.
    restart_after: Option<usize>,
}

/// A case with one value for each parameter.
struct Run {
    case: Case,
    query: String,
    payload: usize,
}

fn runs() -> Vec<Run> {
    let table = std::fs::read_to_string(TABLE).expect("the table is there");
    let cases: Vec<Case> = serde_json::from_str(&table).expect("the table is valid");
    let mut runs = Vec::new();
    for case in cases.into_iter().filter(|case| case.receives.is_some()) {
        for split in &case.split {
            for line_end in &case.line_end {
                for &payload in &case.payload {
                    let query = format!("split={split}&line_end={line_end}&payload={payload}");
                    let query = case.client.query.clone().unwrap_or(query);
                    runs.push(Run { case: case.clone(), query, payload });
                }
            }
        }
    }
    runs
}

impl Run {
    fn source(&self, port: u16, number: usize) -> EventSource {
        let Settings { user, method, headers, body, .. } = &self.case.client;
        let client = &self.case.client;
        let user = user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let url = format!("http://{user}127.0.0.1:{port}/{number}/{}?{}", self.case.name, self.query);
        let mut source = EventSource::new(url)
            .last_event_id(&client.last_event_id)
            .reconnect_delay(Duration::from_millis(client.reconnect_delay_millis));
        if let Some(method) = method {
            source = source.method(method);
        }
        for (name, value) in headers {
            source = source.header(name, value);
        }
        if let Some(body) = body {
            source = source.body(body.clone());
        }
        if client.comments {
            source = source.comments();
        }
        if let Some(event_bytes_max) = client.event_bytes_max {
            source = source.event_bytes_max(event_bytes_max);
        }
        if let Some(line_bytes_max) = client.line_bytes_max {
            source = source.line_bytes_max(line_bytes_max);
        }
        if let Some(millis) = client.idle_timeout_millis {
            source = source.idle_timeout(Duration::from_millis(millis));
        }
        source
    }

    /// Everything that the client returns, in the form of the table.
    async fn received(&self, port: u16, number: usize) -> Vec<Value> {
        let mut subscription = self.source(port, number).open().expect("the table has valid settings");
        let mut received = Vec::new();
        while let Some(event) = subscription.next().await {
            let value = match event {
                Ok(ClientEvent::Message(message)) => from_message(&message),
                Ok(ClientEvent::Comment(text)) => json!({ "comment": text }),
                // How a stream ends says nothing about its items.
                Ok(ClientEvent::Waiting {
                    reason: ClientError::Ended | ClientError::Connection(_), ..
                }) => {
                    continue;
                }
                Ok(ClientEvent::Waiting { reason, .. }) => json!({ "waiting": name(&reason) }),
                Ok(ClientEvent::Open) => continue,
                Ok(other) => panic!("{other:?} is not in any stream of the table"),
                Err(error) => json!({ "error": name(&error) }),
            };
            received.push(value);
            if Some(received.len()) == self.case.client.restart_after {
                subscription.restart();
            }
        }
        received
    }

    /// What is wrong, if something is.
    async fn failure(&self, port: u16, number: usize) -> Option<String> {
        let run = format!("{}: {}?{}", self.case.group, self.case.name, self.query);
        let expected = self.case.receives.as_ref().expect("only such cases run");
        let Ok(received) = timeout(PATIENCE, self.received(port, number)).await else {
            return Some(format!("{run}: the subscription does not end"));
        };
        let is_right = received.len() == expected.len()
            && received.iter().zip(expected).all(|(received, expected)| self.matches(received, expected));
        let shown: String = format!("{received:?}").chars().take(1000).collect();
        (!is_right).then(|| format!("{run}: received {shown}"))
    }

    fn matches(&self, received: &Value, expected: &Value) -> bool {
        if expected["data"] == "{payload}" {
            return received["data"]
                .as_str()
                .is_some_and(|data| data.len() == self.payload && data.bytes().all(|byte| byte == b'x'));
        }
        match expected["request"].as_object() {
            None => received == expected,
            // Of the headers that a request has, the table names those that matter; null is none.
            Some(request) => {
                received["id"] == expected["id"]
                    && request.iter().all(|(part, expected)| match expected.as_object() {
                        None => received["request"][part] == *expected,
                        Some(headers) => {
                            headers.iter().all(|(name, value)| received["request"][part][name] == *value)
                        }
                    })
            }
        }
    }
}

/// A message without the parts that have their default; of an echoed request, its parts.
fn from_message(message: &Message) -> Value {
    let mut value = match message.event_type.as_str() {
        "request" => json!({ "request": serde_json::from_str::<Value>(&message.data).expect("JSON") }),
        "message" => json!({ "data": message.data }),
        event_type => json!({ "data": message.data, "type": event_type }),
    };
    if !message.id.is_empty() {
        value["id"] = message.id.as_str().into();
    }
    value
}

/// The name of the variant.
fn name(error: &ClientError) -> String {
    format!("{error:?}").split([' ', '(']).next().unwrap_or_default().to_owned()
}

/// Runs the table against a server, which prints its port.
async fn check(program: &str, args: &[&str]) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/contract");
    let mut server: Child = Command::new(program)
        .args(args)
        .arg(TABLE)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program is installed");
    let mut lines = BufReader::new(server.stdout.take().expect("piped")).lines();
    let port = lines.next_line().await.expect("readable").expect("the server prints its port");
    let port: u16 = port.parse().expect("a port");

    let runs = runs();
    assert!(runs.len() > 150, "{}", runs.len());
    let failures: Vec<String> = stream::iter(runs.iter().enumerate())
        .map(|(number, run)| run.failure(port, number))
        .buffer_unordered(CONCURRENT)
        .filter_map(|failure| async { failure })
        .collect()
        .await;
    assert!(failures.is_empty(), "{} of {} fail:\n{}", failures.len(), runs.len(), failures.join("\n"));
    println!("{} cases pass", runs.len());
}

#[tokio::test]
async fn a_server_of_node_is_understood() {
    check("node", &["server.mjs"]).await;
}

#[tokio::test]
async fn a_server_of_python_is_understood() {
    check("python3", &["server.py"]).await;
}

#[tokio::test]
async fn a_server_of_go_is_understood() {
    if Command::new("go").arg("version").output().await.is_err() {
        println!("SKIPPED: go is not installed");
        return;
    }
    check("go", &["run", "server.go"]).await;
}
