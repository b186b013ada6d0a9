//! The window of idempotency keys.

use std::collections::{HashMap, VecDeque};

use crate::{EventId, IdempotencyKey, MemoryLimits, Timestamp};

/// The newest idempotency keys and what was appended under them.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    first_ids: HashMap<IdempotencyKey, EventId>,
    /// In the order of their appending.
    order: VecDeque<Record>,
    bytes: usize,
}

/// A key, and what was appended under it.
#[cfg(unix)]
#[derive(Clone, Debug)]
pub(crate) struct KnownKey {
    pub(crate) key: IdempotencyKey,
    pub(crate) first_id: EventId,
    pub(crate) time: Timestamp,
    /// The number of the last entry of the batch. Keys are inserted in this order.
    pub(crate) last: u64,
}

#[derive(Debug)]
struct Record {
    key: IdempotencyKey,
    time: Timestamp,
    /// The number of the last entry of the batch.
    last: u64,
    bytes: usize,
}

impl Keys {
    /// The id of the first event that was appended under this key.
    pub(crate) fn get(&self, key: &IdempotencyKey) -> Option<&EventId> {
        self.first_ids.get(key)
    }

    /// Remembers a key that is not known, and forgets the oldest where there are too many.
    pub(crate) fn insert(
        &mut self,
        key: IdempotencyKey,
        first_id: EventId,
        time: Timestamp,
        last: u64,
        limits: &MemoryLimits,
    ) {
        let bytes = RECORD_BYTES + key.as_str().len() + first_id.as_str().len();
        self.bytes += bytes;
        self.first_ids.insert(key.clone(), first_id);
        self.order.push_back(Record { key, time, last, bytes });
        while self.order.len() > limits.keys_max || self.bytes > MemoryLimits::KEYS_BYTES_MAX {
            self.forget_front();
        }
    }

    /// The oldest keys of batches that end after one entry and up to another, at most `count_max`.
    #[cfg(unix)]
    pub(crate) fn of_batches(&self, after: u64, through: u64, count_max: usize) -> Vec<KnownKey> {
        let start = self.order.partition_point(|record| record.last <= after);
        let wanted = self.order.range(start..).take_while(|record| record.last <= through);
        let known = |record: &Record| {
            let (key, first_id) = (record.key.clone(), self.first_ids.get(&record.key)?.clone());
            Some(KnownKey { key, first_id, time: record.time, last: record.last })
        };
        wanted.filter_map(known).take(count_max).collect()
    }

    /// Forgets what is older than the window. A key is never forgotten before those in front of it,
    /// whatever the clock did.
    pub(crate) fn expire(&mut self, now: Timestamp, limits: &MemoryLimits) {
        let oldest = now.earlier_by(limits.keys_age_max);
        while self.order.front().is_some_and(|record| record.time < oldest) {
            self.forget_front();
        }
    }

    fn forget_front(&mut self) {
        if let Some(record) = self.order.pop_front() {
            self.bytes -= record.bytes;
            self.first_ids.remove(&record.key);
        }
    }
}

/// Memory of one key beside its texts: a place in the map, one in the queue, and the counts of two
/// shared strings.
const RECORD_BYTES: usize = 160;
