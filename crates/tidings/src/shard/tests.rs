//! A shard with simulated sockets and time: whatever sockets take and whenever, each subscriber's bytes parse to exactly its events.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proptest::prelude::*;
use tidings_sse::{Item, Parser};
use tidings_topic::{Grants, Matcher, NewEvent, Since};
use tokio::time::{Instant, advance};

use super::*;
use crate::{Hub, HubSettings, MemoryLimits, MemoryLog, Subscribe, inbox::Inbox};

const HEAD: &[u8] = b"HEAD\r\n\r\n";
const TOPICS: [&str; 4] = ["a", "b", "c", "d"];

/// A socket as a test moves it.
#[derive(Clone, Debug, Default)]
struct Socket(Arc<Mutex<Peer>>);

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a socket has that many independent states")]
struct Peer {
    heard: Vec<u8>,
    /// Bytes that fit before the socket is full.
    room: usize,
    /// The sending side has found the socket full and waits to hear that it is not.
    is_awaited: bool,
    input: Vec<u8>,
    has_hung_up: bool,
    is_reset: bool,
    was_shut_down: bool,
    writes: usize,
}

impl Socket {
    fn peer(&self) -> MutexGuard<'_, Peer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut peer = self.peer();
        assert!(!bytes.is_empty(), "a write of nothing");
        assert!(!peer.is_awaited, "a write to a socket that was full");
        assert!(!peer.was_shut_down, "a write behind the end");
        peer.writes += 1;
        if peer.is_reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let taken = peer.room.min(bytes.len());
        peer.room -= taken;
        peer.heard.extend_from_slice(&bytes[..taken]);
        peer.is_awaited = taken < bytes.len();
        if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut peer = self.peer();
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
}

/// A hub, a shard, and who listens.
struct Stage {
    hub: Hub,
    shard: Shard<Socket>,
    inbox: Inbox<()>,
    listeners: Vec<Listener>,
    published: Vec<Published>,
}

struct Listener {
    key: Key,
    socket: Socket,
    filter: tidings_topic::Filter,
    /// How many had been published when it came.
    begins_at: usize,
}

struct Published {
    topics: Vec<usize>,
    private: bool,
}

impl Stage {
    async fn new(change: impl FnOnce(&mut HubSettings)) -> Self {
        let mut settings = HubSettings::default();
        change(&mut settings);
        let log = MemoryLog::new(MemoryLimits::default());
        let hub = Hub::builder().log(log).settings(settings).start().await.expect("memory is there");
        Self { hub, shard: Shard::new(), inbox: Inbox::new(), listeners: Vec::new(), published: Vec::new() }
    }

    async fn publish(&mut self, topics: &[usize], private: bool, bytes: usize) {
        let names = topics.iter().map(|topic| TOPICS[*topic].to_owned()).collect();
        let data = format!("{}:{}", self.published.len(), "x".repeat(bytes));
        let event = NewEvent { topics: names, data, private, ..NewEvent::default() };
        self.hub.publish(event).await.expect("published");
        self.published.push(Published { topics: topics.to_vec(), private });
    }

    fn matchers(&self, topics: &[usize]) -> Vec<Matcher> {
        topics.iter().map(|topic| self.hub.validator().exact(TOPICS[*topic]).expect("valid")).collect()
    }

