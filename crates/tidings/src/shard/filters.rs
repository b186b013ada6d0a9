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
