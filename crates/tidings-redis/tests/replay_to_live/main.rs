//! The replay-to-live test (see `tidings-replay-to-live`) on a real Redis: subscribers connect,
//! leave and reconnect at any position while publishers publish, here and at another node, and
//! while Redis is killed, suspended, and loses all data; while the slot of the log moves through a
//! Redis Cluster; and while Sentinels make one server after the other the master.
//!
//! The checker needs positions without holes, so the clock of this log stands still: then positions
//! count one by one.
//!
//! Needs: redis-server, redis-sentinel.

mod nodes;
mod sentinels;

use std::{sync::Arc, time::Duration};

use tidings::{
    Event, MemoryLimits,
    log::{AppendError, Appended, Batch, Clock, EpochStart, Log, Timestamp},
};
use tidings_redis::{RedisLog, RedisSettings};
use tidings_replay_to_live::{Loss, Random, Store, run};
use tidings_testkit::RedisServer;
use tokio::{runtime::Builder, time::sleep};

/// Events of the test by default.
const EVENTS_DEFAULT: usize = 10_000;

#[test]
fn no_event_is_missing_duplicated_or_out_of_order_on_a_failing_redis() {
    run::<Redis>(Builder::new_multi_thread().worker_threads(4), EVENTS_DEFAULT);
}

/// Two hubs' views of one log.
struct Pair {
    /// The log of the hub under test.
    log: Arc<RedisLog>,
    other: RedisLog,
}

impl Pair {
    /// On a fresh log that keeps this many events.
    async fn open(url: &str, kept_max: Option<usize>) -> Self {
        let limits = MemoryLimits { count_max: kept_max.map(|kept| kept as u64), ..MemoryLimits::default() };
        let open = async || {
            let settings = RedisSettings::from_url(url.parse().expect("a URL"), limits.clone());
            let standing = Clock::manual(Timestamp::from_millis(0));
            RedisLog::open_with_clock(settings.expect("a store"), Some(standing))
                .await
                .expect("Redis is there")
        };
        Self { log: Arc::new(open().await), other: open().await }
    }

    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.log) as Arc<dyn Log>
    }

    async fn append_elsewhere(&self, events: Vec<Event>) -> Result<Appended, AppendError> {
        self.other.append(Batch { events, key: None }).await
    }

    /// The newest epoch, once both are connected and agree.
    async fn agree(&self) -> EpochStart {
        loop {
            let newest = async |log: &RedisLog| {
                log.health().await?;
                log.bounds().await.map(|bounds| bounds.epochs.current())
            };
            match (newest(&self.log).await, newest(&self.other).await) {
                (Ok(here), Ok(there)) if here == there => return here,
                _ => sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

/// One server.
struct Redis {
    pair: Pair,
    server: RedisServer,
}

impl Store for Redis {
    const LOSES_EVENTS: bool = true;

    async fn open(kept_max: Option<usize>, _: &mut Random) -> Self {
        let server = RedisServer::start_durable().await.expect("Redis starts");
        Self { pair: Pair::open(&server.url(), kept_max).await, server }
    }

    fn log(&self) -> Arc<dyn Log> {
        self.pair.log()
    }

    async fn append_elsewhere(&self, events: Vec<Event>) -> Result<Appended, AppendError> {
        self.pair.append_elsewhere(events).await
    }

    async fn trouble(&mut self, random: &mut Random) -> Option<Loss> {
        match random.between(0, 3) {
            0 => {
                self.server.command(&["FLUSHALL"]).await.expect("Redis is there");
                return Some(Loss::Everything(self.pair.agree().await.epoch));
            }
            1 => {
                self.server.kill().await.expect("it runs");
                sleep(random.micros(60_000)).await;
                self.server.start_again().await.expect("it starts");
            }
            _ => {
                self.server.freeze().expect("it runs");
                sleep(random.micros(60_000)).await;
                self.server.thaw().expect("it runs");
            }
        }
        None
    }
}
