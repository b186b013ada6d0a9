//! The format of a segment: its header and its records.
//!
//! ```text
//! segment   header twice, then records
//! header    "tidings\0" | format u32 | 0 u32 | first number u64 | epoch u64 | salt u64 | 20 zeros | crc u32      64 bytes
//! record    length and kind u32 | crc of the body u32 | two numbers, each u64 | crc of all these u32 | body
//! event     number, time | the event and its key, as `codec.rs` has them
//! commit    first number, last number | synced through u64
//! removed   first number, last number |                                  in the place of events that compaction removed
//! deletion  serial number, newest event that it may have deleted | synced through u64 | forgotten through u64 | topic
//!           | protecting u32, each topic | floors u32, each number u64 and audience
//! ```
//!
//! Numbers are little-endian. The kind is in the upper four bits of the length. The checksum of the
//! beginning (CRC-32) also covers the salt of the segment and the offset of the record, so that
//! neither the data of an event nor a copied record can be taken for a record. It covers the length,
//! which distinguishes a truncated file from a damaged one. A body does not depend on the place of
//! its record, so that it is encoded and checksummed before the place is known.
//!
//! A group of events ends with its commit record and is valid only with it. A deletion is valid by
//! itself. "Synced through" is the last event that was synced when the group or deletion was
//! written: after damage it proves which events had been acknowledged.

use std::{io, sync::Arc};

use crc32fast::Hasher;
use tidings_topic::{Cursor, Epoch, StoredEvent, Topic};

use super::{
    deletions::Deletion,
    disk::{DiskFile, read_full},
};
use crate::{
    Entry, IdempotencyKey, Timestamp,
    codec::{Fields, Stored, push_event, push_list},
    draft::Audience,
    numbers::position,
};

/// The format of all files of a store except indexes, which are derived.
pub(super) const FORMAT: u32 = 3;

/// The bytes before the first record.
pub(super) const HEADER_BYTES: usize = 2 * HEADER_COPY_BYTES;
const HEADER_COPY_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"tidings\0";

/// The bytes of a record before its body.
pub(super) const HEAD_BYTES: usize = 28;
const LENGTH_BITS: u32 = 28;
/// The longest body of a record.
pub(super) const BODY_BYTES_MAX: usize = (1 << LENGTH_BITS) - 1;
/// The bytes of a commit record.
pub(super) const COMMIT_BYTES: usize = HEAD_BYTES + 8;

const KIND_EVENT: u32 = 1;
const KIND_COMMIT: u32 = 2;
const KIND_REMOVED: u32 = 3;
const KIND_DELETION: u32 = 4;

/// What a segment says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// The number of its first event.
    pub(super) first: u64,
    /// The epoch of all its events.
    pub(super) epoch: Epoch,
    /// Drawn at random; goes into every checksum.
    pub(super) salt: u64,
}

/// Another version of Tidings wrote a file, in this format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "it was written by {written} version of Tidings (format {0}; this version uses format {FORMAT}); use that version, or another directory",
    written = if *.0 > FORMAT { "a later" } else { "an earlier" }
)]
pub(crate) struct ForeignFormat(pub(super) u32);

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadFailure {
    #[error(transparent)]
    Foreign(#[from] ForeignFormat),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut copy = MAGIC.to_vec();
        (FORMAT, 0_u32).store(&mut copy);
        (self.first, self.epoch, self.salt).store(&mut copy);
        copy.resize(HEADER_COPY_BYTES - 4, 0);
        crc32fast::hash(&copy).store(&mut copy);
        copy.repeat(2)
    }

    /// The header at the beginning of a file. `None` if neither copy is whole.
    pub(super) fn of_file(file: &dyn DiskFile) -> Result<Option<Self>, ReadFailure> {
        let mut bytes = [0; HEADER_BYTES];
        let read = read_full(file, &mut bytes, 0)?;
        Ok(Self::decode(&bytes[..read])?)
    }

    fn decode(bytes: &[u8]) -> Result<Option<Self>, ForeignFormat> {
        let mut copies = bytes.chunks_exact(HEADER_COPY_BYTES).take(2).filter_map(|copy| {
            let (said, crc) = copy.split_last_chunk::<4>()?;
            let mut fields = Fields(said);
            let whole = crc32fast::hash(said) == u32::from_le_bytes(*crc) && fields.bytes(8)? == MAGIC;
            let ((format, _), (first, epoch, salt)): ((u32, u32), _) = fields.read()?;
            whole.then_some((format, Self { first, epoch, salt }))
        });
        match copies.next() {
            Some((FORMAT, header)) => Ok(Some(header)),
            Some((format, _)) => Err(ForeignFormat(format)),
            None => Ok(None),
        }
    }

    fn crc(&self, offset: u64, bytes: &[u8]) -> u32 {
        let mut hasher = Hasher::new();
        hasher.update(&self.salt.to_le_bytes());
        hasher.update(&offset.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// An event as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct EventRecord<'a> {
    pub(super) number: u64,
    pub(super) time: Timestamp,
    /// The idempotency key of the batch that begins with this event.
    pub(super) key: Option<&'a str>,
    pub(super) event: StoredEvent<'a>,
}

impl EventRecord<'_> {
    /// The entry that was stored, and the key of the batch that begins with it. `None` if no hub
    /// can have written it.
    pub(super) fn restore(self, header: &Header) -> Option<(Entry, Option<IdempotencyKey>)> {
        let cursor = Cursor { epoch: header.epoch, position: position(self.number) };
        let key = self.key.map_or(Some(None), |key| IdempotencyKey::new(key).map(Some))?;
        Some((Entry::new(cursor, self.time, self.event.restore()?), key))
    }
}

/// The end of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Commit {
    /// The first event of the group.
    pub(super) first: u64,
    /// The last event of the group.
    pub(super) last: u64,
    /// Everything up to here was synced when the group was written.
    pub(super) synced_through: u64,
}

