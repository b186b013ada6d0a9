//! Streams whose topics can be changed while they are open, by the names of their connections.
//!
//! A change is a message to the driver of the stream, a shard or a pulled subscription, which
//! applies it between two sends, at the place in the log where the stream is (decision 25).
//!
//! Invariants: only streams that asked for it are here, so the others cost nothing; a stream is here
//! from before its first byte until its driver drops it; what waits for a driver is bounded.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tidings_log::{Cursor, parts::lock};
use tidings_topic::{ConnectionId, EventId, Matcher};
use tokio::{sync::oneshot, time::Instant};

/// Changes of one stream that wait for its driver at the same time.
const WAITING_MAX: usize = 16;
/// How far apart the changes of one stream are on average, at least.
const INTERVAL: Duration = Duration::from_millis(50);
/// How many changes a stream that had none for a while may have at once.
const BURST: u32 = 40;

/// The topics to be added to a stream, and those to be removed from it. One that it has already, or
/// has not, is no error.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TopicEdit {
    /// Topics, or all of them; a pattern is refused.
    pub add: Vec<Matcher>,
    /// Topics, all of them, or patterns.
    pub remove: Vec<Matcher>,
}

/// A stream after a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edited {
    /// The topics that the stream is subscribed to now.
    pub topics: Vec<String>,
    /// The patterns that it is subscribed to.
    pub patterns: Vec<String>,
    /// The change counts from here on: the stream has the events after this id on the topics that
    /// were added, and none after it on those that were removed.
    pub cursor: EventId,
}

/// Why a stream was not changed.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EditError {
    /// There is no such stream, or it cannot be changed.
    #[error("no open stream that can be changed has this name")]
    Unknown,
    /// The request does not prove that it is of the stream's client.
    #[error("the stream was opened with another credential")]
    Denied,
    /// A pattern was to be added.
    #[error("a pattern cannot be added to an open stream")]
    Pattern,
    /// The stream would have no topics.
    #[error("a stream keeps at least one topic or pattern")]
    NoTopics,
    /// The stream would have more topics and patterns than it may.
    #[error("the stream would have {count} topics and patterns; the limit is {count_max}")]
    TooManyTopics {
        /// How many it would have.
        count: usize,
        /// How many it may have.
        count_max: usize,
    },
    /// The stream is changed too often. Try again in a second.
    #[error("the stream is changed too often")]
    TooOften,
    /// The client of the stream reads nothing, so nothing was changed.
    #[error("the stream takes nothing, since its client does not read it")]
    NotRead,
    /// Too many changes wait for other hubs. Nothing was changed; try again in a second.
    #[error("too many changes wait for other hubs")]
    Overloaded,
    /// Another hub of the cluster does not answer, and may have the stream.
    #[error("another hub of the cluster does not answer")]
    Unreachable,
}

/// What proves that a request is of the client of a stream: a digest of the credential that the
/// stream was opened with, or of a secret that only its client was given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EditProof(pub [u8; 32]);

/// The streams of a hub that can be changed.
#[derive(Debug, Default)]
pub(crate) struct Edits(Mutex<HashMap<ConnectionId, Arc<EditableStream>>>);

/// A stream that is known to [`Edits`] until this is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    edits: Arc<Edits>,
    connection: ConnectionId,
    stream: Arc<EditableStream>,
    /// Most topics and patterns that the stream may have.
    pub(crate) matchers_max: usize,
}

/// What changes a stream.
#[derive(Debug)]
pub(crate) struct EditableStream {
    proof: EditProof,
    queue: Mutex<EditQueue>,
}

#[derive(Default)]
struct EditQueue {
    waiting: Vec<WaitingEdit>,
    /// Calls the driver, once there is one.
    notify: Option<Box<dyn Fn() + Send>>,
    /// When the next change would be due if all came evenly.
    next_at: Option<Instant>,
    is_closed: bool,
}

