//! What replays count, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::feed::encode::GapReason;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct ReplayCounts {
    completed: AtomicU64,
    pages_read: AtomicU64,
    pages_shared: AtomicU64,
    events: AtomicU64,
    gaps: [AtomicU64; ReplayStats::GAP_REASONS.len()],
}

/// What was replayed since the hub started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplayStats {
    /// How often a page of history brought a subscriber to the end of the log.
    pub completed: u64,
    /// Pages that were read from the log for a subscriber.
    pub pages_read: u64,
    /// Pages that another subscriber had needed a moment before, and that were not read again.
    pub pages_shared: u64,
    /// Events on these pages, each once for every subscriber that got its page.
    pub events: u64,
    /// Gaps that were reported, in the order of [`GAP_REASONS`](Self::GAP_REASONS).
    pub gaps: [u64; Self::GAP_REASONS.len()],
}

impl ReplayStats {
    /// The names of the reasons, as labels, in the order of [`GapReason`].
    pub const GAP_REASONS: [&str; 3] = ["expired", "unknown", "other_log"];
}

/// Where a page is from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PageSource {
    /// It was read for this subscriber.
    Log,
    /// It was there.
    Shared,
}

impl ReplayCounts {
    /// A subscriber gets a page with so many events, at whose end it has the end of the log or not.
    pub(crate) fn page(&self, source: PageSource, events: usize, at_end: bool) {
        let pages = match source {
            PageSource::Log => &self.pages_read,
            PageSource::Shared => &self.pages_shared,
        };
        pages.fetch_add(1, Ordering::Relaxed);
        self.events.fetch_add(events as u64, Ordering::Relaxed);
        self.completed.fetch_add(u64::from(at_end), Ordering::Relaxed);
    }

    /// A gap is reported to a subscriber.
    pub(crate) fn gap(&self, reason: GapReason) {
        self.gaps[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> ReplayStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ReplayStats {
            completed: read(&self.completed),
            pages_read: read(&self.pages_read),
            pages_shared: read(&self.pages_shared),
            events: read(&self.events),
            gaps: self.gaps.each_ref().map(read),
        }
    }
}
