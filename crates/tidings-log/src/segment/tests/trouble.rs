//! Disks that are full or fail, and directories that another process uses.

use std::{fs, os::unix::fs::PermissionsExt};

use super::*;
use crate::{TailItem, Timestamp, segment::tests::simulated::SimulatedDisk};

fn open(disk: &SimulatedDisk) -> SegmentLog {
    SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), small(), Clock::system()).expect("it opens")
}

async fn append(log: &SegmentLog, text: &str) -> Result<Appended, AppendError> {
    log.append(Batch { events: vec![event("a", text)], key: None }).await
}

async fn texts(log: &SegmentLog) -> Vec<String> {
    let page = log.read(Position::BEFORE_ALL, &everything(), usize::MAX).await.expect("a page");
    page.entries.iter().map(|entry| entry.event.data.clone()).collect()
}

#[tokio::test]
async fn a_full_disk_refuses_reads_on_and_heals_by_itself() {
    let disk = SimulatedDisk::new(1);
    let log = open(&disk);
    append(&log, "kept").await.expect("room");
    disk.set_room(Some(6_000));
    let mut refused = None;
    let mut acknowledged = vec!["kept".to_owned()];
    for number in 0..20 {
        let text = format!("{number}{}", "x".repeat(900));
        match append(&log, &text).await {
            Ok(_) => acknowledged.push(text),
            Err(error) => refused = Some(error),
        }
    }
    assert!(matches!(refused, Some(AppendError::Full(_))), "{refused:?}");
    assert!(log.health().await.is_err());
    assert_eq!(texts(&log).await, acknowledged);
    disk.set_room(None);
    append(&log, "healed").await.expect("there is room again");
    assert_eq!(log.health().await, Ok(()));
    acknowledged.push("healed".into());
    log.close().await;
    assert_eq!(texts(&open(&disk)).await, acknowledged);
}

#[tokio::test]
async fn health_does_not_come_back_while_the_disk_is_full() {
    let disk = SimulatedDisk::new(1);
    let log = open(&disk);
    disk.set_room(Some(0));
    assert!(matches!(append(&log, "refused").await, Err(AppendError::Full(_))));
    // Before this is answered the writer has tried the disk again.
    assert_eq!(log.append_all(Vec::new()).await, []);
    assert!(log.health().await.is_err());
}

#[tokio::test]
async fn health_comes_back_without_anybody_publishing() {
    let disk = SimulatedDisk::new(1);
    let log = open(&disk);
    disk.set_room(Some(0));
    assert!(matches!(append(&log, "refused").await, Err(AppendError::Full(_))));
    assert!(log.health().await.is_err());
    disk.set_room(None);
    let healed = async {
        while log.health().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(60 * SECOND, healed).await.expect("it comes back");
}

/// Saving what must outlive the segments needs space that only their removal makes.
#[tokio::test]
async fn segments_that_expired_are_freed_on_a_full_disk() {
    let (disk, clock) = (SimulatedDisk::new(1), Clock::manual(Timestamp::from_millis(1_000_000)));
    let settings = SegmentSettings { age_max: Some(SECOND), ..small() };
    let log =
        SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), settings, clock.clone()).expect("it opens");
    for _ in 0..10 {
        append(&log, &"x".repeat(1_500)).await.expect("room");
    }
    let count = || disk.list().expect("names").iter().filter(|name| is_segment(name)).count();
    assert!(count() > 2);
    disk.set_room(Some(0));
    clock.advance(2 * SECOND);
    assert_eq!(texts(&log).await, [""; 0]);
    log.free();
    assert_eq!(count(), 1);
}

#[tokio::test]
async fn a_failed_sync_is_an_unknown_outcome_and_the_log_goes_on_elsewhere() {
    let disk = SimulatedDisk::new(1);
    let log = open(&disk);
    append(&log, "kept").await.expect("it is synced");
    disk.set_syncs_fail(true);
    let key = IdempotencyKey::new("k");
    let batch = || Batch { events: vec![event("a", "retried")], key: key.clone() };
    assert!(matches!(log.append(batch()).await, Err(AppendError::OutcomeUnknown(_))));
    assert!(log.append(batch()).await.is_err(), "not as long as the disk fails");
    assert!(log.health().await.is_err());
    assert_eq!(texts(&log).await, ["kept"], "nobody sees what was not acknowledged");
    disk.set_syncs_fail(false);
    assert!(matches!(log.append(batch()).await, Ok(Appended::New { .. })));
    assert!(matches!(log.append(batch()).await, Ok(Appended::Duplicate { .. })));
    assert_eq!(log.health().await, Ok(()));
    assert_eq!(texts(&log).await, ["kept", "retried"]);
    log.close().await;
    disk.crash();
    assert_eq!(texts(&open(&disk)).await, ["kept", "retried"], "what was acknowledged is on disk");
}

