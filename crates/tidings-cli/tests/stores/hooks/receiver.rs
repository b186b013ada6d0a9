//! An application that receives hooks, and can fail at it in several ways.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use tidings::log::Cursor;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Longer than a hub takes to notice that another one has died, and to take over.
pub(crate) const TAKEOVER: Duration = Duration::from_secs(90);

/// How the receiver treats messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Accept,
    /// Accepts connections and closes them at once.
    Down,
    /// Processes a message, and answers 500.
    Fail,
    /// Processes a message, and answers late.
    Slow,
    /// Answers with a redirect to the same place.
    Redirect,
}

/// A change that was received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) topic: String,
    pub(crate) label: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    /// Each the first time that it was received.
    events: Vec<Event>,
    ids: HashSet<String>,
    /// Changes that were received again.
    repeats: usize,
    messages: usize,
}

#[derive(Debug)]
struct Shared {
    mode: Mutex<Mode>,
    state: watch::Sender<State>,
}

/// Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { mode: Mutex::new(Mode::Accept), state: watch::Sender::default() });
        let serving = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&shared)));
                }
            }
        });
        Self { address, shared, serving }
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// The lines of a configuration file with a hook that is sent here.
    pub(crate) fn hook(&self, more: &str) -> String {
        format!(
            "[[hook]]\nurl = \"http://{}/hook\"\nsecret = \"{SECRET}\"\nallow_http = true\nallow_private = true\n{more}\n",
            self.address
        )
    }

    /// What was received so far, without repeats.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.shared.state.borrow().events.clone()
    }

    pub(crate) fn messages(&self) -> usize {
        self.shared.state.borrow().messages
    }

    pub(crate) fn repeats(&self) -> usize {
        self.shared.state.borrow().repeats
    }

    /// Waits until this was received.
    pub(crate) async fn has(&self, kind: &str, label: Option<&str>) {
        let is_it = |event: &Event| event.kind == kind && event.label.as_deref() == label;
        self.waits(&format!("{kind} of {label:?}"), |events| events.iter().any(is_it)).await;
    }

    /// Waits until what was received fulfils a condition.
    pub(crate) async fn waits(&self, what: &str, condition: impl Fn(&[Event]) -> bool) {
        let mut state = self.shared.state.subscribe();
        let waited = timeout(TAKEOVER, state.wait_for(|state| condition(&state.events))).await;
        assert!(waited.is_ok(), "waited for {what}; received {:#?}", self.events());
    }

    /// Checks what was received: of each member, comings and leavings alternate, and the changes of a
    /// topic came in their order. Returns who is still present.
    pub(crate) fn check(&self) -> HashSet<(String, Option<String>)> {
        let mut present = HashSet::new();
        let mut last = BTreeMap::new();
        for event in self.events() {
            let member = (event.topic.clone(), event.label.clone());
            let is_coming = ["presence.joined", "topic.occupied"].contains(&event.kind.as_str());
            let alternates = if is_coming { present.insert(member) } else { present.remove(&member) };
            assert!(alternates, "{event:?} is received twice, or without its opposite: {:#?}", self.events());
            let position = Cursor::parse(&event.id).unwrap().position;
            let before = last.insert(event.topic.clone(), position);
            assert!(before.is_none_or(|before| before < position), "{event:?} is out of order");
        }
        present
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut received = Vec::new();
    loop {
        let mode = *shared.mode.lock().unwrap();
        if mode == Mode::Down {
            return;
        }
        let end = loop {
            if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if !matches!(stream.read_buf(&mut received).await, Ok(count) if count > 0) {
                return;
            }
        };
        let head = String::from_utf8(received[..end].to_vec()).unwrap();
        let length: usize = field(&head, "content-length").parse().unwrap();
        while received.len() < end + length {
            if !matches!(stream.read_buf(&mut received).await, Ok(count) if count > 0) {
                return;
            }
        }
        let body = String::from_utf8(received[end..end + length].to_vec()).unwrap();
        received.drain(..end + length);
        // As it is when the message has arrived.
        let mode = *shared.mode.lock().unwrap();
        if mode == Mode::Down {
            return;
        }
        verify(&head, &body);
        let answer = match mode {
            Mode::Accept | Mode::Slow => "204 No Content\r\n",
            Mode::Redirect => "307 Temporary Redirect\r\nlocation: /hook\r\ncontent-length: 0\r\n",
            _ => "500 Internal Server Error\r\ncontent-length: 0\r\n",
        };
        if mode != Mode::Redirect {
            shared.state.send_modify(|state| state.process(&body));
        }
        if mode == Mode::Slow {
            sleep(Duration::from_millis(300)).await;
        }
        if stream.write_all(format!("HTTP/1.1 {answer}\r\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

fn field<'a>(head: &'a str, name: &str) -> &'a str {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).next().unwrap()
}

/// Standard Webhooks, "Signature scheme".
fn verify(head: &str, body: &str) {
    let secret = BASE64_STANDARD.decode(SECRET.trim_start_matches("whsec_")).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    let signed = format!("{}.{}.{body}", field(head, "webhook-id"), field(head, "webhook-timestamp"));
    let signature = field(head, "webhook-signature").strip_prefix("v1,").unwrap();
    let signature = BASE64_STANDARD.decode(signature).unwrap();
    hmac::verify(&key, signed.as_bytes(), &signature).expect("the signature is valid");
}

impl State {
    fn process(&mut self, body: &str) {
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["type"], "presence.changed");
        self.messages += 1;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        for event in body["data"]["events"].as_array().unwrap() {
            let event = Event {
                id: text(&event["id"]),
                kind: text(&event["type"]),
                topic: text(&event["topic"]),
                label: event["label"].as_str().map(str::to_owned),
            };
            if self.ids.insert(event.id.clone()) {
                self.events.push(event);
            } else {
                self.repeats += 1;
            }
        }
    }
}
