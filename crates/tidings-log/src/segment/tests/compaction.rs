//! Which events compaction removes, what it leaves unchanged, and that a crash at any moment loses
//! nothing.
//!
//! `TIDINGS_CRASH_POINTS` sets at how many moments the power fails.

use std::{env, sync::atomic::Ordering};

use tokio::runtime::Builder;

use super::*;
use crate::{
    Entry, TailItem, Timestamp,
    segment::{
        compaction::{HIDDEN_PERCENT, Outcome, look_at},
        tests::simulated::{Random, SimulatedDisk},
    },
};

/// Crash points of a run that nobody asked to be longer.
const POINTS_DEFAULT: u64 = 150;

fn open(disk: &SimulatedDisk, settings: &SegmentSettings, clock: &Clock) -> Result<SegmentLog, OpenFailure> {
    SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), settings.clone(), clock.clone())
}

fn clock() -> Clock {
    Clock::manual(Timestamp::from_millis(1_000_000))
}

async fn append(log: &SegmentLog, topic: &str, text: &str) -> Option<Cursor> {
    match log.append(Batch { events: vec![event(topic, text)], key: None }).await {
        Ok(Appended::New { last, .. }) => Some(last),
        _ => None,
    }
}

async fn all(log: &SegmentLog, filter: &Filter) -> Page {
    log.read(Position::BEFORE_ALL, filter, usize::MAX).await.expect("a page")
}

async fn delete(log: &SegmentLog, topic: &str) -> Result<Deleted, AppendError> {
    log.delete(&Topic::from_stored(topic).expect("a topic"), &Grants::all()).await
}

/// All bytes of all segments.
fn bytes(disk: &SimulatedDisk) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in disk.list().expect("names").iter().filter(|name| is_segment(name)) {
        disk.change(name, |content| bytes.extend_from_slice(content));
    }
    bytes
}

/// A log of several segments, in which every third event is secret, and what was said openly.
async fn filled(disk: &SimulatedDisk, clock: &Clock) -> (SegmentLog, Vec<Arc<Entry>>) {
    let log = open(disk, &small(), clock).expect("a fresh log");
    for number in 0..60 {
        let topic = ["open", "open", "secret"][number % 3];
        append(&log, topic, &format!("{topic}-{number}-{}", "x".repeat(200))).await.expect("room");
        clock.advance(Duration::from_millis(10));
    }
    let said = all(&log, &exact("open")).await.entries;
    assert_eq!(said.len(), 40);
    (log, said)
}

/// The same, with a topic that was deleted long enough ago.
async fn to_compact(disk: &SimulatedDisk, clock: &Clock) -> (SegmentLog, Vec<Arc<Entry>>) {
    let (log, said) = filled(disk, clock).await;
    delete(&log, "secret").await.expect("deleted");
    clock.advance(small().keys_age_max + Duration::from_millis(1));
    (log, said)
}

