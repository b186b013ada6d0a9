//! Judging private events: subscribers whose filters are equal share one, and it is asked once for each audience.

use std::{collections::HashMap, sync::Arc};

use tidings_topic::{ConnectionId, Filter};

use crate::frames::Audience;

/// Verdicts that are remembered. They are cheap to find again, so beyond this all are forgotten.
const VERDICTS_MAX: usize = 16 * 1024;

/// The filters of a shard's subscribers.
#[derive(Debug, Default)]
pub(super) struct Filters {
    numbers: HashMap<Arc<Filter>, u64>,
    next_number: u64,
    /// By audience and filter. Numbers are never used again, so a verdict never passes to somebody else.
    verdicts: HashMap<(u64, u64), bool>,
}

impl Filters {
    /// Replaces a filter by an equal one that is here already. Returns its number.
    pub(super) fn intern(&mut self, filter: &mut Arc<Filter>) -> u64 {
        if let Some((known, number)) = self.numbers.get_key_value(filter) {
            *filter = Arc::clone(known);
            return *number;
        }
        let number = self.next_number;
        self.next_number += 1;
        self.numbers.insert(Arc::clone(filter), number);
        number
    }

    /// Whether an event for such an audience may be received by this connection with this filter. (That it matches is known.)
    pub(super) fn may_receive(
        &mut self,
        audience: &Audience,
        connection: &ConnectionId,
        filter: &Filter,
        number: u64,
    ) -> bool {
        audience.admits(connection, |topics| {
            if self.verdicts.len() >= VERDICTS_MAX {
                self.verdicts.clear();
            }
            *self.verdicts.entry((audience.serial, number)).or_insert_with(|| filter.grants.cover_any(topics))
        })
    }

    /// Drops filters that nobody has any more.
    pub(super) fn forget_unused(&mut self) {
        self.numbers.retain(|filter, _| Arc::strong_count(filter) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::tests::private;

    #[test]
    fn equal_filters_are_one_until_the_last_of_their_subscribers_has_left() {
        let mut filters = Filters::default();
        let new = || Arc::new(Filter::everything_public());
        let [mut first, mut second] = [new(), new()];
        let number = filters.intern(&mut first);
        assert_eq!(filters.intern(&mut second), number);
        assert!(Arc::ptr_eq(&first, &second));
        drop(first);
        filters.forget_unused();
        assert_eq!(filters.intern(&mut new()), number);
        drop(second);
        filters.forget_unused();
        assert!(filters.numbers.is_empty());
        assert_ne!(filters.intern(&mut new()), number, "what is remembered of a number is true for ever");
    }

    #[test]
    fn verdicts_that_are_remembered_are_bounded() {
        let mut filters = Filters::default();
        let connection = ConnectionId::from_random([7; 16]);
        let audience = private(1, &["a"]).marks()[0].audience.clone().expect("it is private");
        for number in 0..2 * VERDICTS_MAX as u64 {
            assert!(!filters.may_receive(&audience, &connection, &Filter::everything_public(), number));
            assert!(filters.verdicts.len() <= VERDICTS_MAX);
        }
    }
}