    async fn subscribe(
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

    async fn open(&mut self, ask: Subscribe, begins_at: usize, room: usize) -> usize {
        let filter = ask.filter.clone();
        let subscription = self.hub.subscribe(ask).await.expect("memory is there");
        let (_, parts) = subscription.into_parts();
        let socket = Socket::default();
        socket.peer().room = room;
        let newcomer = Newcomer {
            wire: socket.clone(),
            reader: parts.reader,
            head: HEAD.to_vec(),
            backlog: parts.backlog,
            sent: parts.sent,
            ends: parts.ends,
            input_bytes: 0,
            heartbeat: parts.heartbeat,
            membership: parts.membership,
            keep: Box::new(()),
        };
        let key =
            self.shard.adopt(newcomer, |group| Seat::new(&self.inbox, group), Instant::now().into_std());
        self.listeners.push(Listener { key, socket, filter, begins_at });
        self.listeners.len() - 1
    }

    /// Lets the writer of the hub write, and the shard hear of it.
    async fn write(&mut self) {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        let mut grown = Vec::new();
        self.inbox.take(&mut grown, &mut Vec::new());
        for group in grown {
            self.shard.grown(group, 0);
        }
    }

    fn slice(&mut self) -> bool {
        self.shard.slice(&self.hub.shared, Instant::now().into_std())
    }

    fn sweep(&mut self) {
        self.shard.sweep(&self.hub.shared, Instant::now().into_std());
    }

    async fn read_pages(&mut self) {
        for (key, request) in std::mem::take(&mut self.shard.requests) {
            let page = self.hub.shared.first_page(request).await.expect("memory is there");
            self.shard.take_page(key, page);
        }
    }

    fn make_room(&mut self, listener: usize, room: usize) {
        let Listener { key, socket, .. } = &self.listeners[listener];
        let mut peer = socket.peer();
        peer.room += room;
        if std::mem::take(&mut peer.is_awaited) {
            drop(peer);
            self.shard.writable(*key);
        }
    }

    /// Until there is nothing to do any more.
    async fn settle(&mut self) {
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

    /// What a listener should hear.
    fn expected(&self, listener: &Listener) -> Vec<usize> {
        let published = self.published.iter().enumerate().skip(listener.begins_at);
        let accepted = published.filter(|(_, event)| {
            let topics: Vec<_> = event
                .topics
                .iter()
                .map(|topic| self.hub.validator().topic(TOPICS[*topic]).expect("valid"))
                .collect();
            listener.filter.accepts_topics(&topics, event.private)
        });
        accepted.map(|(number, _)| number).collect()
    }
}

/// The events, notices and comments in what a socket took; every chunk but the last must be whole.
fn heard(bytes: &[u8]) -> Heard {
    let mut rest = bytes.strip_prefix(HEAD).unwrap_or_default();
    let mut heard = Heard::default();
    let mut parser = Parser::new();
    while !rest.is_empty() {
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else { break };
        let size = std::str::from_utf8(&rest[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size in hexadecimal digits");
        if size == 0 {
            assert_eq!(rest, b"0\r\n\r\n", "nothing comes behind the end");
            heard.has_ended = true;
            break;
        }
        let Some(mut inner) = rest.get(end + 2..end + 2 + size) else { break };
        heard.chunks += 1;
        while let Some(item) = parser.next(&mut inner) {
            match item.expect("a stream of events") {
                Item::Event(event) if event.event_type == "tidings" => heard.notices.push(event.data),
                Item::Event(event) => {
                    let number = event.data.split(':').next().expect("a number");
                    heard.numbers.push(number.parse().expect("a number"));
                    heard.last_id = event.last_event_id;
                }
                _ => {}
            }
        }
        rest = rest.get(end + 4 + size..).unwrap_or_default();
    }
    heard
}

#[derive(Debug, Default)]
struct Heard {
    numbers: Vec<usize>,
    notices: Vec<String>,
    /// Of the last event.
    last_id: String,
    chunks: usize,
    has_ended: bool,
}

/// What may happen, in any order.
#[derive(Clone, Debug)]
enum Act {
    Subscribe { topics: Vec<usize>, granted: Vec<usize>, from_start: bool, room: usize },
    Publish { topics: Vec<usize>, private: bool, bytes: usize },
    Write,
    Slice,
    Room { who: usize, room: usize },
    ReadPages,
    Sweep { secs: u64 },
    Reset { who: usize },
    HangUp { who: usize },
}

fn act() -> impl Strategy<Value = Act> {
    let topics = || prop::collection::vec(0..TOPICS.len(), 1..3);
    prop_oneof![
        2 => (topics(), topics(), any::<bool>(), 0..5_000_usize)
            .prop_map(|(topics, granted, from_start, room)| Act::Subscribe { topics, granted, from_start, room }),
        8 => (topics(), any::<bool>(), prop_oneof![8 => 0..300_usize, 1 => 60_000..80_000_usize])
            .prop_map(|(topics, private, bytes)| Act::Publish { topics, private, bytes }),
        4 => Just(Act::Write),
        6 => Just(Act::Slice),
        8 => (0..8_usize, prop_oneof![1..40_usize, 100..3_000_usize])
            .prop_map(|(who, room)| Act::Room { who, room }),
        3 => Just(Act::ReadPages),
        1 => (0..20_u64).prop_map(|secs| Act::Sweep { secs }),
        1 => (0..8_usize).prop_map(|who| Act::Reset { who }),
        1 => (0..8_usize).prop_map(|who| Act::HangUp { who }),
    ]
}

async fn play(acts: Vec<Act>, feed_bytes_max: usize, pending_bytes_max: usize) -> Stage {
    let mut stage = Stage::new(|settings| {
        settings.feed_bytes_max = feed_bytes_max;
        settings.replay_page_bytes = 2_000;
        settings.pending_bytes_max = pending_bytes_max;
    })
    .await;
    for act in acts {
        let count = stage.listeners.len();
        let listener = |who: usize| (count > 0).then(|| who % count);
        match act {
            Act::Subscribe { topics, granted, from_start, room } => {
                stage.subscribe(&topics, &granted, from_start, room).await;
            }
            Act::Publish { topics, private, bytes } => stage.publish(&topics, private, bytes).await,
            Act::Write => stage.write().await,
            Act::Slice => drop(stage.slice()),
            Act::Room { who, room } => {
                if let Some(who) = listener(who) {
                    stage.make_room(who, room);
                }
            }
            Act::ReadPages => stage.read_pages().await,
            Act::Sweep { secs } => {
                advance(Duration::from_secs(secs)).await;
                stage.sweep();
            }
            Act::Reset { who } => {
                if let Some(who) = listener(who) {
                    stage.listeners[who].socket.peer().is_reset = true;
                    let key = stage.listeners[who].key;
                    stage.shard.readable(key, &stage.hub.shared);
                }
            }
            Act::HangUp { who } => {
                if let Some(who) = listener(who) {
                    stage.listeners[who].socket.peer().has_hung_up = true;
                    let key = stage.listeners[who].key;
                    stage.shard.readable(key, &stage.hub.shared);
                }
            }
        }
    }
    stage
}

fn in_paused_time<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(run)
}

proptest! {
    #[test]
    fn each_subscribers_bytes_parse_to_exactly_its_events(
        acts in prop::collection::vec(act(), 0..80),
        feed_bytes_max in prop::sample::select(vec![1_500, 20_000, 1 << 20]),
    ) {
        in_paused_time(async {
            let mut stage = play(acts, feed_bytes_max, usize::MAX).await;
            let is_cut = |peer: &Peer| peer.is_reset || peer.has_hung_up;
            for who in 0..stage.listeners.len() {
                let listener = &stage.listeners[who];
                let heard = heard(&listener.socket.peer().heard);
                let expected = stage.expected(listener);
                prop_assert!(expected.starts_with(&heard.numbers), "{:?} of {expected:?}", heard.numbers);
            }
            for who in 0..stage.listeners.len() {
                stage.make_room(who, 1 << 30);
            }
            stage.settle().await;
            for listener in &stage.listeners {
                let peer = listener.socket.peer();
                let heard = heard(&peer.heard);
                let expected = stage.expected(listener);
                if is_cut(&peer) || stage.shard.wire(listener.key).is_none() {
                    prop_assert!(expected.starts_with(&heard.numbers), "{:?} of {expected:?}", heard.numbers);
                } else {
                    prop_assert_eq!(&heard.numbers, &expected);
                }
                prop_assert_eq!(&heard.notices, &Vec::<String>::new());
            }
            // What has been sent waits nowhere.
            prop_assert_eq!(stage.shard.pending_bytes, 0);
            Ok(())
        })?;
    }

    /// When all sockets are stuffed and little may wait for them, pages are given back and connections cut, and the others hear everything.
    #[test]
    fn a_small_budget_loses_nobody_an_event(acts in prop::collection::vec(act(), 0..80), budget in 0..3_000_usize) {
        in_paused_time(async {
            let mut stage = play(acts, 1_500, budget).await;
            for who in 0..stage.listeners.len() {
                stage.make_room(who, 1 << 30);
            }
            stage.settle().await;
            for listener in &stage.listeners {
                let heard = heard(&listener.socket.peer().heard);
                let expected = stage.expected(listener);
                prop_assert!(expected.starts_with(&heard.numbers), "{:?} of {expected:?}", heard.numbers);
                if stage.shard.wire(listener.key).is_some() {
                    prop_assert_eq!(&heard.numbers, &expected);
                }
            }
            Ok(())
        })?;
    }
}

#[test]
fn everything_that_is_owed_goes_out_in_one_write() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        stage.settle().await;
        let before = stage.listeners[who].socket.peer().writes;
        for _ in 0..100 {
            stage.publish(&[0], false, 100).await;
        }
        stage.settle().await;
        let peer = stage.listeners[who].socket.peer();
        assert_eq!(heard(&peer.heard).numbers.len(), 100);
        assert_eq!(peer.writes - before, 1);
    });
}

