//! Records who comes and leaves, and has it delivered: at the one hub of a cluster that has the lease.
//!
//! ```text
//! subscribers of all hubs ─► Watched ─► Reconciler ─► Journal ─► Ledger ─► deliveries
//!                                          ▲            ▲          │
//!                                          └─ who is recorded ─────┘
//!                                                       │
//! subscriptions of each hub ─────────────► own ─────────┘
//! ```
//!
//! The lease decides who works, and not what is right: the journal does (`ledger.rs`).

use std::{collections::HashSet, convert::Infallible, sync::Arc, time::Duration};

use tidings::log::cluster::{Cluster, ClusterError, Lease};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    change::{Change, Member},
    delivery::deliver,
    journal::{Journal, Record, parts},
    ledger::{Ledger, begin_new_hooks},
    reconciler::Reconciler,
    shared::Shared,
    watched::Watched,
};

/// The key of the lease.
const LEASE: &str = "hooks";
/// How long the lease is held without being renewed.
const LEASE_TIME: Duration = Duration::from_secs(15);
/// How often it is renewed: two renewals may be late.
const RENEWED_EVERY: Duration = Duration::from_secs(5);
/// How long the cluster may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(4);
/// How often a hub without the lease tries to get it, and one that failed tries again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The pause between two looks: changes of this time are recorded together.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the journal is read at least where other hubs record their subscriptions.
const READ_EVERY: Duration = Duration::from_secs(1);

/// Why a hub does not lead any more.
enum Ended {
    /// Another hub has the lease, or may have it.
    LeaseLost,
    Failed(String),
}

