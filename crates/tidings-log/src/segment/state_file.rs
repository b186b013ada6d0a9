//! The file `state`: how the log was left, and its epochs. Written when the log is opened and when
//! it is closed. If it is damaged or lost, a new epoch begins.
//!
//! ```text
//! state    "tidstate" | format u32 | closed u8 | sync level u8 | newest event u64 | newest deletion u64 | boot id text | epochs u32, each u64 and after u64 | crc u32
//! ```

use tidings_topic::Epoch;

use super::small_file::SmallFile;
use crate::{
    EpochStart, Epochs,
    codec::{Fields, Stored, push_text},
    numbers::{number, position},
};

/// What is known about a log in addition to its segments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LogState {
    /// The newest event when it was closed in order; `None` while it is open, and after a crash.
    pub(super) closed_at: Option<u64>,
    /// While it was open, what was acknowledged was on disk.
    pub(super) is_synced: bool,
    /// The serial number of the newest deletion when it was closed.
    pub(super) deletions: u64,
    pub(super) boot_id: Option<String>,
    pub(super) epochs: Epochs,
}

impl SmallFile for LogState {
    const NAME: &str = "state";
    const MAGIC: [u8; 8] = *b"tidstate";
    /// All epochs, and more.
    const BYTES_MAX: usize = 1024 * 1024;
}

impl Stored for LogState {
    fn store(&self, bytes: &mut Vec<u8>) {
        (self.closed_at.is_some(), !self.is_synced).store(bytes);
        (self.closed_at.unwrap_or_default(), self.deletions).store(bytes);
        push_text(bytes, self.boot_id.as_deref().unwrap_or_default());
        let starts = self.epochs.iter().map(|start| (start.epoch, number(start.after)));
        starts.collect::<Vec<_>>().store(bytes);
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let (is_closed, is_unsynced): (bool, bool) = fields.read()?;
        let (newest, deletions) = fields.read()?;
        let boot_id: String = fields.read()?;
        let starts: Vec<(Epoch, u64)> = fields.read()?;
        let start = |(epoch, after)| EpochStart { epoch, after: position(after) };
        Some(Self {
            closed_at: is_closed.then_some(newest),
            is_synced: !is_unsynced,
            deletions,
            boot_id: Some(boot_id).filter(|boot_id| !boot_id.is_empty()),
            epochs: Epochs::from_stored(starts.into_iter().map(start).collect())?,
        })
    }
}
