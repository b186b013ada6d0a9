//! Compares the log in files with a naive model, one list of every published event. For random
//! operations both return the same, however often the files are compacted, closed and reopened, or
//! reopened after a crash.

use proptest::{collection::vec, option, prelude::*};
use tidings_topic::{StoredEvent, TopicUrls};
use tokio::runtime::Builder;

use super::*;
use crate::{
    Timestamp,
    numbers::number,
    segment::{
        record::{EventRecord, Header, Record, encode},
        tests::simulated::SimulatedDisk,
    },
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn the_log_in_files_does_what_a_naive_list_does(
        count_max in option::of(3..40_u64),
        age_max in option::of(20..90_u64),
        retention in vec(rule(), 0..4),
        recent_bytes_max in prop_oneof![Just(0), Just(2_000), Just(1_000_000)],
        steps in vec(step(), 1..120),
    ) {
        let settings = SegmentSettings {
            count_max,
            age_max: age_max.map(Duration::from_millis),
            retention,
            recent_bytes_max,
            keys_age_max: Duration::from_millis(25),
            segment_bytes: Some(1_500),
            ..small()
        };
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run(settings, steps));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append { events: Vec<Event>, key: Option<u8> },
    Read { after: u64, filter: Filter, bytes_max: usize },
    Last { count: usize, filter: Filter },
    Resolve { id: &'static str, grants: Grants },
    Ago(u64),
    Delete(&'static str, Grants),
    Clock(u64),
    Compact,
    Reopen,
    Kill,
    Crash,
}

const TOPICS: [&str; 4] = ["/a", "/ab", "/b", "/c"];
const IDS: [&str; 2] = ["x", "y"];

fn step() -> impl Strategy<Value = Step> {
    let bytes_max = prop_oneof![Just(0), Just(700), Just(3_000), Just(usize::MAX)];
    let append = (vec(new_event(), 1..4), option::weighted(0.3, 0..3_u8));
    prop_oneof![
        16 => append.prop_map(|(events, key)| Step::Append { events, key }),
        8 => (0..60_u64, filter(), bytes_max)
            .prop_map(|(after, filter, bytes_max)| Step::Read { after, filter, bytes_max }),
        4 => (0..6_usize, filter()).prop_map(|(count, filter)| Step::Last { count, filter }),
        2 => (prop::sample::select(&IDS[..]), grants()).prop_map(|(id, grants)| Step::Resolve { id, grants }),
        2 => (0..80_u64).prop_map(Step::Ago),
        2 => (prop::sample::select(&TOPICS[..]), grants_of_most())
            .prop_map(|(topic, grants)| Step::Delete(topic, grants)),
        4 => (1..30_u64).prop_map(Step::Clock),
        3 => Just(Step::Compact),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
        1 => Just(Step::Crash),
    ]
}

fn new_event() -> impl Strategy<Value = Event> {
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

fn matcher() -> impl Strategy<Value = Matcher> {
    let validator = Validator::default();
    let exact = TOPICS.map(|topic| validator.exact(topic).expect("a topic"));
    let pattern = validator.pattern("/a*").expect("a pattern");
    prop_oneof![8 => prop::sample::select(exact.to_vec()), 1 => Just(pattern), 1 => Just(Matcher::Any)]
}

fn rule() -> impl Strategy<Value = RetentionRule> {
    let bounds = (option::of(5..60_u64), option::of(100..2_000_u64), option::of(1..8_u64));
    (matcher(), bounds).prop_map(|(matcher, (age_max, bytes_max, count_max))| RetentionRule {
        matcher,
        age_max: age_max.map(Duration::from_millis),
        bytes_max,
        count_max,
    })
}

fn grants() -> impl Strategy<Value = Grants> {
    vec(matcher(), 0..3).prop_map(Grants::from_iter)
}

/// Everything half of the time, as those have who look after a hub.
fn grants_of_most() -> impl Strategy<Value = Grants> {
    prop_oneof![Just(Grants::all()), vec(matcher(), 1..4).prop_map(Grants::from_iter)]
}

fn filter() -> impl Strategy<Value = Filter> {
    (vec(matcher(), 0..3), grants()).prop_map(|(matchers, grants)| Filter { matchers, grants })
}

async fn run(settings: SegmentSettings, steps: Vec<Step>) {
    let disk = SimulatedDisk::new(7);
    let clock = Clock::manual(Timestamp::from_millis(1_000));
    let mut model = Model { settings: settings.clone(), said: Vec::new(), front: 0, keys: Vec::new() };
    let open = || {
        SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), settings.clone(), clock.clone())
            .expect("it opens")
    };
    let mut log = Some(open());
    for step in steps {
        match step {
            Step::Reopen => close(&mut log).await,
            // What the process wrote is there, what it would have written at its end is not.
            Step::Kill => {
                let left = disk.copy();
                close(&mut log).await;
                disk.become_copy_of(&left);
            }
            Step::Crash => {
                let left = disk.clone();
                left.fail_power_after(0);
                close(&mut log).await;
                left.crash();
            }
            Step::Clock(millis) => clock.advance(Duration::from_millis(millis)),
            Step::Compact => {
                log.as_ref().expect("it is open").compact().expect("there is room");
            }
            step => {
                model.expire(clock.now());
                ask_both(log.as_ref().expect("it is open"), &mut model, clock.now(), step).await;
            }
        }
        let log = log.get_or_insert_with(open);
        model.expire(clock.now());
        let bounds = log.bounds().await.expect("bounds");
        assert_eq!(bounds.oldest.map(number), model.visible().next().map(|said| said.number));
        assert_eq!(number(bounds.newest), model.newest());
        assert_eq!(log.health().await, Ok(()));
    }
}

async fn close(log: &mut Option<SegmentLog>) {
    if let Some(log) = log.take() {
        log.close().await;
    }
}

async fn ask_both(log: &SegmentLog, model: &mut Model, now: Timestamp, step: Step) {
    match step {
        Step::Append { events, key } => {
            let key = key.map(|key| IdempotencyKey::new(&format!("key-{key}")).expect("a key"));
            let appended = log.append(Batch { events: events.clone(), key: key.clone() }).await;
            match (appended, model.append(now, events, key)) {
                (Ok(Appended::New { last, .. }), true) => assert_eq!(number(last.position), model.newest()),
                (Ok(Appended::Duplicate { .. }), false) => {}
                answers => panic!("{answers:?}"),
            }
        }
        Step::Read { after, filter, bytes_max } => {
            let page = log.read(position(after), &filter, bytes_max).await.expect("a page");
            let through = number(page.through);
            if page.at_end {
                assert_eq!(through, model.newest().max(after));
            } else {
                assert!(after < through && through < model.newest());
            }
            let between = |said: &&Said| (after + 1..=through).contains(&said.number);
            let expected = model.visible().filter(between).filter(|said| filter.accepts(&said.event));
            assert_eq!(shown(&page.entries), expected.map(Said::shown).collect::<Vec<_>>());
            assert_eq!(page.floor.map(number), model.floor(after, &filter));
        }
        Step::Last { count, filter } => {
            let page = log.last(count, &filter, usize::MAX).await.expect("a page");
            let accepted: Vec<_> = model.visible().filter(|said| filter.accepts(&said.event)).collect();
            let newest = &accepted[accepted.len().saturating_sub(count)..];
            assert_eq!(shown(&page.entries), newest.iter().map(|said| said.shown()).collect::<Vec<_>>());
            assert_eq!(
                (number(page.through), page.floor.map(number)),
                (model.newest(), model.floor(0, &filter))
            );
        }
        Step::Resolve { id, grants } => {
            let id = Validator::default().event_id(id).expect("an id");
            let named = |said: &&Said| said.event.id.as_ref() == Some(&id);
            let may_see = |said: &&Said| !said.event.private || grants.cover_any(&said.event.topics);
            let expected = model.visible().filter(named).find(may_see).map(|said| said.number);
            assert_eq!(log.resolve(&id, &grants).await.expect("an answer").map(number), expected);
        }
        Step::Ago(millis) => {
            let ago = Duration::from_millis(millis);
            let found = number(log.position_ago(ago).await.expect("an answer"));
            let earlier = model.visible().rfind(|said| said.time < now.earlier_by(ago));
            let earlier = earlier.map_or(0, |said| said.number);
            // What is gone may be the place, as long as nothing that is there lies between.
            assert!(found >= earlier, "{found} comes before {earlier}");
            assert!(!model.visible().any(|said| earlier < said.number && said.number <= found));
        }
        Step::Delete(topic, grants) => {
            let topic = Validator::default().topic(topic).expect("a topic");
            let deleted = log.delete(&topic, &grants).await.expect("there is room");
            assert_eq!((deleted.count, deleted.kept), model.delete(&topic, &grants));
        }
        Step::Clock(_) | Step::Compact | Step::Reopen | Step::Kill | Step::Crash => {}
    }
}

/// An entry without what differs from log to log.
type Shown<'a> = (u64, Timestamp, &'a Event);

