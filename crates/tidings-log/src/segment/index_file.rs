//! The index file of a full segment.
//!
//! ```text
//! page      4092 bytes | crc u32                     the checksum also covers the salt of the segment and the number of the page
//! contents  header | rows … | table | postings u32 … | times … | holes … | deletions … | keys, audiences
//! header    "tidindex" | version u32 | how many of each part but the last | how many audiences u32 | removed events u32
//!           | behind the newest of them u32 | bytes of the segment u64 | latest time u64 | bytes of all this u64
//! row       offset u32 | length u32 | audience u32 | time u64                one for each event; zeros if it is gone
//! table     slots of hash u64 | first posting u32 | count u32; a power of two, at most half of them taken, the next one if taken
//! time      event u32 | time u64
//! hole      first event u32 | last event u32
//! deletion  offset u32 | serial number u64
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

use super::{
    disk::{Disk, DiskFile, TEMPORARY, read_full},
    index::{
        IndexedDeletion, KeyUse, Lists, MemoryIndex, NO_POSTINGS, Places, Postings, Removed, Row, Summary,
    },
};
use crate::{
    Timestamp,
    codec::{Fields, Stored, count, push_items, push_list},
    stored,
};

const MAGIC: [u8; 8] = *b"tidindex";
const VERSION: u32 = 4;
const PAGE_BYTES: usize = 4096;
const CONTENT_BYTES: usize = PAGE_BYTES - 4;
const HEADER_BYTES: u64 = 72;

/// The parts of which single items are read, in their order.
#[derive(Clone, Copy)]
enum Part {
    Rows,
    Table,
    Postings,
    Times,
    Holes,
    Deletions,
}

/// The bytes of one item of each part.
const ITEM_BYTES: [u64; 6] = [ROW_BYTES, 16, 4, 12, 8, 12];
/// The bytes of what is known of one event: the largest item.
pub(super) const ROW_BYTES: u64 = 20;

/// How much there is of each part.
#[derive(Clone, Default, Debug)]
struct Header {
    counts: [u32; 6],
    audiences: u32,
    removed: Removed,
    /// The bytes of the segment that it covers.
    segment_bytes: u64,
    latest: Timestamp,
    /// The bytes of all contents.
    bytes: u64,
}

stored!(Header { counts, audiences, removed, segment_bytes, latest, bytes });
stored!(Row { offset, length, audience, time });
stored!(Removed { count, until });
stored!(IndexedDeletion { offset, serial });
stored!(KeyUse { key, time, index, id });

impl Header {
    fn count(&self, part: Part) -> u32 {
        self.counts[part as usize]
    }

    /// Where an item of a part stands.
    fn offset(&self, part: Part, place: u64) -> u64 {
        let before = self.counts.iter().zip(ITEM_BYTES).take(part as usize);
        let start: u64 = before.map(|(count, bytes)| u64::from(*count) * bytes).sum();
        HEADER_BYTES + start + place * ITEM_BYTES[part as usize]
    }

    /// Where the keys and audiences stand.
    fn lists_offset(&self) -> u64 {
        self.offset(Part::Deletions, self.count(Part::Deletions).into())
    }
}

