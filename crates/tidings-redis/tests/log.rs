//! The log on a real Redis server.

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tidings_log::{
    MemoryLimits,
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