/// A deletion as it is stored, with the floors of the events that it deleted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct DeletionRecord {
    pub(super) deletion: Deletion,
    /// Every event up to here was synced when it was written.
    pub(super) synced_through: u64,
    pub(super) topic: Topic,
    /// Up to here it is not stored who could have received what was deleted.
    pub(super) forgotten_through: u64,
    /// The newest deleted event of each audience beyond it.
    pub(super) floors: Vec<(u64, Arc<Audience>)>,
}

impl DeletionRecord {
    /// The log ends with this event: what was behind it is lost, and its numbers will be used again.
    pub(super) fn end_with(&mut self, last: u64) {
        self.deletion.through = last.min(self.deletion.through);
        self.synced_through = last.min(self.synced_through);
        self.floors.retain(|(number, _)| *number <= last);
    }
}

/// A record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Record<'a> {
    Event(EventRecord<'a>),
    Commit(Commit),
    /// Events from one number to another were here and are gone on purpose.
    Removed {
        first: u64,
        last: u64,
    },
    Deletion(DeletionRecord),
}

/// The beginning of a record, whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RecordHead {
    kind: u32,
    body_crc: u32,
    numbers: (u64, u64),
    /// The bytes of the whole record.
    pub(super) bytes: usize,
}

impl RecordHead {
    /// The head of the record at this offset. `None` if it is damaged or none.
    pub(super) fn decode(header: &Header, offset: u64, bytes: [u8; HEAD_BYTES]) -> Option<Self> {
        let (said, crc) = bytes.split_last_chunk::<4>()?;
        if u32::from_le_bytes(*crc) != header.crc(offset, said) {
            return None;
        }
        let mut fields = Fields(said);
        let length_and_kind: u32 = fields.read()?;
        let length = length_and_kind & ((1 << LENGTH_BITS) - 1);
        Some(Self {
            kind: length_and_kind >> LENGTH_BITS,
            body_crc: fields.read()?,
            numbers: fields.read()?,
            bytes: HEAD_BYTES + length as usize,
        })
    }

    /// Whether this is the head of a deletion.
    pub(super) fn is_deletion(&self) -> bool {
        self.kind == KIND_DELETION
    }

    /// The record with this head. `None` if it is damaged.
    pub(super) fn record<'a>(&self, body: &'a [u8]) -> Option<Record<'a>> {
        if self.body_crc != crc32fast::hash(body) {
            return None;
        }
        let (one, other) = self.numbers;
        match self.kind {
            KIND_EVENT => {
                let mut fields = Fields(body);
                let (event, key) = fields.event()?;
                let (number, time) = (one, Timestamp::from_millis(other));
                fields.0.is_empty().then_some(Record::Event(EventRecord { number, time, key, event }))
            }
            KIND_COMMIT => {
                Some(Record::Commit(Commit { first: one, last: other, synced_through: Fields(body).read()? }))
            }
            KIND_REMOVED => (one <= other).then_some(Record::Removed { first: one, last: other }),
            KIND_DELETION => decode_deletion(one, other, body).map(Record::Deletion),
            _ => None,
        }
    }
}

