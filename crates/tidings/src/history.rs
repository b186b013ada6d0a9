//! The newest events of a hub, for a page that shows them and continues with its stream.

use std::sync::Arc;

use tidings_log::Cursor;
use tidings_topic::EventId;

use crate::{error::Error, hub::Hub, subscriber::subscribe::Subscribe};

impl Hub {
    /// The newest events that a subscription to these topics would have received, at most `count`,
    /// oldest first, and the end of the log. Subscribe [since](crate::Since::Id) this end, and no
    /// event is missed between the two.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tidings::Error> {
    /// use tidings::{Hub, NewEvent, Since, Subscribe};
    ///
    /// let hub = Hub::in_memory().await;
    /// hub.publish(NewEvent::new("chat", "hello")).await?;
    /// let past = hub.last_events(50, "chat").await?;
    /// assert_eq!(past.entries[0].event.data, "hello");
    /// let rest = Subscribe::topics(["chat"]).since(Since::Id(past.end.to_string()));
    /// let subscription = hub.subscribe(rest).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn last_events(&self, count: usize, of: impl Into<Subscribe>) -> Result<Snapshot, Error> {
        let filter = of.into().check(self).await?.filter;
        let page = self.state.log.last(count, &filter, SNAPSHOT_BYTES_MAX).await?;
        let end = Cursor { epoch: page.epoch, position: page.through };
        Ok(Snapshot { entries: page.entries, end: end.to_event_id() })
    }
}

/// Bytes of the log that a snapshot searches at most.
const SNAPSHOT_BYTES_MAX: usize = 1 << 20;

/// The newest events, and the end of the log when they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The events, oldest first.
    pub entries: Vec<Arc<tidings_log::Entry>>,
    /// The end of the log as a generated id.
    pub end: EventId,
}
