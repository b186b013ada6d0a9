//! Keys that an issuer publishes at a URL, fetched by somebody else.
//!
//! This crate opens no connection and reads no clock. What fetches owns the times: it calls
//! [`RemoteKeys::begin`] before it fetches, hands over what it got, and says from when on a token
//! with an unknown `kid` may cause another fetch.
//!
//! ```text
//! Refused ──► Possible ──► Wanted ──► Fetching ──► Refused or Possible
//!         time        a token     begin        finish
//! ```
//!
//! Invariants: nothing in a token but its `kid` has an influence, and only on whether the one
//! configured URL is fetched again; there is one fetch at a time; a request waits only for a fetch
//! that is under way or about to begin, and at most [`WAITING_PER_ISSUER_MAX`] wait, and
//! [`WAITING_MAX`] for all issuers together.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::{
    jwks::{self, JwksError},
    key::VerificationKey,
};
use crate::{Algorithm, JwksUrl};

/// Most requests that wait for the keys of one issuer at a time; further ones are refused at once.
const WAITING_PER_ISSUER_MAX: usize = 64;

/// Most requests that wait for keys at a time; further ones are refused at once. Far fewer than a hub
/// answers at a time, so that endpoints that hang keep no other request waiting.
const WAITING_MAX: usize = 128;

/// The capacity of a hub for requests that wait for keys.
pub(super) fn waiting_capacity() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(WAITING_MAX))
}

/// The fetched keys of one issuer. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct RemoteKeys(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    issuer: Arc<str>,
    source: JwksUrl,
    allowed: Vec<Algorithm>,
    state: Mutex<State>,
    wanted: Notify,
    finished: watch::Sender<()>,
    waiting: Arc<Semaphore>,
}

#[derive(Debug)]
struct State {
    /// `None`: never fetched, or too long ago.
    fetched: Option<Fetched>,
    fetch: Fetch,
}

/// Keys, and when they were fetched.
#[derive(Clone, Debug)]
struct Fetched {
    keys: Arc<[VerificationKey]>,
    at: Instant,
}

/// Whether a token with an unknown `kid` can cause a fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fetch {
    /// Not now.
    Refused,
    /// Yes.
    Possible,
    /// One has.
    Wanted,
    /// A fetch is under way.
    Fetching,
}

/// A request that waits for keys. It counts until it is dropped.
#[derive(Debug)]
pub struct KeyWait {
    finished: watch::Receiver<()>,
    _permits: [OwnedSemaphorePermit; 2],
}

impl KeyWait {
    /// Until the fetch has ended, successful or not. The caller bounds the time.
    pub async fn fetched(mut self) {
        // An error means that the hub no longer has the issuer.
        let _ = self.finished.changed().await;
    }
}

/// A fetch that is under way. Dropping it ends it without keys.
#[derive(Debug)]
pub struct Fetching {
    keys: RemoteKeys,
    next: Fetch,
}

impl RemoteKeys {
    pub(super) fn new(issuer: Arc<str>, source: JwksUrl, allowed: Vec<Algorithm>) -> Self {
        Self(Arc::new(Shared {
            issuer,
            source,
            allowed,
            state: Mutex::new(State { fetched: None, fetch: Fetch::Refused }),
            wanted: Notify::new(),
            finished: watch::Sender::new(()),
            waiting: Arc::new(Semaphore::new(WAITING_PER_ISSUER_MAX)),
        }))
    }

    /// The `iss` of their tokens.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// Where they are.
    pub fn source(&self) -> &JwksUrl {
        &self.0.source
    }

    /// How many there are; 0 before the first successful fetch.
    pub fn count(&self) -> usize {
        self.current().map_or(0, |keys| keys.len())
    }

    /// When they were fetched, also if that was before a reload of the configuration.
    pub fn fetched_at(&self) -> Option<Instant> {
        self.state().fetched.as_ref().map(|fetched| fetched.at)
    }

    /// Marks a fetch as under way. There is one at a time.
    pub fn begin(&self) -> Fetching {
        self.state().fetch = Fetch::Fetching;
        Fetching { keys: self.clone(), next: Fetch::Refused }
    }

    /// From now on a token with an unknown `kid` may cause a fetch.
    pub fn allow_fetch(&self) {
        let mut state = self.state();
        if state.fetch == Fetch::Refused {
            state.fetch = Fetch::Possible;
        }
    }

    /// Until a token with an unknown `kid` causes a fetch.
    pub async fn wanted(&self) {
        while self.state().fetch != Fetch::Wanted {
            self.0.wanted.notified().await;
        }
    }

    /// Drops the keys, because they are too old.
    pub fn forget(&self) {
        self.state().fetched = None;
    }

    pub(super) fn current(&self) -> Option<Arc<[VerificationKey]>> {
        self.state().fetched.as_ref().map(|fetched| Arc::clone(&fetched.keys))
    }

    /// Takes over the keys of these, if they are those of the same issuer from the same place. They
    /// are as old as they were.
    pub(crate) fn adopt(&self, before: &Self) {
        let is_same = |one: &Shared, other: &Shared| {
            one.issuer == other.issuer && one.source.url == other.source.url && one.allowed == other.allowed
        };
        if is_same(&self.0, &before.0) {
            let fetched = before.state().fetched.clone();
            self.state().fetched = fetched;
        }
    }

