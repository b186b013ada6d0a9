//! Log lines whose rate clients control: failed credentials, requests that cannot be served, limits
//! that are hit.
//!
//! The first occurrence is written at once. Further ones are counted by reason, and one line at the
//! end of each interval reports how many there were, with the details of the last one. So a single
//! occurrence is logged immediately, a million cost one line per interval, and all are counted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, time::sleep};

/// Writes occurrences with details `T`, at most one line per interval.
pub(crate) struct ThrottledLog<T>(Arc<Inner<T>>);

struct Inner<T> {
    interval: Duration,
    write: fn(&Summary<T>),
    state: Mutex<State<T>>,
}

enum State<T> {
    /// Nothing was written for an interval: the next occurrence is written at once.
    Quiet,
    /// A line was written less than an interval ago. Occurrences since then wait for the end of the
    /// interval.
    Waiting(Option<Summary<T>>),
}

/// What a line reports.
pub(crate) struct Summary<T> {
    counts: BTreeMap<&'static str, u64>,
    /// Details of the last occurrence.
    pub(crate) last: T,
}

impl<T> Summary<T> {
    fn of(reason: &'static str, details: T) -> Self {
        Self { counts: BTreeMap::from([(reason, 1)]), last: details }
    }

    /// How many occurrences there were.
    pub(crate) fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// How many for each reason: `invalid_token=50 missing=2`.
    pub(crate) fn reasons(&self) -> String {
        let reasons = self.counts.iter().map(|(reason, count)| format!("{reason}={count}"));
        reasons.collect::<Vec<_>>().join(" ")
    }
}

impl<T: Send + 'static> ThrottledLog<T> {
    /// `write` writes a line.
    pub(crate) fn new(interval: Duration, write: fn(&Summary<T>)) -> Self {
        Self(Arc::new(Inner { interval, write, state: Mutex::new(State::Quiet) }))
    }

    /// Counts an occurrence, which is written now or at the end of the interval. Must be called
    /// within a tokio runtime.
    pub(crate) fn record(&self, reason: &'static str, details: T) {
        let mut state = self.0.lock();
        match &mut *state {
            State::Waiting(Some(summary)) => {
                *summary.counts.entry(reason).or_default() += 1;
                summary.last = details;
            }
            State::Waiting(waiting) => *waiting = Some(Summary::of(reason, details)),
            State::Quiet => {
                // Without a runtime nothing could write at the end of an interval.
                if let Ok(runtime) = Handle::try_current() {
                    *state = State::Waiting(None);
                    runtime.spawn(write_each_interval(Arc::clone(&self.0)));
                }
                drop(state);
                (self.0.write)(&Summary::of(reason, details));
            }
        }
    }
}

/// Writes until an interval without occurrences.
async fn write_each_interval<T: Send + 'static>(log: Arc<Inner<T>>) {
    loop {
        sleep(log.interval).await;
        let summary = {
            let mut state = log.lock();
            let State::Waiting(Some(summary)) = std::mem::replace(&mut *state, State::Waiting(None)) else {
                *state = State::Quiet;
                return;
            };
            summary
        };
        (log.write)(&summary);
    }
}

impl<T> Inner<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A hub that stops within the interval still reports what it counted.
impl<T> Drop for ThrottledLog<T> {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut *self.0.lock(), State::Quiet);
        if let State::Waiting(Some(summary)) = state {
            (self.0.write)(&summary);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(60);

    struct Details {
        client: u16,
        lines: Sender<String>,
    }

    fn log() -> (impl Fn(&'static str, u16) + use<>, Receiver<String>) {
        let (lines, written) = channel();
        let log = ThrottledLog::new(INTERVAL, |summary: &Summary<Details>| {
            let line = format!("{} of {}, last {}", summary.count(), summary.reasons(), summary.last.client);
            let _ = summary.last.lines.send(line);
        });
        (move |reason, client| log.record(reason, Details { client, lines: lines.clone() }), written)
    }

    /// Lets due tasks run.
    async fn pass(time: Duration) {
        tokio::time::advance(time).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_is_written_at_once_and_further_ones_once_an_interval() {
        let (record, written) = log();
        let lines = || written.try_iter().collect::<Vec<_>>();
        record("bad", 1);
        assert_eq!(lines(), ["1 of bad=1, last 1"]);
        pass(Duration::from_secs(1)).await;
        for client in 2..=50 {
            record(if client % 2 == 0 { "bad" } else { "missing" }, client);
        }
        assert_eq!(lines(), [""; 0]);
        pass(INTERVAL).await;
        assert_eq!(lines(), ["49 of bad=25 missing=24, last 50"]);
        // The next interval has begun with that line.
        record("bad", 51);
        assert_eq!(lines(), [""; 0]);
        pass(INTERVAL).await;
        assert_eq!(lines(), ["1 of bad=1, last 51"]);
        // After an interval without occurrences, the next one is written at once again.
        pass(INTERVAL).await;
        record("bad", 52);
        assert_eq!(lines(), ["1 of bad=1, last 52"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_log_reports_what_it_counted() {
        let (record, written) = log();
        record("bad", 1);
        record("bad", 2);
        drop(record);
        pass(INTERVAL).await;
        assert_eq!(written.try_iter().collect::<Vec<_>>(), ["1 of bad=1, last 1", "1 of bad=1, last 2"]);
    }
}