/// A record, with its checksum, that only needs its place and its two numbers.
#[derive(Clone, Debug)]
pub(super) struct Body {
    kind: u32,
    bytes: Vec<u8>,
    crc: u32,
}

impl Body {
    /// An event, and the key of the batch that begins with it.
    pub(super) fn of_event(event: &StoredEvent<'_>, key: Option<&str>) -> Result<Self, TooLong> {
        let texts = event
            .topics
            .iter()
            .chain([&event.data])
            .chain([&event.id, &event.event_type, &key].into_iter().flatten());
        if texts.map(|text| text.len()).sum::<usize>() > BODY_BYTES_MAX {
            return Err(TooLong);
        }
        let mut bytes = Vec::with_capacity(64 + event.data.len());
        push_event(&mut bytes, event, key).ok_or(TooLong)?;
        Self::of(KIND_EVENT, bytes)
    }

    /// A deletion.
    pub(super) fn of_deletion(record: &DeletionRecord) -> Result<Self, TooLong> {
        let mut bytes = Vec::new();
        (record.synced_through, record.forgotten_through).store(&mut bytes);
        record.topic.store(&mut bytes);
        push_list(&mut bytes, &record.deletion.protecting);
        push_list(&mut bytes, &record.floors);
        Self::of(KIND_DELETION, bytes)
    }

    fn of(kind: u32, bytes: Vec<u8>) -> Result<Self, TooLong> {
        let crc = crc32fast::hash(&bytes);
        if bytes.len() > BODY_BYTES_MAX { Err(TooLong) } else { Ok(Self { kind, bytes, crc }) }
    }

    /// The bytes of its record.
    pub(super) fn record_bytes(&self) -> usize {
        HEAD_BYTES + self.bytes.len()
    }

    /// Appends its record to a buffer whose first byte will be at this offset of the segment.
    pub(super) fn push(
        &self,
        header: &Header,
        buffer_offset: u64,
        buffer: &mut Vec<u8>,
        numbers: (u64, u64),
    ) {
        let start = buffer.len();
        let length = u32::try_from(self.bytes.len()).expect("it is at most BODY_BYTES_MAX");
        (self.kind << LENGTH_BITS | length, self.crc, numbers).store(buffer);
        header.crc(buffer_offset + start as u64, &buffer[start..]).store(buffer);
        buffer.extend_from_slice(&self.bytes);
    }
}

/// A record does not fit.
#[derive(Debug)]
pub(super) struct TooLong;

/// Appends a record to a buffer whose first byte will be at this offset of the segment. One that is
/// too long is refused, and nothing is appended.
pub(super) fn encode(
    header: &Header,
    buffer_offset: u64,
    buffer: &mut Vec<u8>,
    record: &Record<'_>,
) -> Result<(), TooLong> {
    let (numbers, body) = match record {
        Record::Event(event) => {
            ((event.number, event.time.to_millis()), Body::of_event(&event.event, event.key)?)
        }
        Record::Commit(Commit { first, last, synced_through }) => {
            ((*first, *last), Body::of(KIND_COMMIT, synced_through.to_le_bytes().to_vec())?)
        }
        Record::Removed { first, last } => ((*first, *last), Body::of(KIND_REMOVED, Vec::new())?),
        Record::Deletion(record) => {
            ((record.deletion.serial, record.deletion.through), Body::of_deletion(record)?)
        }
    };
    body.push(header, buffer_offset, buffer, numbers);
    Ok(())
}

