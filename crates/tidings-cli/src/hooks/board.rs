//! The ledger of the hub that has the lease, shared by the task that reads the journal and those
//! that deliver.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tidings::log::{Cursor, Timestamp, parts::lock};
use tokio::sync::Notify;

use super::{change::Recorded, ledger::Ledger};

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Board {
    ledger: Mutex<Option<Ledger>>,
    /// For each hook: fires when there may be more to deliver.
    grown: Vec<Notify>,
}

/// What waits for a hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Waiting {
    pub(super) changes: usize,
    /// How long the oldest of them has waited.
    pub(super) age: Duration,
    /// Changes that were dropped because too many waited.
    pub(super) dropped: u64,
}

impl Board {
    pub(super) fn new(hooks: usize) -> Self {
        Self { ledger: Mutex::default(), grown: (0..hooks).map(|_| Notify::new()).collect() }
    }

    /// Replaces the ledger. `None`: another hub delivers.
    pub(super) fn replace(&self, ledger: Option<Ledger>) {
        *self.lock() = ledger;
        self.notify();
    }

    /// Reads or changes the ledger, if this hub delivers.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> Option<T> {
        self.lock().as_mut().map(change)
    }

    /// The ledger may have grown.
    pub(super) fn notify(&self) {
        self.grown.iter().for_each(Notify::notify_one);
    }

    /// Waits for changes that a hook has yet to receive, and returns the oldest ones, at least one.
    pub(super) async fn pending(&self, hook: usize, max: usize) -> Vec<Arc<Recorded>> {
        loop {
            let pending = self.with(|ledger| ledger.pending(hook, max)).unwrap_or_default();
            if !pending.is_empty() {
                return pending;
            }
            self.grown[hook].notified().await;
        }
    }

    pub(super) fn delivered(&self, hook: usize, through: Cursor) {
        self.with(|ledger| ledger.delivered(hook, through));
    }

    pub(super) fn waiting(&self, hook: usize, now: Timestamp) -> Waiting {
        let waiting = self.with(|ledger| ledger.waiting(hook));
        waiting.map_or_else(Waiting::default, |(changes, oldest, dropped)| {
            let age = oldest.map_or(0, |oldest| now.to_millis().saturating_sub(oldest.to_millis()));
            Waiting { changes, age: Duration::from_millis(age), dropped }
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Ledger>> {
        lock(&self.ledger)
    }
}

#[cfg(test)]
mod tests {
    use tidings::{
        NewEvent, Validator,
        log::{Entry, Epoch, Position},
    };

    use super::*;
    use crate::hooks::change::Kind;

    #[tokio::test]
    async fn what_waits_has_an_age_until_it_is_delivered() {
        let board = Board::new(1);
        let now = Timestamp::from_millis(1_000_000);
        assert_eq!(board.waiting(0, now), Waiting::default(), "another hub delivers");
        let mut ledger = Ledger::new([("app".to_owned(), Kind::PRESENCE.to_vec())]);
        let json = r#"{"record":"change","topic":"chat","label":null,"here":true}"#;
        let event = Validator::default().event(NewEvent::new("hooks", json)).unwrap();
        let cursor = Cursor { epoch: Epoch::from_u64(1), position: Position::from_bytes([1; 16]) };
        ledger.read(&Entry::new(cursor, Timestamp::from_millis(940_000), event));
        board.replace(Some(ledger));
        let waiting = Waiting { changes: 1, age: Duration::from_secs(60), dropped: 0 };
        assert_eq!(board.waiting(0, now), waiting);
        assert_eq!(board.pending(0, 10).await[0].change.kind(), Kind::Occupied);
        board.delivered(0, cursor);
        assert_eq!(board.waiting(0, now), Waiting::default());
    }
}