#[tokio::test]
async fn what_was_deleted_leaves_the_disk_and_nothing_else_changes() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let (log, said) = filled(&disk, &clock).await;
    let newest = log.bounds().await.expect("bounds").newest;
    delete(&log, "secret").await.expect("deleted");
    let floor = all(&log, &exact("secret")).await.floor;
    assert!(floor.is_some());
    let check = async |log: &SegmentLog| {
        assert_eq!(all(log, &exact("open")).await.entries, said);
        assert_eq!(all(log, &everything()).await.entries, said);
        assert_eq!(log.last(usize::MAX, &exact("open"), usize::MAX).await.expect("a page").entries, said);
        assert_eq!(all(log, &exact("open")).await.floor, None);
        assert_eq!(all(log, &exact("secret")).await.floor, floor);
        assert_eq!(log.bounds().await.expect("bounds").newest, newest);
        assert_eq!(log.health().await, Ok(()));
    };
    assert_eq!(log.compact().expect("nothing to do"), 0, "its keys may still be repeated");
    assert!(contains(&bytes(&disk), "secret-2-"));
    clock.advance(small().keys_age_max + Duration::from_millis(1));
    assert!(log.compact().expect("compacted") > 2);
    check(&log).await;
    assert!(contains(&bytes(&disk), "secret-59-"), "the segment that grows is not full");
    let killed = disk.copy();
    log.close().await;
    for disk in [killed, disk] {
        let log = open(&disk, &small(), &clock).expect("it opens");
        check(&log).await;
        log.close().await;
        for name in disk.list().expect("names").iter().filter(|name| is_index(name)) {
            disk.remove(name).expect("it is there");
        }
        let log = open(&disk, &small(), &clock).expect("it opens");
        check(&log).await;
        // The next append goes into another segment, so that this one can be compacted.
        log.compact().expect("looked at");
        append(&log, "later", "").await.expect("room");
        assert_eq!(log.compact().expect("compacted"), 1);
        assert!(!contains(&bytes(&disk), "secret-"), "nothing is left");
        assert!(contains(&bytes(&disk), "open-58-"));
        assert_eq!(all(&log, &exact("open")).await.entries, said);
        assert_eq!(log.0.log.store.horizon().hiding.deletions.iter().count(), 0, "the deletion is done with");
        append(&log, "secret", "new").await.expect("room");
        log.close().await;
        let log = open(&disk, &small(), &clock).expect("it opens");
        let page = all(&log, &exact("secret")).await;
        assert_eq!((page.entries.len(), page.floor), (1, floor));
    }
}

#[tokio::test]
async fn what_left_the_disk_is_not_delivered_from_memory() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let settings = SegmentSettings { recent_bytes_max: 1_000_000, ..small() };
    let log = open(&disk, &settings, &clock).expect("a fresh log");
    let (_, mut tail) = log.tail().await.expect("a tail");
    append(&log, "open", "before it").await.expect("room");
    append(&log, "secret", "deleted").await.expect("room");
    append(&log, "open", &"x".repeat(5_000)).await.expect("room");
    append(&log, "open", "in the next segment").await.expect("room");
    delete(&log, "secret").await.expect("deleted");
    clock.advance(settings.keys_age_max + Duration::from_millis(1));
    assert_eq!(log.compact().expect("compacted"), 1);
    let mut received = Vec::new();
    while received.len() < 3 {
        if let TailItem::Entries(entries) = tail.next(usize::MAX).await.expect("the log is open") {
            received.extend(entries.iter().map(|entry| entry.event.data.clone()));
        }
    }
    assert_eq!(received, ["before it", &"x".repeat(5_000), "in the next segment"]);
}

#[tokio::test]
async fn what_expired_by_a_rule_leaves_the_disk_once_half_of_its_segment_is_hidden() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let rule = RetentionRule {
        matcher: Validator::default().exact("short").expect("a topic"),
        age_max: None,
        bytes_max: None,
        count_max: Some(1),
    };
    let settings = SegmentSettings { retention: vec![rule], ..small() };
    let log = open(&disk, &settings, &clock).expect("a fresh log");
    let text = |topic: &str, number: usize| format!("{topic}-{number}-{}", "x".repeat(200));
    // First one in four, then three in four: that is less, and more, than what is due.
    assert_eq!(HIDDEN_PERCENT, 50);
    for number in 0..40 {
        append(&log, if number % 4 == 0 { "short" } else { "long" }, &text("early", number))
            .await
            .expect("room");
    }
    for number in 0..80 {
        append(&log, if number % 4 == 0 { "long" } else { "short" }, &text("late", number))
            .await
            .expect("room");
    }
    let before = (all(&log, &exact("long")).await, all(&log, &exact("short")).await);
    assert_eq!((before.0.entries.len(), before.1.entries.len()), (50, 1));
    clock.advance(settings.keys_age_max + Duration::from_millis(1));
    let size = bytes(&disk).len();
    assert!(log.compact().expect("compacted") > 2);
    assert!(bytes(&disk).len() < size * 7 / 10);
    assert!(contains(&bytes(&disk), "early-0-") && !contains(&bytes(&disk), "late-25-"));
    let killed = disk.copy();
    let check = async |log: &SegmentLog| {
        assert_eq!((all(log, &exact("long")).await, all(log, &exact("short")).await), before);
        append(log, "short", "newest").await.expect("room");
        assert_eq!(all(log, &exact("short")).await.entries.len(), 1);
    };
    check(&open(&killed, &settings, &clock).expect("it opens")).await;
    check(&log).await;
}

