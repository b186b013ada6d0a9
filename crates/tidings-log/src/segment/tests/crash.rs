//! Power failures at every operation: afterwards every acknowledged event is there, complete and in
//! order, and nothing else.
//!
//! `TIDINGS_CRASH_POINTS` sets how many are tried.

use std::env;

use tokio::{runtime::Builder, task::JoinSet};

use super::*;
use crate::{
    Epochs, Timestamp,
    segment::tests::simulated::{Random, SimulatedDisk},
};

/// Crash points of a run that nobody asked to be longer.
const POINTS_DEFAULT: u64 = 70;

/// How a machine stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    Power,
    Kill,
}

#[test]
fn what_was_acknowledged_survives_a_loss_of_power_at_any_moment() {
    run(|_| (SyncLevel::Always, Stop::Power));
}

#[test]
fn what_was_acknowledged_survives_a_killed_process_at_any_moment() {
    run(|seed| {
        let levels = [SyncLevel::Always, SyncLevel::Interval(Duration::from_millis(1)), SyncLevel::Never];
        (levels[(seed % 3) as usize], Stop::Kill)
    });
}

#[test]
fn what_a_lax_sync_level_loses_with_the_power_is_reported() {
    run(|seed| {
        let levels = [SyncLevel::Interval(Duration::from_millis(1)), SyncLevel::Never];
        (levels[(seed % 2) as usize], Stop::Power)
    });
}

/// A group that was written and not synced when its process was killed is valid for the next one.
#[tokio::test]
async fn what_a_log_has_shown_since_it_was_opened_survives_a_loss_of_power() {
    let mut shown_unacknowledged = 0;
    for seed in 0..40 {
        let disk = SimulatedDisk::new(seed);
        let open = || {
            let disk = Arc::new(disk.clone());
            SegmentLog::open_on(disk, Box::new(()), small(), Clock::system()).expect("it opens")
        };
        let append = async |log: &SegmentLog, text: &str| {
            log.append(Batch { events: vec![event("a", text)], key: None }).await
        };
        let texts = async |log: &SegmentLog| {
            let page = log.read(Position::BEFORE_ALL, &everything(), usize::MAX).await.expect("a page");
            page.entries.iter().map(|entry| entry.event.data.clone()).collect::<Vec<_>>()
        };
        let log = open();
        append(&log, "first").await.expect("it is synced");
        disk.fail_power_after(seed % 4);
        let second = append(&log, "second").await;
        log.close().await;
        disk.kill();
        let log = open();
        let shown = texts(&log).await;
        shown_unacknowledged += usize::from(second.is_err() && shown.len() == 2);
        disk.fail_power_after(0);
        log.close().await;
        disk.crash();
        assert_eq!(texts(&open()).await, shown, "seed {seed}");
    }
    assert!(shown_unacknowledged > 0);
}

/// Each event is synced in its time, whether or not another one follows.
#[tokio::test]
async fn what_is_older_than_the_sync_interval_survives_a_loss_of_power() {
    const COUNT: u64 = 100;
    let disk = SimulatedDisk::new(1);
    let sync = SyncLevel::Interval(Duration::from_millis(10));
    let settings = SegmentSettings { sync, segment_bytes: None, ..small() };
    let open = || {
        let disk = Arc::new(disk.clone());
        SegmentLog::open_on(disk, Box::new(()), settings.clone(), Clock::system()).expect("it opens")
    };
    let log = open();
    let syncs = || log.stats().and_then(|stats| stats.syncs).expect("they are counted").count();
    let all_synced = async {
        for number in 0..COUNT {
            log.append(Batch { events: vec![event("a", "kept")], key: None }).await.expect("room");
            while syncs() <= number {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all_synced).await.expect("each is synced in time");
    disk.fail_power_after(0);
    log.close().await;
    disk.crash();
    let page = open().read(Position::BEFORE_ALL, &everything(), usize::MAX).await.expect("a page");
    assert_eq!(page.entries.len() as u64, COUNT);
}

fn run(how: impl Fn(u64) -> (SyncLevel, Stop)) {
    let points = env::var("TIDINGS_CRASH_POINTS").ok().map(|text| text.parse().expect("a number"));
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    for seed in 0..points.unwrap_or(POINTS_DEFAULT) {
        let (sync, stop) = how(seed);
        runtime.block_on(crash(seed, sync, stop));
    }
}

/// A batch that was acknowledged.
#[derive(Clone, Debug)]
struct Acknowledged {
    texts: Vec<String>,
    first_id: EventId,
    last: Cursor,
    key: Option<IdempotencyKey>,
}

/// Appends until the power fails or the process is killed, opens the log again, checks; twice, so
/// that recovery is crashed, too.
async fn crash(seed: u64, sync: SyncLevel, stop: Stop) {
    let disk = SimulatedDisk::new(seed);
    let mut random = Random::new(seed);
    let clock = Clock::manual(Timestamp::from_millis(1_000_000));
    let settings = SegmentSettings { sync, ..small() };
    let mut acknowledged: Vec<Acknowledged> = Vec::new();
    let mut attempted = 0;
    let mut epochs: Option<Epochs> = None;
    for life in 0..4 {
        let last_life = life == 3;
        if !last_life {
            disk.fail_power_after(random.next() % 60);
        }
        let opened =
            SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), settings.clone(), clock.clone());
        if let Ok(log) = opened {
            let bounds = log.bounds().await.ok();
            if let Some(bounds) = bounds {
                check(&log, &bounds, &mut acknowledged, epochs.as_ref(), sync, stop, seed).await;
                epochs = Some(bounds.epochs);
            }
            if last_life {
                assert!(matches!(
                    append_some(&log, &mut random, &mut attempted).await.as_slice(),
                    [Some(_), ..]
                ));
            }
            for _ in 0..12 {
                let appended = append_some(&log, &mut random, &mut attempted).await;
                let failed = appended.iter().any(Option::is_none);
                let mut new: Vec<_> = appended.into_iter().flatten().collect();
                new.sort_by_key(|batch| batch.last.position);
                acknowledged.extend(new);
                if failed {
                    break;
                }
            }
            log.close().await;
        } else {
            assert!(!last_life, "seed {seed}: {opened:?}");
        }
        match stop {
            Stop::Power => disk.crash(),
            Stop::Kill => disk.kill(),
        }
    }
}

