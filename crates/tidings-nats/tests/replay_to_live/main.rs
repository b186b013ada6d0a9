//! The replay-to-live test (see `tidings-replay-to-live`) on a real nats-server: subscribers
//! connect, leave and reconnect at any position while publishers publish, here and at another node,
//! and while the server is stopped, killed and suspended. A server that loses its end is tested in
//! `troubles.rs`.
//!
//! Needs: nats-server.

mod dense;

use std::sync::Arc;

use tidings::{
    Event,
    log::{AppendError, Appended, Batch, Log},
};
use tidings_nats::{Nats, NatsAddress, NatsLog, NatsSettings};
use tidings_replay_to_live::{Loss, Random, Store, run};
use tidings_testkit::NatsServer;
use tokio::{runtime::Builder, time::sleep};

use crate::dense::{Dense, Places};

/// Events of the test by default.
const EVENTS_DEFAULT: usize = 10_000;
/// How much a node keeps in memory next to the one under test, and the node that counts the
/// positions: everything.
const ALL_AT_HAND: usize = 32 << 20;

#[test]
fn no_event_is_missing_duplicated_or_out_of_order_on_a_failing_nats() {
    run::<Jetstream>(Builder::new_multi_thread().worker_threads(4), EVENTS_DEFAULT);
}

/// A server and two nodes on it; the hub has the first.
struct Jetstream {
    log: Arc<Dense>,
    other: Dense,
    server: NatsServer,
}

async fn open(server: &NatsServer, count_max: Option<usize>, recent_bytes_max: usize) -> NatsLog {
    let address: NatsAddress = server.url().parse().expect("an address");
    let count_max = count_max.map(|count| count as u64);
    let settings = NatsSettings { count_max, recent_bytes_max, ..NatsSettings::default() };
    let nats = Nats::connect(&address, settings).await.expect("the server is there");
    nats.log().await.expect("the log opens")
}

impl Store for Jetstream {
    const LOSES_EVENTS: bool = false;

    async fn open(kept_max: Option<usize>, random: &mut Random) -> Self {
        let recent_bytes_max = *random.pick(&[0, 20_000, ALL_AT_HAND]);
        let server = NatsServer::start().expect("nats-server starts");
        let places = Places::of(open(&server, None, ALL_AT_HAND).await).await;
        let log = open(&server, kept_max, recent_bytes_max).await;
        let log = Arc::new(Dense { log, places: places.clone() });
        let other = Dense { log: open(&server, kept_max, ALL_AT_HAND).await, places };
        Self { log, other, server }
    }

    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.log) as Arc<dyn Log>
    }

    async fn append_elsewhere(&self, events: Vec<Event>) -> Result<Appended, AppendError> {
        self.other.append(Batch { events, key: None }).await
    }

    async fn trouble(&mut self, random: &mut Random) -> Option<Loss> {
        if random.percent(70) {
            let ended = if random.percent(50) { self.server.stop() } else { self.server.kill() };
            ended.expect("it runs");
            sleep(random.micros(60_000)).await;
            self.server.start_again().expect("it starts");
        } else {
            self.server.freeze(true).expect("it runs");
            sleep(random.micros(60_000)).await;
            self.server.freeze(false).expect("it runs");
        }
        None
    }
}