fn shown(entries: &[Arc<crate::Entry>]) -> Vec<Shown<'_>> {
    entries.iter().map(|entry| (number(entry.cursor.position), entry.time, &entry.event)).collect()
}

struct Model {
    settings: SegmentSettings,
    said: Vec<Said>,
    front: u64,
    keys: Vec<(IdempotencyKey, Timestamp)>,
}

struct Said {
    number: u64,
    time: Timestamp,
    event: Event,
    bytes: u64,
    is_gone: bool,
}

impl Said {
    fn shown(&self) -> Shown<'_> {
        (self.number, self.time, &self.event)
    }
}

impl Model {
    fn newest(&self) -> u64 {
        self.said.len() as u64
    }

    fn visible(&self) -> impl DoubleEndedIterator<Item = &Said> {
        self.said.iter().filter(|said| !said.is_gone)
    }

    /// Says whether it was new.
    fn append(&mut self, now: Timestamp, events: Vec<Event>, mut key: Option<IdempotencyKey>) -> bool {
        self.keys.retain(|(_, time)| *time >= now.earlier_by(self.settings.keys_age_max));
        if let Some(key) = &key {
            if self.keys.iter().any(|(known, _)| known == key) {
                return false;
            }
            self.keys.push((key.clone(), now));
        }
        for event in events {
            let bytes = record_bytes(&event, key.take().as_ref());
            let number = self.newest() + 1;
            self.said.push(Said { number, time: now, event, bytes, is_gone: false });
        }
        true
    }

