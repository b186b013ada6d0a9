//! What the log, its tails and the follower share: the index, and whether it is trusted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicU64},
    time::Duration,
};

use async_nats::jetstream::{
    kv::Store as Bucket,
    stream::{Info, Stream},
};
use tidings_log::{
    Clock, Epoch, Epochs, Unavailable,
    parts::{lock, number},
};
use tokio::{
    sync::{Notify, oneshot, watch},
    time::{Instant, sleep, timeout},
};

use crate::{
    format::LeftAudiences,
    index::{Hidden, Index, Mark},
    link::{Link, REQUEST_TIME},
    settings::NatsSettings,
};

/// In its first second, a new leader of a replicated stream is not believed: it may not have
/// applied yet what it has agreed to.
const SETTLING_TIME: Duration = Duration::from_secs(1);
/// For this many deletions the number of hidden events is remembered, until the caller reads it.
const DELETIONS_MAX: usize = 100;

/// See the [module documentation](self).
pub(crate) struct SharedIndex {
    pub(crate) link: Arc<Link>,
    pub(crate) settings: NatsSettings,
    pub(crate) clock: Clock,
    state: Mutex<State>,
    /// Fires when the index or its trust changed.
    notifier: watch::Sender<()>,
    /// Something does not fit: compare the stream with the index.
    pub(crate) doubts: Notify,
    /// The last query of the end of the stream, shared by all concurrent callers.
    reach: tokio::sync::Mutex<Option<(Instant, u64)>>,
    /// How many messages of the stream were read that are not from a hub, and when that was logged.
    pub(crate) rejected: AtomicU64,
    pub(crate) rejected_logged: Mutex<Option<Instant>>,
    /// Which server led the stream when it was last queried, and since when it is known to.
    leader: Mutex<Option<(String, Instant)>>,
}

pub(crate) struct State {
    pub(crate) index: Index,
    /// When the indexed stream was created.
    created: Option<String>,
    trusted: Option<Arc<Trusted>>,
    /// Why it is not trusted.
    reason: String,
    /// How many attempts to trust it have failed in a row.
    failures: u32,
    /// When a message was stored and read back.
    pub(crate) returned: Option<Instant>,
    /// Callers that wait until a message has been read.
    waiting: BTreeMap<u64, Vec<oneshot::Sender<()>>>,
    /// How many events the newest deletions hid, and which messages have no visible event left.
    pub(crate) deletions: BTreeMap<u64, (u64, Vec<Hidden>)>,
    is_closed: bool,
}

/// What the index agrees with.
pub(crate) struct Trusted {
    /// The connection on which it was compared.
    pub(crate) generation: u64,
    pub(crate) stream: Stream,
    /// The bucket next to the stream.
    pub(crate) bucket: Bucket,
}

impl State {
    /// A deletion was read.
    pub(crate) fn note_deletion(&mut self, sequence: u64, count: u64, hidden: Vec<Hidden>) {
        self.deletions.insert(sequence, (count, hidden));
        while self.deletions.len() > DELETIONS_MAX {
            self.deletions.pop_first();
        }
    }
}

