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
    append(&log, "secret", "deleted").await.expect("room");
    append(&log, "open", "kept").await.expect("room");
    append(&log, "open", "rotten").await.expect("room");
    delete(&log, "secret").await.expect("deleted");
    log.close().await;
    disk.change("00000000000000000001.log", |content| {
        let place = content.windows(6).position(|window| window == b"rotten").expect("it is there");
        content[place] ^= 1;
    });
    for life in 0..3 {
        let log = open(&disk, &clock);
        assert_eq!(texts(&log, "open").await, ["kept"], "life {life}");
        assert_eq!(texts(&log, "secret").await.len(), life, "life {life}: what came later is there");
        assert_eq!(log.bounds().await.expect("bounds").epochs.iter().count(), 2, "the loss is reported");
        append(&log, "secret", "later").await.expect("room");
        log.close().await;
    }
}

#[tokio::test]
async fn deletions_of_a_segment_without_events_are_kept_when_it_is_replaced() {
    let (disk, clock) = (SimulatedDisk::new(1), clock());
    let log = open(&disk, &clock);
    for topic in ["one", "other", "third"] {
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
    assert_eq!(segments(&disk), ["00000000000000000001.log", "00000000000000000004-1.log"]);
    delete(&log, "other").await.expect("deleted");
    disk.set_syncs_fail(true);
    assert!(matches!(delete(&log, "third").await, Err(AppendError::OutcomeUnknown(_))));
    disk.set_syncs_fail(false);
    append(&log, "third", "kept").await.expect("another segment");
    assert_eq!(segments(&disk), ["00000000000000000001.log", "00000000000000000004-2.log"]);
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
        assert_eq!(texts(&log, "open").await.len(), 40);
        let deleted = delete(&log, "open").await.expect("deleted");
        assert_eq!((deleted.count, deleted.serial), (40, 3), "deletions are numbered further");
    }
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
