//! Ephemeral events between hubs: a broadcast of the [cluster](tidings_log::cluster::Cluster), at
//! most once and without any order relative to the log.
//!
//! Events that wait for the broadcast share a message:
//!
//! ```text
//! version u8 | hub 16 bytes | events as a log stores them
//! ```
//!
//! The hub is the one that sends, at random for each start, and ignores its own messages.

use std::sync::Arc;

use tidings_log::codec::{Fields, push_event};
use tidings_topic::{Event, StoredEvent};

use super::ephemeral::{HubNumber, LiveEvent};
use crate::hub::HubState;

/// Where hubs send and listen.
pub(crate) const CHANNEL: &str = "ephemeral";
/// The first byte of a message. A hub ignores what it does not understand.
const VERSION: u8 = 1;
/// A message has so many bytes of events at most, or one event.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// An event for a message. None if it has more topics than can be written.
pub(crate) fn encode(event: &Event) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    push_event(&mut bytes, &StoredEvent::of(event), None)?;
    Some(bytes)
}

/// The events of a message from another hub: each of them, or none where it is invalid. Nothing for
/// a message that is our own or of another version.
fn decode(message: &[u8], own: HubNumber) -> Vec<Option<Event>> {
    let mut fields = Fields(message);
    let of_another_hub =
        fields.read::<u8>() == Some(VERSION) && fields.bytes(own.len()).is_some_and(|hub| hub != own);
    let mut events = Vec::new();
    while of_another_hub && !fields.0.is_empty() {
        let event = fields.event();
        if event.is_none() {
            // Where the next one begins is unknown.
            fields = Fields(&[]);
        }
        let mut event = event.and_then(|(event, _)| event.restore());
        if let Some(event) = &mut event {
            event.ephemeral = true;
        }
        events.push(event);
    }
    events
}

/// Sends what waits for the broadcast, for as long as the hub runs.
pub(crate) async fn send(state: Arc<HubState>) {
    let Some(outgoing) = &state.ephemeral.outgoing else { return };
    let mut has_failed = false;
    loop {
        outgoing.arrived().await;
        loop {
            let events = outgoing.take_while(MESSAGE_BYTES_MAX, |_| true);
            if events.is_empty() {
                break;
            }
            let message = [&[VERSION], &state.ephemeral.hub[..], &events.concat()].concat();
            let sent = state.cluster.send(CHANNEL, &message).await;
            if let Err(error) = &sent {
                state.ephemeral.count_dropped(events.len());
                if !has_failed {
                    tracing::warn!(%error, "ephemeral events do not reach the other hubs");
                }
            }
            has_failed = sent.is_err();
        }
    }
}

/// Delivers what another hub has sent.
pub(crate) fn deliver(state: &Arc<HubState>, message: &[u8]) {
    for event in decode(message, state.ephemeral.hub) {
        match event {
            Some(mut event) => {
                // The topics that are private are a setting of each hub.
                event.private |= state.are_private(&event.topics);
                state.ephemeral.deliver(LiveEvent { event, after: None });
            }
            None => state.ephemeral.count_dropped(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings_topic::{ConnectionId, NewEvent, Validator};

    use super::*;

    const OWN: HubNumber = [1; 16];
    const OTHER: HubNumber = [2; 16];

    fn event(new: NewEvent) -> Event {
        Validator::default().event(new.ephemeral()).expect("valid")
    }

    fn message(version: u8, hub: HubNumber, events: &[Event]) -> Vec<u8> {
        let events: Vec<_> = events.iter().map(|event| encode(event).expect("few topics")).collect();
        [&[version], &hub[..], &events.concat()].concat()
    }

    #[test]
    fn events_arrive_as_they_were_sent() {
        let except = ConnectionId::from_random([7; 16]);
        let full = NewEvent::new("a", "x\ny").also("b").event_type("typing").retry_millis(700).private();
        let events = [event(full.except(except)), event(NewEvent::new("c", ""))];
        let received = decode(&message(VERSION, OTHER, &events), OWN);
        assert_eq!(received, events.map(Some));
    }

    #[test]
    fn own_messages_and_those_of_other_versions_are_ignored() {
        let events = [event(NewEvent::new("a", "x"))];
        assert!(decode(&message(VERSION, OWN, &events), OWN).is_empty());
        assert!(decode(&message(VERSION + 1, OTHER, &events), OWN).is_empty());
        for length in 0..17 {
            assert!(decode(&message(VERSION, OTHER, &events)[..length], OWN).is_empty(), "{length}");
        }
    }

    #[test]
    fn what_no_hub_can_have_sent_is_dropped_and_counted() {
        let good = event(NewEvent::new("a", "x"));
        let mut forged = Vec::new();
        let notice = StoredEvent { event_type: Some("tidings"), ..StoredEvent::of(&good) };
        push_event(&mut forged, &notice, None).expect("few topics");
        let whole = message(VERSION, OTHER, std::slice::from_ref(&good));
        let message = [&whole[..], &forged, &encode(&good).expect("few topics"), &[0, 1]].concat();
        assert_eq!(decode(&message, OWN), [Some(good.clone()), None, Some(good), None]);
    }
}
