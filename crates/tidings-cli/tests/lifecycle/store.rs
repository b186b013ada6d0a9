//! `tidings serve --store DIR`: what is stored, and what is reported when it cannot be.

#![cfg(unix)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tidings_testkit::{EventStream, Hub};

const HISTORY: &str = "/stream?topic=chat&since=earliest";

async fn serve(store: &Path, args: &[&str]) -> Hub {
    Hub::serve(&[&["--store", store.to_str().unwrap()], args].concat()).await.unwrap()
}

async fn publish_with_key(hub: &Hub, data: &str, key: &str) -> String {
    let head = format!("POST /topics/chat\nIdempotency-Key: {key}");
    let response = hub.request(&head, data.as_bytes()).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    response.text()
}

/// Whether the log was closed cleanly, according to its file `state`.
fn is_closed(store: &Path) -> bool {
    const CLOSED: usize = 12;
    fs::read(store.join("state")).unwrap()[CLOSED] == 1
}

#[tokio::test]
async fn a_reader_resumes_where_it_was_after_a_stop_or_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("events");
    for sync in ["always", "interval", "interval=5s", "never"] {
        let mut hub = serve(&store, &["--sync", sync]).await;
        for is_killed in [true, false] {
            let mut stream = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
            publish_with_key(&hub, "received", &format!("{sync}-{is_killed}")).await;
            stream.messages(1).await.unwrap();
            hub.publish("chat", "missed").await.unwrap();
            if is_killed {
                hub.kill().await.unwrap();
            } else {
                assert!(hub.stop().await.unwrap().success());
            }
            hub.start_again().await.unwrap();
            // Neither a gap nor a duplicate.
            let id = stream.last_event_id().to_owned();
            let mut stream = EventStream::resume(hub.address(), "/stream?topic=chat", &id).await.unwrap();
            publish_with_key(&hub, "a repeat, which is not delivered", &format!("{sync}-{is_killed}")).await;
            hub.publish("chat", "after").await.unwrap();
            assert_eq!(stream.messages(2).await.unwrap(), ["missed", "after"], "{sync}");
        }
    }
}

#[tokio::test]
async fn retention_rules_apply_after_a_stop_or_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("hub.toml");
    fs::write(&config, "[[retention]]\nmatch = \"chat\"\ncount = 2\n").unwrap();
    let store = folder.path().join("events");
    let mut hub = serve(&store, &["--config", config.to_str().unwrap()]).await;
    for data in ["1", "2", "3", "4"] {
        for topic in ["chat", "other"] {
            hub.publish(topic, data).await.unwrap();
        }
    }
    for is_killed in [true, false] {
        let mut stream = EventStream::open(hub.address(), HISTORY).await.unwrap();
        assert_eq!(stream.messages(2).await.unwrap(), ["3", "4"]);
        let mut stream =
            EventStream::open(hub.address(), "/stream?topic=other&since=earliest").await.unwrap();
        assert_eq!(stream.messages(4).await.unwrap(), ["1", "2", "3", "4"]);
        if is_killed {
            hub.kill().await.unwrap();
        } else {
            assert!(hub.stop().await.unwrap().success());
        }
        hub.start_again().await.unwrap();
    }
}

#[tokio::test]
async fn a_hub_that_stops_closes_its_store_cleanly_despite_open_streams() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("events");
    let mut hub = serve(&store, &["--sync", "never"]).await;
    let _stream = EventStream::open(hub.address(), HISTORY).await.unwrap();
    hub.publish("chat", "x").await.unwrap();
    assert!(!is_closed(&store));
    assert!(hub.stop().await.unwrap().success());
    assert!(is_closed(&store));
}

#[tokio::test]
async fn a_directory_belongs_to_one_hub_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("events");
    let hub = serve(&store, &[]).await;
    for command in ["serve", "demo"] {
        let args = [command, "--store", store.to_str().unwrap()];
        let refused = Hub::start(args).await.unwrap_err().to_string();
        assert!(refused.contains("exit status: 1"), "{refused}");
        let line = refused.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(line.contains("another process uses it") && line.contains("events"), "{refused}");
    }
    hub.publish("chat", "undisturbed").await.unwrap();
}

