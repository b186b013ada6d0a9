//! The limits and the durability of a log in files.

use std::time::Duration;

#[cfg(doc)]
use crate::{AppendError, Log};
use crate::{MemoryLimits, RetentionRule};

/// When an acknowledged event is on disk. A killed process loses nothing at any level, because the
/// operating system has the written data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncLevel {
    /// Before it is acknowledged: it survives a loss of power.
    #[default]
    Always,
    /// At most this much later: a loss of power may lose events that were acknowledged in that
    /// time, which is reported to subscribers as a gap.
    Interval(Duration),
    /// When the operating system writes it, commonly within half a minute: a loss of power may lose
    /// events of that time, which is reported to subscribers as a gap.
    Never,
}

/// The limits and the durability of a [`SegmentLog`](crate::SegmentLog).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentSettings {
    /// When an acknowledged event is on disk. Default: before it is acknowledged.
    pub sync: SyncLevel,
    /// Most bytes of events as stored in the files. Older events expire at once; space is freed by
    /// complete segments, so the directory may be larger by one segment and the indexes. A batch
    /// that alone is larger, or larger than 256 MiB, is refused with [`AppendError::Full`]. Default
    /// 1 GiB.
    pub bytes_max: u64,
    /// Most events. A batch that alone has more is refused with [`AppendError::Full`]. Default:
    /// unlimited within the other limits.
    pub count_max: Option<u64>,
    /// Greatest age of an event by the clock. Default 7 days.
    pub age_max: Option<Duration>,
    /// Additional rules for the events of some topics; at most [`RetentionRule::COUNT_MAX`]. Events
    /// expire at once; their bytes are freed when half of their segment has expired or been
    /// deleted. Default: none.
    pub retention: Vec<RetentionRule>,
    /// For how many sets of topics the log remembers the last dropped event; see
    /// [`MemoryLimits::floors_max`]. Default 100,000.
    pub floors_max: usize,
    /// Most idempotency keys; see [`MemoryLimits::keys_max`]. They survive a restart. Default
    /// 100,000.
    pub keys_max: usize,
    /// Greatest age of an idempotency key. Default 10 minutes.
    pub keys_age_max: Duration,
    /// Size at which a segment is full, from [`SEGMENT_BYTES_MIN`](Self::SEGMENT_BYTES_MIN) to
    /// [`SEGMENT_BYTES_MAX`](Self::SEGMENT_BYTES_MAX). Default: a sixteenth of `bytes_max`, but
    /// from 1 to 64 MiB.
    pub segment_bytes: Option<u64>,
    /// Memory for the newest events, which serves live delivery. Default 8 MiB.
    pub recent_bytes_max: usize,
    /// Most batches that are queued for the writer; further calls of [`Log::append`] wait for
    /// capacity. Default 4,096.
    pub appends_waiting_max: usize,
}

impl Default for SegmentSettings {
    fn default() -> Self {
        let memory = MemoryLimits::default();
        Self {
            sync: SyncLevel::default(),
            bytes_max: 1024 * 1024 * 1024,
            count_max: None,
            age_max: Some(Duration::from_secs(7 * 24 * 60 * 60)),
            retention: Vec::new(),
            floors_max: memory.floors_max,
            keys_max: memory.keys_max,
            keys_age_max: memory.keys_age_max,
            segment_bytes: None,
            recent_bytes_max: 8 * 1024 * 1024,
            appends_waiting_max: 4096,
        }
    }
}

impl SegmentSettings {
    /// The smallest segment, in bytes. Each segment takes two files.
    pub const SEGMENT_BYTES_MIN: u64 = 512;
    /// The largest segment, in bytes. Offsets have 32 bits, and the last group of batches may
    /// exceed this size.
    pub const SEGMENT_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

    /// The limits of floors and keys.
    pub(super) fn limits(&self) -> MemoryLimits {
        MemoryLimits {
            floors_max: self.floors_max,
            keys_max: self.keys_max,
            keys_age_max: self.keys_age_max,
            ..MemoryLimits::default()
        }
    }

    /// The size at which a segment is full.
    pub(super) fn segment_bytes(&self) -> u64 {
        self.segment_bytes.unwrap_or((self.bytes_max / 16).clamp(1024 * 1024, 64 * 1024 * 1024))
    }
}
