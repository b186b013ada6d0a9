//! Subscriptions that are ended from outside, by the names of their connections.
//!
//! Nothing here is kept for a subscriber of a shard: a request to end is remembered for a while, and
//! a shard compares its subscribers while one is remembered, with each of its sweeps. A pulled
//! subscription is marked and woken: nobody knows when its client lets it be polled again.
//!
//! Invariant: a request reaches a subscription wherever it is, also on its way to its driver, since
//! it is remembered for longer than that takes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tidings_log::parts::lock;
use tidings_topic::ConnectionId;
use tokio::time::Instant;

/// How long a request is remembered: several sweeps of a shard, and longer than a response may wait
/// for its client.
const REMEMBERED_FOR: Duration = Duration::from_secs(90);

/// Requests to end, and the pulled subscriptions that they wake.
#[derive(Default, Debug)]
pub(crate) struct Endings {
    /// There are requests, so it is worth looking for them.
    is_any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default, Debug)]
struct State {
    /// The connections that are to end, and until when that is remembered.
    requested: HashMap<ConnectionId, Instant>,
    pulled: HashMap<ConnectionId, Pulled>,
}

#[derive(Debug)]
struct Pulled {
    is_requested: Arc<AtomicBool>,
    waker: Arc<AtomicWaker>,
}

impl Endings {
    /// Ends the subscriptions with these names. Names of others are ignored.
    pub(crate) fn request(&self, connections: impl IntoIterator<Item = ConnectionId>, now: Instant) {
        let mut state = lock(&self.state);
        // A hub without shards in use has nothing else that forgets them.
        state.requested.retain(|_, until| *until > now);
        let mut wakers = Vec::new();
        for connection in connections {
            state.requested.insert(connection, now + REMEMBERED_FOR);
            if let Some(pulled) = state.pulled.get(&connection) {
                pulled.is_requested.store(true, Ordering::Release);
                wakers.push(Arc::clone(&pulled.waker));
            }
        }
        self.is_any.store(!state.requested.is_empty(), Ordering::Release);
        drop(state);
        for waker in wakers {
            waker.wake();
        }
    }

    /// Forgets requests that were made long ago.
    pub(crate) fn forget_old(&self, now: Instant) {
        if self.is_any() {
            let mut state = lock(&self.state);
            state.requested.retain(|_, until| *until > now);
            self.is_any.store(!state.requested.is_empty(), Ordering::Release);
        }
    }

    /// Whether there are requests.
    pub(crate) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Acquire)
    }

    /// Whether this one is to end, unless it is pulled.
    pub(crate) fn is_requested(&self, connection: &ConnectionId) -> bool {
        self.is_any() && lock(&self.state).requested.contains_key(connection)
    }

    /// A subscription that is pulled from now on, and is woken when it is to end. Returns whether it
    /// is, from now on.
    pub(crate) fn add_pulled(&self, connection: ConnectionId, waker: &Arc<AtomicWaker>) -> Arc<AtomicBool> {
        let mut state = lock(&self.state);
        let is_requested = Arc::new(AtomicBool::new(state.requested.contains_key(&connection)));
        let pulled = Pulled { is_requested: Arc::clone(&is_requested), waker: Arc::clone(waker) };
        state.pulled.insert(connection, pulled);
        is_requested
    }

    /// It is dropped.
    pub(crate) fn remove_pulled(&self, connection: &ConnectionId) {
        lock(&self.state).pulled.remove(connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_remembered_for_a_while_and_then_forgotten() {
        let endings = Endings::default();
        let [one, other] = [1, 2].map(|number| ConnectionId::from_random([number; 16]));
        let now = Instant::now();
        assert!(!endings.is_requested(&one));
        endings.request([one], now);
        assert!(endings.is_requested(&one) && !endings.is_requested(&other));
        endings.forget_old(now + REMEMBERED_FOR / 2);
        assert!(endings.is_requested(&one));
        endings.forget_old(now + REMEMBERED_FOR);
        assert!(!endings.is_any());
    }

    #[test]
    fn requests_of_long_ago_take_no_memory_where_no_shard_sweeps() {
        let endings = Endings::default();
        let mut now = Instant::now();
        for number in 0..100 {
            endings.request([ConnectionId::from_random([number; 16])], now);
            now += REMEMBERED_FOR / 4;
        }
        assert!(lock(&endings.state).requested.len() <= 4);
    }
}
