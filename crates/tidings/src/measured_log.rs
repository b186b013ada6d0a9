//! The log of a hub, with its operations measured: how long each took, and how often it failed.
//!
//! Measured here, they mean the same whatever the log is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tidings_log::{
    AppendError, Appended, Batch, Bounds, Cursor, Deleted, EventId, Filter, Grants, Log, LogStats, Page,
    Position, Tail, Topic, Unavailable,
    histogram::{Histogram, Recorded},
};

/// An operation of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogOperation {
    /// Appending the batches that were published at about the same time.
    Append,
    /// Deleting a topic.
    Delete,
    /// Reading a page of history.
    Read,
    /// Reading the last events.
    Last,
    /// Looking up the id of an event.
    Resolve,
    /// Looking up a time.
    PositionAgo,
    /// Asking where the log begins and ends.
    Bounds,
}

impl LogOperation {
    /// All operations.
    pub const ALL: [Self; 7] =
        [Self::Append, Self::Delete, Self::Read, Self::Last, Self::Resolve, Self::PositionAgo, Self::Bounds];

    /// The name of the operation, as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Delete => "delete",
            Self::Read => "read",
            Self::Last => "last",
            Self::Resolve => "resolve",
            Self::PositionAgo => "position_ago",
            Self::Bounds => "bounds",
        }
    }
}

/// Why an operation of a log failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFailure {
    /// The log has no capacity.
    Full,
    /// The log cannot be reached, or does not accept this now.
    Unavailable,
    /// Whether it took effect is unknown.
    OutcomeUnknown,
}

impl LogFailure {
    /// All failures.
    pub const ALL: [Self; 3] = [Self::Full, Self::Unavailable, Self::OutcomeUnknown];

    /// The name of the failure, as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Unavailable => "unavailable",
            Self::OutcomeUnknown => "outcome_unknown",
        }
    }
}

impl From<&AppendError> for LogFailure {
    fn from(error: &AppendError) -> Self {
        match error {
            AppendError::Full(_) => Self::Full,
            AppendError::OutcomeUnknown(_) => Self::OutcomeUnknown,
            _ => Self::Unavailable,
        }
    }
}

