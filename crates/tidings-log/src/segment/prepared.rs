//! Batches on their way to the writer, with everything that does not depend on their place in the
//! log: encoded and checksummed by the task that publishes them.

use tidings_topic::{Event, StoredEvent};

use super::record::{Body, COMMIT_BYTES, TooLong};
use crate::{Batch, IdempotencyKey, draft::Audience};

/// A batch that only needs its numbers.
#[derive(Debug)]
pub(super) struct PreparedBatch {
    pub(super) events: Vec<PreparedEvent>,
    pub(super) key: Option<IdempotencyKey>,
    /// The bytes of its records.
    pub(super) bytes: usize,
}

/// An event that only needs its number.
#[derive(Debug)]
pub(super) struct PreparedEvent {
    pub(super) event: Event,
    pub(super) audience: Audience,
    pub(super) body: Body,
}

impl PreparedBatch {
    /// Encodes a batch. Fails if an event is too long for a record.
    pub(super) fn new(batch: Batch) -> Result<Self, TooLong> {
        let Batch { events, key } = batch;
        let mut bytes = COMMIT_BYTES;
        let mut prepared = Vec::with_capacity(events.len());
        for event in events {
            let key_of_first = key.as_ref().filter(|_| prepared.is_empty());
            let body = Body::of_event(&StoredEvent::of(&event), key_of_first.map(IdempotencyKey::as_str))?;
            bytes += body.record_bytes();
            prepared.push(PreparedEvent { audience: Audience::of(&event), event, body });
        }
        Ok(Self { events: prepared, key, bytes })
    }
}
