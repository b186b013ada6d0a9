//! The index file of a full segment.
//!
//! ```text
//! page      4092 bytes | crc u32                     the checksum also covers the salt of the segment and the number of the page
//! contents  header | rows … | table | postings u32 … | times … | holes … | deletions … | keys … | audiences …
//! header    "tidindex" | version u32 | how many of each part | removed events u32 | behind the newest of them u32
//!           | bytes of the segment u64 | latest time u64 | bytes of all this u64
//! row       offset u32 | length u32 | audience u32 | time u64                one for each event; zeros if it is gone
//! deletion  offset u32 | serial number u64
//! table     slots of hash u64 | first posting u32 | count u32; a power of two, at most half of them taken, the next one if taken
//! ```
//!
//! The file is derived from the segment: if it is missing, damaged or of another version, it is
//! rebuilt. It is read page by page, as much as a lookup needs, and each page is verified when it
//! is read.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a segment is smaller than 4 GiB, and so is everything in its index"
)]

use std::{io, sync::Arc};

use tidings_topic::EventId;

use super::{
    disk::{Disk, DiskFile, TEMPORARY, read_full, write_full},
    fields::{Fields, count, push_audience, push_text},
    index::{IndexedDeletion, KeyUse, MemoryIndex, NO_POSTINGS, Places, Postings, Removed, Row},
};
use crate::{IdempotencyKey, Timestamp, draft::Audience};

const MAGIC: [u8; 8] = *b"tidindex";
const VERSION: u32 = 3;
const PAGE_BYTES: usize = 4096;
const CONTENT_BYTES: usize = PAGE_BYTES - 4;
const HEADER_BYTES: u64 = 76;
/// The bytes of what is known of one event.
pub(super) const ROW_BYTES: u64 = 20;
const SLOT_BYTES: u64 = 16;
const TIME_BYTES: u64 = 12;
const HOLE_BYTES: u64 = 8;
const DELETION_BYTES: u64 = 12;

/// How much there is of each part, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Header {
    events: u32,
    slots: u32,
    postings: u32,
    times: u32,
    holes: u32,
    deletions: u32,
    keys: u32,
    audiences: u32,
    removed: Removed,
    /// The bytes of the segment that it covers.
    segment_bytes: u64,
    latest: Timestamp,
    /// The bytes of all contents.
    bytes: u64,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        let Removed { count, until } = self.removed;
        let parts = [
            self.events,
            self.slots,
            self.postings,
            self.times,
            self.holes,
            self.deletions,
            self.keys,
            self.audiences,
        ];
        bytes.extend(parts.into_iter().chain([count, until]).flat_map(u32::to_le_bytes));
        let sizes = [self.segment_bytes, self.latest.to_millis(), self.bytes];
        bytes.extend(sizes.into_iter().flat_map(u64::to_le_bytes));
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let known = fields.take(8)? == MAGIC && fields.u32()? == VERSION;
        let header = Self {
            events: fields.u32()?,
            slots: fields.u32()?,
            postings: fields.u32()?,
            times: fields.u32()?,
            holes: fields.u32()?,
            deletions: fields.u32()?,
            keys: fields.u32()?,
            audiences: fields.u32()?,
            removed: Removed { count: fields.u32()?, until: fields.u32()? },
            segment_bytes: fields.u64()?,
            latest: Timestamp::from_millis(fields.u64()?),
            bytes: fields.u64()?,
        };
        (known && (header.slots == 0 || header.slots.is_power_of_two())).then_some(header)
    }

    fn table_at(&self) -> u64 {
        HEADER_BYTES + ROW_BYTES * u64::from(self.events)
    }

    fn postings_at(&self) -> u64 {
        self.table_at() + SLOT_BYTES * u64::from(self.slots)
    }

    fn times_at(&self) -> u64 {
        self.postings_at() + 4 * u64::from(self.postings)
    }

    fn holes_at(&self) -> u64 {
        self.times_at() + TIME_BYTES * u64::from(self.times)
    }

    fn deletions_at(&self) -> u64 {
        self.holes_at() + HOLE_BYTES * u64::from(self.holes)
    }

    fn lists_at(&self) -> u64 {
        self.deletions_at() + DELETION_BYTES * u64::from(self.deletions)
    }
}

