//! Which changes are due: the difference between who is present and who is recorded as present.
//! Those who left are due only after a grace. Subscriptions are recorded by their own hub: what differs
//! for longer than that takes is due, such as the end of those of a hub that died.
//!
//! This module has no clock: time is an argument.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::change::{Change, Member};

/// How long a subscription that began or ended may be left to its own hub.
const OWN_TIME: Duration = Duration::from_secs(5);

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Reconciler {
    grace: Duration,
    /// Members whose presence and record may differ, with the time of their last change.
    unsettled: HashMap<Member, Instant>,
}

impl Reconciler {
    /// `members`: all who are present or recorded.
    pub(super) fn new(grace: Duration, members: impl IntoIterator<Item = Member>, now: Instant) -> Self {
        Self { grace, unsettled: members.into_iter().map(|member| (member, now)).collect() }
    }

    /// Members that came, left or were recorded since the last call.
    pub(super) fn note(&mut self, changed: impl IntoIterator<Item = Member>, now: Instant) {
        self.unsettled.extend(changed.into_iter().map(|member| (member, now)));
    }

    /// The changes that are due. They stay due until they are recorded. `is_current`: whether one who
    /// is not seen has left; otherwise nobody leaves, and what waits begins to wait anew.
    pub(super) fn due(
        &mut self,
        is_present: impl Fn(&Member) -> bool,
        recorded: &HashSet<Member>,
        is_current: bool,
        now: Instant,
    ) -> Vec<Change> {
        let mut due = Vec::new();
        self.unsettled.retain(|member, since| {
            let is_here = is_present(member);
            if is_here == recorded.contains(member) {
                return false;
            }
            let (waits, time) = match member {
                Member::Presence(_) => (!is_here, self.grace),
                Member::Subscription(_) => (true, OWN_TIME),
            };
            if waits && !is_current {
                *since = now;
            }
            if !waits || (is_current && now >= *since + time) {
                due.push(Change { member: member.clone(), is_here });
            }
            true
        });
        due.sort_by(|one, other| (one.kind(), one).cmp(&(other.kind(), other)));
        due
    }

    /// When the next one may be due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let time = |member: &Member| match member {
            Member::Presence(_) => self.grace,
            Member::Subscription(_) => OWN_TIME,
        };
        self.unsettled.iter().map(|(member, since)| *since + time(member)).min()
    }
}

#[cfg(test)]
mod tests {
    use tidings::ConnectionId;
    use tidings_presence::{ActiveSubscription, SubscriptionKey};

    use super::*;
    use crate::hooks::change::Kind::{self, Joined, Left, Occupied, Vacated};

    const GRACE: Duration = Duration::from_secs(10);

    fn member(label: Option<&str>) -> Member {
        Member::Presence(tidings_presence::Member { topic: "chat".into(), label: label.map(Into::into) })
    }

    /// A topic to which `ann` comes, and from which she leaves.
    struct Topic {
        reconciler: Reconciler,
        present: HashSet<Member>,
        recorded: HashSet<Member>,
        start: Instant,
    }

    impl Topic {
        fn new(recorded: &[Member]) -> Self {
            let start = Instant::now();
            Self {
                reconciler: Reconciler::new(GRACE, recorded.to_vec(), start),
                present: HashSet::new(),
                recorded: recorded.iter().cloned().collect(),
                start,
            }
        }

        fn ann(&mut self, is_here: bool, secs: u64) {
            let both = HashSet::from([member(None), member(Some("ann"))]);
            self.present = if is_here { both.clone() } else { HashSet::new() };
            self.reconciler.note(both, self.start + Duration::from_secs(secs));
        }

        /// Records what is due.
        fn due(&mut self, secs: u64, is_current: bool) -> Vec<Kind> {
            let now = self.start + Duration::from_secs(secs);
            let is_present = |member: &Member| self.present.contains(member);
            let due = self.reconciler.due(is_present, &self.recorded, is_current, now);
            for change in &due {
                if change.is_here {
                    self.recorded.insert(change.member.clone());
                } else {
                    self.recorded.remove(&change.member);
                }
            }
            due.iter().map(Change::kind).collect()
        }
    }

