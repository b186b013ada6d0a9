//! The participants of a round: publishers, and subscribers that connect and disconnect.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use tidings::{
    Error, EventId, Format, Grants, Hub, IdempotencyKey, NewEvent, Since, Subscribe, Subscription,
    log::{Cursor, Epoch},
};
use tidings_sse::{Item, ParsedEvent, Parser};
use tokio::time::{sleep, timeout};

use crate::{
    model::{Asked, Connection, Person, Received},
    random::Random,
    world::{Wish, World, is_last, number_in, number_of, own_id, position_of},
};

/// The longest pause between two attempts, in microseconds. It doubles with each failure, so that
/// an outage does not use up the events to publish.
const PAUSE_MICROS_MAX: u64 = 3_000;
const DOUBLINGS_MAX: u32 = 6;

/// Publishes until this many events have been attempted.
pub(crate) async fn publish(hub: Hub, world: Arc<World>, mut random: Random, count: usize) {
    let mut attempted = 0;
    let mut failed = 0;
    while attempted < count {
        let batch = if random.percent(70) { 1 } else { random.between(2, 12) };
        let key = random.percent(60).then(|| key(&mut random));
        attempted += batch;
        let mut answer = say(&hub, world.invent(&mut random, batch), key.clone()).await;
        // A publisher without an answer repeats the request with the same key: then it is in the
        // log once, in either form.
        for _ in 0..3 {
            let (Err(Error::OutcomeUnknown(_)), Some(key)) = (&answer, &key) else { break };
            answer = say(&hub, world.invent(&mut random, batch), Some(key.clone())).await;
        }
        failed = if answer.is_err() { (failed + 1).min(DOUBLINGS_MAX) } else { 0 };
        if random.percent(10) || answer.is_err() {
            sleep(random.micros(PAUSE_MICROS_MAX << failed)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

/// The last event, which every subscriber waits for.
pub(crate) async fn publish_last(hub: &Hub, world: &World) {
    while say(hub, vec![world.invent_last()], None).await.is_err() {
        sleep(Duration::from_millis(1)).await;
    }
}

async fn say(hub: &Hub, events: Vec<NewEvent>, key: Option<IdempotencyKey>) -> Result<(), Error> {
    let own_ids: Vec<_> = events.iter().map(|event| event.id.clone()).collect();
    let events: Result<_, _> = events.into_iter().map(|event| hub.validator().event(event)).collect();
    let published = hub.publish_events(events.expect("valid events"), key).await?;
    if !published[0].duplicate {
        let matches = |id: &EventId, own: &Option<String>| {
            own.as_ref().map_or(id.is_generated(), |own| id.as_str() == own)
        };
        assert!(
            published
                .iter()
                .zip(&own_ids)
                .all(|(published, own)| published.id.as_ref().is_some_and(|id| matches(id, own)))
        );
        assert_eq!(published.len(), own_ids.len());
    }
    Ok(())
}

fn key(random: &mut Random) -> IdempotencyKey {
    IdempotencyKey::new(&format!("key-{:x}", random.draw())).expect("a valid key")
}

/// The history of a subscriber, for the checker and for the message when it is stuck.
#[derive(Debug, Default)]
pub(crate) struct Diary(pub(crate) Mutex<Vec<Connection>>);

/// A subscriber that connects, leaves and reconnects until it has received the last event.
pub(crate) struct Subscriber {
    pub(crate) hub: Hub,
    pub(crate) world: Arc<World>,
    pub(crate) random: Random,
    pub(crate) person: Person,
    pub(crate) format: Format,
    pub(crate) diary: Arc<Diary>,
    /// Only the last event is still to come.
    pub(crate) finished: Arc<AtomicBool>,
}

impl Person {
    pub(crate) fn random(random: &mut Random) -> Self {
        let wishes = |random: &mut Random, from, to| {
            let count = random.between(from, to);
            (0..count).map(|_| Wish::random(random)).collect::<Vec<_>>()
        };
        Self { wishes: wishes(random, 1, 4), grants: wishes(random, 0, 3) }
    }
}

impl Subscriber {
    pub(crate) async fn live(mut self) {
        let mut last_event_id = String::new();
        loop {
            let resumes = self.resumes(&last_event_id);
            let asked = if resumes { asked_by_id(&last_event_id) } else { self.choose() };
            let Ok(subscription) = self.connect(&asked).await else {
                sleep(Duration::from_millis(1)).await;
                continue;
            };
            if !resumes && asked != Asked::Earliest && self.finished.load(Ordering::Acquire) {
                // Chosen before the end and connected after it: behind the last event it would wait
                // forever.
                last_event_id.clear();
                continue;
            }
            let connection = subscription.connection();
            self.world.state().connections.push(connection);
            let mut parser = Parser::new();
            if resumes {
                parser = parser.resuming_from(&*last_event_id);
            }
            let done = self.read(subscription, &mut parser).await;
            self.world.state().connections.retain(|other| *other != connection);
            if done {
                return;
            }
            parser.last_event_id().clone_into(&mut last_event_id);
            if self.random.percent(30) {
                sleep(self.random.micros(15_000)).await;
            }
        }
    }

    /// A browser resumes at its last event, if it has received any.
    fn resumes(&mut self, last_event_id: &str) -> bool {
        !last_event_id.is_empty() && (self.finished.load(Ordering::Acquire) || self.random.percent(70))
    }

    /// Other clients start anywhere.
    fn choose(&mut self) -> Asked {
        if self.finished.load(Ordering::Acquire) {
            return Asked::Earliest;
        }
        match self.random.between(0, 12) {
            0..=2 => Asked::Now,
            3 | 4 => Asked::Earliest,
            5 | 6 => Asked::Last(self.random.between(0, 200)),
            7 => {
                let epoch = Epoch::from_u64(self.random.draw());
                let position = position_of(self.random.between(0, 5_000));
                Asked::Foreign(Cursor { epoch, position }.to_string())
            }
            8 => {
                let state = self.world.state();
                let epoch = state.epochs.last().expect("a first epoch").start.epoch;
                let position = position_of(state.said.len() + 1_000_000);
                Asked::Beyond(Cursor { epoch, position }.to_string())
            }
            9 => Asked::Garbage(self.random.pick(&["no-such-id", "#", "#0", "own-", "🦀"]).to_string()),
            _ => {
                let state = self.world.state();
                if state.ids.is_empty() {
                    return Asked::Now;
                }
                let id: &String = self.random.pick(&state.ids);
                asked_by_id(id)
            }
        }
    }

    async fn connect(&mut self, asked: &Asked) -> Result<Subscription, ()> {
        let validator = self.hub.validator();
        let grants: Grants = self.person.grants.iter().map(|wish| wish.matcher(validator)).collect();
        let since = match asked {
            Asked::Now => Since::Now,
            Asked::Earliest => Since::Earliest,
            Asked::Last(count) => Since::Last(*count),
            Asked::Place(cursor) => Since::Id(cursor.to_string()),
            Asked::OwnId(number) => Since::Id(own_id(*number)),
            Asked::Foreign(id) | Asked::Beyond(id) | Asked::Garbage(id) => Since::Id(id.clone()),
        };
        let mut request = Subscribe::new(self.person.wishes.iter().map(|wish| wish.matcher(validator)))
            .since(since)
            .grants(grants)
            .format(self.format)
            .hello(self.random.percent(20));
        if self.random.percent(20) {
            request = request.expires_in(self.random.micros(40_000));
        }
        let newest_before = self.world.state().newest;
        let subscription = self.hub.subscribe(request).await.map_err(drop)?;
        self.diary.0.lock().expect("no test thread panicked").push(Connection {
            asked: asked.clone(),
            id: subscription.connection(),
            newest_before,
            place: Cursor::parse(subscription.place().as_str()).expect("a generated id"),
            attempted: self.world.state().said.len(),
            received: Vec::new(),
        });
        Ok(subscription)
    }

    /// Reads until it is time to leave, the stream ends, or the last event has come. Returns true
    /// in the last case.
    async fn read(&mut self, mut subscription: Subscription, parser: &mut Parser) -> bool {
        // Patient subscribers wait as long as it takes, and only the hub wakes them.
        let patient = self.random.percent(40);
        let stays_for = if self.random.percent(30) { usize::MAX } else { self.random.between(0, 400) };
        let naps_every = self.random.between(1, 200);
        let mut received = 0;
        loop {
            let finished = self.finished.load(Ordering::Acquire);
            let bytes = if patient || finished {
                subscription.next().await
            } else {
                match timeout(self.random.micros(20_000), subscription.next()).await {
                    Ok(bytes) => bytes,
                    Err(_) if self.random.percent(30) => return false,
                    Err(_) => continue,
                }
            };
            let Some(bytes) = bytes else { return false };
            if self.receive(&bytes, parser) {
                return true;
            }
            received += 1;
            if received >= stays_for && !finished {
                // Its position is as valid a start as any other.
                self.world.state().ids.push(subscription.place().to_string());
                return false;
            }
            if received % naps_every == 0 && !finished {
                sleep(self.random.micros(4_000)).await;
            }
        }
    }

    fn receive(&mut self, bytes: &[u8], parser: &mut Parser) -> bool {
        let mut input = bytes;
        let mut done = false;
        while let Some(item) = parser.next(&mut input) {
            if let Item::Event(event) = item.expect("the hub writes what can be parsed") {
                assert!(event.has_id, "an event without an id: {event:?}");
                let received = self.understand(&event);
                if let Received::Event { id, .. } = &received {
                    done |= is_last(&self.data_of(&event));
                    if self.random.percent(2) {
                        self.world.state().ids.push(id.clone());
                    }
                }
                let mut diary = self.diary.0.lock().expect("no test thread panicked");
                diary.last_mut().expect("an open connection").received.push(received);
            }
        }
        done
    }

    fn understand(&self, event: &ParsedEvent) -> Received {
        let id = event.last_event_id.clone();
        if event.event_type != "tidings" {
            return Received::Event { number: number_in(&self.data_of(event)), id };
        }
        let place = Cursor::parse(&id).expect("notices have generated ids");
        let notice: serde_json::Value = serde_json::from_str(&event.data).expect("notices are JSON");
        let text = |field: &str| notice[field].as_str().map(str::to_owned);
        if notice["kind"] != "gap" {
            return Received::Notice { place };
        }
        let cursor = |text: String| Cursor::parse(&text).expect("bounds are generated ids");
        Received::Gap {
            reason: text("reason").expect("a gap has a reason"),
            requested: text("requested").expect("a gap names the requested id"),
            oldest: text("oldest").map(cursor),
            newest: cursor(text("newest").expect("a gap names the end of the log")),
            place,
            attempted: self.world.state().said.len(),
        }
    }

    fn data_of(&self, event: &ParsedEvent) -> String {
        if self.format == Format::Plain {
            return event.data.clone();
        }
        assert_eq!(event.event_type, "message");
        let json: serde_json::Value = serde_json::from_str(&event.data).expect("JSON was asked for");
        assert_eq!(json["id"], event.last_event_id.as_str());
        json["data"].as_str().expect("data is a string").to_owned()
    }
}

fn asked_by_id(id: &str) -> Asked {
    if let Ok(cursor) = Cursor::parse(id) {
        return Asked::Place(cursor);
    }
    let number = id.strip_prefix("own-").and_then(|number| number.parse().ok());
    Asked::OwnId(number.expect("an id that was received"))
}

impl Diary {
    pub(crate) fn take(&self) -> Vec<Connection> {
        std::mem::take(&mut *self.0.lock().expect("no test thread panicked"))
    }

    /// Its progress, for messages.
    pub(crate) fn summary(&self) -> String {
        let diary = self.0.lock().expect("no test thread panicked");
        let last = diary.last().map(|connection| {
            let received = connection.received.last();
            let place = number_of(connection.place.position);
            format!("asked for {:?}, stood at {place}, received last {received:?}", connection.asked)
        });
        format!("{} connections; the last one {last:?}", diary.len())
    }
}
