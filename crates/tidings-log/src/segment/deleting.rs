//! What a deletion would delete: looked up before it is written, since its record has the floors of
//! the deleted events.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::Arc,
};

use tidings_topic::Topic;

use super::{
    event_reader::{EventReader, FoundEvents},
    index::{Direction, Row, Wanted},
    open_log::OpenLog,
    rule_retention::DeletedUnderRule,
};
use crate::{Entry, Grants, MemoryLimits, draft::Audience, ledger::floors::Floors, numbers::number};

/// Most topics that protect events from one deletion.
const PROTECTING_MAX: usize = 10_000;

/// What a deletion deletes.
#[derive(Debug)]
pub(super) struct DeletionPlan {
    pub(super) topic: Topic,
    /// The newest event at the time.
    pub(super) through: u64,
    pub(super) count: u64,
    /// How many events of the topic stay, because the grants do not cover all of their topics.
    pub(super) kept: u64,
    /// One topic of each of these that the grants do not cover.
    pub(super) protecting: BTreeSet<Topic>,
    /// The newest deleted event of each audience.
    pub(super) floors: Floors,
    /// The segments with deleted events, by their first events, in order.
    pub(super) segments: Vec<u64>,
    pub(super) under_rules: Vec<DeletedUnderRule>,
}

impl DeletionPlan {
    /// What a deletion of this topic with these grants would delete now. Reads the events of the
    /// topic, and no others.
    pub(super) fn new(log: &OpenLog, topic: &Topic, grants: &Grants) -> io::Result<Self> {
        let store = &log.store;
        let ((segments, extent), (front, hiding)) =
            log.settled(|horizon| (horizon.front, horizon.hiding.clone()))?;
        let wanted = Wanted::Topics(vec![topic.clone()]);
        // Matching patterns takes a while.
        let mut known: HashMap<Audience, Option<u8>> = HashMap::new();
        let mut rule_of = |audience: &Audience| match known.get(audience) {
            _ if hiding.rules.is_empty() => None,
            Some(rule) => *rule,
            None => *known.entry(audience.clone()).or_insert(hiding.rule(&audience.topics)),
        };
        let mut plan = Self {
            topic: topic.clone(),
            through: extent.newest,
            count: 0,
            kept: 0,
            protecting: BTreeSet::new(),
            floors: Floors::default(),
            segments: Vec::new(),
            under_rules: Vec::new(),
        };
        // Events that have expired and are not freed yet are in its floors, too: with other limits
        // they would not have expired when the log is opened again, and still be deleted.
        for segment in segments.iter() {
            let mut reader = EventReader::new(store, segment);
            let before = plan.count;
            let range = (0, extent.newest);
            for found in FoundEvents::new((store, segment), &wanted, range, Direction::OldestFirst) {
                let (number, row) = found?;
                let has_topic = |entry: &Arc<Entry>| entry.event.topics.contains(topic);
                if let Some(entry) = reader.get(number, row.offset)?.filter(has_topic) {
                    let is_visible = number > front && !hiding.hide(&entry);
                    plan.consider((&*entry, row, is_visible), grants, &mut rule_of, &store.limits);
                }
            }
            if plan.count > before {
                plan.segments.push(segment.first());
            }
        }
        Ok(plan)
    }

    fn consider(
        &mut self,
        (entry, row, is_visible): (&Entry, Row, bool),
        grants: &Grants,
        rule_of: &mut impl FnMut(&Audience) -> Option<u8>,
        limits: &MemoryLimits,
    ) {
        let topics = &entry.event.topics;
        let Some(uncovered) = topics.iter().find(|topic| !grants.covers(topic)) else {
            let number = number(entry.cursor.position);
            let audience = Audience::of(&entry.event);
            if is_visible && let Some(rule) = rule_of(&audience) {
                self.under_rules.push(DeletedUnderRule { number, bytes: row.length, rule });
            }
            self.count += u64::from(is_visible);
            self.floors.record(number, audience, limits);
            return;
        };
        self.kept += u64::from(is_visible);
        let is_protected = topics.iter().any(|topic| self.protecting.contains(topic));
        // More than may be are refused anyway.
        if !is_protected && self.protecting.len() <= PROTECTING_MAX {
            self.protecting.insert(uncovered.clone());
        }
    }

    /// Why it is refused, if it is.
    pub(super) fn refusal(&self) -> Option<String> {
        (self.protecting.len() > PROTECTING_MAX).then(|| {
            format!(
                "more than {PROTECTING_MAX} topics that the key does not cover share events with this one; delete with a key that covers them"
            )
        })
    }
}
