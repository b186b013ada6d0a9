//! Events after the front of the log that are hidden individually: deleted events, and events that
//! expired by a retention rule. Readers keep a cheap copy and check each event that they find.

use std::sync::Arc;

use tidings_topic::Topic;

use super::deletion::Deletions;
use crate::{Entry, RetentionRule, draft::Audience, ledger::number};

/// What is hidden one by one.
#[derive(Clone, Default, Debug)]
pub(super) struct Hiding {
    pub(super) deletions: Arc<Deletions>,
    pub(super) rules: Arc<[RetentionRule]>,
    /// For each rule the newest event under it that is hidden.
    pub(super) fronts: Arc<[u64]>,
}

/// What becomes of those who share an audience.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fate {
    /// The rule that they fall under.
    pub(super) rule: Option<u8>,
    /// A deletion took them up to this event.
    pub(super) deleted_through: u64,
}

impl Hiding {
    pub(super) fn new(deletions: Deletions, rules: &[RetentionRule], fronts: Vec<u64>) -> Self {
        Self { deletions: Arc::new(deletions), rules: rules.into(), fronts: fronts.into() }
    }

    pub(super) fn hides(&self, entry: &Entry) -> bool {
        self.is_expired(number(entry.cursor.position), &entry.event.topics) || self.deletions.hides(entry)
    }

    fn is_expired(&self, number: u64, topics: &[Topic]) -> bool {
        // Matching patterns takes a while, and what is newer than every front need not be matched.
        self.fronts.iter().any(|front| number <= *front)
            && RetentionRule::of(&self.rules, topics).is_some_and(|rule| number <= self.fronts[rule])
    }

    /// Whether there is anything that could hide an event.
    pub(super) fn is_empty(&self) -> bool {
        self.deletions.is_empty() && self.rules.is_empty()
    }

    pub(super) fn fate(&self, audience: &Audience) -> Fate {
        let rule = RetentionRule::of(&self.rules, &audience.topics);
        Fate {
            rule: rule.and_then(|rule| u8::try_from(rule).ok()),
            deleted_through: self.deletions.through(&audience.topics),
        }
    }

    /// Whether an event of this fate is hidden.
    pub(super) fn hides_fated(&self, fate: Fate, number: u64) -> bool {
        number <= fate.deleted_through
            || fate.rule.is_some_and(|rule| number <= self.fronts[usize::from(rule)])
    }
}
