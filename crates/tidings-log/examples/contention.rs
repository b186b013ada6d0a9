//! Measures what other work on a log in files costs publishers and readers: `make contention`
//! prints the latency of appends, reads and the tail, undisturbed, while another client deletes
//! without pause, and while retention frees segments.
//!
//! Usage: `contention DIRECTORY SECONDS`. The directory is created; each run begins a new log in it.

use std::{
    env,
    error::Error,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tidings_log::{Batch, Clock, Filter, Grants, Log, Position, SegmentLog, SegmentSettings, TailItem};
use tidings_topic::{Event, Matcher, NewEvent, Topic, Validator};
use tokio::time::{MissedTickBehavior, interval};

/// How often an event is appended, and how often something is read.
const APPEND_EVERY: Duration = Duration::from_millis(5);
const READ_EVERY: Duration = Duration::from_millis(1);
/// Events before the measurement, on as many topics as the deletions delete in turn.
const EVENTS_BEFORE: usize = 50_000;
const TOPICS: usize = 5_000;
const BYTES_MAX_OF_RETENTION: u64 = 4 * 1024 * 1024;

/// What disturbs the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Disturbance {
    Nothing,
    Deletions,
    Retention,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    let [_, directory, seconds] = &arguments[..] else {
        return Err("usage: contention DIRECTORY SECONDS".into());
    };
    let time = Duration::from_secs(seconds.parse()?);
    for [name, append, read, tail] in [
        ["", "append", "read", "tail"],
        ["", "p50 / p99 / max ms", "p50 / p99 / max ms", "p50 / p99 / max ms"],
    ] {
        println!("{name:>12} {append:>32} {read:>32} {tail:>32}");
    }
    for disturbance in [Disturbance::Nothing, Disturbance::Deletions, Disturbance::Retention] {
        let directory = Path::new(directory).join(format!("{disturbance:?}").to_lowercase());
        let _ = fs::remove_dir_all(&directory);
        measure(&directory, disturbance, time).await?;
    }
    Ok(())
}

/// Measures with one disturbance, and prints a line.
async fn measure(directory: &Path, disturbance: Disturbance, time: Duration) -> Result<(), Box<dyn Error>> {
    let bytes_max = match disturbance {
        Disturbance::Retention => BYTES_MAX_OF_RETENTION,
        _ => SegmentSettings::default().bytes_max,
    };
    let settings = SegmentSettings { bytes_max, ..SegmentSettings::default() };
    let log = SegmentLog::open(directory, settings, Clock::system())?;
    for first in (0..EVENTS_BEFORE).step_by(1_000) {
        let events = (first..first + 1_000).map(|number| event(&format!("topic/{}", number % TOPICS)));
        log.append(Batch { events: events.collect::<Result<_, _>>()?, key: None }).await?;
    }
    let is_done = Arc::new(AtomicBool::new(false));
    let disturbing = tokio::spawn(disturb(log.clone(), disturbance, Arc::clone(&is_done)));
    let appended_at = Arc::new(Mutex::new(None));
    let following = tokio::spawn(follow(log.clone(), Arc::clone(&appended_at), Arc::clone(&is_done)));
    let reading = tokio::spawn(read(log.clone(), Arc::clone(&is_done)));
    let appends = append(&log, time, &appended_at).await?;
    is_done.store(true, Ordering::Relaxed);
    let disturbances = disturbing.await?;
    let (reads, tail) = (reading.await?, following.await?);
    log.close().await;
    println!(
        "{:>12} {:>32} {:>32} {:>32}   {disturbances} times",
        format!("{disturbance:?}").to_lowercase(),
        shown(appends),
        shown(reads),
        shown(tail)
    );
    Ok(())
}

/// Appends single events for some time. Returns how long each took.
async fn append(
    log: &SegmentLog,
    time: Duration,
    appended_at: &Mutex<Option<Instant>>,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let (began, mut ticks, mut took) = (Instant::now(), interval(APPEND_EVERY), Vec::new());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while began.elapsed() < time {
        ticks.tick().await;
        let began = Instant::now();
        *appended_at.lock().expect("no panic") = Some(began);
        log.append(Batch { events: vec![event("measured")?], key: None }).await?;
        took.push(began.elapsed());
    }
    Ok(took)
}

/// Reads the newest events of a topic until the measurement ends. Returns how long each took.
async fn read(log: SegmentLog, is_done: Arc<AtomicBool>) -> Vec<Duration> {
    let filter = Filter { matchers: vec![matcher("measured")], grants: Grants::NONE };
    let (mut ticks, mut took, mut after) = (interval(READ_EVERY), Vec::new(), Position::BEFORE_ALL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !is_done.load(Ordering::Relaxed) {
        ticks.tick().await;
        let began = Instant::now();
        let page = log.read(after, &filter, 64 * 1024).await.expect("a page");
        took.push(began.elapsed());
        after = page.through;
    }
    took
}

/// Follows the log. Returns the time from each append to its arrival.
async fn follow(
    log: SegmentLog,
    appended_at: Arc<Mutex<Option<Instant>>>,
    is_done: Arc<AtomicBool>,
) -> Vec<Duration> {
    let (_, mut tail) = log.tail().await.expect("a tail");
    let mut took = Vec::new();
    while !is_done.load(Ordering::Relaxed) {
        let item = tokio::time::timeout(Duration::from_millis(100), tail.next(64 * 1024)).await;
        if let Ok(Some(TailItem::Entries(entries))) = item
            && entries.iter().any(|entry| entry.event.topics[0].as_str() == "measured")
            && let Some(began) = appended_at.lock().expect("no panic").take()
        {
            took.push(began.elapsed());
        }
    }
    took
}

/// Disturbs the others until the measurement ends. Returns how often.
async fn disturb(log: SegmentLog, disturbance: Disturbance, is_done: Arc<AtomicBool>) -> usize {
    let mut times = 0;
    while !is_done.load(Ordering::Relaxed) {
        let topic = format!("topic/{}", times % TOPICS);
        match disturbance {
            Disturbance::Nothing => tokio::time::sleep(Duration::from_millis(10)).await,
            Disturbance::Deletions => {
                let topic: Topic = Validator::default().topic(&topic).expect("a topic");
                log.append(Batch { events: vec![event(topic.as_str()).expect("an event")], key: None })
                    .await
                    .expect("room");
                log.delete(&topic, &Grants::all()).await.expect("deleted");
            }
            Disturbance::Retention => {
                let events = (0..100).map(|_| event(&topic).expect("an event"));
                log.append(Batch { events: events.collect(), key: None }).await.expect("room");
            }
        }
        times += 1;
    }
    times
}

fn event(topic: &str) -> Result<Event, Box<dyn Error>> {
    Ok(Validator::default().event(NewEvent::new(topic, "x".repeat(128)))?)
}

fn matcher(topic: &str) -> Matcher {
    Validator::default().exact(topic).expect("a topic")
}

fn shown(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let millis = |per_mille: usize| {
        let place = (took.len() * per_mille / 1_000).min(took.len().saturating_sub(1));
        took.get(place).copied().unwrap_or_default().as_secs_f64() * 1_000.0
    };
    format!("{:.2} / {:.2} / {:.2}", millis(500), millis(990), millis(1_000))
}
