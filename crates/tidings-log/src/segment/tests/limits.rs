//! What is bounded, and what is still complete where it is copied or looked up some at a time.

use tokio::task::JoinSet;

use super::*;
use crate::{Timestamp, numbers::number, segment::tests::simulated::SimulatedDisk};

fn open(disk: &SimulatedDisk, settings: SegmentSettings) -> SegmentLog {
    let clock = Clock::manual(Timestamp::from_millis(1_000_000));
    SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), settings, clock).expect("it opens")
}

/// Appends batches of one event with one call, which writes them as one group.
async fn append_all(log: &SegmentLog, events: impl IntoIterator<Item = Event>) {
    let batches = events.into_iter().map(|event| Batch { events: vec![event], key: None }).collect();
    for appended in log.append_all(batches).await {
        appended.expect("room");
    }
}

#[tokio::test]
async fn floors_survive_a_restart_however_many_there_are() {
    let disk = SimulatedDisk::new(1);
    let settings = SegmentSettings { count_max: Some(1), ..small() };
    let log = open(&disk, settings.clone());
    append_all(&log, (0..2_500).map(|number| event(&format!("topic {number}"), ""))).await;
    append_all(&log, [event("kept", "")]).await;
    let floors = async |log: &SegmentLog| {
        let mut floors = Vec::new();
        for topic in ["topic 0", "topic 1200", "topic 2499", "never"] {
            let page = log.read(Position::BEFORE_ALL, &exact(topic), usize::MAX).await.expect("a page");
            floors.push(page.floor);
        }
        floors
    };
    let expected = [Some(position(1)), Some(position(1_201)), Some(position(2_500)), None];
    assert_eq!(floors(&log).await, expected);
    log.free();
    log.close().await;
    assert_eq!(floors(&open(&disk, settings)).await, expected);
}

#[tokio::test]
async fn floors_that_were_forgotten_are_still_reported_after_a_restart() {
    let disk = SimulatedDisk::new(1);
    let settings = SegmentSettings { count_max: Some(1), floors_max: 2, ..small() };
    let log = open(&disk, settings.clone());
    append_all(&log, (0..10).map(|number| event(&format!("topic {number}"), ""))).await;
    append_all(&log, [event("kept", "")]).await;
    let floor = async |log: &SegmentLog| {
        log.read(Position::BEFORE_ALL, &exact("never"), usize::MAX).await.expect("a page").floor
    };
    let forgotten = floor(&log).await;
    assert!(forgotten.is_some(), "nobody knows who could have received what was dropped");
    log.close().await;
    assert_eq!(floor(&open(&disk, settings)).await, forgotten);
}

#[tokio::test]
async fn the_oldest_keys_of_a_group_are_forgotten_first() {
    let log = open(&SimulatedDisk::new(1), SegmentSettings { keys_max: 2, ..small() });
    let batch = |key: &str| Batch { events: vec![event("a", "")], key: IdempotencyKey::new(key) };
    log.append_all(["first", "second", "third"].map(batch).into()).await;
    for key in ["second", "third"] {
        let repeated = log.append(batch(key)).await;
        assert!(matches!(repeated, Ok(Appended::Duplicate { .. })), "{key}: {repeated:?}");
    }
    assert!(matches!(log.append(batch("first")).await, Ok(Appended::New { .. })));
}

#[tokio::test]
async fn an_id_that_too_many_private_events_bear_is_unknown() {
    let log = open(&SimulatedDisk::new(1), SegmentSettings { segment_bytes: None, ..small() });
    let named = NewEvent::new("a", "").id("x");
    let public = Validator::default().event(named.clone()).expect("a valid event");
    let private = Validator::default().event(named.private()).expect("a valid event");
    append_all(&log, vec![private; 10_000]).await;
    append_all(&log, [public]).await;
    let id = EventId::from_stored("x").expect("an id");
    assert_eq!(log.resolve(&id, &Grants::all()).await, Ok(Some(position(1))));
    assert_eq!(log.resolve(&id, &Grants::NONE).await, Ok(None), "the search ends");
}

#[tokio::test]
async fn entries_in_memory_are_bounded() {
    let log = open(&SimulatedDisk::new(1), small());
    for _ in 0..10 {
        append_all(&log, [event("a", &"x".repeat(400))]).await;
    }
    let oldest = log.0.log.store.acknowledged().recent.first();
    assert!(oldest.is_some_and(|oldest| oldest > 8), "{oldest:?} in 1,000 bytes");
}

/// Of a removed event a row of the index is left. What is left of it counts as bytes of the log, or
/// the indexes would grow for ever.
#[tokio::test]
async fn the_indexes_of_removed_events_are_bounded() {
    let clock = Clock::manual(Timestamp::from_millis(1_000_000));
    let settings = SegmentSettings { bytes_max: 20_000, keys_age_max: Duration::ZERO, ..small() };
    let log = SegmentLog::open_on(Arc::new(SimulatedDisk::new(1)), Box::new(()), settings, clock.clone());
    let log = log.expect("it opens");
    let secret = Topic::from_stored("secret").expect("a topic");
    for _ in 0..40 {
        append_all(&log, (0..80).map(|number| event(if number == 0 { "kept" } else { "secret" }, ""))).await;
        log.delete(&secret, &Grants::all()).await.expect("deleted");
        clock.advance(Duration::from_millis(1));
        log.compact().expect("compacted");
        log.free();
    }
    let (segments, _) = log.0.log.store.segments();
    let rows: u32 = segments.iter().map(|segment| segment.summary(|summary| summary.removed.count)).sum();
    assert!((500..1_100).contains(&rows), "{rows} rows of 20 bytes");
}

