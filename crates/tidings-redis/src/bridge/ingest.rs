//! From the inbox into the hub: decode, check, publish, in order.
//!
//! Messages are published in batches, so that a log that waits for a disk or a network waits once
//! for all that arrived in the meantime. A batch that the hub cannot accept now is offered again
//! until it does, always under the same idempotency key, so that an unknown outcome becomes known
//! and nothing is duplicated. A message that can never be accepted is counted, and the next ones
//! continue.

use std::{convert::Infallible, time::Duration};

use tidings_log::{Event, IdempotencyKey};
use tidings_net::Backoff;

use super::{hub_access::NotTaken, inbox::Message, state::BridgeState};

/// Most messages of one batch.
const BATCH_MESSAGES_MAX: usize = 256;
/// Bytes of one batch, unless a single message has more.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// How long to wait before a batch is offered again.
const RETRY: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));

/// Publishes queued messages, forever.
pub(super) async fn ingest(shared: &BridgeState) -> Infallible {
    let mut keys = Keys::new();
    loop {
        let messages = shared.inbox.take(BATCH_MESSAGES_MAX, BATCH_BYTES_MAX).await;
        let mut parts: Vec<_> = messages.iter().map(|message| events(shared, message)).collect();
        parts.retain(|events| !events.is_empty());
        if parts.is_empty() || offer(shared, parts.concat(), keys.next()).await.is_ok() {
            continue;
        }
        // It was all or nothing. A log without capacity for all of them may have some for one.
        for events in parts {
            if let Err(reason) = offer(shared, events, keys.next()).await {
                shared.refuse(|counts| &mut counts.no_room, &reason);
            }
        }
    }
}

/// The valid events of a message: all of them, or none.
fn events(shared: &BridgeState, message: &Message) -> Vec<Event> {
    let settings = &shared.settings;
    let mut new = match settings.format.decode(&message.channel, &message.payload) {
        Ok(new) => new,
        Err(problem) => {
            shared.refuse(|counts| &mut counts.undecodable, &problem);
            return Vec::new();
        }
    };
    // In a format whose messages share one channel, some may be for other bridges.
    new.retain(|event| event.topics.iter().any(|topic| settings.covers(topic)));
    if settings.both_ways {
        for event in &mut new {
            shared.mark.put_on(event);
        }
    }
    let checked: Result<Vec<_>, _> = new.into_iter().map(|event| shared.hub.check(event)).collect();
    checked.unwrap_or_else(|problem| {
        shared.refuse(|counts| &mut counts.invalid, &problem);
        Vec::new()
    })
}

/// Offers events until they are published, or refused for good.
async fn offer(shared: &BridgeState, events: Vec<Event>, key: IdempotencyKey) -> Result<(), String> {
    let mut retry = RETRY;
    loop {
        match shared.hub.publish(events.clone(), key.clone()).await {
            Ok(()) => {
                shared.counts.add(|counts| &mut counts.published, events.len());
                return Ok(());
            }
            Err(NotTaken::Never(reason)) => return Err(reason),
            Err(NotTaken::Now(reason)) => {
                if let Some(times) = shared.waiting.add() {
                    tracing::warn!(bridge = %shared.settings, %reason, times, "messages are queued: the hub accepts no events");
                }
                tokio::time::sleep(retry.failed()).await;
            }
        }
    }
}

/// Unique idempotency keys for batches.
struct Keys {
    run: u128,
    number: u64,
}

impl Keys {
    fn new() -> Self {
        let mut random = [0; 16];
        getrandom::fill(&mut random).expect("the system gives random numbers");
        Self { run: u128::from_be_bytes(random), number: 0 }
    }

    fn next(&mut self) -> IdempotencyKey {
        self.number += 1;
        IdempotencyKey::new(&format!("bridge-{:032x}-{}", self.run, self.number)).expect("visible ASCII")
    }
}
