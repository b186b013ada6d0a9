//! Who is subscribed to which topic.
//!
//! Invariants: an entry exists only while somebody is present; no lock is held while anything else
//! runs.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
};

use tidings::{ConnectionId, Presence, log::parts::lock};
use tokio::sync::Notify;

use crate::encoding::{reported_label, reported_matchers};

/// What the name of the topic that reports on the presence of another one ends with, after the name
/// of that other one.
pub const PRESENCE_SUFFIX: &str = "/presence";

/// A topic, and who may be present there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Member {
    /// The topic.
    pub topic: Arc<str>,
    /// The label of some subscribers. `None` stands for every subscriber, labelled or not.
    pub label: Option<Arc<str>>,
}

/// A part of those who are present on a topic.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MembersPage {
    /// Subscriptions to the topic, those without a label included.
    pub subscribers: usize,
    /// Different labels among them.
    pub labels_count: usize,
    /// Labels in the order of their bytes, each with its subscriptions.
    pub labels: Vec<(Arc<str>, usize)>,
    /// Whether further labels follow.
    pub has_more: bool,
}

/// Who is subscribed to which topic: the subscribers of a [presence list](crate::PresenceList),
/// counted by topic and label. It is kept by calling [`note`](Self::note) for each change of the
/// list.
///
/// Every hub counts what hubs exchange of a subscriber, of its own subscribers too: at most 1 KiB of
/// the label, and the first 8 KiB of the matchers. Only topics that a subscriber names count. Who
/// subscribes to a pattern or to all topics is present on none, since nobody can tell which topics
/// that person came for. Topics that report on presence themselves ([`PRESENCE_SUFFIX`]) have none.
#[derive(Debug, Default)]
pub struct PresenceIndex {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    subscribers: HashMap<ConnectionId, Subscriber>,
    topics: HashMap<Arc<str>, Attendance>,
    /// Members that came or left, while somebody follows: at most as many as were present
    /// meanwhile.
    changed: Option<HashSet<Member>>,
}

/// Where a subscriber counts.
#[derive(Debug)]
struct Subscriber {
    /// Each once.
    topics: Box<[Arc<str>]>,
    label: Option<Arc<str>>,
}

/// Who is present on a topic.
#[derive(Debug, Default)]
struct Attendance {
    subscribers: usize,
    labels: BTreeMap<Arc<str>, usize>,
}

impl PresenceIndex {
    /// A subscriber connected or disconnected, or its topics changed.
    pub fn note(&self, presence: &Presence) {
        let mut state = self.state();
        // A subscriber whose topics changed is reported once more as one that is here.
        if let Some(before) = state.subscribers.remove(&presence.connection) {
            state.count(&before, false);
        }
        if presence.here {
            let subscriber = Subscriber::of(presence);
            if !subscriber.topics.is_empty() {
                state.count(&subscriber, true);
                state.subscribers.insert(presence.connection, subscriber);
            }
        }
        let is_followed = state.changed.is_some();
        drop(state);
        if is_followed {
            self.changed.notify_one();
        }
    }

    /// Those who are present on a topic: at most `max` labels, the first ones after this label.
    pub fn page(&self, topic: &str, after: Option<&str>, max: usize) -> MembersPage {
        let state = self.state();
        let Some(attendance) = state.topics.get(topic) else { return MembersPage::default() };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = attendance.labels.range::<str, _>((from, Bound::Unbounded));
        let labels = rest.by_ref().take(max).map(|(label, count)| (Arc::clone(label), *count)).collect();
        MembersPage {
            subscribers: attendance.subscribers,
            labels_count: attendance.labels.len(),
            labels,
            has_more: rest.next().is_some(),
        }
    }

    /// Whether the member is present.
    pub fn is_present(&self, member: &Member) -> bool {
        let state = self.state();
        let attendance = state.topics.get(&member.topic);
        attendance.is_some_and(|attendance| {
            member.label.as_ref().is_none_or(|label| attendance.labels.contains_key(label))
        })
    }

    /// Begins to collect changes, and returns all who are present now.
    pub fn follow(&self) -> HashSet<Member> {
        let mut state = self.state();
        state.changed = Some(HashSet::new());
        let members = state.topics.iter().flat_map(|(topic, attendance)| {
            let labels = attendance.labels.keys().cloned().map(Some);
            let member = |label| Member { topic: Arc::clone(topic), label };
            std::iter::once(None).chain(labels).map(member)
        });
        members.collect()
    }

    /// Ends what [`follow`](Self::follow) began, and drops what was collected.
    pub fn unfollow(&self) {
        self.state().changed = None;
    }

