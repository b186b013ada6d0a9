//! Measures the cost of a large log: `make history GIGABYTES=10` fills a log and prints how long it
//! takes to open it, to find the first event of a quiet topic, and to replay a million events, with
//! the memory of the process after each step.
//!
//! Usage: `history DIRECTORY GIGABYTES`. The directory is created, and kept; an existing log is
//! used unchanged.

use std::{
    env,
    error::Error,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tidings_log::{
    Batch, Clock, Filter, Grants, Log, Position, RetentionRule, SegmentLog, SegmentSettings, SyncLevel,
};
use tidings_topic::{Event, Matcher, NewEvent, Validator};

/// Bytes of data per event.
const EVENT_BYTES: usize = 1_000;
/// Events per batch while the log is filled.
const BATCH_EVENTS: usize = 1_000;
/// The number of busy topics.
const TOPICS: usize = 1_000;
/// The distance between two events of the quiet topic, in events.
const QUIET_EVERY: usize = 3_000_000;
/// Bytes that a replay reads per page, as in the hub.
const PAGE_BYTES: usize = 128 * 1024;
/// Events per replay.
const REPLAYED: usize = 1_000_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    let [_, directory, gigabytes] = &arguments[..] else {
        return Err("usage: history DIRECTORY GIGABYTES".into());
    };
    let bytes: usize = gigabytes.parse::<usize>()? << 30;
    let settings = SegmentSettings {
        sync: SyncLevel::Never,
        bytes_max: 1 << 40,
        age_max: None,
        segment_bytes: Some(64 << 20),
        ..SegmentSettings::default()
    };
    if !Path::new(directory).join("state").exists() {
        let log = SegmentLog::open(Path::new(directory), settings.clone(), Clock::system())?;
        fill(&log, bytes).await?;
        log.close().await;
        memory("filled");
    }

    let began = Instant::now();
    let log = SegmentLog::open(Path::new(directory), settings.clone(), Clock::system())?;
    let bounds = log.bounds().await?;
    took("opened", began.elapsed());
    println!("  events up to {:?}", bounds.newest);

    for round in 1..=3 {
        let began = Instant::now();
        let page = log.read(Position::BEFORE_ALL, &topic("quiet"), PAGE_BYTES).await?;
        took(&format!("first events of a quiet topic, run {round}: {}", page.entries.len()), began.elapsed());
    }
    let began = Instant::now();
    let page = log.last(1, &topic("quiet"), PAGE_BYTES).await?;
    took(&format!("last event of a quiet topic: {}", page.entries.len()), began.elapsed());

    for (name, filter) in [("everything", everything()), ("one of a thousand topics", topic("topic/7"))] {
        let (mut after, mut replayed) = (Position::BEFORE_ALL, 0);
        let began = Instant::now();
        while replayed < REPLAYED {
            let page = log.read(after, &filter, PAGE_BYTES).await?;
            replayed += page.entries.len();
            after = page.through;
            if page.at_end {
                break;
            }
        }
        let rate = 1_000 * replayed as u128 / began.elapsed().as_millis().max(1);
        took(&format!("replayed {replayed} events of {name}, {rate} per second"), began.elapsed());
    }
    log.close().await;

    let began = Instant::now();
    let rule = |topic: &str, count_max| RetentionRule {
        matcher: Validator::default().exact(topic).expect("a topic"),
        age_max: None,
        bytes_max: None,
        count_max: Some(count_max),
    };
    let settings = SegmentSettings { retention: vec![rule("topic/8", 100), rule("*", u64::MAX)], ..settings };
    let log = SegmentLog::open(Path::new(directory), settings, Clock::system())?;
    log.bounds().await?;
    took("opened with new rules", began.elapsed());
    let began = Instant::now();
    log.append(Batch { events: vec![event(8, "one more")?], key: None }).await?;
    took("appended under a rule", began.elapsed());
    let began = Instant::now();
    let deleted = log.delete(&Validator::default().topic("topic/9")?, &Grants::all()).await?;
    took(&format!("deleted {} events of one of a thousand topics", deleted.count), began.elapsed());
    log.close().await;
    Ok(())
}

async fn fill(log: &SegmentLog, bytes: usize) -> Result<(), Box<dyn Error>> {
    let padding = "x".repeat(EVENT_BYTES);
    let count = bytes / EVENT_BYTES;
    let mut next = 0;
    while next < count {
        let events = (next..next + BATCH_EVENTS).map(|number| event(number, &padding));
        log.append(Batch { events: events.collect::<Result<_, _>>()?, key: None }).await?;
        next += BATCH_EVENTS;
    }
    Ok(())
}

fn event(number: usize, padding: &str) -> Result<Event, Box<dyn Error>> {
    let topic = if number % QUIET_EVERY == QUIET_EVERY / 2 {
        "quiet".to_owned()
    } else {
        format!("topic/{}", number % TOPICS)
    };
    Ok(Validator::default().event(NewEvent::new(topic, padding))?)
}

fn topic(text: &str) -> Filter {
    let matcher = Validator::default().exact(text).expect("a topic");
    Filter { matchers: vec![matcher], grants: Grants::NONE }
}

fn everything() -> Filter {
    Filter { matchers: vec![Matcher::Any], grants: Grants::NONE }
}

fn took(what: &str, time: Duration) {
    println!("{:>9.1} ms  {what}", time.as_secs_f64() * 1_000.0);
    memory("  memory");
}

/// Prints the memory of the process, as Linux reports it.
fn memory(what: &str) {
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return };
    let line = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("unknown").trim().to_owned()
    };
    println!("  {what}: {} now, {} at most", line("VmRSS:"), line("VmHWM:"));
}
