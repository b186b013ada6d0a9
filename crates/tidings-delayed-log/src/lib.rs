//! A test double for remote logs: slow, sometimes unreachable, written to by other hubs, and able
//! to lose their end.
//!
//! It keeps every guarantee of [`Log`]; it only does what a log may do and a log in memory never
//! does. Random choices come from a seed. Waiting uses Tokio's clock, so tests may pause it.

mod history;
mod random;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use tidings_log::{
    AppendError, Appended, Batch, Bounds, Clock, Cursor, Deleted, Epoch, EpochStart, Event, EventId, Filter,
    Grants, Log, MemoryLimits, Page, Position, Tail, TailItem, Timestamp, Topic, Unavailable, parts::lock,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    history::{History, Seen},
    random::Random,
};

/// The faults of a [`DelayedLog`]. None by default.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Every call waits up to this long before it takes effect, and again before it answers. A tail
    /// waits as long before it yields an item.
    pub latency_max: Duration,
    /// How many of a thousand appends and deletions fail as [`AppendError::Unavailable`].
    pub append_unavailable_per_mille: u32,
    /// How many of a thousand appends and deletions fail as [`AppendError::OutcomeUnknown`]. Half
    /// of these took effect.
    pub outcome_unknown_per_mille: u32,
    /// How many of a thousand other calls fail as [`Unavailable`].
    pub read_unavailable_per_mille: u32,
}

/// A log for tests, as slow and unreliable as its [`Faults`]. Not for production.
///
/// An event that a tail yields is in the log, but its publisher may not know yet: the answer may
/// still be in transit.
pub struct DelayedLog {
    remote: Arc<Remote>,
    /// Fires when the history changed or is reachable again.
    notifier: watch::Sender<()>,
}

/// The remote side.
struct Remote {
    state: Mutex<State>,
    faults: Faults,
    clock: Clock,
}

struct State {
    history: History,
    limits: MemoryLimits,
    random: Random,
    down: bool,
}

impl DelayedLog {
    /// An empty log. The same seed yields the same epochs, delays and failures in the same order.
    pub fn new(seed: u64, faults: Faults, limits: MemoryLimits) -> Self {
        Self::with_clock(seed, faults, limits, Clock::system())
    }

    /// An empty log whose events age by this clock.
    pub fn with_clock(seed: u64, faults: Faults, limits: MemoryLimits, clock: Clock) -> Self {
        let mut random = Random::new(seed);
        let history = History::new(limits.clone(), Epoch::from_u64(random.next()));
        let state = Mutex::new(State { history, limits, random, down: false });
        Self { remote: Arc::new(Remote { state, faults, clock }), notifier: watch::Sender::new(()) }
    }

    /// Makes the log unreachable: appends and reads fail, tails wait.
    pub fn go_down(&self) {
        self.remote.state().down = true;
    }

    /// Makes the log reachable again.
    pub fn come_back(&self) {
        self.remote.state().down = false;
        self.notifier.send_replace(());
    }

    /// Appends as another hub that shares the log: at once, even while this hub cannot reach it.
    pub fn append_foreign(&self, events: Vec<Event>) -> Result<Appended, AppendError> {
        let now = self.remote.clock.now();
        let appended = self.remote.state().history.append(now, Batch { events, key: None });
        self.notifier.send_replace(());
        appended
    }

    /// Loses the newest `count` events, or all if there are fewer, and starts a new epoch with the
    /// rest.
    pub fn lose_end(&self, count: u64) -> EpochStart {
        let mut state = self.remote.state();
        let epoch = Epoch::from_u64(state.random.next());
        let start = state.history.lose_end(count, epoch);
        drop(state);
        self.notifier.send_replace(());
        start
    }

    /// Replaces the log by an empty one, which knows no epoch of the old one.
    pub fn replace(&self) -> Epoch {
        let mut state = self.remote.state();
        let epoch = Epoch::from_u64(state.random.next());
        state.history = History::new(state.limits.clone(), epoch);
        drop(state);
        self.notifier.send_replace(());
        epoch
    }

    /// Runs changes on the remote side, with a delay each way. Each fails or not, for itself.
    async fn write<T: Send>(
        &self,
        changes: impl IntoIterator<Item: FnOnce(&mut History, Timestamp) -> Result<T, AppendError>> + Send,
    ) -> Vec<Result<T, AppendError>> {
        self.remote.delay().await;
        let outcomes = {
            let mut state = self.remote.state();
            let (faults, now) = (&self.remote.faults, self.remote.clock.now());
            changes.into_iter().map(|change| state.change(faults, |history| change(history, now))).collect()
        };
        self.notifier.send_replace(());
        self.remote.delay().await;
        outcomes
    }

    /// Runs a query on the remote side, with a delay each way, unless it fails.
    async fn ask<T>(
        &self,
        question: impl FnOnce(&mut History, Timestamp) -> T + Send,
    ) -> Result<T, Unavailable>
    where
        T: Send,
    {
        self.remote.delay().await;
        let answer = {
            let mut state = self.remote.state();
            if state.fails(self.remote.faults.read_unavailable_per_mille) {
                return Err(Unavailable(REASON.into()));
            }
            question(&mut state.history, self.remote.clock.now())
        };
        self.remote.delay().await;
        Ok(answer)
    }
}

