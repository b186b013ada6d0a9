//! Inspecting and verifying a log, repairing a damaged one, and backing up one in use.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use tempfile::TempDir;

use super::*;
use crate::{
    Entry, Timestamp,
    segment::tools::{Copied, Finding, Verified, backup, inspect, repair, verify},
};

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

fn settings() -> SegmentSettings {
    SegmentSettings { keys_age_max: Duration::ZERO, ..small() }
}

fn open(directory: &Path, clock: &Clock) -> SegmentLog {
    SegmentLog::open(directory, settings(), clock.clone()).expect("it opens")
}

async fn append(log: &SegmentLog, topic: &str, text: &str) {
    log.append(Batch { events: vec![event(topic, text)], key: None }).await.expect("room");
}

async fn delete(log: &SegmentLog, topic: &str) {
    log.delete(&Topic::from_stored(topic).expect("a topic"), &Grants::all()).await.expect("deleted");
}

async fn all(log: &SegmentLog) -> Vec<Arc<Entry>> {
    log.read(Position::BEFORE_ALL, &everything(), usize::MAX).await.expect("a page").entries
}

/// A closed log of several segments, with a deletion that was carried out and one that was not.
async fn filled() -> (TempDir, Clock, Vec<Arc<Entry>>) {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(NOW);
    let log = open(directory.path(), &clock);
    for number in 0..40 {
        let topic = ["open", "open", "secret", "hidden"][number % 4];
        append(&log, topic, &format!("{topic}-{number}-{}", "x".repeat(300))).await;
        clock.advance(Duration::from_millis(1));
    }
    for topic in ["secret", "hidden"] {
        delete(&log, topic).await;
        if topic == "secret" {
            assert!(log.compact().expect("compacted") > 1);
        }
    }
    let said = all(&log).await;
    assert_eq!(said.len(), 20);
    log.close().await;
    (directory, clock, said)
}

fn findings(directory: &Path) -> (Verified, Vec<Finding>) {
    let mut findings = Vec::new();
    let verified = verify(directory, |finding| findings.push(finding)).expect("it can be read");
    (verified, findings)
}

/// Every file with its bytes.
fn content(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut content: Vec<_> = paths.map(|path| (path.clone(), fs::read(path).expect("a file"))).collect();
    content.sort();
    content
}

/// The path of the segment that holds this text, and where.
fn place_of(directory: &Path, text: &str) -> (PathBuf, usize) {
    let holding = content(directory).into_iter().find_map(|(path, bytes)| {
        let place = bytes.windows(text.len()).position(|window| window == text.as_bytes())?;
        path.extension().is_some_and(|ending| ending == "log").then_some((path, place))
    });
    holding.expect("a segment holds it")
}

fn flip((path, place): &(PathBuf, usize)) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[*place] ^= 1;
    fs::write(path, bytes).expect("written");
}

#[tokio::test]
async fn a_whole_log_is_said_to_be_whole_and_left_as_it_is() {
    let (directory, _, said) = filled().await;
    let before = content(directory.path());
    let inspected = inspect(directory.path()).expect("it can be read");
    let (verified, findings) = findings(directory.path());
    assert_eq!(content(directory.path()), before);
    assert_eq!((inspected.is_in_use, inspected.is_closed, inspected.epochs.len()), (false, Some(true), 1));
    assert_eq!(inspected.damage, []);
    let sum = |number: fn(&crate::segment::tools::SegmentInspection) -> u64| -> u64 {
        inspected.segments.iter().map(number).sum()
    };
    assert!(inspected.segments.len() > 2);
    assert_eq!(sum(|segment| segment.events + segment.removed), 40);
    assert!(sum(|segment| segment.removed) > 5);
    let (first, last) = (&inspected.segments[0], &inspected.segments[inspected.segments.len() - 1]);
    assert_eq!((first.first, last.last), (1, 40));
    let latest = inspected.segments.iter().filter_map(|segment| segment.latest).max();
    assert_eq!((first.earliest, latest), (Some(said[0].time), Some(Timestamp::from_millis(1_000_039))));
    assert!(inspected.deletions.contains(&("hidden".to_owned(), 40)), "{:?}", inspected.deletions);
    assert_eq!(findings, []);
    assert_eq!((verified.events, verified.lost, verified.damaged), (sum(|segment| segment.events), 0, 0));
    assert_eq!(verified.bytes, sum(|segment| segment.bytes));
}