/// The hub continued to acknowledge events that were gone after the next start.
#[tokio::test]
async fn publishing_to_a_deleted_store_is_refused_and_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("events");
    let mut hub = serve(&store, &[]).await;
    hub.publish("chat", "before").await.unwrap();
    fs::remove_dir_all(&store).unwrap();
    // The hub notices within a second, with or without publications.
    let refused = loop {
        let response = hub.request("POST /topics/chat", b"lost").await.unwrap();
        if response.status != 200 {
            break response;
        }
    };
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("the directory of the store was deleted or moved"), "{}", refused.text());
    let ready = hub.request("GET /readyz", b"").await.unwrap();
    assert!(ready.status == 503 && ready.text().contains("deleted or moved"), "{}", ready.text());
    assert_eq!(hub.request("GET /healthz", b"").await.unwrap().status, 200);
    let line = hub.printed("no events are accepted").await.unwrap();
    assert!(line.contains("events") && line.contains("was deleted or moved"), "{line}");
    let lines = hub.output().into_iter().filter(|line| line.contains("no events are accepted"));
    assert_eq!(lines.count(), 1);
}

/// Another user of the machine could read private events.
#[tokio::test]
async fn a_store_is_readable_by_its_owner_only_whatever_the_umask() {
    for umask in ["000", "277"] {
        let folder = tempfile::tempdir().unwrap();
        let (store, program) = (folder.path().join("events"), folder.path().join("tidings"));
        let real = tidings_testkit::binary().unwrap();
        fs::write(&program, format!("#!/bin/sh\numask {umask}\nexec '{}' \"$@\"\n", real.display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let mut hub =
            Hub::not_started(["serve", "--store", store.to_str().unwrap()]).unwrap().with_binary(program);
        hub.start_again().await.unwrap();
        hub.publish("chat", "x").await.unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store), 0o700, "{umask}");
        for file in fs::read_dir(&store).unwrap() {
            let path = file.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{umask} {}", path.display());
        }
    }
}

#[tokio::test]
async fn files_with_secrets_that_others_can_read_are_warned_about_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (config, secret) = (folder.path().join("hub.toml"), folder.path().join("secret"));
    let key = |name: &str, source: &str| format!("[[key]]\nname = \"{name}\"\n{source}\npublish = [\"*\"]\n");
    let own = key("own", "secret = \"a-secret-that-others-must-not-see-01\"");
    fs::write(&config, own + &key("file", "secret_file = \"secret\"")).unwrap();
    fs::write(&secret, "a-secret-that-others-must-not-see-02").unwrap();
    for (mode, warned) in [(0o644, 2), (0o640, 2), (0o600, 0)] {
        for path in [&config, &secret] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut hub = Hub::serve(&["--config", config.to_str().unwrap()]).await.unwrap();
        // This line comes after all warnings of the start.
        hub.printed("listening").await.unwrap();
        let warnings: Vec<_> = hub
            .output()
            .into_iter()
            .filter(|line| line.contains("can read this file, which holds a secret"))
            .collect();
        assert_eq!(warnings.len(), warned, "{mode:o} {warnings:?}");
        assert!(warnings.iter().all(|line| line.contains("chmod 600") && !line.contains("must-not-see")));
    }
}

#[tokio::test]
async fn a_store_of_a_later_version_is_refused_and_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("events");
    let mut hub = serve(&store, &[]).await;
    hub.publish("chat", "x").await.unwrap();
    hub.stop().await.unwrap();
    let state = store.join("state");
    let before = fs::read(&state).unwrap();
    // The version follows eight bytes of magic; a checksum of everything is at the end.
    let mut later = before.clone();
    later[8] = 99;
    let end = later.len() - 4;
    let checksum = crc32fast::hash(&later[..end]);
    later[end..].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&state, &later).unwrap();
    let refused = hub.start_again().await.unwrap_err().to_string();
    assert!(refused.contains("error: --store: ") && refused.contains("later version"), "{refused}");
    assert_eq!(fs::read(&state).unwrap(), later);
    fs::write(&state, &before).unwrap();
    hub.start_again().await.unwrap();
    let mut stream = EventStream::open(hub.address(), HISTORY).await.unwrap();
    assert_eq!(stream.messages(1).await.unwrap(), ["x"]);
}

fn segment(store: &Path) -> PathBuf {
    let mut files = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.extension().is_some_and(|extension| extension == "log")).unwrap()
}

