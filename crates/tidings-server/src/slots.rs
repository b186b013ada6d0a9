//! How many streams are open, in total and for each address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex},
};

/// Hands out the right to have a stream.
#[derive(Clone, Debug)]
pub(crate) struct Slots(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total_max: usize,
    per_address_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default, Debug)]
struct Taken {
    total: usize,
    /// Only addresses that have a stream are in it, so it is bounded by `total_max`.
    by_address: HashMap<Neighbourhood, usize>,
}

/// Whom the limit per address is for. Whoever has an IPv6 address has a whole /64 network of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Neighbourhood(Option<IpAddr>);

/// The right to have one stream, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    shared: Arc<Shared>,
    neighbourhood: Option<Neighbourhood>,
}

/// Why there is no slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoSlot {
    /// The hub is full.
    Total,
    /// This address has its share.
    Address,
}

impl Slots {
    pub(crate) fn new(total_max: usize, per_address_max: usize) -> Self {
        Self(Arc::new(Shared { total_max, per_address_max, taken: Mutex::default() }))
    }

    /// Takes a slot for somebody at this address; all whose address is unknown share one.
    pub(crate) fn take(&self, address: Option<IpAddr>) -> Result<Slot, NoSlot> {
        let neighbourhood =
            (!address.is_some_and(|address| address.is_loopback())).then(|| Neighbourhood::of(address));
        let mut taken = self.0.taken.lock().expect("nothing panics while it holds this");
        if taken.total >= self.0.total_max {
            return Err(NoSlot::Total);
        }
        if let Some(neighbourhood) = neighbourhood {
            let count = taken.by_address.get(&neighbourhood).copied().unwrap_or(0);
            if count >= self.0.per_address_max {
                return Err(NoSlot::Address);
            }
            taken.by_address.insert(neighbourhood, count + 1);
        }
        taken.total += 1;
        Ok(Slot { shared: Arc::clone(&self.0), neighbourhood })
    }

    pub(crate) fn total_max(&self) -> usize {
        self.0.total_max
    }

    pub(crate) fn per_address_max(&self) -> usize {
        self.0.per_address_max
    }
}

impl Neighbourhood {
    pub(crate) fn of(address: Option<IpAddr>) -> Self {
        Self(address.map(|address| match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
        }))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.shared.taken.lock().expect("nothing panics while it holds this");
        taken.total -= 1;
        let Some(neighbourhood) = self.neighbourhood else { return };
        if let Some(count) = taken.by_address.get_mut(&neighbourhood) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&neighbourhood);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(slots: &Slots, address: &str) -> Result<Slot, NoSlot> {
        slots.take(Some(address.parse().expect("an address")))
    }

    #[test]
    fn a_slot_that_is_dropped_can_be_taken_again() {
        let slots = Slots::new(2, 1);
        let first = take(&slots, "192.0.2.1").expect("free");
        assert_eq!(take(&slots, "192.0.2.1").err(), Some(NoSlot::Address));
        let _second = take(&slots, "192.0.2.2").expect("free");
        assert_eq!(take(&slots, "192.0.2.3").err(), Some(NoSlot::Total));
        drop(first);
        assert!(take(&slots, "192.0.2.1").is_ok());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let slots = Slots::new(10, 1);
        let _first = take(&slots, "2001:db8::1").expect("free");
        assert_eq!(take(&slots, "2001:db8::ffff:1").err(), Some(NoSlot::Address));
        assert!(take(&slots, "2001:db8:0:1::1").is_ok());
    }

    #[test]
    fn loopback_has_no_limit_of_its_own() {
        let slots = Slots::new(3, 1);
        let held: Vec<_> = ["127.0.0.1", "::1", "127.0.0.1"].map(|text| take(&slots, text)).into();
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(slots.take(None).err(), Some(NoSlot::Total));
    }

    #[test]
    fn nothing_is_remembered_of_an_address_that_has_left() {
        let slots = Slots::new(10, 5);
        drop(take(&slots, "192.0.2.1"));
        assert!(slots.0.taken.lock().expect("unpoisoned").by_address.is_empty());
    }
}
