//! The encoding of messages in the stream.
//!
//! A **batch** is one message, so that it is stored whole or not at all; several batches without a
//! key that are appended at the same time are one, too ([`messages`](crate::messages)), and are as
//! one to a reader:
//!
//! ```text
//! version 1 · number of events · for each: flags · number of topics · topics · id? · type? · retry? · except? · data
//! ```
//!
//! A **deletion** is a message, too. It names the deleted topic, and the audiences that missed
//! something:
//!
//! ```text
//! version 1 · topic · number of audiences · for each: flags · number of topics · topics · number of the newest event ·
//! (number of the newest event that it may take · number of topics · topics whose events stay)?
//! ```
//!
//! The last part is there if the grants of the deletion did not cover some topics.
//!
//! The **audiences** of what was read are kept next to the stream, so that a hub that starts later
//! knows which subscribers lost something to retention:
//!
//! ```text
//! version 1 · stream · epoch · last message · forgotten through · number of audiences · for each: flags · number of topics · topics ·
//! newest that is gone · oldest kept · newest
//! ```
//!
//! Numbers are LEB128, texts are prefixed with their length. Whatever does not decode is skipped
//! and counted by the reader: one bad message blocks nothing.

use bytes::Bytes;
use tidings_log::{Batch, parts::Audience};
use tidings_topic::{ConnectionId, Event, StoredEvent, Topic};

/// The first byte of all messages.
const VERSION: u8 = 1;

const PRIVATE: u8 = 1;
const ID: u8 = 2;
const TYPE: u8 = 4;
const RETRY: u8 = 8;
const EXCEPT: u8 = 16;

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
    pub(crate) fn of(batch: &'b Batch) -> Self {
        let mut writer = Writer(Vec::new());
        let mut sizes = Vec::with_capacity(batch.events.len());
        for event in &batch.events {
            let before = writer.0.len();
            writer.event(&StoredEvent::of(event));
            sizes.push(writer.0.len() - before);
        }
        Self { batch, bytes: writer.0, sizes }
    }
}

/// Batches as one message.
pub(crate) fn encode_message<'a, 'b: 'a>(
    batches: impl Iterator<Item = &'a EncodedBatch<'b>> + Clone,
) -> Bytes {
    let mut writer = Writer(vec![VERSION]);
    writer.number(batches.clone().map(|batch| batch.sizes.len() as u64).sum());
    for batch in batches {
        writer.0.extend_from_slice(&batch.bytes);
    }
    writer.0.into()
}

/// The events of a batch, each with the bytes that it takes in the message. `None` if it is none.
pub(crate) fn decode_batch(bytes: &[u8]) -> Option<Vec<(Event, usize)>> {
    let mut reader = Reader(bytes);
    let mut events = Vec::new();
    let count = reader.versioned_count()?;
    if count == 0 || count > BATCH_EVENTS_MAX {
        return None;
    }
    for _ in 0..count {
        let before = reader.0.len();
        let event = reader.event()?.restore()?;
        events.push((event, before - reader.0.len()));
    }
    reader.0.is_empty().then_some(events)
}

/// The deletion of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Deletion {
    pub(crate) topic: Topic,
    /// The newest hidden event of each audience. Not all audiences if there were too many.
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

impl Deletion {
    /// A deletion as a message.
    pub(crate) fn encode(&self) -> Bytes {
        let mut writer = Writer(vec![VERSION]);
        writer.text(self.topic.as_str());
        writer.number(self.missed.len() as u64);
        for (audience, newest) in &self.missed {
            writer.audience(audience);
            writer.number(*newest);
        }
        if let Some(spared) = &self.spared {
            writer.number(spared.after);
            writer.topics(&spared.topics);
        }
        writer.0.into()
    }

    /// `None` if it is none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        if reader.byte()? != VERSION {
            return None;
        }
        let topic = Topic::from_stored(reader.text()?)?;
        let missed = (0..reader.count()?).map(|_| Some((reader.audience()?, reader.number()?)));
        let missed = missed.collect::<Option<_>>()?;
        let spared = if reader.0.is_empty() {
            None
        } else {
            let (after, mut topics) = (reader.number()?, reader.topics()?);
            topics.sort_unstable();
            Some(Spared { after, topics })
        };
        reader.0.is_empty().then_some(Self { topic, missed, spared })
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

impl LeftAudiences {
    pub(crate) fn encode(&self) -> Bytes {
        let mut writer = Writer(vec![VERSION]);
        let (created, epoch) = &self.identity;
        writer.text(created);
        writer.number(*epoch);
        writer.number(self.audiences.through);
        writer.number(self.audiences.forgotten_through);
        writer.number(self.audiences.known.len() as u64);
        for known in &self.audiences.known {
            writer.audience(&known.audience);
            for number in [known.gone, known.first, known.newest] {
                writer.number(number);
            }
        }
        writer.0.into()
    }

