//! The log on a real Redis server.

mod support;

use tidings_log::{Log, MemoryLimits};
use tidings_redis::{RedisLog, RedisSettings};
use tidings_testkit::RedisServer;

use crate::support::Fresh;

tidings_log::conformance!(conformance, Fresh::<RedisServer>::default());

#[tokio::test]
async fn settings_of_a_url_open_a_log() {
    let server = RedisServer::start().await.unwrap();
    let settings = RedisSettings::from_url(server.url().parse().unwrap(), MemoryLimits::default()).unwrap();
    RedisLog::open(settings).await.unwrap();
    assert!(server.command(&["KEYS", "*"]).await.unwrap().contains("{tidings}:state"));
}

/// Once an event that came right behind another, while the process asked where the end of the log was, woke nobody: the tail slept until the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_right_behind_another_wakes_a_waiting_tail() {
    let server = RedisServer::start().await.unwrap();
    let (one, other) = (support::open(&server.url()).await, support::open(&server.url()).await);
    let (_, mut tail) = other.tail().await.unwrap();
    let hearing = tokio::spawn(async move {
        for round in 0..1_000 {
            let mut heard = 0;
            while heard < 2 {
                heard += support::next_entries(&mut tail).await.len();
            }
            assert_eq!(heard, 2, "round {round}");
            for text in ["first", "second"] {
                support::append(&one, text).await;
            }
        }
    });
    for text in ["first", "second"] {
        support::append(&other, text).await;
    }
    hearing.await.unwrap();
}