impl SharedIndex {
    pub(crate) fn new(link: Arc<Link>, settings: NatsSettings) -> Self {
        let index = Index::new(settings.clone(), Epochs::starting(Epoch::from_u64(0)));
        let state = State {
            index,
            created: None,
            trusted: None,
            reason: "the stream has not been read yet".to_owned(),
            failures: 0,
            returned: None,
            waiting: BTreeMap::new(),
            deletions: BTreeMap::new(),
            is_closed: false,
        };
        Self {
            link,
            settings,
            clock: Clock::system(),
            state: Mutex::new(state),
            notifier: watch::Sender::new(()),
            doubts: Notify::new(),
            reach: tokio::sync::Mutex::default(),
            rejected: AtomicU64::new(0),
            rejected_logged: Mutex::default(),
            leader: Mutex::default(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The state, without events that have expired by now.
    pub(crate) fn state_now(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.index.expire(self.clock.now());
        state
    }

    /// A notifier of changes of the index.
    pub(crate) fn listen(&self) -> watch::Receiver<()> {
        self.notifier.subscribe()
    }

    pub(crate) fn notify(&self) {
        self.notifier.send_replace(());
    }

    /// What the index agrees with, if that was compared on the current connection.
    pub(crate) fn trusted(&self) -> Result<Arc<Trusted>, Unavailable> {
        let state = self.state();
        let generation = self.link.generation().ok_or_else(|| Unavailable(crate::link::AWAY.to_owned()))?;
        let trusted = state.trusted.as_ref().filter(|trusted| trusted.generation == generation);
        trusted.cloned().ok_or_else(|| Unavailable(state.reason.clone()))
    }

    /// The index agrees with this.
    pub(crate) fn trust(&self, trusted: Trusted) {
        let mut state = self.state();
        state.trusted = Some(Arc::new(trusted));
        state.failures = 0;
        drop(state);
        self.notify();
    }

    /// Whether the index still agrees with the stream is unknown.
    pub(crate) fn distrust(&self, reason: &str) {
        let mut state = self.state();
        state.trusted = None;
        state.failures = state.failures.saturating_add(1);
        reason.clone_into(&mut state.reason);
        drop(state);
        self.notify();
    }

    /// Waits until the index was trusted for the first time, or until this many attempts failed.
    pub(crate) async fn opened(&self, failures_max: u32) -> Result<(), String> {
        let is_decided = |(): &()| {
            let state = self.state();
            state.trusted.is_some() || state.failures >= failures_max
        };
        self.listen().wait_for(is_decided).await.expect("the notifier belongs to this");
        let state = self.state();
        if state.trusted.is_some() { Ok(()) } else { Err(state.reason.clone()) }
    }

    /// Nothing more arrives.
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
        self.notify();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Everything up to here has been read.
    pub(crate) fn read(&self) -> Mark {
        self.state().index.read()
    }

    /// When the stream was created, and the epoch.
    pub(crate) fn identity(&self) -> Option<(String, Epoch)> {
        let state = self.state();
        Some((state.created.clone()?, state.index.epochs().current().epoch))
    }

    /// The audiences of what was read, and of which stream.
    pub(crate) fn audiences(&self, bytes_max: usize) -> Option<LeftAudiences> {
        let state = self.state();
        let epoch = state.index.epochs().current().epoch.to_u64();
        let identity = (state.created.clone()?, epoch);
        Some(LeftAudiences { identity, audiences: state.index.audiences(bytes_max) })
    }

    pub(crate) fn marks(&self, through: u64) -> Vec<Mark> {
        self.state().index.marks(through)
    }

    /// The epochs of a stream, if it is the one that was read.
    pub(crate) fn known_epochs(&self, created: &str) -> Option<Epochs> {
        let state = self.state();
        (state.created.as_deref() == Some(created)).then(|| state.index.epochs().clone())
    }

    /// Takes over the epochs on which the hubs agree.
    pub(crate) fn adopt(&self, created: &str, epochs: Epochs) {
        let mut state = self.state();
        if state.created.as_deref() == Some(created) {
            let new = state.index.new_starts(&epochs);
            let Some(through) = new.iter().map(|start| number(start.after)).min() else { return };
            state.index.begin_epochs(epochs, through);
        } else {
            state.index.begin_anew(epochs);
            state.created = Some(created.to_owned());
        }
        drop(state);
        self.notify();
    }

    /// Everything up to a message has been processed: notifies the callers that wait for it.
    pub(crate) fn settle(&self) {
        let mut state = self.state();
        let read = state.index.read().sequence;
        let rest = state.waiting.split_off(&(read + 1));
        let reached = std::mem::replace(&mut state.waiting, rest);
        drop(state);
        for waiting in reached.into_values().flatten() {
            let _ = waiting.send(());
        }
        self.notify();
    }

    /// Waits until a message has been read, up to the request timeout. False if it was not.
    pub(crate) async fn has_read(&self, sequence: u64) -> bool {
        let reached = {
            let mut state = self.state();
            if state.index.read().sequence >= sequence {
                return true;
            }
            // Callers that gave up make room for new ones.
            let (sender, receiver) = oneshot::channel();
            let waiting = state.waiting.entry(sequence).or_default();
            waiting.retain(|other| !other.is_closed());
            waiting.push(sender);
            receiver
        };
        matches!(timeout(REQUEST_TIME, reached).await, Ok(Ok(())))
    }

    /// Waits until everything is in the index that was in the stream when this was called.
    /// Concurrent callers share the query.
    pub(crate) async fn catch_up(&self) -> Result<(), Unavailable> {
        let asked = Instant::now();
        let trusted = self.trusted()?;
        let last = {
            let mut reach = self.reach.lock().await;
            match *reach {
                Some((started, last)) if started >= asked => last,
                _ => {
                    let started = Instant::now();
                    let info = self.settled_info(&trusted.stream).await.map_err(Unavailable)?;
                    let last = info.state.last_sequence;
                    *reach = Some((started, last));
                    last
                }
            }
        };
        if !self.has_read(last).await {
            return Err(Unavailable(format!(
                "reading the stream does not keep up with its growth ({} s behind)",
                REQUEST_TIME.as_secs()
            )));
        }
        self.still(trusted.generation)
    }

    /// The state and the end of the stream, from a server that knows. Where several keep it, a new
    /// leader is given a moment first.
    pub(crate) async fn settled_info(&self, stream: &Stream) -> Result<Info, String> {
        loop {
            let info = self.link.ask("asking for the stream", stream.get_info()).await?;
            let leader = info.cluster.as_ref().filter(|_| info.config.num_replicas > 1);
            let Some(leader) = leader.and_then(|cluster| cluster.leader.as_ref()) else { return Ok(info) };
            let left = SETTLING_TIME.saturating_sub(self.leads_since(leader).elapsed());
            if left.is_zero() {
                return Ok(info);
            }
            sleep(left).await;
        }
    }

    /// Since when this server is known to lead the stream.
    fn leads_since(&self, name: &str) -> Instant {
        let mut leader = lock(&self.leader);
        match &*leader {
            Some((known, since)) if known == name => *since,
            _ => {
                let since = Instant::now();
                *leader = Some((name.to_owned(), since));
                since
            }
        }
    }

    /// Whether the index was trusted without interruption since.
    pub(crate) fn still(&self, generation: u64) -> Result<(), Unavailable> {
        if self.trusted()?.generation == generation {
            Ok(())
        } else {
            Err(Unavailable("the connection to NATS was lost in the meantime".to_owned()))
        }
    }

    /// Whether a message was stored and read back within this time.
    pub(crate) fn returned_within(&self, time: Duration) -> bool {
        self.state().returned.is_some_and(|returned| returned.elapsed() < time)
    }
}
