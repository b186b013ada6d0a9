//! The subscribers of the other hubs, as these have shown them.
//!
//! A hub is alive while its mark is there; the one that is on a page of a living hub is here. What others see of that is the difference between before and after, whatever order
//! changes come in: a mark that goes takes all members with it at once, and brings them back if it was only late.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use tidings_log::cluster::Change;

use super::{
    Presence,
    encoding::{Key, decode_mark, decode_page},
};

#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    hubs: BTreeMap<String, OtherHub>,
    /// Keys that were not seen the last time. Whether they are gone is for the one that knows how firm the cluster is.
    missing: BTreeSet<String>,
    /// Something could not be read, and the log says so already.
    is_complaint_made: bool,
}

#[derive(Debug, Default)]
struct OtherHub {
    is_alive: bool,
    pages: BTreeMap<usize, Vec<Presence>>,
}

impl Elsewhere {
    /// Everybody on the pages of living hubs.
    pub(super) fn members(&self) -> impl Iterator<Item = &Presence> {
        let alive = self.hubs.values().filter(|hub| hub.is_alive);
        alive.flat_map(|hub| hub.pages.values().flatten())
    }

    /// Takes in what has changed, and returns who came and who went by it. What is gone is missing for now.
    pub(super) fn take_in(&mut self, changes: Vec<Change>) -> Vec<Presence> {
        let mut news = Vec::new();
        for change in changes {
            match change {
                Change::Gone { key } => drop(self.missing.insert(key)),
                Change::Set { key, value } => {
                    self.missing.remove(&key);
                    news.extend(self.set(&key, &value));
                }
            }
        }
        news
    }

    /// A watch that begins anew tells what is there and not what is gone: what is not among its first changes is missing.
    pub(super) fn begin_anew(&mut self, first: &[Change]) {
        let there = |key: &String| {
            first.iter().any(|change| matches!(change, Change::Set { key: set, .. } if set == key))
        };
        self.missing = self.keys().filter(|key| !there(key)).collect();
    }

    pub(super) fn is_anybody_missing(&self) -> bool {
        !self.missing.is_empty()
    }

    /// What is missing is gone. Returns who went with it.
    pub(super) fn give_up_missing(&mut self) -> Vec<Presence> {
        let mut news = Vec::new();
        for key in std::mem::take(&mut self.missing) {
            match Key::parse(&key) {
                Some(Key::Mark { hub }) => news.extend(self.set_alive(hub, false)),
                Some(Key::Page { hub, number }) => news.extend(self.set_page(hub, number, Vec::new())),
                None => {}
            }
        }
        news
    }

