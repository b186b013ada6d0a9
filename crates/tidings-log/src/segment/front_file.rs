//! The file `front`: what must outlive the segments that are freed and the events that compaction
//! removes. It is replaced as a whole before either, and when the log is closed.
//!
//! ```text
//! front    "tidfront" | format u32 | front u64 | deletions done through u64 | forgotten through u64 | floors u32, each number u64 and audience
//!          | keys u32, each key, first id, time u64, last event u64 | rules u32, each type, matcher and newest hidden event u64 | crc u32
//! ```
//!
//! If it is lost, a gap is reported to every reader.

use std::sync::Arc;

use super::small_file::SmallFile;
use crate::{
    MemoryLimits, RetentionRule,
    draft::Audience,
    ledger::{floors::Floors, keys::KnownKey},
    stored,
};

/// What is saved.
#[derive(Clone, Default, Debug)]
pub(super) struct SavedFront {
    /// Everything up to here is hidden, and its segments may be freed.
    pub(super) front: u64,
    /// Nothing is left of what the deletions up to this serial number deleted.
    pub(super) deletions_done_through: u64,
    /// Up to here it is forgotten who could have received what was dropped.
    pub(super) forgotten_through: u64,
    /// The newest dropped event of each audience beyond it.
    pub(super) floors: Vec<(u64, Arc<Audience>)>,
    /// The keys of batches up to the front, oldest first.
    pub(super) keys: Vec<KnownKey>,
    pub(super) rules: Vec<SavedRule>,
}

/// A retention rule, and the newest event that has expired by it.
#[derive(Clone, Debug)]
pub(super) struct SavedRule {
    matcher_type: String,
    matcher: String,
    front: u64,
}

impl SmallFile for SavedFront {
    const NAME: &str = "front";
    const MAGIC: [u8; 8] = *b"tidfront";
    /// What all floors in memory may take, and more.
    const BYTES_MAX: usize = 4 * MemoryLimits::FLOORS_BYTES_MAX;
}

stored!(SavedFront { front, deletions_done_through, forgotten_through, floors, keys, rules });
stored!(SavedRule { matcher_type, matcher, front });
stored!(KnownKey { key, first_id, time, last });

impl SavedFront {
    /// The log ends with this event: what was behind it is lost, and its numbers will be used again.
    pub(super) fn end_with(&mut self, last: u64) {
        self.front = last.min(self.front);
        self.forgotten_through = last.min(self.forgotten_through);
        self.floors.retain(|(number, _)| *number <= last);
        self.keys.retain(|known| known.last <= last);
        for rule in &mut self.rules {
            rule.front = last.min(rule.front);
        }
    }

    /// The floors, within these limits.
    pub(super) fn floors(&self, limits: &MemoryLimits) -> Floors {
        let mut floors = Floors::default();
        floors.record_all(self.forgotten_through, &self.floors, limits);
        floors
    }

    /// The newest expired event of each of these rules.
    ///
    /// What was saved counts only if the rules are the same: with others an event would fall under
    /// another one, and be hidden without a report.
    pub(super) fn rule_fronts(&self, rules: &[RetentionRule]) -> Vec<u64> {
        let are_same = self.rules.len() == rules.len()
            && self.rules.iter().zip(rules).all(|(saved, rule)| saved.is_of(rule));
        if are_same { self.rules.iter().map(|rule| rule.front).collect() } else { vec![0; rules.len()] }
    }
}

impl SavedRule {
    pub(super) fn of(rule: &RetentionRule, front: u64) -> Self {
        let (matcher_type, matcher) = (rule.matcher.type_name().to_owned(), rule.matcher.as_str().to_owned());
        Self { matcher_type, matcher, front }
    }

    fn is_of(&self, rule: &RetentionRule) -> bool {
        self.matcher_type == rule.matcher.type_name() && self.matcher == rule.matcher.as_str()
    }
}
