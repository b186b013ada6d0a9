//! What is published in a round and its outcome: the truth that the checker compares with what
//! subscribers received.
//!
//! The truth does not come from the hub. A [`Recorded`] log records what the log answered to each
//! append, each append by another node is recorded by its caller, and an observer follows the log's
//! own tail, which shows what was accepted although its publisher got no answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use tidings::{
    ConnectionId, Event, EventId, Filter, Grants, Matcher, NewEvent, Topic, Unavailable, Validator,
    log::{
        AppendError, Appended, Batch, Bounds, Cursor, Deleted, EpochStart, Log, Page, Position, Tail,
        TailItem,
    },
};

use crate::random::Random;

/// The topics of all events. The last one is rare, so that its subscribers detect false gaps.
pub(crate) const TOPICS: [&str; 9] = [
    "/room/1",
    "/room/2",
    "/room/3",
    "news",
    "https://example.com/a",
    "https://example.com/b",
    "user-1",
    "user-2",
    "rare",
];
const RARE: usize = TOPICS.len() - 1;

/// What a subscriber asks for or is granted, as this test understands it: without the matchers of
/// the hub.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    Topic(usize),
    Rooms,
    Examples,
    Everything,
}

impl Wish {
    pub(crate) fn random(random: &mut Random) -> Self {
        match random.between(0, 10) {
            0 => Self::Everything,
            1 | 2 => Self::Rooms,
            3 => Self::Examples,
            _ => Self::Topic(random.between(0, TOPICS.len())),
        }
    }

    pub(crate) fn matcher(self, validator: &Validator) -> Matcher {
        let matcher = match self {
            Self::Topic(topic) => validator.exact(TOPICS[topic]),
            Self::Rooms => validator.pattern("/room/:number"),
            Self::Examples => validator.pattern("https://example.com/:letter"),
            Self::Everything => validator.exact("*"),
        };
        matcher.expect("a valid matcher")
    }

    fn means(self, topic: usize) -> bool {
        match self {
            Self::Topic(wished) => wished == topic,
            Self::Rooms => topic < 3,
            Self::Examples => topic == 4 || topic == 5,
            Self::Everything => true,
        }
    }
}

/// An attempted publication. Its number is in its data.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) topics: Vec<usize>,
    pub(crate) private: bool,
    /// The connection that must not receive it.
    pub(crate) except: Option<ConnectionId>,
    pub(crate) has_own_id: bool,
    pub(crate) outcome: Outcome,
    /// Its position, also one that the log has lost since. A publisher without an answer may have
    /// appended it again after that.
    pub(crate) cursors: Vec<Cursor>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// It is not known (yet) whether the log accepted it.
    Unknown,
    Acknowledged,
    /// The log refused it.
    Refused,
}

impl Said {
    /// Whether it may be delivered by what was asked for and granted.
    pub(crate) fn is_for(&self, wishes: &[Wish], grants: &[Wish]) -> bool {
        let some = |wishes: &[Wish]| self.topics.iter().any(|topic| wishes.iter().any(|w| w.means(*topic)));
        some(wishes) && (!self.private || some(grants))
    }

    pub(crate) fn is_visible(&self, grants: &[Wish]) -> bool {
        let granted = self.topics.iter().any(|topic| grants.iter().any(|wish| wish.means(*topic)));
        !self.private || granted
    }
}

/// An epoch of the log, as reported by the code that started it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EpochNote {
    pub(crate) start: EpochStart,
    /// Another log replaced the previous one.
    pub(crate) replaced: bool,
}

/// The truth of one round.
#[derive(Debug, Default)]
pub(crate) struct World {
    state: Mutex<WorldState>,
}

