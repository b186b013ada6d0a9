//! What is decided when a log is opened that was not closed, is damaged, or lacks files.

use tidings_topic::StoredEvent;

use super::*;
use crate::{
    Timestamp,
    segment::{
        compaction::damaged_deletion,
        deletions::Deletion,
        record::{Commit, DeletionRecord, EventRecord, HEADER_BYTES, Header, Record, encode},
        segment_file::SegmentName,
        tests::simulated::SimulatedDisk,
    },
};

const FIRST: &str = "00000000000000000001.log";
const MINUTE: Duration = Duration::from_secs(60);

fn open_with(disk: &SimulatedDisk, settings: &SegmentSettings, clock: &Clock) -> SegmentLog {
    SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), settings.clone(), clock.clone())
        .expect("it opens")
}

fn open(disk: &SimulatedDisk) -> SegmentLog {
    open_with(disk, &small(), &clock())
}

fn clock() -> Clock {
    Clock::manual(Timestamp::from_millis(1_000_000))
}

async fn append(log: &SegmentLog, topic: &str, text: &str) -> EventId {
    match log.append(Batch { events: vec![event(topic, text)], key: None }).await {
        Ok(Appended::New { ids, .. }) => ids[0].clone(),
        other => panic!("{other:?}"),
    }
}

async fn delete(log: &SegmentLog, topic: &str) {
    log.delete(&Topic::from_stored(topic).expect("a topic"), &Grants::all()).await.expect("deleted");
}

async fn read(log: &SegmentLog, filter: &Filter) -> Page {
    log.read(Position::BEFORE_ALL, filter, usize::MAX).await.expect("a page")
}

async fn texts(log: &SegmentLog) -> Vec<String> {
    read(log, &everything()).await.entries.iter().map(|entry| entry.event.data.clone()).collect()
}

/// A text that fills a segment.
fn large(text: &str) -> String {
    format!("{text}{}", "x".repeat(5_000))
}

#[tokio::test]
async fn what_a_crash_left_behind_is_removed() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let settings = SegmentSettings { age_max: Some(MINUTE), ..small() };
    let log = open_with(&disk, &settings, &clock);
    for _ in 0..4 {
        append(&log, "a", &large("expired")).await;
    }
    let maintaining = busy(&log);
    clock.advance(2 * MINUTE);
    append(&log, "a", "kept").await;
    maintenance::save_front(&log.0.log).expect("saved");
    let killed = disk.copy();
    drop(maintaining);
    for name in ["00000000000000000003-1.log.new", "00000000000000000009.index"] {
        killed.create(name).expect("there is room");
    }
    let log = open_with(&killed, &settings, &clock);
    assert_eq!(killed.list().expect("names"), ["00000000000000000005.log", "front", "state"]);
    assert_eq!(texts(&log).await, ["kept"]);
}

/// What was published before the end of the log was lost, in two segments: the log as its process
/// left it, and closed.
async fn published() -> (SimulatedDisk, SimulatedDisk, Vec<EventId>) {
    let disk = SimulatedDisk::new(1);
    let log = open(&disk);
    let mut ids = Vec::new();
    for text in [&large("first"), "second", "third"] {
        ids.push(append(&log, "a", text).await);
    }
    let killed = disk.copy();
    log.close().await;
    (killed, disk, ids)
}

async fn check_that_no_id_is_used_twice(disk: &SimulatedDisk, ids: &[EventId]) {
    let log = open(disk);
    assert_eq!(log.bounds().await.expect("bounds").epochs.iter().count(), 2, "the loss is reported");
    for _ in 0..3 {
        let id = append(&log, "a", "").await;
        assert!(!ids.contains(&id), "{id:?} is one of {ids:?}");
    }
}

#[tokio::test]
async fn no_id_is_used_twice_after_the_last_header_was_damaged() {
    let (killed, _, ids) = published().await;
    killed.change("00000000000000000002.log", |content| content[..HEADER_BYTES].fill(0xff));
    check_that_no_id_is_used_twice(&killed, &ids).await;
}

#[tokio::test]
async fn no_id_is_used_twice_after_all_segments_of_a_closed_log_were_lost() {
    let (_, closed, ids) = published().await;
    for name in closed.list().expect("names").iter().filter(|name| is_segment(name)) {
        closed.remove(name).expect("it is there");
    }
    check_that_no_id_is_used_twice(&closed, &ids).await;
}