/// The keys of a segment's batches, oldest first, and who can receive what, with the newest event
/// of each.
pub(super) type Lists = (Vec<KeyUse>, Vec<(u32, Audience)>);

/// Writes the index of a segment, in the place of whatever stood there.
pub(super) fn write(disk: &dyn Disk, name: &str, salt: u64, index: &MemoryIndex) -> io::Result<()> {
    let temporary = format!("{name}{TEMPORARY}");
    let file = disk.create(&temporary)?;
    write_full(&*file, &pages(salt, &contents(index)), 0)?;
    // Nothing is lost with an index, but a name must not come to stand for a half of one.
    file.sync_data()?;
    disk.rename(&temporary, name)
}

#[cfg(any(test, feature = "store-tools"))]
/// Reads an index from end to end. What is wrong with it is reported as
/// [`io::ErrorKind::InvalidData`].
pub(super) fn verify(disk: &dyn Disk, name: &str, salt: u64) -> io::Result<()> {
    let mut index = IndexFile::open(disk, name, salt)?;
    for page in 0..index.header.bytes.div_ceil(CONTENT_BYTES as u64) {
        index.load(page)?;
    }
    index.lists().map(drop)
}

fn contents(index: &MemoryIndex) -> Vec<u8> {
    let slots = if index.names.is_empty() { 0 } else { (index.names.len() * 2).next_power_of_two() };
    let mut table = vec![(0_u64, 0_u32, 0_u32); slots];
    let mut postings = Vec::new();
    for (hash, list) in &index.names {
        let mut slot = first_slot(*hash, slots as u64);
        while table[slot as usize].2 > 0 {
            slot = next_slot(slot, slots as u64);
        }
        table[slot as usize] = (*hash, count(&postings), count(list));
        postings.extend_from_slice(list);
    }
    let mut header = Header {
        events: count(&index.rows),
        slots: count(&table),
        postings: count(&postings),
        times: count(&index.times),
        holes: count(&index.holes),
        deletions: count(&index.deletions),
        keys: count(&index.keys),
        audiences: count(&index.audiences),
        removed: index.removed,
        segment_bytes: index.bytes,
        latest: index.latest,
        bytes: 0,
    };
    let mut bytes = header.encode();
    bytes.resize(HEADER_BYTES as usize, 0);
    for row in &index.rows {
        bytes.extend([row.offset, row.length, row.audience].into_iter().flat_map(u32::to_le_bytes));
        bytes.extend(row.time.to_millis().to_le_bytes());
    }
    for (hash, start, count) in table {
        bytes.extend(hash.to_le_bytes());
        bytes.extend([start, count].into_iter().flat_map(u32::to_le_bytes));
    }
    bytes.extend(postings.iter().flat_map(|index| index.to_le_bytes()));
    for (index, time) in &index.times {
        bytes.extend(index.to_le_bytes());
        bytes.extend(time.to_millis().to_le_bytes());
    }
    bytes.extend(index.holes.iter().flat_map(|(first, last)| [*first, *last]).flat_map(u32::to_le_bytes));
    for place in &index.deletions {
        bytes.extend(place.offset.to_le_bytes());
        bytes.extend(place.serial.to_le_bytes());
    }
    for used in &index.keys {
        bytes.extend(used.time.to_millis().to_le_bytes());
        bytes.extend(used.index.to_le_bytes());
        push_text(&mut bytes, used.key.as_str()).expect("a key is short");
        push_text(&mut bytes, used.id.as_ref().map_or("", EventId::as_str)).expect("an id fits a record");
    }
    for (audience, newest) in &index.audiences {
        bytes.extend(newest.to_le_bytes());
        push_audience(&mut bytes, audience);
    }
    header.bytes = bytes.len() as u64;
    bytes[..header.encode().len()].copy_from_slice(&header.encode());
    bytes
}

fn first_slot(hash: u64, slots: u64) -> u64 {
    hash & (slots - 1)
}

fn next_slot(slot: u64, slots: u64) -> u64 {
    (slot + 1) & (slots - 1)
}

