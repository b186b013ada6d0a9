//! The subscriptions of all subscribers: each of their matchers is one.
//!
//! Invariant: no lock is held while anything else runs.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
};

use tidings::{ConnectionId, PatternSyntax, Presence, log::parts::lock};
use tokio::sync::Notify;

use crate::encoding::{reported_matchers, reported_payloads};

/// Most changes of this hub that wait to be taken. When there are more, all of these are dropped.
const OWN_CHANGES_MAX: usize = 50_000;

/// What identifies a subscription, in the order in which subscriptions are listed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SubscriptionKey {
    /// How the text is read if it is that of a pattern.
    pub syntax: Option<PatternSyntax>,
    /// The topic or pattern.
    pub text: Arc<str>,
    /// The connection of the subscriber.
    pub connection: ConnectionId,
}

/// A matcher of a subscriber that is connected.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ActiveSubscription {
    /// What identifies it.
    pub key: SubscriptionKey,
    /// What the credential of the subscriber says about it, as JSON.
    pub payload: Option<Arc<str>>,
}

/// A subscription of a subscriber of this hub began or ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubscriptionChange {
    /// Which one.
    pub subscription: ActiveSubscription,
    /// Whether it began.
    pub is_active: bool,
}

/// The subscriptions of a [presence list](crate::PresenceList), each matcher of a subscriber being
/// one. It is kept by calling [`note`](Self::note) for each change of the list.
///
/// Every hub has what hubs exchange of a subscriber, of its own subscribers too: the first 8 KiB of
/// the matchers, and of their payloads.
#[derive(Debug, Default)]
pub struct SubscriptionIndex {
    state: Mutex<State>,
    changed: Notify,
    own_changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    active: BTreeMap<SubscriptionKey, Option<Arc<str>>>,
    subscribers: HashMap<ConnectionId, Box<[SubscriptionKey]>>,
    /// Subscriptions that began or ended, while somebody follows: at most as many as were active
    /// meanwhile.
    changed: Option<HashSet<ActiveSubscription>>,
    /// What began and ended at this hub, in order, since somebody wants to know.
    own: Option<OwnChanges>,
}

#[derive(Debug, Default)]
struct OwnChanges {
    waiting: Vec<SubscriptionChange>,
    dropped: u64,
}

impl SubscriptionIndex {
    /// A subscriber connected or disconnected, or its topics changed.
    pub fn note(&self, presence: &Presence) {
        let mut state = self.state();
        let before = state.subscribers.remove(&presence.connection).unwrap_or_default();
        let after = if presence.here { subscriptions(presence) } else { Vec::new() };
        for key in before.iter().filter(|key| !after.iter().any(|kept| kept.key == **key)) {
            state.end(key, presence.is_local);
        }
        for subscription in &after {
            state.begin(subscription, presence.is_local);
        }
        if !after.is_empty() {
            let keys = after.into_iter().map(|subscription| subscription.key).collect();
            state.subscribers.insert(presence.connection, keys);
        }
        let is_followed = state.changed.is_some();
        let has_own = state.own.as_ref().is_some_and(|own| !own.waiting.is_empty());
        drop(state);
        if is_followed {
            self.changed.notify_one();
        }
        if has_own {
            self.own_changed.notify_one();
        }
    }

