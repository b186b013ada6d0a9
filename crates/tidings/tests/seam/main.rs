//! Where history meets the present: subscribers start, leave and come back at any place while publishers publish, on every kind of log.
//!
//! Promised, and checked for each connection against the truth (see [`model`]): nothing that was published is missing, doubled or out of
//! order, nothing private leaks, no gap is untold and none is invented.
//!
//! `TIDINGS_SEAM_EVENTS` says how many events each test publishes, `TIDINGS_SEAM_SEED` runs the one round with that seed. Threads and
//! hash maps have a chance of their own, so a seed may take some runs to fail again.

mod model;
mod people;
mod random;
#[cfg(unix)]
mod reopened;
mod world;

use std::{
    env,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

#[cfg(unix)]
use tidings::log::{SegmentSettings, SyncLevel};
use tidings::{
    Format, Hub, HubSettings, MemoryLimits, MemoryLog,
    log::{DelayedLog, Faults, Log},
};
use tokio::{runtime::Builder, task::JoinSet, time::timeout};

use crate::{
    model::{Connection, Figures, Person, Truth},
    people::{Subscriber, publish, publish_last, trouble},
    random::Random,
    world::{Recorded, World},
};

/// Events of one test, in a run that nobody asked to be longer.
const EVENTS_DEFAULT: usize = 20_000;
/// From so many events on, a run must have met every kind of gap.
const EVENTS_OF_A_LONG_RUN: usize = 100_000;
/// Events of one round; each has a log, a hub, subscribers and settings of its own.
const ROUND_EVENTS: usize = 5_000;
/// How long a round may take until somebody is said to wait in vain. A round takes a second or two, and in paused time none at all.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Memory,
    #[cfg(unix)]
    Files,
    Delayed,
}

#[test]
fn no_event_is_missing_doubled_or_out_of_order_on_a_log_in_memory() {
    run(Kind::Memory, |builder| builder.worker_threads(4), Builder::new_multi_thread);
}

#[cfg(unix)]
#[test]
fn no_event_is_missing_doubled_or_out_of_order_on_a_log_in_files_that_is_closed_and_killed() {
    run(Kind::Files, |builder| builder.worker_threads(4), Builder::new_multi_thread);
}

#[test]
fn no_event_is_missing_doubled_or_out_of_order_on_a_troubled_log() {
    run(Kind::Delayed, |builder| builder.worker_threads(4), Builder::new_multi_thread);
}

#[test]
fn no_event_is_missing_doubled_or_out_of_order_on_a_troubled_log_in_paused_time() {
    run(Kind::Delayed, |builder| builder.start_paused(true), Builder::new_current_thread);
}

fn run(kind: Kind, configure: impl Fn(&mut Builder) -> &mut Builder, new: impl Fn() -> Builder) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let events =
        number("TIDINGS_SEAM_EVENTS").map_or(Ok(EVENTS_DEFAULT), usize::try_from).expect("so many fit");
    let seed = number("TIDINGS_SEAM_SEED");
    let mut random = Random::new(RandomState::new().hash_one(events));
    let mut total = Figures::default();
    while total.published < events {
        let seed = seed.unwrap_or_else(|| random.next());
        let runtime = configure(new().enable_all()).build().expect("a runtime");
        let outcome = runtime.block_on(round(kind, seed)).and_then(|(truth, connections)| {
            total.published += truth.published();
            check(&truth, &connections, &mut total)
        });
        if let Err(error) = outcome {
            panic!("{kind:?} with TIDINGS_SEAM_SEED={seed}: {error}");
        }
    }
    eprintln!("{kind:?}: {total:?}");
    if total.published >= EVENTS_OF_A_LONG_RUN {
        let lost = kind != Kind::Delayed || total.other_log > 0;
        assert!(total.expired > 0 && total.unknown > 0 && lost, "this run proves little: {total:?}");
    }
}

type Subscribers = Vec<(Person, Vec<Connection>)>;

fn check(truth: &Truth, subscribers: &Subscribers, figures: &mut Figures) -> Result<(), String> {
    for (person, connections) in subscribers {
        for (index, connection) in connections.iter().enumerate() {
            truth.check(person, connection, figures).map_err(|error| {
                let Connection { asked, newest_before, place, attempted, heard, .. } = connection;
                format!(
                    "{error}\nin connection {index} of {person:?}, which asked for {asked:?} after {newest_before:?} and was \
                     at {place:?} with {attempted} attempted; it begins {:?}",
                    &heard[..heard.len().min(3)]
                )
            })?;
        }
    }
    Ok(())
}

