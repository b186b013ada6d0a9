//! Group commit: batches that are published at the same time are appended to the log together.
//!
//! A log in memory is called directly, since it never waits. For every other log one task takes
//! all batches that wait, appends them with one call, accounts for them and answers each publisher;
//! what arrives in the meantime is the next group. So a batch waits at most for the append that is
//! under way, and a sync, a script or a message serves all publishers of that moment.
//!
//! Invariant: what was begun is accounted for. A batch, its permit and its share of the lag belong
//! to the task, so a publisher that disconnects only drops the receiver of its answer.

use std::sync::{Arc, atomic::Ordering};

use tidings_log::{AppendError, Appended, Batch};
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
};

use super::queue::{Outcome, Queue, Waiting};
use crate::{error::Error, hub::HubState, publish::pressure::AppendPermit};

/// Bytes after which a group takes no further batch, so that no batch waits for an append without
/// bounds.
const GROUP_BYTES_MAX: u64 = 1 << 20;
/// Most batches of a group, for the same reason.
const GROUP_BATCHES_MAX: usize = 1_024;

impl HubState {
    /// Appends a batch, alone or with others. It is appended and accounted for whether or not this
    /// is polled to completion.
    pub(super) async fn append(&self, batch: Batch, permit: AppendPermit) -> Result<Appended, Error> {
        let batch = match self.log.append_now(batch) {
            Ok(outcome) => {
                self.account([(&outcome, permit.batch_bytes())]);
                return Ok(outcome?);
            }
            Err(batch) => batch,
        };
        let (publisher, outcome) = oneshot::channel();
        if self.committer.waiting.send(Waiting { batch, permit, publisher }).is_err() {
            return Err(super::closed(self));
        }
        let unknown = |_| AppendError::OutcomeUnknown("the hub failed while the event was stored".to_owned());
        Ok(outcome.await.map_err(unknown)??)
    }

    /// Counts what is in the log now, and adds it to the lag of the fan-out.
    fn account<'a>(&self, outcomes: impl IntoIterator<Item = (&'a Outcome, u64)>) {
        let mut published = 0;
        let appended = outcomes.into_iter().filter_map(|(outcome, bytes)| match outcome {
            Ok(Appended::New { ids, last }) => {
                published += ids.len() as u64;
                Some((*last, bytes))
            }
            _ => None,
        });
        self.pressure.appended(appended);
        self.published.fetch_add(published, Ordering::Relaxed);
    }
}

/// Appends group after group, for as long as the hub runs.
pub(crate) async fn commit(state: Arc<HubState>, Queue(mut queue): Queue) {
    let mut has_company = false;
    while let Some(first) = queue.recv().await {
        if has_company {
            // Publishers whose requests have arrived already join this group.
            yield_now().await;
        }
        let (batches, publishers) = group(first, &mut queue);
        has_company = batches.len() > 1;
        let outcomes = state.log.append_all(batches).await;
        debug_assert_eq!(outcomes.len(), publishers.len(), "each batch has an outcome");
        state.account(outcomes.iter().zip(publishers.iter().map(|(permit, _)| permit.batch_bytes())));
        for ((permit, publisher), outcome) in publishers.into_iter().zip(outcomes) {
            drop(permit);
            // A publisher that has disconnected does not need it.
            let _ = publisher.send(outcome);
        }
    }
}

type Publisher = (AppendPermit, oneshot::Sender<Outcome>);

/// This batch, and those that wait with it.
fn group(first: Waiting, queue: &mut mpsc::UnboundedReceiver<Waiting>) -> (Vec<Batch>, Vec<Publisher>) {
    let (mut batches, mut publishers, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut next = Some(first);
    while let Some(Waiting { batch, permit, publisher }) = next {
        bytes += permit.batch_bytes();
        batches.push(batch);
        publishers.push((permit, publisher));
        let is_full = bytes >= GROUP_BYTES_MAX || batches.len() == GROUP_BATCHES_MAX;
        next = if is_full { None } else { queue.try_recv().ok() };
    }
    (batches, publishers)
}
