//! Disks that are full or fail, and directories that somebody else uses.

use super::*;
use crate::{TailItem, segment::simulated::SimulatedDisk};

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
    drop(log);
    assert_eq!(texts(&open(&disk)).await, acknowledged);
}

#[tokio::test]
async fn health_comes_back_without_anybody_publishing() {
    let disk = SimulatedDisk::new(1);
    let log = open(&disk);
    disk.set_room(Some(0));
    assert!(matches!(append(&log, "refused").await, Err(AppendError::Full(_))));
    assert!(log.health().await.is_err());
    disk.set_room(None);
    while log.health().await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
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
    drop(log);
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
    drop(log);
    open().expect("it is free again");
}

#[tokio::test]
async fn a_later_format_is_refused_and_left_alone() {
    let disk = SimulatedDisk::new(1);
    drop(open(&disk));
    disk.change("state", |bytes| {
        bytes[8] = 9;
        let end = bytes.len() - 4;
        let crc = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
    });
    let refused = SegmentLog::open_on(Arc::new(disk), Box::new(()), small(), Clock::system());
    let reason = refused.expect_err("a later version wrote it").to_string();
    assert!(reason.contains("later version") && reason.contains("format 9"), "{reason}");
}