/// Bit rot: a damaged event is never delivered, its readers get a gap notice, the operator is
/// notified, and everything else continues.
#[tokio::test]
async fn damage_is_reported_and_the_undamaged_events_are_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("events");
    let mut hub = serve(&store, &[]).await;
    let mut stream = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
    hub.publish("chat", "one").await.unwrap();
    stream.messages(1).await.unwrap();
    let first = stream.last_event_id().to_owned();
    for data in ["the-one-that-rots", "three"] {
        hub.publish("chat", data).await.unwrap();
    }
    hub.stop().await.unwrap();
    let segment = segment(&store);
    let mut bytes = fs::read(&segment).unwrap();
    let place = bytes.windows(17).position(|window| window == b"the-one-that-rots").unwrap();
    bytes[place] ^= 1;
    fs::write(&segment, bytes).unwrap();

    hub.start_again().await.unwrap();
    let mut stream = EventStream::open(hub.address(), HISTORY).await.unwrap();
    assert_eq!(
        stream.messages(2).await.unwrap(),
        ["one", "three"],
        "the oldest that is kept, and what follows"
    );
    let mut stream = EventStream::resume(hub.address(), "/stream?topic=chat", &first).await.unwrap();
    let gap = stream.next().await.unwrap();
    assert!(gap.event_type == "tidings" && gap.data.contains(r#""kind":"gap""#), "{gap:?}");
    assert_eq!(stream.messages(1).await.unwrap(), ["three"]);
    let ready = hub.request("GET /readyz", b"").await.unwrap();
    assert!(ready.status == 503 && ready.text().contains("damaged"), "{} {}", ready.status, ready.text());
    assert!(hub.request("GET /metrics", b"").await.unwrap().text().contains("\ntidings_ready 0\n"));
    assert_eq!(hub.request("GET /healthz", b"").await.unwrap().status, 200);
    hub.publish("chat", "four").await.unwrap();
    assert_eq!(stream.messages(1).await.unwrap(), ["four"]);
}

/// What docs/durability.md describes as a backup: copy the directory, leave out its file `state`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_store_in_use_is_a_backup_and_lost_events_are_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let (store, copy) = (folder.path().join("events"), folder.path().join("copy"));
    let mut hub = serve(&store, &[]).await;
    let before: Vec<_> = (0..100).map(|number| format!("before {number}")).collect();
    for data in &before {
        hub.publish("chat", data).await.unwrap();
    }
    fs::create_dir(&copy).unwrap();
    let copying = tokio::task::spawn_blocking({
        let (store, copy) = (store.clone(), copy.clone());
        move || {
            for file in
                fs::read_dir(store).unwrap().map(Result::unwrap).filter(|file| file.file_name() != "state")
            {
                fs::copy(file.path(), copy.join(file.file_name())).unwrap();
            }
        }
    });
    let mut number = 0;
    while number == 0 || !copying.is_finished() {
        hub.publish("chat", format!("meanwhile {number}")).await.unwrap();
        number += 1;
    }
    copying.await.unwrap();
    let mut stream = EventStream::open(hub.address(), HISTORY).await.unwrap();
    stream.messages(before.len() + number).await.unwrap();
    let newest = stream.last_event_id().to_owned();
    hub.kill().await.unwrap();

    let hub = serve(&copy, &[]).await;
    let mut stream = EventStream::open(hub.address(), HISTORY).await.unwrap();
    assert_eq!(stream.messages(before.len()).await.unwrap(), before);
    // Positions from after the copy do not exist in it: a cursor with one must not be misread.
    hub.publish("chat", "another event at the same position").await.unwrap();
    let mut stream = EventStream::resume(hub.address(), "/stream?topic=chat", &newest).await.unwrap();
    let gap = stream.next().await.unwrap();
    assert!(gap.data.contains(r#""kind":"gap","reason":"other-log""#), "{}", gap.data);
}

/// The demo keeps its chat in the given store, and accepts the variables of the hub.
#[tokio::test]
async fn the_demo_keeps_its_chat_in_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("events");
    let mut hub =
        Hub::not_started(["demo"]).unwrap().with_environment("TIDINGS_STORE", store.to_str().unwrap());
    hub.start_again().await.unwrap();
    let form = "POST /post\nContent-Type: application/x-www-form-urlencoded";
    assert_eq!(hub.request(form, b"message=kept").await.unwrap().status, 204);
    hub.kill().await.unwrap();
    hub.start_again().await.unwrap();
    let mut stream = EventStream::open(hub.address(), "/stream").await.unwrap();
    assert!(stream.messages(1).await.unwrap()[0].ends_with("] anonymous: kept"));
}
