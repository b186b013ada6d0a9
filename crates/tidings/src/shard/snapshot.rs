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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::feed::tests::{feed, frame, send};

    /// What one call to a socket is given from an offset on, and the offset behind it.
    fn sent(last: &mut LastSnapshot, feed: &Feed, offset: Offset) -> (usize, Offset) {
        let snapshot = last.of(1, feed, offset).expect("the feed reaches back to this offset");
        let (given, progress) = send(snapshot, offset, usize::MAX);
        (given, progress.map_or(offset, |progress| progress.offset))
    }

    #[test]
    fn one_snapshot_serves_a_group_until_its_feed_grows() {
        let (feed, mut last) = (feed(&[10]), LastSnapshot::default());
        assert!(last.of(1, &feed, 0).is_some());
        feed.drop_front();
        assert!(last.of(1, &feed, 0).is_some(), "the next member is served from the same one");
        assert!(last.of(2, &feed, 0).is_none(), "another group is not");
    }

    #[test]
    fn a_member_is_sent_in_one_call_what_came_since_the_one_before_it() {
        let (feed, mut last) = (feed(&[10]), LastSnapshot::default());
        let (given, end) = sent(&mut last, &feed, 0);
        feed.append(&frame(2, 10));
        assert_eq!(sent(&mut last, &feed, 0), (2 * given, 2 * end));
    }

    #[test]
    fn a_member_that_is_further_back_than_the_one_before_it_is_served_too() {
        let (feed, mut last) = (feed(&[60_000, 60_000]), LastSnapshot::default());
        let (given, end) = sent(&mut last, &feed, 0);
        last.release();
        assert_eq!(sent(&mut last, &feed, end), (given, 2 * end));
        assert_eq!(sent(&mut last, &feed, 0), (given, end));
    }
}
