//! Which subscribers read which feed, and which of them is visited next.
//!
//! A pass visits every member of a group once whose feed has grown. Events that the feed gains
//! meanwhile are sent along to the members that are visited later in the pass; for the others there
//! is another pass.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use slab::Slab;

use crate::{feed::feed::Feed, feed::sampling::Mark, shard::inbox::FeedNotifier};

/// Members of one group that are visited before the next group has its turn.
const TURN_MEMBERS: usize = 64;

/// The groups of a shard: one for each feed that somebody in it reads.
#[derive(Debug, Default)]
pub(super) struct Groups {
    all: Slab<Group>,
    /// By the address of the feed, which the group keeps alive.
    by_feed: HashMap<usize, u32>,
    /// Groups that have a pass to make, in the order of their turns.
    queue: VecDeque<u32>,
    /// How many members of the first one have been visited in this turn.
    turn: usize,
    generations: Generations,
    /// Entries that have been sent to every member that they were to be sent to.
    served_marks: Vec<Mark>,
}

#[derive(Debug)]
struct Group {
    feed: Arc<Feed>,
    notifier: Arc<FeedNotifier>,
    /// Slots of the subscribers. The first `visited` of them have been visited in this pass.
    members: Vec<u32>,
    visited: usize,
    /// The generation of its pass, if it has one to make.
    generation: Option<u64>,
    /// Since when the feed has grown again during this pass.
    grown_since: Option<u64>,
    /// The mark of the feed that was looked at last.
    seen_mark: Option<Mark>,
    /// The entry that is followed in this pass.
    followed: Option<Mark>,
}

impl Group {
    /// A pass begins: it brings what is in the feed now.
    fn look_at_mark(&mut self) {
        let mark = self.feed.mark.get();
        if mark != self.seen_mark {
            self.seen_mark = mark;
            self.followed = mark;
        }
    }
}

/// A subscriber as a member of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Member {
    pub(super) group: u32,
    index: u32,
}

/// A member that has another index now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Moved {
    pub(super) slot: u32,
    pub(super) to: Member,
}

impl Groups {
    /// Adds a subscriber to the group of a feed.
    pub(super) fn join(
        &mut self,
        feed: &Arc<Feed>,
        slot: u32,
        new_notifier: impl Fn(u32) -> FeedNotifier,
    ) -> Member {
        let number = *self.by_feed.entry(Arc::as_ptr(feed).addr()).or_insert_with(|| {
            let entry = self.all.vacant_entry();
            let number = number(entry.key());
            let notifier = Arc::new(new_notifier(number));
            feed.add_shard(Arc::clone(&notifier));
            entry.insert(Group {
                seen_mark: feed.mark.get(),
                followed: None,
                feed: Arc::clone(feed),
                notifier,
                members: Vec::new(),
                visited: 0,
                generation: None,
                grown_since: None,
            });
            number
        });
        let members = &mut self.all[number as usize].members;
        members.push(slot);
        member(number, members.len() - 1)
    }

    /// Removes a subscriber. Returns which member fills the gap, and which fills the gap that this
    /// leaves in turn: none that has yet to be visited may get among those that have been.
    pub(super) fn leave(&mut self, gap: Member) -> [Option<Moved>; 2] {
        let group = &mut self.all[gap.group as usize];
        let mut index = gap.index as usize;
        let mut fill = |members: &mut Vec<u32>, from: usize| {
            let to = std::mem::replace(&mut index, from);
            (to != from).then(|| {
                members[to] = members[from];
                Moved { slot: members[from], to: member(gap.group, to) }
            })
        };
        let visited = if (gap.index as usize) < group.visited {
            group.visited -= 1;
            fill(&mut group.members, group.visited)
        } else {
            None
        };
        let last = group.members.len() - 1;
        let moved = [visited, fill(&mut group.members, last)];
        group.members.pop();
        if group.members.is_empty() {
            let group = self.all.remove(gap.group as usize);
            if let Some(generation) = group.generation {
                self.generations.finish(generation);
            }
            group.feed.remove_shard(&group.notifier);
            self.by_feed.remove(&Arc::as_ptr(&group.feed).addr());
        } else if group.members.capacity() > 64 && group.members.len() < group.members.capacity() / 4 {
            group.members.shrink_to(2 * group.members.len());
        }
        moved
    }

