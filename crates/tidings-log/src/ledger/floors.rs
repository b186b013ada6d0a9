//! Floors: the events that retention and deletions removed, and their audiences.
//!
//! For each audience the newest removed event is remembered, so that a reader gets a gap notice if,
//! and only if, it missed an event. The number of floors is bounded: beyond the limit the oldest
//! are merged into one position, up to which every reader may have missed an event.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use tidings_topic::Topic;

use crate::{
    MemoryLimits,
    draft::{Audience, FloorDraft, Plan, Private, Reach},
    numbers::position,
};

/// The newest removed event of each audience.
#[derive(Clone, Debug, Default)]
pub struct Floors {
    numbers: HashMap<Arc<Audience>, u64>,
    audiences: BTreeMap<u64, Arc<Audience>>,
    topics: HashMap<Topic, TopicFloors>,
    bytes: usize,
    newest: u64,
    newest_public: u64,
    /// Up to here it is forgotten who could have received what was dropped.
    forgotten_through: u64,
}

/// The floors of all audiences that have one topic.
#[derive(Clone, Debug, Default)]
struct TopicFloors {
    public: BTreeSet<u64>,
    private: BTreeSet<u64>,
}

impl TopicFloors {
    fn of(&mut self, private: bool) -> &mut BTreeSet<u64> {
        if private { &mut self.private } else { &mut self.public }
    }
}

impl Floors {
    /// Records a removed event.
    pub fn record(&mut self, number: u64, audience: Audience, limits: &MemoryLimits) {
        self.newest = self.newest.max(number);
        if !audience.private {
            self.newest_public = self.newest_public.max(number);
        }
        if number <= self.forgotten_through {
            return;
        }
        // In a log that is full every append comes here, nearly always for an audience that is
        // known.
        if let Some(newest) = self.numbers.get_mut(&audience) {
            if *newest < number {
                let old = std::mem::replace(newest, number);
                self.raise(old, number);
            }
            return;
        }
        self.insert(number, Arc::new(audience));
        while self.audiences.len() > limits.floors_max || self.bytes > MemoryLimits::FLOORS_BYTES_MAX {
            self.forget_oldest();
        }
    }

    /// Records what was known of other floors: the newest removed event of each audience, beyond a
    /// number up to which audiences were forgotten.
    #[cfg(unix)]
    pub(crate) fn record_all(
        &mut self,
        forgotten_through: u64,
        floors: &[(u64, Arc<Audience>)],
        limits: &MemoryLimits,
    ) {
        self.forget_through(forgotten_through);
        for (number, audience) in floors {
            self.record(*number, Audience::clone(audience), limits);
        }
    }

    /// Records that the audiences of removed events up to this number are no longer known.
    pub fn forget_through(&mut self, number: u64) {
        self.newest = self.newest.max(number);
        self.newest_public = self.newest_public.max(number);
        self.forgotten_through = self.forgotten_through.max(number);
    }

    /// The number up to which audiences are no longer known, and the newest removed event of each
    /// audience beyond it, oldest first.
    pub fn known(&self) -> (u64, impl Iterator<Item = (u64, &Audience)>) {
        (self.forgotten_through, self.audiences.iter().map(|(number, audience)| (*number, &**audience)))
    }

    /// The oldest floors after a number, at most `count_max`.
    #[cfg(unix)]
    pub(crate) fn after(&self, after: u64, count_max: usize) -> Vec<(u64, Arc<Audience>)> {
        let newer = self.audiences.range(after.saturating_add(1)..).take(count_max);
        newer.map(|(number, audience)| (*number, Arc::clone(audience))).collect()
    }

