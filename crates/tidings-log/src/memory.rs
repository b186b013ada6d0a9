//! A log in memory: its events are lost when the process ends.
//!
//! All of its state is one [`Ledger`] behind a mutex that is held for short, synchronous sections
//! and never across an `.await`. Slow work, above all matching patterns, happens before or after
//! these sections ([`Plan`], [`Draft`](crate::draft::Draft)). A tail is a position in the ledger
//! and a notifier that fires when the ledger changes, so a slow tail needs no queue. While no tail
//! waits, as under load, nothing is notified.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    AppendError, Appended, Batch, Bounds, Clock, Cursor, Deleted, Epoch, EventId, Filter, Grants, Log,
    LogStats, MemoryLimits, Page, Position, Tail, TailItem, Timestamp, Topic, Unavailable,
    draft::{Plan, covered, first_visible},
    ledger::{Ledger, Seen},
    lock::lock,
};

/// A log in memory. Each log starts its own epoch. Clones are handles to the same log, so several
/// hubs of a process can share it.
///
/// After the last handle is dropped, tails yield the remaining entries and end.
///
/// ```
/// use tidings_log::{Batch, Filter, Log, MemoryLog, Position};
/// use tidings_topic::{NewEvent, Validator};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let log = MemoryLog::default();
/// let event = Validator::default().event(NewEvent::new("chat", "hello"))?;
/// log.append(Batch { events: vec![event], key: None }).await?;
///
/// let page = log.read(Position::BEFORE_ALL, &Filter::everything_public(), 64 * 1024).await?;
/// assert_eq!(page.entries[0].event.data, "hello");
/// assert!(page.at_end);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryLog {
    state: Arc<Mutex<State>>,
    clock: Clock,
    /// Fires when the ledger changed while a tail waited for that.
    notifier: watch::Sender<()>,
}

struct State {
    ledger: Ledger,
    /// A tail has found nothing new since the notifier fired last.
    is_awaited: bool,
}

impl MemoryLog {
    /// An empty log.
    pub fn new(limits: MemoryLimits) -> Self {
        Self::with_clock(limits, Clock::system())
    }

    /// An empty log whose events age by this clock.
    pub fn with_clock(limits: MemoryLimits, clock: Clock) -> Self {
        let epoch = Epoch::from_u64(getrandom::u64().expect("the system gives random numbers"));
        let state = State { ledger: Ledger::new(limits, epoch), is_awaited: false };
        Self { state: Arc::new(Mutex::new(state)), clock, notifier: watch::Sender::new(()) }
    }

    /// Changes the ledger, and notifies the tails that wait.
    fn change<T>(&self, change: impl FnOnce(&mut Ledger, Timestamp) -> T) -> T {
        let mut state = lock(&self.state);
        let changed = change(&mut state.ledger, self.clock.now());
        let is_awaited = std::mem::take(&mut state.is_awaited);
        drop(state);
        if is_awaited {
            self.notifier.send_replace(());
        }
        changed
    }

    /// Asks the ledger, which may have to drop what has expired.
    fn ask<T>(&self, question: impl FnOnce(&mut Ledger, Timestamp) -> T) -> T {
        question(&mut lock(&self.state).ledger, self.clock.now())
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new(MemoryLimits::default())
    }
}

impl fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLog").finish_non_exhaustive()
    }
}

