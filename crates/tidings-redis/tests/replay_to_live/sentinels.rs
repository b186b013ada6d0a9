//! Behind Sentinels: every so often the master dies and its replica takes over. The replica has
//! every acknowledged event (`wait=1`). Events that were received and not acknowledged may be lost,
//! above all where the replica was cut off from its master before; that is reported.

use std::{sync::Arc, time::Duration};

use tidings::{
    Event,
    log::{AppendError, Appended, EpochStart, Log},
};
use tidings_replay_to_live::{Loss, Random, Store, run};
use tidings_testkit::RedisSentinels;
use tokio::{runtime::Builder, time::sleep};

use crate::Pair;

/// Every so often a fault is a failover, which takes seconds; the others are short. Before every
/// other failover the replica is cut off.
const FAILOVER_EVERY: usize = 6;
/// Events of the test by default: two failovers, as a rule.
const EVENTS_DEFAULT: usize = 5_000;
/// How often the log is checked for a new event, and the pause in between. A publisher that waits
/// for the replica learns after two seconds that it was not reached, and continues.
const LOOKS_MAX: usize = 500;
const LOOKS_PAUSE: Duration = Duration::from_millis(10);

#[test]
fn no_event_is_missing_duplicated_or_out_of_order_through_failovers() {
    run::<Sentinels>(Builder::new_multi_thread().worker_threads(4), EVENTS_DEFAULT);
}

/// A master and its replica.
struct Sentinels {
    pair: Pair,
    servers: RedisSentinels,
    epoch: EpochStart,
    troubles: usize,
}

impl Sentinels {
    /// Waits until an event is published that the replica does not have, if any publisher is left.
    async fn until_something_is_written(&self) {
        let newest = async || self.pair.other.bounds().await.ok().map(|bounds| bounds.newest);
        let before = newest().await;
        for _ in 0..LOOKS_MAX {
            if newest().await != before {
                return;
            }
            sleep(LOOKS_PAUSE).await;
        }
    }
}

impl Store for Sentinels {
    const LOSES_EVENTS: bool = true;

    async fn open(kept_max: Option<usize>, random: &mut Random) -> Self {
        let servers = RedisSentinels::start().await.expect("the servers start");
        let pair = Pair::open(&format!("{}?wait=1", servers.url()), kept_max).await;
        let epoch = pair.agree().await;
        Self { pair, servers, epoch, troubles: *random.pick(&[3, 9]) }
    }

    fn log(&self) -> Arc<dyn Log> {
        self.pair.log()
    }

    async fn append_elsewhere(&self, events: Vec<Event>) -> Result<Appended, AppendError> {
        self.pair.append_elsewhere(events).await
    }

    async fn trouble(&mut self, random: &mut Random) -> Option<Loss> {
        self.troubles += 1;
        if !self.troubles.is_multiple_of(FAILOVER_EVERY) {
            let master = self.servers.master().await.expect("there is one");
            master.freeze().expect("it runs");
            sleep(random.micros(60_000)).await;
            master.thaw().expect("it runs");
            return None;
        }
        if self.troubles.is_multiple_of(2 * FAILOVER_EVERY) {
            self.servers.cut_replica_off().await.expect("they run");
            self.until_something_is_written().await;
            sleep(random.micros(60_000)).await;
        }
        self.servers.fail_over().await.expect("the replica takes over");
        let epoch = self.pair.agree().await;
        (std::mem::replace(&mut self.epoch, epoch) != epoch).then_some(Loss::End(epoch))
    }
}
