//! An open log: the store and the work on it.

use std::{
    io,
    sync::{Mutex, MutexGuard, atomic::AtomicBool},
};

use super::{
    acknowledged::{Extent, Segments},
    horizon::Horizon,
    retention::Retention,
    store::Store,
};
use crate::{Position, lock::lock, numbers::number};

/// An open log.
#[derive(Debug)]
pub(super) struct OpenLog {
    pub(super) store: Store,
    /// Held while files are read, but never while one is written. Threads that serve connections do
    /// not take it: they ask on a thread that may block.
    retention: Mutex<Retention>,
    /// The log is being closed: long work is given up.
    pub(super) closing: AtomicBool,
    /// Compaction waits for the segment that grows to end.
    pub(super) ends_segment: AtomicBool,
    /// Retention has hidden a segment, whose bytes have to be freed.
    pub(super) frees_segments: AtomicBool,
    /// Held by the thread that frees or compacts: one at a time.
    pub(super) maintaining: Mutex<()>,
    /// Held by the thread that saves the front.
    pub(super) saving: Mutex<()>,
}

impl OpenLog {
    pub(super) fn new(store: Store, retention: Retention) -> Self {
        retention.publish_next(&store);
        Self {
            store,
            retention: Mutex::new(retention),
            closing: AtomicBool::new(false),
            ends_segment: AtomicBool::new(false),
            frees_segments: AtomicBool::new(false),
            maintaining: Mutex::default(),
            saving: Mutex::default(),
        }
    }

    pub(super) fn retention(&self) -> MutexGuard<'_, Retention> {
        lock(&self.retention)
    }

    /// Hides what retention does not keep.
    pub(super) fn expire(&self) -> io::Result<()> {
        self.settled(|_| ()).map(drop)
    }

    /// The log as it is, and what is hidden of it, after hiding what retention does not keep. May read
    /// files.
    ///
    /// What is hidden is looked at last. A segment that is freed or replaced in between then lacks its
    /// file, and the question is asked again. The other way round, events would be missing that are
    /// neither hidden nor reported.
    pub(super) fn settled<T>(&self, look: impl Fn(&Horizon) -> T) -> io::Result<((Segments, Extent), T)> {
        let (segments, extent) = self.store.segments();
        let hidden = if let Some(hidden) = self.if_settled(extent, &look) {
            hidden
        } else {
            self.retention().advance(&self.store, self.store.clock.now())?;
            look(&self.store.horizon())
        };
        Ok(((segments, extent), hidden))
    }

    fn if_settled<T>(&self, extent: Extent, look: impl Fn(&Horizon) -> T) -> Option<T> {
        let horizon = self.store.horizon();
        let is_settled = horizon.is_settled(&self.store.settings, extent, self.store.clock.now());
        is_settled.then(|| look(&horizon))
    }

    /// Whether everything after this position is in memory, and nothing has to expire first.
    pub(super) fn is_in_memory(&self, after: Position) -> bool {
        let extent = {
            let acknowledged = self.store.acknowledged();
            let from = number(after).saturating_add(1);
            let recent = acknowledged.recent.first().is_some_and(|first| first <= from);
            if !(from > acknowledged.newest || recent && acknowledged.active().first() <= from) {
                return false;
            }
            acknowledged.extent()
        };
        self.if_settled(extent, |_| ()).is_some()
    }
}
