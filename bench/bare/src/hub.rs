//! The loop: read what has arrived, then at most 64 sends, and again. An idle hub sends at once; a
//! busy one reads so much between two sends to the same subscriber that each carries many events.

use std::{
    collections::{HashMap, VecDeque},
    io, mem,
    net::TcpListener,
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
    net::{RecvFlags, SendFlags, SocketFlags, accept_with, listen, recv, send, sockopt},
};

use crate::{request::Request, topic::Topic};

const SENDS_MAX: usize = 64;
const SEND_BYTES_MAX: usize = 64 << 10;
const READ_BYTES: usize = 64 << 10;
const READY_MAX: usize = 256;
const BACKLOG: i32 = 4096;
/// Distinguishes the listener from connections, which are known by their descriptors.
const LISTENER: u64 = u64::MAX;

const PUBLISHED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

pub(crate) struct Hub {
    epoll: OwnedFd,
    listener: TcpListener,
    /// By descriptor.
    connections: Vec<Option<Connection>>,
    topics: Vec<Topic>,
    names: HashMap<String, usize>,
    /// Topics whose subscribers have something due; they take turns.
    queue: VecDeque<usize>,
}

struct Connection {
    socket: OwnedFd,
    state: State,
}

enum State {
    /// With the beginning of a request, nearly always empty.
    Requests(Vec<u8>),
    /// `blocked`: whether the socket takes no more.
    Stream { topic: usize, cursor: usize, blocked: bool },
}

impl Hub {
    pub(crate) fn new(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        listen(&listener, BACKLOG)?;
        // Accepted sockets inherit it.
        sockopt::set_tcp_nodelay(&listener, true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        let (connections, topics, names, queue) = Default::default();
        Ok(Self { epoll, listener, connections, topics, names, queue })
    }

    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut ready: Vec<epoll::Event> = Vec::with_capacity(READY_MAX);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            ready.clear();
            let at_once = (!self.queue.is_empty()).then(Timespec::default);
            match epoll::wait(&self.epoll, spare_capacity(&mut ready), at_once.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &ready {
                match u32::try_from(event.data.u64()) {
                    Ok(descriptor) => self.serve(descriptor, event.flags, &mut buffer),
                    Err(_) => self.accept()?,
                }
            }
            self.send_slice();
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        use epoll::EventFlags;
        loop {
            let socket = match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Err(Errno::AGAIN) => return Ok(()),
                accepted => accepted?,
            };
            let descriptor = socket.as_raw_fd().unsigned_abs();
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(descriptor.into()), flags)?;
            let capacity = self.connections.len().max(descriptor as usize + 1);
            self.connections.resize_with(capacity, || None);
            self.connections[descriptor as usize] =
                Some(Connection { socket, state: State::Requests(Vec::new()) });
        }
    }

    fn serve(&mut self, descriptor: u32, flags: epoll::EventFlags, buffer: &mut [u8]) {
        use epoll::EventFlags;
        let Some(mut connection) = self.connections[descriptor as usize].take() else { return };
        let ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        if self.read(descriptor, &mut connection, buffer) && !ended {
            self.connections[descriptor as usize] = Some(connection);
        } else if let State::Stream { topic, .. } = connection.state {
            let topic = &mut self.topics[topic];
            topic.subscribers.retain(|subscriber| *subscriber != descriptor);
            // The pass may have skipped one.
            topic.again |= topic.visited > 0;
        }
    }

    /// Returns whether the connection stays open: not after a bad request, nor if the client does
    /// not read its answers.
    fn read(&mut self, descriptor: u32, connection: &mut Connection, buffer: &mut [u8]) -> bool {
        let Connection { socket, state } = connection;
        loop {
            let requests = match state {
                State::Requests(requests) => requests,
                State::Stream { topic, blocked, .. } => {
                    *blocked = false;
                    self.enqueue(*topic);
                    return true;
                }
            };
            let length = recv(&*socket, &mut *buffer, RecvFlags::empty()).map_or(0, |(_, length)| length);
            requests.extend_from_slice(&buffer[..length]);
            // Pipelined requests are answered with one `send`.
            let (mut input, mut answers) = (requests.as_slice(), Vec::new());
            let stream = loop {
                match Request::parse(input) {
                    Some(Request::Publish { topic, data, length }) => {
                        let topic = self.topic(topic);
                        self.topics[topic].append(data);
                        self.enqueue(topic);
                        answers.extend_from_slice(PUBLISHED);
                        input = &input[length..];
                    }
                    Some(Request::Subscribe { topic, last_event_id }) => {
                        answers.extend_from_slice(STREAM);
                        break Some((self.topic(topic), last_event_id));
                    }
                    Some(Request::Incomplete) => break None,
                    None => return false,
                }
            };
            if !answers.is_empty() && send(&*socket, &answers, SendFlags::NOSIGNAL) != Ok(answers.len()) {
                return false;
            }
            requests.drain(..requests.len() - input.len());
            if let Some((topic, id)) = stream {
                self.topics[topic].subscribers.push(descriptor);
                let cursor = self.topics[topic].position_of(id);
                *state = State::Stream { topic, cursor, blocked: false };
            } else if length < buffer.len() {
                // It has emptied the socket; the next bytes raise another event.
                return true;
            }
        }
    }

    fn topic(&mut self, name: &str) -> usize {
        if let Some(topic) = self.names.get(name) {
            return *topic;
        }
        self.topics.push(Topic::default());
        self.names.insert(name.to_owned(), self.topics.len() - 1);
        self.topics.len() - 1
    }

    fn enqueue(&mut self, number: usize) {
        let topic = &mut self.topics[number];
        topic.again |= topic.visited > 0;
        if !mem::replace(&mut topic.queued, true) {
            self.queue.push_back(number);
        }
    }

    /// Continues the passes over the subscribers of the first topics.
    fn send_slice(&mut self) {
        let mut sends = 0;
        while sends < SENDS_MAX
            && let Some(number) = self.queue.pop_front()
        {
            let topic = &mut self.topics[number];
            while sends < SENDS_MAX
                && let Some(descriptor) = topic.subscribers.get(topic.visited).copied()
            {
                topic.visited += 1;
                let connection = self.connections[descriptor as usize].as_mut();
                sends += usize::from(connection.is_some_and(|subscriber| subscriber.send_due(topic)));
            }
            if topic.visited >= topic.subscribers.len() {
                topic.visited = 0;
                topic.queued = mem::take(&mut topic.again);
            }
            if topic.queued {
                self.queue.push_back(number);
            }
        }
    }
}

impl Connection {
    /// Sends what is due, up to [`SEND_BYTES_MAX`]. Returns whether anything was.
    fn send_due(&mut self, topic: &mut Topic) -> bool {
        let State::Stream { cursor, blocked, .. } = &mut self.state else { return false };
        let due = &topic.log[*cursor..];
        if *blocked || due.is_empty() {
            return false;
        }
        let wanted = due.len().min(SEND_BYTES_MAX);
        // An error raises an event, which closes the connection.
        let sent = send(&self.socket, &due[..wanted], SendFlags::NOSIGNAL).unwrap_or(0);
        *blocked = sent < wanted;
        *cursor += sent;
        topic.again |= sent == wanted && *cursor < topic.log.len();
        true
    }
}