#[tokio::test]
async fn a_log_in_use_can_be_looked_at_and_not_repaired() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = open(directory.path(), &Clock::system());
    for number in 0..40 {
        append(&log, "a", &format!("{number}{}", "x".repeat(300))).await;
    }
    let inspected = inspect(directory.path()).expect("it can be read");
    assert!(inspected.is_in_use && inspected.damage.is_empty());
    let (verified, found) = findings(directory.path());
    assert_eq!((verified.events, found), (40, Vec::new()));
    let to = tempfile::tempdir().expect("a directory");
    let refused = repair(directory.path(), to.path(), |_| ()).expect_err("it is in use").to_string();
    assert!(refused.contains("a hub uses it"), "{refused}");
    append(&log, "a", "it goes on").await;
}

#[tokio::test]
async fn a_write_that_broke_off_is_no_damage() {
    let (directory, clock, _) = filled().await;
    let log = open(directory.path(), &clock);
    append(&log, "a", "whole").await;
    let killed = tempfile::tempdir().expect("a directory");
    for (path, bytes) in content(directory.path()) {
        fs::write(killed.path().join(path.file_name().expect("a name")), bytes).expect("written");
    }
    log.close().await;
    let (path, _) = place_of(killed.path(), "whole");
    let mut bytes = fs::read(&path).expect("a file");
    let torn = bytes[bytes.len() - 20..].to_vec();
    bytes.extend_from_slice(&torn);
    fs::write(path, bytes).expect("written");
    let (verified, found) = findings(killed.path());
    assert_eq!((verified.damaged, verified.unfinished_bytes, found), (0, 20, Vec::new()));
}

#[tokio::test]
async fn damage_is_reported_where_it_is_and_everything_else_is_saved() {
    let (directory, clock, said) = filled().await;
    let damaged = place_of(directory.path(), "open-20-");
    flip(&damaged);
    let before = content(directory.path());
    let (verified, found) = findings(directory.path());
    assert_eq!((verified.lost, verified.damaged), (1, 2));
    let name = damaged.0.file_name().expect("a name").to_string_lossy();
    let record = found.iter().find(|finding| finding.offset.is_some()).expect("the damaged record");
    let offset = usize::try_from(record.offset.expect("an offset")).expect("a small file");
    assert!(record.file == name && offset < damaged.1 && damaged.1 - offset < 100, "{found:?}");
    assert!(found.iter().any(|finding| finding.what == "events 21 to 21 are lost"), "{found:?}");

    let parent = tempfile::tempdir().expect("a directory");
    let to = parent.path().join("saved");
    let mut lost = Vec::new();
    let repaired = repair(directory.path(), &to, |finding| lost.push(finding.what)).expect("saved");
    assert_eq!(repaired, Copied { events: verified.events, lost: 1 });
    assert_eq!(lost, ["events 21 to 21 are lost"]);
    assert_eq!(content(directory.path()), before, "nothing is changed");
    assert_eq!(findings(&to).1, [], "what was saved is whole");
    let mode = fs::metadata(&to).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "its owner alone may enter it");
    let log = open(&to, &clock);
    let whole: Vec<_> =
        said.iter().filter(|entry| !entry.event.data.starts_with("open-20-")).cloned().collect();
    assert_eq!(all(&log).await, whole, "in order, with their ids and times");
    assert_eq!(log.health().await, Ok(()));
    let page = log.read(Position::BEFORE_ALL, &exact("open"), usize::MAX).await.expect("a page");
    assert_eq!(page.floor, Some(position(21)), "the loss is reported");
    append(&log, "open", "it goes on").await;
    log.close().await;
    let refused = repair(directory.path(), &to, |_| ()).expect_err("it is not empty").to_string();
    assert!(refused.contains("saved") && refused.contains("not empty"), "{refused}");
}

/// Whether the segment ends with it or another one follows.
#[tokio::test]
async fn a_deletion_after_a_damaged_event_is_saved() {
    for is_followed in [false, true] {
        let (directory, clock) = (tempfile::tempdir().expect("a directory"), Clock::manual(NOW));
        let log = open(directory.path(), &clock);
        for (topic, text) in [("open", "kept"), ("secret", "deleted"), ("open", "rotten")] {
            append(&log, topic, text).await;
        }
        delete(&log, "secret").await;
        if is_followed {
            clock.advance(Duration::from_millis(1));
            assert_eq!(log.compact().expect("looked at"), 0, "it ends the segment");
            append(&log, "open", "next").await;
        }
        log.close().await;
        flip(&place_of(directory.path(), "rotten"));
        let to = tempfile::tempdir().expect("a directory");
        let repaired = repair(directory.path(), to.path(), |_| ()).expect("saved");
        assert_eq!(repaired.events, 2 + u64::from(is_followed));
        let saved = all(&open(to.path(), &clock)).await;
        let texts: Vec<_> = saved.iter().map(|entry| &*entry.event.data).collect();
        assert_eq!(texts, ["kept", "next"][..=usize::from(is_followed)]);
    }
}

