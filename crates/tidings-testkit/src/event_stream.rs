//! One subscription, by a client that reconnects only on command.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use tidings_sse::{Item, ParsedEvent, Parser};

use crate::connection::{Connection, Response};
use crate::patiently;

/// The events of one connection, in the order of their arrival.
#[derive(Debug)]
pub struct EventStream {
    connection: Connection,
    response: Response,
    parser: Parser,
    chunk: Vec<u8>,
    taken: usize,
}

impl EventStream {
    /// Subscribes at `target`, as in `/stream?topic=chat`, and waits until the hub has accepted.
    pub async fn open(address: SocketAddr, target: &str) -> anyhow::Result<Self> {
        Self::open_with(address, target, &[]).await
    }

    /// Subscribes as a client that received everything up to `last_event_id`.
    pub async fn resume(address: SocketAddr, target: &str, last_event_id: &str) -> anyhow::Result<Self> {
        Self::open_with(address, target, &[&format!("Last-Event-ID: {last_event_id}")]).await
    }

    /// Subscribes with further header fields, each a line as in `Last-Event-ID: #1`.
    pub async fn open_with(address: SocketAddr, target: &str, fields: &[&str]) -> anyhow::Result<Self> {
        Self::on(Connection::open(address).await?, target, fields).await
    }

    /// The same on a connection that was opened already.
    pub async fn on(mut connection: Connection, target: &str, fields: &[&str]) -> anyhow::Result<Self> {
        let mut head = format!("GET {target}\nAccept: text/event-stream");
        for field in fields {
            head.push('\n');
            head.push_str(field);
        }
        connection.request(&head, b"").await?;
        let response = connection.head().await?;
        ensure!(response.status == 200, "the subscription was answered {response}");
        let media_type = response.header("content-type").unwrap_or_default();
        ensure!(media_type.starts_with("text/event-stream"), "a stream of the type {media_type:?}");
        ensure!(response.header("transfer-encoding") == Some("chunked"), "the stream is not chunked");
        Ok(Self { connection, response, parser: Parser::new(), chunk: Vec::new(), taken: 0 })
    }

    /// The headers of the response.
    pub fn response(&self) -> &Response {
        &self.response
    }

    /// The next event. The end of the stream is an error.
    pub async fn next(&mut self) -> anyhow::Result<ParsedEvent> {
        self.next_or_end().await?.context("the stream ended")
    }

    /// The next event, `None` if the hub ended the stream cleanly. A cut is an error.
    pub async fn next_or_end(&mut self) -> anyhow::Result<Option<ParsedEvent>> {
        // Heartbeats keep the connection busy: the timeout is for the event, not for the next
        // bytes.
        patiently("an event", async {
            loop {
                match self.next_item().await? {
                    Some(Item::Event(event)) => return Ok(Some(event)),
                    Some(_) => {}
                    None => return Ok(None),
                }
            }
        })
        .await?
    }

    /// The next event, comment or retry, `None` at the clean end of the stream.
    pub async fn next_item(&mut self) -> anyhow::Result<Option<Item>> {
        loop {
            let mut left = &self.chunk[self.taken..];
            let item = self.parser.next(&mut left);
            self.taken = self.chunk.len() - left.len();
            if let Some(item) = item {
                return Ok(Some(item?));
            }
            let Some(chunk) = self.connection.chunk().await? else { return Ok(None) };
            self.chunk = chunk;
            self.taken = 0;
        }
    }

    /// The data of the next `count` events, all of which must be of the type `message`.
    pub async fn messages(&mut self, count: usize) -> anyhow::Result<Vec<String>> {
        let mut messages = Vec::with_capacity(count);
        while messages.len() < count {
            let event = self.next().await?;
            if event.event_type != "message" {
                bail!("after {messages:?} arrived {event:?}");
            }
            messages.push(event.data);
        }
        Ok(messages)
    }

    /// The id to resume with.
    pub fn last_event_id(&self) -> &str {
        self.parser.last_event_id()
    }

    /// The underlying connection, for a test that sends what a subscriber usually does not.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// The underlying connection, for a test that closes it in its own way.
    pub fn into_connection(self) -> Connection {
        self.connection
    }
}