    /// The feed of this group has grown, at this point of what the writer writes or later.
    pub(super) fn mark_grown(&mut self, number: u32, since: u64) {
        let Some(group) = self.all.get_mut(number as usize) else { return };
        // Before the feed is looked at: what comes after that notifies again.
        group.notifier.rearm();
        if group.generation.is_some() {
            group.grown_since = group.grown_since.or((group.visited > 0).then_some(since));
        } else {
            group.generation = Some(self.generations.join(since));
            group.visited = 0;
            group.look_at_mark();
            self.queue.push_back(number);
        }
    }

    /// The marks of the entries that all members have been sent since this was called last, except
    /// those whose socket accepts nothing.
    pub(super) fn take_served_marks(&mut self) -> impl Iterator<Item = Mark> {
        self.served_marks.drain(..)
    }

    /// Up to where every group has been sent what was written; none if that is everything.
    pub(super) fn served(&self) -> Option<u64> {
        self.generations.served()
    }

    /// The member that is visited next.
    pub(super) fn next_member(&mut self) -> Option<u32> {
        loop {
            let number = *self.queue.front()?;
            // A group that is gone may still be in the queue, and another may have got its number.
            let group = self.all.get_mut(number as usize).filter(|group| group.generation.is_some());
            let Some(group) = group else {
                self.next_group();
                continue;
            };
            if let Some(slot) = group.members.get(group.visited).copied() {
                group.visited += 1;
                self.turn += 1;
                if self.turn == TURN_MEMBERS && group.visited < group.members.len() {
                    self.next_group();
                    self.queue.push_back(number);
                }
                return Some(slot);
            }
            group.visited = 0;
            self.served_marks.extend(group.followed.take());
            let again = group.grown_since.take();
            if again.is_some() {
                group.look_at_mark();
            }
            let next = again.map(|since| self.generations.join(since));
            if let Some(finished) = std::mem::replace(&mut group.generation, next) {
                self.generations.finish(finished);
            }
            self.next_group();
            if again.is_some() {
                self.queue.push_back(number);
            }
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.queue.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    fn next_group(&mut self) {
        self.queue.pop_front();
        self.turn = 0;
    }
}

/// Passes that were begun at about the same time are a generation: so it is cheap to know the
/// oldest of them, however many there are.
#[derive(Debug, Default)]
struct Generations {
    /// The number of `current`; that of `next` is one higher.
    number: u64,
    current: Generation,
    next: Generation,
}

#[derive(Clone, Copy, Debug, Default)]
struct Generation {
    passes: usize,
    /// The oldest thing that one of its passes brings, or something older.
    since: u64,
}

impl Generations {
    /// Begins a pass; returns the number of its generation.
    fn join(&mut self, since: u64) -> u64 {
        let is_first = self.current.passes == 0;
        let generation = if is_first { &mut self.current } else { &mut self.next };
        generation.since = if generation.passes == 0 { since } else { generation.since.min(since) };
        generation.passes += 1;
        self.number + u64::from(!is_first)
    }

    /// Ends a pass of this generation.
    fn finish(&mut self, number: u64) {
        if number != self.number {
            self.next.passes -= 1;
            return;
        }
        self.current.passes -= 1;
        if self.current.passes == 0 && self.next.passes > 0 {
            self.current = std::mem::take(&mut self.next);
            self.number += 1;
        }
    }

    fn served(&self) -> Option<u64> {
        (self.current.passes > 0).then_some(self.current.since)
    }
}

fn member(group: u32, index: usize) -> Member {
    Member { group, index: number(index) }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("a process has fewer sockets than that")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidings_log::{Cursor, Entry, Epoch, Position, Timestamp};
    use tidings_topic::{NewEvent, Validator};

    use super::*;
    use crate::{
        feed::{
            encode::Format,
            sampling::{Sampled, Sampler},
        },
        shard::{inbox::Inbox, lag::Lag},
    };

    /// The mark of an event that is appended now.
    fn mark() -> Mark {
        let event = Validator::default().event(NewEvent::new("0", "")).expect("valid");
        let cursor = Cursor { epoch: Epoch::from_u64(1), position: Position::BEFORE_ALL };
        // Not in the past, which would be that of the process.
        let time = Timestamp::from_millis(1 << 42);
        let entry = Entry::new(cursor, time, event);
        Sampler::default().choose(&entry, &Sampled::default()).expect("the first one is chosen")
    }

    struct Stage {
        groups: Groups,
        feeds: Vec<Arc<Feed>>,
        inbox: Inbox<()>,
        /// Each slot as a member.
        members: HashMap<u32, Member>,
    }

    impl Stage {
        fn new(feeds: usize) -> Self {
            let head = Cursor { epoch: Epoch::from_u64(1), position: Position::BEFORE_ALL };
            let feed = |number: usize| {
                let topic = Validator::default().exact(&number.to_string()).expect("valid");
                Arc::new(Feed::new(topic, Format::Plain, head, Arc::default()))
            };
            Self {
                groups: Groups::default(),
                feeds: (0..feeds).map(feed).collect(),
                inbox: Inbox::new(Arc::<Lag>::default().add_shard().pending_feeds()),
                members: HashMap::new(),
            }
        }

        fn join(&mut self, feed: usize, slot: u32) -> u32 {
            let new_notifier = |group| FeedNotifier::new(&self.inbox, group);
            let member = self.groups.join(&self.feeds[feed], slot, new_notifier);
            self.members.insert(slot, member);
            member.group
        }

        fn leave(&mut self, slot: u32) {
            let member = self.members.remove(&slot).expect("joined");
            for moved in self.groups.leave(member).into_iter().flatten() {
                self.members.insert(moved.slot, moved.to);
            }
        }
    }

    proptest! {
        /// Members come and go in the middle of a pass: those that were there when it began and
        /// stay are visited once.
        #[test]
        fn a_pass_visits_every_member_that_stays_exactly_once(
            before in 1..200_u32,
            acts in prop::collection::vec((0..10_usize, any::<prop::sample::Index>(), any::<bool>()), 0..40),
        ) {
            let mut stage = Stage::new(1);
            let group = (0..before).map(|slot| stage.join(0, slot)).last().expect("somebody");
            stage.groups.mark_grown(group, 0);
            let mut visited = Vec::new();
            let mut next = before;
            for (visits, who, leaves) in acts {
                for _ in 0..visits {
                    visited.extend(stage.groups.next_member());
                }
                let mut here: Vec<_> = stage.members.keys().copied().collect();
                here.sort_unstable();
                if leaves && here.len() > 1 {
                    stage.leave(*who.get(&here));
                } else if !stage.groups.is_clean() {
                    stage.join(0, next);
                    next += 1;
                }
            }
            while let Some(slot) = stage.groups.next_member() {
                visited.push(slot);
            }
            let count = |slot: u32| visited.iter().filter(|visited| **visited == slot).count();
            for slot in stage.members.keys().copied() {
                prop_assert!(count(slot) <= 1, "{slot} was visited twice");
                prop_assert!(count(slot) == 1 || slot >= before, "{slot} was left out");
            }
        }
    }

    #[test]
    fn a_feed_that_grows_in_the_middle_of_a_pass_gets_another_pass() {
        let mut stage = Stage::new(1);
        let group = (0..3).map(|slot| stage.join(0, slot)).last().expect("somebody");
        stage.groups.mark_grown(group, 0);
        let mut visits = vec![stage.groups.next_member(), stage.groups.next_member()];
        stage.groups.mark_grown(group, 0);
        visits.extend((0..4).map(|_| stage.groups.next_member()));
        assert_eq!(visits, [0, 1, 2, 0, 1, 2].map(Some));
        assert_eq!(stage.groups.next_member(), None);
    }

    #[test]
    fn a_small_group_does_not_wait_for_a_large_one() {
        let mut stage = Stage::new(2);
        let large = (0..1_000).map(|slot| stage.join(0, slot)).last().expect("somebody");
        let small = stage.join(1, 1_000);
        stage.groups.mark_grown(large, 0);
        stage.groups.mark_grown(small, 0);
        let turn = std::iter::from_fn(|| stage.groups.next_member()).position(|slot| slot == 1_000);
        assert_eq!(turn, Some(TURN_MEMBERS));
    }

    #[test]
    fn a_group_without_members_is_gone_also_in_the_middle_of_a_pass() {
        let mut stage = Stage::new(2);
        let group = stage.join(0, 0);
        stage.groups.mark_grown(group, 0);
        stage.leave(0);
        assert_eq!(stage.join(1, 1), group, "the number is used again");
        assert_eq!(stage.groups.next_member(), None);
        stage.groups.mark_grown(group, 0);
        assert_eq!(stage.groups.next_member(), Some(1));
        assert_eq!(stage.groups.next_member(), None);
    }

    #[test]
    fn a_group_without_members_delays_no_publisher_and_is_not_notified() {
        let mut stage = Stage::new(1);
        let group = stage.join(0, 0);
        stage.groups.mark_grown(group, 7);
        assert_eq!(stage.groups.served(), Some(7));
        stage.leave(0);
        assert_eq!(stage.groups.served(), None);
        stage.feeds[0].wake_readers();
        assert!(!stage.inbox.is_notified());
    }

    #[test]
    fn a_group_measures_each_followed_event_once_and_none_from_before_it() {
        let mut stage = Stage::new(1);
        stage.feeds[0].mark.set(mark());
        let group = stage.join(0, 0);
        let mut pass = |followed: Option<Mark>| {
            if let Some(mark) = followed {
                stage.feeds[0].mark.set(mark);
            }
            stage.groups.mark_grown(group, 0);
            while stage.groups.next_member().is_some() {}
            stage.groups.take_served_marks().count()
        };
        assert_eq!(pass(None), 0, "it was written before the group was there");
        assert_eq!(pass(Some(mark())), 1);
        assert_eq!(pass(None), 0, "what was written since is not followed");
    }

    #[test]
    fn a_group_that_most_members_have_left_gives_its_memory_back() {
        let mut stage = Stage::new(1);
        let group = (0..10_000).map(|slot| stage.join(0, slot)).last().expect("somebody");
        (10..10_000).for_each(|slot| stage.leave(slot));
        let capacity = stage.groups.all[group as usize].members.capacity();
        assert!(capacity <= 128, "{capacity}");
    }

    proptest! {
        /// However passes overlap, every one of them is counted, and none forever.
        #[test]
        fn a_shard_is_behind_as_long_as_a_group_has_a_pass_to_make(acts in prop::collection::vec((0..4_usize, 0..70_usize), 1..200)) {
            let mut stage = Stage::new(4);
            let groups: Vec<_> = (0..4).map(|feed| (0..50).map(|slot| stage.join(feed, slot)).last().expect("some")).collect();
            for (now, (group, visits)) in acts.into_iter().enumerate() {
                let now = now as u64;
                stage.groups.mark_grown(groups[group], now);
                for _ in 0..visits {
                    let _ = stage.groups.next_member();
                }
                let queued = stage.groups.all.iter().filter(|(_, group)| group.generation.is_some()).count();
                match stage.groups.served() {
                    None => prop_assert_eq!(queued, 0),
                    Some(served) => {
                        prop_assert!(served <= now);
                        prop_assert!(queued > 0);
                    }
                }
            }
            while stage.groups.next_member().is_some() {}
            prop_assert_eq!(stage.groups.served(), None);
            prop_assert_eq!((stage.groups.generations.current.passes, stage.groups.generations.next.passes), (0, 0));
        }
    }
}
