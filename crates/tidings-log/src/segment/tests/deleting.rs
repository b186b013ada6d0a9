//! Deletions as records of the log: what becomes of them when the log ends, begins a new segment or
//! is compacted, and that nothing waits for them.

use super::*;
use crate::{
    TailItem, Timestamp,
    segment::{recover::LOST_DELETION, tests::simulated::SimulatedDisk},
};

fn open(disk: &SimulatedDisk, clock: &Clock) -> SegmentLog {
    SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), small(), clock.clone()).expect("it opens")
}

fn clock() -> Clock {
    Clock::manual(Timestamp::from_millis(1_000_000))
}

async fn append(log: &SegmentLog, topic: &str, text: &str) -> Result<Appended, AppendError> {
    log.append(Batch { events: vec![event(topic, text)], key: None }).await
}

async fn delete(log: &SegmentLog, topic: &str) -> Result<Deleted, AppendError> {
    log.delete(&Topic::from_stored(topic).expect("a topic"), &Grants::all()).await
}

async fn texts(log: &SegmentLog, topic: &str) -> Vec<String> {
    let page = log.read(Position::BEFORE_ALL, &exact(topic), usize::MAX).await.expect("a page");
    page.entries.iter().map(|entry| entry.event.data.clone()).collect()
}

fn known_deletions(log: &SegmentLog) -> usize {
    log.0.log.store.horizon().hiding.deletions.iter().count()
}

fn segments(disk: &SimulatedDisk) -> Vec<String> {
    disk.list().expect("names").into_iter().filter(|name| is_segment(name)).collect()
}

#[tokio::test]
async fn a_deletion_survives_the_loss_of_the_events_before_it() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let log = open(&disk, &clock);
    append(&log, "open", "kept").await.expect("room");
    append(&log, "secret", "deleted").await.expect("room");
    append(&log, "secret", "rotten").await.expect("room");
    delete(&log, "secret").await.expect("deleted");
    // After a loss of power nothing but the deletion proves that they were acknowledged.
    let killed = disk.copy();
    killed.crash();
    log.close().await;
    for disk in [killed, disk] {
        flip(&disk, "00000000000000000001.log", "rotten");
        for life in 0..3 {
            let log = open(&disk, &clock);
            assert_eq!(texts(&log, "open").await, ["kept"], "life {life}");
            assert_eq!(texts(&log, "secret").await.len(), life, "life {life}: what came later is there");
            assert_eq!(log.bounds().await.expect("bounds").epochs.iter().count(), 2, "the loss is reported");
            let page = log.read(position(2), &exact("secret"), usize::MAX).await.expect("a page");
            assert_eq!(page.floor, None, "life {life}: what has the number of the lost event is there");
            append(&log, "secret", "later").await.expect("room");
            log.close().await;
        }
    }
}

#[tokio::test]
async fn a_deletion_survives_the_loss_of_the_last_event_of_its_segment() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let log = open(&disk, &clock);
    for (topic, text) in [("open", "kept"), ("secret", "deleted"), ("open", "rotten")] {
        append(&log, topic, text).await.expect("room");
    }
    delete(&log, "secret").await.expect("deleted");
    clock.advance(small().keys_age_max + Duration::from_millis(1));
    assert_eq!(log.compact().expect("looked at"), 0, "it ends the segment");
    append(&log, "open", "in the next segment").await.expect("room");
    log.close().await;
    flip(&disk, "00000000000000000001.log", "rotten");
    disk.remove("00000000000000000001.index").expect("it is there");
    for life in 0..2 {
        let log = open(&disk, &clock);
        assert_eq!(texts(&log, "open").await, ["kept", "in the next segment"], "life {life}");
        assert_eq!(texts(&log, "secret").await, [""; 0], "life {life}");
        log.close().await;
    }
}

#[tokio::test]
async fn deletions_of_a_segment_without_events_are_kept_when_it_is_replaced() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let log = open(&disk, &clock);
    for topic in ["open", "one", "other", "third"] {
        append(&log, topic, "deleted").await.expect("room");
    }
    log.close().await;
    // Without this file a new epoch begins, in a segment of its own.
    disk.remove("state").expect("it is there");
    let log = open(&disk, &clock);
    delete(&log, "one").await.expect("deleted");
    log.close().await;
    disk.remove("state").expect("it is there");
    let log = open(&disk, &clock);
    assert_eq!(segments(&disk), ["00000000000000000001.log", "00000000000000000005-1.log"]);
    delete(&log, "other").await.expect("deleted");
    disk.set_syncs_fail(true);
    assert!(matches!(delete(&log, "third").await, Err(AppendError::OutcomeUnknown(_))));
    disk.set_syncs_fail(false);
    append(&log, "third", "kept").await.expect("another segment");
    assert_eq!(segments(&disk), ["00000000000000000001.log", "00000000000000000005-2.log"]);
    assert_eq!(texts(&log, "third").await, ["deleted", "kept"], "it was not acknowledged");
    log.close().await;
    disk.crash();
    let log = open(&disk, &clock);
    for (topic, expected) in [("one", &[][..]), ("other", &[]), ("third", &["deleted", "kept"])] {
        assert_eq!(texts(&log, topic).await, expected, "{topic}");
    }
}

