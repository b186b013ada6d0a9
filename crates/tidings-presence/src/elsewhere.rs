//! The subscribers of the other hubs, as these have published them.
//!
//! A hub is alive while its mark exists; a subscriber on a page of a live hub is present. What is
//! reported is the difference between before and after, whatever order changes arrive in: a mark
//! that disappears removes all members with it at once, and a late mark brings them back.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tidings::{Presence, log::cluster::Change};

use crate::encoding::{Key, decode_mark, decode_page};

#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    hubs: BTreeMap<String, OtherHub>,
    /// Keys that the last watch did not find. Whether they are gone depends on the health of the
    /// lease.
    missing: BTreeSet<String>,
    /// A value could not be decoded, and this has been logged.
    is_unreadable_logged: bool,
}

#[derive(Debug, Default)]
struct OtherHub {
    is_alive: bool,
    pages: BTreeMap<usize, Vec<Presence>>,
}

impl Elsewhere {
    /// All members on the pages of live hubs.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Presence> {
        let alive = self.hubs.values().filter(|hub| hub.is_alive);
        alive.flat_map(|hub| hub.pages.values().flatten())
    }

    /// Applies changes, and returns the subscribers that connected or disconnected. A removed key
    /// is only missing for now.
    pub(crate) fn apply(&mut self, changes: Vec<Change>) -> Vec<Presence> {
        let mut subscribers = Vec::new();
        for change in changes {
            match change {
                Change::Gone { key } => drop(self.missing.insert(key)),
                Change::Set { key, value } => {
                    self.missing.remove(&key);
                    subscribers.extend(self.set(&key, &value));
                }
            }
        }
        subscribers
    }

    /// A new watch lists the keys that exist and not those that are gone: a key that is not among
    /// its first changes is missing.
    pub(crate) fn restart_watch(&mut self, first: &[Change]) {
        let there = |key: &String| {
            first.iter().any(|change| matches!(change, Change::Set { key: set, .. } if set == key))
        };
        self.missing = self.keys().filter(|key| !there(key)).collect();
    }

    pub(crate) fn is_any_missing(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Missing keys are gone. Returns the members that disconnected with them.
    pub(crate) fn remove_missing(&mut self) -> Vec<Presence> {
        let mut changed = Vec::new();
        for key in std::mem::take(&mut self.missing) {
            match Key::parse(&key) {
                Some(Key::Mark { hub }) => changed.extend(self.set_alive(hub, false)),
                Some(Key::Page { hub, number }) => changed.extend(self.set_page(hub, number, Vec::new())),
                None => {}
            }
        }
        changed
    }

    fn keys(&self) -> impl Iterator<Item = String> {
        self.hubs.iter().flat_map(|(hub, other)| {
            let mark = other.is_alive.then(|| Key::Mark { hub }.to_string());
            mark.into_iter()
                .chain(other.pages.keys().map(|number| Key::Page { hub, number: *number }.to_string()))
        })
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Vec<Presence> {
        let changed = match Key::parse(key) {
            Some(Key::Mark { hub }) => decode_mark(value).map(|_| self.set_alive(hub, true)),
            Some(Key::Page { hub, number }) => {
                decode_page(value).map(|members| self.set_page(hub, number, members))
            }
            None => None,
        };
        if changed.is_none() && !std::mem::replace(&mut self.is_unreadable_logged, true) {
            tracing::warn!(
                key,
                "another hub publishes its subscribers in a format that this version cannot read"
            );
        }
        changed.unwrap_or_default()
    }

    fn set_alive(&mut self, hub: &str, is_alive: bool) -> Vec<Presence> {
        let other = self.hubs.entry(hub.to_owned()).or_default();
        if std::mem::replace(&mut other.is_alive, is_alive) == is_alive {
            return Vec::new();
        }
        let members = other.pages.values().flatten();
        let changed = members.map(|member| Presence { here: is_alive, ..member.clone() }).collect();
        self.tidy(hub);
        changed
    }

    fn set_page(&mut self, hub: &str, number: usize, members: Vec<Presence>) -> Vec<Presence> {
        let other = self.hubs.entry(hub.to_owned()).or_default();
        let before = other.pages.remove(&number).unwrap_or_default();
        let mut changed = Vec::new();
        if other.is_alive {
            let left_over = |these: &[Presence], those: &[Presence], here| {
                let those: HashMap<_, _> = those.iter().map(|member| (member.connection, member)).collect();
                // One that has other topics now is reported again.
                let is_other = |member: &&Presence| {
                    let that = those.get(&member.connection);
                    that.is_none_or(|that| here && that.matchers != member.matchers)
                };
                let only = these.iter().filter(is_other);
                only.map(|member| Presence { here, ..member.clone() }).collect::<Vec<_>>()
            };
            changed.extend(left_over(&before, &members, false));
            changed.extend(left_over(&members, &before, true));
        }
        if !members.is_empty() {
            other.pages.insert(number, members);
        }
        self.tidy(hub);
        changed
    }

    /// Removes a hub without a mark and without pages.
    fn tidy(&mut self, hub: &str) {
        if self.hubs.get(hub).is_some_and(|other| !other.is_alive && other.pages.is_empty()) {
            self.hubs.remove(hub);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::{encode_mark, encode_page, tests::member};

    const NO_ONE: [i32; 0] = [];

    fn mark(hub: &str) -> Change {
        Change::Set { key: Key::Mark { hub }.to_string(), value: encode_mark(3) }
    }

    fn page(hub: &str, number: usize, members: &[u8]) -> Change {
        let members: Vec<_> = members.iter().map(|number| member(*number, None, &["chat"])).collect();
        Change::Set { key: Key::Page { hub, number }.to_string(), value: encode_page(&members) }
    }

    fn gone(key: Key<'_>) -> Change {
        Change::Gone { key: key.to_string() }
    }

    /// Members that connected (positive) and disconnected (negative).
    fn reported(changed: &[Presence]) -> Vec<i32> {
        let number = |reported: &Presence| {
            i32::from(reported.connection.to_bytes()[0]) * if reported.here { 1 } else { -1 }
        };
        changed.iter().map(number).collect()
    }

    #[test]
    fn a_member_with_other_topics_is_reported_again() {
        let mut elsewhere = Elsewhere::default();
        elsewhere.apply(vec![mark("a"), page("a", 0, &[1, 2])]);
        let members = [member(1, None, &["chat", "news"]), member(2, None, &["chat"])];
        let value = encode_page(&members);
        let key = Key::Page { hub: "a", number: 0 }.to_string();
        let changed = elsewhere.apply(vec![Change::Set { key, value }]);
        assert_eq!(reported(&changed), [1]);
        assert_eq!(changed[0].matchers.len(), 2);
    }

    #[test]
    fn each_difference_is_reported_once() {
        let mut elsewhere = Elsewhere::default();
        assert_eq!(reported(&elsewhere.apply(vec![mark("a"), page("a", 0, &[1, 2])])), [1, 2]);
        assert_eq!(reported(&elsewhere.apply(vec![mark("a"), page("a", 0, &[1, 2])])), NO_ONE);
        assert_eq!(reported(&elsewhere.apply(vec![page("a", 0, &[2, 3]), page("b", 0, &[4])])), [-1, 3]);
        assert_eq!(reported(&elsewhere.apply(vec![mark("b")])), [4], "a page may arrive before its mark");
        assert_eq!(elsewhere.members().count(), 3);
        elsewhere.apply(vec![gone(Key::Page { hub: "a", number: 0 })]);
        assert_eq!(reported(&elsewhere.remove_missing()), [-2, -3]);
        assert_eq!(reported(&elsewhere.remove_missing()), NO_ONE);
    }

    #[test]
    fn members_leave_and_return_with_the_mark_of_their_hub() {
        let mut elsewhere = Elsewhere::default();
        elsewhere.apply(vec![mark("a"), page("a", 0, &[1]), page("a", 1, &[2])]);
        assert_eq!(reported(&elsewhere.apply(vec![gone(Key::Mark { hub: "a" })])), NO_ONE);
        assert_eq!(elsewhere.members().count(), 2, "it is only missing");
        assert_eq!(reported(&elsewhere.remove_missing()), [-1, -2]);
        assert_eq!(reported(&elsewhere.apply(vec![page("a", 1, &[3])])), NO_ONE);
        assert_eq!(elsewhere.members().count(), 0);
        assert_eq!(reported(&elsewhere.apply(vec![mark("a")])), [1, 3]);
    }

    #[test]
    fn a_key_that_reappears_was_never_gone() {
        let mut elsewhere = Elsewhere::default();
        elsewhere.apply(vec![mark("a"), page("a", 0, &[1])]);
        elsewhere.apply(vec![gone(Key::Mark { hub: "a" }), gone(Key::Page { hub: "a", number: 0 })]);
        assert_eq!(reported(&elsewhere.apply(vec![mark("a")])), NO_ONE);
        assert_eq!(reported(&elsewhere.apply(vec![page("a", 0, &[2])])), [-1, 2]);
        assert!(!elsewhere.is_any_missing());
    }

    #[test]
    fn a_new_watch_shows_which_keys_are_missing() {
        let mut elsewhere = Elsewhere::default();
        elsewhere.apply(vec![mark("a"), page("a", 0, &[1]), mark("b"), page("b", 0, &[2])]);
        let first = vec![mark("a"), page("a", 0, &[1])];
        elsewhere.restart_watch(&first);
        assert_eq!(reported(&elsewhere.apply(first)), NO_ONE);
        assert_eq!(reported(&elsewhere.remove_missing()), [-2]);
        assert_eq!(elsewhere.hubs.len(), 1, "the other hub is removed");
    }

    #[test]
    fn values_of_another_version_are_ignored() {
        let mut elsewhere = Elsewhere::default();
        elsewhere.apply(vec![mark("a"), page("a", 0, &[1])]);
        let strange = |key: Key<'_>| Change::Set { key: key.to_string(), value: vec![9, 9] };
        let foreign = Change::Set { key: "presence/other".to_owned(), value: vec![] };
        let changes =
            vec![strange(Key::Mark { hub: "a" }), strange(Key::Page { hub: "a", number: 0 }), foreign];
        assert_eq!(reported(&elsewhere.apply(changes)), NO_ONE);
        assert_eq!(elsewhere.members().count(), 1);
    }
}
