//! Publishing: from valid events to their positions in the log.
//!
//! A publisher is answered when its events are in the log. The fan-out comes after that, and
//! affects publishers in one way only: [`Pressure`](crate::publish::pressure::Pressure). An append that has
//! begun runs to completion, also when the publisher does not wait for it
//! ([`committer`]). [Ephemeral](ephemeral) events bypass the log, and their publishers never wait.

pub(crate) mod broadcast;
pub(crate) mod committer;
pub(crate) mod delete;
pub(crate) mod deletions;
pub(crate) mod ephemeral;
pub(crate) mod pressure;
pub(crate) mod queue;

use std::sync::atomic::Ordering;

use tidings_log::{Appended, Batch, IdempotencyKey};
use tidings_topic::{Event, EventId, NewEvent};

use self::ephemeral::{Ephemeral, LiveEvent};
use crate::{
    error::Error,
    hub::{Hub, HubState},
};

impl Hub {
    /// Publishes one event. When this returns, the event is in the log, unless it is
    /// [ephemeral](NewEvent::ephemeral()): then it is on its way to those who are connected.
    ///
    /// With an idempotency [key](NewEvent::key) it can be repeated: a repeat within the log's window
    /// publishes nothing and returns the id of the first publication.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tidings::Error> {
    /// use tidings::{Hub, NewEvent};
    ///
    /// let hub = Hub::in_memory().await;
    /// let shipped = NewEvent::new("orders", "order 42 was shipped").key("shipped-42");
    /// let first = hub.publish(shipped.clone()).await?;
    /// let repeat = hub.publish(shipped).await?;
    /// assert!(repeat.duplicate && repeat.id == first.id);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish(&self, event: NewEvent) -> Result<Published, Error> {
        let mut published = self.publish_batch([event]).await?;
        Ok(published.pop().expect("one event, one answer"))
    }

    /// Publishes events together, all or nothing and in this order. The key of the first event is
    /// the key of the batch; a repeat returns one answer, with the first id.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tidings::Error> {
    /// # use tidings::{Hub, NewEvent};
    /// # let hub = Hub::in_memory().await;
    /// let words = ["to", "be", "or", "not"].map(|word| NewEvent::new("answer", word));
    /// assert_eq!(hub.publish_batch(words).await?.len(), 4);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish_batch(
        &self,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> Result<Vec<Published>, Error> {
        let mut valid = Vec::new();
        let mut batch_key = None;
        for mut event in events {
            if let Some(text) = event.key.take() {
                let key = IdempotencyKey::new(&text).filter(|_| valid.is_empty());
                batch_key = Some(key.ok_or(Error::Key)?);
            }
            valid.push(self.state.validator.event(event)?);
        }
        self.publish_events(valid, batch_key).await
    }

    /// Publishes events that are valid already.
    #[doc(hidden)]
    pub async fn publish_events(
        &self,
        mut events: Vec<Event>,
        key: Option<IdempotencyKey>,
    ) -> Result<Vec<Published>, Error> {
        let state = &self.state;
        if state.engine.is_closed() {
            return Err(closed(state));
        }
        for event in &mut events {
            event.private |= self.are_private(&event.topics);
        }
        if !events.iter().any(|event| event.ephemeral) {
            return self.store(events, key).await;
        }
        let order: Vec<_> = events.iter().map(|event| event.ephemeral).collect();
        let (ephemeral, stored): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event.ephemeral);
        if stored.is_empty() && key.is_some() {
            return Err(Error::EphemeralWithKey);
        }
        let published = self.store(stored, key).await?;
        if published.iter().any(|published| published.duplicate) {
            return Ok(published);
        }
        self.publish_ephemeral(ephemeral);
        let mut published = published.into_iter();
        let receipts = order.into_iter().map(|is_ephemeral| {
            if is_ephemeral { Published::EPHEMERAL } else { published.next().expect("one for each") }
        });
        Ok(receipts.collect())
    }

    fn publish_ephemeral(&self, events: Vec<Event>) {
        let state = &self.state;
        let Ephemeral { outgoing, .. } = &state.ephemeral;
        state.published.fetch_add(events.len() as u64, Ordering::Relaxed);
        for event in events {
            if let Some(outgoing) = outgoing {
                match broadcast::encode(&event) {
                    Some(encoded) => state.ephemeral.send(outgoing, encoded),
                    None => state.ephemeral.count_dropped(1),
                }
            }
            state.ephemeral.deliver(LiveEvent { event, after: state.pressure.newest() });
        }
    }

    /// Appends events to the log.
    async fn store(&self, events: Vec<Event>, key: Option<IdempotencyKey>) -> Result<Vec<Published>, Error> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let state = &self.state;
        let bytes = events.iter().map(|event| event.memory_bytes() as u64).sum();
        let permit = state.pressure.enter(bytes).ok_or(Error::Overloaded)?;
        state.pressure.wait_for_fan_out().await;
        state.engine.lag.wait_until_below(state.lag_bytes_max).await;
        if state.engine.failure().is_some() {
            // The hub has failed while this publisher waited for the fan-out.
            return Err(closed(state));
        }
        match state.append(Batch { events, key }, permit).await? {
            Appended::New { ids, .. } => {
                Ok(ids.into_iter().map(|id| Published { id: Some(id), duplicate: false }).collect())
            }
            Appended::Duplicate { first_id } => Ok(vec![Published { id: Some(first_id), duplicate: true }]),
        }
    }
}

