//! The transition from replay to live: subscribers connect, leave and reconnect at any position
//! while publishers publish, on any kind of log.
//!
//! Each connection is checked against the truth (see `model.rs`): no published event is missing,
//! duplicated or out of order, nothing private leaks, no gap is unreported and none is invented. A
//! kind of log and its faults are a [`Store`]; the rest is the same for all of them.
//!
//! `TIDINGS_REPLAY_TO_LIVE_EVENTS` sets how many events each test publishes,
//! `TIDINGS_REPLAY_TO_LIVE_SEED` runs the one round with that seed. Threads and hash maps are
//! random on their own, so a seed may need several runs to fail again.

mod model;
mod people;
mod random;
mod world;

use std::{
    any::type_name,
    env,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tidings::{
    Event, Format, Hub, HubSettings,
    log::{AppendError, Appended, Epoch, EpochStart, Log, Position},
};
use tokio::{
    runtime::Builder,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    model::{Connection, Figures, Person, Truth},
    people::{Subscriber, publish, publish_last},
    world::{Recorded, World, number_in},
};

pub use random::Random;

/// From this many events on, a run must have met every kind of gap.
const EVENTS_OF_A_LONG_RUN: usize = 100_000;
/// Events of one round; each has a log, a hub, subscribers and settings of its own.
const ROUND_EVENTS: usize = 5_000;
const PUBLISHERS: usize = 8;
/// How long a round may take before its subscribers count as stuck. A round takes a second or two,
/// and no time at all in paused time.
const PATIENCE: Duration = Duration::from_secs(300);

/// The longest time between two faults of a log, in microseconds.
const QUIET_MICROS_MAX: u64 = 60_000;
/// This many events have to be acknowledged between two faults. Without it a slow machine would
/// make no progress.
const BETWEEN_TROUBLES: usize = 20;

/// A kind of log, and its faults.
///
/// The checker needs positions that count one by one, from 1.
pub trait Store: Sized {
    /// Whether its faults lose acknowledged events.
    const LOSES_EVENTS: bool;

    /// A fresh log that keeps at most this many events.
    fn open(kept_max: Option<usize>, random: &mut Random) -> impl Future<Output = Self>;

    /// The log as the hub sees it.
    fn log(&self) -> Arc<dyn Log>;

    /// Appends as another node with the same log does.
    fn append_elsewhere(&self, events: Vec<Event>) -> impl Future<Output = Result<Appended, AppendError>>;

    /// Injects one fault into the log, and recovers from it.
    fn trouble(&mut self, random: &mut Random) -> impl Future<Output = Option<Loss>>;
}

/// What a fault has lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The end of the log, before this new epoch.
    End(EpochStart),
    /// Everything: a new, empty log replaces it.
    Everything(Epoch),
}

/// Plays rounds on this runtime until this many events were published, or as many as
/// `TIDINGS_REPLAY_TO_LIVE_EVENTS` sets. Panics if a promise is broken.
pub fn run<S: Store>(runtime: &mut Builder, events_default: usize) {
    let store = type_name::<S>();
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let events = number("TIDINGS_REPLAY_TO_LIVE_EVENTS")
        .map_or(Ok(events_default), usize::try_from)
        .expect("the number fits");
    let seed = number("TIDINGS_REPLAY_TO_LIVE_SEED");
    let mut random = Random::new(RandomState::new().hash_one(events));
    let mut total = Figures::default();
    while total.published < events {
        let seed = seed.unwrap_or_else(|| random.draw());
        let runtime = runtime.enable_all().build().expect("a runtime");
        let outcome = runtime.block_on(round::<S>(seed)).and_then(|(truth, people)| {
            total.published += truth.published();
            check(&truth, &people, &mut total)
        });
        if let Err(error) = outcome {
            panic!("{store} with TIDINGS_REPLAY_TO_LIVE_SEED={seed}: {error}");
        }
    }
    println!("{store}: {total:?}");
    if total.published >= EVENTS_OF_A_LONG_RUN {
        let lost = !S::LOSES_EVENTS || total.other_log > 0;
        assert!(total.expired > 0 && total.unknown > 0 && lost, "this run proves little: {total:?}");
    }
}

type Subscribers = Vec<(Person, Vec<Connection>)>;

fn check(truth: &Truth, subscribers: &Subscribers, figures: &mut Figures) -> Result<(), String> {
    for (person, connections) in subscribers {
        for (index, connection) in connections.iter().enumerate() {
            truth.check(person, connection, figures).map_err(|error| {
                let Connection { asked, newest_before, place, attempted, received, .. } = connection;
                format!(
                    "{error}\nin connection {index} of {person:?}, which asked for {asked:?} after {newest_before:?} and was \
                     at {place:?} with {attempted} attempted; it begins {:?}",
                    &received[..received.len().min(3)]
                )
            })?;
        }
    }
    Ok(())
}

