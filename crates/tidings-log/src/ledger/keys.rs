//! The window of idempotency keys.

use std::collections::{HashMap, VecDeque};

use crate::{EventId, IdempotencyKey, MemoryLimits, Timestamp};

/// The newest idempotency keys and what was appended under them.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    first_ids: HashMap<IdempotencyKey, EventId>,
    /// In the order of their appending.
    order: VecDeque<KnownKey>,
    bytes: usize,
}

/// A key, and what was appended under it.
#[derive(Clone, Debug)]
pub(crate) struct KnownKey {
    pub(crate) key: IdempotencyKey,
    pub(crate) first_id: EventId,
    pub(crate) time: Timestamp,
    /// The number of the last entry of the batch. Keys are inserted in this order.
    pub(crate) last: u64,
}

impl Keys {
    /// The id of the first event that was appended under this key.
    pub(crate) fn get(&self, key: &IdempotencyKey) -> Option<&EventId> {
        self.first_ids.get(key)
    }

    /// Remembers a key that is not known, and forgets the oldest where there are too many.
    pub(crate) fn insert(&mut self, known: KnownKey, limits: &MemoryLimits) {
        self.bytes += known.memory_bytes();
        self.first_ids.insert(known.key.clone(), known.first_id.clone());
        self.order.push_back(known);
        while self.order.len() > limits.keys_max || self.bytes > MemoryLimits::KEYS_BYTES_MAX {
            self.forget_front();
        }
    }

    /// The oldest keys of batches that end after one entry and up to another, at most `count_max`.
    #[cfg(unix)]
    pub(crate) fn of_batches(&self, after: u64, through: u64, count_max: usize) -> Vec<KnownKey> {
        let start = self.order.partition_point(|known| known.last <= after);
        let wanted = self.order.range(start..).take_while(|known| known.last <= through);
        wanted.take(count_max).cloned().collect()
    }

    /// Forgets what is older than the window. A key is never forgotten before those in front of it,
    /// whatever the clock did.
    pub(crate) fn expire(&mut self, now: Timestamp, limits: &MemoryLimits) {
        let oldest = now.earlier_by(limits.keys_age_max);
        while self.order.front().is_some_and(|known| known.time < oldest) {
            self.forget_front();
        }
    }

    fn forget_front(&mut self) {
        if let Some(known) = self.order.pop_front() {
            self.bytes -= known.memory_bytes();
            self.first_ids.remove(&known.key);
        }
    }
}

impl KnownKey {
    fn memory_bytes(&self) -> usize {
        KEY_BYTES + self.key.as_str().len() + self.first_id.as_str().len()
    }
}

/// Memory of one key beside its texts: a place in the map, one in the queue, and the counts of two
/// shared strings.
const KEY_BYTES: usize = 160;
