//! The live end. A tail is a position in the index and a notifier that fires when that changes, so
//! a slow tail costs no queue.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tidings_log::{Cursor, Tail, TailItem};
use tokio::{sync::watch, time::sleep};

use crate::{
    fetch::{FetchOutcome, fetch},
    index::{Followed, Seen},
    shared_index::SharedIndex,
};

/// The delay before events that could not be fetched are requested again.
const RETRY_WAIT: Duration = Duration::from_millis(200);

pub(crate) struct NatsTail {
    shared: Arc<SharedIndex>,
    notifier: watch::Receiver<()>,
    seen: Seen,
}

impl NatsTail {
    pub(crate) fn new(shared: Arc<SharedIndex>) -> (Cursor, Self) {
        let notifier = shared.listen();
        let seen = shared.state().index.seen();
        (seen.cursor, Self { shared, notifier, seen })
    }
}

#[async_trait]
impl Tail for NatsTail {
    async fn next(&mut self, bytes_max: usize) -> Option<TailItem> {
        loop {
            // The notifier is reset before the index is read: any later change fires it again.
            self.notifier.mark_unchanged();
            let is_closed = self.shared.is_closed();
            let followed = self.shared.state_now().index.follow(self.seen, bytes_max);
            let candidates = match followed {
                Followed::Item(item, seen) => {
                    self.seen = seen;
                    return Some(item);
                }
                Followed::Nothing if is_closed => return None,
                Followed::Nothing => {
                    self.notifier.changed().await.ok()?;
                    continue;
                }
                Followed::Events(candidates) => candidates,
            };
            let found = if candidates.iter().all(|one| one.entry.is_some()) {
                FetchOutcome::All(candidates.into_iter().filter_map(|one| one.entry).collect())
            } else {
                let asked = async { fetch(&self.shared, &*self.shared.trusted()?, &candidates).await };
                match asked.await {
                    Ok(found) => found,
                    Err(_) if is_closed => return None,
                    Err(_) => {
                        // While the server is unavailable a tail waits.
                        tokio::select! {
                            _ = self.notifier.changed() => {}
                            () = sleep(RETRY_WAIT) => {}
                        }
                        continue;
                    }
                }
            };
            match found {
                FetchOutcome::All(entries) => {
                    self.seen.cursor.position = entries.last()?.cursor.position;
                    return Some(TailItem::Entries(entries));
                }
                FetchOutcome::Missing(numbers) => self.shared.state().index.hide_all(&numbers),
            }
        }
    }
}