impl From<String> for Ended {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// Records and delivers whenever this hub has the lease. Never returns.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let held = Held::acquire(&*shared.cluster).await;
        let Ok(Some(mut held)) = held.inspect_err(|error| {
            tracing::debug!(%error, "cannot acquire the lease of the hooks");
        }) else {
            sleep(RETRY_PAUSE).await;
            continue;
        };
        shared.set_lease(Some(held.lease.clone()));
        let Err(ended) = lead(&shared, &mut held).await;
        shared.set_lease(None);
        shared.watched.unfollow();
        shared.board.replace(None);
        match ended {
            Ended::LeaseLost => {
                tracing::warn!("this hub has lost the lease of the hooks; another one delivers them");
            }
            Ended::Failed(reason) => {
                tracing::warn!(reason, "hooks are not delivered at the moment; this is tried again");
                let _ = timeout(ANSWER_TIME, shared.cluster.release(&held.lease)).await;
            }
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// The lease, and until when this hub may be sure of it.
struct Held {
    lease: Lease,
    renewed_at: Instant,
}

impl Held {
    async fn acquire(cluster: &dyn Cluster) -> Result<Option<Self>, ClusterError> {
        let renewed_at = Instant::now();
        let acquiring = timeout(ANSWER_TIME, cluster.acquire(LEASE, LEASE_TIME)).await;
        let lease = acquiring.unwrap_or_else(|_| Err(no_answer()))?;
        Ok(lease.map(|lease| Self { lease, renewed_at }))
    }

    /// Renews the lease if that is due.
    async fn keep(&mut self, cluster: &dyn Cluster) -> Result<(), Ended> {
        let now = Instant::now();
        if now < self.renewed_at + RENEWED_EVERY {
            return Ok(());
        }
        let renewing = timeout(ANSWER_TIME, cluster.renew(&self.lease, LEASE_TIME)).await;
        match renewing.unwrap_or_else(|_| Err(no_answer())) {
            Ok(true) => {
                self.renewed_at = now;
                Ok(())
            }
            // A little earlier than the cluster, whose clock may be faster.
            Err(_) if Instant::now() + RENEWED_EVERY < self.renewed_at + LEASE_TIME => Ok(()),
            Ok(false) | Err(_) => Err(Ended::LeaseLost),
        }
    }
}

fn no_answer() -> ClusterError {
    ClusterError::Unavailable(format!("there was no answer within {ANSWER_TIME:?}"))
}

/// Records and delivers until this hub has to stop.
async fn lead(shared: &Arc<Shared>, held: &mut Held) -> Result<Infallible, Ended> {
    let mut journal = Journal::new(Arc::clone(&shared.journal));
    let mut ledger = Ledger::new(shared.hooks.iter().map(|hook| (hook.name.clone(), hook.kinds.clone())));
    journal.read(|entry| ledger.read(entry)).await?;
    begin_new_hooks(&journal, &mut ledger).await?;
    if !shared.is_clustered {
        end_subscriptions_of_before(&shared.watched, &mut journal, &mut ledger).await?;
    }
    // These are among those who are present.
    drop(ledger.take_begun());
    let mut members: HashSet<_> = shared.watched.follow();
    members.extend(ledger.present().iter().filter(|member| shared.watched.covers(member)).cloned());
    let mut reconciler = Reconciler::new(shared.grace, members, Instant::now());
    shared.board.replace(Some(ledger));
    // Dropped, and so aborted, when this hub stops to lead.
    let mut deliveries = JoinSet::new();
    for index in 0..shared.hooks.len() {
        let shared = Arc::clone(shared);
        deliveries.spawn(async move {
            let hook = &shared.hooks[index];
            deliver(index, &hook.name, &hook.target, &hook.counts, &shared.board, &*shared.journal).await;
        });
    }
    tracing::info!(hooks = shared.hooks.len(), "this hub delivers the hooks");
    loop {
        held.keep(&*shared.cluster).await?;
        if deliveries.try_join_next().is_some() {
            return Err(Ended::Failed("a delivery has ended unexpectedly".to_owned()));
        }
        record(shared, &mut journal, &mut reconciler).await?;
        sleep(PAUSE).await;
        let mut next = held.renewed_at + RENEWED_EVERY;
        if shared.is_clustered && shared.watched.subscriptions.is_some() {
            next = next.min(Instant::now() + READ_EVERY);
        }
        next = reconciler.next_due().map_or(next, |due| due.min(next));
        tokio::select! {
            () = shared.watched.changed() => {}
            () = shared.own_recorded.notified() => {}
            () = sleep_until(next) => {}
        }
    }
}

/// Ends the subscriptions that the process before has recorded: no other hub can have them.
async fn end_subscriptions_of_before(
    watched: &Watched,
    journal: &mut Journal,
    ledger: &mut Ledger,
) -> Result<(), String> {
    let ended = ledger.present().iter().filter(|member| {
        matches!(member, Member::Subscription(_)) && watched.covers(member) && !watched.is_present(member)
    });
    let ended = ended.map(|member| Change { member: member.clone(), is_here: false });
    append_all(journal, &ended.collect::<Vec<_>>()).await?;
    journal.read(|entry| ledger.read(entry)).await
}

async fn append_all(journal: &Journal, changes: &[Change]) -> Result<(), String> {
    let records: Vec<_> = changes.iter().map(Record::of_change).collect();
    for part in parts(&records) {
        journal.append(part).await?;
    }
    Ok(())
}

/// Appends what is due, and reads what was appended, by whichever hub.
async fn record(shared: &Shared, journal: &mut Journal, reconciler: &mut Reconciler) -> Result<(), String> {
    let now = Instant::now();
    let is_current = shared.list.is_current();
    reconciler.note(shared.watched.take_changed(), now);
    let due = shared.board.with(|ledger| {
        reconciler.due(|member| shared.watched.is_present(member), ledger.present(), is_current, now)
    });
    append_all(journal, &due.unwrap_or_default()).await?;
    let mut entries = Vec::new();
    journal.read(|entry| entries.push(entry.clone())).await?;
    if entries.is_empty() {
        return Ok(());
    }
    let read = shared.board.with(|ledger| {
        for entry in &entries {
            ledger.read(entry);
        }
        (ledger.take_begun(), ledger.due_checkpoint())
    });
    let (begun, checkpoint) = read.unwrap_or_default();
    // Their hub may have died before others saw them.
    reconciler.note(begun, now);
    shared.board.notify();
    if let Some(records) = checkpoint {
        for record in records {
            journal.append(&[record]).await?;
        }
    }
    Ok(())
}