#[test]
fn what_is_published_during_a_round_is_sent_along_to_those_who_come_later_in_it() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        for _ in 0..200 {
            stage.subscribe(&[0], &[], false, 1 << 20).await;
        }
        stage.settle().await;
        let writes = |stage: &Stage| -> usize {
            stage.listeners.iter().map(|listener| listener.socket.peer().writes).sum()
        };
        let before = writes(&stage);
        stage.publish(&[0], false, 10).await;
        stage.write().await;
        assert!(stage.slice(), "a slice is smaller than 200 sends");
        let first = writes(&stage) - before;
        assert!(first <= SLICE_SENDS, "{first}");
        stage.publish(&[0], false, 10).await;
        stage.settle().await;
        assert_eq!(writes(&stage) - before, 200 + first);
    });
}

#[test]
fn a_silent_subscriber_hears_a_heartbeat_and_a_stuffed_one_is_cut() {
    in_paused_time(async {
        let mut stage = Stage::new(|settings| settings.heartbeat = Duration::from_secs(15)).await;
        let silent = stage.subscribe(&[0], &[], false, 1 << 20).await;
        let stuffed = stage.subscribe(&[1], &[], false, 200).await;
        stage.settle().await;
        stage.publish(&[1], false, 300).await;
        stage.settle().await;
        let before = stage.listeners[silent].socket.peer().heard.len();
        for _ in 0..44 {
            advance(Duration::from_secs(1)).await;
            stage.sweep();
            stage.settle().await;
        }
        let heartbeats = stage.listeners[silent].socket.peer().heard[before..].to_vec();
        assert_eq!(heartbeats, b"5\r\n: hb\n\r\n".repeat(heartbeats.len() / 10));
        assert!((2..=3).contains(&(heartbeats.len() / 10)), "{}", heartbeats.len());
        assert!(stage.shard.wire(stage.listeners[stuffed].key).is_some(), "it may be slow for a while");
        advance(Duration::from_secs(2)).await;
        stage.sweep();
        assert!(stage.shard.wire(stage.listeners[stuffed].key).is_none());
        assert!(stage.shard.wire(stage.listeners[silent].key).is_some());
    });
}

