//! Publishers: keep-alive connections, each with at most one request outstanding.

use std::{os::fd::OwnedFd, time::Duration};

use rustix::{
    event::epoll::EventFlags,
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send, sockopt},
};

use super::{
    Engine, HEAD_BYTES_MAX, PUBLISHER,
    subscribers::{begin_connecting, excerpt, no_connection, stream_socket},
};
use crate::BenchError;

/// Answers to a publish request are short.
const REPLY_BYTES_MAX: usize = 1 << 20;
const TURN: Duration = Duration::from_millis(100);

/// The events to publish.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    pub(crate) events: u64,
    /// The topics, published to in rotation.
    pub(crate) topics: u32,
    /// Events per second; without it, each publisher continues as soon as it gets an answer.
    pub(crate) rate: Option<f64>,
    pub(crate) payload_bytes: usize,
    pub(crate) private: bool,
    issued: u64,
    answered: u64,
    began_nanos: u64,
}

impl Load {
    pub(crate) fn new(events: u64, topics: u32, rate: Option<f64>, payload_bytes: usize) -> Self {
        Self { events, topics, rate, payload_bytes, ..Self::default() }
    }

    /// When the next event is to be published; none if there is no other.
    fn next_due(&self) -> Option<u64> {
        if self.issued >= self.events {
            return None;
        }
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let after = |rate: f64| (self.issued as f64 * 1e9 / rate) as u64;
        Some(self.began_nanos + self.rate.map_or(0, after))
    }
}

#[derive(Debug)]
pub(super) struct Publisher {
    socket: Option<OwnedFd>,
    phase: Phase,
    request: Vec<u8>,
    reply: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Idle,
    Sending { sent: usize, since_nanos: u64 },
    Waiting { since_nanos: u64 },
}

impl Engine {
    /// Opens keep-alive connections for further publishers.
    pub(crate) fn add_publishers(&mut self, count: usize) -> Result<(), BenchError> {
        for _ in 0..count {
            let number = u32::try_from(self.publishers.len()).expect("publishers are few");
            self.publishers.push(Publisher {
                socket: None,
                phase: Phase::Connecting,
                request: Vec::new(),
                reply: Vec::new(),
            });
            self.open_publisher(number)?;
        }
        while self.idle_publishers.len() < self.publishers.len() {
            self.turn(TURN)?;
        }
        Ok(())
    }

    /// Publishes all events and waits until all have arrived, or none has for `patience`.
    pub(crate) fn run(
        &mut self,
        load: Load,
        patience: Duration,
        progress: impl FnMut(&Self),
    ) -> Result<(), BenchError> {
        self.run_until(load, u64::MAX, patience, progress)
    }

    /// The same, but waits for this many deliveries only.
    pub(crate) fn run_until(
        &mut self,
        load: Load,
        enough: u64,
        patience: Duration,
        mut progress: impl FnMut(&Self),
    ) -> Result<(), BenchError> {
        self.begin(load)?;
        let mut last_change = (0, 0, self.now());
        while self.load.answered < self.load.events
            || !(self.ledger.complete() || self.ledger.delivered() >= enough)
        {
            self.turn(TURN)?;
            progress(self);
            let state = (self.load.answered, self.ledger.delivered());
            if state != (last_change.0, last_change.1) {
                last_change = (state.0, state.1, self.now());
            } else if Duration::from_nanos(self.now() - last_change.2) > patience {
                break;
            }
        }
        Ok(())
    }

    /// Begins to publish; [`turn`](Self::turn) continues.
    pub(crate) fn begin(&mut self, load: Load) -> Result<(), BenchError> {
        self.load = Load { issued: 0, answered: 0, began_nanos: self.now(), ..load };
        self.publish_what_is_due()
    }

    /// Publishes nothing further.
    pub(crate) fn stop_publishing(&mut self) {
        self.load.events = self.load.issued;
    }

    /// Whether everything was published and answered.
    pub(crate) fn has_published(&self) -> bool {
        self.load.answered >= self.load.events
    }

