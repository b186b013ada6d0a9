//! Tails: a position and a notifier, as for the log in memory. A tail that falls behind the events
//! in memory reads files.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{sync::watch, task::spawn_blocking, time::timeout};

use super::{hiding::Hiding, open_log::OpenLog, reading::stretch};
use crate::{
    Cursor, Entry, Tail, TailItem,
    numbers::{number, position},
};

/// How long a tail waits before it reads again what it could not read.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A tail of a segment log. The epoch does not change while the log is open.
pub(super) struct SegmentTail {
    log: Arc<OpenLog>,
    notifier: watch::Receiver<()>,
    /// Everything up to here was returned.
    seen: Cursor,
    /// The newest deletion that was reported.
    reported: u64,
}

/// What comes next.
enum Following {
    Nothing,
    Item(TailItem),
    /// Entries up to this one that are not in memory any more.
    InFiles {
        through: u64,
    },
}

impl SegmentTail {
    pub(super) fn new(log: Arc<OpenLog>, notifier: watch::Receiver<()>, seen: Cursor) -> Self {
        let reported = log.store.horizon().hiding.deletions.serial;
        Self { log, notifier, seen, reported }
    }

    fn following(&self, bytes_max: usize) -> Following {
        let seen = number(self.seen.position);
        loop {
            let (front, hiding) = self.log.store.hidden();
            if seen < front {
                return Following::Item(TailItem::Skipped { through: position(front) });
            }
            let serial = hiding.deletions.serial;
            if self.reported < serial {
                return Following::Item(TailItem::Deleted { serial });
            }
            let (newest, recent) = {
                let acknowledged = self.log.store.acknowledged();
                (acknowledged.newest, acknowledged.recent.after(seen, bytes_max))
            };
            if seen >= newest {
                return Following::Nothing;
            }
            // Entries that were appended after a deletion come after it.
            if self.log.store.horizon().hiding.deletions.serial > serial {
                continue;
            }
            return match recent {
                Some(entries) if !entries.is_empty() => Following::Item(visible(entries, &hiding)),
                _ => Following::InFiles { through: newest },
            };
        }
    }

    /// `None` if a file cannot be read now: it may have been freed or written anew in the meantime,
    /// or can be read later.
    async fn read_files(&self, through: u64, bytes_max: usize) -> Option<TailItem> {
        let (log, seen) = (Arc::clone(&self.log), number(self.seen.position));
        spawn_blocking(move || stretch(&log.store, (seen, through), bytes_max)).await.ok()?.ok()
    }
}

#[async_trait]
impl Tail for SegmentTail {
    async fn next(&mut self, bytes_max: usize) -> Option<TailItem> {
        let mut closed = false;
        loop {
            // The notifier is reset before the log is looked at: whatever comes afterwards fires it
            // again.
            self.notifier.mark_unchanged();
            let mut rest = None;
            let item = match self.following(bytes_max) {
                Following::Item(item) => Some(item),
                Following::InFiles { through } => {
                    rest = Some(READ_AGAIN_AFTER);
                    self.read_files(through, bytes_max).await
                }
                Following::Nothing => None,
            };
            if let Some(item) = item {
                self.seen.position = match &item {
                    TailItem::Entries(entries) => {
                        entries.last().map_or(self.seen.position, |entry| entry.cursor.position)
                    }
                    TailItem::Skipped { through } => *through,
                    TailItem::NewEpoch(start) => start.after,
                    TailItem::Deleted { serial } => {
                        self.reported = *serial;
                        self.seen.position
                    }
                };
                return Some(item);
            }
            if closed {
                return None;
            }
            let notified = self.notifier.changed();
            closed = match rest {
                Some(rest) => timeout(rest, notified).await.is_ok_and(|notified| notified.is_err()),
                None => notified.await.is_err(),
            };
        }
    }
}

/// Of entries in a row, those before the first that is hidden; or how far they are hidden.
fn visible(mut entries: Vec<Arc<Entry>>, hiding: &Hiding) -> TailItem {
    let hidden = entries.iter().take_while(|entry| hiding.hide(entry)).count();
    if let Some(gone) = hidden.checked_sub(1) {
        return TailItem::Skipped { through: entries[gone].cursor.position };
    }
    let shown = entries.iter().take_while(|entry| !hiding.hide(entry)).count();
    entries.truncate(shown);
    TailItem::Entries(entries)
}
