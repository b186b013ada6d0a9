//! Reopening a log after it was closed or its process was killed.

use super::*;
use crate::{Located, TailItem, Timestamp, segment::tests::simulated::SimulatedDisk};

const MINUTE: Duration = Duration::from_secs(60);

fn open(disk: &SimulatedDisk, settings: SegmentSettings, clock: &Clock) -> SegmentLog {
    SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), settings, clock.clone()).expect("it opens")
}

fn clock() -> Clock {
    Clock::manual(Timestamp::from_millis(1_000_000))
}

async fn append(log: &SegmentLog, topic: &str, text: &str) -> Cursor {
    match log.append(Batch { events: vec![event(topic, text)], key: None }).await {
        Ok(Appended::New { last, .. }) => last,
        other => panic!("{other:?}"),
    }
}

async fn read(log: &SegmentLog, filter: &Filter) -> Page {
    log.read(Position::BEFORE_ALL, filter, usize::MAX).await.expect("a page")
}

#[tokio::test]
async fn a_reopened_log_goes_on_where_it_was() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let mut said = Vec::new();
    for life in 0..10 {
        let log = open(&disk, small(), &clock);
        for number in 0..7 {
            let text = format!("{life}/{number}{}", "x".repeat(300));
            said.push((append(&log, "a", &text).await, text));
        }
        let found = read(&log, &everything()).await;
        assert!(found.entries.iter().map(|entry| (entry.cursor, entry.event.data.clone())).eq(said.clone()));
        assert_eq!(log.bounds().await.expect("bounds").epochs.iter().count(), 1, "one epoch");
        log.close().await;
    }
}

/// A hub that stops while subscribers are still connected cannot wait until the last of them has
/// let go of the log. It was not closed in order then, and after a restart of the machine everybody
/// got a gap notice that there was not.
#[tokio::test]
async fn a_log_is_closed_cleanly_while_other_handles_exist() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let settings = SegmentSettings { sync: SyncLevel::Never, ..small() };
    let log = open(&disk, settings.clone(), &clock);
    let (_, mut tail) = log.tail().await.expect("a tail");
    let last = append(&log, "a", "kept").await;
    log.close().await;
    log.close().await;

    assert!(matches!(tail.next(1).await, Some(TailItem::Entries(entries)) if entries.len() == 1));
    assert_eq!(tail.next(1).await, None);
    let late = log.append(Batch { events: vec![event("a", "late")], key: None }).await;
    assert!(matches!(late, Err(AppendError::Unavailable(_))), "{late:?}");
    assert!(log.health().await.is_err());
    assert_eq!(read(&log, &everything()).await.entries.len(), 1);

    disk.crash();
    let log = open(&disk, settings, &clock);
    let bounds = log.bounds().await.expect("bounds");
    assert_eq!((bounds.newest, bounds.epochs.iter().count()), (last.position, 1));
}

#[tokio::test]
async fn floors_survive_a_restart() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let settings = SegmentSettings { count_max: Some(20), ..small() };
    let log = open(&disk, settings.clone(), &clock);
    let quiet = append(&log, "quiet", "").await;
    for number in 0..60 {
        append(&log, "crowd", &format!("{number}{}", "x".repeat(300))).await;
    }
    append(&log, "kept", "").await;
    let topics = ["quiet", "crowd", "kept", "never"];
    let floors = async |log: &SegmentLog| {
        let mut floors = Vec::new();
        for topic in topics {
            floors.push(read(log, &exact(topic)).await.floor);
        }
        floors
    };
    let before = floors(&log).await;
    assert_eq!((before[0], before[2], before[3]), (Some(quiet.position), None, None));
    assert!(before[1].is_some());
    let bounds = log.bounds().await;
    // As after a crash, and as after an orderly end.
    let killed = disk.copy();
    log.close().await;
    for disk in [killed, disk] {
        let log = open(&disk, settings.clone(), &clock);
        assert_eq!(floors(&log).await, before);
        assert_eq!(log.bounds().await, bounds);
    }
}