    #[test]
    fn one_who_comes_is_due_at_once_and_one_who_leaves_after_the_grace() {
        let mut topic = Topic::new(&[]);
        topic.ann(true, 0);
        assert_eq!(topic.due(0, true), [Occupied, Joined]);
        assert_eq!(topic.due(1, true), []);
        topic.ann(false, 2);
        assert_eq!(topic.due(11, true), []);
        assert_eq!(topic.reconciler.next_due(), Some(topic.start + Duration::from_secs(12)));
        assert_eq!(topic.due(12, true), [Left, Vacated]);
        assert_eq!(topic.due(13, true), []);
        assert_eq!(topic.reconciler.next_due(), None);
    }

    #[test]
    fn a_reload_of_a_page_is_no_change() {
        let mut topic = Topic::new(&[]);
        topic.ann(true, 0);
        topic.due(0, true);
        for secs in [5, 14, 23] {
            topic.ann(false, secs);
            topic.ann(true, secs + 1);
            assert_eq!(topic.due(secs + 1, true), []);
        }
        // Comes back and leaves between two looks: the grace begins anew.
        topic.ann(false, 30);
        topic.due(30, true);
        topic.ann(true, 39);
        topic.ann(false, 39);
        assert_eq!(topic.due(48, true), []);
        assert_eq!(topic.due(49, true), [Left, Vacated]);
    }

    #[test]
    fn those_who_were_recorded_by_a_hub_that_died_leave_after_the_grace() {
        let mut topic = Topic::new(&[member(None), member(Some("ann"))]);
        assert_eq!(topic.due(9, true), []);
        assert_eq!(topic.due(10, true), [Left, Vacated]);
    }

    #[test]
    fn nobody_leaves_while_it_is_unknown_who_is_present() {
        let mut topic = Topic::new(&[member(None), member(Some("ann"))]);
        assert_eq!(topic.due(20, false), []);
        assert_eq!(topic.due(29, true), []);
        assert_eq!(topic.due(30, true), [Left, Vacated]);
    }

    #[test]
    fn a_subscription_is_due_when_its_own_hub_has_not_recorded_it_in_time() {
        let start = Instant::now();
        let connection = ConnectionId::from_random([1; 16]);
        let key = SubscriptionKey { syntax: None, text: "chat".into(), connection };
        let subscription = Member::Subscription(ActiveSubscription { key, payload: None });
        for (is_here, kind) in [(true, Kind::Began), (false, Kind::Ended)] {
            let recorded: HashSet<_> = (!is_here).then(|| subscription.clone()).into_iter().collect();
            let mut reconciler = Reconciler::new(GRACE, [subscription.clone()], start);
            let mut due = |is_current, now| {
                let due = reconciler.due(|_| is_here, &recorded, is_current, now);
                (due.iter().map(Change::kind).collect::<Vec<_>>(), reconciler.next_due())
            };
            let later = start + OWN_TIME;
            assert_eq!(due(true, start), (vec![], Some(later)));
            assert_eq!(due(false, later), (vec![], Some(later + OWN_TIME)), "it is unknown who is there");
            assert_eq!(due(true, later + OWN_TIME).0, [kind]);
        }
    }

    #[test]
    fn a_subscription_that_its_own_hub_records_is_left_to_it() {
        let start = Instant::now();
        let connection = ConnectionId::from_random([1; 16]);
        let key = SubscriptionKey { syntax: None, text: "chat".into(), connection };
        let subscription = Member::Subscription(ActiveSubscription { key, payload: None });
        let recorded = HashSet::from([subscription.clone()]);
        let mut reconciler = Reconciler::new(GRACE, [subscription], start);
        assert_eq!(reconciler.due(|_| true, &HashSet::new(), true, start), []);
        assert_eq!(reconciler.due(|_| true, &recorded, true, start + OWN_TIME), []);
        assert_eq!(reconciler.next_due(), None);
    }

    #[test]
    fn what_could_not_be_recorded_stays_due() {
        let mut topic = Topic::new(&[]);
        topic.ann(true, 0);
        let now = topic.start;
        for _ in 0..2 {
            let due = topic.reconciler.due(|_| true, &HashSet::new(), true, now);
            assert_eq!(due.len(), 2);
        }
    }
}