    /// When [`run`](Self::run) began.
    pub(crate) fn load_began_nanos(&self) -> u64 {
        self.load.began_nanos
    }

    pub(crate) fn answered(&self) -> u64 {
        self.load.answered
    }

    pub(super) fn publish_what_is_due(&mut self) -> Result<(), BenchError> {
        while let Some(due) = self.load.next_due() {
            if due > self.now() {
                return self.wake_at(due);
            }
            let Some(publisher) = self.idle_publishers.pop() else { return Ok(()) };
            self.publish_next(publisher, due)?;
        }
        Ok(())
    }

    fn publish_next(&mut self, number: u32, due: u64) -> Result<(), BenchError> {
        let now = self.now();
        #[expect(clippy::cast_possible_truncation, reason = "less than the number of topics")]
        let topic = (self.load.issued % u64::from(self.load.topics)) as u32;
        let due = if self.load.rate.is_some() { due } else { now };
        let name = u8::try_from(number).expect("publishers are at most 256");
        let mark = self.ledger.publish(name, topic, due);
        self.load.issued += 1;
        self.scratch.payload.clear();
        mark.write_payload(self.load.payload_bytes, &mut self.scratch.payload);
        let publisher = &mut self.publishers[number as usize];
        let (payload, body) = (&self.scratch.payload, &mut self.scratch.body);
        self.requests.publish(topic, payload, self.load.private, body, &mut publisher.request);
        publisher.phase = Phase::Sending { sent: 0, since_nanos: due };
        self.go_on_sending(number)
    }

    fn go_on_sending(&mut self, number: u32) -> Result<(), BenchError> {
        let publisher = &mut self.publishers[number as usize];
        while let Phase::Sending { sent, since_nanos } = publisher.phase {
            let socket = publisher.socket.as_ref().expect("it is connected");
            match send(socket, &publisher.request[sent..], SendFlags::NOSIGNAL) {
                Ok(more) if sent + more == publisher.request.len() => {
                    publisher.phase = Phase::Waiting { since_nanos };
                }
                Ok(more) => publisher.phase = Phase::Sending { sent: sent + more, since_nanos },
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(cut(&error.to_string())),
            }
        }
        Ok(())
    }

    pub(super) fn publisher_ready(&mut self, number: u32, flags: EventFlags) -> Result<(), BenchError> {
        let publisher = &mut self.publishers[number as usize];
        let closing = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        match publisher.phase {
            Phase::Connecting if closing => {
                let socket = publisher.socket.take();
                let error = socket.and_then(|socket| sockopt::socket_error(&socket).ok()?.err());
                Err(no_connection(self.requests.publish_address, error))
            }
            Phase::Connecting if flags.contains(EventFlags::OUT) => {
                publisher.phase = Phase::Idle;
                self.idle_publishers.push(number);
                self.publish_what_is_due()
            }
            // The hub may close an idle connection; the next event opens a new one.
            Phase::Idle if closing => {
                self.idle_publishers.retain(|idle| *idle != number);
                self.open_publisher(number)
            }
            Phase::Sending { .. } if flags.contains(EventFlags::OUT) => self.go_on_sending(number),
            Phase::Sending { .. } | Phase::Waiting { .. } if closing || flags.contains(EventFlags::IN) => {
                self.read_reply(number)
            }
            _ => Ok(()),
        }
    }

    fn open_publisher(&mut self, number: u32) -> Result<(), BenchError> {
        let socket = stream_socket(self.requests.publish_address)?;
        sockopt::set_tcp_nodelay(&socket, true)
            .map_err(|error| BenchError::machine("cannot set TCP_NODELAY", error))?;
        begin_connecting(&socket, self.requests.publish_address)?;
        self.watch(&socket, PUBLISHER | u64::from(number))?;
        let publisher = &mut self.publishers[number as usize];
        publisher.socket = Some(socket);
        publisher.phase = Phase::Connecting;
        publisher.reply.clear();
        Ok(())
    }