    /// `None` if it is none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        if reader.byte()? != VERSION {
            return None;
        }
        let identity = (reader.text()?.to_owned(), reader.number()?);
        let (through, forgotten_through) = (reader.number()?, reader.number()?);
        let known = (0..reader.count()?).map(|_| {
            let audience = reader.audience()?;
            let (gone, first) = (reader.number()?, reader.number()?);
            Some(KnownAudience { audience, gone, first, newest: reader.number()? })
        });
        let known = known.collect::<Option<_>>()?;
        let audiences = Audiences { through, forgotten_through, known };
        reader.0.is_empty().then_some(Self { identity, audiences })
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn audience(&mut self, audience: &Audience) {
        self.0.push(if audience.private { PRIVATE } else { 0 });
        self.topics(&audience.topics);
    }

    fn topics(&mut self, topics: &[Topic]) {
        self.number(topics.len() as u64);
        for topic in topics {
            self.text(topic.as_str());
        }
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn event(&mut self, event: &StoredEvent<'_>) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        self.0.push(
            flag(event.private, PRIVATE)
                | flag(event.id.is_some(), ID)
                | flag(event.event_type.is_some(), TYPE)
                | flag(event.retry_millis.is_some(), RETRY)
                | flag(event.except.is_some(), EXCEPT),
        );
        self.number(event.topics.len() as u64);
        for topic in &event.topics {
            self.text(topic);
        }
        for text in [event.id, event.event_type].into_iter().flatten() {
            self.text(text);
        }
        if let Some(millis) = event.retry_millis {
            self.number(millis);
        }
        if let Some(connection) = event.except {
            self.0.extend_from_slice(&connection.to_bytes());
        }
        self.text(event.data);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// A number of things of at least one byte each. It cannot exceed the bytes that are left.
    fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= self.0.len()).then_some(count)
    }

    fn versioned_count(&mut self) -> Option<usize> {
        if self.byte()? == VERSION { self.count() } else { None }
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()?).ok()?;
        str::from_utf8(self.take(length)?).ok()
    }

    fn texts(&mut self) -> Option<Vec<&'a str>> {
        (0..self.count()?).map(|_| self.text()).collect()
    }

    fn audience(&mut self) -> Option<Audience> {
        let private = self.byte()? & PRIVATE != 0;
        Some(Audience { topics: self.topics()?, private })
    }

    fn topics(&mut self) -> Option<Vec<Topic>> {
        self.texts()?.into_iter().map(Topic::from_stored).collect()
    }

    fn event(&mut self) -> Option<StoredEvent<'a>> {
        let flags = self.byte()?;
        let has = |flag: u8| flags & flag != 0;
        let topics = self.texts()?;
        let id = if has(ID) { Some(self.text()?) } else { None };
        let event_type = if has(TYPE) { Some(self.text()?) } else { None };
        let retry_millis = if has(RETRY) { Some(self.number()?) } else { None };
        let except =
            if has(EXCEPT) { Some(ConnectionId::from_random(self.take(16)?.try_into().ok()?)) } else { None };
        Some(StoredEvent {
            topics,
            data: self.text()?,
            id,
            event_type,
            retry_millis,
            private: has(PRIVATE),
            except,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};
    use tidings_topic::{NewEvent, Validator};

    use super::*;

    fn event() -> impl Strategy<Value = Event> {
        let names = vec("[a-zä/]{1,9}", 1..4);
        let parts = (option::of("[a-z]{1,9}"), option::of("[a-z]{8}"), option::of(0..100_000_u64));
        (names, ".{0,300}", parts, any::<bool>(), option::of(any::<[u8; 16]>())).prop_map(
            |(topics, data, (id, event_type, retry_millis), private, except)| {
                let id = id.map(|id| format!("id-{id}"));
                let except = except.map(ConnectionId::from_random);
                let new = NewEvent { topics, data, id, event_type, retry_millis, private, except };
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
            let encoded = EncodedBatch::of(&batch);
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
            LeftAudiences::decode(&bytes);
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
            let bytes = deletion.encode();
            assert_eq!(Deletion::decode(&bytes).as_ref(), Some(deletion));
            for length in (0..bytes.len()).filter(|length| *length != whole.encode().len()) {
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
        let bytes = left.encode();
        assert_eq!(LeftAudiences::decode(&bytes), Some(left));
        assert_eq!(LeftAudiences::decode(&bytes[1..]), None);
    }

    #[test]
    fn a_message_cannot_make_its_reader_reserve_more_than_it_has() {
        let mut writer = Writer(vec![VERSION]);
        writer.number(u64::MAX >> 1);
        assert_eq!(decode_batch(&writer.0), None);
    }
}