#[tokio::test]
async fn every_file_may_be_missing_or_without_its_beginning() {
    let (directory, clock, said) = filled().await;
    let names = content(directory.path()).into_iter().map(|(path, _)| path);
    let names = names.map(|path| path.file_name().expect("a name").to_string_lossy().into_owned());
    let with_deletions = names.filter(|name| is_segment(name)).max().expect("a segment");
    for (path, bytes) in content(directory.path()) {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        for is_missing in [true, false] {
            let broken = tempfile::tempdir().expect("a directory");
            for (path, bytes) in content(directory.path()) {
                fs::write(broken.path().join(path.file_name().expect("a name")), bytes).expect("written");
            }
            if is_missing {
                fs::remove_file(broken.path().join(&name)).expect("it is there");
            } else {
                let cut = 200.min(bytes.len());
                fs::write(broken.path().join(&name), [&vec![0xff; cut][..], &bytes[cut..]].concat())
                    .expect("written");
            }
            let what = format!("{name}, missing: {is_missing}");
            let (verified, _) = findings(broken.path());
            let is_derived = is_index(&name) || name == "lock";
            // Without `front` a log looks like one of which nothing was ever hidden.
            let is_silent = is_missing && (is_derived || name == "front");
            assert_eq!(verified.damaged == 0, is_silent || name == "lock", "{what}");
            let parent = tempfile::tempdir().expect("a directory");
            let to = parent.path().join("saved");
            repair(broken.path(), &to, |_| ()).expect("what is left can be saved");
            assert_eq!(findings(&to).1, [], "{what}");
            let log = open(&to, &clock);
            assert_eq!(log.health().await, Ok(()), "{what}");
            let saved = all(&log).await;
            let hidden = |entry: &&Arc<Entry>| entry.event.topics[0].as_str() != "open";
            assert!(saved.iter().filter(|entry| !hidden(entry)).all(|entry| said.contains(entry)), "{what}");
            assert!(name == with_deletions || !saved.iter().any(|entry| hidden(&entry)), "{what}");
            if is_derived || name == "state" {
                assert_eq!(saved, said, "{what}");
            }
            append(&log, "open", "it goes on").await;
        }
    }
}

#[tokio::test]
async fn a_log_in_use_is_backed_up_and_the_copy_begins_an_epoch() {
    let (directory, clock, said) = filled().await;
    let log = open(directory.path(), &clock);
    append(&log, "open", "before").await;
    let acknowledged = all(&log).await;
    assert_eq!(acknowledged[..20], said);
    let parent = tempfile::tempdir().expect("a directory");
    let to = parent.path().join("copy");
    let copied = backup(directory.path(), &to, |found| panic!("{found:?}")).expect("copied");
    assert_eq!((copied.events, copied.lost), (findings(&to).0.events, 0));
    append(&log, "open", "after, at the log").await;
    let copy = open(&to, &clock);
    assert_eq!(all(&copy).await, acknowledged, "with ids and times, and without what was deleted");
    let epochs = |bounds: crate::Bounds| bounds.epochs.iter().copied().collect::<Vec<_>>();
    let (original, begun) = (log.bounds().await.expect("bounds"), copy.bounds().await.expect("bounds"));
    let (original, begun) = (epochs(original), epochs(begun));
    assert_eq!(begun[..original.len()], original, "the ids of both are known");
    assert_eq!(begun.len(), original.len() + 1);
    append(&copy, "open", "after, at the copy").await;
    let last = |entries: Vec<Arc<Entry>>| entries.last().expect("an event").id.clone();
    assert_ne!(last(all(&log).await), last(all(&copy).await), "one id is never two events");
    let refused = backup(directory.path(), &to, |_| ()).expect_err("it is not empty").to_string();
    assert!(refused.contains("copy") && refused.contains("not empty"), "{refused}");
}