/// One hub, from its first event to its last.
async fn round<S: Store>(seed: u64) -> Result<(Truth, Subscribers), String> {
    let mut random = Random::new(seed);
    let kept_max = *random.pick(&[None, Some(100), Some(300), Some(1_500)]);
    let mut store = S::open(kept_max, &mut random).await;
    let world = Arc::new(World::default());
    let log = store.log();
    let hub = start(&log, &world, &mut random).await;
    let (_, tail) = answered(async || log.tail().await).await;
    let mut observer = JoinSet::new();
    let observing = Arc::clone(&world);
    observer.spawn(async move { observing.observe(tail).await });

    let finished = Arc::new(AtomicBool::new(false));
    let mut people = Vec::new();
    let mut subscribers = JoinSet::new();
    for _ in 0..random.between(6, 16) {
        let subscriber = Subscriber {
            hub: hub.clone(),
            world: Arc::clone(&world),
            person: Person::random(&mut random),
            format: if random.percent(70) { Format::Plain } else { Format::Json },
            random: Random::new(random.draw()),
            diary: Arc::default(),
            finished: Arc::clone(&finished),
        };
        people.push((subscriber.person.clone(), Arc::clone(&subscriber.diary)));
        subscribers.spawn(subscriber.live());
    }
    let mut publishers = JoinSet::new();
    for _ in 0..PUBLISHERS {
        let random = Random::new(random.draw());
        publishers.spawn(publish(hub.clone(), Arc::clone(&world), random, ROUND_EVENTS / PUBLISHERS));
    }
    let publishing = async {
        all_end(publishers).await;
        finished.store(true, Ordering::Release);
    };
    let troubling = async {
        let mut troubled_at = 0;
        while !finished.load(Ordering::Acquire) {
            sleep(random.micros(QUIET_MICROS_MAX)).await;
            let acknowledged = world.acknowledged();
            if random.percent(20) && acknowledged >= troubled_at + BETWEEN_TROUBLES {
                troubled_at = acknowledged;
                match store.trouble(&mut random).await {
                    Some(Loss::End(start)) => world.note_epoch(start, false),
                    Some(Loss::Everything(epoch)) => {
                        world.note_epoch(EpochStart { epoch, after: Position::BEFORE_ALL }, true);
                    }
                    None => {}
                }
            } else {
                append_elsewhere(&store, &hub, &world, &mut random).await;
            }
        }
    };
    let everything = async {
        tokio::join!(publishing, troubling);
        publish_last(&hub, &world).await;
        all_end(observer).await;
        all_end(subscribers).await;
    };
    if timeout(PATIENCE, everything).await.is_err() {
        let got_on = format!(
            "{} events were attempted, {} of them acknowledged",
            world.state().said.len(),
            world.acknowledged()
        );
        let waiting = people.iter().map(|(person, diary)| format!("\n{person:?}: {}", diary.summary()));
        return Err(format!("some subscribers are stuck; {got_on}: {}", waiting.collect::<String>()));
    }
    drop(hub);
    let people: Subscribers = people.into_iter().map(|(person, diary)| (person, diary.take())).collect();
    let connections: Vec<_> = people.iter().flat_map(|(_, connections)| connections).collect();
    Ok((Truth::new(world.take(), kept_max, &connections), people))
}

async fn append_elsewhere<S: Store>(store: &S, hub: &Hub, world: &World, random: &mut Random) {
    let count = random.between(1, 3);
    let events = world.invent(random, count);
    let numbers: Vec<_> = events.iter().map(|event| number_in(&event.data)).collect();
    let events = events.into_iter().map(|event| hub.validator().event(event).expect("valid"));
    let answer = store.append_elsewhere(events.collect()).await;
    world.settle(&numbers, &answer);
}

async fn all_end(mut tasks: JoinSet<()>) {
    while tasks.join_next().await.transpose().expect("no task panics").is_some() {}
}

async fn start(log: &Arc<dyn Log>, world: &Arc<World>, random: &mut Random) -> Hub {
    let mut settings = HubSettings::default();
    settings.heartbeat = Duration::ZERO;
    settings.feed_bytes_max = *random.pick(&[0, 4 << 10, 64 << 10, 16 << 20]);
    settings.replays_max = random.between(1, 9);
    settings.replay_page_bytes = *random.pick(&[2 << 10, 32 << 10, 128 << 10]);
    settings.lifetime_max = random.percent(20).then(|| Duration::from_millis(200) + random.micros(300_000));
    let bounds = answered(async || log.bounds().await).await;
    world.note_epoch(bounds.epochs.current(), false);
    answered(async || {
        let recorded: Arc<dyn Log> = Arc::new(Recorded { log: Arc::clone(log), world: Arc::clone(world) });
        Hub::builder().log(recorded).settings(settings.clone()).start().await
    })
    .await
}

/// Repeats a request until the log answers.
async fn answered<T, E>(mut ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    loop {
        if let Ok(answer) = ask().await {
            return answer;
        }
    }
}
