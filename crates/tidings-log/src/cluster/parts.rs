//! Building blocks for implementations of a cluster: watches of state that is in memory, and
//! listeners of a channel.

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use tokio::{
    sync::{broadcast, watch},
    time::{Instant, sleep_until},
};

use super::{Change, ClusterError, Messages, Watch};

/// Receives a key, a number that changes with its value, the value, and when it expires.
pub type Visit<'a> = dyn FnMut(&str, u64, &[u8], Instant) + 'a;

/// A watch of keys whose values are in memory: a list of what was reported and a notifier that fires
/// when a value changed, so a slow watch needs no queue. Each time it wakes it goes through its keys
/// once.
pub struct StateWatch<F> {
    notifier: watch::Receiver<()>,
    visit_all: F,
    /// The number of each value that was reported, and in which look it was last seen.
    reported: BTreeMap<String, (u64, u64)>,
    looks: u64,
}

impl<F: FnMut(&mut Visit<'_>) -> bool + Send> StateWatch<F> {
    /// A watch that has not reported anything. `visit_all` visits all keys that exist; it returns
    /// false if that is unknown at present, and then nothing is reported.
    pub fn new(notifier: watch::Receiver<()>, visit_all: F) -> Self {
        Self { notifier, visit_all, reported: BTreeMap::new(), looks: 0 }
    }

    /// The changes since the last call, and when the next key expires.
    fn look(&mut self) -> (Vec<Change>, Option<Instant>) {
        self.looks += 1;
        let (reported, look) = (&mut self.reported, self.looks);
        let mut changes = Vec::new();
        let mut next_expiry: Option<Instant> = None;
        let is_known = (self.visit_all)(&mut |key, number, value, until| {
            next_expiry = Some(next_expiry.map_or(until, |next| next.min(until)));
            let before = reported.get_mut(key).map(|known| std::mem::replace(known, (number, look)));
            if before.is_none() {
                reported.insert(key.to_owned(), (number, look));
            }
            if before.is_none_or(|(before, _)| before != number) {
                changes.push(Change::Set { key: key.to_owned(), value: value.to_vec() });
            }
        });
        if is_known {
            reported.retain(|key, (_, seen)| {
                if *seen < look {
                    changes.push(Change::Gone { key: key.clone() });
                }
                *seen == look
            });
        }
        (changes, next_expiry)
    }
}

#[async_trait]
impl<F: FnMut(&mut Visit<'_>) -> bool + Send> Watch for StateWatch<F> {
    async fn next(&mut self) -> Result<Vec<Change>, ClusterError> {
        loop {
            // Reset the notifier before looking, so that any later change fires it again.
            self.notifier.mark_unchanged();
            let (changes, next_expiry) = self.look();
            if !changes.is_empty() {
                return Ok(changes);
            }
            let expiry = async {
                match next_expiry {
                    Some(instant) => sleep_until(instant).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                fired = self.notifier.changed() => {
                    fired.map_err(|_| ClusterError::Unavailable("its last handle was dropped".to_owned()))?;
                }
                () = expiry => {}
            }
        }
    }
}

impl<F> fmt::Debug for StateWatch<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateWatch").field("reported", &self.reported).finish_non_exhaustive()
    }
}

/// A listener whose messages come through a channel of this process. It loses the oldest if it is
/// too slow.
#[derive(Debug)]
pub struct ReceivedMessages<T, Held> {
    received: broadcast::Receiver<T>,
    _held: Held,
}

impl<T, Held> ReceivedMessages<T, Held> {
    /// A listener that holds something as long as it exists.
    pub fn new(received: broadcast::Receiver<T>, held: Held) -> Self {
        Self { received, _held: held }
    }
}

#[async_trait]
impl<T: AsRef<[u8]> + Clone + Send, Held: Send> Messages for ReceivedMessages<T, Held> {
    async fn next(&mut self) -> Result<Vec<u8>, ClusterError> {
        loop {
            match self.received.recv().await {
                Ok(message) => return Ok(message.as_ref().to_vec()),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => {
                    return Err(ClusterError::Unavailable("its last handle was dropped".to_owned()));
                }
            }
        }
    }
}
