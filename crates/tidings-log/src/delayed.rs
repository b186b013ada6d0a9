//! A test double for logs that are far away: slow, at times unreachable, written to by others, and able to lose their end.
//!
//! It keeps its entries as [`MemoryLog`](crate::MemoryLog) does and breaks no promise of [`Log`]; it only does what a log is allowed to
//! do and a log in memory never does. Chance comes from a seed. Waiting goes through Tokio's clock, so tests may pause it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    AppendError, Appended, Batch, Bounds, Clock, Cursor, Deleted, Epoch, EpochStart, Event, EventId, Filter,
    Grants, Log, MemoryLimits, Page, Position, Tail, TailItem, Timestamp, Topic, Unavailable,
    draft::Plan,
    ledger::{Ledger, Seen},
    memory::lock,
};

/// What a [`DelayedLog`] suffers from. Nothing, by default.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Every call waits up to this long before it takes effect, and again before it answers; so does a tail before it brings an item.
    pub latency_max: Duration,
    /// How many of a thousand appends and deletions fail as [`AppendError::Unavailable`].
    pub append_unavailable_per_mille: u32,
    /// How many of a thousand appends and deletions fail as [`AppendError::OutcomeUnknown`]. Half of these took place.
    pub outcome_unknown_per_mille: u32,
    /// How many of a thousand other calls fail as [`Unavailable`].
    pub read_unavailable_per_mille: u32,
}

/// A log for tests, as slow and as unreliable as its [`Faults`] say. Not for production.
///
/// An event that a tail brings is in the log for good, but its publisher may not know yet: the answer may still be on its way.
pub struct DelayedLog {
    far: Arc<Far>,
    /// Fires when the ledger changed or can be reached again.
    notifier: watch::Sender<()>,
}

/// The far side.
struct Far {
    state: Mutex<State>,
    faults: Faults,
    clock: Clock,
}

struct State {
    ledger: Ledger,
    limits: MemoryLimits,
    random: Random,
    down: bool,
}

impl DelayedLog {
    /// An empty log. The same seed draws the same epochs, delays and failures in the same order.
    pub fn new(seed: u64, faults: Faults, limits: MemoryLimits) -> Self {
        Self::with_clock(seed, faults, limits, Clock::system())
    }

    /// An empty log whose events age by this clock.
    pub fn with_clock(seed: u64, faults: Faults, limits: MemoryLimits, clock: Clock) -> Self {
        let mut random = Random::new(seed);
        let ledger = Ledger::new(limits.clone(), Epoch::from_u64(random.next()));
        let state = Mutex::new(State { ledger, limits, random, down: false });
        Self { far: Arc::new(Far { state, faults, clock }), notifier: watch::Sender::new(()) }
    }

    /// From now on the log cannot be reached: appends and reads fail, tails wait.
    pub fn go_down(&self) {
        self.far.state().down = true;
    }

    /// The log can be reached again.
    pub fn come_back(&self) {
        self.far.state().down = false;
        self.notifier.send_replace(());
    }

    /// Appends as another hub does that shares the log: at once, even while this hub cannot reach it.
    pub fn append_foreign(&self, events: Vec<Event>) -> Result<Appended, AppendError> {
        let now = self.far.clock.now();
        let appended = self.far.state().ledger.append(now, Batch { events, key: None });
        self.notifier.send_replace(());
        appended
    }

    /// The newest events are lost, as many as are kept at most, and a new epoch begins with what is left.
    pub fn lose_end(&self, count: u64) -> EpochStart {
        let mut state = self.far.state();
        let epoch = Epoch::from_u64(state.random.next());
        let start = state.ledger.lose_end(count, epoch);
        drop(state);
        self.notifier.send_replace(());
        start
    }

    /// Another, empty log stands in the place of this one: no epoch of the old one is known any more.
    pub fn replace(&self) -> Epoch {
        let mut state = self.far.state();
        let epoch = Epoch::from_u64(state.random.next());
        state.ledger = Ledger::new(state.limits.clone(), epoch);
        drop(state);
        self.notifier.send_replace(());
        epoch
    }

    /// Changes the far side: there and back again, unless it fails.
    async fn write<T: Send>(
        &self,
        change: impl FnOnce(&mut Ledger, Timestamp) -> Result<T, AppendError> + Send,
    ) -> Result<T, AppendError> {
        let faults = &self.far.faults;
        self.far.delay().await;
        let outcome = {
            let mut state = self.far.state();
            if state.fails(faults.append_unavailable_per_mille) {
                return Err(AppendError::Unavailable(REASON.into()));
            }
            let unknown = state.random.happens(faults.outcome_unknown_per_mille);
            if unknown && state.random.happens(500) {
                Err(AppendError::OutcomeUnknown(REASON.into()))
            } else {
                let changed = change(&mut state.ledger, self.far.clock.now())?;
                if unknown { Err(AppendError::OutcomeUnknown(REASON.into())) } else { Ok(changed) }
            }
        };
        self.notifier.send_replace(());
        self.far.delay().await;
        outcome
    }

