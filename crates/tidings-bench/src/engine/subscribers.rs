//! Subscribers: from connecting to the last byte.

use std::time::Duration;

use rustix::{
    event::epoll::EventFlags,
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send, sockopt},
};

use super::{
    Engine,
    records::{Ending, Manner, Subscriber, SubscriberPhase},
    sockets::{begin_connecting, no_connection, stream_socket},
};
use crate::{
    BenchError,
    careful::{Arrival, Careful},
    ledger::Published,
    mark::Carry,
    reply::{HEADERS_BYTES_MAX, excerpt},
};

/// Timeout without progress while subscribers connect.
const CONNECT_SILENCE_MAX: Duration = Duration::from_secs(30);
/// The maximum wait of a turn while progress is checked.
const TURN: Duration = Duration::from_millis(100);

impl Engine {
    /// Adds a subscriber, which waits until [`connect`](Self::connect). It must be in the ledger
    /// already.
    pub(crate) fn add_subscriber(&mut self, topic: u32, manner: Manner) -> u32 {
        let number = u32::try_from(self.subscribers.len()).expect("sockets are fewer");
        if manner.careful {
            self.careful.insert(number, Careful::default());
        }
        self.subscribers.push(Subscriber {
            socket: None,
            topic,
            phase: SubscriberPhase::Waiting,
            frozen: false,
            receive_buffer_bytes: manner.receive_buffer_bytes,
            way: 0,
            streaming_since_nanos: 0,
            carry: Carry::default(),
        });
        self.waiting.push_back(number);
        number
    }

    /// Connects all waiting subscribers, at most `at_once_max` at a time, until all have a stream.
    pub(crate) fn connect(
        &mut self,
        at_once_max: usize,
        mut progress: impl FnMut(usize),
    ) -> Result<(), BenchError> {
        let target = self.streaming + self.on_their_way + self.waiting.len();
        let mut last_change = self.now();
        let mut last_count = self.streaming;
        while self.streaming < target {
            self.open_waiting(at_once_max)?;
            self.turn(TURN)?;
            progress(self.streaming);
            let now = self.now();
            if self.streaming != last_count {
                (last_change, last_count) = (now, self.streaming);
            } else if Duration::from_nanos(now - last_change) > CONNECT_SILENCE_MAX {
                return Err(BenchError::hub(format!(
                    "{} of {target} subscribers are connected, and no more within {} s",
                    self.streaming,
                    CONNECT_SILENCE_MAX.as_secs()
                )));
            }
        }
        Ok(())
    }

    /// Connects all waiting subscribers without a request, then sends all requests at once. Returns
    /// when they are sent.
    pub(crate) fn connect_then_ask(&mut self, at_once_max: usize) -> Result<u64, BenchError> {
        self.hold_requests = true;
        let numbers: Vec<u32> = self.waiting.iter().copied().collect();
        while !self.waiting.is_empty() || self.on_their_way > 0 {
            self.open_waiting(at_once_max)?;
            self.turn(TURN)?;
        }
        self.hold_requests = false;
        let asked = self.now();
        for number in numbers {
            self.on_their_way += 1;
            self.ask(number)?;
        }
        Ok(asked)
    }

    /// Opens connections for waiting subscribers.
    pub(crate) fn open_waiting(&mut self, at_once_max: usize) -> Result<(), BenchError> {
        while self.on_their_way < at_once_max
            && let Some(number) = self.waiting.pop_front()
        {
            self.open(number)?;
        }
        Ok(())
    }

    /// Stops reading the streams of these subscribers, or continues.
    pub(crate) fn freeze(&mut self, number: u32, frozen: bool) -> Result<(), BenchError> {
        self.subscribers[number as usize].frozen = frozen;
        if frozen { Ok(()) } else { self.read_subscriber(number, true) }
    }

    /// From here on streams may end. Those of careful subscribers are opened again, with their last
    /// id.
    pub(crate) fn expect_endings(&mut self) {
        self.endings_expected = true;
    }

    /// How many streams are open.
    pub(crate) fn streaming(&self) -> usize {
        self.streaming
    }

    /// How many connections are open, those of publishers included.
    pub(crate) fn connections(&self) -> usize {
        self.streaming + self.on_their_way + self.publishers.len()
    }

    /// How many streams are older than `nanos` and have not received what was published then.
    pub(crate) fn late_since(&self, nanos: u64, published: &Published) -> u64 {
        let late = |(number, subscriber): &(u32, &Subscriber)| {
            subscriber.phase == SubscriberPhase::Streaming
                && subscriber.streaming_since_nanos <= nanos
                && !self.ledger.has_all(*number, published)
        };
        (0..).zip(&self.subscribers).filter(late).count() as u64
    }

    /// Whether this subscriber has disconnected, or its stream has ended.
    pub(crate) fn is_away(&self, number: u32) -> bool {
        self.subscribers[number as usize].phase == SubscriberPhase::Ended
    }