/// One hub, from its first event to its last.
async fn round(kind: Kind, seed: u64) -> Result<(Truth, Subscribers), String> {
    let mut random = Random::new(seed);
    let kept_max = *random.pick(&[None, Some(100), Some(300), Some(1_500)]);
    let limits = MemoryLimits { count_max: kept_max.map(|kept| kept as u64), ..MemoryLimits::default() };
    let world = Arc::new(World::default());
    let finished = Arc::new(AtomicBool::new(false));
    let mut helpers = JoinSet::new();
    let hub = match kind {
        Kind::Memory => start(Arc::new(MemoryLog::new(limits)), &world, &mut random).await,
        #[cfg(unix)]
        Kind::Files => {
            let log = Arc::new(reopened::Reopened::new(files(kept_max, &mut random)));
            let hub = start(Arc::clone(&log), &world, &mut random).await;
            let random = Random::new(random.next());
            helpers.spawn(reopened::reopen(log, random, Arc::clone(&finished)));
            hub
        }
        Kind::Delayed => {
            let faults = Faults {
                latency_max: random.micros(2_000),
                append_unavailable_per_mille: 20,
                outcome_unknown_per_mille: 40,
                read_unavailable_per_mille: 10,
            };
            let log = Arc::new(DelayedLog::new(random.next(), faults, limits));
            let hub = start(Arc::clone(&log), &world, &mut random).await;
            let tail = loop {
                if let Ok((_, tail)) = log.tail().await {
                    break tail;
                }
            };
            let observing = Arc::clone(&world);
            helpers.spawn(async move { observing.observe(tail).await });
            let (world, finished) = (Arc::clone(&world), Arc::clone(&finished));
            helpers.spawn(trouble(log, hub.clone(), world, Random::new(random.next()), finished));
            hub
        }
    };
    let mut people = Vec::new();
    let mut subscribers = JoinSet::new();
    for _ in 0..random.between(6, 16) {
        let subscriber = Subscriber {
            hub: hub.clone(),
            world: Arc::clone(&world),
            person: Person::random(&mut random),
            format: if random.percent(70) { Format::Plain } else { Format::Json },
            random: Random::new(random.next()),
            diary: Arc::default(),
            finished: Arc::clone(&finished),
        };
        people.push((subscriber.person.clone(), Arc::clone(&subscriber.diary)));
        subscribers.spawn(subscriber.live());
    }
    let mut publishers = JoinSet::new();
    let publishers_count = if kind == Kind::Delayed { 8 } else { 4 };
    for _ in 0..publishers_count {
        let random = Random::new(random.next());
        publishers.spawn(publish(hub.clone(), Arc::clone(&world), random, ROUND_EVENTS / publishers_count));
    }
    let everything = async {
        while publishers.join_next().await.transpose().expect("a publisher panicked").is_some() {}
        finished.store(true, Ordering::Release);
        // The one who troubles or reopens the log stops; the one who observes it goes on.
        if kind != Kind::Memory {
            helpers.join_next().await.expect("a helper").expect("a helper panicked");
        }
        publish_last(&hub, &world).await;
        while helpers.join_next().await.transpose().expect("a helper panicked").is_some() {}
        while subscribers.join_next().await.transpose().expect("a subscriber panicked").is_some() {}
    };
    if timeout(PATIENCE, everything).await.is_err() {
        let waiting = people.iter().map(|(person, diary)| format!("\n{person:?}: {}", diary.summary()));
        return Err(format!("somebody waits in vain: {}", waiting.collect::<String>()));
    }
    drop(hub);
    let people: Subscribers = people.into_iter().map(|(person, diary)| (person, diary.take())).collect();
    let connections: Vec<_> = people.iter().flat_map(|(_, connections)| connections).collect();
    Ok((Truth::new(world.take(), kept_max, &connections), people))
}

/// Small and large segments, much and little memory.
#[cfg(unix)]
fn files(kept_max: Option<usize>, random: &mut Random) -> SegmentSettings {
    SegmentSettings {
        // What is synced decides what a loss of power takes, and there is none here.
        sync: SyncLevel::Never,
        count_max: kept_max.map(|kept| kept as u64),
        segment_bytes: Some(*random.pick(&[4 << 10, 64 << 10, 1 << 20])),
        recent_bytes_max: *random.pick(&[0, 16 << 10, 8 << 20]),
        ..SegmentSettings::default()
    }
}

async fn start<L: Log>(log: Arc<L>, world: &Arc<World>, random: &mut Random) -> Hub {
    let mut settings = HubSettings::default();
    settings.heartbeat = Duration::from_secs(3_600);
    settings.feed_bytes_max = *random.pick(&[0, 4 << 10, 64 << 10, 16 << 20]);
    settings.replays_max = random.between(1, 9);
    settings.replay_page_bytes = *random.pick(&[2 << 10, 32 << 10, 128 << 10]);
    settings.lifetime_max = random.percent(20).then(|| Duration::from_millis(200) + random.micros(300_000));
    let recorded = || Recorded { log: Arc::clone(&log), world: Arc::clone(world) };
    let bounds = loop {
        if let Ok(bounds) = log.bounds().await {
            break bounds;
        }
    };
    world.note_epoch(bounds.epochs.current(), false);
    loop {
        if let Ok(hub) = Hub::builder().log(recorded()).settings(settings.clone()).start().await {
            return hub;
        }
    }
}