/// Writes the index of a segment, in the place of whatever stood there.
pub(super) fn write(disk: &dyn Disk, name: &str, salt: u64, index: &MemoryIndex) -> io::Result<()> {
    let temporary = format!("{name}{TEMPORARY}");
    let file = disk.create(&temporary)?;
    file.write_all_at(&pages(salt, &contents(index)), 0)?;
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
    let Summary { holes, removed, bytes: segment_bytes, latest, .. } = &index.summary;
    let mut bytes = vec![0; HEADER_BYTES as usize];
    push_items(&mut bytes, &index.rows);
    push_items(&mut bytes, &table);
    push_items(&mut bytes, &postings);
    push_items(&mut bytes, &index.times);
    push_items(&mut bytes, holes);
    push_items(&mut bytes, &index.deletions);
    push_list(&mut bytes, &index.keys);
    push_list(&mut bytes, &index.audiences);
    let counts = [
        count(&index.rows),
        count(&table),
        count(&postings),
        count(&index.times),
        count(holes),
        count(&index.deletions),
    ];
    let header = Header {
        counts,
        audiences: count(&index.audiences),
        removed: *removed,
        segment_bytes: *segment_bytes,
        latest: *latest,
        bytes: bytes.len() as u64,
    };
    let mut beginning = MAGIC.to_vec();
    (VERSION, header).store(&mut beginning);
    bytes[..HEADER_BYTES as usize].copy_from_slice(&beginning);
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
        let (file, header) = (disk.open(name)?, Header { bytes: HEADER_BYTES, ..Header::default() });
        let mut index = Self { file, salt, header, page: vec![0; PAGE_BYTES], page_number: u64::MAX };
        let mut bytes = [0; HEADER_BYTES as usize];
        index.read(0, &mut bytes)?;
        let beginning: Option<([u8; 8], u32, Header)> = Fields(&bytes).read_last();
        let (magic, version, header) = beginning.ok_or_else(damaged)?;
        let slots = header.count(Part::Table);
        if magic != MAGIC || version != VERSION || slots > 0 && !slots.is_power_of_two() {
            return Err(damaged());
        }
        index.header = header;
        Ok(index)
    }

    /// What is kept of it in memory.
    pub(super) fn summary(&mut self) -> io::Result<Summary> {
        let earliest = if self.times_count() == 0 { None } else { Some(self.time(0)?.1) };
        let holes = (0..self.header.count(Part::Holes)).map(|place| self.item(Part::Holes, place.into()));
        let holes = holes.collect::<io::Result<_>>()?;
        let Header { audiences, removed, segment_bytes, latest, .. } = self.header;
        let (count, deletions) = (self.header.count(Part::Rows), self.header.count(Part::Deletions));
        Ok(Summary { count, bytes: segment_bytes, earliest, latest, holes, removed, deletions, audiences })
    }

    fn item<T: Stored>(&mut self, part: Part, place: u64) -> io::Result<T> {
        let mut bytes = [0; ROW_BYTES as usize];
        let bytes = &mut bytes[..ITEM_BYTES[part as usize] as usize];
        self.read(self.header.offset(part, place), bytes)?;
        Fields(bytes).read_last().ok_or_else(damaged)
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
        self.header.count(Part::Rows)
    }

    fn row(&mut self, index: u32) -> io::Result<Row> {
        if index < self.count() { self.item(Part::Rows, index.into()) } else { Ok(Row::default()) }
    }

    fn named(&mut self, hash: u64) -> io::Result<Postings> {
        let slots = u64::from(self.header.count(Part::Table));
        if slots == 0 {
            return Ok(NO_POSTINGS);
        }
        let mut slot = first_slot(hash, slots);
        for _ in 0..slots {
            let (known, start, count): (u64, u32, u32) = self.item(Part::Table, slot)?;
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
        self.item(Part::Postings, postings.start + u64::from(place))
    }

    fn times_count(&self) -> u32 {
        self.header.count(Part::Times)
    }

    fn time(&mut self, place: u32) -> io::Result<(u32, Timestamp)> {
        self.item(Part::Times, place.into())
    }

    fn deletions(&mut self) -> io::Result<Vec<IndexedDeletion>> {
        let count = self.header.count(Part::Deletions);
        (0..count).map(|place| self.item(Part::Deletions, place.into())).collect()
    }

    fn lists(&mut self) -> io::Result<Lists> {
        let at = self.header.lists_offset();
        let length = self.header.bytes.checked_sub(at).and_then(|length| usize::try_from(length).ok());
        let length = length.filter(|length| (*length as u64) <= self.file.len().unwrap_or(0));
        let mut bytes = vec![0; length.ok_or_else(damaged)?];
        self.read(at, &mut bytes)?;
        Fields(&bytes).read_last().ok_or_else(damaged)
    }
}