    fn read_reply(&mut self, number: u32) -> Result<(), BenchError> {
        loop {
            let publisher = &mut self.publishers[number as usize];
            let socket = publisher.socket.as_ref().expect("it is connected");
            match recv(socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((_, 0)) => return Err(cut("the connection ended")),
                Ok((_, length)) => publisher.reply.extend_from_slice(&self.buffer[..length]),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(cut(&error.to_string())),
            }
            let Some(reply) = Reply::parse(&publisher.reply)? else { continue };
            let Phase::Waiting { since_nanos } = publisher.phase else {
                return Err(BenchError::hub("the hub answered a publish request before it was complete"));
            };
            return self.answered_by(number, &reply, since_nanos);
        }
    }

    fn answered_by(&mut self, number: u32, reply: &Reply, since_nanos: u64) -> Result<(), BenchError> {
        let now = self.now();
        self.load.answered += 1;
        self.last_reply_nanos = now;
        self.replies.record(now.saturating_sub(since_nanos));
        let publisher = &mut self.publishers[number as usize];
        if !(200..300).contains(&reply.status) {
            if self.refused == 0 {
                self.first_refusal =
                    Some(format!("{}: {}", reply.status, excerpt(&publisher.reply[reply.head..])));
            }
            self.refused += 1;
        }
        publisher.reply.clear();
        if reply.close {
            return self.open_publisher(number);
        }
        publisher.phase = Phase::Idle;
        self.idle_publishers.push(number);
        self.publish_what_is_due()
    }
}

/// The relevant parts of the answer to a publish request.
struct Reply {
    status: u16,
    /// The length of the status line and headers.
    head: usize,
    /// The hub will close the connection.
    close: bool,
}

impl Reply {
    /// The reply, once it is complete.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, BenchError> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let head = match response.parse(bytes) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
            _ => return Err(wrong_reply("is not HTTP", bytes)),
        };
        let status = response.code.unwrap_or_default();
        let header = |name: &str| {
            let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            found.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
        };
        let close = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let body = &bytes[head..];
        let complete = if status == 204 || status == 304 {
            true
        } else if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            ends_with_last_chunk(body)
        } else if let Some(length) = header("content-length").and_then(|value| value.parse::<usize>().ok()) {
            body.len() >= length
        } else {
            return Err(wrong_reply("has no length", bytes));
        };
        if !complete && bytes.len() > REPLY_BYTES_MAX {
            return Err(wrong_reply("is longer than 1 MiB", bytes));
        }
        Ok(complete.then_some(Self { status, head, close }))
    }
}

/// Walks over the chunks of a body.
fn ends_with_last_chunk(mut body: &[u8]) -> bool {
    while let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(body) {
        if size == 0 {
            return body[line..].ends_with(b"\r\n");
        }
        let Some(next) = usize::try_from(size).ok().and_then(|size| body.get(line + size + 2..)) else {
            return false;
        };
        body = next;
    }
    false
}

fn cut(why: &str) -> BenchError {
    BenchError::hub(format!("the hub cut a publish request: {why}"))
}

fn wrong_reply(what: &str, bytes: &[u8]) -> BenchError {
    BenchError::hub(format!("the answer to a publish request {what}: {}", excerpt(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_complete_with_its_last_byte() {
        for reply in [
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ] {
            for end in 0..reply.len() {
                assert!(Reply::parse(&reply.as_bytes()[..end]).unwrap().is_none(), "{reply:?} at {end}");
            }
            assert!(Reply::parse(reply.as_bytes()).unwrap().is_some(), "{reply:?}");
        }
    }

    #[test]
    fn a_reply_without_a_length_is_refused() {
        let error = Reply::parse(b"HTTP/1.1 200 OK\r\n\r\n").err().unwrap().to_string();
        assert!(error.contains("has no length"), "{error}");
    }

    #[test]
    fn events_are_due_at_their_rate() {
        let mut load = Load::new(3, 1, Some(10.0), 128);
        load.began_nanos = 5;
        let mut due = Vec::new();
        while let Some(next) = load.next_due() {
            due.push(next);
            load.issued += 1;
        }
        assert_eq!(due, [5, 100_000_005, 200_000_005]);
    }
}
