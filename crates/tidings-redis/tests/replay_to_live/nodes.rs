//! On a Redis Cluster: the log moves from node to node, with everything in it, and sometimes its
//! node is suspended or loses all data.

use std::sync::Arc;

use tidings::{
    Event,
    log::{AppendError, Appended, Log},
};
use tidings_replay_to_live::{Loss, Random, Store, run};
use tidings_testkit::RedisNodes;
use tokio::{runtime::Builder, time::sleep};

use crate::{EVENTS_DEFAULT, Pair};

/// A key in the slot of the log.
const KEY: &str = "{tidings}:state";

#[test]
fn no_event_is_missing_duplicated_or_out_of_order_while_slots_move() {
    run::<Nodes>(Builder::new_multi_thread().worker_threads(4), EVENTS_DEFAULT);
}

/// Three servers.
struct Nodes {
    pair: Pair,
    servers: RedisNodes,
}

impl Store for Nodes {
    const LOSES_EVENTS: bool = true;

    async fn open(kept_max: Option<usize>, _: &mut Random) -> Self {
        let servers = RedisNodes::start().await.expect("a cluster starts");
        Self { pair: Pair::open(&servers.url(), kept_max).await, servers }
    }

    fn log(&self) -> Arc<dyn Log> {
        self.pair.log()
    }

    async fn append_elsewhere(&self, events: Vec<Event>) -> Result<Appended, AppendError> {
        self.pair.append_elsewhere(events).await
    }

    async fn trouble(&mut self, random: &mut Random) -> Option<Loss> {
        match random.between(0, 10) {
            0 => {
                let owner = self.servers.owner(KEY).await.expect("a node has it");
                owner.command(&["FLUSHALL"]).await.expect("it runs");
                return Some(Loss::Everything(self.pair.agree().await.epoch));
            }
            1..=4 => self.servers.move_slot(KEY).await.expect("it moves"),
            _ => {
                let owner = self.servers.owner(KEY).await.expect("a node has it");
                owner.freeze().expect("it runs");
                sleep(random.micros(60_000)).await;
                owner.thaw().expect("it runs");
            }
        }
        None
    }
}
