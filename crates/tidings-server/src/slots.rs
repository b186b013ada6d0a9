//! Limits on open streams, in total, per address and per credential, and on the patterns of each
//! address.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard},
};

use tidings::{Matcher, PatternIndex, PatternLimits, PatternsFull, UrlPattern};

use crate::client_address::{ClientAddress, Neighbourhood};

/// Hands out permits for streams.
#[derive(Clone, Debug)]
pub(crate) struct Slots(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: SlotLimits,
    taken: Mutex<Taken>,
}

/// The limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotLimits {
    /// Streams in total.
    pub(crate) total_max: usize,
    /// Streams of one address.
    pub(crate) per_address_max: usize,
    /// Patterns of one address.
    pub(crate) patterns: PatternLimits,
    /// Streams of one address that wait for an application to decide about them.
    pub(crate) authorizing_max: usize,
}

#[derive(Default, Debug)]
struct Taken {
    total: usize,
    /// Only addresses that have a stream or wait for a pattern are in it, so it is bounded by the
    /// number of connections.
    by_address: HashMap<Neighbourhood, Share>,
    /// Streams of each credential that limits them, by its id; only those that have one.
    by_credential: HashMap<Arc<str>, u32>,
}

/// The slots of one address.
#[derive(Default, Debug)]
struct Share {
    streams: usize,
    /// Streams that wait for an application to decide about them.
    authorizing: usize,
    /// Patterns that wait to be compiled, and how many requests wait for each.
    compiling: HashMap<Box<str>, usize>,
    /// Distinct patterns, and how many streams use each.
    patterns: PatternIndex<usize>,
}

/// The permit for one stream, released on drop.
#[derive(Debug)]
pub(crate) struct Slot {
    shared: Arc<Shared>,
    neighbourhood: Option<Neighbourhood>,
    /// What few streams have, so that the others stay small.
    counted: Option<Box<Counted>>,
}

/// What else counts for a stream.
#[derive(Default, Debug)]
struct Counted {
    /// Its patterns, for its address.
    patterns: Vec<UrlPattern>,
    /// The id of its credential, which limits its streams.
    credential: Option<Arc<str>>,
}

/// The permit to wait for a pattern to be compiled, released on drop.
#[derive(Debug)]
pub(crate) struct CompilingSlot<'t> {
    shared: Arc<Shared>,
    neighbourhood: Option<Neighbourhood>,
    text: &'t str,
}

/// The permit to wait for an application's decision, released on drop.
#[derive(Debug)]
pub(crate) struct AuthorizingSlot {
    shared: Arc<Shared>,
    neighbourhood: Option<Neighbourhood>,
}

/// Why there is no slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoSlot {
    /// The hub is full.
    Total,
    /// This address is at its limit of streams.
    Address,
    /// The credential is at its own limit of streams.
    Credential(NonZeroU32),
    /// The address is at its limit of patterns.
    Patterns(PatternsFull),
    /// It is at its limit of patterns that wait to be compiled.
    Compiling,
    /// It is at its limit of streams that wait for an application's decision.
    Authorizing,
}

/// Distinct patterns of one address that wait to be compiled.
pub(crate) const COMPILING_PER_ADDRESS_MAX: usize = 64;

impl Slots {
    pub(crate) fn new(limits: SlotLimits) -> Self {
        Self(Arc::new(Shared { limits, taken: Mutex::default() }))
    }

    /// Takes a slot for a client at this address.
    pub(crate) fn take(&self, address: ClientAddress) -> Result<Slot, NoSlot> {
        let neighbourhood = counted(address);
        let limits = &self.0.limits;
        let mut taken = self.0.taken();
        if taken.total >= limits.total_max {
            return Err(NoSlot::Total);
        }
        if let Some(neighbourhood) = neighbourhood {
            let streams = taken.by_address.get(&neighbourhood).map_or(0, |share| share.streams);
            if streams >= limits.per_address_max {
                return Err(NoSlot::Address);
            }
            taken.by_address.entry(neighbourhood).or_default().streams += 1;
        }
        taken.total += 1;
        drop(taken);
        Ok(Slot { shared: Arc::clone(&self.0), neighbourhood, counted: None })
    }

