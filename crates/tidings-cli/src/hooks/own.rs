//! Records the subscriptions of this hub's own subscribers, whether it has the lease or not: only this
//! hub sees each of them. Another one, and the presence list of all, sees who is there when it looks.
//!
//! Invariant: what begins and ends is recorded once and in order, also if the store has to be asked
//! again, for as long as its window for repeats lasts.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tidings::{IdempotencyKey, Validator};
use tidings_presence::{SubscriptionChange, SubscriptionIndex};
use tokio::time::sleep;

use super::{
    change::{Change, Member},
    journal::{Journal, Record, append, parts},
    ledger::{Ledger, begin_new_hooks},
    shared::{Hook, Shared},
};

/// The pause after each look: changes of this time are recorded together.
const PAUSE: Duration = Duration::from_millis(100);
/// How long to wait after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Records until it is cancelled. `hook` publishes what is recorded.
pub(super) async fn run(shared: Arc<Shared>, index: Arc<SubscriptionIndex>, hook: Arc<Hook>) {
    while let Err(error) = begin(&shared, &hook).await {
        not_recorded(&error).await;
    }
    let validator = Validator::default();
    let hub = getrandom::u64().expect("the system provides random numbers");
    let mut appended: u64 = 0;
    loop {
        let (changes, dropped) = index.take_own_changes();
        hook.counts.unrecorded.fetch_add(dropped, Ordering::Relaxed);
        let records: Vec<_> = changes.into_iter().map(record).collect();
        for part in parts(&records) {
            let key = IdempotencyKey::new(&format!("own-{hub:016x}-{appended}"));
            while let Err(error) = append(&*shared.journal, &validator, part, key.clone()).await {
                not_recorded(&error).await;
            }
            appended += 1;
            shared.own_recorded.notify_one();
        }
        sleep(PAUSE).await;
        index.own_changed().await;
    }
}

/// The journal knows the hook before the first change is recorded, or would begin it after that one.
async fn begin(shared: &Shared, hook: &Hook) -> Result<(), String> {
    let mut journal = Journal::new(Arc::clone(&shared.journal));
    let mut ledger = Ledger::new([(hook.name.clone(), hook.kinds.clone())]);
    journal.read(|entry| ledger.read(entry)).await?;
    begin_new_hooks(&journal, &mut ledger).await
}

async fn not_recorded(error: &str) {
    tracing::debug!(error, "cannot record the subscriptions of this hub yet");
    sleep(RETRY_PAUSE).await;
}

fn record(change: SubscriptionChange) -> Record {
    let member = Member::Subscription(change.subscription);
    Record::of_change(&Change { member, is_here: change.is_active })
}
