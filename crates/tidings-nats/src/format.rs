//! The encoding of messages in the stream: a version, then what [`tidings_log::codec`] makes of it.
//!
//! A **batch** is one message, so that it is stored whole or not at all; several batches without a
//! key that are appended at the same time are one, too ([`messages`](crate::messages)), and are as
//! one to a reader: the number of events u32, and each event.
//!
//! A **deletion** is a message, too. It names the deleted topic, the audiences that missed
//! something, and, if the grants of the deletion did not cover some topics, what it spares.
//!
//! The **audiences** of what was read are kept next to the stream, so that a hub that starts later
//! knows which subscribers lost something to retention.
//!
//! Whatever does not decode is skipped and counted by the reader: one bad message blocks nothing.

use bytes::Bytes;
use tidings_log::{
    Batch,
    codec::{Fields, Stored, count, push_event},
    parts::Audience,
    stored,
};
use tidings_topic::{Event, StoredEvent, Topic};

/// The first byte of all messages.
const VERSION: u8 = 2;

/// Most events of a batch: an index into it has 16 bits.
pub(crate) const BATCH_EVENTS_MAX: usize = 1 << 16;

/// A batch as it is in a message.
#[derive(Debug)]
pub(crate) struct EncodedBatch<'b> {
    pub(crate) batch: &'b Batch,
    pub(crate) bytes: Vec<u8>,
    /// The bytes of each event.
    pub(crate) sizes: Vec<usize>,
}

impl<'b> EncodedBatch<'b> {
    /// `None` if an event has too many topics.
    pub(crate) fn of(batch: &'b Batch) -> Option<Self> {
        let mut bytes = Vec::new();
        let mut sizes = Vec::with_capacity(batch.events.len());
        for event in &batch.events {
            let before = bytes.len();
            push_event(&mut bytes, &StoredEvent::of(event), None)?;
            sizes.push(bytes.len() - before);
        }
        Some(Self { batch, bytes, sizes })
    }
}

/// Batches as one message.
pub(crate) fn encode_message<'a, 'b: 'a>(
    batches: impl Iterator<Item = &'a EncodedBatch<'b>> + Clone,
) -> Bytes {
    let mut bytes = vec![VERSION];
    batches.clone().map(|batch| count(&batch.sizes)).sum::<u32>().store(&mut bytes);
    for batch in batches {
        bytes.extend_from_slice(&batch.bytes);
    }
    bytes.into()
}

/// The events of a batch, each with the bytes that it takes in the message. `None` if it is none.
pub(crate) fn decode_batch(bytes: &[u8]) -> Option<Vec<(Event, usize)>> {
    let mut fields = Fields(bytes);
    let (version, count): (u8, u32) = fields.read()?;
    if version != VERSION || count == 0 || count as usize > BATCH_EVENTS_MAX {
        return None;
    }
    let mut events = Vec::new();
    for _ in 0..count {
        let before = fields.0.len();
        let (event, _) = fields.event()?;
        events.push((event.restore()?, before - fields.0.len()));
    }
    fields.0.is_empty().then_some(events)
}

/// Most audiences that a deletion reports to hubs that start later. Of the others these know only
/// that something may have been missed.
pub(crate) const DELETION_AUDIENCES_MAX: usize = 1_000;

/// The deletion of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Deletion {
    pub(crate) topic: Topic,
    /// The newest hidden event of each audience, newest first. If there were too many audiences, only
    /// the first of them.
    pub(crate) missed: Vec<(Audience, u64)>,
    /// What it spares; `None` if it deletes everything before it.
    pub(crate) spared: Option<Spared>,
}

/// What a deletion keeps, although it has the topic. Every hub keeps the same, whatever grants the
/// deletion was made with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Spared {
    /// Events after this one: their topics have not been checked.
    pub(crate) after: u64,
    /// Events with one of these topics. Sorted.
    pub(crate) topics: Vec<Topic>,
}

impl Spared {
    pub(crate) fn spares(&self, number: u64, topics: &[Topic]) -> bool {
        number > self.after || topics.iter().any(|topic| self.topics.binary_search(topic).is_ok())
    }
}

stored!(Deletion { topic, missed, spared });
stored!(Spared { after, topics });

impl Deletion {
    /// Up to here it may have hidden events of audiences that it does not name.
    pub(crate) fn unnamed_through(&self) -> Option<u64> {
        let is_cut_off = self.missed.len() >= DELETION_AUDIENCES_MAX;
        self.missed.last().filter(|_| is_cut_off).map(|(_, newest)| *newest)
    }

    /// See [`decode`].
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut deletion: Self = decode(bytes)?;
        if let Some(spared) = &mut deletion.spared {
            spared.topics.sort_unstable();
        }
        Some(deletion)
    }
}

/// What a hub leaves for those that start later.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LeftAudiences {
    /// When the stream was created, and the epoch.
    pub(crate) identity: (String, u64),
    pub(crate) audiences: Audiences,
}

