//! Publishers: keep-alive connections, each with at most one request outstanding.

use std::time::Duration;

use rustix::{
    event::epoll::EventFlags,
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send, sockopt},
};

use super::{
    Engine, PUBLISHER,
    records::{Load, Publisher, PublisherPhase},
    sockets::{begin_connecting, no_connection, stream_socket},
};
use crate::{
    BenchError,
    reply::{Reply, excerpt},
};

const TURN: Duration = Duration::from_millis(100);

impl Engine {
    /// Opens keep-alive connections for further publishers.
    pub(crate) fn add_publishers(&mut self, count: usize) -> Result<(), BenchError> {
        for _ in 0..count {
            let number = u32::try_from(self.publishers.len()).expect("publishers are few");
            self.publishers.push(Publisher {
                socket: None,
                phase: PublisherPhase::Connecting,
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
        publisher.phase = PublisherPhase::Sending { sent: 0, since_nanos: due };
        self.go_on_sending(number)
    }

    fn go_on_sending(&mut self, number: u32) -> Result<(), BenchError> {
        let publisher = &mut self.publishers[number as usize];
        while let PublisherPhase::Sending { sent, since_nanos } = publisher.phase {
            let socket = publisher.socket.as_ref().expect("it is connected");
            match send(socket, &publisher.request[sent..], SendFlags::NOSIGNAL) {
                Ok(more) if sent + more == publisher.request.len() => {
                    publisher.phase = PublisherPhase::Waiting { since_nanos };
                }
                Ok(more) => publisher.phase = PublisherPhase::Sending { sent: sent + more, since_nanos },
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
            PublisherPhase::Connecting if closing => {
                let socket = publisher.socket.take();
                let error = socket.and_then(|socket| sockopt::socket_error(&socket).ok()?.err());
                Err(no_connection(self.requests.publish_address, error))
            }
            PublisherPhase::Connecting if flags.contains(EventFlags::OUT) => {
                publisher.phase = PublisherPhase::Idle;
                self.idle_publishers.push(number);
                self.publish_what_is_due()
            }
            // The hub may close an idle connection; the next event opens a new one.
            PublisherPhase::Idle if closing => {
                self.idle_publishers.retain(|idle| *idle != number);
                self.open_publisher(number)
            }
            PublisherPhase::Sending { .. } if flags.contains(EventFlags::OUT) => self.go_on_sending(number),
            PublisherPhase::Sending { .. } | PublisherPhase::Waiting { .. }
                if closing || flags.contains(EventFlags::IN) =>
            {
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
        publisher.phase = PublisherPhase::Connecting;
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
            let PublisherPhase::Waiting { since_nanos } = publisher.phase else {
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
        publisher.phase = PublisherPhase::Idle;
        self.idle_publishers.push(number);
        self.publish_what_is_due()
    }
}

fn cut(why: &str) -> BenchError {
    BenchError::hub(format!("the hub cut a publish request: {why}"))
}
