//! Publishing: from valid events to their places in the log.
//!
//! A publisher is answered when its events are in the log. What the fan-out does with them comes after, and reaches back to publishers in one way
//! only: [`Pressure`](crate::pressure::Pressure).

use std::sync::atomic::Ordering;

use tidings_log::{AppendError, Appended, Batch, IdempotencyKey};
use tidings_topic::{Event, EventId, Invalid, NewEvent};

use crate::hub::Hub;

impl Hub {
    /// Publishes one event. When this returns, the event is in the log.
    pub async fn publish(&self, event: NewEvent) -> Result<Published, PublishError> {
        let event = self.shared.validator.event(event)?;
        let mut published = self.publish_events(vec![event], None).await?;
        Ok(published.pop().expect("one event, one answer"))
    }

    /// Publishes valid events, all or nothing and in this order. A repeat of a key within the log's window publishes nothing and returns
    /// the first id again.
    pub async fn publish_events(
        &self,
        mut events: Vec<Event>,
        key: Option<IdempotencyKey>,
    ) -> Result<Vec<Published>, PublishError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let shared = &self.shared;
        if shared.is_closed() {
            return Err(PublishError::Unavailable("the hub is shutting down".to_owned()));
        }
        for event in &mut events {
            event.private |= self.are_private(&event.topics);
        }
        let bytes = events.iter().map(|event| event.memory_bytes() as u64).sum();
        let subscribers: Vec<_> =
            events.iter().map(|event| shared.feeds.reader_count(&event.topics)).collect();
        let _turn = shared.pressure.enter(bytes).ok_or(PublishError::Overloaded)?;
        shared.pressure.wait_for_fan_out().await;
        shared.lag.wait_until_below(shared.lag_bytes_max).await;
        match shared.log.append(Batch { events, key }).await? {
            Appended::New { ids, last } => {
                shared.published.fetch_add(ids.len() as u64, Ordering::Relaxed);
                shared.pressure.appended(last, bytes, || shared.feeds.head());
                let pairs = ids.into_iter().zip(subscribers);
                Ok(pairs.map(|(id, subscribers)| Published { id, subscribers, duplicate: false }).collect())
            }
            Appended::Duplicate { first_id } => {
                Ok(vec![Published { id: first_id, subscribers: 0, duplicate: true }])
            }
        }
    }
}

/// What became of one event.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Published {
    /// The id that subscribers see.
    pub id: EventId,
    /// How many subscriptions in this process it reaches, before grants are looked at.
    pub subscribers: usize,
    /// It had been published before, with the same idempotency key; the id is the one of then.
    pub duplicate: bool,
}

/// Why an event was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The event is not valid. The publisher has to change it.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// More is being published than the log takes in: nothing was appended. Try again a little later.
    #[error("too many events are being published at once; try again in a moment")]
    Overloaded,
    /// The log has no room: nothing was appended.
    #[error("{0}")]
    Full(String),
    /// The log cannot be reached: nothing was appended. Try again later.
    #[error("{0}")]
    Unavailable(String),
    /// It may or may not have been published. Sending it again with the same idempotency key settles it.
    #[error("{0}")]
    OutcomeUnknown(String),
}

impl From<AppendError> for PublishError {
    fn from(error: AppendError) -> Self {
        let text = error.to_string();
        match error {
            AppendError::Full(_) => Self::Full(text),
            AppendError::OutcomeUnknown(_) => Self::OutcomeUnknown(text),
            _ => Self::Unavailable(text),
        }
    }
}
