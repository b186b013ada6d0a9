//! Limits on open streams, in total, per address, per credential and per subject, and on the
//! patterns of each address.

mod holder;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard},
};

use tidings::{Matcher, Pattern, PatternIndex, PatternLimits, PatternsFull};
use tidings_auth::Access;

use self::holder::Holder;
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
    /// Streams of one subject.
    pub(crate) per_subject_max: Option<NonZeroU32>,
    /// Patterns of one address.
    pub(crate) patterns: PatternLimits,
    /// Streams of one address that wait for an application to decide about them.
    pub(crate) authorizing_max: usize,
    /// Requests of one address to the application behind the hub that have not ended.
    pub(crate) upstream_max: usize,
}

#[derive(Default, Debug)]
struct Taken {
    total: usize,
    /// Only addresses that have a stream or wait for a pattern are in it, so it is bounded by the
    /// number of connections.
    by_address: HashMap<Neighbourhood, Share>,
    /// Streams of those that have a limit and a stream.
    by_holder: HashMap<Holder, u32>,
}

/// The slots of one address.
#[derive(Default, Debug)]
struct Share {
    streams: usize,
    /// Streams that wait for an application to decide about them.
    authorizing: usize,
    /// Requests to the application behind the hub that have not ended.
    upstream: usize,
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
    patterns: Vec<Pattern>,
    /// Those for whom it counts.
    holders: Vec<Holder>,
}

/// The permit to wait for a pattern to be compiled, released on drop.
#[derive(Debug)]
pub(crate) struct CompilingSlot<'t> {
    shared: Arc<Shared>,
    neighbourhood: Option<Neighbourhood>,
    text: &'t str,
}

/// The permit to ask an application for something, released on drop.
#[derive(Debug)]
pub(crate) struct AskingSlot {
    shared: Arc<Shared>,
    neighbourhood: Option<Neighbourhood>,
    count: fn(&mut Share) -> &mut usize,
}

/// Why there is no slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoSlot {
    /// The hub is full.
    Total,
    /// This address is at its limit of streams.
    Address,
    /// The ticket is at its own limit of streams.
    Ticket(NonZeroU32),
    /// The key is at its own limit of streams.
    Key(NonZeroU32),
    /// The subject is at its limit of streams.
    Subject(NonZeroU32),
    /// The address is at its limit of patterns.
    Patterns(PatternsFull),
    /// It is at its limit of patterns that wait to be compiled.
    Compiling,
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

    /// Takes the permit to wait for an application's decision; none if the address is at its limit.
    pub(crate) fn authorizing(&self, address: ClientAddress) -> Option<AskingSlot> {
        self.asking(address, self.0.limits.authorizing_max, |share| &mut share.authorizing)
    }

    /// Takes the permit for a request to the application behind the hub; none if the address is at its
    /// limit.
    pub(crate) fn upstream(&self, address: ClientAddress) -> Option<AskingSlot> {
        self.asking(address, self.0.limits.upstream_max, |share| &mut share.upstream)
    }

    fn asking(
        &self,
        address: ClientAddress,
        max: usize,
        count: fn(&mut Share) -> &mut usize,
    ) -> Option<AskingSlot> {
        let neighbourhood = counted(address);
        if let Some(neighbourhood) = neighbourhood {
            let mut taken = self.0.taken();
            if taken.by_address.get_mut(&neighbourhood).is_some_and(|share| *count(share) >= max) {
                return None;
            }
            *count(taken.by_address.entry(neighbourhood).or_default()) += 1;
        }
        Some(AskingSlot { shared: Arc::clone(&self.0), neighbourhood, count })
    }

    pub(crate) fn limits(&self) -> &SlotLimits {
        &self.0.limits
    }
}

impl Share {
    /// The patterns are those of its streams.
    fn is_empty(&self) -> bool {
        [self.streams, self.authorizing, self.upstream] == [0; 3] && self.compiling.is_empty()
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
        if share.is_empty() {
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

    /// Counts this stream for its credential and for its subject, as far as they are limited.
    pub(crate) fn take_holders(&mut self, access: &Access) -> Result<(), NoSlot> {
        let per_subject_max = self.shared.limits.per_subject_max;
        let subject = per_subject_max.and_then(|streams_max| Some((Holder::subject(access)?, streams_max)));
        for (holder, streams_max) in Holder::credential(access).into_iter().chain(subject) {
            let mut taken = self.shared.taken();
            let streams = taken.by_holder.entry(holder.clone()).or_default();
            if *streams >= streams_max.get() {
                return Err(match holder {
                    Holder::Ticket(_) => NoSlot::Ticket(streams_max),
                    Holder::Key(_) => NoSlot::Key(streams_max),
                    Holder::Label(_) | Holder::TokenSubject { .. } => NoSlot::Subject(streams_max),
                });
            }
            *streams += 1;
            drop(taken);
            self.counted.get_or_insert_default().holders.push(holder);
        }
        Ok(())
    }
}

fn give_back_pattern(patterns: &mut PatternIndex<usize>, pattern: &Pattern) {
    let Some(count) = patterns.get_mut(pattern) else { return };
    *count -= 1;
    if *count == 0 {
        patterns.remove(pattern);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Counted { patterns, holders } = self.counted.take().map(|counted| *counted).unwrap_or_default();
        let mut taken = self.shared.taken();
        taken.total -= 1;
        for holder in holders {
            let Some(streams) = taken.by_holder.get_mut(&holder) else { continue };
            *streams -= 1;
            if *streams == 0 {
                taken.by_holder.remove(&holder);
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

impl Drop for AskingSlot {
    fn drop(&mut self) {
        let Some(neighbourhood) = self.neighbourhood else { return };
        self.shared.give_back(neighbourhood, |share| *(self.count)(share) -= 1);
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
