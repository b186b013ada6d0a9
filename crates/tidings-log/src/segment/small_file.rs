//! What the small files next to the segments have in common: a magic number, the format, and a
//! checksum.

use super::{fields::Fields, record::FORMAT};

/// A small file that was read.
pub(super) enum SmallFile<'a> {
    /// What follows the format.
    Whole(&'a [u8]),
    /// Another version of Tidings wrote it, in this format.
    Foreign(u32),
    Damaged,
}

/// The beginning of a file.
pub(super) fn begin(magic: [u8; 8]) -> Vec<u8> {
    [&magic[..], &FORMAT.to_le_bytes()].concat()
}

/// A file with its checksum.
pub(super) fn with_crc(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// What a file holds.
pub(super) fn content(magic: [u8; 8], bytes: &[u8]) -> SmallFile<'_> {
    let read = || {
        let (said, crc) = bytes.split_last_chunk::<4>()?;
        let mut fields = Fields(said);
        let is_whole = crc32fast::hash(said) == u32::from_le_bytes(*crc) && fields.take(8)? == magic;
        let format = fields.u32()?;
        is_whole.then_some((format, fields.0))
    };
    match read() {
        Some((FORMAT, content)) => SmallFile::Whole(content),
        Some((format, _)) => SmallFile::Foreign(format),
        None => SmallFile::Damaged,
    }
}