pub(crate) fn closed(state: &HubState) -> Error {
    state.engine.failure().map_or(Error::Closed, |reason| Error::Failed(reason.to_owned()))
}

/// The outcome of one event.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Published {
    /// The id that subscribers see. None for an ephemeral event, which has none of its own: each hub
    /// sends it with the id of the newest position of the log.
    pub id: Option<EventId>,
    /// It had been published before, with the same idempotency key; the id is that of the first
    /// publication.
    pub duplicate: bool,
}

impl Published {
    const EPHEMERAL: Self = Self { id: None, duplicate: false };
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use proptest::prelude::*;
    use tidings_delayed_log::{DelayedLog, Faults};
    use tidings_log::{Filter, Log, MemoryLimits, Position};
    use tokio::time::{Instant, sleep_until};

    use super::*;

    const LATENCY_MAX: Duration = Duration::from_millis(100);

    fn event(number: usize) -> NewEvent {
        NewEvent::new("chat", "x".repeat(number))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The log cannot be followed any more from some moment on, and every publisher disconnects
        /// at some moment: before its batch is in the log, while the answer is on its way, or
        /// afterwards.
        #[test]
        fn a_batch_counts_as_lag_whether_or_not_its_publisher_waits(
            seed in any::<u64>(),
            patience_millis in prop::collection::vec(0..250_u64, 1..8),
            follows_for_millis in 0..150_u64,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            let (counted, lagging) = runtime.expect("a runtime").block_on(async {
                let faults = Faults { latency_max: LATENCY_MAX, ..Faults::default() };
                let log = Arc::new(DelayedLog::new(seed, faults, MemoryLimits::default()));
                let hub = Hub::builder().log(Arc::clone(&log) as Arc<dyn Log>).start().await.expect("there");
                let began = Instant::now();
                for (number, millis) in patience_millis.into_iter().enumerate() {
                    let hub = hub.clone();
                    tokio::spawn(async move {
                        let patience = sleep_until(began + Duration::from_millis(millis));
                        tokio::select! {
                            published = hub.publish(event(number)) => drop(published),
                            () = patience => {}
                        }
                    });
                }
                sleep_until(began + Duration::from_millis(follows_for_millis)).await;
                log.go_down();
                sleep_until(began + Duration::from_secs(10)).await;
                let (counted, head) = (hub.stats().fan_out_lag_bytes, hub.state.engine.feeds.head().log.position);
                prop_assert!(hub.state.pressure.enter(u64::MAX).is_some(), "a permit was not given back");
                log.come_back();
                let all = log.read(Position::BEFORE_ALL, &Filter::everything_public(), usize::MAX).await;
                let entries = all.expect("there").entries;
                let lagging = entries.iter().filter(|entry| entry.cursor.position > head);
                Ok((counted, lagging.map(|entry| entry.event.memory_bytes() as u64).sum::<u64>()))
            })?;
            prop_assert_eq!(counted, lagging);
        }
    }
}
