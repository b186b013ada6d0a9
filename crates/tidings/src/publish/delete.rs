//! Deletes events from the log and from everything that was copied from it.
//!
//! The feeds and the pages of history are caches of the log, so a new subscriber could find an
//! event there that the log no longer has. The [tail](tidings_log::Tail) reports a deletion at its
//! place in the order of events, and the writer clears the caches at that place. The deleting call
//! waits for it: when it returns, this process delivers the deleted events to no new subscriber.
//! Other hubs on the same log follow as fast as their tails.

use std::time::Duration;

use tidings_topic::{Grants, Topic};
use tokio::time::timeout;

use crate::{error::Error, hub::Hub, publish::closed};

/// How long a deletion that the log has carried out waits for the caches at most. The writer needs
/// as long as a publication takes to arrive. Beyond this time it is disconnected from the log, and
/// clears its caches when it reconnects.
const CACHES_WAIT: Duration = Duration::from_secs(5);

impl Hub {
    /// Deletes every event that has this topic, as its canonical topic or as an alternate one, and
    /// returns how many there were. No subscriber receives them any more, by any path or id. A
    /// subscriber that has not received them yet gets a gap notice. Events that are published
    /// afterwards are not affected.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tidings::Error> {
    /// # use tidings::{Hub, NewEvent};
    /// # let hub = Hub::in_memory().await;
    /// hub.publish(NewEvent::new("user-42", "your code is 1234").private()).await?;
    /// assert_eq!(hub.delete("user-42").await?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if no event can have this topic, [`Error::Closed`], and
    /// [`Error::Unavailable`] if the log cannot be reached.
    pub async fn delete(&self, topic: &str) -> Result<u64, Error> {
        let topic = self.validator().topic(topic)?;
        Ok(self.delete_covered(&topic, &Grants::all()).await?.deleted)
    }

    /// The same, only for those events whose topics are all covered by these grants. The others are
    /// kept.
    #[doc(hidden)]
    pub async fn delete_covered(&self, topic: &Topic, grants: &Grants) -> Result<Deletion, Error> {
        let state = &self.state;
        if state.engine.is_closed() {
            return Err(closed(state));
        }
        let deleted = state.log.delete(topic, grants).await?;
        if deleted.count > 0 && timeout(CACHES_WAIT, state.deletions.reach(deleted.serial)).await.is_err() {
            tracing::warn!(
                "the fan-out has not processed a deletion yet; new subscribers may still receive deleted events"
            );
        }
        Ok(Deletion { deleted: deleted.count, kept: deleted.kept })
    }
}

/// The outcome of a deletion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Deletion {
    /// How many events were deleted.
    pub deleted: u64,
    /// How many events of the topic were kept, because they also have a topic that the grants do
    /// not cover.
    pub kept: u64,
}
