//! Checks who may receive private events: subscribers with equal filters share one, and it is
//! evaluated once for each audience.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use tidings_topic::{ConnectionId, Filter};

use crate::feed::frames::Audience;

/// Decisions that are remembered. They are cheap to make again, so beyond this all are forgotten.
const DECISIONS_MAX: usize = 16 * 1024;

/// The filters of a shard's subscribers.
#[derive(Debug, Default)]
pub(super) struct Filters {
    known: HashMap<Arc<Filter>, Known>,
    next_number: u64,
    /// By audience and filter. Numbers are never used again, so a decision never applies to another
    /// filter.
    decisions: HashMap<(u64, u64), bool>,
}

#[derive(Debug)]
struct Known {
    number: u64,
    subscribers: usize,
}

impl Filters {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Replaces the filter of a subscriber by an equal one that is here already. Returns its
    /// number.
    pub(super) fn intern(&mut self, filter: &mut Arc<Filter>) -> u64 {
        match self.known.entry(Arc::clone(filter)) {
            Entry::Occupied(mut entry) => {
                *filter = Arc::clone(entry.key());
                let known = entry.get_mut();
                known.subscribers += 1;
                known.number
            }
            Entry::Vacant(entry) => {
                let number = self.next_number;
                self.next_number += 1;
                entry.insert(Known { number, subscribers: 1 });
                number
            }
        }
    }

    /// A subscriber with this filter has left. With the last one it is forgotten.
    pub(super) fn release(&mut self, filter: &Arc<Filter>) {
        let Some(known) = self.known.get_mut(filter) else { return };
        known.subscribers -= 1;
        if known.subscribers == 0 {
            self.known.remove(filter);
        }
    }

    /// Whether an event for such an audience may be received by this connection with this filter.
    /// (That it matches is known.)
    pub(super) fn may_receive(
        &mut self,
        audience: &Audience,
        connection: &ConnectionId,
        filter: &Filter,
        number: u64,
    ) -> bool {
        audience.admits(connection, |topics| {
            if self.decisions.len() >= DECISIONS_MAX {
                self.decisions.clear();
            }
            *self
                .decisions
                .entry((audience.serial, number))
                .or_insert_with(|| filter.grants.cover_any(topics))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::frames::tests::private;

    #[test]
    fn equal_filters_are_one_until_the_last_of_their_subscribers_has_left() {
        let mut filters = Filters::default();
        let new = || Arc::new(Filter::everything_public());
        let [mut first, mut second] = [new(), new()];
        let number = filters.intern(&mut first);
        assert_eq!(filters.intern(&mut second), number);
        assert!(Arc::ptr_eq(&first, &second));
        filters.release(&first);
        assert_eq!(filters.intern(&mut new()), number);
        filters.release(&first);
        filters.release(&second);
        assert!(filters.known.is_empty());
        assert_ne!(filters.intern(&mut new()), number, "what is remembered of a number is true forever");
    }

    #[test]
    fn decisions_that_are_remembered_are_bounded() {
        let mut filters = Filters::default();
        let connection = ConnectionId::from_random([7; 16]);
        let audience = private(1, &["a"]).metas()[0].audience.clone().expect("it is private");
        for number in 0..2 * DECISIONS_MAX as u64 {
            assert!(!filters.may_receive(&audience, &connection, &Filter::everything_public(), number));
            assert!(filters.decisions.len() <= DECISIONS_MAX);
        }
    }
}