/// Topics and patterns.
pub(crate) fn texts(matchers: &[Matcher]) -> (Vec<String>, Vec<String>) {
    let is_pattern = |matcher: &&Matcher| matches!(matcher, Matcher::Pattern(_));
    let (patterns, topics): (Vec<_>, Vec<_>) = matchers.iter().partition(is_pattern);
    let [topics, patterns] = [topics, patterns]
        .map(|matchers| matchers.into_iter().map(|matcher| matcher.as_str().to_owned()).collect());
    (topics, patterns)
}

/// A change that waits for the driver of its stream.
#[derive(Debug)]
pub(crate) struct WaitingEdit {
    pub(crate) edit: TopicEdit,
    /// Closed if nobody waits for it any more: then it is not to be applied.
    pub(crate) answer: oneshot::Sender<Result<Edited, EditError>>,
}

impl Edits {
    /// Adds a stream that a request with this proof can change.
    pub(crate) fn register(
        self: &Arc<Self>,
        connection: ConnectionId,
        proof: EditProof,
        matchers_max: usize,
    ) -> Registration {
        let stream = Arc::new(EditableStream { proof, queue: Mutex::default() });
        lock(&self.0).insert(connection, Arc::clone(&stream));
        Registration { edits: Arc::clone(self), connection, stream, matchers_max }
    }

    /// A stream of this hub that can be changed.
    pub(crate) fn find(&self, connection: &ConnectionId) -> Option<Arc<EditableStream>> {
        lock(&self.0).get(connection).cloned()
    }
}

impl EditableStream {
    /// Passes a change to the driver. What is received is its answer; an error is that of a stream
    /// that has ended.
    pub(crate) fn request(
        &self,
        edit: TopicEdit,
        proof: EditProof,
        now: Instant,
    ) -> Result<oneshot::Receiver<Result<Edited, EditError>>, EditError> {
        if proof != self.proof {
            return Err(EditError::Denied);
        }
        let (answer, answered) = oneshot::channel();
        let mut queue = lock(&self.queue);
        if queue.is_closed {
            return Err(EditError::Unknown);
        }
        queue.waiting.retain(|waiting| !waiting.answer.is_closed());
        let next_at = queue.next_at.map_or(now, |next_at| next_at.max(now)) + INTERVAL;
        if queue.waiting.len() >= WAITING_MAX || next_at > now + BURST * INTERVAL {
            return Err(EditError::TooOften);
        }
        queue.next_at = Some(next_at);
        queue.waiting.push(WaitingEdit { edit, answer });
        if let Some(notify) = &queue.notify {
            notify();
        }
        Ok(answered)
    }
}

impl Registration {
    /// How the driver is called from now on when a change waits for it. It looks for changes that
    /// wait already.
    pub(crate) fn notify_with(&self, notify: impl Fn() + Send + 'static) {
        lock(&self.stream.queue).notify = Some(Box::new(notify));
    }

    /// The changes that wait, in their order.
    pub(crate) fn take(&self) -> Vec<WaitingEdit> {
        let mut waiting = std::mem::take(&mut lock(&self.stream.queue).waiting);
        waiting.retain(|waiting| !waiting.answer.is_closed());
        waiting
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        lock(&self.edits.0).remove(&self.connection);
        let mut queue = lock(&self.stream.queue);
        queue.is_closed = true;
        // Those who wait receive that there is no stream.
        queue.waiting = Vec::new();
        queue.notify = None;
    }
}

impl Edited {
    pub(crate) fn new(matchers: &[Matcher], place: Cursor) -> Self {
        let (topics, patterns) = texts(matchers);
        Self { topics, patterns, cursor: place.to_event_id() }
    }
}

impl TopicEdit {
    /// What a stream with these matchers has afterwards: those that stay, then those that are new,
    /// in their order.
    pub(crate) fn apply_to(&self, matchers: &[Matcher]) -> Vec<Matcher> {
        let mut after: Vec<Matcher> = Vec::with_capacity(matchers.len() + self.add.len());
        let stays = matchers.iter().filter(|matcher| !self.remove.contains(matcher));
        for matcher in stays.chain(&self.add) {
            if !after.contains(matcher) {
                after.push(matcher.clone());
            }
        }
        after
    }