#[tokio::test]
async fn a_deletion_is_forgotten_when_nothing_is_left_of_what_it_deleted() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let log = open(&disk, &clock);
    let text = "x".repeat(300);
    // The second time there are segments of which no deletion deletes anything.
    for _ in 0..2 {
        for number in 0..60 {
            append(&log, ["open", "secret", "hidden"][number % 3], &text).await.expect("room");
        }
        for topic in ["secret", "hidden"] {
            delete(&log, topic).await.expect("deleted");
        }
        // Those in the segment that grows, and in memory, go with the next events.
        for _ in 0..20 {
            append(&log, "open", &text).await.expect("room");
        }
        clock.advance(small().keys_age_max + Duration::from_millis(1));
        assert!(log.compact().expect("compacted") > 2);
        assert_eq!(known_deletions(&log), 0);
    }
    let floor = async |log: &SegmentLog| {
        log.read(Position::BEFORE_ALL, &exact("secret"), 1).await.expect("a page").floor
    };
    let floor_before = floor(&log).await;
    assert!(floor_before.is_some());
    let killed = disk.copy();
    log.close().await;
    for disk in [killed, disk] {
        let log = open(&disk, &clock);
        assert_eq!(floor(&log).await, floor_before);
        assert_eq!(texts(&log, "open").await.len(), 80);
        let deleted = delete(&log, "open").await.expect("deleted");
        assert_eq!((deleted.count, deleted.serial), (80, 5), "deletions are numbered further");
    }
}

#[tokio::test]
async fn the_record_of_a_deletion_is_removed_when_nothing_is_left_of_what_it_deleted() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let log = open(&disk, &clock);
    for topic in ["open", "secret", "hidden"] {
        append(&log, topic, "").await.expect("room");
    }
    delete(&log, "secret").await.expect("deleted");
    for _ in 0..2 {
        append(&log, "open", &"x".repeat(5_000)).await.expect("room");
    }
    let contains_topic = || {
        let mut found = false;
        disk.change("00000000000000000001-1.log", |content| found |= contains(content, "secret"));
        found
    };
    clock.advance(small().keys_age_max + Duration::from_millis(1));
    assert_eq!(log.compact().expect("compacted"), 1);
    assert!(contains_topic(), "after a crash now it is needed");
    delete(&log, "hidden").await.expect("deleted");
    assert_eq!(log.compact().expect("compacted"), 1);
    assert_eq!(segments(&disk)[0], "00000000000000000001-2.log");
    disk.change("00000000000000000001-2.log", |content| assert!(!contains(content, "secret")));
}

/// The rule keeps two events. Once these are deleted, nothing but its saved front says that the
/// others had expired.
#[tokio::test]
async fn what_a_rule_has_hidden_is_saved_before_a_deletion_after_a_failure() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let rule = RetentionRule { matcher: Matcher::Any, age_max: None, bytes_max: None, count_max: Some(2) };
    let settings = SegmentSettings { retention: vec![rule], ..small() };
    let open = |disk: &SimulatedDisk| {
        SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), settings.clone(), clock.clone())
            .expect("it opens")
    };
    let log = open(&disk);
    for topic in ["expired", "expired", "deleted", "deleted"] {
        append(&log, topic, "").await.expect("room");
    }
    disk.set_room(Some(0));
    assert!(matches!(delete(&log, "deleted").await, Err(AppendError::Full(_))));
    disk.set_room(None);
    assert_eq!(delete(&log, "deleted").await.expect("deleted").count, 2);
    assert_eq!(texts(&open(&disk.copy()), "expired").await, [""; 0]);
}

/// One whose caller has gone may still wait for the writer when the next one comes.
#[tokio::test]
async fn deletions_that_wait_for_the_writer_together_are_all_carried_out() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let log = open(&disk, &clock);
    let topics = ["one", "other"];
    for topic in topics {
        append(&log, topic, "deleted").await.expect("room");
    }
    let plans = topics.map(|topic| {
        let topic = Topic::from_stored(topic).expect("a topic");
        DeletionPlan::new(&log.0.log, &topic, &Grants::all()).expect("the disk can be read")
    });
    let blocked = disk.block();
    let answers = plans.map(|plan| {
        let (answer, answered) = oneshot::channel();
        assert!(log.0.request(Request::Delete { plan: Box::new(plan), answer }));
        answered
    });
    drop(blocked);
    for (answered, serial) in answers.into_iter().zip(1..) {
        let deleted = answered.await.expect("an answer").expect("deleted");
        assert_eq!((deleted.count, deleted.serial), (1, serial));
    }
    for topic in topics {
        assert_eq!(texts(&log, topic).await, [""; 0], "{topic}");
    }
}

