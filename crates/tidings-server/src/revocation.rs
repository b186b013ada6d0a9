//! Revocation: streams end before their credential does, and it opens no further ones.
//!
//! What can be revoked is a **mark**: the label of a ticket or of a stream that an application
//! granted, the id of a ticket, the id of a token of one issuer, or an id whatever has it. The open
//! streams that have one are listed here, next to the subscribers, which know nothing of it. A
//! revocation is a value in the state that all hubs share, kept until the credentials have expired
//! by themselves; each hub follows these values and ends its own streams. A hub whose store is a
//! directory keeps its revocations there too ([`file`]).
//!
//! A credential that was issued after the revocation is not revoked: a user who logs out and in
//! again receives. What an application grants is as new as its answer, so of revocations only those
//! count that arrive while it is asked.
//!
//! Invariant: a stream is listed before revocations are compared, and a revocation is known before
//! it looks for streams, so that none falls between the two.

mod file;
mod handler;
mod mark;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tidings::{
    ConnectionId, Hub,
    log::cluster::{Change, ClusterError},
};
use tidings_auth::Access;
use tokio::{runtime::Handle, task::AbortHandle, time::sleep};

pub use self::file::{OpenRevocationsError, RevocationFile};
pub(crate) use self::handler::revoke;
use self::mark::{Mark, Times, unix_secs};

/// Most revocations that are kept at the same time. One more is answered with 507.
const REVOCATIONS_MAX: usize = 100_000;
/// How long a revocation is kept, in seconds, unless it says so: no ticket is valid for longer.
const REVOCATION_SECS_DEFAULT: u64 = 24 * 60 * 60;
/// Longest time that a revocation is kept, in seconds, for tokens that are valid for longer: NATS
/// keeps values of the shared state for a week.
const REVOCATION_SECS_MAX: u64 = 7 * 24 * 60 * 60;
/// How long an expired revocation is still known, in seconds: an application that was asked before
/// it may still answer.
const ANSWER_SECS: u64 = 60;
/// Expired revocations are looked for beyond this many.
const PURGED_MIN: usize = 1_024;
/// How long the name of a connection that is to end is kept for hubs that cannot reach the shared
/// state now. Their streams stay open meanwhile.
const CONNECTION_SECS: u64 = 15 * 60;
/// How long a hub waits before it follows the shared state again, after an error.
const RETRY: Duration = Duration::from_secs(1);
/// What the keys of revocations in the shared state begin with.
const PREFIX: &str = "revoked/";

/// What the hubs of a cluster have revoked, read before this one serves.
#[derive(Clone, Debug)]
pub struct SharedRevocations(Vec<(String, Vec<u8>)>);

impl SharedRevocations {
    /// Reads them. Without them, a clustered hub answers 503 to credentials that can be revoked
    /// until it has read them itself.
    pub async fn read(hub: &Hub) -> Result<Self, ClusterError> {
        hub.cluster().list(PREFIX).await.map(Self)
    }
}

/// The revocations that a hub knows, and its streams that can be revoked.
pub(crate) struct Revocations {
    shared: Arc<Shared>,
    file: Option<Arc<RevocationFile>>,
    /// Follows the shared state.
    follower: Option<AbortHandle>,
}

impl Drop for Revocations {
    fn drop(&mut self) {
        if let Some(follower) = &self.follower {
            follower.abort();
        }
    }
}

struct Shared {
    hub: Hub,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What other hubs have revoked before this one started is in `revoked`.
    is_known: bool,
    revoked: HashMap<Mark, Revoked>,
    /// At this many, those that have expired are dropped.
    purge_len: usize,
    /// Grows with each revocation that this hub learns of.
    count: u64,
    /// The open streams, by each of their marks.
    streams: BTreeSet<(Mark, [u8; 16])>,
}

#[derive(Clone, Copy, Debug)]
struct Revoked {
    times: Times,
    /// The count when this hub learned of it.
    count: u64,
}

/// When the credential of a stream was issued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Issued {
    /// At this time, in seconds since 1970; `None` if that is unknown.
    At(Option<u64>),
    /// The application was asked when the hub knew this many revocations.
    After(u64),
}

/// Why a credential opens nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Withheld {
    /// It was revoked.
    Revoked,
    /// It is not known yet what the other hubs have revoked.
    Unknown,
}

