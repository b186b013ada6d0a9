//! The plain records of the engine: one per subscriber, one per publisher, and what is published.

use std::os::fd::OwnedFd;

use crate::mark::Carry;

/// One stream. Rarely used state is kept elsewhere, by the number of the subscriber.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) socket: Option<OwnedFd>,
    pub(super) topic: u32,
    pub(super) phase: SubscriberPhase,
    /// Whether it reads nothing.
    pub(super) frozen: bool,
    pub(super) receive_buffer_bytes: Option<usize>,
    /// How it sends the id of the last event that it received.
    pub(super) way: usize,
    /// When its stream began.
    pub(super) streaming_since_nanos: u64,
    pub(super) carry: Carry,
}

/// How a subscriber disconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The connection is closed.
    Close,
    /// The connection is reset, as when a machine vanishes.
    Reset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubscriberPhase {
    Waiting,
    Connecting,
    /// Connected, but does not send its request yet.
    Connected,
    /// The request was sent.
    Head,
    Streaming,
    Ended,
}

/// The kind of a subscriber.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manner {
    /// Parses events and remembers ids, so that it can resume.
    pub(crate) careful: bool,
    /// Its SO_RCVBUF, set before it connects.
    pub(crate) receive_buffer_bytes: Option<usize>,
}

/// The events to publish.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    pub(crate) events: u64,
    /// The topics, published to in rotation.
    pub(crate) topics: u32,
    /// Events per second; without it, each publisher continues as soon as it gets an answer.
    pub(crate) rate: Option<f64>,
    pub(crate) payload_bytes: usize,
    pub(crate) private: bool,
    pub(super) issued: u64,
    pub(super) answered: u64,
    pub(super) began_nanos: u64,
}

impl Load {
    pub(crate) fn new(events: u64, topics: u32, rate: Option<f64>, payload_bytes: usize) -> Self {
        Self { events, topics, rate, payload_bytes, ..Self::default() }
    }

    /// When the next event is to be published; none if there is no other.
    pub(super) fn next_due(&self) -> Option<u64> {
        if self.issued >= self.events {
            return None;
        }
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let after = |rate: f64| (self.issued as f64 * 1e9 / rate) as u64;
        Some(self.began_nanos + self.rate.map_or(0, after))
    }
}

#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) socket: Option<OwnedFd>,
    pub(super) phase: PublisherPhase,
    pub(super) request: Vec<u8>,
    pub(super) reply: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PublisherPhase {
    Connecting,
    Idle,
    Sending { sent: usize, since_nanos: u64 },
    Waiting { since_nanos: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_due_at_their_rate() {
        let mut load = Load::new(3, 1, Some(10.0), 128);
        load.began_nanos = 5;
        let mut due = Vec::new();
        while let Some(next) = load.next_due() {
            due.push(next);
            load.issued += 1;
        }
        assert_eq!(due, [5, 100_000_005, 200_000_005]);
    }
}
