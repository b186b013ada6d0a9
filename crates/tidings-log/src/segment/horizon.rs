//! What is hidden: the front of the log, the floors that report it, what is hidden after the front,
//! and what will expire next.
//!
//! Readers decide from this, without reading a file, whether anything else has expired meanwhile.

use super::{acknowledged::Extent, hiding::Hiding, settings::SegmentSettings};
use crate::{RetentionRule, Timestamp, ledger::floors::Floors};

/// What is hidden.
#[derive(Debug)]
pub(super) struct Horizon {
    /// The newest hidden event before which everything is hidden.
    pub(super) front: u64,
    pub(super) floors: Floors,
    pub(super) hiding: Hiding,
    pub(super) next: NextExpiries,
}

/// What will expire next, as far as it is known without reading a file.
#[derive(Debug, Default)]
pub(super) struct NextExpiries {
    /// The event after the front.
    pub(super) at_front: Option<NextAtFront>,
    /// Compaction has removed events after the front.
    pub(super) some_removed: bool,
    /// All events up to here are counted below.
    pub(super) counted_through: u64,
    pub(super) of_rules: Vec<NextOfRule>,
}

/// The event after the front.
#[derive(Clone, Copy, Debug)]
pub(super) struct NextAtFront {
    pub(super) number: u64,
    /// The bytes of the log before it.
    pub(super) start: u64,
    pub(super) time: Timestamp,
    /// It is hidden individually, lost or removed.
    pub(super) is_hidden: bool,
}

/// What a retention rule keeps.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct NextOfRule {
    pub(super) count: u64,
    pub(super) bytes: u64,
    /// The time of the oldest event.
    pub(super) time: Option<Timestamp>,
}

/// What may stay.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpiryLimits {
    /// Nothing up to this number.
    pub(super) through: u64,
    /// Nothing that begins before so many bytes of the log.
    pub(super) bytes: u64,
    /// Nothing from before this time.
    pub(super) time: Timestamp,
}

impl Horizon {
    /// Whether all fronts stay where they are.
    pub(super) fn is_settled(&self, settings: &SegmentSettings, extent: Extent, now: Timestamp) -> bool {
        let limits = ExpiryLimits::of(settings, extent, now);
        self.next.is_front_settled(self.front, &self.hiding, extent, &limits)
            && self.next.are_rules_settled(&self.hiding.rules, extent.newest, now)
    }
}

impl NextExpiries {
    pub(super) fn is_front_settled(
        &self,
        front: u64,
        hiding: &Hiding,
        extent: Extent,
        limits: &ExpiryLimits,
    ) -> bool {
        let nothing_expires = limits.through == 0
            && extent.start >= limits.bytes
            && limits.time == Timestamp::default()
            && hiding.is_empty()
            && !self.some_removed;
        front >= extent.newest
            || nothing_expires
            || self
                .at_front
                .is_some_and(|next| !next.is_hidden && !limits.exclude(next.number, next.start, next.time))
    }

    fn are_rules_settled(&self, rules: &[RetentionRule], newest: u64, now: Timestamp) -> bool {
        let is_settled = |(next, rule): (&NextOfRule, &RetentionRule)| {
            next.count == 0 || next.time.is_some_and(|time| !next.is_due(rule, time, now))
        };
        rules.is_empty() || self.counted_through >= newest && self.of_rules.iter().zip(rules).all(is_settled)
    }
}

impl NextOfRule {
    /// Whether the oldest event, of this time, has to expire.
    pub(super) fn is_due(&self, rule: &RetentionRule, time: Timestamp, now: Timestamp) -> bool {
        rule.count_max.is_some_and(|count_max| self.count > count_max)
            || rule.bytes_max.is_some_and(|bytes_max| self.bytes > bytes_max)
            || rule.age_max.is_some_and(|age_max| time < now.earlier_by(age_max))
    }
}

impl ExpiryLimits {
    pub(super) fn of(settings: &SegmentSettings, extent: Extent, now: Timestamp) -> Self {
        Self {
            through: settings.count_max.map_or(0, |count_max| extent.newest.saturating_sub(count_max)),
            bytes: extent.end.saturating_sub(settings.bytes_max),
            time: settings.age_max.map_or(Timestamp::default(), |age_max| now.earlier_by(age_max)),
        }
    }

    /// Whether an event may not stay.
    pub(super) fn exclude(&self, number: u64, start: u64, time: Timestamp) -> bool {
        number <= self.through || start < self.bytes || time < self.time
    }
}
