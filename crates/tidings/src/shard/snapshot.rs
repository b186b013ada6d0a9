//! The snapshot that a shard sends from.
//!
//! Members of a group are visited one after the other, so one snapshot of their feed serves many of
//! them: until the feed has grown, so that each is sent everything, and for a slice at most, since
//! the writer appends in place while nobody keeps a snapshot.

use crate::feed::feed::{Feed, Offset, Snapshot};

/// The snapshot that was taken last, and the number of the group whose feed it is of.
#[derive(Debug, Default)]
pub(super) struct LastSnapshot(Option<(u32, Snapshot)>);

impl LastSnapshot {
    /// The whole feed of this group from an offset on; none if the feed does not reach back to it.
    pub(super) fn of(&mut self, group: u32, feed: &Feed, offset: Offset) -> Option<&Snapshot> {
        let is_usable = |(of, snapshot): &(u32, Snapshot)| {
            *of == group && snapshot.covers(offset) && feed.is_current(snapshot)
        };
        if !self.0.as_ref().is_some_and(is_usable) {
            // Released before the next one is taken, which then finds the feed in fewer pieces.
            self.release();
            self.0 = feed.snapshot(offset).map(|snapshot| (group, snapshot));
        }
        self.0.as_ref().map(|(_, snapshot)| snapshot)
    }

    /// To be called at the end of every slice.
    pub(super) fn release(&mut self) {
        self.0 = None;
    }
}