impl From<&Unavailable> for LogFailure {
    fn from(_: &Unavailable) -> Self {
        Self::Unavailable
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct MeasuredLog {
    log: Arc<dyn Log>,
    durations: [Histogram; LogOperation::ALL.len()],
    failures: [AtomicU64; LogFailure::ALL.len()],
}

impl MeasuredLog {
    pub(crate) fn new(log: Arc<dyn Log>) -> Self {
        Self { log, durations: Default::default(), failures: Default::default() }
    }

    /// How long the operations took, each time, in the order of [`LogOperation::ALL`].
    pub(crate) fn durations(&self) -> [Recorded; LogOperation::ALL.len()] {
        LogOperation::ALL.map(|operation| self.durations[operation as usize].recorded())
    }

    /// How many operations failed, each batch of an append counted by itself, in the order of
    /// [`LogFailure::ALL`].
    pub(crate) fn failures(&self) -> [u64; LogFailure::ALL.len()] {
        LogFailure::ALL.map(|failure| self.failures[failure as usize].load(Ordering::Relaxed))
    }

    /// Measures an operation, which is cancelled with this; then it is not counted.
    async fn measured<T, E>(
        &self,
        operation: LogOperation,
        running: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E>
    where
        for<'a> LogFailure: From<&'a E>,
    {
        let began = Instant::now();
        let outcome = running.await;
        self.note(operation, began.elapsed(), [&outcome]);
        outcome
    }

    fn note<'a, T: 'a, E: 'a>(
        &self,
        operation: LogOperation,
        took: Duration,
        outcomes: impl IntoIterator<Item = &'a Result<T, E>>,
    ) where
        LogFailure: From<&'a E>,
    {
        self.durations[operation as usize].record(took);
        for error in outcomes.into_iter().filter_map(|outcome| outcome.as_ref().err()) {
            self.failures[LogFailure::from(error) as usize].fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[async_trait]
impl Log for MeasuredLog {
    async fn append_all(&self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>> {
        let began = Instant::now();
        let outcomes = self.log.append_all(batches).await;
        self.note(LogOperation::Append, began.elapsed(), &outcomes);
        outcomes
    }

    fn append_now(&self, batch: Batch) -> Result<Result<Appended, AppendError>, Batch> {
        let began = Instant::now();
        let outcome = self.log.append_now(batch)?;
        self.note(LogOperation::Append, began.elapsed(), [&outcome]);
        Ok(outcome)
    }

    async fn delete(&self, topic: &Topic, grants: &Grants) -> Result<Deleted, AppendError> {
        self.measured(LogOperation::Delete, self.log.delete(topic, grants)).await
    }

    async fn read(&self, after: Position, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        self.measured(LogOperation::Read, self.log.read(after, filter, bytes_max)).await
    }

    async fn last(&self, count: usize, filter: &Filter, bytes_max: usize) -> Result<Page, Unavailable> {
        self.measured(LogOperation::Last, self.log.last(count, filter, bytes_max)).await
    }

    async fn resolve(&self, id: &EventId, grants: &Grants) -> Result<Option<Position>, Unavailable> {
        self.measured(LogOperation::Resolve, self.log.resolve(id, grants)).await
    }

    async fn position_ago(&self, ago: Duration) -> Result<Position, Unavailable> {
        self.measured(LogOperation::PositionAgo, self.log.position_ago(ago)).await
    }

    async fn bounds(&self) -> Result<Bounds, Unavailable> {
        self.measured(LogOperation::Bounds, self.log.bounds()).await
    }

    async fn tail(&self) -> Result<(Cursor, Box<dyn Tail>), Unavailable> {
        self.log.tail().await
    }

    async fn health(&self) -> Result<(), Unavailable> {
        self.log.health().await
    }

    fn rejected_count(&self) -> u64 {
        self.log.rejected_count()
    }

    fn stats(&self) -> Option<LogStats> {
        self.log.stats()
    }
}

#[cfg(test)]
mod tests {
    use tidings_delayed_log::{DelayedLog, Faults};
    use tidings_log::{MemoryLimits, MemoryLog};
    use tidings_topic::{NewEvent, Validator};

    use super::*;

    async fn make(limits: MemoryLimits, clock: Option<tidings_log::Clock>) -> Option<Arc<dyn Log>> {
        let log = MemoryLog::with_clock(limits, clock.unwrap_or_default());
        Some(Arc::new(MeasuredLog::new(Arc::new(log))))
    }

    tidings_log_conformance::conformance!(conformance, make);

    fn batch() -> Batch {
        let event = Validator::default().event(NewEvent::new("chat", "hello")).expect("valid");
        Batch { events: vec![event], key: None }
    }

    #[tokio::test]
    async fn each_call_of_an_operation_is_counted_once() {
        let log = MeasuredLog::new(Arc::new(MemoryLog::default()));
        assert!(log.append_now(batch()).is_ok());
        log.append_all(vec![batch(), batch()]).await;
        let everything = Filter::everything_public();
        let id = Validator::default().event_id("x").expect("valid");
        log.read(Position::BEFORE_ALL, &everything, 1).await.expect("there");
        log.last(1, &everything, 1).await.expect("there");
        log.resolve(&id, &Grants::NONE).await.expect("there");
        log.position_ago(Duration::ZERO).await.expect("there");
        log.bounds().await.expect("there");
        let topic = Validator::default().topic("chat").expect("valid");
        log.delete(&topic, &Grants::all()).await.expect("there");
        let expected =
            LogOperation::ALL.map(|operation| if operation == LogOperation::Append { 2 } else { 1 });
        assert_eq!(log.durations().map(|recorded| recorded.count()), expected);
        assert_eq!(log.failures(), [0; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_counted_by_what_they_mean() {
        let faults = Faults { append_unavailable_per_mille: 1_000, ..Faults::default() };
        let log = MeasuredLog::new(Arc::new(DelayedLog::new(1, faults, MemoryLimits::default())));
        log.append_all(vec![batch(), batch()]).await;
        let faults = Faults { outcome_unknown_per_mille: 1_000, ..Faults::default() };
        let unsure = MeasuredLog::new(Arc::new(DelayedLog::new(1, faults, MemoryLimits::default())));
        unsure.append_all(vec![batch()]).await;
        let tiny = MemoryLimits { bytes_max: 1, ..MemoryLimits::default() };
        let full = MeasuredLog::new(Arc::new(MemoryLog::new(tiny)));
        assert!(full.append_now(batch()).is_ok_and(|outcome| outcome.is_err()));
        for (log, failure, count) in [
            (log, LogFailure::Unavailable, 2),
            (unsure, LogFailure::OutcomeUnknown, 1),
            (full, LogFailure::Full, 1),
        ] {
            let expected = LogFailure::ALL.map(|other| if other == failure { count } else { 0 });
            assert_eq!(log.failures(), expected);
        }
    }
}