    /// At most `max` active subscriptions, in the order of their keys: the first ones after this one.
    pub fn list(&self, after: Option<&SubscriptionKey>, max: usize) -> Vec<ActiveSubscription> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.state();
        state.active.range((from, Bound::Unbounded)).take(max).map(ActiveSubscription::of).collect()
    }

    /// The same of the subscriptions of this text, read so.
    pub fn of_matcher(
        &self,
        syntax: Option<PatternSyntax>,
        text: &str,
        after: Option<&SubscriptionKey>,
        max: usize,
    ) -> Vec<ActiveSubscription> {
        let key =
            |bits| SubscriptionKey { syntax, text: text.into(), connection: ConnectionId::from_random(bits) };
        let (first, last) = (key([0; 16]), key([u8::MAX; 16]));
        let from = match after {
            Some(after) if *after >= last => return Vec::new(),
            Some(after) if *after >= first => Bound::Excluded(after),
            _ => Bound::Included(&first),
        };
        let state = self.state();
        state.active.range((from, Bound::Included(&last))).take(max).map(ActiveSubscription::of).collect()
    }

    /// The active subscription with this key.
    pub fn get(&self, key: &SubscriptionKey) -> Option<ActiveSubscription> {
        let payload = self.state().active.get(key)?.clone();
        Some(ActiveSubscription { key: key.clone(), payload })
    }

    /// Begins to collect changes, and returns all that are active now.
    pub fn follow(&self) -> HashSet<ActiveSubscription> {
        let mut state = self.state();
        state.changed = Some(HashSet::new());
        state.active.iter().map(ActiveSubscription::of).collect()
    }

    /// Ends what [`follow`](Self::follow) began, and drops what was collected.
    pub fn unfollow(&self) {
        self.state().changed = None;
    }

    /// The subscriptions that began or ended since the last call.
    pub fn take_changed(&self) -> HashSet<ActiveSubscription> {
        self.state().changed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Waits until there may be something to [take](Self::take_changed). Cancel safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Begins to collect what begins and ends at this hub.
    pub fn follow_own(&self) {
        self.state().own.get_or_insert_default();
    }

    /// What began and ended at this hub since the last call, in order: also what ended before this call.
    /// The number is that of changes that are missing, because more than 50,000 waited.
    pub fn take_own_changes(&self) -> (Vec<SubscriptionChange>, u64) {
        let taken = self.state().own.as_mut().map(std::mem::take).unwrap_or_default();
        (taken.waiting, taken.dropped)
    }

    /// Waits until there may be something to [take](Self::take_own_changes). Cancel safe.
    pub async fn own_changed(&self) {
        self.own_changed.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl ActiveSubscription {
    fn of((key, payload): (&SubscriptionKey, &Option<Arc<str>>)) -> Self {
        Self { key: key.clone(), payload: payload.clone() }
    }
}

/// The subscriptions of a subscriber, each once.
fn subscriptions(presence: &Presence) -> Vec<ActiveSubscription> {
    let payloads = reported_payloads(presence);
    let mut all: Vec<_> = reported_matchers(presence)
        .iter()
        .map(|matcher| ActiveSubscription {
            key: SubscriptionKey {
                syntax: matcher.syntax,
                text: Arc::clone(&matcher.text),
                connection: presence.connection,
            },
            payload: matcher.payload.clone().filter(|payload| payloads.contains(&payload)),
        })
        .collect();
    all.sort_unstable();
    all.dedup_by(|one, other| one.key == other.key);
    all
}

impl State {
    fn begin(&mut self, subscription: &ActiveSubscription, is_own: bool) {
        let ActiveSubscription { key, payload } = subscription;
        if self.active.insert(key.clone(), payload.clone()).is_none() {
            self.follow(subscription, true, is_own);
        }
    }

    fn end(&mut self, key: &SubscriptionKey, is_own: bool) {
        if let Some((key, payload)) = self.active.remove_entry(key) {
            self.follow(&ActiveSubscription { key, payload }, false, is_own);
        }
    }

    fn follow(&mut self, subscription: &ActiveSubscription, is_active: bool, is_own: bool) {
        if let Some(changed) = &mut self.changed {
            changed.insert(subscription.clone());
        }
        if let Some(own) = self.own.as_mut().filter(|_| is_own) {
            own.push(SubscriptionChange { subscription: subscription.clone(), is_active });
        }
    }
}

impl OwnChanges {
    fn push(&mut self, change: SubscriptionChange) {
        if self.waiting.len() == OWN_CHANGES_MAX {
            self.dropped += OWN_CHANGES_MAX as u64;
            self.waiting.clear();
        }
        self.waiting.push(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::tests::member;

    fn texts(subscriptions: impl IntoIterator<Item = ActiveSubscription>) -> Vec<(String, u8)> {
        let mut all: Vec<_> = subscriptions
            .into_iter()
            .map(|it| (it.key.text.to_string(), it.key.connection.to_bytes()[0]))
            .collect();
        all.sort();
        all
    }

    fn named(all: &[(&str, u8)]) -> Vec<(String, u8)> {
        all.iter().map(|(text, number)| ((*text).to_owned(), *number)).collect()
    }

    #[test]
    fn each_matcher_of_a_subscriber_is_one_subscription() {
        let index = SubscriptionIndex::default();
        let ann = member(1, Some("ann"), &["chat", "/rooms/:room", "chat"]);
        index.note(&ann);
        index.note(&member(2, None, &["chat", "*"]));
        let all = index.list(None, 10);
        assert_eq!(texts(all), named(&[("*", 2), ("/rooms/:room", 1), ("chat", 1), ("chat", 2)]));
        assert_eq!(texts(index.of_matcher(None, "chat", None, 10)), named(&[("chat", 1), ("chat", 2)]));
        assert_eq!(texts(index.of_matcher(None, "/rooms/:room", None, 10)), named(&[]), "it is a pattern");
        let pattern = index.of_matcher(Some(PatternSyntax::UrlPattern), "/rooms/:room", None, 10);
        assert_eq!(index.get(&pattern[0].key).as_ref(), pattern.first());
        index.note(&Presence { here: false, ..ann });
        assert_eq!(index.get(&pattern[0].key), None);
        assert_eq!(texts(index.list(None, 10)), named(&[("*", 2), ("chat", 2)]));
        assert_eq!(index.state().subscribers.len(), 1, "nothing stays of one who left");
    }

    #[test]
    fn a_list_continues_after_any_of_its_entries() {
        let index = SubscriptionIndex::default();
        for number in 0..5 {
            index.note(&member(number, None, &["chat", "/rooms/:room"]));
        }
        let chat = |after: Option<&SubscriptionKey>| index.of_matcher(None, "chat", after, 3);
        let [all, of_chat] = [pages(|after| index.list(after, 3)), pages(chat)];
        assert_eq!((all.len(), of_chat.len()), (10, 5));
        assert!(all.is_sorted() && of_chat.is_sorted());
        assert_eq!(chat(all.last().map(|last| &last.key)), [], "a pattern is after every topic");
    }

    fn pages(page: impl Fn(Option<&SubscriptionKey>) -> Vec<ActiveSubscription>) -> Vec<ActiveSubscription> {
        let mut all: Vec<ActiveSubscription> = Vec::new();
        loop {
            let next = page(all.last().map(|last| &last.key));
            if next.is_empty() {
                return all;
            }
            all.extend(next);
        }
    }

    #[test]
    fn only_what_begins_and_ends_is_a_change() {
        let index = SubscriptionIndex::default();
        index.note(&member(1, None, &["a", "b"]));
        assert_eq!(index.take_changed(), HashSet::new(), "nobody follows");
        assert_eq!(texts(index.follow()), named(&[("a", 1), ("b", 1)]));
        index.note(&member(1, None, &["b", "c"]));
        assert_eq!(texts(index.take_changed()), named(&[("a", 1), ("c", 1)]));
        index.note(&member(1, None, &["b", "c"]));
        assert_eq!(index.take_changed(), HashSet::new());
        index.note(&Presence { here: false, ..member(1, None, &["b", "c"]) });
        assert_eq!(texts(index.take_changed()), named(&[("b", 1), ("c", 1)]));
        index.unfollow();
        index.note(&member(2, None, &["a"]));
        assert_eq!(index.take_changed(), HashSet::new());
    }

    fn own(index: &SubscriptionIndex) -> Vec<(String, bool)> {
        let (changes, dropped) = index.take_own_changes();
        assert_eq!(dropped, 0);
        changes.iter().map(|it| (it.subscription.key.text.to_string(), it.is_active)).collect()
    }

    #[test]
    fn what_begins_and_ends_at_this_hub_is_kept_in_order() {
        let index = SubscriptionIndex::default();
        let gone = |member: Presence| Presence { here: false, ..member };
        index.note(&member(1, None, &["before"]));
        assert_eq!(own(&index), [], "nobody wants to know");
        index.follow_own();
        index.note(&member(2, None, &["a"]));
        index.note(&gone(member(2, None, &["a"])));
        index.note(&Presence { is_local: false, ..member(3, None, &["elsewhere"]) });
        index.note(&Presence { is_local: false, ..gone(member(3, None, &["elsewhere"])) });
        for topic in ["b", "c", "b"] {
            index.note(&member(4, None, &[topic]));
        }
        index.follow_own();
        let named = |all: &[(&str, bool)]| -> Vec<_> {
            all.iter().map(|(text, is_active)| ((*text).to_owned(), *is_active)).collect()
        };
        let changes =
            [("a", true), ("a", false), ("b", true), ("b", false), ("c", true), ("c", false), ("b", true)];
        assert_eq!(own(&index), named(&changes));
        assert_eq!(own(&index), []);
    }

    #[test]
    fn changes_that_nobody_takes_are_bounded_and_counted() {
        let index = SubscriptionIndex::default();
        index.follow_own();
        for _ in 0..=OWN_CHANGES_MAX / 2 {
            index.note(&member(1, None, &["a"]));
            index.note(&Presence { here: false, ..member(1, None, &["a"]) });
        }
        let (changes, dropped) = index.take_own_changes();
        assert_eq!((changes.len(), dropped), (2, OWN_CHANGES_MAX as u64));
        assert_eq!(index.take_own_changes(), (Vec::new(), 0));
    }
}