fn decode_deletion(serial: u64, through: u64, body: &[u8]) -> Option<DeletionRecord> {
    let ((synced_through, forgotten_through), topic, (mut protecting, floors)): (_, _, (Vec<Topic>, _)) =
        Fields(body).read_last()?;
    protecting.sort_unstable();
    let deletion = Deletion { serial, through, protecting: protecting.into() };
    let record = DeletionRecord { deletion, synced_through, topic, forgotten_through, floors };
    (serial > 0).then_some(record)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use tidings_topic::ConnectionId;

    use super::*;

    const HEADER: Header = Header { first: 7, epoch: Epoch::from_u64(8), salt: 9 };

    fn decode<'a>(header: &Header, offset: u64, bytes: &'a [u8]) -> Option<(RecordHead, Record<'a>)> {
        let (head, body) = bytes.split_first_chunk()?;
        let head = RecordHead::decode(header, offset, *head)?;
        let record = head.record(body.get(..head.bytes - HEAD_BYTES)?)?;
        Some((head, record))
    }

    proptest! {
        #[test]
        fn an_event_is_read_as_it_was_written(
            (number, time, retry_millis, private) in any::<(u64, u64, Option<u64>, bool)>(),
            topics in vec(".{0,9}", 0..4),
            data in ".{0,40}",
            texts in vec(option::of(".{0,9}"), 3),
            except in any::<Option<[u8; 16]>>(),
            offset in 0..1_u64 << 40,
            before in vec(any::<u8>(), 0..9),
        ) {
            let event = StoredEvent {
                topics: topics.iter().map(String::as_str).collect(),
                data: &data,
                id: texts[0].as_deref(),
                event_type: texts[1].as_deref(),
                retry_millis,
                private,
                except: except.map(ConnectionId::from_random),
            };
            let key = texts[2].as_deref();
            let record =
                Record::Event(EventRecord { number, time: Timestamp::from_millis(time), key, event });
            let mut bytes = before.clone();
            encode(&HEADER, offset, &mut bytes, &record).expect("it is short");
            let at = offset + before.len() as u64;
            let (head, read) = decode(&HEADER, at, &bytes[before.len()..]).expect("a record");
            prop_assert_eq!(read, record);
            prop_assert_eq!(head.bytes, bytes.len() - before.len());
            prop_assert_eq!(decode(&HEADER, at + 1, &bytes[before.len()..]), None, "it stands elsewhere");
            let other = Header { salt: 10, ..HEADER };
            prop_assert_eq!(decode(&other, at, &bytes[before.len()..]), None, "it is of another segment");
        }

        #[test]
        fn arbitrary_bytes_are_no_record_and_no_panic(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&HEADER, 0, &bytes), None);
            let _ = Fields(&bytes).event();
            let _ = decode_deletion(1, 1, &bytes);
            prop_assert_eq!(Header::decode(&bytes), Ok(None));
        }

        #[test]
        fn a_changed_bit_is_found(
            bit in any::<prop::sample::Index>(),
            (first, last, synced_through) in any::<(u64, u64, u64)>(),
        ) {
            let mut bytes = Vec::new();
            let commit = Commit { first, last, synced_through };
            encode(&HEADER, 5, &mut bytes, &Record::Commit(commit)).expect("it is short");
            prop_assert_eq!(bytes.len(), COMMIT_BYTES);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode(&HEADER, 5, &bytes), None);
        }
    }

    #[test]
    fn one_whole_copy_of_the_header_is_enough() {
        let whole = HEADER.encode();
        assert_eq!(Header::decode(&whole), Ok(Some(HEADER)));
        for byte in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1;
            assert_eq!(Header::decode(&damaged), Ok(Some(HEADER)), "byte {byte}");
        }
        assert_eq!(Header::decode(&whole[..HEADER_COPY_BYTES - 1]), Ok(None));
    }

    #[test]
    fn another_format_is_recognised() {
        for format in [1, 2, 4] {
            let mut bytes = HEADER.encode();
            for copy in bytes.chunks_exact_mut(HEADER_COPY_BYTES) {
                copy[8] = format;
                let crc = crc32fast::hash(&copy[..HEADER_COPY_BYTES - 4]);
                copy[HEADER_COPY_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
            }
            assert_eq!(Header::decode(&bytes), Err(ForeignFormat(format.into())));
        }
    }

    #[test]
    fn a_deletion_is_read_as_it_was_written() {
        let topic = |text: &str| Topic::from_stored(text).expect("a topic");
        let audience = |private| Arc::new(Audience { topics: vec![topic("a"), topic("b")], private });
        let deletion = DeletionRecord {
            deletion: Deletion { serial: 3, through: 9, protecting: [topic("p"), topic("q")].into() },
            synced_through: 10,
            topic: topic("a"),
            forgotten_through: 2,
            floors: vec![(4, audience(false)), (9, audience(true))],
        };
        let mut bytes = Vec::new();
        encode(&HEADER, 5, &mut bytes, &Record::Deletion(deletion.clone())).expect("it is short");
        let (head, read) = decode(&HEADER, 5, &bytes).expect("a record");
        assert!(head.is_deletion());
        assert_eq!(read, Record::Deletion(deletion));
        for byte in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[byte] ^= 1;
            assert_eq!(decode(&HEADER, 5, &damaged), None, "byte {byte}");
        }
    }

    #[test]
    fn a_record_of_an_unknown_kind_is_none() {
        let body = Body::of(KIND_DELETION + 1, Vec::new()).expect("it is short");
        let mut bytes = Vec::new();
        body.push(&HEADER, 0, &mut bytes, (1, 1));
        assert_eq!(decode(&HEADER, 0, &bytes), None);
    }
}