    /// Whether a stream with these matchers can be changed so.
    pub(crate) fn check(&self, matchers: &[Matcher], count_max: usize) -> Result<(), EditError> {
        if self.add.iter().any(|matcher| matches!(matcher, Matcher::Pattern(_))) {
            return Err(EditError::Pattern);
        }
        match self.apply_to(matchers).len() {
            0 => Err(EditError::NoTopics),
            count if count > count_max && count > matchers.len() => {
                Err(EditError::TooManyTopics { count, count_max })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for EditProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EditProof")
    }
}

impl fmt::Debug for EditQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EditQueue").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tidings_topic::Validator;

    use super::*;

    const PROOF: EditProof = EditProof([1; 32]);

    fn edit(add: &[&str], remove: &[&str]) -> TopicEdit {
        let matchers = |topics: &[&str]| {
            topics.iter().map(|topic| Validator::default().exact(topic).expect("a topic")).collect()
        };
        TopicEdit { add: matchers(add), remove: matchers(remove) }
    }

    fn names(matchers: &[Matcher]) -> Vec<&str> {
        matchers.iter().map(Matcher::as_str).collect()
    }

    #[test]
    fn what_is_there_already_is_not_added_and_what_is_not_there_not_removed() {
        let before = edit(&["a", "b"], &[]).add;
        let after = |add: &[&str], remove: &[&str]| {
            names(&edit(add, remove).apply_to(&before)).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(after(&["c", "a", "c"], &["x"]), ["a", "b", "c"]);
        assert_eq!(after(&["*"], &["a"]), ["b", "*"]);
        assert_eq!(after(&["a"], &["a"]), ["b", "a"], "removed first, and added from here on");
    }

    #[test]
    fn a_stream_keeps_a_topic_and_has_no_more_than_it_may() {
        let before = edit(&["a", "b"], &[]).add;
        assert_eq!(edit(&[], &["a", "b"]).check(&before, 3), Err(EditError::NoTopics));
        let excess = EditError::TooManyTopics { count: 4, count_max: 3 };
        assert_eq!(edit(&["c", "d"], &[]).check(&before, 3), Err(excess));
        assert!(edit(&["c", "d"], &["a"]).check(&before, 3).is_ok());
        assert!(
            edit(&[], &["a"]).check(&edit(&["a", "b", "c", "d", "e"], &[]).add, 3).is_ok(),
            "fewer than before"
        );
    }

    #[test]
    fn only_the_proof_of_a_stream_reaches_it_and_only_while_it_is_open() {
        let edits = Arc::new(Edits::default());
        let connection = ConnectionId::from_random([7; 16]);
        let registration = edits.register(connection, PROOF, 100);
        let stream = edits.find(&connection).expect("it is open");
        let now = Instant::now();
        let request = |proof| stream.request(edit(&["a"], &[]), proof, now);
        assert_eq!(request(EditProof([2; 32])).err(), Some(EditError::Denied));
        assert!(registration.take().is_empty());
        let mut answered = request(PROOF).expect("accepted");
        drop(registration);
        assert!(answered.try_recv().is_err());
        assert_eq!(request(PROOF).err(), Some(EditError::Unknown));
        assert!(edits.find(&connection).is_none());
    }

    #[test]
    fn changes_are_limited_in_number_and_in_time() {
        let edits = Arc::new(Edits::default());
        let registration = edits.register(ConnectionId::from_random([7; 16]), PROOF, 100);
        let mut now = Instant::now();
        let request = |now| registration.stream.request(edit(&["a"], &[]), PROOF, now);
        let waiting: Vec<_> = (0..WAITING_MAX).map(|_| request(now).expect("accepted")).collect();
        assert_eq!(request(now).err(), Some(EditError::TooOften), "too many wait");
        drop(waiting);
        for _ in WAITING_MAX..BURST as usize {
            drop(request(now).expect("nobody waits for the others any more"));
        }
        assert_eq!(request(now).err(), Some(EditError::TooOften), "too many at once");
        now += INTERVAL;
        drop(request(now).expect("one more"));
        assert_eq!(request(now).err(), Some(EditError::TooOften));
        assert!(registration.take().is_empty(), "nobody waits for them");
    }
}