#[test]
fn a_reader_that_stalls_keeps_its_place_and_gets_the_rest_when_it_goes_on() {
    in_paused_time(async {
        let mut stage = Stage::new(|settings| settings.feed_bytes_max = 10_000).await;
        let who = stage.subscribe(&[0], &[], false, 700).await;
        for _ in 0..500 {
            stage.publish(&[0], false, 100).await;
            stage.settle().await;
        }
        assert!(heard(&stage.listeners[who].socket.peer().heard).numbers.len() < 5);
        stage.make_room(who, 1 << 20);
        stage.settle().await;
        let heard = heard(&stage.listeners[who].socket.peer().heard);
        assert_eq!(heard.numbers, (0..500).collect::<Vec<_>>());
    });
}

#[test]
fn a_stream_ends_with_a_notice_whose_id_is_the_last_event_that_was_sent() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let chat = stage.matchers(&[0]);
        let ask = Subscribe::new(chat).expires_in(Duration::from_secs(5));
        let who = stage.open(ask, 0, 1 << 20).await;
        stage.publish(&[0], false, 10).await;
        stage.settle().await;
        advance(Duration::from_secs(5)).await;
        // Published before the sweep finds the end, and too late all the same.
        stage.publish(&[0], false, 10).await;
        stage.settle().await;
        let peer = stage.listeners[who].socket.peer();
        let heard = heard(&peer.heard);
        assert_eq!(heard.numbers, [0]);
        assert!(heard.has_ended && peer.was_shut_down);
        assert_eq!(heard.notices, [r#"{"kind":"reconnect","reason":"expired"}"#]);
        let text = String::from_utf8_lossy(&peer.heard);
        assert_eq!(text.matches(&format!("id: {}\n", heard.last_id)).count(), 2, "{text}");
    });
}