    /// The members that came or left since the last call.
    pub fn take_changed(&self) -> HashSet<Member> {
        self.state().changed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Waits until there may be something to [take](Self::take_changed). Cancel safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Subscriber {
    fn of(presence: &Presence) -> Self {
        let matchers = reported_matchers(presence).iter();
        let topics = matchers.filter(|matcher| matcher.syntax.is_none()).map(|matcher| &matcher.text);
        let counts = |text: &&Arc<str>| &***text != "*" && !text.ends_with(PRESENCE_SUFFIX);
        let mut topics: Vec<_> = topics.filter(counts).cloned().collect();
        topics.sort_unstable();
        topics.dedup();
        let label = presence.label.as_ref().map(|label| match reported_label(label) {
            all if all.len() == label.len() => Arc::clone(label),
            part => part.into(),
        });
        Self { topics: topics.into(), label }
    }
}

impl State {
    /// Counts a subscriber on all its topics, or does so no more.
    fn count(&mut self, subscriber: &Subscriber, is_here: bool) {
        for topic in &subscriber.topics {
            self.note(topic, subscriber.label.as_ref(), is_here);
        }
    }

    fn note(&mut self, topic: &Arc<str>, label: Option<&Arc<str>>, is_here: bool) {
        let attendance = if is_here {
            self.topics.entry(Arc::clone(topic)).or_default()
        } else {
            let Some(attendance) = self.topics.get_mut(topic) else { return };
            attendance
        };
        if let Some(label) = label {
            let changed = if is_here {
                let count = attendance.labels.entry(Arc::clone(label)).or_default();
                *count += 1;
                *count == 1
            } else if let Some(count) = attendance.labels.get_mut(label) {
                *count -= 1;
                let is_gone = *count == 0;
                if is_gone {
                    attendance.labels.remove(label);
                }
                is_gone
            } else {
                false
            };
            if let Some(members) = self.changed.as_mut().filter(|_| changed) {
                members.insert(Member { topic: Arc::clone(topic), label: Some(Arc::clone(label)) });
            }
        }
        let before = attendance.subscribers;
        attendance.subscribers = if is_here { before + 1 } else { before.saturating_sub(1) };
        let is_empty = attendance.subscribers == 0;
        if let Some(members) = self.changed.as_mut().filter(|_| is_empty || before == 0) {
            members.insert(Member { topic: Arc::clone(topic), label: None });
        }
        if is_empty {
            self.topics.remove(topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::tests::member;

    fn here(number: u8, label: Option<&str>, topics: &[&str]) -> Presence {
        Presence { here: true, ..member(number, label, topics) }
    }

    fn gone(presence: &Presence) -> Presence {
        Presence { here: false, ..presence.clone() }
    }

    fn labels(page: &MembersPage) -> Vec<(&str, usize)> {
        page.labels.iter().map(|(label, count)| (&**label, *count)).collect()
    }

    fn named(topic: &str, label: Option<&str>) -> Member {
        Member { topic: topic.into(), label: label.map(Into::into) }
    }

    #[test]
    fn subscribers_are_counted_by_topic_and_label() {
        let index = PresenceIndex::default();
        let ann = [here(1, Some("ann"), &["chat", "chat", "news"]), here(2, Some("ann"), &["chat"])];
        let nameless = here(3, None, &["chat", "*", "chat/presence"]);
        for presence in ann.iter().chain([&nameless]) {
            index.note(presence);
        }
        let page = index.page("chat", None, 10);
        assert_eq!((page.subscribers, page.labels_count, labels(&page)), (3, 1, vec![("ann", 2)]));
        for none in ["*", "chat/presence", "other"] {
            assert_eq!(index.page(none, None, 10), MembersPage::default(), "{none}");
        }
        for presence in &ann {
            index.note(&gone(presence));
        }
        let page = index.page("chat", None, 10);
        assert_eq!((page.subscribers, labels(&page)), (1, vec![]));
        index.note(&gone(&nameless));
        assert!(index.state().topics.is_empty(), "nothing stays of those who left");
    }

    #[test]
    fn a_subscriber_whose_topics_change_counts_on_the_new_ones_alone() {
        let index = PresenceIndex::default();
        index.note(&here(1, Some("ann"), &["chat", "news"]));
        index.follow();
        let changed = here(1, Some("ann"), &["news", "sport"]);
        index.note(&changed);
        let counts = |index: &PresenceIndex| {
            ["chat", "news", "sport"].map(|topic| index.page(topic, None, 10).subscribers)
        };
        assert_eq!(counts(&index), [0, 1, 1]);
        assert!(index.take_changed().contains(&named("chat", Some("ann"))));
        // One that is reported once more without a change.
        index.note(&changed);
        assert_eq!(counts(&index), [0, 1, 1]);
        index.note(&gone(&changed));
        assert!(index.state().topics.is_empty() && index.state().subscribers.is_empty());
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_repetition() {
        let index = PresenceIndex::default();
        for (number, label) in ["b", "d", "a", "c", "e"].iter().enumerate() {
            index.note(&here(u8::try_from(number).unwrap(), Some(label), &["chat"]));
        }
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = index.page("chat", after.as_deref(), 2);
            assert_eq!(page.labels_count, 5);
            all.extend(page.labels.iter().map(|(label, _)| label.to_string()));
            after = all.last().cloned();
            if !page.has_more {
                break;
            }
        }
        assert_eq!(all, ["a", "b", "c", "d", "e"]);
        assert_eq!(index.page("chat", Some("e"), 2).labels, []);
    }

    #[test]
    fn only_the_first_and_the_last_of_a_member_are_changes() {
        let index = PresenceIndex::default();
        let [one, two] = [1, 2].map(|number| here(number, Some("ann"), &["chat"]));
        index.note(&one);
        assert_eq!(index.take_changed(), HashSet::new(), "nobody follows");
        let both = HashSet::from([named("chat", None), named("chat", Some("ann"))]);
        assert_eq!(index.follow(), both);
        index.note(&two);
        index.note(&gone(&one));
        assert_eq!(index.take_changed(), HashSet::new());
        assert!(both.iter().all(|member| index.is_present(member)));
        index.note(&gone(&two));
        assert_eq!(index.take_changed(), both);
        assert!(!both.iter().any(|member| index.is_present(member)));
        index.note(&one);
        index.unfollow();
        assert_eq!(index.take_changed(), HashSet::new());
    }
}
