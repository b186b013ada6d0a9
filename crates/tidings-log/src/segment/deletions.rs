//! Which events are deleted.
//!
//! A deletion consists of a topic, the number of the newest event at that time, and a set of
//! protecting topics. It hides every event up to that number that has the topic and no protecting
//! topic. The protecting topics follow from the grants of the request: each event with a topic that
//! the grants do not cover has one of them. The effect of a stored deletion therefore depends
//! neither on patterns nor on the reader.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use tidings_topic::Topic;

use crate::{Entry, numbers::number};

/// Most deletions and protecting topics whose events are still in the files. Beyond it deletions
/// are refused with [`AppendError::Full`](crate::AppendError::Full).
pub(super) const DELETIONS_MAX: usize = 100_000;
/// Most deletions of one topic that do not replace each other, because different topics protected
/// events from them.
const DELETIONS_OF_TOPIC_MAX: usize = 64;
/// Parts of the map of topics. A new deletion copies one of them, since readers keep the others.
const PARTS: usize = 256;

/// The deletions that still hide something. Cloning is cheap, and is how readers keep them.
#[derive(Clone, Debug)]
pub(super) struct Deletions {
    parts: Arc<[Arc<Part>]>,
    hasher: RandomState,
    /// How many deletions and protecting topics there are.
    weight: usize,
    /// The serial number of the newest deletion, also of one that hides nothing any more.
    pub(super) serial: u64,
}

type Part = HashMap<Topic, Vec<Deletion>>;

/// A deletion of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Deletion {
    /// Deletions are numbered in their order, beginning with one.
    pub(super) serial: u64,
    /// The newest event that it may have deleted.
    pub(super) through: u64,
    /// Events with one of these topics were kept. Sorted.
    pub(super) protecting: Arc<[Topic]>,
}

impl Deletion {
    fn applies_to(&self, topics: &[Topic]) -> bool {
        !topics.iter().any(|topic| self.protecting.binary_search(topic).is_ok())
    }

    /// Whether it deleted everything that another one deleted.
    fn covers(&self, other: &Self) -> bool {
        other.through <= self.through
            && self.protecting.iter().all(|topic| other.protecting.binary_search(topic).is_ok())
    }

    fn weight(&self) -> usize {
        1 + self.protecting.len()
    }
}

impl Default for Deletions {
    fn default() -> Self {
        let parts = std::iter::repeat_with(Arc::default).take(PARTS).collect();
        Self { parts, hasher: RandomState::new(), weight: 0, serial: 0 }
    }
}

impl Deletions {
    /// Adds a deletion, and forgets those that it covers.
    pub(super) fn add(&mut self, topic: &Topic, new: Deletion) {
        self.serial = self.serial.max(new.serial);
        let mut weight = self.weight;
        let of_topic = self.part_mut(topic).entry(topic.clone()).or_default();
        of_topic.retain(|known| {
            let is_covered = new.covers(known);
            weight -= if is_covered { known.weight() } else { 0 };
            !is_covered
        });
        weight += new.weight();
        of_topic.push(new);
        self.weight = weight;
    }

    /// Forgets some deletions, each given with its topic and serial number.
    pub(super) fn remove(&mut self, done: &[(Topic, u64)]) {
        for (topic, serial) in done {
            let part = self.part_mut(topic);
            let Some(of_topic) = part.get_mut(topic) else { continue };
            let removed: Vec<_> = of_topic.extract_if(.., |known| known.serial == *serial).collect();
            if of_topic.is_empty() {
                part.remove(topic);
            }
            self.weight -= removed.iter().map(Deletion::weight).sum::<usize>();
        }
    }

    fn part_mut(&mut self, topic: &Topic) -> &mut Part {
        let place = self.place_of(topic);
        Arc::make_mut(&mut Arc::make_mut(&mut self.parts)[place])
    }