#[derive(Debug, Default)]
pub(crate) struct WorldState {
    pub(crate) said: Vec<Said>,
    pub(crate) placed: HashMap<Cursor, usize>,
    pub(crate) epochs: Vec<EpochNote>,
    /// The newest position that is known to be in the log.
    pub(crate) newest: Option<Cursor>,
    /// Events that were acknowledged to the hub.
    acknowledged: usize,
    /// Ids that were observed, for others to start at.
    pub(crate) ids: Vec<String>,
    /// Connections that are open, for `except`.
    pub(crate) connections: Vec<ConnectionId>,
}

impl World {
    pub(crate) fn state(&self) -> MutexGuard<'_, WorldState> {
        self.state.lock().expect("no test thread panicked with it")
    }

    /// Takes the truth out, once nothing changes it any more.
    pub(crate) fn take(&self) -> WorldState {
        std::mem::take(&mut *self.state())
    }

    /// Generates events, which count as attempted from then on.
    pub(crate) fn invent(&self, random: &mut Random, count: usize) -> Vec<NewEvent> {
        let mut state = self.state();
        (0..count).map(|_| state.invent(random)).collect()
    }

    /// The event that every subscriber waits for.
    pub(crate) fn invent_last(&self) -> NewEvent {
        let topics = (0..TOPICS.len()).collect();
        self.state().say(Said::public(topics), LAST_DATA)
    }

    pub(crate) fn settle(&self, numbers: &[usize], answer: &Result<Appended, AppendError>) {
        let mut state = self.state();
        let outcome = match answer {
            Ok(Appended::New { last, .. }) => {
                state.place_batch(numbers, *last);
                Outcome::Acknowledged
            }
            Err(AppendError::OutcomeUnknown(_)) => Outcome::Unknown,
            // A repeat: the events of this attempt are not the ones that were published the first
            // time.
            Ok(Appended::Duplicate { .. }) | Err(_) => Outcome::Refused,
        };
        for number in numbers {
            state.said[*number].outcome = outcome;
        }
    }

    /// How many events the log has acknowledged to the hub.
    pub(crate) fn acknowledged(&self) -> usize {
        self.state().acknowledged
    }

    pub(crate) fn note_epoch(&self, start: EpochStart, replaced: bool) {
        let mut state = self.state();
        state.epochs.push(EpochNote { start, replaced });
        state.newest = Some(Cursor { epoch: start.epoch, position: start.after });
    }

    /// Follows the log itself up to the last event, for what was accepted without an answer to its
    /// publisher.
    pub(crate) async fn observe(&self, mut tail: Box<dyn Tail>) {
        while let Some(item) = tail.next(1 << 20).await {
            let TailItem::Entries(entries) = item else { continue };
            let mut state = self.state();
            for entry in entries {
                state.place(number_in(&entry.event.data), entry.cursor);
                if is_last(&entry.event.data) {
                    return;
                }
            }
        }
    }
}

impl WorldState {
    fn invent(&mut self, random: &mut Random) -> NewEvent {
        let mut topics = vec![if random.between(0, 500) == 0 { RARE } else { random.between(0, RARE) }];
        while random.percent(15) {
            let another = random.between(0, RARE);
            if !topics.contains(&another) {
                topics.push(another);
            }
        }
        let said = Said {
            private: random.percent(25),
            except: if random.percent(10) { self.any_connection(random) } else { None },
            has_own_id: random.percent(20),
            ..Said::public(topics)
        };
        let padding = "x".repeat(if random.percent(2) { 3_000 } else { random.between(0, 120) });
        let mut event = self.say(said, &padding);
        if random.percent(10) {
            event.event_type = Some("greeting".to_owned());
        }
        event
    }

    fn any_connection(&self, random: &mut Random) -> Option<ConnectionId> {
        (!self.connections.is_empty()).then(|| *random.pick(&self.connections))
    }

    fn say(&mut self, said: Said, padding: &str) -> NewEvent {
        let number = self.said.len();
        let event = NewEvent {
            topics: said.topics.iter().map(|topic| TOPICS[*topic].to_owned()).collect(),
            data: format!("{number}\n{padding}"),
            id: said.has_own_id.then(|| own_id(number)),
            private: said.private,
            except: said.except,
            ..NewEvent::default()
        };
        self.said.push(said);
        event
    }