    fn expire(&mut self, now: Timestamp) {
        self.advance(now);
        let too_old = |said: &Said, age_max: Option<Duration>| {
            age_max.is_some_and(|age_max| said.time < now.earlier_by(age_max))
        };
        for (place, rule) in self.settings.retention.iter().enumerate() {
            let falls_under = |said: &&mut Said| {
                let first = self
                    .settings
                    .retention
                    .iter()
                    .position(|rule| rule.matcher.matches_any(&TopicUrls::new(&said.event.topics)));
                !said.is_gone && first == Some(place)
            };
            let mut kept: Vec<_> = self.said.iter_mut().filter(falls_under).collect();
            while kept.first().is_some_and(|first| {
                rule.count_max.is_some_and(|count_max| kept.len() as u64 > count_max)
                    || rule.bytes_max.is_some_and(|max| kept.iter().map(|said| said.bytes).sum::<u64>() > max)
                    || too_old(first, rule.age_max)
            }) {
                kept.remove(0).is_gone = true;
            }
        }
        self.advance(now);
    }

    fn advance(&mut self, now: Timestamp) {
        let (count_max, age_max) = (self.settings.count_max, self.settings.age_max);
        let through = count_max.map_or(0, |count_max| self.newest().saturating_sub(count_max));
        while let Some(next) = self.said.get_mut(usize::try_from(self.front).expect("few events")) {
            let too_old = age_max.is_some_and(|age_max| next.time < now.earlier_by(age_max));
            if !next.is_gone && next.number > through && !too_old {
                break;
            }
            next.is_gone = true;
            self.front = next.number;
        }
    }

    /// How many went, and how many stay.
    fn delete(&mut self, topic: &Topic, grants: &Grants) -> (u64, u64) {
        let (mut count, mut kept) = (0, 0);
        for said in self.said.iter_mut().filter(|said| !said.is_gone && said.event.topics.contains(topic)) {
            said.is_gone = grants.cover_all(&said.event.topics);
            *(if said.is_gone { &mut count } else { &mut kept }) += 1;
        }
        (count, kept)
    }

    fn floor(&self, after: u64, filter: &Filter) -> Option<u64> {
        let gone = self
            .said
            .iter()
            .rfind(|said| said.is_gone && filter.accepts_topics(&said.event.topics, said.event.private));
        gone.map(|said| said.number).filter(|number| *number > after)
    }
}

fn record_bytes(event: &Event, key: Option<&IdempotencyKey>) -> u64 {
    let header = Header { first: 1, epoch: tidings_topic::Epoch::from_u64(1), salt: 1 };
    let record = Record::Event(EventRecord {
        number: 1,
        time: Timestamp::default(),
        key: key.map(IdempotencyKey::as_str),
        event: StoredEvent::of(event),
    });
    let mut bytes = Vec::new();
    encode(&header, 0, &mut bytes, &record).expect("it is short");
    bytes.len() as u64
}