/// The audiences of what a hub has read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Audiences {
    /// Up to this message of the stream.
    pub(crate) through: u64,
    /// Up to here the audiences are no longer known.
    pub(crate) forgotten_through: u64,
    pub(crate) known: Vec<KnownAudience>,
}

/// The audience of some events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct KnownAudience {
    pub(crate) audience: Audience,
    /// The newest of them that was gone; 0 if none was.
    pub(crate) gone: u64,
    /// The oldest that may have been kept.
    pub(crate) first: u64,
    /// The newest of all.
    pub(crate) newest: u64,
}

stored!(LeftAudiences { identity, audiences });
stored!(Audiences { through, forgotten_through, known });
stored!(KnownAudience { audience, gone, first, newest });

/// A deletion as a message, or audiences as a value.
pub(crate) fn encode(value: &impl Stored) -> Bytes {
    let mut bytes = vec![VERSION];
    value.store(&mut bytes);
    bytes.into()
}

/// `None` if it is no such value, or of another version.
pub(crate) fn decode<T: Stored>(bytes: &[u8]) -> Option<T> {
    let (version, value): (u8, T) = Fields(bytes).read_last()?;
    (version == VERSION).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};
    use tidings_topic::{ConnectionId, NewEvent, Validator};

    use super::*;

    fn event() -> impl Strategy<Value = Event> {
        let names = vec("[a-zä/]{1,9}", 1..4);
        let parts = (option::of("[a-z]{1,9}"), option::of("[a-z]{8}"), option::of(0..100_000_u64));
        (names, ".{0,300}", parts, any::<bool>(), option::of(any::<[u8; 16]>())).prop_map(
            |(topics, data, (id, event_type, retry_millis), private, except)| {
                let id = id.map(|id| format!("id-{id}"));
                let except = except.map(ConnectionId::from_random);
                let new = NewEvent {
                    topics,
                    data,
                    id,
                    event_type,
                    retry_millis,
                    private,
                    except,
                    ephemeral: false,
                    key: None,
                };
                Validator::default().event(new).expect("a valid event")
            },
        )
    }

    fn topic(text: &str) -> Topic {
        Topic::from_stored(text).unwrap()
    }

    proptest! {
        #[test]
        fn a_batch_comes_back_as_it_was(events in vec(event(), 1..5)) {
            let batch = Batch { events, key: None };
            let encoded = EncodedBatch::of(&batch).expect("few topics");
            let bytes = encode_message([&encoded].into_iter());
            let decoded = decode_batch(&bytes).expect("a batch");
            let sizes = encoded.sizes;
            prop_assert_eq!(decoded, batch.events.into_iter().zip(sizes).collect::<Vec<_>>());
            for length in 0..bytes.len() {
                prop_assert_eq!(decode_batch(&bytes[..length]), None, "cut at {}", length);
            }
        }

        #[test]
        fn foreign_messages_are_skipped(bytes in vec(any::<u8>(), 0..200)) {
            decode_batch(&bytes);
            Deletion::decode(&bytes);
            decode::<LeftAudiences>(&bytes);
        }
    }

    #[test]
    fn a_deletion_comes_back_as_it_was() {
        let audience = |private| Audience { topics: vec![topic("a"), topic("b")], private };
        let missed = vec![(audience(true), 1 << 40), (audience(false), 7)];
        let whole = Deletion { topic: topic("ä"), missed, spared: None };
        let spared = Some(Spared { after: 1 << 40, topics: vec![topic("b"), topic("c")] });
        let partial = Deletion { spared, ..whole.clone() };
        for deletion in [&whole, &partial] {
            let bytes = encode(deletion);
            assert_eq!(Deletion::decode(&bytes).as_ref(), Some(deletion));
            for length in 0..bytes.len() {
                assert_eq!(Deletion::decode(&bytes[..length]), None, "cut at {length}");
            }
        }
    }

    #[test]
    fn audiences_come_back_as_they_were() {
        let audience = Audience { topics: vec![topic("a")], private: true };
        let known = vec![KnownAudience { audience, gone: 1, first: 2, newest: 9 }];
        let audiences = Audiences { through: 7, forgotten_through: 8, known };
        let left = LeftAudiences { identity: ("1".to_owned(), u64::MAX), audiences };
        let bytes = encode(&left);
        assert_eq!(decode(&bytes), Some(left));
        assert_eq!(decode::<LeftAudiences>(&bytes[1..]), None);
    }

    #[test]
    fn a_message_cannot_make_its_reader_reserve_more_than_it_has() {
        let bytes = [&[VERSION][..], &u32::MAX.to_le_bytes()].concat();
        assert_eq!(decode_batch(&bytes), None);
        let bytes = [&[VERSION][..], b"\x01\0\0\0a", &u32::MAX.to_le_bytes()].concat();
        assert_eq!(Deletion::decode(&bytes), None);
    }
}
