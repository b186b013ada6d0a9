//! Deleted topics: what they took is hidden at once, and its bytes are taken out by compaction.
//!
//! A deletion is a topic and the newest event at that time. It hides every event up to there that bears the topic, and no later one. To know whom to tell,
//! the events that it takes are looked up first; then floors and deletion are written down together (see `state_file`), and only then
//! published. So a deletion that was answered survives the process as an event does.

use std::{collections::HashMap, io, sync::Arc};

use tidings_topic::Topic;
use tokio::sync::oneshot;

use super::{
    index::{Name, Wanted, forwards},
    reading::{Fetcher, LOOKUP_MAX, index_after, until},
    shared::{Shared, segments_after},
};
use crate::{AppendError, Deleted, Entry, draft::Audience, ledger::number};

/// Most topics that are deleted while events of them are in the files. Beyond it deletions are refused as [`AppendError::Full`].
pub(super) const DELETIONS_MAX: usize = 100_000;

/// The deletions that still hide something. Cloning one in an `Arc` is how readers keep it.
#[derive(Clone, Default, Debug)]
pub(super) struct Deletions {
    /// The newest deletion of each topic: the newest event that it took, and its serial.
    throughs: HashMap<Topic, (u64, u64)>,
    /// How many there were since the log was opened.
    pub(super) serial: u64,
}

impl Deletions {
    /// The deletions that were written down.
    pub(super) fn stored(through: impl Iterator<Item = (Topic, u64)>) -> Self {
        Self { throughs: through.map(|(topic, through)| (topic, (through, 0))).collect(), serial: 0 }
    }

    /// Without what lies beyond the newest event: those numbers are of an end that was lost, and will be used again.
    pub(super) fn up_to(&self, newest: u64) -> Self {
        let mut throughs = self.throughs.clone();
        for (through, _) in throughs.values_mut() {
            *through = newest.min(*through);
        }
        Self { throughs, serial: self.serial }
    }

    /// One more, without those that hide nothing any more: everything up to the front is hidden.
    fn with(&self, topic: Topic, through: u64, front: u64) -> Self {
        let (mut throughs, serial) = (self.throughs.clone(), self.serial + 1);
        throughs.insert(topic, (through, serial));
        throughs.retain(|_, (through, _)| *through > front);
        Self { throughs, serial }
    }

    /// Without those of which this says that nothing is left: by the newest event that they took, and their serial.
    pub(super) fn without(&self, is_done: impl Fn(u64, u64) -> bool) -> Self {
        let mut throughs = self.throughs.clone();
        throughs.retain(|_, (through, serial)| !is_done(*through, *serial));
        Self { throughs, serial: self.serial }
    }

    pub(super) fn hides(&self, entry: &Entry) -> bool {
        number(entry.cursor.position) <= self.through(&entry.event.topics)
    }

    /// Up to where events with these topics are deleted.
    pub(super) fn through(&self, topics: &[Topic]) -> u64 {
        if self.throughs.is_empty() {
            return 0;
        }
        let through = |topic| self.throughs.get(topic).map(|(through, _)| *through);
        topics.iter().filter_map(through).max().unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.throughs.is_empty()
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&Topic, u64)> {
        self.throughs.iter().map(|(topic, (through, _))| (topic, *through))
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
    /// The newest event for each audience.
    pub(super) audiences: HashMap<Audience, u64>,
    /// The first events of the segments in which something is taken.
    segments: Vec<u64>,
}

impl Shared {
    /// What a deletion of this topic would take now. Reads the events of the topic, and no others.
    pub(super) fn taken_with(&self, topic: &Topic) -> io::Result<Taken> {
        let front = self.expire()?.front;
        let (segments, newest) = self.acknowledged();
        let hiding = self.state().hiding.clone();
        let wanted = Wanted::Named(vec![Name::Topic(topic.clone())]);
        let mut taken = Taken {
            topic: topic.clone(),
            through: newest,
            count: 0,
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
                        taken.count += 1;
                        taken.audiences.insert(Audience::of(&entry.event), number(entry.cursor.position));
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

impl super::writer::Writer {
    /// Writes a deletion down and publishes it.
    pub(super) fn delete(&mut self, taken: Taken) -> Result<Deleted, AppendError> {
        let shared = Arc::clone(&self.shared);
        let mut retention = shared.retention();
        let deletions = retention.hiding.deletions.with(taken.topic.clone(), taken.through, retention.front);
        if deletions.iter().len() > DELETIONS_MAX {
            return Err(AppendError::Full(format!(
                "{DELETIONS_MAX} topics are deleted whose events are still in the files; wait until retention frees them"
            )));
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
        // What was counted under rules is counted off while the old deletions hold, and whatever goes wrong with that is made good by counting anew.
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
        self.bell.send_replace(());
        Ok(Deleted { count: taken.count, serial })
    }
}
