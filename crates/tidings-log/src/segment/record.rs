//! The format of a segment: its header and its records. This module does no I/O.
//!
//! ```text
//! segment   header twice, then records
//! header    "tidings\0" | version u32 | 0 u32 | first number u64 | epoch u64 | salt u64 | 20 zeros | crc u32      64 bytes
//! record    length and kind u32 | crc of these u32 | crc of the body u32 | body
//! event     number u64 | time u64 | flags u8 | topics u16 | data u32 | each topic u32 + text | data | what the flags say
//! commit    first number u64 | last number u64 | synced through u64
//! removed   first number u64 | last number u64                                in the place of events that compaction took out
//! ```
//!
//! Numbers are little-endian. The kind is in the upper four bits of the length. Every checksum
//! (CRC-32) also covers the salt of the segment and the offset of the record, so that neither the
//! data of an event nor a copied record can be taken for a record. The length has its own checksum,
//! which distinguishes a truncated file from a damaged one.
//!
//! A group of events ends with its commit record and is valid only with it. "Synced through" is the
//! last event that was synced when the group was written: after damage it proves which events had
//! been acknowledged.

use crc32fast::Hasher;
use tidings_topic::{ConnectionId, Epoch, StoredEvent};

use crate::Timestamp;

/// The version of the format that this writes, and the newest that it reads.
pub(super) const VERSION: u32 = 1;

/// The bytes before the first record.
pub(super) const HEADER_BYTES: usize = 2 * HEADER_COPY_BYTES;
const HEADER_COPY_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"tidings\0";

/// The bytes of a record before its body.
pub(super) const HEAD_BYTES: usize = 12;
const LENGTH_BITS: u32 = 28;
/// The longest body of a record.
pub(super) const BODY_BYTES_MAX: usize = (1 << LENGTH_BITS) - 1;
/// The bytes of a commit record.
pub(super) const COMMIT_BYTES: usize = HEAD_BYTES + 24;

const KIND_EVENT: u32 = 1;
const KIND_COMMIT: u32 = 2;
const KIND_REMOVED: u32 = 3;

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