#[tokio::test(start_paused = true)]
async fn a_tail_that_cannot_read_for_a_while_goes_on_without_anybody_publishing() {
    const LONG: Duration = Duration::from_secs(60);
    let disk = SimulatedDisk::new(1);
    let log = open(&disk);
    let (_, mut tail) = log.tail().await.expect("a tail");
    for number in 0..20 {
        append(&log, &format!("{number}{}", "x".repeat(900))).await.expect("room");
    }
    disk.set_reads_fail(true);
    let mut next = tail.next(1);
    tokio::time::timeout(LONG, &mut next).await.expect_err("what it lacks is in the files alone");
    disk.set_reads_fail(false);
    let item = tokio::time::timeout(LONG, &mut next).await.expect("it tries again");
    let Some(TailItem::Entries(entries)) = item else { panic!("{item:?}") };
    assert!(entries[0].event.data.starts_with("0x"), "{entries:?}");
}

#[tokio::test]
async fn one_process_uses_a_directory_at_a_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let open = || SegmentLog::open(directory.path(), SegmentSettings::default(), Clock::system());
    let log = open().expect("it is free");
    let refused = open().expect_err("it is in use").to_string();
    assert!(refused.contains(&*directory.path().to_string_lossy()) && refused.contains("another process"));
    log.close().await;
    open().expect("it is free again");
    assert_eq!(log.health().await.map_err(|error| error.0), Err("it has been closed".into()));
}

const SECOND: Duration = Duration::from_secs(1);

fn open_with(disk: &SimulatedDisk, clock: &Clock) -> SegmentLog {
    SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), small(), clock.clone()).expect("it opens")
}

fn assert_refused<T: fmt::Debug>(result: &Result<T, AppendError>, part: &str) {
    assert!(
        matches!(result, Err(AppendError::Displaced(reason)) if reason.contains(part)),
        "{result:?} does not say {part}"
    );
}

/// Events were acknowledged that went to a directory that nobody could open any more.
#[tokio::test]
async fn events_are_refused_while_the_directory_is_not_in_its_place() {
    let (disk, clock) = (SimulatedDisk::new(1), Clock::manual(Timestamp::from_millis(1_000_000)));
    let log = open_with(&disk, &clock);
    append(&log, "before").await.expect("it is in its place");
    disk.set_elsewhere(Some(1));
    clock.advance(SECOND);
    assert_refused(&append(&log, "lost").await, "mounted over it");
    assert_refused(&log.delete(&event("a", "").topics[0], &Grants::all()).await, "mounted over it");
    assert!(log.health().await.is_err());
    assert_eq!(texts(&log).await, ["before"], "what is there can be read");
    disk.set_elsewhere(None);
    append(&log, "after").await.expect("it is back");
    assert_eq!(log.health().await, Ok(()));
    assert_eq!(texts(&log).await, ["before", "after"]);
}

#[tokio::test]
async fn events_are_refused_after_the_newest_segment_was_deleted() {
    let (disk, clock) = (SimulatedDisk::new(1), Clock::manual(Timestamp::from_millis(1_000_000)));
    let log = open_with(&disk, &clock);
    append(&log, "before").await.expect("it is in its place");
    disk.unlink("00000000000000000001.log");
    clock.advance(SECOND);
    assert_refused(&append(&log, "lost").await, "newest segment of the store was deleted");
    assert!(log.health().await.is_err());
}

#[tokio::test]
async fn a_new_segment_is_not_begun_in_another_directory() {
    let (disk, clock) = (SimulatedDisk::new(1), Clock::manual(Timestamp::from_millis(1_000_000)));
    let log = open_with(&disk, &clock);
    append(&log, &"x".repeat(5_000)).await.expect("it is in its place");
    disk.set_elsewhere(Some(1));
    assert_refused(&append(&log, "lost").await, "mounted over it");
}

#[tokio::test]
async fn a_deletion_is_not_written_to_another_directory() {
    let (disk, clock) = (SimulatedDisk::new(1), Clock::manual(Timestamp::from_millis(1_000_000)));
    let log = open_with(&disk, &clock);
    append(&log, "kept").await.expect("it is in its place");
    disk.set_elsewhere(Some(1));
    assert_refused(&log.delete(&event("a", "").topics[0], &Grants::all()).await, "mounted over it");
    assert_eq!(texts(&log).await, ["kept"]);
}

