//! Indexes of the ledger by name and by time.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    iter,
};

use crate::Timestamp;

/// For each name the numbers of the entries that bear it, in order. It grows and shrinks at both
/// ends, as the ledger does.
#[derive(Debug)]
pub(super) struct Index<K>(HashMap<K, VecDeque<u64>>);

impl<K: Clone + Eq + Hash> Index<K> {
    pub(super) fn new() -> Self {
        Self(HashMap::new())
    }

    /// The numbers of the entries of this name.
    pub(super) fn get(&self, name: &K) -> Option<&VecDeque<u64>> {
        self.0.get(name)
    }

    /// Adds the newest entry. A name that it bears twice counts once.
    pub(super) fn push(&mut self, name: &K, number: u64) {
        if let Some(numbers) = self.0.get_mut(name) {
            if numbers.back() != Some(&number) {
                numbers.push_back(number);
            }
        } else {
            self.0.insert(name.clone(), VecDeque::from([number]));
        }
    }

    /// Removes the oldest entry.
    pub(super) fn drop_front(&mut self, name: &K, number: u64) {
        if let Some(numbers) = self.0.get_mut(name) {
            if numbers.front() == Some(&number) {
                numbers.pop_front();
            }
            if numbers.is_empty() {
                self.0.remove(name);
            }
        }
    }

    /// Removes entries, given in order, wherever they stand.
    pub(super) fn remove(&mut self, name: &K, removed: &VecDeque<u64>) {
        if let Some(numbers) = self.0.get_mut(name) {
            numbers.retain(|number| removed.binary_search(number).is_err());
            if numbers.is_empty() {
                self.0.remove(name);
            }
        }
    }

    /// Gives back memory that a much larger index needed.
    pub(super) fn shrink(&mut self) {
        if self.0.capacity() > 4 * self.0.len() + 1_000 {
            self.0.shrink_to(2 * self.0.len());
        }
    }
}

/// Numbers out of several ascending lists, in ascending order, each once.
pub(super) fn ascending(lists: Vec<&VecDeque<u64>>, after: u64) -> impl Iterator<Item = u64> + '_ {
    let lists = lists
        .into_iter()
        .map(|list| list.range(list.partition_point(|number| *number <= after)..).copied())
        .collect();
    merge(lists, u64::min)
}

/// Numbers out of several ascending lists, in descending order, each once.
pub(super) fn descending(lists: Vec<&VecDeque<u64>>) -> impl Iterator<Item = u64> + '_ {
    merge(lists.into_iter().map(|list| list.iter().rev().copied()).collect(), u64::max)
}

fn merge<I: Iterator<Item = u64>>(lists: Vec<I>, first_of: fn(u64, u64) -> u64) -> impl Iterator<Item = u64> {
    let mut lists: Vec<_> = lists.into_iter().map(Iterator::peekable).collect();
    iter::from_fn(move || {
        let next = lists.iter_mut().filter_map(|list| list.peek().copied()).reduce(first_of)?;
        for list in &mut lists {
            list.next_if_eq(&next);
        }
        Some(next)
    })
}

/// The entries that can be the last one before some time: those that no later entry precedes on the
/// clock. With a clock that never goes back that is the last entry of each millisecond; if it does
/// go back, earlier entries that it made useless are gone. So the times ascend, and looking one up
/// is a binary search even though the clock cannot be trusted.
#[derive(Debug, Default)]
pub(super) struct Times(VecDeque<(u64, Timestamp)>);

impl Times {
    /// Adds the newest entry.
    pub(super) fn push(&mut self, number: u64, time: Timestamp) {
        while self.0.back().is_some_and(|(_, later)| *later >= time) {
            self.0.pop_back();
        }
        self.0.push_back((number, time));
    }

    /// Removes everything up to this entry.
    pub(super) fn drop_front(&mut self, number: u64) {
        while self.0.front().is_some_and(|(front, _)| *front <= number) {
            self.0.pop_front();
        }
    }

    /// The last entry before this time.
    pub(super) fn last_before(&self, time: Timestamp) -> Option<u64> {
        let earlier = self.0.partition_point(|(_, candidate)| *candidate < time);
        earlier.checked_sub(1).map(|index| self.0[index].0)
    }
}