    /// Whether this subscriber has a stream.
    pub(crate) fn is_streaming(&self, number: u32) -> bool {
        self.subscribers[number as usize].phase == SubscriberPhase::Streaming
    }

    /// Ends the stream of a subscriber. Unread data is discarded.
    pub(crate) fn leave(&mut self, number: u32, ending: Ending) {
        let subscriber = &mut self.subscribers[number as usize];
        let socket = subscriber.socket.take().expect("it has a stream");
        subscriber.phase = SubscriberPhase::Ended;
        self.streaming -= 1;
        if ending == Ending::Reset {
            sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).ok();
        }
    }

    /// Queues a subscriber whose stream has ended. It resumes from its last id, in one of the ways
    /// that the hub supports.
    pub(crate) fn come_back(&mut self, number: u32, way: usize) {
        let subscriber = &mut self.subscribers[number as usize];
        if subscriber.phase == SubscriberPhase::Ended {
            (subscriber.phase, subscriber.way) = (SubscriberPhase::Waiting, way);
            self.waiting.push_back(number);
        }
    }

    /// Queues all subscribers whose stream has ended, to reconnect.
    pub(crate) fn reconnect_ended(&mut self) {
        for (number, subscriber) in (0..).zip(&mut self.subscribers) {
            if subscriber.phase == SubscriberPhase::Ended {
                subscriber.phase = SubscriberPhase::Waiting;
                self.waiting.push_back(number);
            }
        }
    }

    /// Cuts all streams. They are reset, so that tens of thousands of source ports are free again
    /// at once.
    pub(crate) fn hang_up(&mut self) {
        for subscriber in &mut self.subscribers {
            if let Some(socket) = subscriber.socket.take() {
                sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).ok();
            }
            subscriber.phase = SubscriberPhase::Ended;
        }
        self.waiting.clear();
        self.on_their_way = 0;
        self.streaming = 0;
    }

    /// The id that a careful subscriber has read last.
    pub(crate) fn last_event_id(&self, number: u32) -> Option<&str> {
        self.careful.get(&number)?.last_event_id()
    }

    /// Makes a subscriber that has not connected yet resume from this id.
    pub(crate) fn resume_behind(&mut self, number: u32, id: String) {
        self.resuming.insert(number, id);
    }

    fn open(&mut self, number: u32) -> Result<(), BenchError> {
        let socket = stream_socket(self.requests.subscribe_address)?;
        let subscriber = &mut self.subscribers[number as usize];
        if let Some(bytes) = subscriber.receive_buffer_bytes {
            sockopt::set_socket_recv_buffer_size(&socket, bytes)
                .map_err(|error| BenchError::machine("cannot set a receive buffer", error))?;
        }
        begin_connecting(&socket, self.requests.subscribe_address)?;
        subscriber.phase = SubscriberPhase::Connecting;
        subscriber.carry = Carry::default();
        self.watch(&socket, u64::from(number))?;
        self.subscribers[number as usize].socket = Some(socket);
        self.on_their_way += 1;
        Ok(())
    }

    pub(super) fn subscriber_ready(&mut self, number: u32, flags: EventFlags) -> Result<(), BenchError> {
        let subscriber = &self.subscribers[number as usize];
        let closing = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        match subscriber.phase {
            SubscriberPhase::Connecting if closing => self.cannot_connect(number),
            SubscriberPhase::Connecting if flags.contains(EventFlags::OUT) && self.hold_requests => {
                self.subscribers[number as usize].phase = SubscriberPhase::Connected;
                self.on_their_way -= 1;
                Ok(())
            }
            SubscriberPhase::Connecting if flags.contains(EventFlags::OUT) => self.ask(number),
            SubscriberPhase::Connected if closing => {
                Err(BenchError::hub("the hub closed a connection before it was used"))
            }
            SubscriberPhase::Head | SubscriberPhase::Streaming
                if closing || flags.contains(EventFlags::IN) =>
            {
                self.read_subscriber(number, closing)
            }
            _ => Ok(()),
        }
    }

    fn cannot_connect(&mut self, number: u32) -> Result<(), BenchError> {
        let subscriber = &mut self.subscribers[number as usize];
        let error = subscriber.socket.take().and_then(|socket| sockopt::socket_error(&socket).ok()?.err());
        self.on_their_way -= 1;
        if self.endings_expected {
            subscriber.phase = SubscriberPhase::Waiting;
            self.waiting.push_back(number);
            return Ok(());
        }
        Err(no_connection(self.requests.subscribe_address, error))
    }

    fn ask(&mut self, number: u32) -> Result<(), BenchError> {
        let resumed = self.resuming.get(&number).map(String::as_str);
        let id = resumed.or_else(|| self.careful.get(&number)?.last_event_id());
        let subscriber = &mut self.subscribers[number as usize];
        let request = self.requests.subscribe(number as usize, subscriber.topic, id, subscriber.way);
        subscriber.phase = SubscriberPhase::Head;
        let socket = subscriber.socket.as_ref().expect("it is connected");
        match send(socket, &request, SendFlags::NOSIGNAL) {
            // The send buffer of a new connection has space for a request.
            Ok(sent) if sent == request.len() => Ok(()),
            Ok(_) => {
                Err(BenchError::machine("cannot send a request", "the send buffer of a new socket is full"))
            }
            Err(_) if self.endings_expected => {
                self.ended(number);
                Ok(())
            }
            Err(error) => {
                Err(BenchError::hub(format!("the hub closed a connection before the request: {error}")))
            }
        }
    }

    /// Reads available data. A short read has emptied the socket, unless its end follows.
    fn read_subscriber(&mut self, number: u32, to_the_end: bool) -> Result<(), BenchError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let done = loop {
            let subscriber = &self.subscribers[number as usize];
            let Some(socket) = subscriber.socket.as_ref() else { break Ok(()) };
            if subscriber.frozen && subscriber.phase == SubscriberPhase::Streaming {
                break Ok(());
            }
            match recv(socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((_, 0)) => {
                    self.ended(number);
                    break Ok(());
                }
                Ok((_, length)) => {
                    if let Err(error) = self.take(number, &buffer[..length]) {
                        break Err(error);
                    }
                    if length < buffer.len() && !to_the_end {
                        break Ok(());
                    }
                }
                Err(Errno::AGAIN) => break Ok(()),
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.ended(number);
                    break Ok(());
                }
            }
        };
        self.buffer = buffer;
        done
    }

    fn take(&mut self, number: u32, input: &[u8]) -> Result<(), BenchError> {
        if self.subscribers[number as usize].phase == SubscriberPhase::Head {
            return self.take_head(number, input);
        }
        self.reads += 1;
        let now = self.now();
        let Self { ledger, latency, scanner, subscribers, .. } = self;
        let mut newest = None;
        let excused = self.gaps_excused;
        let mut found = |arrival: Arrival| match arrival {
            Arrival::Event(mark) => {
                if ledger.deliver(number, mark) {
                    latency.record(now.saturating_sub(mark.due_nanos));
                    newest = Some(now);
                }
            }
            Arrival::Gap if excused => ledger.excuse(number),
            Arrival::Gap => {}
        };
        let done = if !self.careful.is_empty()
            && let Some(careful) = self.careful.get_mut(&number)
        {
            careful.read(input, scanner, found)
        } else {
            scanner.scan(&mut subscribers[number as usize].carry, input, |mark| found(Arrival::Event(mark)));
            Ok(())
        };
        if let Some(now) = newest {
            self.last_delivery_nanos = now;
        }
        done
    }

    fn take_head(&mut self, number: u32, input: &[u8]) -> Result<(), BenchError> {
        let kept = self.heads.remove(&number).unwrap_or_default();
        let mut whole = kept;
        whole.extend_from_slice(input);
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(&whole);
        match parsed {
            Ok(httparse::Status::Complete(length)) => {
                let status = response.code.unwrap_or_default();
                if status != 200 {
                    let body = excerpt(&whole[length..]);
                    return Err(BenchError::hub(format!("a subscription was answered {status}: {body}")));
                }
                let chunked = response.headers.iter().any(|header| {
                    header.name.eq_ignore_ascii_case("transfer-encoding")
                        && header.value.eq_ignore_ascii_case(b"chunked")
                });
                let streaming_since_nanos = self.now();
                let subscriber = &mut self.subscribers[number as usize];
                (subscriber.phase, subscriber.streaming_since_nanos) =
                    (SubscriberPhase::Streaming, streaming_since_nanos);
                self.on_their_way -= 1;
                self.streaming += 1;
                if let Some(careful) = self.careful.get_mut(&number) {
                    self.resumed += u64::from(careful.last_event_id().is_some());
                    careful.begin(chunked);
                }
                if length < whole.len() { self.take(number, &whole[length..]) } else { Ok(()) }
            }
            Ok(httparse::Status::Partial) if whole.len() < HEADERS_BYTES_MAX => {
                self.heads.insert(number, whole);
                Ok(())
            }
            _ => {
                Err(BenchError::hub(format!("a subscription was answered without HTTP: {}", excerpt(&whole))))
            }
        }
    }

    fn ended(&mut self, number: u32) {
        let subscriber = &mut self.subscribers[number as usize];
        subscriber.socket = None;
        match std::mem::replace(&mut subscriber.phase, SubscriberPhase::Ended) {
            SubscriberPhase::Streaming => self.streaming -= 1,
            _ => self.on_their_way -= 1,
        }
        self.heads.remove(&number);
        if !self.endings_expected {
            self.disconnected += 1;
        }
    }
}
