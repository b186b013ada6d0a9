//! `tidings store` on the directory of a real log.
#![cfg(unix)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;
use tidings::{
    NewEvent, Validator,
    log::{Batch, Clock, Log, SegmentLog, SegmentSettings},
};
use tidings_testkit::{EventStream, Hub};
use tokio::sync::Mutex;

/// One test at a time: a process that another test starts holds the locks of this one for a moment,
/// between fork and exec.
static TURN: Mutex<()> = Mutex::const_new(());

fn tidings(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidings")).args(args).env_clear().output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn open(directory: &Path) -> SegmentLog {
    let settings = SegmentSettings { segment_bytes: Some(4_000), ..SegmentSettings::default() };
    SegmentLog::open(directory, settings, Clock::system()).unwrap()
}

async fn append(log: &SegmentLog, count: usize) {
    for number in 0..count {
        let event = NewEvent::new("chat", format!("said-{number}-{}", "x".repeat(300)));
        let event = Validator::default().event(event).unwrap();
        log.append(Batch { events: vec![event], key: None }).await.unwrap();
    }
}

async fn filled() -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    append(&log, 40).await;
    log.close().await;
    let path = directory.path().to_str().unwrap().to_owned();
    (directory, path)
}

fn flip(directory: &Path, text: &str) -> String {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let place = bytes.windows(text.len()).position(|window| window == text.as_bytes());
        if let Some(place) = place.filter(|_| path.extension().is_some_and(|ending| ending == "log")) {
            bytes[place] ^= 1;
            fs::write(&path, bytes).unwrap();
            return path.file_name().unwrap().to_str().unwrap().to_owned();
        }
    }
    panic!("no segment contains {text}")
}

#[tokio::test]
async fn an_intact_store_is_inspected_and_verified() {
    let _turn = TURN.lock().await;
    let (_directory, path) = filled().await;
    let inspected = tidings(&["store", "inspect", &path]);
    assert!(inspected.status.success(), "{}", stderr(&inspected));
    for line in ["state      closed cleanly", "events     40 in ", "damage     none known"] {
        assert!(stdout(&inspected).contains(line), "{}", stdout(&inspected));
    }
    let inspected = tidings(&["store", "inspect", "--json", &path]);
    let json: serde_json::Value = serde_json::from_str(stdout(&inspected)).unwrap();
    assert_eq!(
        (&json["events"], &json["in_use"], &json["closed"]),
        (&40.into(), &false.into(), &true.into())
    );
    assert!(json["segments"].as_array().unwrap().len() > 2);
    let verified = tidings(&["store", "verify", &path]);
    assert!(verified.status.success(), "{}", stderr(&verified));
    assert!(stdout(&verified).starts_with("40 intact events in "), "{}", stdout(&verified));
}

#[tokio::test]
async fn a_damaged_record_is_named_and_the_others_are_recovered() {
    let _turn = TURN.lock().await;
    let (directory, path) = filled().await;
    let file = flip(directory.path(), "said-20-");
    let verified = tidings(&["store", "verify", &path]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(stdout(&verified).contains(&format!("{file} at ")), "{}", stdout(&verified));
    assert!(stdout(&verified).contains("events 21 to 21 are lost"), "{}", stdout(&verified));
    assert_eq!(stderr(&verified).lines().count(), 1, "{}", stderr(&verified));
    let verified = tidings(&["store", "verify", "--json", &path]);
    let last: serde_json::Value = serde_json::from_str(stdout(&verified).lines().last().unwrap()).unwrap();
    assert_eq!((&last["events"], &last["lost"]), (&39.into(), &1.into()));

    let to = tempfile::tempdir().unwrap();
    let to_path = to.path().join("saved");
    let repaired = tidings(&["store", "repair", &path, to_path.to_str().unwrap()]);
    assert_eq!(repaired.status.code(), Some(1), "{}{}", stdout(&repaired), stderr(&repaired));
    assert!(stdout(&repaired).contains("39 events copied to "), "{}", stdout(&repaired));
    assert!(stderr(&repaired).contains("1 acknowledged events are lost"), "{}", stderr(&repaired));
    let verified = tidings(&["store", "verify", to_path.to_str().unwrap()]);
    assert!(verified.status.success(), "{}{}", stdout(&verified), stderr(&verified));
    let again = tidings(&["store", "repair", &path, to_path.to_str().unwrap()]);
    assert!(again.status.code() == Some(1) && stderr(&again).contains("not empty"), "{}", stderr(&again));
}

#[tokio::test]
async fn a_store_in_use_can_be_inspected_and_not_repaired() {
    let _turn = TURN.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let log = open(directory.path());
    append(&log, 40).await;
    let inspected = tidings(&["store", "inspect", path]);
    assert!(stdout(&inspected).contains("state      in use"), "{}", stdout(&inspected));
    let verified = tidings(&["store", "verify", path]);
    assert!(verified.status.success(), "{}{}", stdout(&verified), stderr(&verified));
    let repaired = tidings(&["store", "repair", path, "/nowhere"]);
    assert_eq!(repaired.status.code(), Some(1));
    assert_eq!(stderr(&repaired), format!("error: {path}: a hub uses it; stop the hub first\n"));
}

/// A hub serves while its store is backed up; another hub serves the copy.
#[tokio::test]
async fn a_hub_on_a_backup_continues_and_reports_what_it_does_not_have() {
    let _turn = TURN.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let (store, copy) = (directory.path().join("store"), directory.path().join("copy"));
    let paths = [&store, &copy].map(|path| path.to_str().unwrap().to_owned());
    let hub = Hub::serve(&["--store", &paths[0]]).await.unwrap();
    hub.publish("chat", "before").await.unwrap();
    let backed_up = tidings(&["store", "backup", &paths[0], &paths[1]]);
    assert!(backed_up.status.success(), "{}", stderr(&backed_up));
    assert_eq!(stdout(&backed_up), format!("1 events copied to {}\n", paths[1]));
    let missed = hub.publish("chat", "after the backup").await.unwrap().text();
    let missed: serde_json::Value = serde_json::from_str(&missed).unwrap();
    drop(hub);

    let restored = Hub::serve(&["--store", &paths[1]]).await.unwrap();
    restored.publish("chat", "after the restore").await.unwrap();
    let mut all = EventStream::open(restored.address(), "/topics/chat?since=earliest").await.unwrap();
    for data in ["before", "after the restore"] {
        assert_eq!(all.next().await.unwrap().data, data);
    }
    let since = format!("/topics/chat?since={}", missed["id"].as_str().unwrap().trim_start_matches('#'));
    let mut ahead = EventStream::open(restored.address(), &since).await.unwrap();
    let gap = ahead.next().await.unwrap();
    assert!(gap.event_type == "tidings" && gap.data.contains("\"kind\":\"gap\""), "{gap:?}");
    assert_eq!(ahead.next().await.unwrap().data, "after the restore");
}

#[tokio::test]
async fn a_directory_without_a_store_is_refused_with_one_line() {
    let _turn = TURN.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    for command in ["inspect", "verify"] {
        let refused = tidings(&["store", command, path]);
        assert_eq!(refused.status.code(), Some(1));
        assert_eq!(stderr(&refused), format!("error: {path}: there is no log in this directory\n"));
    }
}