    /// Takes the permit to wait for a pattern.
    pub(crate) fn compiling<'t>(
        &self,
        address: ClientAddress,
        text: &'t str,
    ) -> Result<CompilingSlot<'t>, NoSlot> {
        let neighbourhood = counted(address);
        if let Some(neighbourhood) = neighbourhood {
            let mut taken = self.0.taken();
            let compiling = &mut taken.by_address.entry(neighbourhood).or_default().compiling;
            if let Some(requests) = compiling.get_mut(text) {
                *requests += 1;
            } else if compiling.len() >= COMPILING_PER_ADDRESS_MAX {
                return Err(NoSlot::Compiling);
            } else {
                compiling.insert(text.into(), 1);
            }
        }
        Ok(CompilingSlot { shared: Arc::clone(&self.0), neighbourhood, text })
    }

    /// Takes the permit to wait for an application's decision.
    pub(crate) fn authorizing(&self, address: ClientAddress) -> Result<AuthorizingSlot, NoSlot> {
        let neighbourhood = counted(address);
        if let Some(neighbourhood) = neighbourhood {
            let mut taken = self.0.taken();
            let share = taken.by_address.entry(neighbourhood).or_default();
            if share.authorizing >= self.0.limits.authorizing_max {
                return Err(NoSlot::Authorizing);
            }
            share.authorizing += 1;
        }
        Ok(AuthorizingSlot { shared: Arc::clone(&self.0), neighbourhood })
    }

    pub(crate) fn limits(&self) -> &SlotLimits {
        &self.0.limits
    }
}

/// The unit that the limits per address count. Programs on this machine have no such limit.
fn counted(address: ClientAddress) -> Option<Neighbourhood> {
    (!address.is_local()).then(|| address.into())
}

impl Shared {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().expect("nothing panics while it holds this")
    }

    /// Releases slots of an address, and removes an address that has none.
    fn give_back(&self, neighbourhood: Neighbourhood, give: impl FnOnce(&mut Share)) {
        let mut taken = self.taken();
        let Some(share) = taken.by_address.get_mut(&neighbourhood) else { return };
        give(share);
        if share.streams == 0 && share.authorizing == 0 && share.compiling.is_empty() {
            taken.by_address.remove(&neighbourhood);
        }
    }
}

impl Slot {
    /// Counts the patterns of this stream for its address.
    pub(crate) fn take_patterns(&mut self, matchers: &[Matcher]) -> Result<(), NoSlot> {
        let Some(neighbourhood) = self.neighbourhood else { return Ok(()) };
        let mut patterns = Vec::new();
        let mut taken = self.shared.taken();
        let mine = &mut taken.by_address.entry(neighbourhood).or_default().patterns;
        for matcher in matchers {
            let Matcher::Pattern(pattern) = matcher else { continue };
            if let Some(count) = mine.get_mut(pattern) {
                *count += 1;
            } else if let Err(full) = mine.insert(pattern.clone(), 1, self.shared.limits.patterns) {
                for pattern in &patterns {
                    give_back_pattern(mine, pattern);
                }
                return Err(NoSlot::Patterns(full));
            }
            patterns.push(pattern.clone());
        }
        drop(taken);
        if !patterns.is_empty() {
            self.counted.get_or_insert_default().patterns = patterns;
        }
        Ok(())
    }

    /// Counts this stream for the credential of this id, which allows so many at the same time.
    pub(crate) fn take_credential(&mut self, id: &Arc<str>, streams_max: NonZeroU32) -> Result<(), NoSlot> {
        let mut taken = self.shared.taken();
        let streams = taken.by_credential.entry(Arc::clone(id)).or_default();
        if *streams >= streams_max.get() {
            return Err(NoSlot::Credential(streams_max));
        }
        *streams += 1;
        drop(taken);
        self.counted.get_or_insert_default().credential = Some(Arc::clone(id));
        Ok(())
    }
}