#[tokio::test]
async fn a_deletion_survives_a_restart_and_its_gap_is_reported() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let log = open(&disk, small(), &clock);
    let text = "x".repeat(300);
    let mut secret = None;
    for _ in 0..20 {
        append(&log, "open", &text).await;
        secret = Some(append(&log, "secret", &text).await);
    }
    let topic = crate::Topic::from_stored("secret").expect("a topic");
    assert_eq!(log.delete(&topic, &Grants::all()).await.expect("deleted").count, 20);
    append(&log, "secret", "new").await;
    let killed = disk.copy();
    log.close().await;
    for disk in [killed, disk] {
        let log = open(&disk, small(), &clock);
        let page = read(&log, &exact("secret")).await;
        assert_eq!(page.entries.iter().map(|entry| &*entry.event.data).collect::<Vec<_>>(), ["new"]);
        assert_eq!(page.floor, secret.map(|cursor| cursor.position));
        assert_eq!(read(&log, &exact("open")).await.floor, None);
        assert_eq!(read(&log, &everything()).await.entries.len(), 21);
        assert_eq!(
            log.delete(&topic, &Grants::all()).await.expect("deleted").count,
            1,
            "what came later can be deleted, too"
        );
        log.close().await;
        assert_eq!(read(&open(&disk, small(), &clock), &exact("secret")).await.entries, []);
    }
}

#[tokio::test]
async fn events_that_a_deletion_kept_survive_a_restart_and_compaction() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let log = open(&disk, small(), &clock);
    let text = "x".repeat(300);
    let both = |data: &str| {
        let new = tidings_topic::NewEvent::new("chat", data).also("orders");
        tidings_topic::Validator::default().event(new).expect("a valid event")
    };
    for number in 0..20 {
        append(&log, "chat", &text).await;
        let batch = Batch { events: vec![both(&format!("{number}{text}"))], key: None };
        log.append(batch).await.expect("room");
    }
    let (topic, chat) = (crate::Topic::from_stored("chat").expect("a topic"), exact("chat"));
    // One who may delete everything, once before and with less right afterwards: what is gone stays
    // gone.
    for (grants, expected, left) in [
        (Grants::from_iter(chat.matchers.clone()), (20, 20), 20),
        (Grants::all(), (20, 0), 0),
        (Grants::from_iter(chat.matchers.clone()), (0, 1), 1),
    ] {
        if left == 1 {
            log.append(Batch { events: vec![both("later")], key: None }).await.expect("room");
        }
        let deleted = log.delete(&topic, &grants).await.expect("deleted");
        assert_eq!((deleted.count, deleted.kept), expected);
        let killed = disk.copy();
        for (is_compacted, disk) in [(false, killed.copy()), (true, killed)] {
            let later = Clock::manual(clock.now());
            let log = open(&disk, small(), &later);
            if is_compacted {
                later.advance(small().keys_age_max + Duration::from_millis(1));
                append(&log, "another segment", &text.repeat(20)).await;
                append(&log, "another segment", "").await;
                log.compact().expect("compacted");
            }
            let page = read(&log, &chat).await;
            assert!(page.floor.is_some());
            assert_eq!(page.entries.len(), left);
            assert!(page.entries.iter().all(|entry| entry.event.topics.len() == 2));
            log.close().await;
            assert_eq!(read(&open(&disk, small(), &later), &chat).await.entries.len(), left);
        }
    }
}

#[tokio::test]
async fn a_segment_of_which_everything_is_deleted_is_freed() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let log = open(&disk, small(), &clock);
    let names = || disk.list().expect("names").into_iter().filter(|name| is_segment(name)).count();
    for _ in 0..50 {
        append(&log, "secret", &"x".repeat(300)).await;
    }
    assert!(names() > 3);
    let topic = crate::Topic::from_stored("secret").expect("a topic");
    log.delete(&topic, &Grants::all()).await.expect("deleted");
    append(&log, "a", "").await;
    log.free();
    assert_eq!(names(), 1);
}

