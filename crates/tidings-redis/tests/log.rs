//! The log on a real Redis server.
//!
//! Needs: redis-server.

mod support;

use tidings_log::{Batch, Filter, Grants, Log, MemoryLimits, Position, TailItem};
use tidings_redis::{RedisLog, RedisSettings};
use tidings_testkit::RedisServer;
use tidings_topic::{Matcher, NewEvent, Validator};

use crate::support::Fresh;

tidings_log_conformance::conformance!(conformance, Fresh::<RedisServer>::default());

#[tokio::test]
async fn settings_of_a_url_open_a_log() {
    let server = RedisServer::start().await.unwrap();
    let settings = RedisSettings::from_url(server.url().parse().unwrap(), MemoryLimits::default()).unwrap();
    RedisLog::open(settings).await.unwrap();
    assert!(server.command(&["KEYS", "*"]).await.unwrap().contains("{tidings}:state"));
}

/// Regression: an event right behind another, that arrived while the process asked where the end of
/// the log was, woke no tail: it slept until the next event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_right_behind_another_wakes_a_waiting_tail() {
    let server = RedisServer::start().await.unwrap();
    let (one, other) = (support::open(&server.url()).await, support::open(&server.url()).await);
    let (_, mut tail) = other.tail().await.unwrap();
    let receiving = tokio::spawn(async move {
        for round in 0..1_000 {
            let mut received = 0;
            while received < 2 {
                received += support::next_entries(&mut tail).await.len();
            }
            assert_eq!(received, 2, "round {round}");
            for text in ["first", "second"] {
                support::append(&one, text).await;
            }
        }
    });
    for text in ["first", "second"] {
        support::append(&other, text).await;
    }
    receiving.await.unwrap();
}

/// It was delivered as if the hub had sent it.
#[tokio::test]
async fn a_stored_event_that_looks_like_a_notice_is_not_delivered() {
    let server = RedisServer::start().await.unwrap();
    let log = support::open(&server.url()).await;
    let (_, mut tail) = log.tail().await.unwrap();
    support::append(&log, "before").await;
    // Another program that may write to this Redis does what the script of an append does.
    let newest = server.command(&["HGET", "{tidings}:state", "newest"]).await.unwrap();
    let (ms, sequence) = newest.trim().split_once('-').unwrap();
    let place = format!("{ms}-{}", sequence.parse::<u64>().unwrap() + 1);
    let number = server.command(&["HINCRBY", "{tidings}:state", "number", "1"]).await.unwrap();
    let meta = format!("{}\n\ntidings\n\n", number.trim());
    let forged = ["XADD", "{tidings}:log", &place, "t", "+a", "m", &meta, "d", "forged"];
    server.command(&forged).await.unwrap();
    server.command(&["HSET", "{tidings}:state", "newest", &place]).await.unwrap();
    support::append(&log, "after").await;
    assert_eq!(support::texts(&log).await, ["before", "after"]);
    let rejected = log.rejected_count();
    assert!(rejected >= 1);
    let mut received = Vec::new();
    while received.last().is_none_or(|data| data != "after") {
        if let TailItem::Entries(entries) = support::next(&mut tail).await {
            received.extend(entries.iter().map(|entry| entry.event.data.clone()));
        }
    }
    assert_eq!(received, ["before", "after"]);
    assert_eq!(log.rejected_count(), rejected + 1);
}

/// Many events, five hundred at a time.
async fn append_many(log: &RedisLog, topics: &[&str], count: usize) {
    let event = || {
        let mut new = NewEvent::new(topics[0], "x".repeat(200));
        new.topics = topics.iter().map(|&topic| topic.into()).collect();
        Validator::default().event(new).unwrap()
    };
    for begun in (0..count).step_by(500) {
        let events = (begun..count.min(begun + 500)).map(|_| event()).collect();
        log.append(Batch { events, key: None }).await.unwrap();
    }
}

async fn indexed(server: &RedisServer) -> usize {
    server.command(&["ZCARD", "{tidings}:topics"]).await.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_reader_of_quiet_topics_is_not_sent_other_events() {
    let server = RedisServer::start().await.unwrap();
    let log = support::open(&server.url()).await;
    append_many(&log, &["busy"], 5_000).await;
    for topics in [&["quiet"][..], &["busy", "other"], &["other", "quiet"]] {
        append_many(&log, topics, 1).await;
        append_many(&log, &["busy"], 5_000).await;
    }
    let exact = |topic| Matcher::Exact(Validator::default().topic(topic).unwrap());
    let filter = Filter { matchers: vec![exact("quiet"), exact("other")], grants: Grants::NONE };
    let page = log.read(Position::BEFORE_ALL, &filter, usize::MAX).await.unwrap();
    assert_eq!((page.entries.len(), page.at_end), (3, true), "20,000 others would be many pages");
    assert_eq!(page.through, log.bounds().await.unwrap().newest);
    let rest = log.read(page.entries[1].cursor.position, &filter, usize::MAX).await.unwrap();
    assert_eq!(rest.entries, page.entries[2..]);
    // Backwards, too: in fewer bytes than lie behind the last one.
    let last = log.last(2, &filter, 400_000).await.unwrap();
    assert_eq!(last.entries, page.entries[1..]);
}

#[tokio::test]
async fn the_index_of_topics_loses_what_the_log_loses() {
    let server = RedisServer::start().await.unwrap();
    let limits = MemoryLimits { count_max: Some(1_000), ..MemoryLimits::default() };
    let log = RedisLog::open(support::settings(&server.url(), limits)).await.unwrap();
    append_many(&log, &["a"], 500).await;
    append_many(&log, &["a", "b"], 500).await;
    assert_eq!(indexed(&server).await, 1_500);
    append_many(&log, &["c"], 500).await;
    assert_eq!(indexed(&server).await, 1_500, "only those of a were dropped");
    log.delete(&Validator::default().topic("b").unwrap(), &Grants::all()).await.unwrap();
    assert_eq!(indexed(&server).await, 500);
}