#[tokio::test]
async fn a_moved_directory_is_noticed_and_goes_on_when_it_is_back() {
    let parent = tempfile::tempdir().expect("a directory");
    let (place, elsewhere) = (parent.path().join("events"), parent.path().join("moved"));
    let clock = Clock::manual(Timestamp::from_millis(1_000_000));
    let log = SegmentLog::open(&place, small(), clock.clone()).expect("it opens");
    append(&log, "before").await.expect("it is in its place");
    fs::rename(&place, &elsewhere).expect("moved");
    clock.advance(SECOND);
    assert_refused(&append(&log, "lost").await, "was deleted or moved");
    fs::create_dir(&place).expect("made");
    assert_refused(&append(&log, "lost").await, "was replaced");
    fs::remove_dir(&place).expect("it is empty: nothing is written to another directory");
    fs::rename(&elsewhere, &place).expect("moved");
    append(&log, "after").await.expect("it is back");
    fs::remove_file(place.join("lock")).expect("removed");
    clock.advance(SECOND);
    assert_refused(&append(&log, "lost").await, "the lock of the store was deleted");
    log.close().await;
    let log = SegmentLog::open(&place, small(), clock).expect("it opens");
    assert_eq!(texts(&log).await, ["before", "after"]);
}

fn mode(path: &Path) -> String {
    format!("{:o}", fs::metadata(path).expect("it is there").permissions().mode() & 0o777)
}

fn modes(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.map(|path| mode(&path)).collect()
}

#[tokio::test]
async fn only_its_owner_can_read_a_store() {
    let parent = tempfile::tempdir().expect("a directory");
    let directory = parent.path().join("new/events");
    let open = || SegmentLog::open(&directory, small(), Clock::system()).expect("it opens");
    let fill = async |log: &SegmentLog| {
        for _ in 0..20 {
            append(log, &"x".repeat(500)).await.expect("room");
        }
        log.close().await;
    };
    fill(&open()).await;
    let is_private = || mode(&directory) == "700" && modes(&directory).iter().all(|mode| mode == "600");
    assert!(is_private(), "{} {:?}", mode(&directory), modes(&directory));

    // As earlier versions left it.
    for entry in fs::read_dir(&directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("it is ours");
    }
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("it is ours");
    fill(&open()).await;
    assert!(is_private(), "{} {:?}", mode(&directory), modes(&directory));
}

#[tokio::test]
async fn a_directory_with_other_files_keeps_its_permissions() {
    let directory = tempfile::tempdir().expect("a directory");
    let other = directory.path().join("notes.log");
    fs::write(&other, "").expect("written");
    for path in [directory.path(), &other] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    SegmentLog::open(directory.path(), small(), Clock::system()).expect("it opens").close().await;
    assert_eq!([mode(directory.path()), mode(&other)], ["755", "755"]);
    assert_eq!(mode(&directory.path().join("state")), "600");
}

/// Beyond 4 GiB no place could be written down, and every append failed.
#[test]
fn a_segment_size_that_cannot_be_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    for segment_bytes in [0, 511, (2 << 30) + 1, u64::MAX] {
        let settings = SegmentSettings { segment_bytes: Some(segment_bytes), ..small() };
        let refused = SegmentLog::open(directory.path(), settings, Clock::system()).expect_err("refused");
        assert!(refused.to_string().contains("512 to 2147483648"), "{refused}");
    }
}

#[tokio::test]
async fn another_format_is_refused_and_left_alone() {
    for (name, byte, stored, expected) in [
        ("state", 8, 9, "a later version of Tidings (format 9;"),
        ("state", 8, 2, "an earlier version of Tidings (format 2;"),
        ("front", 8, 2, "an earlier version of Tidings (format 2;"),
        ("00000000000000000001.log", 8, 2, "an earlier version of Tidings (format 2;"),
    ] {
        let disk = SimulatedDisk::new(1);
        let log = open(&disk);
        append(&log, "kept").await.expect("room");
        log.close().await;
        disk.change(name, |bytes| {
            bytes[byte] = stored;
            let end = if is_segment(name) { 60 } else { bytes.len() - 4 };
            let crc = crc32fast::hash(&bytes[..end]);
            bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
        });
        let before = contents(&disk);
        let refused = SegmentLog::open_on(Arc::new(disk.clone()), Box::new(()), small(), Clock::system());
        let reason = refused.expect_err("another version wrote it").to_string();
        assert!(reason.contains(expected) && reason.contains("another directory"), "{name}: {reason}");
        if name != "00000000000000000001.log" {
            assert_eq!(contents(&disk), before, "{name}");
        }
    }
}

fn contents(disk: &SimulatedDisk) -> Vec<(String, Vec<u8>)> {
    let mut contents = Vec::new();
    for name in disk.list().expect("names") {
        disk.change(&name.clone(), |bytes| contents.push((name, bytes.clone())));
    }
    contents
}