#[tokio::test]
async fn a_deletion_that_finds_no_room_takes_nothing() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let log = open(&disk, small(), &clock);
    append(&log, "secret", "kept").await;
    let topic = crate::Topic::from_stored("secret").expect("a topic");
    disk.set_room(Some(0));
    assert!(matches!(log.delete(&topic, &Grants::all()).await, Err(AppendError::Full(_))));
    let page = read(&log, &exact("secret")).await;
    assert_eq!((page.entries.len(), page.floor), (1, None));
    disk.set_room(None);
    assert_eq!(log.delete(&topic, &Grants::all()).await.expect("deleted").count, 1);
}

#[tokio::test]
async fn hidden_segments_are_freed() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let settings = SegmentSettings { bytes_max: 20_000, age_max: Some(MINUTE), ..small() };
    let log = open(&disk, settings, &clock);
    let bytes = || {
        let names = disk.list().expect("names");
        let mut bytes = 0;
        for name in names.iter().filter(|name| is_segment(name)) {
            disk.change(name, |content| bytes += content.len());
        }
        bytes
    };
    for _ in 0..200 {
        append(&log, "a", &"x".repeat(500)).await;
    }
    log.free();
    assert!((20_000..30_000).contains(&bytes()), "{} bytes", bytes());
    clock.advance(2 * MINUTE);
    assert_eq!(log.bounds().await.expect("bounds").oldest, None);
    append(&log, "a", "").await;
    log.free();
    assert!(bytes() < 8_000, "{} bytes", bytes());
}

#[tokio::test]
async fn segments_that_expire_without_an_append_are_freed_when_somebody_reads() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let log = open(&disk, SegmentSettings { age_max: Some(MINUTE), ..small() }, &clock);
    let count = || disk.list().expect("names").iter().filter(|name| is_segment(name)).count();
    // Once could be when maintenance looks by itself, every half a minute.
    let freed = async {
        for _ in 0..4 {
            for _ in 0..30 {
                append(&log, "a", &"x".repeat(500)).await;
            }
            assert!(count() > 2);
            clock.advance(2 * MINUTE);
            assert_eq!(read(&log, &everything()).await.entries, []);
            while count() > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    tokio::time::timeout(MINUTE, freed).await.expect("they are freed");
}

#[tokio::test]
async fn a_key_is_known_after_a_restart_within_its_window() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let batch =
        |key: &str| Batch { events: vec![event("a", &"x".repeat(900))], key: IdempotencyKey::new(key) };
    let settings = SegmentSettings { count_max: Some(5), ..small() };
    let log = open(&disk, settings.clone(), &clock);
    let mut first_ids = Vec::new();
    for number in 0..9 {
        let Ok(Appended::New { ids, .. }) = log.append(batch(&format!("k{number}"))).await else { panic!() };
        first_ids.push(ids[0].clone());
    }
    log.close().await;
    clock.advance(settings.keys_age_max);
    let log = open(&disk, settings.clone(), &clock);
    // Also those whose events are long gone.
    for (number, first_id) in first_ids.iter().enumerate() {
        let repeated = log.append(batch(&format!("k{number}"))).await;
        assert_eq!(repeated, Ok(Appended::Duplicate { first_id: first_id.clone() }));
    }
    log.close().await;
    clock.advance(Duration::from_millis(1));
    let log = open(&disk, settings, &clock);
    assert!(matches!(log.append(batch("k8")).await, Ok(Appended::New { .. })), "its window is over");
}