/// Appends a few batches at the same time, some with keys.
async fn append_some(
    log: &SegmentLog,
    random: &mut Random,
    attempted: &mut u64,
) -> Vec<Option<Acknowledged>> {
    let mut tasks = JoinSet::new();
    for _ in 0..=random.next() % 3 {
        *attempted += 1;
        let name = *attempted;
        let key = name.is_multiple_of(3).then(|| IdempotencyKey::new(&format!("key-{name}")).expect("a key"));
        let padding = "x".repeat((random.next() % 900) as usize);
        let count = random.next() % 3 + 1;
        let texts: Vec<_> = (0..count).map(|number| format!("{name}/{number}/{count}/{padding}")).collect();
        let log = log.clone();
        tasks.spawn(async move {
            let events = texts.iter().map(|text| event("topic", text)).collect();
            match log.append(Batch { events, key: key.clone() }).await {
                Ok(Appended::New { ids, last }) => {
                    Some(Acknowledged { texts, first_id: ids[0].clone(), last, key })
                }
                Ok(other) => panic!("{other:?}"),
                Err(_) => None,
            }
        });
    }
    tasks.join_all().await
}

/// Compares what is there with what was acknowledged, and forgets what was lost and reported.
async fn check(
    log: &SegmentLog,
    bounds: &Bounds,
    acknowledged: &mut Vec<Acknowledged>,
    epochs_before: Option<&Epochs>,
    sync: SyncLevel,
    stop: Stop,
    seed: u64,
) {
    let page = log.read(Position::BEFORE_ALL, &everything(), usize::MAX).await;
    // The power may fail while it is read.
    let Ok(page) = page else { return };
    let new_epoch = epochs_before.is_some_and(|before| before.current() != bounds.epochs.current());
    let may_lose = stop == Stop::Power && sync != SyncLevel::Always;
    assert!(may_lose || !new_epoch, "seed {seed}: a false alarm");
    assert_eq!(page.floor, None, "seed {seed}: a gap");
    assert_eq!(log.health().await, Ok(()), "seed {seed}");
    let found: Vec<_> = page.entries.iter().map(|entry| (entry.cursor, entry.event.data.as_str())).collect();
    assert!(found.is_sorted_by_key(|(cursor, _)| cursor.position), "seed {seed}: the order");
    if new_epoch {
        let kept = bounds.epochs.current().after;
        acknowledged.retain(|batch| batch.last.position <= kept);
    }
    for batch in acknowledged.iter() {
        let end = found.iter().position(|(cursor, _)| *cursor == batch.last);
        let end = end.unwrap_or_else(|| panic!("seed {seed}: {:?} was lost", batch.last)) + 1;
        let texts: Vec<_> = found[end - batch.texts.len()..end].iter().map(|(_, text)| *text).collect();
        assert_eq!(texts, batch.texts, "seed {seed}");
        if let Some(key) = &batch.key {
            let again = Batch { events: vec![event("topic", "again")], key: Some(key.clone()) };
            match log.append(again).await {
                Ok(appended) => {
                    assert_eq!(
                        appended,
                        Appended::Duplicate { first_id: batch.first_id.clone() },
                        "seed {seed}"
                    );
                }
                Err(_) => return,
            }
        }
    }
    // Batches are whole, those included that no subscriber was notified of.
    let mut rest = found.as_slice();
    while let Some((_, first)) = rest.first() {
        let mut parts = first.split('/').skip(1);
        let (number, count) = (parts.next().expect("a number"), parts.next().expect("a count"));
        let count: usize = count.parse().expect("a number");
        assert_eq!(number, "0", "seed {seed}: a batch without its beginning");
        assert!(rest.len() >= count, "seed {seed}: a batch without its end");
        rest = &rest[count..];
    }
}