/// Its first segment was copied with a deleted event, and then nothing says any more that it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_fails_when_a_deletion_is_forgotten_meanwhile() {
    let (directory, clock) = (tempfile::tempdir().expect("a directory"), Clock::manual(NOW));
    let log = open(directory.path(), &clock);
    let large = "x".repeat(5_000);
    for (topic, text) in [("open", ""), ("secret", &*large), ("open", &format!("rotten{large}"))] {
        append(&log, topic, text).await;
    }
    delete(&log, "secret").await;
    flip(&place_of(directory.path(), "rotten"));
    // The damaged event of the second segment is reported while the others are not copied yet.
    let report = |_| {
        let appending = append(&log, "open", &large);
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(appending));
        clock.advance(Duration::from_millis(1));
        assert_eq!(log.compact().expect("compacted"), 1);
        log.free();
    };
    let to = tempfile::tempdir().expect("a directory");
    let refused = backup(directory.path(), to.path(), report).expect_err("it has what was deleted");
    assert!(refused.to_string().contains("run the backup again"), "{refused}");
}

/// What a backup holds while events are appended, expire, and are deleted: all that had been
/// acknowledged before and is still there afterwards, in its order, and nothing that had been
/// deleted.
#[tokio::test(flavor = "multi_thread")]
async fn backups_of_a_log_that_changes_are_whole() {
    const BACKUPS: usize = 20;
    let directory = tempfile::tempdir().expect("a directory");
    let settings = SegmentSettings { sync: SyncLevel::Never, bytes_max: 60_000, ..settings() };
    let log =
        Arc::new(SegmentLog::open(directory.path(), settings.clone(), Clock::system()).expect("it opens"));
    append(&log, "open", "the first").await;
    let ends = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (log, ends) = (Arc::clone(&log), Arc::clone(&ends));
        async move {
            let mut number = 0;
            while !ends.load(Ordering::Relaxed) {
                let topic = if number % 5 == 0 { "secret" } else { "open" };
                append(&log, topic, &format!("{topic}-{number}-{}", "x".repeat(100))).await;
                number += 1;
                if number % 300 == 0 {
                    delete(&log, "secret").await;
                    log.compact().expect("compacted");
                }
                tokio::task::yield_now().await;
            }
        }
    });
    let mut done = 0;
    for _ in 0..20 * BACKUPS {
        assert_eq!(findings(directory.path()).1, [], "what is compacted or expires meanwhile is not lost");
        assert_eq!(inspect(directory.path()).expect("it can be read").damage, []);
        let to = tempfile::tempdir().expect("a directory");
        let (from, into) = (directory.path().to_owned(), to.path().to_owned());
        let before = all(&log).await;
        let copied = tokio::task::spawn_blocking(move || backup(&from, &into, |found| panic!("{found:?}")));
        match copied.await.expect("no panic") {
            Ok(_) => {}
            Err(error) if error.to_string().contains("run the backup again") => continue,
            Err(error) => panic!("{error}"),
        }
        let after = all(&log).await;
        let copy = SegmentLog::open(to.path(), settings.clone(), Clock::system()).expect("it opens");
        let copied = all(&copy).await;
        assert_eq!(copy.health().await, Ok(()));
        assert!(copied.is_sorted_by_key(|entry| entry.cursor.position));
        for entry in before.iter().filter(|entry| after.contains(entry)) {
            assert!(copied.contains(entry), "{entry:?} is missing");
        }
        let known = before.iter().chain(&after).map(|entry| entry.cursor.position).collect::<Vec<_>>();
        let newest = *known.iter().max().expect("an event");
        assert!(copied.iter().all(|entry| entry.cursor.position <= newest), "nothing is invented");
        done += 1;
        if done == BACKUPS {
            break;
        }
    }
    ends.store(true, Ordering::Relaxed);
    writer.await.expect("no panic");
    assert_eq!(done, BACKUPS);
}

#[test]
fn the_tools_cannot_change_what_they_look_at() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("state"), "kept").expect("written");
    let before = content(directory.path());
    let disk = RealDisk::read_only(directory.path()).expect("it is there");
    assert!(disk.create("state").is_err() && disk.create("new").is_err());
    assert!(disk.rename("state", "front").is_err() && disk.remove("state").is_err());
    assert_eq!(content(directory.path()), before);
}

#[test]
fn what_is_no_log_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let refused = inspect(directory.path()).expect_err("it is empty").to_string();
    assert!(refused.contains("there is no log"), "{refused}");
    assert!(inspect(&directory.path().join("nowhere")).is_err());
    assert_eq!(content(directory.path()), []);
}