fn give_back_pattern(patterns: &mut PatternIndex<usize>, pattern: &UrlPattern) {
    let Some(count) = patterns.get_mut(pattern) else { return };
    *count -= 1;
    if *count == 0 {
        patterns.remove(pattern);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Counted { patterns, credential } =
            self.counted.take().map(|counted| *counted).unwrap_or_default();
        let mut taken = self.shared.taken();
        taken.total -= 1;
        if let Some(id) = credential
            && let Some(streams) = taken.by_credential.get_mut(&id)
        {
            *streams -= 1;
            if *streams == 0 {
                taken.by_credential.remove(&id);
            }
        }
        drop(taken);
        let Some(neighbourhood) = self.neighbourhood else { return };
        self.shared.give_back(neighbourhood, |share| {
            share.streams -= 1;
            for pattern in &patterns {
                give_back_pattern(&mut share.patterns, pattern);
            }
        });
    }
}

impl Drop for AuthorizingSlot {
    fn drop(&mut self) {
        let Some(neighbourhood) = self.neighbourhood else { return };
        self.shared.give_back(neighbourhood, |share| share.authorizing -= 1);
    }
}

impl Drop for CompilingSlot<'_> {
    fn drop(&mut self) {
        let Some(neighbourhood) = self.neighbourhood else { return };
        self.shared.give_back(neighbourhood, |share| {
            let Some(requests) = share.compiling.get_mut(self.text) else { return };
            *requests -= 1;
            if *requests == 0 {
                share.compiling.remove(self.text);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tidings::Validator;

    use super::*;

    fn slots(total_max: usize, per_address_max: usize) -> Slots {
        let patterns = PatternLimits { count_max: 3, weight_max: 100 };
        Slots::new(SlotLimits { total_max, per_address_max, patterns, authorizing_max: 2 })
    }

    fn patterns(texts: &[&str]) -> Vec<Matcher> {
        texts.iter().map(|text| Validator::default().pattern(text).expect("a pattern")).collect()
    }

    fn take(slots: &Slots, address: &str) -> Result<Slot, NoSlot> {
        slots.take(client(address))
    }

    fn client(address: &str) -> ClientAddress {
        ClientAddress::of(address.parse().expect("an address"))
    }

    #[test]
    fn a_slot_that_is_dropped_can_be_taken_again() {
        let slots = slots(2, 1);
        let first = take(&slots, "192.0.2.1").expect("free");
        assert_eq!(take(&slots, "192.0.2.1").err(), Some(NoSlot::Address));
        let _second = take(&slots, "192.0.2.2").expect("free");
        assert_eq!(take(&slots, "192.0.2.3").err(), Some(NoSlot::Total));
        drop(first);
        assert!(take(&slots, "192.0.2.1").is_ok());
    }

    #[test]
    fn a_credential_limits_its_own_streams_wherever_they_are_from() {
        let slots = slots(10, 10);
        let (one, two) = (Arc::from("one"), Arc::from("two"));
        let max = |count| NonZeroU32::new(count).expect("not zero");
        let mut held: Vec<_> = ["192.0.2.1", "192.0.2.2", "127.0.0.1", "192.0.2.1"]
            .map(|address| take(&slots, address).expect("free"))
            .into();
        assert_eq!(held[0].take_credential(&one, max(2)), Ok(()));
        assert_eq!(held[1].take_credential(&one, max(2)), Ok(()));
        assert_eq!(held[2].take_credential(&one, max(2)), Err(NoSlot::Credential(max(2))));
        assert_eq!(held[3].take_credential(&two, max(1)), Ok(()));
        held.swap_remove(0);
        assert_eq!(take(&slots, "127.0.0.1").expect("free").take_credential(&one, max(2)), Ok(()));
        drop(held);
        assert!(slots.0.taken.lock().expect("unpoisoned").by_credential.is_empty());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let slots = slots(10, 1);
        let _first = take(&slots, "2001:db8::1").expect("free");
        assert_eq!(take(&slots, "2001:db8::ffff:1").err(), Some(NoSlot::Address));
        assert!(take(&slots, "2001:db8:0:1::1").is_ok());
    }

    #[test]
    fn programs_on_this_machine_have_no_limit_of_their_own() {
        let slots = slots(5, 1);
        let mut held: Vec<_> = ["127.0.0.1", "::1", "::ffff:127.0.0.1"].map(|text| take(&slots, text)).into();
        held.extend([ClientAddress::Unix, ClientAddress::Unix].map(|client| slots.take(client)));
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(slots.take(ClientAddress::Unknown).err(), Some(NoSlot::Total));
    }

    #[test]
    fn clients_of_unknown_address_share_the_limit_of_one() {
        let slots = slots(10, 1);
        let _first = slots.take(ClientAddress::Unknown).expect("free");
        assert_eq!(slots.take(ClientAddress::Unknown).err(), Some(NoSlot::Address));
        assert!(take(&slots, "192.0.2.1").is_ok());
    }

    #[test]
    fn an_address_without_streams_is_forgotten() {
        let slots = slots(10, 5);
        drop(slots.compiling(client("192.0.2.1"), "/a/:id"));
        drop(slots.authorizing(client("192.0.2.1")));
        let mut slot = take(&slots, "192.0.2.1").expect("free");
        slot.take_patterns(&patterns(&["/a/:id"])).expect("free");
        drop(slot);
        assert!(slots.0.taken.lock().expect("unpoisoned").by_address.is_empty());
    }

    #[test]
    fn an_address_has_a_limit_of_distinct_patterns_over_all_streams() {
        let slots = slots(10, 10);
        let mut held: Vec<_> = (0..5).map(|_| take(&slots, "192.0.2.1").expect("free")).collect();
        for slot in &mut held[..3] {
            assert_eq!(slot.take_patterns(&patterns(&["/a/:id", "/b/:id"])), Ok(()));
        }
        let full = Err(NoSlot::Patterns(PatternsFull::Count));
        assert_eq!(held[3].take_patterns(&patterns(&["/c/:id", "/d/:id"])), full);
        assert_eq!(
            held[3].take_patterns(&patterns(&["/c/:id"])),
            Ok(()),
            "a refused subscription holds no slot"
        );
        assert_eq!(held[4].take_patterns(&patterns(&["/d/:id"])), full);
        assert_eq!(take(&slots, "192.0.2.2").expect("free").take_patterns(&patterns(&["/d/:id"])), Ok(()));
        assert_eq!(
            take(&slots, "127.0.0.1").expect("free").take_patterns(&patterns(&["/1", "/2", "/3", "/4"])),
            Ok(())
        );
        held.drain(..3);
        assert_eq!(held[1].take_patterns(&patterns(&["/d/:id"])), Ok(()));
    }

    #[test]
    fn the_patterns_of_an_address_have_a_limit_of_work_per_topic() {
        let slots = slots(10, 10);
        let mut slot = take(&slots, "192.0.2.1").expect("free");
        let matchers = patterns(&["/:a(\\d+)x", "/:b(\\d+)x"]);
        assert_eq!(slot.take_patterns(&matchers), Err(NoSlot::Patterns(PatternsFull::Weight)));
        assert_eq!(slot.take_patterns(&matchers[..1]), Ok(()));
    }

    #[test]
    fn an_address_has_a_limit_of_streams_that_wait_for_a_decision() {
        let slots = slots(10, 10);
        let address = client("192.0.2.1");
        let waiting = [slots.authorizing(address), slots.authorizing(address)];
        assert!(waiting.iter().all(Result::is_ok));
        assert_eq!(slots.authorizing(address).err(), Some(NoSlot::Authorizing));
        assert!(slots.authorizing(client("192.0.2.2")).is_ok());
        assert!(slots.authorizing(client("127.0.0.1")).is_ok());
        drop(waiting);
        assert!(slots.authorizing(address).is_ok());
    }

    #[test]
    fn an_address_has_a_limit_of_patterns_being_compiled() {
        let slots = slots(10, 10);
        let address = client("192.0.2.1");
        let texts: Vec<_> = (0..COMPILING_PER_ADDRESS_MAX).map(|number| format!("/{number}/:id")).collect();
        let mut waiting: Vec<_> =
            texts.iter().map(|text| slots.compiling(address, text).expect("free")).collect();
        assert_eq!(slots.compiling(address, "/a/:id").err(), Some(NoSlot::Compiling));
        assert!(slots.compiling(address, "/0/:id").is_ok(), "it is waited for already");
        assert!(slots.compiling(client("127.0.0.1"), "/a/:id").is_ok());
        waiting.pop();
        assert!(slots.compiling(address, "/a/:id").is_ok());
    }
}