#[tokio::test]
async fn batches_that_wait_for_the_writer_are_bounded() {
    let disk = SimulatedDisk::new(1);
    let log = open(&disk, SegmentSettings { appends_waiting_max: 2, ..small() });
    let blocked = disk.block();
    let mut appending = JoinSet::new();
    for _ in 0..5 {
        let log = log.clone();
        appending.spawn(async move { append_all(&log, [event("a", "")]).await });
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert!(log.0.permits.available_permits() <= 2);
    }
    assert_eq!(log.0.permits.available_permits(), 0, "the others wait for capacity");
    drop(blocked);
    appending.join_all().await;
    assert_eq!(log.bounds().await.expect("bounds").newest, position(5));
}

/// An event of a topic that a key covers, and of another one that it does not.
fn protected(number: usize) -> Event {
    let new = NewEvent::new("a", "").also(format!("protected {number}"));
    Validator::default().event(new).expect("a valid event")
}

#[tokio::test]
async fn deletions_of_a_topic_that_do_not_replace_each_other_are_bounded() {
    let log = open(&SimulatedDisk::new(1), small());
    let (topic, grants) = (Topic::from_stored("a").expect("a topic"), Grants::from_iter(exact("a").matchers));
    let mut outcomes = Vec::new();
    for number in 0..65 {
        append_all(&log, [event("a", ""), protected(number)]).await;
        outcomes.push(log.delete(&topic, &grants).await);
    }
    let refused = outcomes.pop();
    assert!(outcomes.iter().all(|deleted| matches!(deleted, Ok(Deleted { count: 1, .. }))), "{outcomes:?}");
    assert!(matches!(refused, Some(Err(AppendError::Full(_)))), "{refused:?}");
    let page = log.read(Position::BEFORE_ALL, &exact("a"), usize::MAX).await.expect("a page");
    assert_eq!(page.entries.len(), 66, "what was refused deletes nothing");
}

#[tokio::test]
async fn topics_that_protect_events_from_a_deletion_are_bounded() {
    let log = open(&SimulatedDisk::new(1), SegmentSettings { segment_bytes: None, ..small() });
    append_all(&log, (0..10_001).map(protected).chain([event("a", "")])).await;
    let (topic, grants) = (Topic::from_stored("a").expect("a topic"), Grants::from_iter(exact("a").matchers));
    let refused = log.delete(&topic, &grants).await;
    assert!(matches!(refused, Err(AppendError::Full(_))), "{refused:?}");
    assert_eq!(log.delete(&topic, &Grants::all()).await.expect("deleted").count, 10_002);
}

#[tokio::test]
async fn indexes_in_memory_are_bounded_while_maintenance_is_busy() {
    let log = open(&SimulatedDisk::new(1), small());
    let maintaining = busy(&log);
    for _ in 0..10 {
        append_all(&log, [event("a", &"x".repeat(5_000))]).await;
    }
    let (segments, _) = log.0.log.store.segments();
    let in_memory = segments.iter().filter(|segment| !segment.is_sealed()).count();
    assert!(segments.len() > 5 && in_memory <= 2, "{in_memory} of {}", segments.len());
    drop(maintaining);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_counted_by_one_of_several_concurrent_deletions() {
    for _ in 0..20 {
        let log = open(&SimulatedDisk::new(1), small());
        append_all(&log, (0..30).map(|_| event("a", "x"))).await;
        let mut deleting = JoinSet::new();
        for _ in 0..4 {
            let log = log.clone();
            deleting.spawn(async move {
                let topic = Topic::from_stored("a").expect("a topic");
                log.delete(&topic, &Grants::all()).await.expect("deleted").count
            });
        }
        assert_eq!(deleting.join_all().await.into_iter().sum::<u64>(), 30);
    }
}

/// Segments are freed, and one from which something was deleted is replaced, at any time while a page
/// is read. Whatever is not in the page then is reported with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_missing_from_a_page_without_a_report_while_segments_are_freed() {
    let disk = SimulatedDisk::new(1);
    let settings =
        SegmentSettings { count_max: Some(20), segment_bytes: Some(900), recent_bytes_max: 0, ..small() };
    let log = open(&disk, settings);
    let publishing = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let mut readers = JoinSet::new();
    for _ in 0..4 {
        let (log, publishing) = (log.clone(), Arc::clone(&publishing));
        readers.spawn(async move {
            while publishing.load(std::sync::atomic::Ordering::Relaxed) {
                let page = log.read(Position::BEFORE_ALL, &everything(), usize::MAX).await.expect("a page");
                let gone_through = number(page.floor.unwrap_or(Position::BEFORE_ALL));
                for (expected, entry) in (gone_through + 1..).zip(&page.entries) {
                    assert_eq!(number(entry.cursor.position), expected, "after {gone_through}");
                }
            }
        });
    }
    for _ in 0..3_000 {
        append_all(&log, [event("a", &"x".repeat(100))]).await;
    }
    publishing.store(false, std::sync::atomic::Ordering::Relaxed);
    while let Some(reader) = readers.join_next().await {
        reader.expect("nothing is missing");
    }
}