/// What is saved is copied some at a time. All keys of a group that was written together counted as
/// those of its last event, so of a large group only the first part was saved.
#[tokio::test]
async fn all_keys_of_a_large_group_outlive_their_events() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let batches = || {
        let batch = |number: usize| Batch {
            events: vec![event("a", "")],
            key: IdempotencyKey::new(&format!("k{number}")),
        };
        (0..1_500).map(batch).collect::<Vec<_>>()
    };
    let settings = SegmentSettings { count_max: Some(1), ..small() };
    let log = open(&disk, settings.clone(), &clock);
    let first_ids = log.append_all(batches()).await.into_iter().map(|appended| match appended {
        Ok(Appended::New { ids, .. }) => ids[0].clone(),
        other => panic!("{other:?}"),
    });
    let duplicate = |first_id| Ok(Appended::Duplicate { first_id });
    let duplicates: Vec<_> = first_ids.map(duplicate).collect();
    append(&log, "a", "the only one that is kept").await;
    log.free();
    log.close().await;
    let log = open(&disk, settings, &clock);
    assert_eq!(read(&log, &everything()).await.entries.len(), 1);
    assert_eq!(log.append_all(batches()).await, duplicates);
}

#[tokio::test]
async fn a_tail_that_lags_behind_memory_misses_nothing() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let log = open(&disk, small(), &clock);
    let (_, mut tail) = log.tail().await.expect("a tail");
    let mut said = Vec::new();
    for number in 0..60 {
        said.push(format!("{number}{}", "x".repeat(300)));
        append(&log, "a", said.last().expect("not empty")).await;
    }
    log.close().await;
    let mut received = Vec::new();
    while let Some(item) = tail.next(1_000).await {
        let TailItem::Entries(entries) = item else { panic!("{item:?}") };
        received.extend(entries.iter().map(|entry| entry.event.data.clone()));
    }
    assert_eq!(received, said);
}

/// It joined the threads of the log, so that a worker of the runtime stood still as long as the
/// disk did.
#[tokio::test]
async fn dropping_the_last_handle_does_not_wait_for_the_disk() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let log = open(&disk, small(), &clock);
    let (_, mut tail) = log.tail().await.expect("a tail");
    append(&log, "a", "kept").await;
    let blocked = disk.block();
    drop(log);
    drop(blocked);
    // It is closed in order in the background.
    assert!(matches!(tail.next(1).await, Some(TailItem::Entries(_))));
    assert_eq!(tail.next(1).await, None);
    disk.crash();
    let log = open(&disk, small(), &clock);
    assert_eq!(read(&log, &everything()).await.entries.len(), 1);
    assert_eq!(log.bounds().await.expect("bounds").epochs.iter().count(), 1);
}

#[tokio::test]
async fn a_lost_state_costs_an_epoch_and_no_event() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let log = open(&disk, small(), &clock);
    let before = append(&log, "a", "kept").await;
    log.close().await;
    disk.remove("state").expect("it is there");
    let log = open(&disk, small(), &clock);
    assert_eq!(read(&log, &everything()).await.entries[0].cursor, before);
    let bounds = log.bounds().await.expect("bounds");
    assert_eq!(bounds.epochs.locate(before, bounds.newest), Located::Earlier(before.position));
    let after = append(&log, "a", "next").await;
    assert!(after.position > before.position && after.epoch != before.epoch);
}

#[tokio::test]
async fn a_quiet_topic_is_found_without_reading_the_others() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let log = open(&disk, SegmentSettings { recent_bytes_max: 0, ..small() }, &clock);
    append(&log, "quiet", "one").await;
    for _ in 0..100 {
        append(&log, "crowd", &"x".repeat(300)).await;
    }
    append(&log, "quiet", "two").await;
    let page = log.read(Position::BEFORE_ALL, &exact("quiet"), 1_000).await.expect("a page");
    assert_eq!((page.entries.len(), page.at_end), (2, true));
}

/// Times are looked up by halving, and with these the last event would not be found.
#[tokio::test]
async fn a_time_is_found_although_the_clock_went_back() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let log = open(&disk, small(), &clock);
    let mut newest = Position::BEFORE_ALL;
    for millis in [10, 300, 310, 50] {
        clock.set(Timestamp::from_millis(millis));
        newest = append(&log, "a", "").await.position;
    }
    clock.set(Timestamp::from_millis(70));
    assert_eq!(log.position_ago(Duration::from_millis(10)).await, Ok(newest));
}