/// The system has not been started again, so what was written is there: a damaged record was whole.
#[tokio::test]
async fn no_id_is_used_twice_after_the_last_event_of_a_killed_process_was_damaged() {
    let (killed, _, ids) = published().await;
    flip(&killed, "00000000000000000002.log", "third");
    check_that_no_id_is_used_twice(&killed, &ids).await;
}

#[tokio::test]
async fn a_damaged_deletion_at_the_end_of_a_killed_process_is_reported() {
    let disk = SimulatedDisk::new(1);
    let log = open(&disk);
    for topic in ["open", "secret"] {
        append(&log, topic, "").await;
    }
    delete(&log, "secret").await;
    let killed = disk.copy();
    killed.change(FIRST, |content| *content.last_mut().expect("a record") ^= 1);
    let reason = open(&killed).health().await.map_err(|error| error.0);
    assert_eq!(reason, Err(damaged_deletion(SegmentName::new(1))));
}

#[tokio::test]
async fn missing_segments_are_reported() {
    let disk = SimulatedDisk::new(1);
    let log = open(&disk);
    for _ in 0..4 {
        append(&log, "a", &large("")).await;
    }
    log.close().await;
    for name in ["00000000000000000002.log", "00000000000000000003.log"] {
        disk.remove(name).expect("it is there");
    }
    let reason = open(&disk).health().await.map_err(|error| error.0);
    assert_eq!(reason, Err("events 2 to 3 are missing".to_owned()));
}

/// It has an index, which covers more than is left.
#[tokio::test]
async fn a_full_segment_that_was_cut_off_is_reported() {
    let (_, closed, _) = published().await;
    closed.change(FIRST, |content| content.truncate(1_000));
    let reason = open(&closed).health().await.map_err(|error| error.0);
    assert_eq!(reason, Err("events 1 to 1 are missing".to_owned()));
}

/// Lost events expire with their segments, and nobody knows who could have received them.
#[tokio::test]
async fn a_gap_is_still_reported_after_damaged_and_missing_segments_have_expired() {
    let settings = SegmentSettings { age_max: Some(MINUTE), ..small() };
    for (topic, lost) in [("damaged", 2), ("missing", 4)] {
        let (disk, clock) = (SimulatedDisk::new(1), clock());
        let log = open_with(&disk, &settings, &clock);
        append(&log, "a", "").await;
        append(&log, "damaged", "rotten").await;
        for topic in ["a", "missing", "a"] {
            append(&log, topic, &large("")).await;
        }
        log.close().await;
        if topic == "damaged" {
            flip(&disk, FIRST, "rotten");
            disk.remove("00000000000000000001.index").expect("it is there");
        } else {
            disk.remove("00000000000000000004.log").expect("it is there");
        }
        let log = open_with(&disk, &settings, &clock);
        for is_expired in [false, true] {
            clock.advance(if is_expired { 2 * MINUTE } else { Duration::ZERO });
            let page = read(&log, &exact(topic)).await;
            assert_eq!((page.entries.len(), page.floor), (0, Some(position(lost))), "{is_expired}");
        }
    }
}

/// Without the file `front` nobody knows who could have received what compaction has removed.
#[tokio::test]
async fn a_gap_is_reported_for_removed_events_after_the_front_was_lost() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let matcher = Validator::default().exact("short").expect("a topic");
    let rule = RetentionRule { matcher, age_max: None, bytes_max: None, count_max: Some(1) };
    let settings = SegmentSettings { retention: vec![rule], ..small() };
    let log = open_with(&disk, &settings, &clock);
    for (topic, text) in
        [("short", ""), ("long", ""), ("short", &*large("")), ("short", "newest"), ("long", "")]
    {
        append(&log, topic, text).await;
    }
    clock.advance(settings.keys_age_max + Duration::from_millis(1));
    assert_eq!(log.compact().expect("compacted"), 1);
    log.close().await;
    disk.remove("front").expect("it is there");
    let without_rule = disk.copy();
    let page = read(&open_with(&disk, &settings, &clock), &exact("short")).await;
    assert_eq!((page.entries.len(), page.floor), (1, Some(position(3))));
    let bounds = open(&without_rule).bounds().await.expect("bounds");
    assert_eq!(bounds.oldest, Some(position(2)), "what was removed is not the oldest event");
}

