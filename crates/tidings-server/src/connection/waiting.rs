//! The connections whose request headers are incomplete, and which of them is closed when there are
//! too many.
//!
//! A pure structure: addresses and times go in, the choice comes out. An address that holds many
//! slow connections open loses one first: the address with the most incomplete requests loses its
//! oldest. Among addresses with equally many, the overall oldest is closed.
//!
//! Invariants: `crowds` has one entry for each address in `addresses`, and every address in it has
//! an incomplete request.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};

use crate::client_address::Neighbourhood;

/// Which connection: when it began to be waited for, and a number, because two may begin at the same
/// time.
pub(super) type Age = (Instant, u64);

/// The connections whose request headers are incomplete, each with what is needed to reach it.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    incomplete_max: usize,
    count: usize,
    last_number: u64,
    addresses: HashMap<Neighbourhood, BTreeMap<Age, T>>,
    /// The last one is the address that loses a connection next.
    crowds: BTreeSet<Crowd>,
}

/// How many incomplete requests an address has, and which is its oldest.
type Crowd = (usize, Reverse<Age>, Neighbourhood);

impl<T> Waiting<T> {
    pub(super) fn new(incomplete_max: usize) -> Self {
        Self { incomplete_max, count: 0, last_number: 0, addresses: HashMap::new(), crowds: BTreeSet::new() }
    }

    /// Waits for one more. If that is one too many, the one that has to go is removed and returned.
    /// One without an address counts for itself.
    pub(super) fn enter(
        &mut self,
        address: Option<Neighbourhood>,
        now: Instant,
        connection: T,
    ) -> (Age, Option<T>) {
        self.last_number += 1;
        let age = (now, self.last_number);
        self.change(own_or(address, age), |connections| connections.insert(age, connection));
        self.count += 1;
        let gone = if self.count > self.incomplete_max { self.give_up() } else { None };
        (age, gone)
    }

    /// Removes the one that has to go, if there is any.
    pub(super) fn give_up(&mut self) -> Option<T> {
        let (_, Reverse(oldest), crowded) = *self.crowds.last()?;
        self.remove(crowded, oldest)
    }

    /// This one is not waited for any more. Nothing happens if it had to go before.
    pub(super) fn leave(&mut self, address: Option<Neighbourhood>, age: Age) -> Option<T> {
        self.remove(own_or(address, age), age)
    }

    fn remove(&mut self, address: Neighbourhood, age: Age) -> Option<T> {
        let connection = self.change(address, |connections| connections.remove(&age));
        self.count -= usize::from(connection.is_some());
        connection
    }

    fn change<R>(&mut self, address: Neighbourhood, change: impl FnOnce(&mut BTreeMap<Age, T>) -> R) -> R {
        let connections = self.addresses.entry(address).or_default();
        let before = crowd(address, connections);
        let result = change(connections);
        let after = crowd(address, connections);
        if before != after {
            if let Some(before) = before {
                self.crowds.remove(&before);
            }
            self.crowds.extend(after);
        }
        if connections.is_empty() {
            self.addresses.remove(&address);
        }
        result
    }
}

fn own_or(address: Option<Neighbourhood>, (_, number): Age) -> Neighbourhood {
    address.unwrap_or(Neighbourhood::Connection(number))
}

fn crowd<T>(address: Neighbourhood, connections: &BTreeMap<Age, T>) -> Option<Crowd> {
    connections.first_key_value().map(|(oldest, _)| (connections.len(), Reverse(*oldest), address))
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "it stands for an argument that is optional")]
    fn address(number: u8) -> Option<Neighbourhood> {
        Some(Neighbourhood::Network(Ipv4Addr::new(192, 0, 2, number).into()))
    }

    #[test]
    fn the_connections_of_a_trusted_proxy_are_not_one_crowd() {
        let start = Instant::now();
        let mut waiting = Waiting::new(4);
        let (age, _) = waiting.enter(None, start, "of a proxy");
        waiting.enter(None, start, "of a proxy, too");
        waiting.enter(address(1), start + Duration::from_secs(1), "first of two");
        waiting.enter(address(1), start + Duration::from_secs(2), "second of two");
        let (_, gone) = waiting.enter(None, start + Duration::from_secs(3), "new");
        assert_eq!(gone, Some("first of two"));
        assert_eq!(waiting.leave(None, age), Some("of a proxy"));
        assert_eq!(waiting.leave(None, age), None);
    }

    #[test]
    fn the_most_crowded_address_loses_its_oldest_request() {
        let start = Instant::now();
        let mut waiting = Waiting::new(3);
        waiting.enter(address(1), start, "alone and oldest");
        waiting.enter(address(2), start + Duration::from_secs(1), "first of two");
        waiting.enter(address(2), start + Duration::from_secs(2), "second of two");
        let (_, gone) = waiting.enter(address(3), start + Duration::from_secs(3), "new");
        assert_eq!(gone, Some("first of two"));
        let (_, gone) = waiting.enter(address(3), start + Duration::from_secs(4), "newer");
        assert_eq!(gone, Some("new"));
    }

    #[test]
    fn among_addresses_with_equally_many_the_oldest_request_goes() {
        let start = Instant::now();
        let mut waiting = Waiting::new(2);
        waiting.enter(address(1), start + Duration::from_secs(1), "younger");
        waiting.enter(address(2), start, "oldest");
        let (_, gone) = waiting.enter(address(3), start + Duration::from_secs(2), "new");
        assert_eq!(gone, Some("oldest"));
    }

    #[derive(Clone, Debug)]
    enum Act {
        Enter { address: u8 },
        Leave { nth: usize },
        Pass,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => (0_u8..4).prop_map(|address| Act::Enter { address }),
            2 => (0_usize..20).prop_map(|nth| Act::Leave { nth }),
            1 => Just(Act::Pass),
        ]
    }

    proptest! {
        #[test]
        fn the_choice_is_that_of_a_list_that_is_searched_from_end_to_end(acts in prop::collection::vec(act(), 0..200), incomplete_max in 1_usize..8) {
            let mut now = Instant::now();
            let mut waiting = Waiting::new(incomplete_max);
            let mut list: Vec<(u8, Age)> = Vec::new();
            for (number, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Pass => now += Duration::from_secs(1),
                    Act::Leave { nth } if nth < list.len() => {
                        let (from, age) = list.remove(nth);
                        prop_assert!(waiting.leave(address(from), age).is_some());
                        prop_assert!(waiting.leave(address(from), age).is_none(), "it is left once");
                    }
                    Act::Leave { .. } => {}
                    Act::Enter { address: from } => {
                        let (age, gone) = waiting.enter(address(from), now, number);
                        list.push((from, age));
                        if list.len() <= incomplete_max {
                            prop_assert_eq!(gone, None);
                            continue;
                        }
                        prop_assert!(gone.is_some());
                        let crowd = |from: u8| list.iter().filter(|(other, _)| *other == from).count();
                        let most = list.iter().map(|(from, _)| crowd(*from)).max().unwrap_or_default();
                        let crowded = list.iter().filter(|(from, _)| crowd(*from) == most);
                        let (from, oldest) = *crowded.min_by_key(|(_, age)| *age).expect("one is there");
                        prop_assert!(waiting.leave(address(from), oldest).is_none(), "it is the one that went");
                        list.retain(|(_, age)| *age != oldest);
                    }
                }
                prop_assert_eq!(waiting.count, list.len());
                prop_assert_eq!(waiting.crowds.len(), waiting.addresses.len());
            }
        }
    }
}
