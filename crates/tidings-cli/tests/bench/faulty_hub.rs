//! A hub of one topic with one fault, in most cases at the seventh event.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinHandle,
};

const FAULTY_EVENT: usize = 7;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Lose,
    Double,
    /// Sends the next event first.
    Reorder,
    /// Answers 503.
    Refuse,
    /// Ends all streams.
    HangUp,
    /// Sends no further events.
    Silence,
    /// Gives every event an id, and replays nothing to subscribers that resume from one.
    Forget,
}

pub(crate) struct FaultyHub {
    pub(crate) url: String,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    streams: Vec<UnboundedSender<String>>,
    events: usize,
    held: Option<String>,
}

impl FaultyHub {
    pub(crate) async fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let task = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, Arc::clone(&state), fault));
            }
        });
        Self { url, task }
    }
}

impl Drop for FaultyHub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut connection: TcpStream, state: Arc<Mutex<State>>, fault: Fault) -> Option<()> {
    loop {
        let (head, body) = request(&mut connection).await?;
        if head.starts_with("GET ") {
            return stream(connection, &state).await;
        }
        let answer = if state.lock().unwrap().publish(body, fault) { "200 OK" } else { "503 Busy" };
        let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 2\r\n\r\nok");
        connection.write_all(answer.as_bytes()).await.ok()?;
    }
}

async fn stream(mut connection: TcpStream, state: &Mutex<State>) -> Option<()> {
    let (sender, mut events) = unbounded_channel::<String>();
    state.lock().unwrap().streams.push(sender);
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hello\n\n";
    connection.write_all(head).await.ok()?;
    while let Some(data) = events.recv().await {
        connection.write_all(format!("data: {data}\n\n").as_bytes()).await.ok()?;
    }
    None
}

/// Reads headers and a body of their Content-Length. The client sends one request at a time.
async fn request(connection: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8(bytes.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        if body.len() == length.map_or(0, |length| length.parse().unwrap()) {
            return Some((head.to_owned(), body.to_owned()));
        }
    }
}

impl State {
    /// Sends the event to all subscribers, or commits the fault. False if the event is refused.
    fn publish(&mut self, event: String, fault: Fault) -> bool {
        self.events += 1;
        let held = self.held.take();
        match fault {
            Fault::Silence if self.events > FAULTY_EVENT => {}
            Fault::Forget => self.send(&format!("{event}\nid: {}", self.events)),
            _ if self.events != FAULTY_EVENT => self.send(&event),
            Fault::Lose | Fault::Silence => {}
            Fault::Double => {
                self.send(&event);
                self.send(&event);
            }
            Fault::Reorder => self.held = Some(event),
            Fault::Refuse => return false,
            Fault::HangUp => self.streams.clear(),
            Fault::None => self.send(&event),
        }
        if let Some(held) = held {
            self.send(&held);
        }
        true
    }

    fn send(&self, event: &str) {
        for stream in &self.streams {
            stream.send(event.to_owned()).ok();
        }
    }
}