    /// The floors after a number that may apply to a plan.
    pub fn draft(&self, plan: &Plan<'_>, after: u64) -> FloorDraft {
        let mut sure = self.forgotten_through;
        let mut unsure = Vec::new();
        match &plan.reach {
            Reach::Everything => {
                let known = if plan.private == Private::All { self.newest } else { self.newest_public };
                sure = sure.max(known);
                if plan.private == Private::Some {
                    unsure = self.newer_than(sure.max(after), |audience| audience.private);
                }
            }
            Reach::Topics(topics) => (sure, unsure) = self.of_topics(topics, plan.private, after),
            Reach::Unknown => {
                unsure = self.newer_than(sure.max(after), |audience| {
                    !audience.private || plan.private != Private::None
                });
            }
        }
        let unsure = unsure.into_iter().map(|(number, audience)| (position(number), audience)).collect();
        FloorDraft { sure: (sure > after).then(|| position(sure)), unsure }
    }

    fn of_topics(
        &self,
        topics: &[(&Topic, bool)],
        private: Private,
        after: u64,
    ) -> (u64, Vec<(u64, Arc<Audience>)>) {
        let mut sure = self.forgotten_through;
        for (topic, covered) in topics {
            if let Some(floors) = self.topics.get(*topic) {
                let private = floors.private.last().filter(|_| *covered);
                let newest = floors.public.last().max(private).copied();
                sure = sure.max(newest.unwrap_or_default());
            }
        }
        // A private event on a topic that is not covered may still be received by way of another of
        // its topics.
        let mut unsure = BTreeMap::new();
        for (topic, covered) in topics {
            if private == Private::None || *covered {
                continue;
            }
            if let Some(floors) = self.topics.get(*topic) {
                let newer = floors.private.range(sure.max(after).saturating_add(1)..);
                unsure.extend(newer.map(|number| (*number, Arc::clone(&self.audiences[number]))));
            }
        }
        (sure, unsure.into_iter().rev().collect())
    }

    fn newer_than(&self, number: u64, wanted: impl Fn(&Audience) -> bool) -> Vec<(u64, Arc<Audience>)> {
        let newer = self.audiences.range(number.saturating_add(1)..).rev();
        newer
            .filter(|(_, audience)| wanted(audience))
            .map(|(number, audience)| (*number, Arc::clone(audience)))
            .collect()
    }

    fn forget_oldest(&mut self) {
        if let Some(&number) = self.audiences.keys().next() {
            self.forgotten_through = number;
            self.remove(number);
        }
    }

    /// Moves the floor of an audience up.
    fn raise(&mut self, old: u64, number: u64) {
        let Some(audience) = self.audiences.remove(&old) else { return };
        for topic in &audience.topics {
            if let Some(floors) = self.topics.get_mut(topic) {
                let numbers = floors.of(audience.private);
                numbers.remove(&old);
                numbers.insert(number);
            }
        }
        self.audiences.insert(number, audience);
    }

    fn insert(&mut self, number: u64, audience: Arc<Audience>) {
        self.bytes += bytes_of(&audience);
        for topic in &audience.topics {
            self.topics.entry(topic.clone()).or_default().of(audience.private).insert(number);
        }
        self.numbers.insert(Arc::clone(&audience), number);
        self.audiences.insert(number, audience);
    }

    fn remove(&mut self, number: u64) {
        let Some(audience) = self.audiences.remove(&number) else { return };
        self.bytes -= bytes_of(&audience);
        self.numbers.remove(&audience);
        for topic in &audience.topics {
            if let Some(floors) = self.topics.get_mut(topic) {
                floors.of(audience.private).remove(&number);
                if floors.public.is_empty() && floors.private.is_empty() {
                    self.topics.remove(topic);
                }
            }
        }
    }
}

fn bytes_of(audience: &Audience) -> usize {
    let topics: usize = audience.topics.iter().map(|topic| topic.as_str().len() + TOPIC_BYTES).sum();
    topics + AUDIENCE_BYTES
}

/// Memory of one floor beside its topics: a place in the map and one in the tree.
const AUDIENCE_BYTES: usize = 120;

/// Memory of one topic of a floor beside its text: a handle, a place in the map, a leaf of the
/// tree.
const TOPIC_BYTES: usize = 200;
