//! The seam test (see `tidings-seam`) on a real Redis: subscribers start, leave and come back at any place while publishers publish, here and at another
//! node, and while Redis is killed, stands still, and forgets everything.
//!
//! The checker wants positions without holes, so the clock of this log stands still: then places count one by one.

use std::{sync::Arc, time::Duration};

use tidings::{
    Event, MemoryLimits,
    log::{AppendError, Appended, Batch, Clock, Log, Timestamp},
};
use tidings_redis::{RedisLog, RedisSettings};
use tidings_seam::{Loss, Random, Store, run};
use tidings_testkit::RedisServer;
use tokio::{runtime::Builder, time::sleep};

/// Events of the test, in a run that nobody asked to be longer.
const EVENTS_DEFAULT: usize = 10_000;

#[test]
fn no_event_is_missing_doubled_or_out_of_order_on_a_redis_that_comes_and_goes() {
    run::<Redis>(Builder::new_multi_thread().worker_threads(4), EVENTS_DEFAULT);
}

/// A server and two nodes on it; the hub has the first.
struct Redis {
    log: Arc<RedisLog>,
    other: RedisLog,
    server: RedisServer,
}

/// A node of the log whose places count one by one.
async fn node(server: &RedisServer, limits: &MemoryLimits) -> RedisLog {
    let url = server.url().parse().expect("a URL");
    let settings = RedisSettings::from_url(url, limits.clone()).expect("a store");
    let standing = Clock::manual(Timestamp::from_millis(0));
    RedisLog::open_with_clock(settings, standing).await.expect("Redis is there")
}

impl Store for Redis {
    const LOSES_EVENTS: bool = true;

    async fn open(kept_max: Option<usize>, _: &mut Random) -> Self {
        let limits = MemoryLimits { count_max: kept_max.map(|kept| kept as u64), ..MemoryLimits::default() };
        let server = RedisServer::start_durable().await.expect("Redis starts");
        let log = Arc::new(node(&server, &limits).await);
        Self { log, other: node(&server, &limits).await, server }
    }

    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.log) as Arc<dyn Log>
    }

    async fn append_elsewhere(&self, events: Vec<Event>) -> Result<Appended, AppendError> {
        self.other.append(Batch { events, key: None }).await
    }

    async fn trouble(&mut self, random: &mut Random) -> Option<Loss> {
        match random.between(0, 3) {
            0 => {
                self.server.command(&["FLUSHALL"]).await.expect("Redis is there");
                let bounds = loop {
                    if let Ok(bounds) = self.other.bounds().await {
                        break bounds;
                    }
                    sleep(Duration::from_millis(5)).await;
                };
                return Some(Loss::Everything(bounds.epochs.current().epoch));
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