#[tokio::test]
async fn a_full_disk_puts_compaction_off_and_harms_nothing() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let (log, said) = to_compact(&disk, &clock).await;
    let used = bytes(&disk).len();
    for room in [0, used / 2, used] {
        disk.set_room(Some(room));
        log.compact().expect_err("there is no room");
        assert_eq!(log.health().await, Ok(()), "it is nobody's trouble");
        assert_eq!(all(&log, &exact("open")).await.entries, said);
    }
    assert!(
        !disk.list().expect("names").iter().any(|name| name.ends_with("log.new")),
        "what was begun is gone"
    );
    disk.set_room(None);
    assert!(log.compact().expect("there is room again") > 2);
    assert_eq!(all(&log, &everything()).await.entries, said);
}

#[tokio::test]
async fn a_damaged_segment_is_left_as_it_is() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let (log, said) = to_compact(&disk, &clock).await;
    let name = disk.list().expect("names").into_iter().find(|name| is_segment(name)).expect("a segment");
    let mut before = Vec::new();
    disk.change(&name, |content| {
        let place = content.windows(7).position(|window| window == b"open-0-").expect("it is there");
        content[place] ^= 1;
        before.clone_from(content);
    });
    assert!(log.compact().expect("compacted") > 1, "the others are");
    disk.change(&name, |content| assert_eq!(*content, before));
    assert!(log.health().await.is_err());
    let page = all(&log, &exact("open")).await;
    assert_eq!(page.entries, said[1..]);
    assert_eq!(page.floor, Some(said[0].cursor.position));
}

#[tokio::test]
async fn compaction_is_given_up_when_the_log_is_closed() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let (log, said) = to_compact(&disk, &clock).await;
    let names = disk.list().expect("names");
    let closing = || log.0.log.closing.store(true, Ordering::Relaxed);
    let outcome = look_at(&log.0.log, 1, &closing, &|| Ok(())).expect("given up");
    assert_ne!(outcome, Outcome::Compacted);
    assert_eq!(disk.list().expect("names"), names, "nothing is left of it");
    assert_eq!(all(&log, &everything()).await.entries, said);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn readers_and_tails_do_not_notice() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let settings = SegmentSettings { recent_bytes_max: 0, keys_age_max: Duration::ZERO, ..small() };
    let log = open(&disk, &settings, &clock).expect("a fresh log");
    for round in 0..30 {
        let (_, mut tail) = log.tail().await.expect("a tail");
        for number in 0..30 {
            let topic = if number % 3 == 0 { "secret" } else { "open" };
            append(&log, topic, &format!("{round}-{number}-{}", "x".repeat(200))).await.expect("room");
        }
        clock.advance(Duration::from_millis(1));
        let readers: Vec<_> = (0..3)
            .map(|reader| {
                let (log, filter) = (log.clone(), if reader == 0 { exact("open") } else { everything() });
                tokio::spawn(async move {
                    let (mut after, mut found) = (Position::BEFORE_ALL, 0);
                    loop {
                        let page = log.read(after, &filter, 700).await.expect("a page");
                        found += page
                            .entries
                            .iter()
                            .filter(|entry| entry.event.topics[0].as_str() == "open")
                            .count();
                        if page.at_end {
                            return found;
                        }
                        after = page.through;
                    }
                })
            })
            .collect();
        delete(&log, "secret").await.expect("deleted");
        let compacting = log.clone();
        tokio::task::spawn_blocking(move || compacting.compact().expect("compacted"))
            .await
            .expect("no panic");
        for reader in readers {
            assert_eq!(reader.await.expect("no panic"), 20 * (round + 1), "round {round}");
        }
        let mut received = 0;
        while received < 20 {
            if let Some(crate::TailItem::Entries(entries)) = tail.next(500).await {
                received += entries.iter().filter(|entry| entry.event.topics[0].as_str() == "open").count();
            }
        }
    }
}

