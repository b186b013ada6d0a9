//! Waiting until replicas have what was written (`WAIT`).
//!
//! Redis serves nothing else on a connection while a command waits there, so waiting has a
//! connection of its own: reads and canaries continue while a replica is unavailable. One wait
//! covers everything that was written there before, so requests that arrive in the meantime share
//! the next wait.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use redis::aio::MultiplexedConnection;
use tokio::sync::Mutex;

use crate::{shared_connection::SharedConnection, trouble::Trouble};

/// How long replicas have to take over what was written. A request that arrives during one wait is
/// answered after the next one, which has to be within the reply timeout of a connection.
const TIME_MAX: Duration = Duration::from_secs(2);
const _: () = assert!(2 * TIME_MAX.as_secs() < crate::connect::RESPONSE_TIME_MAX.as_secs());

pub(super) struct Replicas {
    /// How many replicas must have what was written.
    wanted: u32,
    /// The connection for writes that wait.
    pub(super) connection: SharedConnection,
    /// How many writes there were.
    written: AtomicU64,
    waited: Mutex<Waited>,
}

/// The last wait.
struct Waited {
    /// On which connection, and which write it covers, with all before it.
    connection: u64,
    through: u64,
    outcome: Result<(), Trouble>,
}

impl Replicas {
    pub(super) fn new(wanted: u32) -> Self {
        let nothing = Waited { connection: 0, through: 0, outcome: Ok(()) };
        Self {
            wanted,
            connection: SharedConnection::new(),
            written: AtomicU64::new(0),
            waited: Mutex::new(nothing),
        }
    }

    pub(super) fn are_wanted(&self) -> bool {
        self.wanted > 0
    }

    /// Waits for everything that was written on this connection so far.
    pub(super) async fn wait(
        &self,
        mut commands: MultiplexedConnection,
        connection: u64,
    ) -> Result<(), Trouble> {
        let own = self.written.fetch_add(1, Ordering::SeqCst) + 1;
        let mut waited = self.waited.lock().await;
        if waited.connection == connection && waited.through >= own {
            return waited.outcome.clone();
        }
        // Every write that has a number by now was answered before the wait is sent.
        let through = self.written.load(Ordering::SeqCst);
        let mut wait = redis::cmd("WAIT");
        wait.arg(self.wanted).arg(u64::try_from(TIME_MAX.as_millis()).unwrap_or(u64::MAX));
        let outcome = match wait.query_async::<u32>(&mut commands).await {
            Ok(reached) if reached >= self.wanted => Ok(()),
            Ok(reached) => {
                Err(Trouble::Unknown(format!("{reached} of {} replicas acknowledged it", self.wanted)))
            }
            Err(error) => Err(Trouble::Unknown(self.connection.judge(connection, &error).to_string())),
        };
        *waited = Waited { connection, through, outcome: outcome.clone() };
        outcome
    }
}