/// A stream that can be revoked, listed until this is dropped.
pub(crate) struct Listed {
    shared: Arc<Shared>,
    marks: Vec<Mark>,
    connection: ConnectionId,
}

impl Revocations {
    /// Follows the shared state if there is a runtime to do so.
    pub(crate) fn new(
        hub: Hub,
        file: Option<Arc<RevocationFile>>,
        known: Option<&SharedRevocations>,
    ) -> Self {
        let state = State { is_known: known.is_some() || !hub.is_clustered(), ..State::default() };
        let shared = Arc::new(Shared { hub, state: Mutex::new(state) });
        for (mark, times) in file.iter().flat_map(|file| file.take_found()) {
            shared.apply(mark, times);
        }
        for (key, value) in known.iter().flat_map(|known| &known.0) {
            shared.apply_shared(key, value);
        }
        let follower = Handle::try_current().ok();
        let follower = follower.map(|runtime| runtime.spawn(follow(Arc::clone(&shared))).abort_handle());
        Self { shared, file, follower }
    }

    /// To be compared with, for a stream whose application is asked from now on.
    pub(crate) fn count(&self) -> u64 {
        self.shared.state().count
    }

    /// Whether it is known what the other hubs have revoked. Until then no credential is accepted
    /// that they could have revoked.
    pub(crate) fn are_known(&self) -> bool {
        self.shared.state().is_known
    }

    /// Refuses a credential that was revoked.
    pub(crate) fn check(&self, access: &Access) -> Result<(), Withheld> {
        let marks = Mark::of(access);
        if marks.is_empty() {
            return Ok(());
        }
        self.shared.state().check(&marks, Issued::At(access.issued_at))
    }

    /// Lists an open stream, unless its credential was revoked. `None` if it cannot be.
    pub(crate) fn list(
        &self,
        access: &Access,
        issued: Issued,
        connection: ConnectionId,
    ) -> Result<Option<Box<Listed>>, Withheld> {
        let marks = Mark::of(access);
        if marks.is_empty() {
            return Ok(None);
        }
        let mut state = self.shared.state();
        state.check(&marks, issued)?;
        state.streams.extend(marks.iter().map(|mark| (mark.clone(), connection.to_bytes())));
        drop(state);
        Ok(Some(Box::new(Listed { shared: Arc::clone(&self.shared), marks, connection })))
    }

    /// Revokes a mark at all hubs.
    async fn revoke(&self, mark: Mark, secs: u64) -> Result<(), NotRevoked> {
        let now = unix_secs();
        let number = getrandom::u64().expect("the system provides random numbers");
        let mut times = Times { at: now, until: now.saturating_add(secs), number };
        {
            let mut state = self.shared.state();
            if state.count_kept(now) >= REVOCATIONS_MAX {
                return Err(NotRevoked::TooMany);
            }
            // The shared state and the file have one for each mark, the last one.
            if let Some(before) = state.revoked.get(&mark) {
                times = times.after(before.times);
            }
        }
        // First what survives a restart, then what the others learn of.
        if let Some(file) = &self.file {
            let (file, added) = (Arc::clone(file), (mark.clone(), times));
            let writing = tokio::task::spawn_blocking(move || file.add(&added));
            writing.await.map_err(std::io::Error::other).flatten().map_err(NotRevoked::File)?;
        }
        let value = serde_json::to_vec(&times).expect("two numbers are JSON");
        let time = Duration::from_secs(times.until.saturating_sub(now));
        self.shared.hub.cluster().set(&mark.key(PREFIX), &value, time).await?;
        self.shared.apply(mark, times);
        Ok(())
    }
}