#[test]
fn a_loss_of_power_during_compaction_loses_nothing_and_brings_nothing_back() {
    let points = env::var("TIDINGS_CRASH_POINTS").ok().map(|text| text.parse().expect("a number"));
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut compacted = 0;
    for seed in 0..points.unwrap_or(POINTS_DEFAULT) {
        compacted += runtime.block_on(crash(seed));
    }
    assert!(compacted > 0);
}

/// Fills a log, deletes and compacts until the power fails, opens the log again and checks; several
/// times. Returns how often something was compacted.
async fn crash(seed: u64) -> usize {
    let (disk, clock, mut random) = (SimulatedDisk::new(seed), clock(), Random::new(seed));
    let rule = RetentionRule {
        matcher: Validator::default().exact("brief").expect("a topic"),
        age_max: None,
        bytes_max: None,
        count_max: Some(3),
    };
    let settings = SegmentSettings {
        keys_age_max: Duration::ZERO,
        segment_bytes: Some(1_000),
        retention: vec![rule],
        ..small()
    };
    let mut open_said: Vec<(Cursor, String)> = Vec::new();
    // The newest secret that was surely there when a deletion was answered.
    let mut deleted_through = None;
    let mut newest_secret = None;
    let mut compacted = 0;
    for life in 0..5 {
        if life < 4 {
            disk.fail_power_after(20 + random.next() % 150);
        }
        let log = match open(&disk, &settings, &clock) {
            Ok(log) => log,
            Err(error) => {
                assert!(life < 4, "seed {seed}: {error}");
                disk.crash();
                continue;
            }
        };
        check(&log, &open_said, deleted_through, seed).await;
        for step in 0..40 {
            clock.advance(Duration::from_millis(1));
            match random.next() % 12 {
                0..6 => {
                    let text = format!("{life}/{step}{}", "x".repeat((random.next() % 200) as usize));
                    let Some(cursor) = append(&log, "open", &text).await else { break };
                    open_said.push((cursor, text));
                }
                6 | 7 => {
                    let Some(cursor) = append(&log, "secret", &"s".repeat(150)).await else { break };
                    newest_secret = Some(cursor.position);
                }
                8 | 9 => {
                    if append(&log, "brief", &"b".repeat(150)).await.is_none() {
                        break;
                    }
                }
                10 => match delete(&log, "secret").await {
                    Ok(_) => deleted_through = newest_secret,
                    Err(_) => break,
                },
                _ => match log.compact() {
                    Ok(count) => compacted += count,
                    Err(_) => break,
                },
            }
        }
        log.close().await;
        disk.crash();
    }
    compacted
}

async fn check(log: &SegmentLog, said: &[(Cursor, String)], deleted_through: Option<Position>, seed: u64) {
    let page = async |topic| log.read(Position::BEFORE_ALL, &exact(topic), usize::MAX).await;
    // The power may fail while something is read.
    let (Ok(open), Ok(secret), Ok(brief)) = (page("open").await, page("secret").await, page("brief").await)
    else {
        return;
    };
    let found: Vec<_> = open.entries.iter().map(|entry| (entry.cursor, entry.event.data.as_str())).collect();
    let mut rest = found.iter();
    for (cursor, text) in said {
        // What no subscriber was notified of may stand between.
        assert!(rest.any(|found| *found == (*cursor, text)), "seed {seed}: {cursor} was lost");
    }
    assert_eq!(open.floor, None, "seed {seed}: a gap in what is open");
    assert_eq!(log.health().await, Ok(()), "seed {seed}");
    if let Some(through) = deleted_through {
        let back = secret.entries.iter().find(|entry| entry.cursor.position <= through);
        assert_eq!(back, None, "seed {seed}: a deleted event is back");
        assert!(secret.floor >= Some(through), "seed {seed}: nobody is reported of the deletion");
    }
    assert!(brief.entries.len() <= 3, "seed {seed}");
}
