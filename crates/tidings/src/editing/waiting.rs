//! What waits for other hubs, and for this hub because of others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tidings_log::parts::lock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::edits::{EditError, Edited};

/// Requests of this hub that wait for others at the same time, and requests of others that this hub
/// carries out.
const CONCURRENT_MAX: usize = 256;

/// Numbers a hub, or a request, at random.
pub(super) type Number = u128;

/// Which hub answers, and what.
pub(super) type Answer = (Number, Result<Edited, EditError>);

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct EditsElsewhere {
    waiting: Mutex<HashMap<Number, mpsc::UnboundedSender<Answer>>>,
    asking: Semaphore,
    answering: Arc<Semaphore>,
}

impl Default for EditsElsewhere {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            asking: Semaphore::new(CONCURRENT_MAX),
            answering: Arc::new(Semaphore::new(CONCURRENT_MAX)),
        }
    }
}

/// A request that waits for other hubs until this is dropped. Each answers once.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    elsewhere: &'a EditsElsewhere,
    pub(super) number: Number,
    answers: mpsc::UnboundedReceiver<Answer>,
    _permit: tokio::sync::SemaphorePermit<'a>,
}

impl EditsElsewhere {
    /// A new request; none while too many wait.
    pub(super) fn ask(&self) -> Option<Waiting<'_>> {
        let permit = self.asking.try_acquire().ok()?;
        let mut bits = [0; 16];
        getrandom::fill(&mut bits).expect("the system provides random numbers");
        let number = Number::from_be_bytes(bits);
        let (sender, answers) = mpsc::unbounded_channel();
        lock(&self.waiting).insert(number, sender);
        Some(Waiting { elsewhere: self, number, answers, _permit: permit })
    }

    /// Another hub has answered. Nobody may wait for it any more.
    pub(super) fn answer(&self, request: Number, answer: Answer) {
        if let Some(answers) = lock(&self.waiting).get(&request) {
            let _ = answers.send(answer);
        }
    }

    /// For a request of another hub; none while too many are carried out.
    pub(super) fn carry_out(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.answering).try_acquire_owned().ok()
    }
}

impl Waiting<'_> {
    /// The next answer. Waits until there is one.
    pub(super) async fn answered(&mut self) -> Answer {
        self.answers.recv().await.expect("the other end is kept until this is dropped")
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.elsewhere.waiting).remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_are_over_leave_nothing_behind_and_those_that_wait_are_bounded() {
        let elsewhere = EditsElsewhere::default();
        let waiting: Vec<_> = (0..CONCURRENT_MAX).map(|_| elsewhere.ask().expect("not too many")).collect();
        assert!(elsewhere.ask().is_none());
        drop(waiting);
        assert!(lock(&elsewhere.waiting).is_empty());
        assert!(elsewhere.ask().is_some());
    }
}