    fn place_of(&self, topic: &Topic) -> usize {
        usize::try_from(self.hasher.hash_one(topic) % PARTS as u64).expect("it is less than PARTS")
    }

    /// Whether an event is deleted.
    pub(super) fn hide(&self, entry: &Entry) -> bool {
        number(entry.cursor.position) <= self.through(&entry.event.topics)
    }

    /// Up to where events with these topics are deleted.
    pub(super) fn through(&self, topics: &[Topic]) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let of_topics = topics.iter().filter_map(|topic| self.parts[self.place_of(topic)].get(topic));
        let applying = of_topics.flatten().filter(|deletion| deletion.applies_to(topics));
        applying.map(|deletion| deletion.through).max().unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.weight == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Topic, &Deletion)> {
        self.parts
            .iter()
            .flat_map(|part| &**part)
            .flat_map(|(topic, of_topic)| of_topic.iter().map(move |deletion| (topic, deletion)))
    }

    /// The newest deletion up to which none hides anything after the front of the log any more.
    pub(super) fn done_through(&self, front: u64) -> u64 {
        let hiding = self.iter().filter(|(_, deletion)| deletion.through > front);
        hiding.map(|(_, deletion)| deletion.serial - 1).min().unwrap_or(self.serial)
    }

    /// Why there are too many to be kept in memory after a deletion of this topic, if there are.
    pub(super) fn excess(&self, topic: &Topic) -> Option<String> {
        let count = self.weight;
        let of_topic = self.parts[self.place_of(topic)].get(topic).map_or(0, Vec::len);
        (count > DELETIONS_MAX || of_topic > DELETIONS_OF_TOPIC_MAX).then(|| {
            format!(
                "{count} topics are deleted, or protect from that, whose events are still in the files, and {of_topic} such deletions are of this topic; \
                 delete with a key that covers all topics of its events, or wait until retention frees them"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> Topic {
        Topic::from_stored(text).expect("a topic")
    }

    fn deletion(serial: u64, through: u64, protecting: &[&str]) -> Deletion {
        Deletion { serial, through, protecting: protecting.iter().map(|text| topic(text)).collect() }
    }

    #[test]
    fn a_deletion_replaces_those_it_covers_and_no_others() {
        let mut deletions = Deletions::default();
        deletions.add(&topic("a"), deletion(1, 5, &["p"]));
        deletions.add(&topic("a"), deletion(2, 9, &["p", "q"]));
        assert_eq!(deletions.iter().count(), 2, "the second spares events that the first deleted");
        assert_eq!(deletions.through(&[topic("a")]), 9);
        assert_eq!(deletions.through(&[topic("a"), topic("q")]), 5);
        assert_eq!(deletions.through(&[topic("a"), topic("p")]), 0);
        assert_eq!((deletions.weight, deletions.done_through(0)), (5, 0));
        let kept = deletions.clone();
        deletions.add(&topic("a"), deletion(3, 9, &[]));
        assert_eq!((deletions.iter().count(), deletions.weight, deletions.done_through(8)), (1, 1, 2));
        assert_eq!(deletions.done_through(9), 3, "everything that it deleted has expired");
        assert_eq!(kept.iter().count(), 2, "a reader keeps what it has");
        deletions.remove(&[(topic("a"), 2), (topic("b"), 3), (topic("a"), 3)]);
        assert!(deletions.is_empty());
        assert_eq!((deletions.through(&[topic("a")]), deletions.done_through(0)), (0, 3));
    }

    #[test]
    fn too_many_deletions_of_a_topic_are_an_excess() {
        let mut deletions = Deletions::default();
        for serial in 1..=65 {
            assert_eq!(deletions.excess(&topic("a")), None);
            deletions.add(&topic("a"), deletion(serial, serial, &[&format!("p{serial}")]));
        }
        assert!(deletions.excess(&topic("a")).is_some());
        assert_eq!(deletions.excess(&topic("b")), None);
    }
}