    /// Lets a request wait for a fetch, and causes one if that is possible. `None`: there is nothing
    /// to wait for, or too many requests wait already.
    pub(super) fn wait(&self, capacity: &Arc<Semaphore>) -> Option<KeyWait> {
        let of_hub = Arc::clone(capacity).try_acquire_owned().ok()?;
        let of_issuer = Arc::clone(&self.0.waiting).try_acquire_owned().ok()?;
        let mut state = self.state();
        match state.fetch {
            Fetch::Refused => return None,
            Fetch::Possible => {
                state.fetch = Fetch::Wanted;
                self.0.wanted.notify_one();
            }
            Fetch::Wanted | Fetch::Fetching => {}
        }
        // With the lock held, so that the end of the fetch is not missed.
        Some(KeyWait { finished: self.0.finished.subscribe(), _permits: [of_hub, of_issuer] })
    }

    // Every change is one assignment, so a panic leaves nothing half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetching {
    /// Replaces all keys by those of this key set, fetched at this time, and returns their number. If
    /// the set cannot be used, nothing is replaced.
    pub fn succeeded(&self, jwks: &[u8], at: Instant) -> Result<usize, JwksError> {
        let keys = jwks::parse(jwks, &self.keys.0.allowed)?;
        let count = keys.len();
        self.keys.state().fetched = Some(Fetched { keys: keys.into(), at });
        Ok(count)
    }

    /// Ends the fetch. `may_follow`: a token with an unknown `kid` may cause the next one.
    pub fn finish(mut self, may_follow: bool) {
        if may_follow {
            self.next = Fetch::Possible;
        }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.keys.state().fetch = self.next;
        self.keys.0.finished.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> RemoteKeys {
        let url = "https://issuer.example/jwks".parse().expect("a URL");
        RemoteKeys::new("https://issuer.example".into(), JwksUrl::new(url), Vec::new())
    }

    fn wait(keys: &RemoteKeys) -> Option<KeyWait> {
        keys.wait(&waiting_capacity())
    }

    #[test]
    fn a_token_causes_no_fetch_before_the_time() {
        let keys = keys();
        assert!(wait(&keys).is_none());
        keys.allow_fetch();
        assert!(wait(&keys).is_some());
        assert_eq!(keys.state().fetch, Fetch::Wanted);
        keys.begin().finish(false);
        assert!(wait(&keys).is_none());
        keys.begin().finish(true);
        assert!(wait(&keys).is_some());
    }

    #[test]
    fn allowing_a_fetch_does_not_withdraw_the_one_that_is_wanted() {
        let keys = keys();
        keys.allow_fetch();
        let _first = wait(&keys);
        keys.allow_fetch();
        assert_eq!(keys.state().fetch, Fetch::Wanted);
        let fetching = keys.begin();
        keys.allow_fetch();
        assert_eq!(keys.state().fetch, Fetch::Fetching);
        drop(fetching);
        assert_eq!(keys.state().fetch, Fetch::Refused);
    }

    #[test]
    fn only_so_many_requests_wait() {
        let keys = keys();
        let fetching = keys.begin();
        let mut waiting: Vec<_> =
            (0..WAITING_PER_ISSUER_MAX).map(|_| wait(&keys).expect("capacity")).collect();
        assert!(wait(&keys).is_none());
        waiting.pop();
        assert!(wait(&keys).is_some());
        fetching.finish(false);
    }

    #[test]
    fn only_so_many_requests_wait_for_all_issuers() {
        let (issuers, capacity) = ([keys(), keys(), keys()], waiting_capacity());
        let fetches = issuers.each_ref().map(RemoteKeys::begin);
        let waiting = |keys: &RemoteKeys| {
            (0..WAITING_PER_ISSUER_MAX).filter_map(|_| keys.wait(&capacity)).collect::<Vec<_>>()
        };
        let waiting = issuers.each_ref().map(waiting);
        assert_eq!(waiting.iter().map(Vec::len).sum::<usize>(), WAITING_MAX);
        drop(fetches);
    }

    #[test]
    fn a_fetch_that_panics_ends() {
        let keys = keys();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _fetching = keys.begin();
            panic!("in a fetch");
        }));
        assert!(panicked.is_err());
        assert_eq!(keys.state().fetch, Fetch::Refused);
    }

    #[tokio::test]
    async fn a_request_is_woken_by_the_end_of_the_fetch_it_waits_for() {
        let keys = keys();
        keys.allow_fetch();
        let waiting = wait(&keys).expect("a fetch is possible");
        keys.wanted().await;
        let fetching = keys.begin();
        let later = wait(&keys).expect("a fetch is under way");
        fetching.finish(false);
        waiting.fetched().await;
        later.fetched().await;
    }

    #[tokio::test]
    async fn a_request_does_not_wait_for_an_issuer_that_is_gone() {
        let keys = keys();
        let fetching = keys.begin();
        let waiting = wait(&keys).expect("a fetch is under way");
        fetching.finish(false);
        drop(keys);
        waiting.fetched().await;
    }
}