impl From<MemoryLog> for Arc<dyn Log> {
    fn from(log: MemoryLog) -> Self {
        Arc::new(log)
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn append_all(&self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>> {
        self.change(|ledger, now| batches.into_iter().map(|batch| ledger.append(now, batch)).collect())
    }

    fn append_now(&self, batch: Batch) -> Result<Result<Appended, AppendError>, Batch> {
        Ok(self.change(|ledger, now| ledger.append(now, batch)))
    }

    async fn delete(&self, topic: &Topic, grants: &Grants) -> Result<Deleted, AppendError> {
        let bearing = self.ask(|ledger, now| ledger.bearing(now, topic));
        let (covered, kept) = covered(bearing, grants).await;
        let deleted = self.change(|ledger, now| ledger.delete(now, &covered));
        Ok(Deleted { kept, ..deleted })
    }

    async fn read(&self, after: Position, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        let plan = Plan::new(filter);
        let draft = self.ask(|ledger, now| ledger.read(now, after, &plan, bytes_max));
        Ok(draft.finish(filter).await)
    }

    async fn last(&self, count: usize, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        let plan = Plan::new(filter);
        let draft = self.ask(|ledger, now| ledger.last(now, count, &plan, bytes_max));
        Ok(draft.finish(filter).await)
    }

    async fn resolve(&self, id: &EventId, grants: &Grants) -> Result<Option<Position>, Unavailable> {
        let named = self.ask(|ledger, now| ledger.named(now, id));
        Ok(first_visible(named, grants).await)
    }

    async fn position_ago(&self, ago: Duration) -> Result<Position, Unavailable> {
        Ok(self.ask(|ledger, now| ledger.position_ago(now, ago)))
    }

    async fn bounds(&self) -> Result<Bounds, Unavailable> {
        Ok(self.ask(Ledger::bounds))
    }

    async fn tail(&self) -> Result<(Cursor, Box<dyn Tail>), Unavailable> {
        let seen = self.ask(|ledger, _| ledger.seen());
        let notifier = self.notifier.subscribe();
        let tail = MemoryTail { state: Arc::clone(&self.state), clock: self.clock.clone(), notifier, seen };
        Ok((seen.cursor, Box::new(tail)))
    }

    async fn health(&self) -> Result<(), Unavailable> {
        Ok(())
    }

    fn stats(&self) -> Option<LogStats> {
        Some(self.ask(Ledger::stats))
    }
}

struct MemoryTail {
    state: Arc<Mutex<State>>,
    clock: Clock,
    notifier: watch::Receiver<()>,
    /// Every entry up to here was returned.
    seen: Seen,
}

#[async_trait]
impl Tail for MemoryTail {
    async fn next(&mut self, bytes_max: usize) -> Option<TailItem> {
        let mut closed = false;
        loop {
            // Reset the notifier before reading the ledger, so that any later change fires it
            // again.
            self.notifier.mark_unchanged();
            {
                let mut state = lock(&self.state);
                if let Some((item, seen)) = state.ledger.follow(self.clock.now(), self.seen, bytes_max) {
                    self.seen = seen;
                    return Some(item);
                }
                state.is_awaited = true;
            }
            if closed {
                return None;
            }
            closed = self.notifier.changed().await.is_err();
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings_topic::{NewEvent, Validator};

    use super::*;
    use crate::{IdempotencyKey, Timestamp};

    fn event(topic: &str, data: &str) -> crate::Event {
        Validator::default().event(NewEvent::new(topic, data)).expect("a valid event")
    }

    async fn append(log: &MemoryLog, topic: &str, data: &str) {
        log.append(Batch { events: vec![event(topic, data)], key: None }).await.expect("it fits");
    }

    #[tokio::test]
    async fn a_read_by_pattern_is_bounded() {
        let log = MemoryLog::default();
        for _ in 0..100 {
            append(&log, "/crowd", &"x".repeat(1_000)).await;
        }
        let pattern = Validator::default().pattern("/quiet/*").expect("a pattern");
        let filter = Filter { matchers: vec![pattern], grants: Grants::NONE };
        let (first, all) = {
            let page = log.read(Position::BEFORE_ALL, &Filter::everything_public(), 10_000).await;
            (page.expect("a page").through, log.bounds().await.expect("bounds").newest)
        };
        let page = log.read(Position::BEFORE_ALL, &filter, 10_000).await.expect("a page");
        assert_eq!((page.entries.len(), page.through, page.at_end), (0, first, false));
        assert!(first < all);
    }

    #[tokio::test]
    async fn a_quiet_topic_is_found_without_reading_the_others() {
        let log = MemoryLog::default();
        append(&log, "quiet", "one").await;
        for _ in 0..100 {
            append(&log, "crowd", &"x".repeat(1_000)).await;
        }
        append(&log, "quiet", "two").await;
        let topic = Validator::default().exact("quiet").expect("a topic");
        let filter = Filter { matchers: vec![topic], grants: Grants::NONE };
        let page = log.read(Position::BEFORE_ALL, &filter, 1_000).await.expect("a page");
        assert_eq!((page.entries.len(), page.at_end), (2, true));
        assert_eq!(log.last(2, &filter, 1_000).await.expect("a page").entries, page.entries);
    }

    #[tokio::test]
    async fn the_next_call_after_an_idle_time_releases_the_memory() {
        let clock = Clock::manual(Timestamp::from_millis(1_000_000));
        let limits = MemoryLimits { age_max: Some(Duration::from_secs(60)), ..MemoryLimits::default() };
        let log = MemoryLog::with_clock(limits, clock.clone());
        append(&log, "a", "x").await;
        let page = log.read(Position::BEFORE_ALL, &Filter::everything_public(), 1).await.expect("a page");
        clock.advance(Duration::from_secs(61));
        assert_eq!(Arc::strong_count(&page.entries[0]), 2);
        assert_eq!(log.bounds().await.expect("bounds").oldest, None);
        assert_eq!(Arc::strong_count(&page.entries[0]), 1);
    }

    #[tokio::test]
    async fn a_tail_of_a_dropped_log_yields_what_was_left_and_ends() {
        let log = MemoryLog::default();
        let (_, mut tail) = log.tail().await.expect("a tail");
        append(&log, "a", "left").await;
        drop(log);
        assert!(matches!(tail.next(1).await, Some(TailItem::Entries(entries)) if entries.len() == 1));
        assert_eq!(tail.next(1).await, None);
    }

    #[tokio::test]
    async fn no_two_logs_share_an_epoch() {
        let (one, other) = (MemoryLog::default(), MemoryLog::default());
        assert_ne!(one.bounds().await.expect("bounds").epochs, other.bounds().await.expect("bounds").epochs);
    }

    #[tokio::test]
    async fn beyond_the_limit_of_floors_a_gap_is_reported_once() {
        let limits = MemoryLimits { count_max: Some(1), floors_max: 2, ..MemoryLimits::default() };
        let log = MemoryLog::new(limits);
        for topic in ["a", "b", "c", "d"] {
            append(&log, topic, "").await;
        }
        assert_reported_once(&log).await;
    }

    #[tokio::test]
    async fn the_memory_of_floors_is_bounded_however_long_their_topics_are() {
        let log = MemoryLog::new(MemoryLimits { count_max: Some(1), ..MemoryLimits::default() });
        // No validator accepts such a topic.
        let eighth = Topic::from_stored(&"x".repeat(MemoryLimits::FLOORS_BYTES_MAX / 8)).expect("a topic");
        for number in 0..8 {
            let mut heavy = event(&number.to_string(), "");
            heavy.topics.push(eighth.clone());
            log.append(Batch { events: vec![heavy], key: None }).await.expect("it fits");
        }
        assert_eq!(log.read(Position::BEFORE_ALL, &stranger(), 1).await.expect("a page").floor, None);
        append(&log, "one", "").await;
        assert_reported_once(&log).await;
    }

    fn stranger() -> Filter {
        let topic = Validator::default().exact("never used").expect("a topic");
        Filter { matchers: vec![topic], grants: Grants::NONE }
    }

    async fn assert_reported_once(log: &MemoryLog) {
        let page = log.read(Position::BEFORE_ALL, &stranger(), 1).await.expect("a page");
        let forgotten = page.floor.expect("the audience of the first event is forgotten");
        assert_eq!(log.read(forgotten, &stranger(), 1).await.expect("a page").floor, None);
    }

    #[tokio::test]
    async fn a_key_is_forgotten_when_it_is_too_old() {
        let clock = Clock::manual(Timestamp::from_millis(1_000_000));
        let log = MemoryLog::with_clock(MemoryLimits::default(), clock.clone());
        let batch = || Batch { events: vec![event("a", "")], key: IdempotencyKey::new("k") };
        log.append(batch()).await.expect("it fits");
        clock.advance(MemoryLimits::default().keys_age_max);
        assert!(matches!(log.append(batch()).await, Ok(Appended::Duplicate { .. })));
        clock.advance(Duration::from_millis(1));
        assert!(matches!(log.append(batch()).await, Ok(Appended::New { .. })));
    }

    #[tokio::test]
    async fn the_memory_of_keys_is_bounded_however_long_they_are() {
        let log = MemoryLog::new(MemoryLimits { count_max: Some(1), ..MemoryLimits::default() });
        let new = NewEvent::new("a", "").id("i".repeat(1_000));
        let event = Validator::default().event(new).expect("a valid event");
        let batch = |number: usize| Batch {
            events: vec![event.clone()],
            key: IdempotencyKey::new(&number.to_string()),
        };
        let enough = MemoryLimits::KEYS_BYTES_MAX / 1_000;
        for number in 0..enough {
            log.append(batch(number)).await.expect("it fits");
        }
        assert!(matches!(log.append(batch(enough - 1)).await, Ok(Appended::Duplicate { .. })));
        assert!(matches!(log.append(batch(0)).await, Ok(Appended::New { .. })));
    }
}