/// What had expired and was not freed when its process was killed would be there again with other
/// limits, and is deleted.
#[tokio::test]
async fn a_gap_is_reported_for_deleted_events_that_had_expired() {
    const MINUTE: Duration = Duration::from_secs(60);
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let settings = SegmentSettings { age_max: Some(MINUTE), ..small() };
    let log = SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), settings, clock.clone());
    let log = log.expect("it opens");
    let both = Validator::default().event(NewEvent::new("secret", "").also("other")).expect("a valid event");
    append(&log, "open", "").await.expect("room");
    log.append(Batch { events: vec![both], key: None }).await.expect("room");
    clock.advance(2 * MINUTE);
    append(&log, "secret", "").await.expect("room");
    assert_eq!(delete(&log, "secret").await.expect("deleted").count, 1);
    let page = open(&disk.copy(), &clock).read(Position::BEFORE_ALL, &exact("other"), 1).await;
    let page = page.expect("a page");
    assert_eq!((page.entries.len(), page.floor), (0, Some(position(2))));
}

#[tokio::test]
async fn a_deletion_whose_sync_failed_does_not_come_back_with_its_file() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let log = open(&disk, &clock);
    append(&log, "secret", "kept").await.expect("room");
    disk.set_syncs_fail(true);
    assert!(matches!(delete(&log, "secret").await, Err(AppendError::OutcomeUnknown(_))));
    disk.set_syncs_fail(false);
    append(&log, "open", "next").await.expect("another segment");
    assert_eq!(texts(&log, "secret").await, ["kept"]);
    let killed = disk.copy();
    for index in killed.list().expect("names").iter().filter(|name| is_index(name)) {
        killed.remove(index).expect("it is there");
    }
    assert_eq!(texts(&open(&killed, &clock), "secret").await, ["kept"]);
}

#[tokio::test]
async fn a_deletion_that_is_cut_off_a_closed_log_is_reported() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let log = open(&disk, &clock);
    append(&log, "open", "kept").await.expect("room");
    append(&log, "secret", "deleted").await.expect("room");
    let mut bytes = 0;
    disk.change("00000000000000000001.log", |content| bytes = content.len());
    delete(&log, "secret").await.expect("deleted");
    log.close().await;
    disk.change("00000000000000000001.log", |content| content.truncate(bytes));
    let log = open(&disk, &clock);
    assert_eq!(texts(&log, "secret").await, ["deleted"]);
    assert_eq!(log.health().await.map_err(|error| error.0), Err(LOST_DELETION.to_owned()));
}

/// The tail, and with it the fan-out, waited for the disk whenever a client deleted something.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_in_memory_waits_while_a_deletion_is_written_or_a_segment_freed() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let settings = SegmentSettings { bytes_max: 20_000, recent_bytes_max: 1_000_000, ..small() };
    let log = SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), settings, clock).expect("it opens");
    let (_, mut tail) = log.tail().await.expect("a tail");
    for number in 0..50 {
        append(&log, &format!("topic-{}", number % 10), &"x".repeat(500)).await.expect("room");
    }
    let newest = log.bounds().await.expect("bounds").newest;
    let blocked = disk.block();
    let waiting = log.clone();
    let deleting = tokio::spawn(async move { delete(&waiting, "topic-3").await });
    let waiting = log.clone();
    let freeing = tokio::task::spawn_blocking(move || waiting.free());
    let waiting = log.clone();
    let appending = tokio::spawn(async move { append(&waiting, "topic-4", "").await });
    for _ in 0..200 {
        tokio::task::yield_now().await;
        assert_eq!(log.health().await, Ok(()));
        assert!(log.bounds().await.expect("bounds").newest >= newest);
        assert!(log.read(newest, &everything(), 1).await.expect("a page").at_end);
    }
    let mut received = 0;
    while received < 50 {
        match tail.next(usize::MAX).await {
            Some(TailItem::Entries(entries)) => received += entries.len(),
            Some(TailItem::Skipped { through }) => received = usize::try_from(number(through)).expect("few"),
            other => panic!("{other:?}"),
        }
    }
    drop(blocked);
    assert!(deleting.await.expect("no panic").expect("deleted").count > 0);
    freeing.await.expect("no panic");
    appending.await.expect("no panic").expect("room");
}

fn number(position: Position) -> u64 {
    crate::numbers::number(position)
}
