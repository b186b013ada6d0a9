//! Deletions: the events are hidden at once, and compaction frees their bytes.
//!
//! A deletion consists of a topic, the number of the newest event at that time, and a set of
//! protecting topics. It hides every event up to that number that has the topic and no protecting
//! topic. The protecting topics follow from the grants of the request: each event with a topic that
//! the grants do not cover has one of them. The effect of a stored deletion therefore depends
//! neither on patterns nor on the reader. The events that a deletion hides are looked up first, for
//! their floors; then floors and deletion are stored together (see `state_file`), and only then
//! become visible to readers. An acknowledged deletion is thus as durable as an event.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::Arc,
};

use tidings_topic::Topic;
use tokio::sync::oneshot;

use super::{
    index::{Name, Wanted, forwards},
    reading::{Fetcher, LOOKUP_MAX, index_after, until},
    shared::{Shared, segments_after},
};
use crate::{AppendError, Deleted, Entry, Grants, draft::Audience, ledger::number};

/// Most deletions and protecting topics whose events are still in the files. Beyond it deletions
/// are refused with [`AppendError::Full`].
pub(super) const DELETIONS_MAX: usize = 100_000;
/// Most topics that protect events from one deletion.
const PROTECTING_MAX: usize = 10_000;
/// Most deletions of one topic that do not replace each other, because different topics protected
/// from them.
const DELETIONS_OF_TOPIC_MAX: usize = 64;

/// The deletions that still hide something. Cloning one in an `Arc` is how readers keep it.
#[derive(Clone, Default, Debug)]
pub(super) struct Deletions {
    topics: HashMap<Topic, Vec<Deletion>>,
    /// How many there were since the log was opened.
    pub(super) serial: u64,
}

/// A deletion of a topic.
#[derive(Clone, Debug)]
pub(super) struct Deletion {
    /// The newest event that it took.
    pub(super) through: u64,
    serial: u64,
    /// Events with one of these topics stayed. Sorted.
    pub(super) protecting: Arc<[Topic]>,
}

impl Deletion {
    /// One that was written down.
    pub(super) fn stored(through: u64, mut protecting: Vec<Topic>) -> Self {
        protecting.sort_unstable();
        Self { through, serial: 0, protecting: protecting.into() }
    }

    fn takes(&self, topics: &[Topic]) -> bool {
        !topics.iter().any(|topic| self.protecting.binary_search(topic).is_ok())
    }

    /// Whether it took everything that another one took.
    fn covers(&self, other: &Self) -> bool {
        other.through <= self.through
            && self.protecting.iter().all(|topic| other.protecting.binary_search(topic).is_ok())
    }
}

impl Deletions {
    /// The deletions that were written down.
    pub(super) fn stored(deletions: impl Iterator<Item = (Topic, Deletion)>) -> Self {
        let mut topics: HashMap<_, Vec<_>> = HashMap::new();
        for (topic, deletion) in deletions {
            topics.entry(topic).or_default().push(deletion);
        }
        Self { topics, serial: 0 }
    }

    /// Without what lies beyond the newest event: those numbers are of an end that was lost, and
    /// will be used again.
    pub(super) fn up_to(&self, newest: u64) -> Self {
        let mut deletions = self.clone();
        for deletion in deletions.topics.values_mut().flatten() {
            deletion.through = newest.min(deletion.through);
        }
        deletions
    }

    /// One more, without those that hide nothing any more: everything up to the front is hidden.
    fn with(&self, taken: &Taken, front: u64) -> Self {
        let serial = self.serial + 1;
        let protecting = taken.protecting.iter().cloned().collect();
        let new = Deletion { through: taken.through, serial, protecting };
        let mut deletions = self.without(|deletion| deletion.through <= front);
        deletions.serial = serial;
        let of_topic = deletions.topics.entry(taken.topic.clone()).or_default();
        of_topic.retain(|known| !new.covers(known));
        of_topic.push(new);
        deletions
    }

    /// Without those of which this says that nothing is left.
    fn without(&self, is_done: impl Fn(&Deletion) -> bool) -> Self {
        let mut deletions = self.clone();
        deletions.topics.retain(|_, of_topic| {
            of_topic.retain(|deletion| !is_done(deletion));
            !of_topic.is_empty()
        });
        deletions
    }

    /// Without those of which this says that nothing is left, by the newest event that they took
    /// and their serial.
    pub(super) fn without_done(&self, is_done: impl Fn(u64, u64) -> bool) -> Self {
        self.without(|deletion| is_done(deletion.through, deletion.serial))
    }

    pub(super) fn hides(&self, entry: &Entry) -> bool {
        number(entry.cursor.position) <= self.through(&entry.event.topics)
    }

    /// Up to where events with these topics are deleted.
    pub(super) fn through(&self, topics: &[Topic]) -> u64 {
        if self.topics.is_empty() {
            return 0;
        }
        let of_topics = topics.iter().filter_map(|topic| self.topics.get(topic)).flatten();
        let taking = of_topics.filter(|deletion| deletion.takes(topics));
        taking.map(|deletion| deletion.through).max().unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Topic, &Deletion)> {
        self.topics
            .iter()
            .flat_map(|(topic, of_topic)| of_topic.iter().map(move |deletion| (topic, deletion)))
    }