/// Why there is no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoHeader {
    /// Neither copy is whole.
    Damaged,
    /// A later version of Tidings wrote this.
    Newer(u32),
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        for copy in bytes.chunks_exact_mut(HEADER_COPY_BYTES) {
            copy[..8].copy_from_slice(&MAGIC);
            copy[8..12].copy_from_slice(&VERSION.to_le_bytes());
            copy[16..24].copy_from_slice(&self.first.to_le_bytes());
            copy[24..32].copy_from_slice(&self.epoch.to_u64().to_le_bytes());
            copy[32..40].copy_from_slice(&self.salt.to_le_bytes());
            let crc = crc32fast::hash(&copy[..HEADER_COPY_BYTES - 4]);
            copy[HEADER_COPY_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, NoHeader> {
        let mut copies = bytes.chunks_exact(HEADER_COPY_BYTES).take(2).filter_map(|copy| {
            let (said, crc) = copy.split_last_chunk::<4>()?;
            let mut fields = Fields(said);
            let whole = crc32fast::hash(said) == u32::from_le_bytes(*crc) && fields.take(8)? == MAGIC;
            whole.then_some(fields)
        });
        let mut fields = copies.next().ok_or(NoHeader::Damaged)?;
        let mut read = || {
            let version = fields.u32()?;
            fields.u32()?;
            let first = fields.u64()?;
            let epoch = Epoch::from_u64(fields.u64()?);
            Some((version, Self { first, epoch, salt: fields.u64()? }))
        };
        match read() {
            Some((version, header)) if version <= VERSION => Ok(header),
            Some((version, _)) => Err(NoHeader::Newer(version)),
            None => Err(NoHeader::Damaged),
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

/// A record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Record<'a> {
    Event(EventRecord<'a>),
    Commit(Commit),
    /// Events from one number to another stood here and are gone on purpose.
    Removed {
        first: u64,
        last: u64,
    },
    /// Of a kind that this version does not know and need not know.
    Other,
}

/// The beginning of a record, whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    kind: u32,
    body_crc: u32,
    /// The bytes of the whole record.
    pub(super) bytes: usize,
}

impl Head {
    /// The head of the record at this offset. `None` if it is damaged or none.
    pub(super) fn decode(header: &Header, offset: u64, bytes: [u8; HEAD_BYTES]) -> Option<Self> {
        let mut fields = Fields(&bytes);
        let length_and_kind = fields.u32()?;
        if fields.u32()? != header.crc(offset, &bytes[..4]) {
            return None;
        }
        let length = length_and_kind & ((1 << LENGTH_BITS) - 1);
        let bytes = HEAD_BYTES + length as usize;
        Some(Self { kind: length_and_kind >> LENGTH_BITS, body_crc: fields.u32()?, bytes })
    }

    /// The record with this head. `None` if it is damaged.
    pub(super) fn record<'a>(&self, header: &Header, offset: u64, body: &'a [u8]) -> Option<Record<'a>> {
        if self.body_crc != header.crc(offset, body) {
            return None;
        }
        match self.kind {
            KIND_EVENT => decode_event(body).map(Record::Event),
            KIND_COMMIT => decode_commit(body).map(Record::Commit),
            KIND_REMOVED => decode_removed(body),
            _ => Some(Record::Other),
        }
    }
}

/// Appends a record to a buffer whose first byte will stand at this offset of the segment. An event
/// whose body is too long is refused, and nothing appended.
pub(super) fn encode(
    header: &Header,
    buffer_offset: u64,
    buffer: &mut Vec<u8>,
    record: &Record<'_>,
) -> Result<(), TooLong> {
    let start = buffer.len();
    buffer.extend([0; HEAD_BYTES]);
    let (kind, written) = match record {
        Record::Event(event) => (KIND_EVENT, encode_event(buffer, event)),
        Record::Commit(commit) => {
            for number in [commit.first, commit.last, commit.synced_through] {
                buffer.extend(number.to_le_bytes());
            }
            (KIND_COMMIT, Some(()))
        }
        Record::Removed { first, last } => {
            buffer.extend([*first, *last].into_iter().flat_map(u64::to_le_bytes));
            (KIND_REMOVED, Some(()))
        }
        Record::Other => (KIND_OTHER, Some(())),
    };
    let body_bytes = buffer.len() - start - HEAD_BYTES;
    if written.is_none() || body_bytes > BODY_BYTES_MAX {
        buffer.truncate(start);
        return Err(TooLong);
    }
    let offset = buffer_offset + start as u64;
    let length = u32::try_from(body_bytes).expect("it is at most BODY_BYTES_MAX");
    let length_and_kind = (kind << LENGTH_BITS | length).to_le_bytes();
    let body_crc = header.crc(offset, &buffer[start + HEAD_BYTES..]);
    buffer[start..start + 4].copy_from_slice(&length_and_kind);
    buffer[start + 4..start + 8].copy_from_slice(&header.crc(offset, &length_and_kind).to_le_bytes());
    buffer[start + 8..start + 12].copy_from_slice(&body_crc.to_le_bytes());
    Ok(())
}

/// What later versions may write and this one passes over.
const KIND_OTHER: u32 = 15;

/// An event does not fit into a record.
#[derive(Debug)]
pub(super) struct TooLong;

const PRIVATE: u8 = 1;
const ID: u8 = 2;
const EVENT_TYPE: u8 = 4;
const RETRY: u8 = 8;
const EXCEPT: u8 = 16;
const KEY: u8 = 32;

fn encode_event(buffer: &mut Vec<u8>, record: &EventRecord<'_>) -> Option<()> {
    let event = &record.event;
    let flag = |given: bool, flag: u8| if given { flag } else { 0 };
    let flags = flag(event.private, PRIVATE)
        | flag(event.id.is_some(), ID)
        | flag(event.event_type.is_some(), EVENT_TYPE)
        | flag(event.retry_millis.is_some(), RETRY)
        | flag(event.except.is_some(), EXCEPT)
        | flag(record.key.is_some(), KEY);
    buffer.extend(record.number.to_le_bytes());
    buffer.extend(record.time.to_millis().to_le_bytes());
    buffer.push(flags);
    buffer.extend(u16::try_from(event.topics.len()).ok()?.to_le_bytes());
    for topic in &event.topics {
        push_text(buffer, topic)?;
    }
    push_text(buffer, event.data)?;
    for text in [event.id, event.event_type, record.key].into_iter().flatten() {
        push_text(buffer, text)?;
    }
    if let Some(millis) = event.retry_millis {
        buffer.extend(millis.to_le_bytes());
    }
    if let Some(connection) = event.except {
        buffer.extend(connection.to_bytes());
    }
    Some(())
}

fn decode_event(body: &[u8]) -> Option<EventRecord<'_>> {
    let mut fields = Fields(body);
    let number = fields.u64()?;
    let time = Timestamp::from_millis(fields.u64()?);
    let flags = fields.take(1)?[0];
    let topics_count = u16::from_le_bytes(fields.take(2)?.try_into().ok()?);
    let topics = (0..topics_count).map(|_| fields.text()).collect::<Option<_>>()?;
    let data = fields.text()?;
    let mut text = |flag| if flags & flag == 0 { Some(None) } else { fields.text().map(Some) };
    let (id, event_type, key) = (text(ID)?, text(EVENT_TYPE)?, text(KEY)?);
    let retry_millis = if flags & RETRY == 0 { None } else { Some(fields.u64()?) };
    let except = if flags & EXCEPT == 0 {
        None
    } else {
        Some(ConnectionId::from_random(fields.take(16)?.try_into().ok()?))
    };
    let private = flags & PRIVATE != 0;
    let event = StoredEvent { topics, data, id, event_type, retry_millis, private, except };
    fields.0.is_empty().then_some(EventRecord { number, time, key, event })
}