    /// Asks the far side something: there and back again, unless it fails.
    async fn ask<T>(
        &self,
        question: impl FnOnce(&mut Ledger, Timestamp) -> T + Send,
    ) -> Result<T, Unavailable>
    where
        T: Send,
    {
        self.far.delay().await;
        let answer = {
            let mut state = self.far.state();
            if state.fails(self.far.faults.read_unavailable_per_mille) {
                return Err(Unavailable(REASON.into()));
            }
            question(&mut state.ledger, self.far.clock.now())
        };
        self.far.delay().await;
        Ok(answer)
    }
}

impl fmt::Debug for DelayedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DelayedLog").field("faults", &self.far.faults).finish_non_exhaustive()
    }
}

#[async_trait]
impl Log for DelayedLog {
    async fn append(&self, batch: Batch) -> Result<Appended, AppendError> {
        self.write(|ledger, now| ledger.append(now, batch)).await
    }

    async fn delete(&self, topic: &Topic, grants: &Grants) -> Result<Deleted, AppendError> {
        let bearing = self.ask(|ledger, now| ledger.bearing(now, topic)).await;
        let bearing = bearing.map_err(|Unavailable(reason)| AppendError::Unavailable(reason))?;
        let (covered, kept) = bearing.covered(grants).await;
        let deleted = self.write(|ledger, now| Ok(ledger.delete(now, &covered))).await?;
        Ok(Deleted { kept, ..deleted })
    }

    async fn read(&self, after: Position, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        let plan = Plan::new(filter);
        let draft = self.ask(|ledger, now| ledger.read(now, after, &plan, bytes_max)).await?;
        Ok(draft.finish(filter).await)
    }

    async fn last(&self, count: usize, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        let plan = Plan::new(filter);
        let draft = self.ask(|ledger, now| ledger.last(now, count, &plan, bytes_max)).await?;
        Ok(draft.finish(filter).await)
    }

    async fn resolve(&self, id: &EventId, grants: &Grants) -> Result<Option<Position>, Unavailable> {
        let named = self.ask(|ledger, now| ledger.named(now, id)).await?;
        Ok(named.resolve(grants).await)
    }

    async fn position_ago(&self, ago: Duration) -> Result<Position, Unavailable> {
        self.ask(|ledger, now| ledger.position_ago(now, ago)).await
    }

    async fn bounds(&self) -> Result<Bounds, Unavailable> {
        self.ask(Ledger::bounds).await
    }

    async fn tail(&self) -> Result<(Cursor, Box<dyn Tail>), Unavailable> {
        let notifier = self.notifier.subscribe();
        let seen = self.ask(|ledger, _| ledger.seen()).await?;
        Ok((seen.cursor, Box::new(DelayedTail { far: Arc::clone(&self.far), notifier, seen, due: None })))
    }

    async fn health(&self) -> Result<(), Unavailable> {
        self.ask(|_, _| ()).await
    }
}

struct DelayedTail {
    far: Arc<Far>,
    notifier: watch::Receiver<()>,
    /// Everything up to here was returned.
    seen: Seen,
    /// When the next item arrives. Kept here, so that a cancelled call does not start the wait anew.
    due: Option<Instant>,
}

#[async_trait]
impl Tail for DelayedTail {
    async fn next(&mut self, bytes_max: usize) -> Option<TailItem> {
        let mut closed = false;
        loop {
            // The notifier is reset before the ledger is looked at: whatever comes afterwards fires it again.
            self.notifier.mark_unchanged();
            if self.far.follow(self.seen, bytes_max).is_some() {
                let due = *self.due.get_or_insert_with(|| Instant::now() + self.far.draw_delay());
                if due > Instant::now() {
                    sleep_until(due).await;
                }
                self.due = None;
                // It may have gone down in the meantime, or lost what was on its way.
                if let Some((item, seen)) = self.far.follow(self.seen, bytes_max) {
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

impl Far {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn follow(&self, seen: Seen, bytes_max: usize) -> Option<(TailItem, Seen)> {
        let mut state = self.state();
        if state.down { None } else { state.ledger.follow(self.clock.now(), seen, bytes_max) }
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
}

/// What a failure says.
const REASON: &str = "it is out of reach";

/// Sebastiano Vigna's SplitMix64: enough chance for tests, and the same everywhere.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn happens(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.next() % 1_000 < u64::from(per_mille)
    }
}

#[cfg(test)]
mod tests;
