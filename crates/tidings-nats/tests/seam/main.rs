//! The seam test of the hub (`crates/tidings/tests/seam`) on a real nats-server: subscribers start, leave and come back at any place while publishers publish, here and at
//! another node, and while the server is stopped, killed and stands still.
//!
//! The people and the checker are those of the hub. `TIDINGS_SEAM_EVENTS` and `TIDINGS_SEAM_SEED` are those of the hub's test. A server that loses its end is tested
//! in `troubles.rs`.

mod dense;
#[path = "../../../tidings/tests/seam/model.rs"]
mod model;
#[allow(dead_code, reason = "the trouble of the hub's test is of another kind")]
#[path = "../../../tidings/tests/seam/people.rs"]
mod people;
#[path = "../../../tidings/tests/seam/random.rs"]
mod random;
#[path = "../../../tidings/tests/seam/world.rs"]
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

use tidings::{
    Format, Hub, HubSettings,
    log::{Batch, Log},
};
use tidings_nats::{Nats, NatsAddress, NatsLog, NatsSettings};
use tidings_testkit::NatsServer;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    dense::{Dense, Places},
    model::{Connection, Figures, Person, Truth},
    people::{Subscriber, publish, publish_last},
    random::Random,
    world::{Recorded, World, number_in},
};

/// Events of the test, in a run that nobody asked to be longer.
const EVENTS_DEFAULT: usize = 10_000;
/// Events of one round; each has a server, a log, a hub, subscribers and settings of its own.
const ROUND_EVENTS: usize = 5_000;
/// How long a round may take until somebody is said to wait in vain.
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_event_is_missing_doubled_or_out_of_order_on_a_nats_that_comes_and_goes() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let events =
        number("TIDINGS_SEAM_EVENTS").map_or(Ok(EVENTS_DEFAULT), usize::try_from).expect("so many fit");
    let given_seed = number("TIDINGS_SEAM_SEED");
    let mut random = Random::new(RandomState::new().hash_one(events));
    let mut total = Figures::default();
    while total.published < events {
        let seed = given_seed.unwrap_or_else(|| random.next());
        let outcome = round(seed).await.and_then(|(truth, people)| {
            total.published += truth.published();
            people.iter().try_for_each(|(person, connections)| check(&truth, person, connections, &mut total))
        });
        if let Err(error) = outcome {
            panic!("with TIDINGS_SEAM_SEED={seed}: {error}");
        }
    }
    println!("{total:?}");
}

type Subscribers = Vec<(Person, Vec<Connection>)>;

fn check(
    truth: &Truth,
    person: &Person,
    connections: &[Connection],
    figures: &mut Figures,
) -> Result<(), String> {
    connections.iter().enumerate().try_for_each(|(index, connection)| {
        let checked = truth.check(person, connection, figures);
        checked.map_err(|error| {
            let Connection { asked, newest_before, place, heard, .. } = connection;
            let first = &heard[..heard.len().min(3)];
            format!(
                "{error}\nin connection {index} of {person:?}, which asked for {asked:?} after {newest_before:?} and was at {place:?}; \
                 it begins {first:?}"
            )
        })
    })
}

async fn open(server: &NatsServer, count_max: Option<usize>, recent_bytes_max: usize) -> NatsLog {
    let address: NatsAddress = server.url().parse().expect("an address");
    let count_max = count_max.map(|count| count as u64);
    let settings = NatsSettings { count_max, recent_bytes_max, ..NatsSettings::default() };
    let nats = Nats::connect(&address, settings).await.expect("the server is there");
    nats.log().await.expect("the log opens")
}

/// One hub, from its first event to its last.
async fn round(seed: u64) -> Result<(Truth, Subscribers), String> {
    let mut random = Random::new(seed);
    let kept_max = *random.pick(&[None, Some(100), Some(300), Some(1_500)]);
    let recent_bytes_max = *random.pick(&[0, 20_000, 32 << 20]);
    let world = Arc::new(World::default());
    let finished = Arc::new(AtomicBool::new(false));
    let server = NatsServer::start().map_err(|error| error.to_string())?;
    let places = Places::of(open(&server, None, 32 << 20).await).await;
    let log = open(&server, kept_max, recent_bytes_max).await;
    let log = Arc::new(Dense { log, places: places.clone() });
    let other = Dense { log: open(&server, kept_max, 32 << 20).await, places };
    let hub = start(&log, &world, &mut random).await;
    let (_, tail) = log.tail().await.map_err(|error| error.to_string())?;
    let observing = Arc::clone(&world);
    let observer = tokio::spawn(async move { observing.observe(tail).await });
    let troubling = tokio::spawn(trouble(
        server,
        other,
        hub.clone(),
        Arc::clone(&world),
        Random::new(random.next()),
        Arc::clone(&finished),
    ));
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
    for _ in 0..8 {
        let random = Random::new(random.next());
        publishers.spawn(publish(hub.clone(), Arc::clone(&world), random, ROUND_EVENTS / 8));
    }
    let everything = async {
        while publishers.join_next().await.transpose().expect("a publisher panicked").is_some() {}
        finished.store(true, Ordering::Release);
        let server = troubling.await.expect("the trouble panicked");
        publish_last(&hub, &world).await;
        observer.await.expect("the observer panicked");
        while subscribers.join_next().await.transpose().expect("a subscriber panicked").is_some() {}
        drop(server);
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

async fn start(log: &Arc<Dense>, world: &Arc<World>, random: &mut Random) -> Hub {
    let mut settings = HubSettings::default();
    settings.heartbeat = Duration::from_secs(3_600);
    settings.feed_bytes_max = *random.pick(&[0, 4 << 10, 64 << 10, 16 << 20]);
    settings.replays_max = random.between(1, 9);
    settings.replay_page_bytes = *random.pick(&[2 << 10, 32 << 10, 128 << 10]);
    settings.lifetime_max = random.percent(20).then(|| Duration::from_millis(200) + random.micros(300_000));
    let bounds = log.bounds().await.expect("the server is there");
    world.note_epoch(bounds.epochs.current(), false);
    let recorded = Recorded { log: Arc::clone(log), world: Arc::clone(world) };
    Hub::builder().log(recorded).settings(settings).start().await.expect("the server is there")
}

/// Another node that appends to the same log, and a server that is away or stands still.
async fn trouble(
    mut server: NatsServer,
    other: Dense,
    hub: Hub,
    world: Arc<World>,
    mut random: Random,
    finished: Arc<AtomicBool>,
) -> NatsServer {
    while !finished.load(Ordering::Acquire) {
        sleep(random.micros(60_000)).await;
        match random.between(0, 20) {
            0 | 1 => {
                let ended = if random.percent(50) { server.stop() } else { server.kill() };
                ended.expect("it runs");
                sleep(random.micros(60_000)).await;
                server.start_again().expect("it starts");
            }
            2 => {
                server.freeze(true).expect("it runs");
                sleep(random.micros(60_000)).await;
                server.freeze(false).expect("it runs");
            }
            _ => {
                let count = random.between(1, 3);
                let events = world.invent(&mut random, count);
                let numbers: Vec<_> = events.iter().map(|event| number_in(&event.data)).collect();
                let events = events.into_iter().map(|event| hub.validator().event(event).expect("valid"));
                let answer = other.append(Batch { events: events.collect(), key: None }).await;
                world.settle(&numbers, &answer);
            }
        }
    }
    server
}
