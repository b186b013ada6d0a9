//! The fixtures of the shard's tests: simulated sockets, a hub, and what subscribers receive.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::FutureExt;
use tidings_log::Cursor;
use tidings_sse::{Item, Parser};
use tidings_topic::{ConnectionId, Grants, Matcher, NewEvent, Since};
use tokio::time::{Instant, advance};

use super::super::*;
use crate::{
    EditError, EditProof, Hub, HubSettings, MemoryLimits, MemoryLog, Subscribe, TopicEdit,
    shard::{inbox::Inbox, lag::Lag},
};

const HEAD: &[u8] = b"HEAD\r\n\r\n";
pub(super) const TOPICS: [&str; 4] = ["a", "b", "c", "d"];
const PROOF: EditProof = EditProof([1; 32]);

/// A socket as a test moves it.
#[derive(Clone, Debug, Default)]
pub(super) struct Socket(Arc<Mutex<Peer>>);

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a socket has that many independent states")]
pub(super) struct Peer {
    pub(super) received: Vec<u8>,
    /// Bytes that fit before the socket is full.
    pub(super) room: usize,
    /// The sending side has found the socket full and waits to receive that it is not.
    pub(super) is_awaited: bool,
    pub(super) input: Vec<u8>,
    pub(super) has_hung_up: bool,
    pub(super) is_reset: bool,
    pub(super) was_shut_down: bool,
    /// What the stream has ended with.
    pub(super) ended_by: Option<CloseReason>,
    pub(super) writes: usize,
    pub(super) largest_write: usize,
    /// So many calls will be interrupted by a signal.
    pub(super) interruptions: usize,
    /// An encrypted socket accepts whole records of at most so many bytes, and keeps what does not
    /// fit; 0 is a plain one.
    pub(super) record_bytes: usize,
    unsent: Vec<u8>,
}

impl Socket {
    pub(super) fn peer(&self) -> MutexGuard<'_, Peer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    fn interrupt(&mut self) -> io::Result<()> {
        let Some(fewer) = self.interruptions.checked_sub(1) else { return Ok(()) };
        self.interruptions = fewer;
        Err(io::ErrorKind::Interrupted.into())
    }

    /// What fits of these bytes.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!self.is_awaited, "a write to a socket that was full");
        assert!(!self.was_shut_down, "a write after the end");
        self.interrupt()?;
        self.writes += 1;
        self.largest_write = self.largest_write.max(bytes.len());
        if self.is_reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let taken = self.room.min(bytes.len());
        self.room -= taken;
        self.received.extend_from_slice(&bytes[..taken]);
        self.is_awaited = taken < bytes.len();
        if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let unsent = std::mem::take(&mut self.unsent);
        let sent = loop {
            match self.send(&unsent) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => break sent,
            }
        };
        self.unsent = unsent[*sent.as_ref().unwrap_or(&0)..].to_vec();
        if self.is_awaited { Err(io::ErrorKind::WouldBlock.into()) } else { sent.map(|_| ()) }
    }
}

