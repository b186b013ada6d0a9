//! Upgrades that refuse no connection: the real binary, replaced under load.

#![cfg(unix)]

use std::{
    fs,
    net::SocketAddr,
    os::unix::{fs::symlink, net::UnixDatagram},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tidings_testkit::{Connection, EventStream, Hub, Signal, binary};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

const UPGRADES: usize = 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// A hub whose program has a path of its own, so that the test can replace the program.
async fn hub_by_another_name(folder: &Path, args: &[&str]) -> Hub {
    let name = folder.join("tidings");
    symlink(binary().unwrap(), &name).unwrap();
    let mut hub = Hub::not_started([&["serve"], args].concat()).unwrap().with_binary(name);
    hub.start_again().await.unwrap();
    hub
}

/// Replaces the program by a shell script as an installer would: under the same name, as a new
/// file. Another process writes it: a child that is started meanwhile would inherit the open file,
/// which could then not be executed.
fn replace(folder: &Path, script: &str) {
    let written = Command::new("sh")
        .args(["-euc", "printf '#!/bin/sh\n%s\n' \"$1\" >new; chmod +x new; mv -f new tidings", "sh", script])
        .current_dir(folder)
        .status();
    assert!(written.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_upgrades_refuse_no_connection_and_answer_every_request() {
    let mut hub = Hub::serve(&["--drain-secs", "2"]).await.unwrap();
    let address = hub.address();
    let done = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for number in 0..4 {
        let (done, answered) = (Arc::clone(&done), Arc::clone(&answered));
        clients.spawn(async move {
            let mut kept = None;
            while !done.load(Relaxed) {
                // Half of them connect for every request, half keep their connection until the
                // server closes it.
                let mut connection = match kept.take() {
                    Some(connection) => connection,
                    None => Connection::open(address).await.expect("no connection is refused"),
                };
                let post = if number % 2 == 0 {
                    "POST /topics/chat\nConnection: close"
                } else {
                    "POST /topics/chat"
                };
                connection.request(post, b"hello").await.expect("the request is taken");
                let response = connection.response().await.expect("the request is answered");
                assert_eq!(response.status, 200, "{}", response.text());
                answered.fetch_add(1, Relaxed);
                let ends =
                    response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                if !ends {
                    kept = Some(connection);
                }
            }
        });
    }
    for _ in 0..UPGRADES {
        let before = answered.load(Relaxed);
        hub.upgrade().await.unwrap();
        // This process has answered a request before the next upgrade.
        while answered.load(Relaxed) < before + 20 {
            if let Some(client) = clients.try_join_next() {
                client.expect("no client was refused, reset or left without an answer");
            }
            tokio::task::yield_now().await;
        }
    }
    done.store(true, Relaxed);
    while let Some(client) = clients.join_next().await {
        client.expect("no client was refused, reset or left without an answer");
    }
    assert!(hub.first_ended().await.unwrap().success());
    hub.stop().await.unwrap();
}

/// Streams had ended, and so had the hub, while the server still read from connections that were
/// idle: what an application published over one of its kept connections was answered 503.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_is_answered_or_closed_at_every_moment_of_a_drain() {
    const CONNECTIONS: u32 = 32;
    const DRAIN: Duration = Duration::from_secs(2);
    let mut hub = Hub::serve(&["--drain-secs", "2"]).await.unwrap();
    let mut kept = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(hub.address()).await.unwrap();
        connection.request("POST /topics/chat", b"before").await.unwrap();
        assert_eq!(connection.response().await.unwrap().status, 200);
        kept.push(connection);
    }
    hub.upgrade().await.unwrap();
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for (number, mut connection) in (0..).zip(kept) {
        clients.spawn(async move {
            sleep_until(began + DRAIN * number / CONNECTIONS).await;
            connection.request("POST /topics/chat", b"during").await.ok()?;
            let response = connection.response().await.ok()?;
            Some((response.status, response.text()))
        });
    }
    let answers: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
    assert!(!answers.is_empty());
    for (status, text) in answers {
        assert_eq!(status, 200, "{text}");
    }
    assert!(hub.first_ended().await.unwrap().success());
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn an_upgrade_ends_streams_with_a_notice_and_a_new_log_is_reported() {
    let mut hub = Hub::serve(&["--drain-secs", "1"]).await.unwrap();
    let mut stream = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
    hub.publish("chat", "before").await.unwrap();
    let id = stream.next().await.unwrap().last_event_id;
    hub.upgrade().await.unwrap();
    let end = stream.next().await.unwrap();
    assert!(end.data.contains(r#""kind":"reconnect","reason":"shutdown""#), "{}", end.data);
    assert!(hub.first_ended().await.unwrap().success());
    let again = format!("/stream?topic=chat&since={}", id.replace('#', "%23"));
    let mut stream = EventStream::open(hub.address(), &again).await.unwrap();
    let gap = stream.next().await.unwrap();
    assert!(gap.data.contains(r#""kind":"gap","reason":"other-log""#), "{}", gap.data);
    hub.publish("chat", "after").await.unwrap();
    assert_eq!(stream.next().await.unwrap().data, "after");
}

/// Subscribes until the last event, over one connection after the other, and returns the events.
/// Every notice must be about the end of a stream.
async fn listen(address: SocketAddr, last: &str) -> Vec<String> {
    let mut received = Vec::new();
    let mut id: Option<String> = None;
    loop {
        let opened = match &id {
            Some(id) => EventStream::resume(address, "/stream?topic=chat", id).await,
            None => EventStream::open(address, "/stream?topic=chat&since=earliest").await,
        };
        let mut stream = opened.expect("no subscription is refused");
        while let Some(event) = stream.next_or_end().await.expect("no stream is cut") {
            if event.event_type == "tidings" {
                assert!(event.data.contains(r#""kind":"reconnect""#), "{}", event.data);
                continue;
            }
            id = Some(event.last_event_id);
            if event.data == last {
                return received;
            }
            received.push(event.data);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_upgrades_with_a_store_refuse_nothing_and_lose_no_event() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("events");
    let mut hub = Hub::serve(&["--store", store.to_str().unwrap()]).await.unwrap();
    let address = hub.address();
    let done = Arc::new(AtomicBool::new(false));
    let (said, mut count) = watch::channel(0);
    let mut publishers = JoinSet::new();
    for name in 0..4 {
        let (done, said) = (Arc::clone(&done), said.clone());
        publishers.spawn(async move {
            let mut acknowledged = Vec::new();
            let mut kept = None;
            while !done.load(Relaxed) {
                // Half of them connect for every request, half keep their connection until the
                // server closes it.
                let mut connection = match kept.take() {
                    Some(connection) => connection,
                    None => Connection::open(address).await.expect("no connection is refused"),
                };
                let close = if name % 2 == 0 { "\nConnection: close" } else { "" };
                let data = format!("{name}:{}", acknowledged.len());
                let head = format!("POST /topics/chat{close}");
                connection.request(&head, data.as_bytes()).await.expect("the request is taken");
                let response = connection.response().await.expect("the request is answered");
                assert_eq!(response.status, 200, "{}", response.text());
                acknowledged.push(data);
                said.send_modify(|count| *count += 1);
                let ends =
                    response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                if !ends {
                    kept = Some(connection);
                }
            }
            acknowledged
        });
    }
    let mut subscribers = JoinSet::new();
    for _ in 0..3 {
        subscribers.spawn(listen(address, "end"));
    }
    for _ in 0..UPGRADES {
        let enough = *count.borrow() + 20;
        tokio::select! {
            progress = count.wait_for(|count| *count >= enough) => drop(progress.unwrap()),
            ended = publishers.join_next() => panic!("a publisher was refused: {ended:?}"),
            ended = subscribers.join_next() => panic!("a subscriber was refused: {ended:?}"),
        }
        hub.upgrade().await.unwrap();
    }
    done.store(true, Relaxed);
    let acknowledged = publishers.join_all().await.concat();
    hub.publish("chat", "end").await.unwrap();
    let log = listen(address, "end").await;
    let (mut sorted, mut expected) = (log.clone(), acknowledged);
    sorted.sort_unstable();
    expected.sort_unstable();
    assert_eq!(sorted, expected, "every acknowledged event, exactly once");
    for received in subscribers.join_all().await {
        assert_eq!(received, log);
    }
    assert!(hub.first_ended().await.unwrap().success());
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_frozen_reader_delays_a_store_handover_at_most_for_the_drain() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("events");
    let mut hub = Hub::serve(&["--store", store.to_str().unwrap(), "--drain-secs", "1"]).await.unwrap();
    let mut frozen = Connection::open_narrow(hub.address(), 4096).await.unwrap();
    frozen.request("GET /stream?topic=chat\nAccept: text/event-stream", b"").await.unwrap();
    frozen.head().await.unwrap();
    for _ in 0..16 {
        hub.publish("chat", "x".repeat(500_000)).await.unwrap();
    }
    hub.upgrade().await.unwrap();
    hub.publish("chat", "after").await.unwrap();
    assert!(hub.first_ended().await.unwrap().success());
}

#[tokio::test]
async fn an_upgrade_fails_if_another_process_has_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("events");
    let other = Hub::serve(&["--store", store.to_str().unwrap()]).await.unwrap();
    let config = folder.path().join("t.toml");
    fs::write(&config, "").unwrap();
    let mut hub = Hub::serve(&["--config", config.to_str().unwrap()]).await.unwrap();
    fs::write(&config, "store = \"events\"").unwrap();
    hub.signal(Signal::USR2).unwrap();
    let line = hub.printed("the upgrade failed").await.unwrap();
    assert!(
        line.contains("continues to serve: the store of the new process is in use by another process"),
        "{line}"
    );
    hub.publish("chat", "still here").await.unwrap();
    other.publish("chat", "here, too").await.unwrap();
}

#[tokio::test]
async fn an_upgrade_to_a_process_that_cannot_start_fails_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("t.toml");
    fs::write(&config, "heartbeat_secs = 20").unwrap();
    let mut hub = hub_by_another_name(folder.path(), &["--config", config.to_str().unwrap()]).await;
    let pid = hub.pid();
    let mut stream = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();

    fs::write(&config, "heartbeat_sex = 20").unwrap();
    hub.signal(Signal::USR2).unwrap();
    let line = hub.printed("the upgrade failed").await.unwrap();
    assert!(line.contains("continues to serve: the new process exited (exit status: 2)"), "{line}");
    hub.printed("heartbeat_sex").await.unwrap();

    fs::write(&config, "heartbeat_secs = 20").unwrap();
    fs::remove_file(folder.path().join("tidings")).unwrap();
    hub.signal(Signal::USR2).unwrap();
    hub.printed("cannot be started").await.unwrap();
    assert_eq!(hub.pid(), pid);
    hub.publish("chat", "still here").await.unwrap();
    assert_eq!(stream.next().await.unwrap().data, "still here");

    // Once the program is fixed, an upgrade runs it.
    let real = binary().unwrap();
    replace(folder.path(), &format!("echo the new program >&2\nexec '{}' \"$@\"", real.display()));
    hub.upgrade().await.unwrap();
    hub.printed("the new program").await.unwrap();
    hub.publish("chat", "new").await.unwrap();
}

#[tokio::test]
async fn an_upgrade_to_a_process_that_never_serves_times_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = hub_by_another_name(folder.path(), &["--upgrade-secs", "1"]).await;
    replace(folder.path(), "echo waiting as $$ >&2\nexec sleep 1000");
    hub.signal(Signal::USR2).unwrap();
    let line = hub.printed("the upgrade failed").await.unwrap();
    assert!(line.contains("the new process did not serve within 1 s (upgrade_secs)"), "{line}");
    let line = hub.printed("waiting as").await.unwrap();
    let pid = line.trim().rsplit(' ').next().unwrap().to_owned();
    // A failed upgrade leaves no process behind.
    timeout(PATIENCE, async {
        while Path::new("/proc").join(&pid).exists() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the process is ended");
    hub.publish("chat", "still here").await.unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn upgrades_leak_no_descriptors() {
    let mut hub = Hub::serve(&["--drain-secs", "1"]).await.unwrap();
    let open = |hub: &Hub| fs::read_dir(format!("/proc/{}/fd", hub.pid().unwrap())).unwrap().count();
    hub.upgrade().await.unwrap();
    hub.publish("chat", "x").await.unwrap();
    let first = open(&hub);
    for _ in 0..5 {
        hub.upgrade().await.unwrap();
        hub.publish("chat", "x").await.unwrap();
    }
    // The connection of the last request may still be closing; five leaks would remain.
    timeout(PATIENCE, async {
        while open(&hub) > first {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("no more descriptors than after the first upgrade");
}

/// A supervisor that hangs must not block the hub.
#[tokio::test]
async fn a_supervisor_that_does_not_read_does_not_block_the_hub() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let _socket = UnixDatagram::bind(&path).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    while sender.send_to(b"full", &path).is_ok() {}
    let mut hub =
        Hub::not_started(["serve"]).unwrap().with_environment("NOTIFY_SOCKET", path.to_str().unwrap());
    hub.start_again().await.unwrap();
    hub.publish("chat", "x").await.unwrap();
    assert!(hub.stop().await.unwrap().success());
}

/// The protocol of systemd, with a socket of the test in its place.
#[tokio::test]
async fn a_supervisor_is_notified_of_readiness_upgrades_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = tokio::net::UnixDatagram::from_std(socket).unwrap();
    let received = async || {
        let mut space = [0; 256];
        let length = timeout(PATIENCE, socket.recv(&mut space)).await.expect("a notification").unwrap();
        String::from_utf8(space[..length].to_vec()).unwrap()
    };
    let store = folder.path().join("events");
    for has_store in [false, true] {
        let store: &[_] = if has_store { &["--store", store.to_str().unwrap()] } else { &[] };
        let mut hub = Hub::not_started([&["serve", "--drain-secs", "1"], store].concat())
            .unwrap()
            .with_environment("NOTIFY_SOCKET", path.to_str().unwrap());
        hub.start_again().await.unwrap();
        assert_eq!(received().await, "READY=1");
        hub.upgrade().await.unwrap();
        let new_pid = hub.pid().unwrap();
        if has_store {
            // The supervisor watches the new process before it serves.
            assert_eq!(received().await, format!("MAINPID={new_pid}"));
            assert_eq!(received().await, "READY=1");
        } else {
            assert_eq!(received().await, format!("MAINPID={new_pid}\nREADY=1"));
        }
        hub.ask_to_stop().unwrap();
        assert_eq!(received().await, "STOPPING=1");
        hub.stopped().await.unwrap();
    }
}
