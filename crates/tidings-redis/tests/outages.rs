//! Outages of Redis: it goes away, comes back, and comes back with less than it acknowledged.
//!
//! Needs: redis-server.

mod support;

use std::{fs, path::Path};

use tidings_log::{AppendError, Appended, Log, MemoryLimits, TailItem};
use tidings_redis::RedisLog;
use tidings_testkit::{FaultProxy, RedisServer};
use tokio::task::JoinSet;

use crate::support::{append, next, next_entries, open, settings, texts, try_append, until, until_health};

fn data(entries: &[std::sync::Arc<tidings_log::Entry>]) -> Vec<&str> {
    entries.iter().map(|entry| entry.event.data.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_an_outage_calls_fail_at_once_and_tails_wait() {
    let mut server = RedisServer::start_durable().await.unwrap();
    let log = open(&server.url()).await;
    let (_, mut tail) = log.tail().await.unwrap();
    let before = append(&log, "before").await;
    assert_eq!(data(&next_entries(&mut tail).await), ["before"]);

    server.stop().await.unwrap();
    until_health(&log, false).await;
    assert!(matches!(try_append(&log, "away", None).await, Err(AppendError::Unavailable(_))));
    assert!(log.bounds().await.is_err() && log.tail().await.is_err());
    let waiting = tokio::spawn(async move { (next_entries(&mut tail).await, tail) });

    server.start_again().await.unwrap();
    until_health(&log, true).await;
    let after = append(&log, "after").await;
    assert_eq!(after.epoch, before.epoch, "nothing was lost");
    assert_eq!(data(&waiting.await.unwrap().0), ["after"]);
    assert_eq!(texts(&log).await, ["before", "after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_loses_all_data_begins_one_new_epoch() {
    let mut server = RedisServer::start().await.unwrap();
    let logs = [open(&server.url()).await, open(&server.url()).await];
    let mut tails = Vec::new();
    for log in &logs {
        tails.push(log.tail().await.unwrap().1);
    }
    for round in 0..6 {
        let before = append(&logs[round % 2], "lost").await;
        for tail in &mut tails {
            assert_eq!(data(&next_entries(tail).await), ["lost"]);
        }
        if round % 2 == 0 {
            server.command(&["FLUSHALL"]).await.unwrap();
        } else {
            server.kill().await.unwrap();
            server.start_again().await.unwrap();
        }
        let mut begun = Vec::new();
        for tail in &mut tails {
            loop {
                match next(tail).await {
                    TailItem::NewEpoch(start) => break begun.push(start),
                    TailItem::Deleted { .. } => {}
                    other => panic!("expected a new epoch, got {other:?}"),
                }
            }
        }
        assert_eq!(begun[0], begun[1]);
        assert_ne!(begun[0].epoch, before.epoch);
        for log in &logs {
            until_health(log, true).await;
            let bounds = log.bounds().await.unwrap();
            assert_eq!((bounds.epochs.current(), bounds.oldest), (begun[0], None));
            assert!(bounds.epochs.iter().all(|start| start.epoch != before.epoch), "it is another log");
        }
    }
}

/// The end is lost, and before the process that has read it checks again another one has published:
/// at the same position, as happens where the clock of a master is behind that of the previous one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_event_at_the_position_of_a_lost_one_is_a_new_history() {
    let server = RedisServer::start().await.unwrap();
    let log = open(&server.url()).await;
    let (_, mut tail) = log.tail().await.unwrap();
    append(&log, "kept").await;
    server.command(&["COPY", "{tidings}:log", "{tidings}:kept"]).await.unwrap();
    let lost = append(&log, "lost").await;
    let mut received = Vec::new();
    while received.len() < 2 {
        received.extend(next_entries(&mut tail).await);
    }
    let replace = "local newest = redis.call('HGET', KEYS[3], 'newest') redis.call('RENAME', KEYS[2], KEYS[1]) \
                   redis.call('XADD', KEYS[1], newest, 't', '+a', 'm', '2\\n\\n\\n\\n', 'd', 'another')";
    let keys = ["{tidings}:log", "{tidings}:kept", "{tidings}:state"];
    server.command(&[&["EVAL", replace, "3"], &keys[..]].concat()).await.unwrap();
    let TailItem::NewEpoch(start) = next(&mut tail).await else { panic!("a lost event is not reported") };
    assert_eq!(start.after, lost.position);
    assert_eq!(texts(&log).await, ["kept", "another"]);
}

/// Nothing is acknowledged without the replica. But the log can be read, and no connection is given
/// up because a publisher waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_replica_delays_no_other_call() {
    const AT_ONCE: usize = 16;
    let server = RedisServer::start().await.unwrap();
    let log = open(&format!("{}?wait=1", server.url())).await;
    // On a slow machine the wait may time out before anything was read; hardly several times in a
    // row.
    for round in 1..=5 {
        let mut waiting = JoinSet::new();
        for number in 0..AT_ONCE {
            let log = log.clone();
            waiting.spawn(async move { try_append(&log, &number.to_string(), None).await });
        }
        until("a publisher waits", async || {
            server.command(&["XLEN", "{tidings}:log"]).await.unwrap() != (AT_ONCE * (round - 1)).to_string()
        })
        .await;
        for _ in 0..10 {
            texts(&log).await;
        }
        let is_read_meanwhile = waiting.try_join_next().is_none();
        while let Some(answer) = waiting.join_next().await {
            let Err(AppendError::OutcomeUnknown(problem)) = answer.unwrap() else {
                panic!("there is no replica")
            };
            assert_eq!(problem, "0 of 1 replicas acknowledged it");
        }
        assert_eq!(texts(&log).await.len(), AT_ONCE * round);
        if is_read_meanwhile {
            return;
        }
    }
    panic!("nothing can be read while a publisher waits");
}

/// A copy of what the server has on disk at that moment.
async fn saved(server: &RedisServer) -> Vec<u8> {
    server.command(&["SAVE"]).await.unwrap();
    fs::read(dump(server)).unwrap()
}

fn dump(server: &RedisServer) -> std::path::PathBuf {
    Path::new(&server.folder()).join("dump.rdb")
}

/// The effect of a failover to a replica that was behind: the same log without its end.
async fn lose_end(server: &mut RedisServer, saved: &[u8]) {
    server.kill().await.unwrap();
    fs::write(dump(server), saved).unwrap();
    server.start_again().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_end_begins_a_new_epoch_and_the_earlier_ones_are_kept() {
    let mut server = RedisServer::start().await.unwrap();
    let logs = [open(&server.url()).await, open(&server.url()).await];
    let (_, mut tail) = logs[0].tail().await.unwrap();
    let kept = append(&logs[0], "kept").await;
    let saved = saved(&server).await;
    let lost = append(&logs[0], "lost").await;
    let mut received = 0;
    while received < 2 {
        received += next_entries(&mut tail).await.len();
    }
    lose_end(&mut server, &saved).await;
    let TailItem::NewEpoch(start) = next(&mut tail).await else { panic!("the end was lost") };
    assert_eq!(start.after, kept.position);
    for log in &logs {
        until_health(log, true).await;
        let bounds = log.bounds().await.unwrap();
        let epochs: Vec<_> = bounds.epochs.iter().copied().collect();
        assert_eq!((epochs.len(), epochs[0].epoch, epochs[1]), (2, kept.epoch, start));
        assert_eq!(bounds.epochs.locate(lost, bounds.newest), tidings_log::Located::Earlier(kept.position));
    }
    let after = append(&logs[1], "after").await;
    assert_eq!(after.epoch, start.epoch);
    assert_eq!(data(&next_entries(&mut tail).await), ["after"]);
    assert_eq!(texts(&logs[0]).await, ["kept", "after"]);

    // Nothing was lost since, so a restart with all data begins no epoch.
    let saved = self::saved(&server).await;
    lose_end(&mut server, &saved).await;
    for log in &logs {
        until_health(log, true).await;
        assert_eq!(log.bounds().await.unwrap().epochs.current(), start);
    }
}

/// One node continues before another finds out that something is missing: what the first has
/// appended meanwhile is neither lost nor duplicated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_found_late_begins_its_epoch_after_newer_events() {
    let mut server = RedisServer::start().await.unwrap();
    let mut proxy = FaultProxy::start(server.address()).await.unwrap();
    let late = open(&format!("redis://{}", proxy.address())).await;
    append(&late, "kept").await;
    let saved = saved(&server).await;
    let (_, mut late_tail) = late.tail().await.unwrap();
    let lost = append(&late, "lost").await;
    assert_eq!(data(&next_entries(&mut late_tail).await), ["lost"]);
    proxy.pause();
    lose_end(&mut server, &saved).await;

    let early = open(&server.url()).await;
    let (_, mut early_tail) = early.tail().await.unwrap();
    let meanwhile = append(&early, "meanwhile").await;
    assert_eq!(meanwhile.epoch, lost.epoch, "the loss is not detected yet");
    assert_eq!(data(&next_entries(&mut early_tail).await), ["meanwhile"]);

    proxy.cut();
    proxy.resume();
    let mut received = Vec::new();
    let start = loop {
        match next(&mut late_tail).await {
            TailItem::Entries(entries) => received.extend(entries),
            TailItem::NewEpoch(start) => break start,
            TailItem::Skipped { .. } | TailItem::Deleted { .. } => {}
        }
    };
    assert_eq!(data(&received), ["meanwhile"]);
    assert_eq!(start.after, meanwhile.position);
    let TailItem::NewEpoch(same) = next(&mut early_tail).await else {
        panic!("the loss is reported at the other node")
    };
    assert_eq!(same, start);
    append(&early, "after").await;
    assert_eq!(data(&next_entries(&mut late_tail).await), ["after"]);
    assert_eq!(data(&next_entries(&mut early_tail).await), ["after"]);
    assert_eq!(texts(&late).await, ["kept", "meanwhile", "after"]);
    proxy.connections_reach(1).await.unwrap();
}

/// What retention and deletions removed is accounted for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_after_retention_and_deletion_begins_no_epoch() {
    let mut server = RedisServer::start_durable().await.unwrap();
    let limits = MemoryLimits { count_max: Some(1), ..MemoryLimits::default() };
    let other = RedisLog::open(settings(&server.url(), limits.clone())).await.unwrap();
    for is_deleted in [false, true] {
        let mut proxy = FaultProxy::start(server.address()).await.unwrap();
        let log =
            RedisLog::open(settings(&format!("redis://{}", proxy.address()), limits.clone())).await.unwrap();
        let epoch = append(&log, "known here").await.epoch;
        proxy.pause();
        if is_deleted {
            // It may not know yet that the server has been restarted; to delete again does no harm.
            until("the other node has deleted", async || {
                other.delete(&event_topic(), &tidings_log::Grants::all()).await.is_ok()
            })
            .await;
        } else {
            append(&other, "pushes it out").await;
        }
        server.stop().await.unwrap();
        server.start_again().await.unwrap();
        proxy.cut();
        proxy.resume();
        proxy.connections_reach(3).await.unwrap();
        until_health(&log, true).await;
        assert_eq!(log.bounds().await.unwrap().epochs.current().epoch, epoch);
    }
}

fn event_topic() -> tidings_log::Topic {
    support::event("a", "").topics[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_outcome_is_reported_and_a_key_settles_it() {
    let server = RedisServer::start().await.unwrap();
    let log = open(&server.url()).await;
    append(&log, "first").await;
    // The request waits in the socket of a suspended process: it is carried out when its caller has
    // given up.
    server.freeze().unwrap();
    let without = tokio::spawn({
        let log = log.clone();
        async move { try_append(&log, "without a key", None).await }
    });
    let with = tokio::spawn({
        let log = log.clone();
        async move { try_append(&log, "with a key", Some("k")).await }
    });
    until_health(&log, false).await;
    assert!(matches!(without.await.unwrap(), Err(AppendError::OutcomeUnknown(_))));
    server.thaw().unwrap();
    let with = with.await.unwrap();
    assert!(matches!(with, Ok(Appended::New { .. }) | Err(AppendError::OutcomeUnknown(_))), "{with:?}");
    until_health(&log, true).await;
    let again = try_append(&log, "with a key", Some("k")).await;
    assert!(matches!(again, Ok(Appended::Duplicate { .. })), "{again:?}");
    let mut all = texts(&log).await;
    all.sort();
    assert_eq!(all, ["first", "with a key", "without a key"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_refuses_events_and_recovers() {
    let server = RedisServer::start_with(&["maxmemory-policy noeviction"]).await.unwrap();
    let log = open(&server.url()).await;
    append(&log, "fits").await;
    server.command(&["CONFIG", "SET", "maxmemory", "1mb"]).await.unwrap();
    let refused = try_append(&log, "does not", Some("k")).await;
    assert!(matches!(refused, Err(AppendError::Full(_))), "{refused:?}");
    assert_eq!(log.bounds().await.map(|bounds| bounds.epochs.iter().count()), Ok(1), "reading continues");
    until_health(&log, false).await;
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await.unwrap();
    assert!(matches!(try_append(&log, "does now", Some("k")).await, Ok(Appended::New { .. })));
    until_health(&log, true).await;
    assert_eq!(texts(&log).await, ["fits", "does now"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_redis_forgot_are_sent_again() {
    let server = RedisServer::start().await.unwrap();
    let log = open(&server.url()).await;
    for text in ["1", "2"] {
        server.command(&["SCRIPT", "FLUSH"]).await.unwrap();
        append(&log, text).await;
    }
    assert_eq!(texts(&log).await, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_reached_is_not_opened() {
    let mut server = RedisServer::start().await.unwrap();
    server.stop().await.unwrap();
    let refused = RedisLog::open(settings(&server.url(), MemoryLimits::default())).await;
    assert!(refused.unwrap_err().to_string().contains(&server.address().to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_of_a_closed_log_ends() {
    let server = RedisServer::start().await.unwrap();
    let log = open(&server.url()).await;
    let (_, mut tail) = log.tail().await.unwrap();
    let waiting = tokio::spawn(async move { tail.next(1).await });
    let copy = log.clone();
    drop(log);
    append(&copy, "still open").await;
    drop(copy);
    let item = waiting.await.unwrap();
    assert!(item.is_none_or(|item| matches!(item, TailItem::Entries(_))));
    until("only this command's connection is left", async || {
        let clients = server.command(&["CLIENT", "LIST"]).await.unwrap();
        clients.lines().count() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_waits_for_as_many_replicas_as_were_asked_for() {
    let server = RedisServer::start().await.unwrap();
    let log = open(&format!("{}?wait=1", server.url())).await;
    let alone = try_append(&log, "alone", Some("k")).await;
    assert!(matches!(alone, Err(AppendError::OutcomeUnknown(_))), "{alone:?}");
    let replica =
        RedisServer::start_with(&[&format!("replicaof 127.0.0.1 {}", server.port())]).await.unwrap();
    until("the replica follows", async || {
        server.command(&["INFO", "replication"]).await.unwrap().contains("state=online")
    })
    .await;
    assert!(matches!(try_append(&log, "alone", Some("k")).await, Ok(Appended::Duplicate { .. })));
    append(&log, "together").await;
    let there = replica.command(&["XLEN", "{tidings}:log"]).await.unwrap();
    assert_eq!(there, "2", "it is there when it is acknowledged");
}
