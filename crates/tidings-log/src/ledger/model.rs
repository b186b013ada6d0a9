//! Compares the ledger with a naive model: plain lists with linear search.

use std::{sync::Arc, time::Duration};

use proptest::{collection::vec, option, prelude::*};
use tidings_topic::{Event, Filter, Grants, Matcher, NewEvent, Topic, Validator};
use tokio::runtime::{Builder, Runtime};

use super::{Ledger, Seen, weight};
use crate::{
    AppendError, Appended, Batch, Cursor, Deleted, Entry, Epoch, Epochs, IdempotencyKey, MemoryLimits, Page,
    Position, TailItem, Timestamp,
    draft::{Plan, covered, first_visible},
    numbers::{number, position},
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_does_what_a_naive_list_does(limits in limits(), steps in vec(step(), 1..80)) {
        let mut run = Run::new(limits);
        for step in steps {
            run.step(step);
            run.check_bounds();
        }
        run.follow(usize::MAX, 200);
        run.check_tail_is_complete();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append { events: Vec<Event>, key: Option<u8> },
    Read { after: u64, filter: Filter, bytes_max: usize },
    Last { count: usize, filter: Filter, bytes_max: usize },
    Resolve { id: &'static str, grants: Grants },
    Ago(u64),
    ClockForward(u64),
    ClockBack(u64),
    Delete(Topic, Grants),
    Follow { items: usize, bytes_max: usize },
}

const EPOCH: Epoch = Epoch::from_u64(1);
const TOPICS: [&str; 4] = ["/a", "/ab", "/b", "/c"];
const IDS: [&str; 2] = ["x", "y"];

fn limits() -> impl Strategy<Value = MemoryLimits> {
    let bytes_max = prop_oneof![Just(1_500), Just(6_000), Just(1_000_000)];
    (bytes_max, option::of(3..12_u64), option::of(5..60_u64), 1..9_usize, 1..4_usize, 5..60_u64).prop_map(
        |(bytes_max, count_max, age_max, floors_max, keys_max, keys_age_max)| MemoryLimits {
            bytes_max,
            count_max,
            age_max: age_max.map(Duration::from_millis),
            floors_max,
            keys_max,
            keys_age_max: Duration::from_millis(keys_age_max),
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let bytes_max = || prop_oneof![Just(0), Just(1), Just(700), Just(3_000), Just(usize::MAX)];
    let append = (vec(event(), 1..4), option::weighted(0.3, 0..3_u8));
    prop_oneof![
        6 => append.prop_map(|(events, key)| Step::Append { events, key }),
        4 => (0..30_u64, filter(), bytes_max())
            .prop_map(|(after, filter, bytes_max)| Step::Read { after, filter, bytes_max }),
        2 => (0..6_usize, filter(), bytes_max())
            .prop_map(|(count, filter, bytes_max)| Step::Last { count, filter, bytes_max }),
        1 => (prop::sample::select(&IDS[..]), grants()).prop_map(|(id, grants)| Step::Resolve { id, grants }),
        1 => (0..80_u64).prop_map(Step::Ago),
        2 => (1..30_u64).prop_map(Step::ClockForward),
        1 => (1..30_u64).prop_map(Step::ClockBack),
        1 => (prop::sample::select(&TOPICS[..]), grants_of_most())
            .prop_map(|(topic, grants)| Step::Delete(valid_topic(topic), grants)),
        2 => (1..4_usize, bytes_max()).prop_map(|(items, bytes_max)| Step::Follow { items, bytes_max }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let topics = vec(prop::sample::select(&TOPICS[..]), 1..4);
    let id = option::weighted(0.3, prop::sample::select(&IDS[..]));
    (topics, id, any::<bool>(), 0..300_usize).prop_map(|(topics, id, private, data_bytes)| {
        let new = NewEvent {
            topics: topics.into_iter().map(str::to_owned).collect(),
            data: "d".repeat(data_bytes),
            id: id.map(str::to_owned),
            private,
            ..NewEvent::default()
        };
        Validator::default().event(new).expect("a valid event")
    })
}

fn valid_topic(text: &str) -> Topic {
    Validator::default().topic(text).expect("a topic")
}

fn matcher() -> impl Strategy<Value = Matcher> {
    let validator = Validator::default();
    let exact = TOPICS.map(|topic| validator.exact(topic).expect("a topic"));
    let pattern = validator.pattern("/a*").expect("a pattern");
    prop_oneof![8 => prop::sample::select(exact.to_vec()), 1 => Just(pattern), 1 => Just(Matcher::Any)]
}

fn grants() -> impl Strategy<Value = Grants> {
    vec(matcher(), 0..3).prop_map(Grants::from_iter)
}

/// Everything half of the time, as those have who look after a hub.
fn grants_of_most() -> impl Strategy<Value = Grants> {
    prop_oneof![Just(Grants::all()), vec(matcher(), 1..4).prop_map(Grants::from_iter)]
}

fn filter() -> impl Strategy<Value = Filter> {
    let any = (vec(matcher(), 0..3), grants()).prop_map(|(matchers, grants)| Filter { matchers, grants });
    prop_oneof![9 => any, 1 => Just(everything())]
}

fn everything() -> Filter {
    Filter { matchers: vec![Matcher::Any], grants: Grants::all() }
}

struct Run {
    ledger: Ledger,
    model: Model,
    runtime: Runtime,
    now: u64,
    tail: Seen,
    /// What the tail brought.
    received: Vec<Arc<Entry>>,
}

impl Run {
    fn new(limits: MemoryLimits) -> Self {
        let ledger = Ledger::new(limits.clone(), EPOCH);
        Self {
            tail: ledger.seen(),
            ledger,
            model: Model::new(limits),
            runtime: Builder::new_current_thread().build().expect("a runtime"),
            now: 1_000,
            received: Vec::new(),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    fn step(&mut self, step: Step) {
        self.model.expire(self.now());
        match step {
            Step::Append { events, key } => self.append(events, key),
            Step::Read { after, filter, bytes_max } => self.read(after, &filter, bytes_max),
            Step::Last { count, filter, bytes_max } => self.last(count, &filter, bytes_max),
            Step::Resolve { id, grants } => self.resolve(id, &grants),
            Step::Ago(millis) => self.ago(Duration::from_millis(millis)),
            Step::ClockForward(millis) => self.now += millis,
            Step::ClockBack(millis) => self.now -= millis.min(self.now),
            Step::Delete(topic, grants) => {
                let bearing = self.ledger.bearing(self.now(), &topic);
                let (covered, kept) = self.runtime.block_on(covered(bearing, &grants));
                let deleted = self.ledger.delete(self.now(), &covered);
                assert_eq!(Deleted { kept, ..deleted }, self.model.delete(&topic, &grants));
            }
            Step::Follow { items, bytes_max } => self.follow(bytes_max, items),
        }
    }

    fn append(&mut self, events: Vec<Event>, key: Option<u8>) {
        let key = key.map(|key| IdempotencyKey::new(&format!("key-{key}")).expect("a key"));
        let batch = Batch { events, key };
        let appended = self.ledger.append(self.now(), batch.clone());
        assert_eq!(appended, self.model.append(self.now(), batch));
    }

    fn read(&mut self, after: u64, filter: &Filter, bytes_max: usize) {
        let draft = self.ledger.read(self.now(), position(after), &Plan::new(filter), bytes_max);
        let page = self.runtime.block_on(draft.finish(filter));
        assert_eq!(page.epoch, EPOCH);
        assert_eq!(page.floor, self.model.floor(after, filter));
        let newest = self.model.newest();
        let through = number(page.through);
        if page.at_end {
            assert_eq!(through, newest.max(after));
        } else {
            assert!(after < through && through < newest, "{after} < {through} < {newest}");
        }
        let accepted: Vec<_> = self
            .model
            .kept
            .iter()
            .filter(|entry| (after + 1..=through).contains(&number(entry.cursor.position)))
            .filter(|entry| filter.accepts(&entry.event))
            .cloned()
            .collect();
        assert_eq!(page.entries, accepted);
        assert_bytes(&page, bytes_max);
    }

    fn last(&mut self, count: usize, filter: &Filter, bytes_max: usize) {
        let draft = self.ledger.last(self.now(), count, &Plan::new(filter), bytes_max);
        if *filter == everything() {
            assert!(draft.entries.len() <= count, "nothing is collected in vain");
        }
        let page = self.runtime.block_on(draft.finish(filter));
        assert_eq!((page.epoch, page.at_end), (EPOCH, true));
        assert_eq!(page.through, position(self.model.newest()));
        assert_eq!(page.floor, self.model.floor(0, filter));
        let accepted = |entry: &&Arc<Entry>| filter.accepts(&entry.event);
        let newest_first: Vec<_> = self.model.kept.iter().rev().filter(accepted).take(count).collect();
        assert!(page.entries.iter().rev().eq(newest_first.iter().copied().take(page.entries.len())));
        // Fewer than there are only if there was too much to look at.
        if let Some(left_out) = newest_first.get(page.entries.len()) {
            let newer =
                self.model.kept.iter().filter(|entry| entry.cursor.position > left_out.cursor.position);
            assert!(newer.map(|entry| entry.memory_bytes()).sum::<usize>() >= bytes_max);
        }
    }

    fn resolve(&mut self, id: &str, grants: &Grants) {
        let named = |entry: &&Arc<Entry>| entry.id.as_str() == id;
        let visible = |entry: &&Arc<Entry>| !entry.event.private || grants.cover_any(&entry.event.topics);
        let expected = self.model.kept.iter().filter(named).find(visible).map(|entry| entry.cursor.position);
        let id = Validator::default().event_id(id).expect("an id");
        let found = self.ledger.named(self.now(), &id);
        assert_eq!(self.runtime.block_on(first_visible(found, grants)), expected);
    }

    fn ago(&mut self, ago: Duration) {
        let time = self.now().earlier_by(ago);
        let expected = self.model.kept.iter().rfind(|entry| entry.time < time);
        let expected = expected.map_or(Position::BEFORE_ALL, |entry| entry.cursor.position);
        assert_eq!(self.ledger.position_ago(self.now(), ago), expected);
    }

    fn follow(&mut self, bytes_max: usize, items: usize) {
        for _ in 0..items {
            self.model.expire(self.now());
            let Some((item, seen)) = self.ledger.follow(self.now(), self.tail, bytes_max) else {
                assert_eq!(self.tail, self.ledger.seen(), "a tail waits only at the end");
                return;
            };
            self.receive(item, bytes_max);
            self.tail = seen;
        }
    }

    fn receive(&mut self, item: TailItem, bytes_max: usize) {
        let seen = number(self.tail.cursor.position);
        match item {
            TailItem::Entries(entries) => {
                assert!(!entries.is_empty());
                for (entry, expected) in entries.iter().zip(seen + 1..) {
                    assert_eq!(number(entry.cursor.position), expected, "no hole");
                    assert!(self.model.kept.contains(entry), "only what the log has");
                }
                let (_, head) = entries.split_last().expect("not empty");
                let bytes: usize = head.iter().map(|entry| entry.memory_bytes()).sum();
                assert!(head.is_empty() || bytes < bytes_max);
                self.received.extend(entries);
            }
            TailItem::Skipped { through } => {
                let through = number(through);
                assert!(seen < through && through <= self.model.newest(), "it gets on");
                let is_skipped =
                    |entry: &Arc<Entry>| (seen + 1..=through).contains(&number(entry.cursor.position));
                assert!(!self.model.kept.iter().any(is_skipped), "only what is gone is skipped");
            }
            TailItem::Deleted { serial } => {
                assert!(self.tail.deletions < serial && serial <= self.model.deletions);
            }
            TailItem::NewEpoch(start) => panic!("a log in memory has one epoch: {start:?}"),
        }
    }

    fn check_tail_is_complete(&self) {
        for entry in &self.model.kept {
            assert!(self.received.contains(entry), "the tail never brought {:?}", entry.cursor);
        }
        assert!(self.received.is_sorted_by(|one, next| one.cursor.position < next.cursor.position));
    }

    fn check_bounds(&mut self) {
        self.model.expire(self.now());
        let bounds = self.ledger.bounds(self.now());
        assert_eq!(bounds.epochs, Epochs::starting(EPOCH));
        assert_eq!(bounds.oldest, self.model.kept.first().map(|entry| entry.cursor.position));
        assert_eq!(bounds.newest, position(self.model.newest()));
        assert!(self.ledger.bytes <= self.model.limits.bytes_max);
        assert_eq!(self.ledger.bytes, self.model.bytes());
    }
}

fn assert_bytes(page: &Page, bytes_max: usize) {
    if let Some((_, head)) = page.entries.split_last() {
        let bytes: usize = head.iter().map(|entry| entry.memory_bytes()).sum();
        assert!(head.is_empty() || bytes < bytes_max);
    }
}

struct Model {
    limits: MemoryLimits,
    kept: Vec<Arc<Entry>>,
    newest: u64,
    deletions: u64,
    /// The newest event of each audience that is gone, oldest first.
    floors: Vec<(u64, Vec<Topic>, bool)>,
    forgotten_through: u64,
    keys: Vec<(IdempotencyKey, Appended, Timestamp)>,
}

impl Model {
    fn new(limits: MemoryLimits) -> Self {
        Self {
            limits,
            kept: Vec::new(),
            newest: 0,
            deletions: 0,
            floors: Vec::new(),
            forgotten_through: 0,
            keys: Vec::new(),
        }
    }

    fn newest(&self) -> u64 {
        self.newest
    }

    fn bytes(&self) -> u64 {
        self.kept.iter().map(|entry| weight(entry)).sum()
    }

    fn too_much(&self) -> bool {
        self.bytes() > self.limits.bytes_max
            || self.limits.count_max.is_some_and(|count_max| self.kept.len() as u64 > count_max)
    }

    fn append(&mut self, now: Timestamp, batch: Batch) -> Result<Appended, AppendError> {
        if let Some(key) = &batch.key
            && let Some((_, Appended::New { ids, .. }, _)) = self.keys.iter().find(|known| known.0 == *key)
        {
            return Ok(Appended::Duplicate { first_id: ids[0].clone() });
        }
        let kept = std::mem::take(&mut self.kept);
        let next = self.newest + 1;
        for (event, number) in batch.events.into_iter().zip(next..) {
            let cursor = Cursor { epoch: EPOCH, position: position(number) };
            self.kept.push(Arc::new(Entry::new(cursor, now, event)));
        }
        if self.too_much() {
            let alone = std::mem::replace(&mut self.kept, kept);
            let bytes: u64 = alone.iter().map(|entry| weight(entry)).sum();
            return Err(AppendError::Full(if bytes > self.limits.bytes_max {
                format!("the batch takes {bytes} bytes and the log keeps at most {}", self.limits.bytes_max)
            } else {
                let count_max = self.limits.count_max.expect("it was too much");
                format!("the batch has {} events and the log keeps at most {count_max}", alone.len())
            }));
        }
        let appended = Appended::New {
            ids: self.kept.iter().map(|entry| entry.id.clone()).collect(),
            last: self.kept.last().expect("a batch is not empty").cursor,
        };
        self.newest = number(self.kept.last().expect("a batch is not empty").cursor.position);
        self.kept.splice(0..0, kept);
        while self.too_much() {
            self.drop_first();
        }
        if let Some(key) = batch.key {
            self.keys.push((key, appended.clone(), now));
            let excess = self.keys.len().saturating_sub(self.limits.keys_max);
            self.keys.drain(..excess);
        }
        Ok(appended)
    }

    fn expire(&mut self, now: Timestamp) {
        while self.keys.first().is_some_and(|key| key.2 < now.earlier_by(self.limits.keys_age_max)) {
            self.keys.remove(0);
        }
        if let Some(age_max) = self.limits.age_max {
            while self.kept.first().is_some_and(|entry| entry.time < now.earlier_by(age_max)) {
                self.drop_first();
            }
        }
    }

    fn drop_first(&mut self) {
        let entry = self.kept.remove(0);
        self.account_for(&entry);
    }

    fn delete(&mut self, topic: &Topic, grants: &Grants) -> Deleted {
        let bears = |entry: &Entry| entry.event.topics.contains(topic);
        let (gone, kept) = std::mem::take(&mut self.kept)
            .into_iter()
            .partition::<Vec<_>, _>(|entry| bears(entry) && grants.cover_all(&entry.event.topics));
        self.kept = kept;
        let kept = self.kept.iter().filter(|entry| bears(entry)).count() as u64;
        self.deletions += u64::from(!gone.is_empty());
        for entry in &gone {
            self.account_for(entry);
        }
        Deleted { count: gone.len() as u64, kept, serial: self.deletions }
    }

    fn account_for(&mut self, entry: &Entry) {
        let gone = number(entry.cursor.position);
        let mut topics = entry.event.topics.clone();
        topics.sort();
        topics.dedup();
        let same = |floor: &&(u64, Vec<Topic>, bool)| (&floor.1, floor.2) == (&topics, entry.event.private);
        let known = self.floors.iter().find(same).map_or(self.forgotten_through, |floor| floor.0);
        if gone <= known {
            return;
        }
        self.floors.retain(|floor| !same(&floor));
        self.floors.push((gone, topics, entry.event.private));
        self.floors.sort();
        if self.floors.len() > self.limits.floors_max {
            self.forgotten_through = self.floors.remove(0).0;
        }
    }

    fn floor(&self, after: u64, filter: &Filter) -> Option<Position> {
        let accepted =
            self.floors.iter().filter(|(_, topics, private)| filter.accepts_topics(topics, *private));
        let newest = accepted.map(|floor| floor.0).max().unwrap_or_default().max(self.forgotten_through);
        (newest > after).then(|| position(newest))
    }
}
