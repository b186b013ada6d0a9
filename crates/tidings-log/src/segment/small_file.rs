//! The small files next to the segments: a magic number, the format, one value and a checksum. They
//! are replaced as a whole.

use std::io;

use super::{
    disk::{Disk, TEMPORARY, read_full},
    record::FORMAT,
};
use crate::codec::{Fields, Stored};

/// Puts a file in the place of another: after a crash there is the one or the other.
pub(super) fn save(disk: &dyn Disk, name: &str, magic: [u8; 8], value: &impl Stored) -> io::Result<()> {
    let mut bytes = magic.to_vec();
    FORMAT.store(&mut bytes);
    value.store(&mut bytes);
    crc32fast::hash(&bytes).store(&mut bytes);
    let temporary = format!("{name}{TEMPORARY}");
    let file = disk.create(&temporary)?;
    file.write_all_at(&bytes, 0)?;
    file.sync_data()?;
    disk.rename(&temporary, name)?;
    disk.sync_directory()
}

/// What a file of at most so many bytes holds, with `None` if there is none that can be used; or
/// the format of another version of Tidings.
pub(super) fn load<T: Stored>(
    disk: &dyn Disk,
    name: &str,
    magic: [u8; 8],
    bytes_max: usize,
) -> io::Result<Result<Option<T>, u32>> {
    let file = match disk.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(None)),
        opened => opened?,
    };
    let Some(len) = usize::try_from(file.len()?).ok().filter(|len| *len <= bytes_max) else {
        return Ok(Ok(None));
    };
    let mut bytes = vec![0; len];
    let read = read_full(&*file, &mut bytes, 0)?;
    let whole = || {
        let (said, crc) = bytes[..read].split_last_chunk::<4>()?;
        let mut fields = Fields(said);
        let is_whole = crc32fast::hash(said) == u32::from_le_bytes(*crc) && fields.bytes(8)? == magic;
        let format: u32 = fields.read()?;
        is_whole.then_some((format, fields))
    };
    Ok(match whole() {
        Some((FORMAT, content)) => Ok(content.read_last()),
        Some((format, _)) => Err(format),
        None => Ok(None),
    })
}
