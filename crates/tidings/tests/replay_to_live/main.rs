//! The replay-to-live test (see `tidings-replay-to-live`) on the logs that need no server: in
//! memory, in files that are closed and killed, and on one with every kind of failure.

#[cfg(unix)]
mod reopened;

use std::sync::Arc;

use tidings::{
    Event, MemoryLimits, MemoryLog,
    log::{AppendError, Appended, Batch, Log},
};
use tidings_delayed_log::{DelayedLog, Faults};
use tidings_replay_to_live::{Loss, Random, Store, run};
use tokio::{runtime::Builder, time::sleep};

/// Events of one test, in a run of default length.
const EVENTS_DEFAULT: usize = 20_000;

#[test]
fn no_event_is_missing_duplicated_or_out_of_order_on_a_log_in_memory() {
    run::<Memory>(Builder::new_multi_thread().worker_threads(4), EVENTS_DEFAULT);
}

#[cfg(unix)]
#[test]
fn no_event_is_missing_duplicated_or_out_of_order_on_a_killed_log() {
    run::<reopened::Files>(Builder::new_multi_thread().worker_threads(4), EVENTS_DEFAULT);
}

#[test]
fn no_event_is_missing_duplicated_or_out_of_order_on_a_faulty_log() {
    run::<Troubled>(Builder::new_multi_thread().worker_threads(4), EVENTS_DEFAULT);
}

#[test]
fn no_event_is_missing_on_a_faulty_log_in_paused_time() {
    run::<Troubled>(Builder::new_current_thread().start_paused(true), EVENTS_DEFAULT);
}

fn limits(kept_max: Option<usize>) -> MemoryLimits {
    MemoryLimits { count_max: kept_max.map(|kept| kept as u64), ..MemoryLimits::default() }
}

/// A log in memory, without failures.
struct Memory(Arc<MemoryLog>);

impl Store for Memory {
    const LOSES_EVENTS: bool = false;

    async fn open(kept_max: Option<usize>, _: &mut Random) -> Self {
        Self(Arc::new(MemoryLog::new(limits(kept_max))))
    }

    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.0) as Arc<dyn Log>
    }

    async fn append_elsewhere(&self, events: Vec<Event>) -> Result<Appended, AppendError> {
        self.0.append(Batch { events, key: None }).await
    }

    async fn trouble(&mut self, _: &mut Random) -> Option<Loss> {
        None
    }
}

/// A log that is slow, fails, has outages, loses its end or everything, and to which others append.
struct Troubled(Arc<DelayedLog>);

impl Store for Troubled {
    const LOSES_EVENTS: bool = true;

    async fn open(kept_max: Option<usize>, random: &mut Random) -> Self {
        let faults = Faults {
            latency_max: random.micros(2_000),
            append_unavailable_per_mille: 20,
            outcome_unknown_per_mille: 40,
            read_unavailable_per_mille: 10,
        };
        Self(Arc::new(DelayedLog::new(random.draw(), faults, limits(kept_max))))
    }

    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.0) as Arc<dyn Log>
    }

    async fn append_elsewhere(&self, events: Vec<Event>) -> Result<Appended, AppendError> {
        self.0.append_foreign(events)
    }

    async fn trouble(&mut self, random: &mut Random) -> Option<Loss> {
        match random.between(0, 5) {
            0 => Some(Loss::Everything(self.0.replace())),
            1 | 2 => Some(Loss::End(self.0.lose_end(random.between(0, 40) as u64))),
            _ => {
                self.0.go_down();
                sleep(random.micros(60_000)).await;
                self.0.come_back();
                None
            }
        }
    }
}
