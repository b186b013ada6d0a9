//! An open directory: its files, what is acknowledged, and what is hidden.
//!
//! Each mutex here is held for a few instructions only: never while a file is read or written,
//! while a filter is applied, or while another of them is held. Where both are needed, [`Horizon`]
//! is read before [`Acknowledged`]: compaction removes events before it forgets the deletion that
//! hides them.

use std::sync::{Arc, Mutex, MutexGuard, atomic::AtomicBool};

use super::{
    acknowledged::{Acknowledged, Extent, Segments, segments_after},
    disk::Disk,
    hiding::Hiding,
    home::Home,
    horizon::Horizon,
    segment_file::Segment,
    settings::SegmentSettings,
};
use crate::{
    Clock, Cursor, Epochs, LogStats, MemoryLimits, Unavailable, histogram::Histogram, ledger::keys::Keys,
    lock::lock, numbers::position, vital::Panicked,
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) home: Home,
    pub(super) settings: SegmentSettings,
    /// The limits of floors and keys.
    pub(super) limits: MemoryLimits,
    pub(super) clock: Clock,
    pub(super) epochs: Epochs,
    pub(super) acknowledged: Mutex<Acknowledged>,
    pub(super) horizon: Mutex<Horizon>,
    /// The window of idempotency keys.
    pub(super) keys: Mutex<Keys>,
    /// Retention rules have hidden something since the front was saved.
    pub(super) rules_unsaved: AtomicBool,
    /// How long the writer's syncs took.
    pub(super) syncs: Histogram,
}

impl Store {
    pub(super) fn acknowledged(&self) -> MutexGuard<'_, Acknowledged> {
        lock(&self.acknowledged)
    }

    pub(super) fn horizon(&self) -> MutexGuard<'_, Horizon> {
        lock(&self.horizon)
    }

    /// The front, and what is hidden after it.
    pub(super) fn hidden(&self) -> (u64, Hiding) {
        let horizon = self.horizon();
        (horizon.front, horizon.hiding.clone())
    }

    pub(super) fn keys(&self) -> MutexGuard<'_, Keys> {
        lock(&self.keys)
    }

    /// All segments, and how far they reach.
    pub(super) fn segments(&self) -> (Segments, Extent) {
        let acknowledged = self.acknowledged();
        (Arc::clone(&acknowledged.segments), acknowledged.extent())
    }

    /// The cursor of an event of the current epoch.
    pub(super) fn cursor(&self, number: u64) -> Cursor {
        Cursor { epoch: self.epochs.current().epoch, position: position(number) }
    }

    /// Remembers that an event is damaged, and reports that from now on.
    pub(super) fn note_damage(&self, segment: &Segment, number: u64) {
        segment.note_damaged(number);
        let name = segment.name.log();
        self.acknowledged().damage.get_or_insert_with(|| format!("event {number} in {name} is damaged"));
    }

    /// Remembers that a thread of this log has ended, which therefore has to be opened again.
    pub(super) fn note_end_of(&self, thread: &str, panicked: &Panicked) {
        self.acknowledged()
            .damage
            .get_or_insert_with(|| format!("{thread} of the log has ended: {panicked}"));
    }

    /// Remembers why nothing can be appended at present.
    pub(super) fn note_trouble(&self, trouble: &impl ToString) {
        self.acknowledged().trouble = Some(trouble.to_string());
    }

    /// Whether appends are accepted and nothing is damaged.
    pub(super) fn health(&self) -> Result<(), Unavailable> {
        let acknowledged = self.acknowledged();
        match acknowledged.trouble.as_ref().or(acknowledged.damage.as_ref()) {
            Some(reason) => Err(Unavailable(reason.clone())),
            None => Ok(()),
        }
    }

    /// What is kept, as far as it is known without reading a file: what has expired since the log was
    /// last read still counts, within the limits of the log.
    pub(super) fn stats(&self) -> LogStats {
        let (front, at_front) = {
            let horizon = self.horizon();
            (horizon.front, horizon.next.at_front.filter(|next| next.number == horizon.front + 1))
        };
        let SegmentSettings { bytes_max, count_max, .. } = self.settings;
        let (segments, extent) = self.segments();
        let is_empty = front >= extent.newest;
        let bytes = extent.end - at_front.map_or(extent.start, |next| next.start).min(extent.end);
        let earliest = || segments_after(&segments, front).first().and_then(|segment| segment.times().0);
        let latest = || {
            segments.iter().rev().map(|segment| segment.times()).find_map(|(any, latest)| any.map(|_| latest))
        };
        LogStats {
            is_up: self.health().is_ok(),
            events: extent.newest.saturating_sub(front).min(count_max.unwrap_or(u64::MAX)),
            bytes: if is_empty { 0 } else { bytes.min(bytes_max) },
            oldest: if is_empty { None } else { at_front.map(|next| next.time).or_else(earliest) },
            newest: if is_empty { None } else { latest() },
            syncs: Some(self.syncs.recorded()),
            ..LogStats::new("files", bytes_max)
        }
    }
}