/// Why nothing was revoked, or why that is not known.
#[derive(Debug, thiserror::Error)]
enum NotRevoked {
    #[error("the hub keeps {REVOCATIONS_MAX} revocations, and has no room for more")]
    TooMany,
    #[error("the file of revocations cannot be written: {0}")]
    File(#[source] std::io::Error),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl Shared {
    /// Remembers a revocation, and ends the streams of this hub that have its mark.
    fn apply(&self, mark: Mark, times: Times) {
        if let Some(connection) = mark.connection() {
            self.hub.end([connection]);
            return;
        }
        let mut guard = self.state();
        let state = &mut *guard;
        let before = state.revoked.get(&mark).map(|revoked| revoked.times);
        let times = before.map_or(times, |before| times.after(before));
        // The hub that revoked it learns of it again, and so does each after an outage.
        if before == Some(times) {
            return;
        }
        state.count += 1;
        if state.revoked.len() >= state.purge_len {
            state.purge(unix_secs());
        }
        state.revoked.insert(mark.clone(), Revoked { times, count: state.count });
        let streams = state.streams.range((mark.clone(), [0; 16])..=(mark, [u8::MAX; 16]));
        let connections: Vec<_> =
            streams.map(|(_, connection)| ConnectionId::from_random(*connection)).collect();
        drop(guard);
        self.hub.end(connections);
    }

    /// Applies a value of the shared state.
    fn apply_shared(&self, key: &str, value: &[u8]) {
        // Of another version, otherwise.
        if let (Some(mark), Ok(times)) = (Mark::of_key(key, PREFIX), serde_json::from_slice(value)) {
            self.apply(mark, times);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Refuses a credential with a mark that was revoked.
    fn check(&self, marks: &[Mark], issued: Issued) -> Result<(), Withheld> {
        if !self.is_known && matches!(issued, Issued::At(_)) {
            return Err(Withheld::Unknown);
        }
        let now = unix_secs();
        let is_revoked =
            |mark: &Mark| self.revoked.get(mark).is_some_and(|revoked| revoked.applies_to(mark, issued, now));
        if marks.iter().any(is_revoked) { Err(Withheld::Revoked) } else { Ok(()) }
    }

    /// How many revocations are kept, without those that have expired.
    fn count_kept(&mut self, now: u64) -> usize {
        if self.revoked.len() >= REVOCATIONS_MAX {
            self.purge(now);
        }
        self.revoked.len()
    }

    /// Drops those that have expired. A hub that revokes nothing itself learns of those of others.
    fn purge(&mut self, now: u64) {
        self.revoked.retain(|_, revoked| revoked.times.until.saturating_add(ANSWER_SECS) > now);
        self.purge_len = (2 * self.revoked.len()).max(PURGED_MIN);
    }
}

impl Revoked {
    fn applies_to(&self, mark: &Mark, issued: Issued, now: u64) -> bool {
        match issued {
            Issued::After(count) => self.count > count,
            _ if self.times.until <= now => false,
            // An id is that of one credential.
            Issued::At(Some(at)) if mark.is_shared() => at <= self.times.at,
            Issued::At(_) => true,
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        for mark in self.marks.drain(..) {
            state.streams.remove(&(mark, self.connection.to_bytes()));
        }
    }
}

/// Applies what other hubs revoke, and what was revoked before this one started.
async fn follow(shared: Arc<Shared>) {
    loop {
        let followed = async {
            let cluster = shared.hub.cluster();
            let mut watch = cluster.watch(PREFIX).await?;
            // A watch does not tell that there is nothing.
            if !shared.state().is_known {
                for (key, value) in cluster.list(PREFIX).await? {
                    shared.apply_shared(&key, &value);
                }
                shared.state().is_known = true;
            }
            loop {
                for change in watch.next().await? {
                    if let Change::Set { key, value } = change {
                        shared.apply_shared(&key, &value);
                    }
                }
            }
        };
        let followed: Result<std::convert::Infallible, ClusterError> = followed.await;
        let Err(error) = followed;
        tracing::debug!(%error, "revocations of other hubs cannot be followed; trying again");
        sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use tidings::{
        Grants,
        log::cluster::{Cluster, LocalCluster},
    };

    use super::*;

    fn connection(number: u8) -> ConnectionId {
        ConnectionId::from_random([number; 16])
    }

    fn labelled(label: &str) -> Access {
        Access::of_application(Grants::NONE, None, Some(label.into()))
    }

    async fn revocations() -> Revocations {
        Revocations::new(Hub::in_memory().await, None, None)
    }

    async fn revoke(revocations: &Revocations, label: &str) {
        revocations.revoke(Mark::label(label), 60).await.expect("memory is there");
    }

    #[tokio::test]
    async fn nothing_is_accepted_before_it_is_known_what_other_hubs_have_revoked() {
        let cluster: Arc<dyn Cluster> = Arc::new(LocalCluster::default());
        let hub = async || Hub::builder().cluster(cluster.clone()).start().await.expect("memory is there");
        revoke(&Revocations::new(hub().await, None, None), "user-42").await;
        let starting = Revocations::new(hub().await, None, None);
        let list =
            |label: &str| starting.list(&labelled(label), Issued::At(Some(1)), connection(1)).map(|_| ());
        assert_eq!(list("user-42"), Err(Withheld::Unknown));
        assert_eq!(list("user-43"), Err(Withheld::Unknown));
        assert_eq!(starting.check(&labelled("user-43")), Err(Withheld::Unknown));
        assert_eq!(starting.check(&Access::anonymous()), Ok(()), "nobody can have revoked that");
        while !starting.are_known() {
            tokio::task::yield_now().await;
        }
        assert_eq!(list("user-42"), Err(Withheld::Revoked));
        assert_eq!(list("user-43"), Ok(()));
        // As the program does, so that no client waits.
        let hub = hub().await;
        let known = SharedRevocations::read(&hub).await.expect("memory is there");
        let started = Revocations::new(hub, None, Some(&known));
        assert_eq!(started.check(&labelled("user-42")), Err(Withheld::Revoked));
        assert_eq!(started.check(&labelled("user-43")), Ok(()));
    }

    #[tokio::test]
    async fn an_answer_that_was_requested_before_a_revocation_opens_no_stream() {
        let revocations = revocations().await;
        let before = Issued::After(revocations.count());
        revoke(&revocations, "user-42").await;
        let after = Issued::After(revocations.count());
        let list =
            |label: &str, issued| revocations.list(&labelled(label), issued, connection(1)).map(|_| ());
        assert_eq!(list("user-42", before), Err(Withheld::Revoked));
        assert_eq!(list("user-42", after), Ok(()), "the application has granted it again");
        assert_eq!(list("user-43", before), Ok(()));
        // Again, within the same second.
        revoke(&revocations, "user-42").await;
        assert_eq!(list("user-42", after), Err(Withheld::Revoked));
    }

    #[tokio::test]
    async fn a_credential_of_a_label_is_revoked_unless_it_was_issued_later() {
        let revocations = revocations().await;
        revoke(&revocations, "user-42").await;
        let now = unix_secs();
        let list = |at| revocations.list(&labelled("user-42"), Issued::At(at), connection(1)).map(|_| ());
        assert_eq!(list(Some(now - 10)), Err(Withheld::Revoked));
        assert_eq!(list(None), Err(Withheld::Revoked));
        assert_eq!(list(Some(now + 10)), Ok(()));
    }

    #[test]
    fn a_revocation_applies_to_what_was_issued_by_then_and_until_it_expires() {
        let revoked = Revoked { times: Times { at: 100, until: 200, number: 0 }, count: 7 };
        let (label, id) = (Mark::label("user-42"), Mark::Id("one".into()));
        for (mark, issued, now, applies) in [
            (&label, Issued::At(Some(100)), 199, true),
            (&label, Issued::At(Some(101)), 199, false),
            (&label, Issued::At(None), 199, true),
            // An id is that of one credential, whatever the clocks say.
            (&id, Issued::At(Some(101)), 199, true),
            (&label, Issued::At(Some(100)), 200, false),
            (&id, Issued::At(None), 200, false),
            (&label, Issued::After(6), 1_000, true),
            (&label, Issued::After(7), 1_000, false),
        ] {
            assert_eq!(revoked.applies_to(mark, issued, now), applies, "{mark:?}, {issued:?} at {now}");
        }
    }

    #[tokio::test]
    async fn one_revocation_too_many_is_refused() {
        let revocations = revocations().await;
        let times = Times { at: 1, until: u64::MAX, number: 1 };
        for number in 0..REVOCATIONS_MAX {
            revocations.shared.apply(Mark::label(&number.to_string()), times);
        }
        let refused = revocations.revoke(Mark::label("another"), 60).await;
        assert!(matches!(refused, Err(NotRevoked::TooMany)), "{refused:?}");
    }

    /// Two issuers may use the same id, and so may a ticket.
    #[tokio::test]
    async fn an_id_is_revoked_of_one_issuer_of_tickets_or_of_all() {
        let credentials = [None, Some("a"), Some("b")].map(|issuer| {
            let mut access = Access::anonymous();
            access.id = Some("7".into());
            access.issuer = issuer.map(Into::into);
            access
        });
        let token = Mark::Token { issuer: "a".into(), jti: "7".into() };
        for (mark, expected) in [
            (Mark::Ticket("7".into()), [true, false, false]),
            (token, [false, true, false]),
            (Mark::Id("7".into()), [true; 3]),
        ] {
            let revocations = revocations().await;
            revocations.revoke(mark.clone(), 60).await.expect("memory is there");
            let are_revoked = credentials.each_ref().map(|access| revocations.check(access).is_err());
            assert_eq!(are_revoked, expected, "{mark:?}");
        }
    }

    /// Two parts of an application revoke for different reasons, and hubs have different clocks.
    #[tokio::test]
    async fn a_second_revocation_never_ends_the_first_one() {
        let (revocations, mark) = (revocations().await, Mark::label("user-42"));
        let now = unix_secs();
        revocations.revoke(mark.clone(), 1_000).await.expect("memory is there");
        revocations.revoke(mark.clone(), 1).await.expect("memory is there");
        let times = |revocations: &Revocations| revocations.shared.state().revoked[&mark].times;
        assert!(times(&revocations).until >= now + 1_000);
        // What another hub has set.
        let slow = Times { at: now - 100, until: now + 1, number: 7 };
        revocations.shared.apply(mark.clone(), slow);
        let merged = times(&revocations);
        assert!(merged.at >= now && merged.until >= now + 1_000, "{merged:?}");
        // An outage of the store reports it again, which ends no stream.
        let count = revocations.count();
        revocations.shared.apply(mark.clone(), slow);
        assert_eq!(revocations.count(), count);
        // Hubs that start later learn of the last one alone.
        let mut watch = revocations.shared.hub.cluster().watch(PREFIX).await.expect("memory is there");
        let changes = watch.next().await.expect("memory is there");
        let [Change::Set { value, .. }] = &changes[..] else { panic!("{changes:?}") };
        let set: Times = serde_json::from_slice(value).expect("times");
        assert!(set.until >= now + 1_000, "{set:?}");
    }

    /// It could not reach the store, and its streams have stayed open.
    #[tokio::test(start_paused = true)]
    async fn a_hub_that_was_away_for_minutes_learns_which_connection_is_to_end() {
        let revocations = revocations().await;
        let mark = Mark::Connection(connection(7).to_string().into());
        revocations.revoke(mark.clone(), CONNECTION_SECS).await.expect("memory is there");
        sleep(Duration::from_secs(10 * 60)).await;
        let found = revocations.shared.hub.cluster().list(PREFIX).await.expect("memory is there");
        let marks: Vec<_> = found.iter().filter_map(|(key, _)| Mark::of_key(key, PREFIX)).collect();
        assert_eq!(marks, [mark]);
    }

    #[tokio::test]
    async fn expired_revocations_of_other_hubs_take_no_memory() {
        let revocations = revocations().await;
        let now = unix_secs();
        let [long_ago, recently] = [now - 1_000, now - 1].map(|until| Times { at: 1, until, number: 1 });
        for number in 0..10 * PURGED_MIN {
            revocations.shared.apply(Mark::label(&number.to_string()), long_ago);
        }
        let len = || revocations.shared.state().revoked.len();
        assert!(len() <= PURGED_MIN, "{}", len());
        let before = Issued::After(revocations.count());
        for number in 0..10 * PURGED_MIN {
            revocations.shared.apply(Mark::label(&number.to_string()), recently);
        }
        let list = |label: &str| revocations.list(&labelled(label), before, connection(1)).map(|_| ());
        assert_eq!(list("7"), Err(Withheld::Revoked), "the application was asked before");
    }

    #[tokio::test]
    async fn a_stream_is_listed_while_it_is_open_and_costs_nothing_without_marks() {
        let revocations = revocations().await;
        let issued = Issued::After(0);
        let listed = revocations.list(&labelled("a"), issued, connection(1)).expect("not revoked");
        let other = revocations.list(&labelled("a"), issued, connection(2)).expect("not revoked");
        assert_eq!(revocations.shared.state().streams.len(), 2);
        drop((listed, other));
        assert!(revocations.shared.state().streams.is_empty());
        let without = revocations.list(&Access::anonymous(), Issued::At(None), connection(3));
        assert!(without.expect("not revoked").is_none());
    }
}
