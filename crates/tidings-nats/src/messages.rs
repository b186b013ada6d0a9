//! Which batches share a message.
//!
//! The server stores, acknowledges and delivers message by message, so batches that are appended at
//! the same time share one. A batch with an idempotency key is a message of its own: the key is the
//! id of the message. An event that is deleted is hidden at once, but its bytes stay in the stream
//! as long as another event of its message does, and reading an old event fetches its message: so
//! shared messages are small.

use crate::format::{BATCH_EVENTS_MAX, EncodedBatch};

/// Most bytes of a message that several batches share.
const SHARED_BYTES_MAX: usize = 64 << 10;
/// What a message has beyond its events, at most: its header, and their number.
const OVERHEAD_BYTES: usize = 1_024;

/// Distributes batches over messages, for a server that accepts messages up to a size. Each comes
/// with its index. A batch that is larger has a message of its own, which the server refuses.
pub(crate) fn messages<'b>(
    batches: impl IntoIterator<Item = (usize, EncodedBatch<'b>)>,
    max_payload: usize,
) -> Vec<Vec<(usize, EncodedBatch<'b>)>> {
    let shared_bytes_max = SHARED_BYTES_MAX.min(max_payload.saturating_sub(OVERHEAD_BYTES));
    let mut messages = Vec::new();
    let mut shared = Vec::new();
    let (mut bytes, mut events) = (0, 0);
    for (index, encoded) in batches {
        if encoded.batch.key.is_some() {
            messages.push(vec![(index, encoded)]);
            continue;
        }
        bytes += encoded.bytes.len();
        events += encoded.sizes.len();
        if bytes > shared_bytes_max || events > BATCH_EVENTS_MAX {
            (bytes, events) = (encoded.bytes.len(), encoded.sizes.len());
            messages.push(std::mem::take(&mut shared));
        }
        shared.push((index, encoded));
    }
    messages.push(shared);
    messages.retain(|message| !message.is_empty());
    messages
}

#[cfg(test)]
mod tests {
    use tidings_log::{Batch, IdempotencyKey};
    use tidings_topic::{NewEvent, Validator};

    use super::*;
    use crate::format::{decode_batch, encode_message};

    fn batch(events: &[&str], key: Option<&str>) -> Batch {
        let event =
            |text: &&str| Validator::default().event(NewEvent::new("a", *text)).expect("a valid event");
        Batch { events: events.iter().map(event).collect(), key: key.and_then(IdempotencyKey::new) }
    }

    fn arranged(batches: &[Batch], max_payload: usize) -> Vec<Vec<usize>> {
        let messages = messages(
            batches.iter().map(|batch| EncodedBatch::of(batch).expect("few topics")).enumerate(),
            max_payload,
        );
        let indices = messages.into_iter().map(|message| {
            let payload = encode_message(message.iter().map(|(_, encoded)| encoded));
            assert!(payload.len() <= max_payload || message.len() == 1);
            let events = message.iter().flat_map(|(_, encoded)| &encoded.batch.events);
            let decoded = decode_batch(&payload).expect("a batch");
            assert!(decoded.iter().map(|(event, _)| event).eq(events));
            message.into_iter().map(|(index, _)| index).collect()
        });
        indices.collect()
    }

    #[test]
    fn batches_without_a_key_share_a_message() {
        let batches = [
            batch(&["1", "2"], None),
            batch(&["3"], Some("k")),
            batch(&["4"], None),
            batch(&["5"], Some("l")),
        ];
        assert_eq!(arranged(&batches, 1 << 20), [vec![1], vec![3], vec![0, 2]]);
        assert_eq!(arranged(&batches[1..2], 1 << 20), [vec![0]]);
        assert!(arranged(&[], 1 << 20).is_empty());
    }

    #[test]
    fn a_shared_message_is_bounded_by_its_size_and_by_that_of_the_server() {
        let (small, large) = ("x".repeat(SHARED_BYTES_MAX / 3), "x".repeat(SHARED_BYTES_MAX * 2));
        let batches = [&small, &small, &small, &large, &small].map(|text| batch(&[text], None));
        assert_eq!(arranged(&batches, 1 << 20), [vec![0, 1], vec![2], vec![3], vec![4]]);
        let tiny = [(); 3].map(|()| batch(&["x"], None));
        assert_eq!(arranged(&tiny, 1_100), [vec![0, 1, 2]]);
        assert_eq!(arranged(&tiny, OVERHEAD_BYTES), [vec![0], vec![1], vec![2]]);
    }

    #[test]
    fn a_shared_message_has_no_more_events_than_positions() {
        let many = vec!["x"; BATCH_EVENTS_MAX / 2 + 1];
        let batches = [batch(&many, None), batch(&many, None)];
        assert_eq!(arranged(&batches, 1 << 30), [vec![0], vec![1]]);
    }
}
