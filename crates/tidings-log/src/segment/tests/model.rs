//! The log in files against the one in memory, which has a model of its own: whatever is asked of both, at random, they answer the same, however
//! often the files are closed or left behind by a crash and opened again.

use proptest::{collection::vec, option, prelude::*};
use tokio::runtime::Builder;

use super::*;
use crate::{MemoryLog, Timestamp, segment::simulated::SimulatedDisk};

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn the_log_in_files_does_what_the_log_in_memory_does(
        count_max in option::of(3..40_u64),
        age_max in option::of(20..90_u64),
        recent_bytes_max in prop_oneof![Just(0), Just(2_000), Just(1_000_000)],
        steps in vec(step(), 1..90),
    ) {
        let age_max = age_max.map(Duration::from_millis);
        let settings =
            SegmentSettings { count_max, age_max, recent_bytes_max, segment_bytes: Some(1_500), ..small() };
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
    Clock(u64),
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
        8 => append.prop_map(|(events, key)| Step::Append { events, key }),
        4 => (0..60_u64, filter(), bytes_max)
            .prop_map(|(after, filter, bytes_max)| Step::Read { after, filter, bytes_max }),
        2 => (0..6_usize, filter()).prop_map(|(count, filter)| Step::Last { count, filter }),
        1 => (prop::sample::select(&IDS[..]), grants()).prop_map(|(id, grants)| Step::Resolve { id, grants }),
        1 => (0..80_u64).prop_map(Step::Ago),
        2 => (1..30_u64).prop_map(Step::Clock),
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

fn grants() -> impl Strategy<Value = Grants> {
    vec(matcher(), 0..3).prop_map(Grants::from_iter)
}

fn filter() -> impl Strategy<Value = Filter> {
    (vec(matcher(), 0..3), grants()).prop_map(|(matchers, grants)| Filter { matchers, grants })
}

async fn run(settings: SegmentSettings, steps: Vec<Step>) {
    let disk = SimulatedDisk::new(7);
    let clock = Clock::manual(Timestamp::from_millis(1_000));
    let limits =
        MemoryLimits { count_max: settings.count_max, age_max: settings.age_max, ..MemoryLimits::default() };
    let memory = MemoryLog::with_clock(limits, clock.clone());
    let open = || {
        SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), settings.clone(), clock.clone())
            .expect("it opens")
    };
    let mut log = Some(open());
    for step in steps {
        match step {
            Step::Reopen => drop(log.take()),
            // What the process wrote is there, what it would have written at its end is not.
            Step::Kill => {
                let left = disk.copy();
                drop(log.take());
                disk.become_copy_of(&left);
            }
            Step::Crash => {
                let left = disk.clone();
                left.fail_power_after(0);
                drop(log.take());
                left.crash();
            }
            Step::Clock(millis) => clock.advance(Duration::from_millis(millis)),
            step => ask_both(log.as_ref().expect("it is open"), &memory, step).await,
        }
        log.get_or_insert_with(open);
    }
}

async fn ask_both(log: &SegmentLog, memory: &MemoryLog, step: Step) {
    match step {
        Step::Append { events, key } => {
            let key = key.map(|key| IdempotencyKey::new(&format!("key-{key}")).expect("a key"));
            let batch = Batch { events, key };
            let (ours, theirs) = (log.append(batch.clone()).await, memory.append(batch).await);
            match (ours, theirs) {
                (Ok(Appended::New { last: ours, .. }), Ok(Appended::New { last: theirs, .. })) => {
                    assert_eq!(ours.position, theirs.position);
                }
                (Ok(Appended::Duplicate { .. }), Ok(Appended::Duplicate { .. })) => {}
                answers => panic!("{answers:?}"),
            }
        }
        Step::Read { after, filter, bytes_max } => {
            let after = position(after);
            let ours = log.read(after, &filter, bytes_max).await.expect("a page");
            let theirs = memory.read(after, &filter, bytes_max).await.expect("a page");
            assert_eq!(shown(&ours), shown(&theirs));
        }
        Step::Last { count, filter } => {
            let ours = log.last(count, &filter, usize::MAX).await.expect("a page");
            let theirs = memory.last(count, &filter, usize::MAX).await.expect("a page");
            assert_eq!(shown(&ours), shown(&theirs));
        }
        Step::Resolve { id, grants } => {
            let id = Validator::default().event_id(id).expect("an id");
            assert_eq!(log.resolve(&id, &grants).await, memory.resolve(&id, &grants).await);
        }
        Step::Ago(millis) => {
            let ago = Duration::from_millis(millis);
            assert_eq!(log.position_ago(ago).await, memory.position_ago(ago).await);
        }
        Step::Clock(_) | Step::Reopen | Step::Kill | Step::Crash => {}
    }
    let (ours, theirs) = (log.bounds().await.expect("bounds"), memory.bounds().await.expect("bounds"));
    assert_eq!((ours.oldest, ours.newest), (theirs.oldest, theirs.newest));
}

/// A page without what differs from log to log: epochs, and the ids that spell them.
type Shown<'a> = (Position, Position, bool, Option<Position>, Vec<(Position, Timestamp, &'a Event)>);

fn shown(page: &Page) -> Shown<'_> {
    let entries = page.entries.iter().map(|entry| (entry.cursor.position, entry.time, &entry.event));
    (page.after, page.through, page.at_end, page.floor, entries.collect())
}