    fn keys(&self) -> impl Iterator<Item = String> {
        self.hubs.iter().flat_map(|(hub, other)| {
            let mark = other.is_alive.then(|| Key::Mark { hub }.to_string());
            mark.into_iter()
                .chain(other.pages.keys().map(|number| Key::Page { hub, number: *number }.to_string()))
        })
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Vec<Presence> {
        let news = match Key::parse(key) {
            Some(Key::Mark { hub }) => decode_mark(value).map(|_| self.set_alive(hub, true)),
            Some(Key::Page { hub, number }) => {
                decode_page(value).map(|members| self.set_page(hub, number, members))
            }
            None => None,
        };
        if news.is_none() && !std::mem::replace(&mut self.is_complaint_made, true) {
            tracing::warn!(key, "another hub shows its subscribers in a way that this version cannot read");
        }
        news.unwrap_or_default()
    }

    fn set_alive(&mut self, hub: &str, is_alive: bool) -> Vec<Presence> {
        let other = self.hubs.entry(hub.to_owned()).or_default();
        if std::mem::replace(&mut other.is_alive, is_alive) == is_alive {
            return Vec::new();
        }
        let everybody = other.pages.values().flatten();
        let news = everybody.map(|member| Presence { here: is_alive, ..member.clone() }).collect();
        self.tidy(hub);
        news
    }

    fn set_page(&mut self, hub: &str, number: usize, members: Vec<Presence>) -> Vec<Presence> {
        let other = self.hubs.entry(hub.to_owned()).or_default();
        let before = other.pages.remove(&number).unwrap_or_default();
        let mut news = Vec::new();
        if other.is_alive {
            let left_over = |these: &[Presence], those: &[Presence], here| {
                let those: HashSet<_> = those.iter().map(|member| member.connection).collect();
                let only = these.iter().filter(|member| !those.contains(&member.connection));
                only.map(|member| Presence { here, ..member.clone() }).collect::<Vec<_>>()
            };
            news.extend(left_over(&before, &members, false));
            news.extend(left_over(&members, &before, true));
        }
        if !members.is_empty() {
            other.pages.insert(number, members);
        }
        self.tidy(hub);
        news
    }

    /// Forgets a hub of which nothing is left.
    fn tidy(&mut self, hub: &str) {
        if self.hubs.get(hub).is_some_and(|other| !other.is_alive && other.pages.is_empty()) {
            self.hubs.remove(hub);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::encoding::{encode_mark, encode_page, tests::member};

    const NOBODY: [i32; 0] = [];

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

    /// Who came (positive) and who went (negative).
    fn reported(news: &[Presence]) -> Vec<i32> {
        let number = |reported: &Presence| {
            i32::from(reported.connection.to_bytes()[0]) * if reported.here { 1 } else { -1 }
        };
        news.iter().map(number).collect()
    }

    #[test]
    fn the_difference_is_reported_once() {
        let mut elsewhere = Elsewhere::default();
        assert_eq!(reported(&elsewhere.take_in(vec![mark("a"), page("a", 0, &[1, 2])])), [1, 2]);
        assert_eq!(reported(&elsewhere.take_in(vec![mark("a"), page("a", 0, &[1, 2])])), NOBODY);
        assert_eq!(reported(&elsewhere.take_in(vec![page("a", 0, &[2, 3]), page("b", 0, &[4])])), [-1, 3]);
        assert_eq!(reported(&elsewhere.take_in(vec![mark("b")])), [4], "a page may come before its mark");
        assert_eq!(elsewhere.members().count(), 3);
        elsewhere.take_in(vec![gone(Key::Page { hub: "a", number: 0 })]);
        assert_eq!(reported(&elsewhere.give_up_missing()), [-2, -3]);
        assert_eq!(reported(&elsewhere.give_up_missing()), NOBODY);
    }

    #[test]
    fn a_hub_takes_its_members_along_and_brings_them_back() {
        let mut elsewhere = Elsewhere::default();
        elsewhere.take_in(vec![mark("a"), page("a", 0, &[1]), page("a", 1, &[2])]);
        assert_eq!(reported(&elsewhere.take_in(vec![gone(Key::Mark { hub: "a" })])), NOBODY);
        assert_eq!(elsewhere.members().count(), 2, "it is only missing");
        assert_eq!(reported(&elsewhere.give_up_missing()), [-1, -2]);
        assert_eq!(reported(&elsewhere.take_in(vec![page("a", 1, &[3])])), NOBODY);
        assert_eq!(elsewhere.members().count(), 0);
        assert_eq!(reported(&elsewhere.take_in(vec![mark("a")])), [1, 3]);
    }

    #[test]
    fn what_is_seen_again_was_never_gone() {
        let mut elsewhere = Elsewhere::default();
        elsewhere.take_in(vec![mark("a"), page("a", 0, &[1])]);
        elsewhere.take_in(vec![gone(Key::Mark { hub: "a" }), gone(Key::Page { hub: "a", number: 0 })]);
        assert_eq!(reported(&elsewhere.take_in(vec![mark("a")])), NOBODY);
        assert_eq!(reported(&elsewhere.take_in(vec![page("a", 0, &[2])])), [-1, 2]);
        assert!(!elsewhere.is_anybody_missing());
    }

    #[test]
    fn a_watch_that_begins_anew_shows_who_is_missing() {
        let mut elsewhere = Elsewhere::default();
        elsewhere.take_in(vec![mark("a"), page("a", 0, &[1]), mark("b"), page("b", 0, &[2])]);
        let first = vec![mark("a"), page("a", 0, &[1])];
        elsewhere.begin_anew(&first);
        assert_eq!(reported(&elsewhere.take_in(first)), NOBODY);
        assert_eq!(reported(&elsewhere.give_up_missing()), [-2]);
        assert_eq!(elsewhere.hubs.len(), 1, "nothing is left of the other");
    }

    #[test]
    fn what_another_version_shows_is_passed_over() {
        let mut elsewhere = Elsewhere::default();
        elsewhere.take_in(vec![mark("a"), page("a", 0, &[1])]);
        let strange = |key: Key<'_>| Change::Set { key: key.to_string(), value: vec![9, 9] };
        let foreign = Change::Set { key: "presence/other".to_owned(), value: vec![] };
        let changes =
            vec![strange(Key::Mark { hub: "a" }), strange(Key::Page { hub: "a", number: 0 }), foreign];
        assert_eq!(reported(&elsewhere.take_in(changes)), NOBODY);
        assert_eq!(elsewhere.members().count(), 1);
    }
}
