//! The log on a real Redis server.

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tidings_log::{
    Log, MemoryLimits,
    conformance::{Abilities, Make, Subject, Wanted},
};
use tidings_redis::{RedisLog, RedisSettings};
use tidings_testkit::RedisServer;
use tokio::sync::OnceCell;

use crate::support::settings;

/// Logs of one server, which ends with the check that asked for them.
#[derive(Default)]
struct Single {
    server: OnceCell<RedisServer>,
    logs: AtomicUsize,
}

impl Make for Single {
    async fn make(&self, wanted: Wanted) -> Subject {
        let server = self.server.get_or_init(async || RedisServer::start().await.unwrap()).await;
        let number = self.logs.fetch_add(1, Ordering::Relaxed);
        let settings = settings(&format!("{}?name=log-{number}", server.url()), wanted.memory_limits());
        let log = RedisLog::open_with_clock(settings, wanted.clock).await.unwrap();
        Subject { log: Arc::new(log), abilities: Abilities::ALL }
    }
}

tidings_log::conformance!(conformance, Single::default());

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