fn pages(salt: u64, contents: &[u8]) -> Vec<u8> {
    let mut pages = Vec::with_capacity(contents.len() / CONTENT_BYTES * PAGE_BYTES + PAGE_BYTES);
    for (number, content) in contents.chunks(CONTENT_BYTES).enumerate() {
        let start = pages.len();
        pages.extend_from_slice(content);
        pages.resize(start + CONTENT_BYTES, 0);
        let crc = page_crc(salt, number as u64, &pages[start..]);
        pages.extend(crc.to_le_bytes());
    }
    pages
}

fn page_crc(salt: u64, number: u64, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(content);
    hasher.finalize()
}

/// An open index. What is wrong with it is reported as [`io::ErrorKind::InvalidData`].
#[derive(Debug)]
pub(super) struct IndexFile {
    file: Arc<dyn DiskFile>,
    salt: u64,
    header: Header,
    /// The page that was read last: questions stay near each other.
    page: Vec<u8>,
    page_number: u64,
}

impl IndexFile {
    pub(super) fn open(disk: &dyn Disk, name: &str, salt: u64) -> io::Result<Self> {
        let empty = Header {
            events: 0,
            slots: 0,
            postings: 0,
            times: 0,
            holes: 0,
            deletions: 0,
            keys: 0,
            audiences: 0,
            removed: Removed::default(),
            segment_bytes: 0,
            latest: Timestamp::default(),
            bytes: HEADER_BYTES,
        };
        let mut index = Self {
            file: disk.open(name)?,
            salt,
            header: empty,
            page: vec![0; PAGE_BYTES],
            page_number: u64::MAX,
        };
        let header: [u8; HEADER_BYTES as usize] = index.array(0)?;
        index.header = Header::decode(&header).ok_or_else(damaged)?;
        Ok(index)
    }

    /// The bytes of the segment that it covers.
    pub(super) fn segment_bytes(&self) -> u64 {
        self.header.segment_bytes
    }

    /// How many audiences there are.
    pub(super) fn audiences_count(&self) -> u32 {
        self.header.audiences
    }

    /// What compaction took out.
    pub(super) fn removed(&self) -> Removed {
        self.header.removed
    }

    /// The latest time of an event.
    pub(super) fn latest(&self) -> Timestamp {
        self.header.latest
    }

    /// The earliest time of an event.
    pub(super) fn earliest(&mut self) -> io::Result<Option<Timestamp>> {
        if self.header.times == 0 { Ok(None) } else { Ok(Some(self.time(0)?.1)) }
    }

    /// Lost events: the first and the last of each stretch.
    pub(super) fn holes(&mut self) -> io::Result<Vec<(u32, u32)>> {
        let (at, count) = (self.header.holes_at(), self.header.holes);
        let hole = |place: u32| {
            let at = at + HOLE_BYTES * u64::from(place);
            Ok((self.number(at)?, self.number(at + 4)?))
        };
        (0..count).map(hole).collect()
    }

    /// How many deletions there are.
    pub(super) fn deletions_count(&self) -> u32 {
        self.header.deletions
    }

    /// The deletions, in their order.
    pub(super) fn deletions(&mut self) -> io::Result<Vec<IndexedDeletion>> {
        let (at, count) = (self.header.deletions_at(), self.header.deletions);
        let deletion = |place: u32| {
            let at = at + DELETION_BYTES * u64::from(place);
            let serial = self.array(at + 4).map(u64::from_le_bytes)?;
            Ok(IndexedDeletion { offset: self.number(at)?, serial })
        };
        (0..count).map(deletion).collect()
    }