fn decode_commit(body: &[u8]) -> Option<Commit> {
    let mut fields = Fields(body);
    Some(Commit { first: fields.u64()?, last: fields.u64()?, synced_through: fields.u64()? })
}

fn decode_removed(body: &[u8]) -> Option<Record<'_>> {
    let mut fields = Fields(body);
    let (first, last) = (fields.u64()?, fields.u64()?);
    (first <= last).then_some(Record::Removed { first, last })
}

/// A text behind its length.
pub(super) fn push_text(buffer: &mut Vec<u8>, text: &str) -> Option<()> {
    buffer.extend(u32::try_from(text.len()).ok()?.to_le_bytes());
    buffer.extend(text.as_bytes());
    Some(())
}

/// Reads bytes from the front, within bounds.
#[derive(Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// A text behind its length.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.u32()?).ok()?;
        std::str::from_utf8(self.take(length)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    const HEADER: Header = Header { first: 7, epoch: Epoch::from_u64(8), salt: 9 };

    fn decode<'a>(header: &Header, offset: u64, bytes: &'a [u8]) -> Option<(Head, Record<'a>)> {
        let (head, body) = bytes.split_first_chunk()?;
        let head = Head::decode(header, offset, *head)?;
        let record = head.record(header, offset, body.get(..head.bytes - HEAD_BYTES)?)?;
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
            let _ = decode_event(&bytes);
            let _ = decode_commit(&bytes);
            prop_assert_eq!(Header::decode(&bytes), Err(NoHeader::Damaged));
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
        assert_eq!(Header::decode(&whole), Ok(HEADER));
        for byte in 0..whole.len() {
            let mut damaged = whole;
            damaged[byte] ^= 1;
            assert_eq!(Header::decode(&damaged), Ok(HEADER), "byte {byte}");
        }
        assert_eq!(Header::decode(&whole[..HEADER_COPY_BYTES - 1]), Err(NoHeader::Damaged));
    }

    #[test]
    fn a_version_from_the_future_is_recognised() {
        let mut bytes = HEADER.encode();
        for copy in bytes.chunks_exact_mut(HEADER_COPY_BYTES) {
            copy[8] = 2;
            let crc = crc32fast::hash(&copy[..HEADER_COPY_BYTES - 4]);
            copy[HEADER_COPY_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        }
        assert_eq!(Header::decode(&bytes), Err(NoHeader::Newer(2)));
    }

    #[test]
    fn a_kind_of_a_later_version_is_passed_over() {
        let mut bytes = Vec::new();
        encode(&HEADER, 0, &mut bytes, &Record::Other).expect("it is short");
        assert!(matches!(decode(&HEADER, 0, &bytes), Some((_, Record::Other))));
    }
}