    /// Why there are too many to be kept in memory, if there are.
    fn excess(&self, topic: &Topic) -> Option<String> {
        let count: usize = self.iter().map(|(_, deletion)| 1 + deletion.protecting.len()).sum();
        let of_topic = self.topics.get(topic).map_or(0, Vec::len);
        (count > DELETIONS_MAX || of_topic > DELETIONS_OF_TOPIC_MAX).then(|| {
            format!(
                "{count} topics are deleted, or protect from that, whose events are still in the files, and {of_topic} such deletions are of this topic; \
                 delete with a key that covers all topics of its events, or wait until retention frees them"
            )
        })
    }
}

/// A deletion on its way to the writer.
#[derive(Debug)]
pub(super) struct Delete {
    pub(super) taken: Taken,
    pub(super) answer: oneshot::Sender<Result<Deleted, AppendError>>,
}

/// What a deletion takes.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) topic: Topic,
    pub(super) through: u64,
    pub(super) count: u64,
    /// How many events of the topic stay, because the grants do not cover all of their topics, and
    /// one such topic of each.
    pub(super) kept: u64,
    protecting: BTreeSet<Topic>,
    /// The newest event for each audience.
    pub(super) audiences: HashMap<Audience, u64>,
    /// The first events of the segments in which something is taken.
    segments: Vec<u64>,
}

impl Shared {
    /// What a deletion of this topic with these grants would take now. Reads the events of the
    /// topic, and no others.
    pub(super) fn taken_with(&self, topic: &Topic, grants: &Grants) -> io::Result<Taken> {
        let front = self.expire()?.front;
        let (segments, newest) = self.acknowledged();
        let hiding = self.state().hiding.clone();
        let wanted = Wanted::Named(vec![Name::Topic(topic.clone())]);
        let mut taken = Taken {
            topic: topic.clone(),
            through: newest,
            count: 0,
            kept: 0,
            protecting: BTreeSet::new(),
            audiences: HashMap::new(),
            segments: Vec::new(),
        };
        for segment in segments_after(&segments, front) {
            let mut fetcher = Fetcher::new(self, segment);
            let mut next = index_after(segment, front);
            let before = taken.count;
            loop {
                let places = self.places(segment, (next, until(segment, newest)), |places, range| {
                    forwards(places, &wanted, segment.header.salt, range, LOOKUP_MAX)
                })?;
                for (index, offset) in &places {
                    let bears_it =
                        |entry: &Arc<Entry>| entry.event.topics.contains(topic) && !hiding.hides(entry);
                    if let Some(entry) = fetcher.get_hidden_too(*index, *offset)?.filter(bears_it) {
                        taken.consider(&entry, grants);
                    }
                }
                match places.last() {
                    Some((index, _)) if places.len() == LOOKUP_MAX => next = index + 1,
                    _ => break,
                }
            }
            if taken.count > before {
                taken.segments.push(segment.first());
            }
        }
        Ok(taken)
    }
}

impl Taken {
    fn consider(&mut self, entry: &Entry, grants: &Grants) {
        let topics = &entry.event.topics;
        let Some(uncovered) = topics.iter().find(|topic| !grants.covers(topic)) else {
            self.count += 1;
            self.audiences.insert(Audience::of(&entry.event), number(entry.cursor.position));
            return;
        };
        self.kept += 1;
        let is_protected = topics.iter().any(|topic| self.protecting.contains(topic));
        // More than may be are refused anyway.
        if !is_protected && self.protecting.len() <= PROTECTING_MAX {
            self.protecting.insert(uncovered.clone());
        }
    }
}

impl super::writer::Writer {
    /// Writes a deletion down and publishes it.
    pub(super) fn delete(&mut self, taken: Taken) -> Result<Deleted, AppendError> {
        if let Err(error) = self.check_place() {
            self.complain(&error);
            return Err(super::writer::refused(&error));
        }
        let shared = Arc::clone(&self.shared);
        let mut retention = shared.retention();
        if taken.protecting.len() > PROTECTING_MAX {
            return Err(AppendError::Full(format!(
                "more than {PROTECTING_MAX} topics that the key does not cover share events with this one; delete with a key that covers them"
            )));
        }
        let deletions = retention.hiding.deletions.with(&taken, retention.front);
        if let Some(excess) = deletions.excess(&taken.topic) {
            return Err(AppendError::Full(excess));
        }
        let before = (retention.floors.clone(), Arc::clone(&retention.hiding.deletions));
        for (audience, number) in taken.audiences {
            retention.floors.record(number, audience, &self.limits);
        }
        retention.hiding.deletions = Arc::new(deletions);
        if let Err(error) = shared.save_front(&retention) {
            (retention.floors, retention.hiding.deletions) = before;
            self.complain(&error);
            return Err(super::writer::refused(&error));
        }
        // What was counted under rules is counted off while the old deletions hold, and whatever
        // goes wrong with that is made good by counting anew.
        let after = retention.hiding.clone();
        retention.hiding.deletions = before.1;
        let counted_off = retention.forget_deleted(&shared, &taken.topic, &taken.segments, &after);
        retention.hiding = after;
        match counted_off {
            Ok(()) => retention.look_again(),
            Err(_) => retention.recount(),
        }
        retention.touched.extend(taken.segments);
        let serial = retention.hiding.deletions.serial;
        shared.state().hiding = retention.hiding.clone();
        drop(retention);
        self.notifier.send_replace(());
        Ok(Deleted { count: taken.count, kept: taken.kept, serial })
    }
}