    /// All logs of this test number their entries without a hole; the checker needs that, the hub
    /// must not rely on it.
    fn place_batch(&mut self, numbers: &[usize], last: Cursor) {
        for (behind, number) in numbers.iter().rev().enumerate() {
            let position = position_of(number_of(last.position) - behind);
            self.place(*number, Cursor { position, ..last });
        }
    }

    pub(crate) fn place(&mut self, number: usize, cursor: Cursor) {
        if let Some(known) = self.placed.insert(cursor, number) {
            let said = (&self.said[known], &self.said[number]);
            assert_eq!(known, number, "two events at {cursor}: {said:?}");
        }
        let cursors = &mut self.said[number].cursors;
        if !cursors.contains(&cursor) {
            let twice = cursors.iter().find(|known| known.epoch == cursor.epoch);
            assert_eq!(twice, None, "event {number} is at {cursor}, too");
            cursors.push(cursor);
        }
        if self.newest.is_some_and(|newest| newest.epoch == cursor.epoch && newest.position < cursor.position)
        {
            self.newest = Some(cursor);
        }
    }
}

impl Said {
    fn public(topics: Vec<usize>) -> Self {
        Self {
            topics,
            private: false,
            except: None,
            has_own_id: false,
            outcome: Outcome::Unknown,
            cursors: Vec::new(),
        }
    }
}

const LAST_DATA: &str = "that was the last";

pub(crate) fn is_last(data: &str) -> bool {
    data.ends_with(LAST_DATA)
}

pub(crate) fn own_id(number: usize) -> String {
    format!("own-{number}")
}

/// The number in the data of an event.
pub(crate) fn number_in(data: &str) -> usize {
    let number = data.lines().next().and_then(|line| line.parse().ok());
    number.unwrap_or_else(|| panic!("no event has the data {data:?}"))
}

pub(crate) fn number_of(position: Position) -> usize {
    usize::try_from(u128::from_be_bytes(position.to_bytes())).unwrap_or(usize::MAX)
}

pub(crate) fn position_of(number: usize) -> Position {
    Position::from_bytes((number as u128).to_be_bytes())
}

/// A log that records its answers.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) world: Arc<World>,
}

#[async_trait]
impl Log for Recorded {
    async fn append_all(&self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>> {
        let numbers =
            |batch: &Batch| batch.events.iter().map(|event: &Event| number_in(&event.data)).collect();
        let numbers: Vec<Vec<_>> = batches.iter().map(numbers).collect();
        let outcomes = self.log.append_all(batches).await;
        for (numbers, outcome) in numbers.iter().zip(&outcomes) {
            self.world.settle(numbers, outcome);
            if let Ok(Appended::New { .. }) = outcome {
                self.world.state().acknowledged += numbers.len();
            }
        }
        outcomes
    }

    async fn delete(&self, topic: &Topic, grants: &Grants) -> Result<Deleted, AppendError> {
        self.log.delete(topic, grants).await
    }

    async fn read(&self, after: Position, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        self.log.read(after, filter, bytes_max).await
    }

    async fn last(&self, count: usize, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        self.log.last(count, filter, bytes_max).await
    }

    async fn resolve(&self, id: &EventId, grants: &Grants) -> Result<Option<Position>, Unavailable> {
        self.log.resolve(id, grants).await
    }

    async fn position_ago(&self, ago: Duration) -> Result<Position, Unavailable> {
        self.log.position_ago(ago).await
    }

    async fn bounds(&self) -> Result<Bounds, Unavailable> {
        self.log.bounds().await
    }

    async fn tail(&self) -> Result<(Cursor, Box<dyn Tail>), Unavailable> {
        self.log.tail().await
    }

    async fn health(&self) -> Result<(), Unavailable> {
        self.log.health().await
    }
}