    /// The keys, oldest first, and who can receive what, with the newest event of each.
    pub(super) fn lists(&mut self) -> io::Result<Lists> {
        let at = self.header.lists_at();
        let length = self.header.bytes.checked_sub(at).and_then(|length| usize::try_from(length).ok());
        let length = length.filter(|length| (*length as u64) <= self.file.len().unwrap_or(0));
        let mut bytes = vec![0; length.ok_or_else(damaged)?];
        self.read(at, &mut bytes)?;
        let (keys, audiences) = (self.header.keys, self.header.audiences);
        let mut fields = Fields(&bytes);
        let mut key = || {
            let time = Timestamp::from_millis(fields.u64()?);
            let index = fields.u32()?;
            let key = IdempotencyKey::new(fields.text()?)?;
            Some(KeyUse { key, time, index, id: EventId::from_stored(fields.text()?) })
        };
        let keys = (0..keys).map(|_| key()).collect::<Option<_>>().ok_or_else(damaged)?;
        let mut audience = || Some((fields.u32()?, fields.audience()?));
        let audiences = (0..audiences).map(|_| audience()).collect::<Option<_>>().ok_or_else(damaged)?;
        Ok((keys, audiences))
    }

    fn number(&mut self, at: u64) -> io::Result<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn array<const N: usize>(&mut self, at: u64) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(at, &mut bytes)?;
        Ok(bytes)
    }

    fn read(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        if at + bytes.len() as u64 > self.header.bytes {
            return Err(damaged());
        }
        let mut filled = 0;
        while filled < bytes.len() {
            let place = at + filled as u64;
            self.load(place / CONTENT_BYTES as u64)?;
            let start = (place % CONTENT_BYTES as u64) as usize;
            let part = (CONTENT_BYTES - start).min(bytes.len() - filled);
            bytes[filled..filled + part].copy_from_slice(&self.page[start..start + part]);
            filled += part;
        }
        Ok(())
    }

    fn load(&mut self, number: u64) -> io::Result<()> {
        if self.page_number == number {
            return Ok(());
        }
        self.page_number = u64::MAX;
        let read = read_full(&*self.file, &mut self.page, number * PAGE_BYTES as u64)?;
        let (content, crc) = self.page.split_last_chunk::<4>().expect("a page is longer than a checksum");
        if read < PAGE_BYTES || page_crc(self.salt, number, content) != u32::from_le_bytes(*crc) {
            return Err(damaged());
        }
        self.page_number = number;
        Ok(())
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the index is damaged")
}

impl Places for IndexFile {
    fn count(&self) -> u32 {
        self.header.events
    }

    fn row(&mut self, index: u32) -> io::Result<Row> {
        if index >= self.header.events {
            return Ok(Row::default());
        }
        let bytes: [u8; ROW_BYTES as usize] = self.array(HEADER_BYTES + ROW_BYTES * u64::from(index))?;
        let mut fields = Fields(&bytes);
        let mut row = || {
            Some(Row {
                offset: fields.u32()?,
                length: fields.u32()?,
                audience: fields.u32()?,
                time: Timestamp::from_millis(fields.u64()?),
            })
        };
        Ok(row().expect("a row has so many bytes"))
    }

    fn named(&mut self, hash: u64) -> io::Result<Postings> {
        let slots = u64::from(self.header.slots);
        if slots == 0 {
            return Ok(NO_POSTINGS);
        }
        let mut slot = first_slot(hash, slots);
        for _ in 0..slots {
            let bytes: [u8; SLOT_BYTES as usize] = self.array(self.header.table_at() + SLOT_BYTES * slot)?;
            let mut fields = Fields(&bytes);
            let (known, start, count) = fields
                .u64()
                .and_then(|hash| Some((hash, fields.u32()?, fields.u32()?)))
                .expect("a slot has three numbers");
            if count == 0 {
                break;
            }
            if known == hash {
                return Ok(Postings { start: u64::from(start), count });
            }
            slot = next_slot(slot, slots);
        }
        Ok(NO_POSTINGS)
    }

    fn posting(&mut self, postings: Postings, place: u32) -> io::Result<u32> {
        self.number(self.header.postings_at() + 4 * (postings.start + u64::from(place)))
    }

    fn times_count(&self) -> u32 {
        self.header.times
    }

    fn time(&mut self, place: u32) -> io::Result<(u32, Timestamp)> {
        let at = self.header.times_at() + TIME_BYTES * u64::from(place);
        let millis = self.array(at + 4).map(u64::from_le_bytes)?;
        Ok((self.number(at)?, Timestamp::from_millis(millis)))
    }
}
