//! The small files next to the segments: a magic number, the format, one value and a checksum. They
//! are replaced as a whole.

use std::io;

use super::{
    disk::{Disk, TEMPORARY, read_full},
    record::{FORMAT, ForeignFormat, ReadFailure},
};
use crate::codec::{Fields, Stored};

/// What such a file holds.
pub(super) trait SmallFile: Stored {
    /// The name of the file.
    const NAME: &str;
    const MAGIC: [u8; 8];
    /// The largest such file that is read.
    const BYTES_MAX: usize;

    /// Puts a file in the place of another: after a crash there is the one or the other.
    fn save(&self, disk: &dyn Disk) -> io::Result<()> {
        let mut bytes = Self::MAGIC.to_vec();
        FORMAT.store(&mut bytes);
        self.store(&mut bytes);
        crc32fast::hash(&bytes).store(&mut bytes);
        let temporary = format!("{}{TEMPORARY}", Self::NAME);
        let file = disk.create(&temporary)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_data()?;
        disk.rename(&temporary, Self::NAME)?;
        disk.sync_directory()
    }

    /// What was saved. `None` if there is no such file, or none that can be used.
    fn load(disk: &dyn Disk) -> Result<Option<Self>, ReadFailure> {
        let file = match disk.open(Self::NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let Some(len) = usize::try_from(file.len()?).ok().filter(|len| *len <= Self::BYTES_MAX) else {
            return Ok(None);
        };
        let mut bytes = vec![0; len];
        let read = read_full(&*file, &mut bytes, 0)?;
        let whole = || {
            let (said, crc) = bytes[..read].split_last_chunk::<4>()?;
            let mut fields = Fields(said);
            let is_whole =
                crc32fast::hash(said) == u32::from_le_bytes(*crc) && fields.bytes(8)? == Self::MAGIC;
            let format: u32 = fields.read()?;
            is_whole.then_some((format, fields))
        };
        match whole() {
            Some((FORMAT, content)) => Ok(content.read_last()),
            Some((format, _)) => Err(ForeignFormat(format).into()),
            None => Ok(None),
        }
    }
}