#[test]
fn a_half_sent_event_is_finished_before_the_last_words() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 150).await;
        stage.settle().await;
        stage.publish(&[0], false, 500).await;
        stage.settle().await;
        stage.hub.close();
        stage.sweep();
        stage.settle().await;
        assert!(!heard(&stage.listeners[who].socket.peer().heard).has_ended);
        stage.make_room(who, 1 << 20);
        stage.settle().await;
        let heard = heard(&stage.listeners[who].socket.peer().heard);
        assert_eq!(heard.numbers, [0]);
        assert!(heard.has_ended);
    });
}

#[test]
fn who_sends_more_than_a_few_kib_unasked_is_cut() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        let who = stage.subscribe(&[0], &[], false, 1 << 20).await;
        let key = stage.listeners[who].key;
        for (bytes, is_here) in [(INPUT_BYTES_MAX - 1, true), (2, false)] {
            stage.listeners[who].socket.peer().input = vec![b'x'; bytes];
            stage.shard.readable(key, &stage.hub.shared);
            assert_eq!(stage.shard.wire(key).is_some(), is_here);
        }
        assert_eq!(stage.hub.stats().subscribers, 0);
        assert_eq!(stage.hub.stats().feeds, 0);
    });
}

#[test]
fn an_idle_subscriber_is_small() {
    let bytes = size_of::<Subscriber<std::net::TcpStream>>();
    assert!(bytes <= 272, "{bytes}");
}

#[test]
fn a_hub_that_hands_over_ends_its_sockets_one_after_the_other() {
    in_paused_time(async {
        let mut stage = Stage::new(|_| {}).await;
        for _ in 0..100 {
            stage.subscribe(&[0], &[], false, 1 << 20).await;
        }
        let frozen = stage.subscribe(&[0], &[], false, 0).await;
        stage.settle().await;
        stage.hub.close_over(Duration::from_secs(10));
        let mut left = Vec::new();
        for _ in 0..13 {
            stage.sweep();
            stage.settle().await;
            left.push(stage.hub.stats().subscribers);
            advance(Duration::from_secs(1)).await;
        }
        let steps: Vec<_> = left.windows(2).take(10).map(|pair| pair[0] - pair[1]).collect();
        assert!(steps.iter().all(|step| (5..=15).contains(step)), "{left:?}");
        assert_eq!(left[12], 0, "who takes nothing is not waited for: {left:?}");
        for (who, listener) in stage.listeners.iter().enumerate() {
            assert!(who == frozen || heard(&listener.socket.peer().heard).has_ended);
        }
    });
}
