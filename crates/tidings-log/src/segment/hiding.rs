//! Events after the front of the log that are hidden individually: deleted events, and events that
//! expired by a retention rule. Readers keep a cheap copy and check each event that they find.

use std::sync::Arc;

use tidings_topic::Topic;

use super::deletions::Deletions;
use crate::{Entry, RetentionRule, draft::Audience, numbers::number};

/// What is hidden individually.
#[derive(Clone, Default, Debug)]
pub(super) struct Hiding {
    pub(super) deletions: Deletions,
    pub(super) rules: Arc<[RetentionRule]>,
    /// For each rule the newest event under it that is hidden.
    pub(super) fronts: Arc<[u64]>,
}

/// What becomes of the events of one audience.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fate {
    /// The rule that applies to them.
    pub(super) rule: Option<u8>,
    /// They are deleted up to this event.
    pub(super) deleted_through: u64,
}

impl Hiding {
    pub(super) fn new(rules: &[RetentionRule], fronts: Vec<u64>) -> Self {
        Self { deletions: Deletions::default(), rules: rules.into(), fronts: fronts.into() }
    }

    pub(super) fn hide(&self, entry: &Entry) -> bool {
        self.is_expired(number(entry.cursor.position), &entry.event.topics) || self.deletions.hide(entry)
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

    /// The rule that applies to events with these topics.
    pub(super) fn rule(&self, topics: &[Topic]) -> Option<u8> {
        RetentionRule::of(&self.rules, topics).and_then(|rule| u8::try_from(rule).ok())
    }

    pub(super) fn fate(&self, audience: &Audience) -> Fate {
        let deleted_through = self.deletions.through(&audience.topics);
        Fate { rule: self.rule(&audience.topics), deleted_through }
    }

    /// Whether an event of this fate is hidden.
    pub(super) fn hide_fated(&self, fate: Fate, number: u64) -> bool {
        number <= fate.deleted_through || fate.rule.is_some_and(|rule| self.is_expired_by(rule, number))
    }

    /// Whether an event to which this rule applies has expired by it.
    pub(super) fn is_expired_by(&self, rule: u8, number: u64) -> bool {
        number <= self.fronts[usize::from(rule)]
    }
}