impl Wire for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut peer = self.peer();
        assert!(!bytes.is_empty(), "a write of nothing");
        if peer.record_bytes == 0 {
            return peer.send(bytes);
        }
        peer.flush()?;
        let mut accepted = 0;
        for record in bytes.chunks(peer.record_bytes) {
            peer.unsent = record.to_vec();
            accepted += record.len();
            if peer.flush().is_err() {
                break;
            }
        }
        Ok(accepted)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.peer().flush()
    }

    fn unsent_bytes(&self) -> usize {
        self.peer().unsent.len()
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut peer = self.peer();
        peer.interrupt()?;
        if peer.is_reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if peer.input.is_empty() {
            return if peer.has_hung_up { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let taken = peer.input.len().min(into.len());
        into[..taken].copy_from_slice(&peer.input[..taken]);
        peer.input.drain(..taken);
        Ok(taken)
    }

    fn shut_down(&mut self) {
        self.peer().was_shut_down = true;
    }

    fn report_end(&mut self, reason: CloseReason) {
        self.peer().ended_by = Some(reason);
    }
}

/// A hub, a shard, and who listens.
pub(super) struct Stage {
    pub(super) hub: Hub,
    pub(super) shard: Shard<Socket>,
    pub(super) inbox: Inbox<()>,
    pub(super) listeners: Vec<Listener>,
    /// What the one that comes next has already sent unasked.
    pub(super) early_bytes: usize,
    /// Of the socket that comes next, see [`Peer::record_bytes`].
    pub(super) record_bytes: usize,
    published: Vec<Published>,
    /// How many of them are in the feeds.
    written_count: usize,
}

pub(super) struct Listener {
    pub(super) key: Key,
    pub(super) socket: Socket,
    pub(super) filter: tidings_topic::Filter,
    connection: ConnectionId,
    /// What it is and was subscribed to.
    subscribed: Vec<Subscribed>,
    /// How many had been published when it came.
    pub(super) begins_at: usize,
    /// How many of those that had been published when it came may be on their way to the feeds
    /// still, so that an ephemeral one reaches it: those from here on.
    joined_at: usize,
}

/// A topic, and the events on it that are in the stream: those after `after` and up to `until`.
struct Subscribed {
    matcher: Matcher,
    after: Option<Cursor>,
    until: Option<Cursor>,
}

struct Published {
    topics: Vec<usize>,
    private: bool,
    /// Where it is in the log; none for an ephemeral one.
    cursor: Option<Cursor>,
}

impl Stage {
    pub(super) async fn new(change: impl FnOnce(&mut HubSettings)) -> Self {
        let mut settings = HubSettings::default();
        change(&mut settings);
        let heartbeat = settings.heartbeat;
        let log = MemoryLog::new(MemoryLimits::default());
        let hub = Hub::builder().log(log).settings(settings).start().await.expect("memory is there");
        Self {
            hub,
            shard: Shard::new(heartbeat),
            inbox: Inbox::new(Arc::<Lag>::default().add_shard().pending_feeds()),
            listeners: Vec::new(),
            early_bytes: 0,
            record_bytes: 0,
            published: Vec::new(),
            written_count: 0,
        }
    }

    pub(super) async fn publish(&mut self, topics: &[usize], private: bool, bytes: usize) {
        self.publish_any(topics, private, false, bytes).await;
    }

    pub(super) async fn publish_ephemeral(&mut self, topics: &[usize], private: bool, bytes: usize) {
        self.publish_any(topics, private, true, bytes).await;
    }

    async fn publish_any(&mut self, topics: &[usize], private: bool, ephemeral: bool, bytes: usize) {
        let names = topics.iter().map(|topic| TOPICS[*topic].to_owned()).collect();
        let data = format!("{}:{}", self.published.len(), "x".repeat(bytes));
        let event = NewEvent { topics: names, data, private, ephemeral, ..NewEvent::default() };
        let published = self.hub.publish(event).await.expect("published");
        let cursor = published.id.map(|id| Cursor::parse(id.as_str()).expect("a generated id"));
        self.published.push(Published { topics: topics.to_vec(), private, cursor });
    }

    pub(super) fn published_count(&self) -> usize {
        self.published.len()
    }

    pub(super) fn matchers(&self, topics: &[usize]) -> Vec<Matcher> {
        topics.iter().map(|topic| self.hub.validator().exact(TOPICS[*topic]).expect("valid")).collect()
    }

    pub(super) async fn subscribe(
        &mut self,
        topics: &[usize],
        granted: &[usize],
        from_start: bool,
        room: usize,
    ) -> usize {
        let grants = Grants::from_iter(self.matchers(granted));
        let since = if from_start { Since::Earliest } else { Since::Now };
        let ask = Subscribe::new(self.matchers(topics)).grants(grants).since(since);
        self.open(ask, if from_start { 0 } else { self.published.len() }, room).await
    }

    pub(super) async fn open(&mut self, ask: Subscribe, begins_at: usize, room: usize) -> usize {
        let ask = ask.editable(PROOF, None);
        let subscription = self.hub.subscribe(ask).await.expect("memory is there");
        let (_, parts) = subscription.into_parts();
        let filter = tidings_topic::Filter::clone(&parts.reader.filter);
        let connection = parts.reader.connection;
        let subscribed = filter.matchers.iter().map(|matcher| Subscribed {
            matcher: matcher.clone(),
            after: None,
            until: None,
        });
        let subscribed = subscribed.collect();
        let socket = Socket::default();
        socket.peer().room = room;
        socket.peer().record_bytes = self.record_bytes;
        let new_subscriber = NewSubscriber {
            wire: socket.clone(),
            headers: HEAD.to_vec(),
            input_bytes: self.early_bytes,
            parts,
        };
        let new_notifier = |group| FeedNotifier::new(&self.inbox, group);
        let key = self.shard.adopt(new_subscriber, new_notifier, Instant::now().into_std());
        let joined_at = self.written_count;
        self.listeners.push(Listener { key, socket, filter, connection, subscribed, begins_at, joined_at });
        self.listeners.len() - 1
    }

    /// Changes the topics of a listener; whether it has.
    pub(super) async fn edit(&mut self, who: usize, add: &[usize], remove: &[usize]) -> bool {
        // Changes are limited in time.
        advance(Duration::from_millis(50)).await;
        let edit = TopicEdit { add: self.matchers(add), remove: self.matchers(remove) };
        let (key, connection) = (self.listeners[who].key, self.listeners[who].connection);
        let mut answered = Box::pin(self.hub.edit(connection, PROOF, edit.clone()));
        let refused = (&mut answered).now_or_never();
        let new_notifier = |group| FeedNotifier::new(&self.inbox, group);
        let now = Instant::now().into_std();
        self.shard.edit(key, new_notifier, &self.hub.state.engine, now);
        let answer = match refused {
            Some(refused) => refused,
            None => answered.await,
        };
        let is_here = self.shard.wire(key).is_some();
        let listener = &mut self.listeners[who];
        let expected = edit.apply_to(&listener.filter.matchers);
        match answer {
            Ok(edited) => {
                let names: Vec<_> = expected.iter().map(Matcher::as_str).collect();
                assert_eq!(edited.topics, names);
                let place = Cursor::parse(edited.cursor.as_str()).expect("a generated id");
                let left = |one: &&mut Subscribed| one.until.is_none() && edit.remove.contains(&one.matcher);
                listener.subscribed.iter_mut().filter(left).for_each(|one| one.until = Some(place));
                for matcher in &expected {
                    let has_it = |one: &Subscribed| one.until.is_none() && one.matcher == *matcher;
                    if !listener.subscribed.iter().any(has_it) {
                        let matcher = matcher.clone();
                        listener.subscribed.push(Subscribed { matcher, after: Some(place), until: None });
                    }
                }
                listener.filter.matchers = expected;
                true
            }
            Err(EditError::NoTopics) => {
                assert!(expected.is_empty());
                false
            }
            Err(error) => {
                let is_ending = listener.socket.peer().has_hung_up;
                assert!(error == EditError::Unknown && (is_ending || !is_here), "{error}");
                false
            }
        }
    }

    /// Lets the writer of the hub write, and the shard receive of it.
    pub(super) async fn write(&mut self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        self.written_count = self.published.len();
        let mut grown = Vec::new();
        self.inbox.take(&mut grown, &mut Vec::new());
        for group in grown {
            self.shard.grown(group, 0);
        }
    }

    pub(super) fn slice(&mut self) -> bool {
        self.shard.slice(&self.hub.state.engine, Instant::now().into_std())
    }

    /// A whole sweep, of which slices make only a part at a time.
    pub(super) fn sweep(&mut self) {
        self.shard.begin_sweep();
        while let Some(slot) = self.shard.sweep_slot {
            self.shard.sweep_on(slot, &self.hub.state.engine, Instant::now().into_std());
        }
    }

    pub(super) async fn read_pages(&mut self) {
        for (key, request) in std::mem::take(&mut self.shard.requests) {
            let page = self.hub.state.engine.replays.next_page(request).await.expect("memory is there");
            self.shard.take_page(key, page);
        }
    }

    pub(super) fn make_room(&mut self, listener: usize, room: usize) {
        let Listener { key, socket, .. } = &self.listeners[listener];
        let mut peer = socket.peer();
        peer.room += room;
        if std::mem::take(&mut peer.is_awaited) {
            drop(peer);
            self.shard.writable(*key);
        }
    }

    /// Until there is nothing to do any more.
    pub(super) async fn settle(&mut self) {
        for _ in 0..10_000 {
            self.write().await;
            let has_more = self.slice();
            if !has_more && self.shard.requests.is_empty() {
                return;
            }
            self.read_pages().await;
        }
        panic!("the shard never rests");
    }

    /// The stored events that a listener should receive.
    pub(super) fn expected(&self, listener: &Listener) -> Vec<usize> {
        let published = self.published.iter().enumerate().skip(listener.begins_at);
        let accepted = published.filter(|(_, event)| event.cursor.is_some() && self.accepts(listener, event));
        accepted.map(|(number, _)| number).collect()
    }

    /// The stored events among those that a listener has received. All are in the order in which
    /// they were published, each once, and of the ephemeral ones there are only such as it may
    /// receive and that were published after it had joined.
    pub(super) fn stored(&self, listener: &Listener, received: &Received) -> Vec<usize> {
        let numbers = &received.numbers;
        assert!(numbers.is_sorted_by(|one, next| one < next), "out of order: {numbers:?}");
        let (ephemeral, stored): (Vec<_>, Vec<_>) =
            numbers.iter().partition(|number| self.published[**number].cursor.is_none());
        for number in ephemeral {
            assert!(number >= listener.joined_at, "{number} was replayed: {numbers:?}");
            assert!(self.accepts(listener, &self.published[number]), "{number} is for others: {numbers:?}");
        }
        stored
    }

    fn accepts(&self, listener: &Listener, event: &Published) -> bool {
        let topic = |topic: &usize| self.hub.validator().topic(TOPICS[*topic]).expect("valid");
        let topics: Vec<_> = event.topics.iter().map(topic).collect();
        // An ephemeral event has no place in the log.
        let is_within = |one: &&Subscribed| {
            event.cursor.is_none_or(|cursor| {
                one.after.is_none_or(|after| after.position < cursor.position)
                    && one.until.is_none_or(|until| cursor.position <= until.position)
            })
        };
        let subscribed = listener.subscribed.iter().filter(is_within);
        let matchers = subscribed.map(|one| one.matcher.clone()).collect();
        let filter = tidings_topic::Filter { matchers, grants: listener.filter.grants.clone() };
        filter.accepts_topics(&topics, event.private)
    }
}

/// The events, notices and comments in what a socket took; every chunk but the last must be whole.
pub(super) fn received(bytes: &[u8]) -> Received {
    let mut rest = bytes.strip_prefix(HEAD).unwrap_or_default();
    let mut received = Received::default();
    let mut parser = Parser::new();
    while !rest.is_empty() {
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else { break };
        let size = std::str::from_utf8(&rest[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size in hexadecimal digits");
        if size == 0 {
            assert!(b"0\r\n\r\n".starts_with(rest), "nothing comes after the end: {rest:?}");
            received.has_ended = rest == b"0\r\n\r\n";
            break;
        }
        let Some(mut inner) = rest.get(end + 2..end + 2 + size) else { break };
        received.chunks += 1;
        while let Some(item) = parser.next(&mut inner) {
            match item.expect("a stream of events") {
                Item::Event(event) if event.event_type == "tidings" => {
                    received.notices.push(event.data);
                    received.notice_ids.push(event.last_event_id);
                }
                Item::Event(event) => {
                    let number = event.data.split(':').next().expect("a number");
                    received.numbers.push(number.parse().expect("a number"));
                    received.last_id = event.last_event_id;
                }
                _ => {}
            }
        }
        rest = rest.get(end + 4 + size..).unwrap_or_default();
    }
    received
}

#[derive(Debug, Default)]
pub(super) struct Received {
    pub(super) numbers: Vec<usize>,
    pub(super) notices: Vec<String>,
    /// What a client resumes after that has received no more.
    pub(super) notice_ids: Vec<String>,
    /// Of the last event.
    pub(super) last_id: String,
    pub(super) chunks: usize,
    pub(super) has_ended: bool,
}