impl fmt::Debug for DelayedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DelayedLog").field("faults", &self.remote.faults).finish_non_exhaustive()
    }
}

impl From<DelayedLog> for Arc<dyn Log> {
    fn from(log: DelayedLog) -> Self {
        Arc::new(log)
    }
}

#[async_trait]
impl Log for DelayedLog {
    async fn append_all(&self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>> {
        let append = |batch| |history: &mut History, now| history.append(now, batch);
        self.write(batches.into_iter().map(append)).await
    }

    async fn delete(&self, topic: &Topic, grants: &Grants) -> Result<Deleted, AppendError> {
        let delete = |history: &mut History, now| Ok(history.delete(now, topic, grants));
        self.write([delete]).await.pop().expect("one change, one outcome")
    }

    async fn read(&self, after: Position, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        let (page, floor) = self.ask(|history, now| history.read(now, after, filter, bytes_max)).await?;
        Ok(Page { floor: floor.finish(filter).await, ..page })
    }

    async fn last(&self, count: usize, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        let (page, floor) = self.ask(|history, now| history.last(now, count, filter, bytes_max)).await?;
        Ok(Page { floor: floor.finish(filter).await, ..page })
    }

    async fn resolve(&self, id: &EventId, grants: &Grants) -> Result<Option<Position>, Unavailable> {
        self.ask(|history, now| history.resolve(now, id, grants)).await
    }

    async fn position_ago(&self, ago: Duration) -> Result<Position, Unavailable> {
        self.ask(|history, now| history.position_ago(now, ago)).await
    }

    async fn bounds(&self) -> Result<Bounds, Unavailable> {
        self.ask(History::bounds).await
    }

    async fn tail(&self) -> Result<(Cursor, Box<dyn Tail>), Unavailable> {
        let notifier = self.notifier.subscribe();
        let seen = self.ask(|history, _| history.seen()).await?;
        Ok((
            seen.cursor,
            Box::new(DelayedTail { remote: Arc::clone(&self.remote), notifier, seen, due: None }),
        ))
    }

    async fn health(&self) -> Result<(), Unavailable> {
        self.ask(|_, _| ()).await
    }
}

struct DelayedTail {
    remote: Arc<Remote>,
    notifier: watch::Receiver<()>,
    /// Every entry up to here was returned.
    seen: Seen,
    /// When the next item arrives. Kept here, so that a cancelled call does not restart the wait.
    due: Option<Instant>,
}

#[async_trait]
impl Tail for DelayedTail {
    async fn next(&mut self, bytes_max: usize) -> Option<TailItem> {
        let mut closed = false;
        loop {
            // Reset the notifier before reading the history, so that any later change fires it
            // again.
            self.notifier.mark_unchanged();
            if self.remote.follow(self.seen, bytes_max).is_some() {
                let due = *self.due.get_or_insert_with(|| Instant::now() + self.remote.draw_delay());
                if due > Instant::now() {
                    sleep_until(due).await;
                }
                self.due = None;
                // Meanwhile the log may have become unreachable, or lost the entries in transit.
                if let Some((item, seen)) = self.remote.follow(self.seen, bytes_max) {
                    self.seen = seen;
                    return Some(item);
                }
            } else if closed {
                return None;
            } else {
                closed = self.notifier.changed().await.is_err();
            }
        }
    }
}

impl Remote {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn follow(&self, seen: Seen, bytes_max: usize) -> Option<(TailItem, Seen)> {
        let mut state = self.state();
        if state.down { None } else { state.history.follow(self.clock.now(), seen, bytes_max) }
    }

    async fn delay(&self) {
        let delay = self.draw_delay();
        if !delay.is_zero() {
            sleep(delay).await;
        }
    }

    fn draw_delay(&self) -> Duration {
        let latency_max = u64::try_from(self.faults.latency_max.as_micros()).unwrap_or(u64::MAX);
        if latency_max == 0 {
            return Duration::ZERO;
        }
        Duration::from_micros(self.state().random.next() % latency_max.saturating_add(1))
    }
}

impl State {
    fn fails(&mut self, per_mille: u32) -> bool {
        self.down || self.random.happens(per_mille)
    }

    fn change<T>(
        &mut self,
        faults: &Faults,
        change: impl FnOnce(&mut History) -> Result<T, AppendError>,
    ) -> Result<T, AppendError> {
        if self.fails(faults.append_unavailable_per_mille) {
            return Err(AppendError::Unavailable(REASON.into()));
        }
        let unknown = self.random.happens(faults.outcome_unknown_per_mille);
        if unknown && self.random.happens(500) {
            return Err(AppendError::OutcomeUnknown(REASON.into()));
        }
        let changed = change(&mut self.history)?;
        if unknown { Err(AppendError::OutcomeUnknown(REASON.into())) } else { Ok(changed) }
    }
}

/// The reason of every failure.
const REASON: &str = "it cannot be reached";
