//! Deleting: out of the log, and out of everything that was copied from it.
//!
//! The feeds and the pages of history are caches of the log, so a new_reader could find there what the log has no more. The [tail](tidings_log::Tail)
//! tells of a deletion between what it brought before and what it brings after, and the one writer gives up the caches at that place.
//! Who deletes waits for it: when the call returns, nobody who comes is given what was deleted, in this process. Other hubs on the
//! same log follow as fast as their tails.

use std::time::Duration;

use tidings_topic::{Grants, Topic};
use tokio::{sync::watch, time::timeout};

use crate::{PublishError, hub::Hub, publish::closed};

/// How long a deletion, which the log has carried out, waits for the caches at most. The writer needs as long as a publication takes to arrive;
/// beyond this time it is cut off from the log, and gives up its caches when it is back.
const CACHES_WAIT: Duration = Duration::from_secs(5);

impl Hub {
    /// Deletes every event that bears this topic, as its first or as another, and returns how many there were. Nobody receives them any more,
    /// by no path and no id; the one that has not received them yet gets a gap notice. Events that are published afterwards are not affected.
    pub async fn delete(&self, topic: &Topic) -> Result<u64, PublishError> {
        Ok(self.delete_covered(topic, &Grants::all()).await?.deleted)
    }

    /// The same for those events of which these grants cover every topic. The others stay.
    pub async fn delete_covered(&self, topic: &Topic, grants: &Grants) -> Result<Deletion, PublishError> {
        let shared = &self.shared;
        if shared.is_closed() {
            return Err(closed(shared));
        }
        let deleted = shared.log.delete(topic, grants).await?;
        if deleted.count > 0 && timeout(CACHES_WAIT, shared.deletions.reach(deleted.serial)).await.is_err() {
            tracing::warn!(
                "the fan-out has not received of a deletion yet; newcomers may still be given what was deleted"
            );
        }
        Ok(Deletion { deleted: deleted.count, kept: deleted.kept })
    }
}

/// What a deletion did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Deletion {
    /// How many events it deleted.
    pub deleted: u64,
    /// How many events of the topic stay, because they also bear a topic that the grants do not cover.
    pub kept: u64,
}

/// Up to which deletion the caches of this hub hold nothing that was deleted.
#[derive(Debug)]
pub(crate) struct Deletions(watch::Sender<u64>);

impl Default for Deletions {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Deletions {
    /// The caches were given up for this deletion and those before it.
    pub(crate) fn reached(&self, serial: u64) {
        self.0.send_replace(serial);
    }

    /// No deletion will be received of any more, and nothing is cached.
    pub(crate) fn close(&self) {
        self.reached(u64::MAX);
    }

    async fn reach(&self, serial: u64) {
        self.0.subscribe().wait_for(|reached| *reached >= serial).await.expect("the sender is borrowed");
    }
}