/// The numbers of events that are lost are used again.
#[tokio::test]
async fn what_had_expired_of_a_lost_end_hides_nothing_that_comes_later() {
    let short = Validator::default().exact("short").expect("a topic");
    let rule = RetentionRule { matcher: short, age_max: Some(MINUTE), bytes_max: None, count_max: None };
    for settings in [
        SegmentSettings { age_max: Some(MINUTE), ..small() },
        SegmentSettings { age_max: Some(MINUTE), floors_max: 0, ..small() },
        SegmentSettings { retention: vec![rule], ..small() },
    ] {
        let (disk, clock) = (SimulatedDisk::new(1), clock());
        let log = open_with(&disk, &settings, &clock);
        for topic in ["long", "short"] {
            append(&log, topic, "").await;
        }
        let batch = || Batch { events: vec![event("short", "rotten")], key: IdempotencyKey::new("k") };
        log.append(batch()).await.expect("room");
        clock.advance(2 * MINUTE);
        assert_eq!(read(&log, &exact("short")).await.entries, []);
        log.close().await;
        flip(&disk, FIRST, "rotten");
        let log = open_with(&disk, &settings, &clock);
        let repeated = log.append(batch()).await;
        assert!(matches!(repeated, Ok(Appended::New { .. })), "its event is lost: {repeated:?}");
        let page = log.read(position(2), &exact("short"), usize::MAX).await.expect("a page");
        assert_eq!((page.entries.len(), page.floor), (1, None));
    }
}

/// The window of its first use was over when it was used again, and is not when the clock goes back.
#[tokio::test]
async fn a_key_that_was_used_twice_is_that_of_its_newest_batch() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let batch = || Batch { events: vec![event("a", "")], key: IdempotencyKey::new("k") };
    let log = open_with(&disk, &small(), &clock);
    log.append(batch()).await.expect("room");
    let before = clock.now();
    clock.advance(small().keys_age_max + Duration::from_millis(1));
    let Ok(Appended::New { ids, .. }) = log.append(batch()).await else { panic!("its window is over") };
    clock.set(before);
    let duplicate = Ok(Appended::Duplicate { first_id: ids[0].clone() });
    assert_eq!(log.append(batch()).await, duplicate);
    log.close().await;
    assert_eq!(open_with(&disk, &small(), &clock).append(batch()).await, duplicate);
}

/// Writes records behind those of the first segment.
fn push(disk: &SimulatedDisk, records: &[Record<'_>]) {
    let file = disk.open(FIRST).expect("it is there");
    let header = Header::of_file(&*file).expect("it can be read").expect("a header");
    disk.change(FIRST, |content| {
        for record in records {
            encode(&header, 0, content, record).expect("it is short");
        }
    });
}

/// A group of an event and a deletion whose commit record did not get to the disk: its event has the
/// number of the one that is published next, and must not stand in its place.
#[tokio::test]
async fn an_event_without_commit_before_a_deletion_does_not_come_back() {
    let disk = SimulatedDisk::new(1);
    let log = open(&disk);
    for topic in ["open", "secret"] {
        append(&log, topic, topic).await;
    }
    let crashed = disk.copy();
    crashed.crash();
    let torn = event("open", "torn");
    let event = StoredEvent::of(&torn);
    let deletion = Deletion { serial: 1, through: 2, protecting: [].into() };
    let topic = Topic::from_stored("secret").expect("a topic");
    push(
        &crashed,
        &[
            Record::Event(EventRecord { number: 3, time: Timestamp::default(), key: None, event }),
            Record::Deletion(DeletionRecord {
                deletion,
                synced_through: 2,
                topic,
                forgotten_through: 0,
                floors: Vec::new(),
            }),
        ],
    );
    let log = open(&crashed);
    append(&log, "open", "next").await;
    for _ in 0..2 {
        assert_eq!(texts(&log).await, ["open", "next"]);
        log.close().await;
        assert_eq!(texts(&open(&crashed)).await, ["open", "next"]);
    }
}

#[tokio::test]
async fn a_number_that_two_records_bear_is_that_of_the_first() {
    let disk = SimulatedDisk::new(1);
    let log = open(&disk);
    for text in ["first", "second"] {
        append(&log, "a", text).await;
    }
    let killed = disk.copy();
    let again = event("a", "again");
    let event = StoredEvent::of(&again);
    push(
        &killed,
        &[
            Record::Event(EventRecord { number: 1, time: Timestamp::default(), key: None, event }),
            Record::Commit(Commit { first: 1, last: 1, synced_through: 2 }),
        ],
    );
    assert_eq!(texts(&open(&killed)).await, ["first", "second"]);
}
