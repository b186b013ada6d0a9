//! The file `state`: how the log was left, and its epochs. Written when the log is opened and when
//! it is closed. If it is damaged or lost, a new epoch begins.
//!
//! ```text
//! state    "tidstate" | format u32 | closed u8 | sync level u8 | newest event u64 | newest deletion u64 | boot id text | epochs u32, each u64 and after u64 | crc u32
//! ```

use std::io;

use super::{
    disk::{Disk, read_small, replace},
    fields::{Fields, push_text},
    settings::SyncLevel,
    small_file::{SmallFile, begin, content, with_crc},
};
use crate::{
    EpochStart, Epochs,
    numbers::{number, position},
};
use tidings_topic::Epoch;

pub(super) const STATE_NAME: &str = "state";
const MAGIC: [u8; 8] = *b"tidstate";
/// The largest such file that is read: all epochs, and more.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// What is known about a log in addition to its segments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LogState {
    /// The newest event when it was closed in order; `None` while it is open, and after a crash.
    pub(super) closed_at: Option<u64>,
    /// The serial number of the newest deletion at that time.
    pub(super) deletions: u64,
    /// How it was synced while it was open.
    pub(super) sync: StoredSync,
    pub(super) boot_id: Option<String>,
    pub(super) epochs: Epochs,
}

/// What matters of a sync level afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StoredSync {
    /// What was acknowledged was on disk.
    BeforeAnswer,
    /// It may not have been.
    Later,
}

impl From<SyncLevel> for StoredSync {
    fn from(level: SyncLevel) -> Self {
        match level {
            SyncLevel::Always => Self::BeforeAnswer,
            SyncLevel::Interval(_) | SyncLevel::Never => Self::Later,
        }
    }
}

impl LogState {
    pub(super) fn save(&self, disk: &dyn Disk) -> io::Result<()> {
        let mut bytes = begin(MAGIC);
        bytes.push(u8::from(self.closed_at.is_some()));
        bytes.push(u8::from(self.sync == StoredSync::Later));
        bytes.extend(self.closed_at.unwrap_or_default().to_le_bytes());
        bytes.extend(self.deletions.to_le_bytes());
        push_text(&mut bytes, self.boot_id.as_deref().unwrap_or_default()).expect("a boot id is short");
        let count = u32::try_from(self.epochs.iter().count()).expect("there are at most Epochs::COUNT_MAX");
        bytes.extend(count.to_le_bytes());
        for start in self.epochs.iter() {
            bytes.extend(start.epoch.to_u64().to_le_bytes());
            bytes.extend(number(start.after).to_le_bytes());
        }
        replace(disk, STATE_NAME, &with_crc(bytes))
    }

    /// The file, with `None` if there is none that can be used; or the format of another version.
    pub(super) fn load(disk: &dyn Disk) -> io::Result<Result<Option<Self>, u32>> {
        let bytes = read_small(disk, STATE_NAME, FILE_BYTES_MAX)?;
        Ok(match bytes.as_deref().map_or(SmallFile::Damaged, |bytes| content(MAGIC, bytes)) {
            SmallFile::Whole(content) => Ok(Self::decode(content)),
            SmallFile::Foreign(format) => Err(format),
            SmallFile::Damaged => Ok(None),
        })
    }

    fn decode(content: &[u8]) -> Option<Self> {
        let mut fields = Fields(content);
        let flags = fields.take(2)?;
        let (newest, deletions) = (fields.u64()?, fields.u64()?);
        let boot_id = fields.text()?;
        let mut starts = Vec::new();
        for _ in 0..fields.u32()? {
            let epoch = Epoch::from_u64(fields.u64()?);
            starts.push(EpochStart { epoch, after: position(fields.u64()?) });
        }
        Some(Self {
            closed_at: (flags[0] != 0).then_some(newest),
            deletions,
            sync: if flags[1] == 0 { StoredSync::BeforeAnswer } else { StoredSync::Later },
            boot_id: (!boot_id.is_empty()).then(|| boot_id.to_owned()),
            epochs: Epochs::from_stored(starts)?,
        })
    }
}
