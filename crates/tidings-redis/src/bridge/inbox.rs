//! Messages that have been received and are not in the log yet.
//!
//! Redis pub/sub does not wait for its subscribers, so the listener has to take what arrives at
//! once. While the hub accepts no events, because its log is unavailable or overloaded, messages
//! are queued here; a message that does not fit is dropped, and the caller counts it.

use std::{collections::VecDeque, sync::Mutex};

use tidings_log::parts::lock;
use tokio::sync::Notify;

/// What a message takes on top of its own bytes, approximately.
const OVERHEAD_BYTES: usize = 96;

/// A message of a channel, as received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Message {
    pub(super) channel: String,
    pub(super) payload: Vec<u8>,
}

impl Message {
    fn bytes(&self) -> usize {
        OVERHEAD_BYTES + self.channel.len() + self.payload.len()
    }
}

#[derive(Debug)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    bytes_max: usize,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Message>,
    bytes: usize,
}

impl Inbox {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { waiting: Mutex::default(), bytes_max, arrived: Notify::new() }
    }

    /// Takes a message if it fits. An empty inbox takes any message.
    pub(super) fn push(&self, message: Message) -> bool {
        let mut waiting = lock(&self.waiting);
        let bytes = waiting.bytes + message.bytes();
        if bytes > self.bytes_max && !waiting.messages.is_empty() {
            return false;
        }
        waiting.bytes = bytes;
        waiting.messages.push_back(message);
        drop(waiting);
        self.arrived.notify_one();
        true
    }

    /// The oldest messages, at most this many, and of at most this many bytes unless a single one
    /// has more. Waits until there is one.
    pub(super) async fn take(&self, count_max: usize, bytes_max: usize) -> Vec<Message> {
        loop {
            let arrived = self.arrived.notified();
            let taken = self.take_now(count_max, bytes_max);
            if !taken.is_empty() {
                return taken;
            }
            arrived.await;
        }
    }

    fn take_now(&self, count_max: usize, bytes_max: usize) -> Vec<Message> {
        let mut waiting = lock(&self.waiting);
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(next) = waiting.messages.front() {
            let next_bytes = next.bytes();
            let fits = bytes + next_bytes <= bytes_max || taken.is_empty();
            if taken.len() >= count_max || !fits {
                break;
            }
            bytes += next_bytes;
            taken.extend(waiting.messages.pop_front());
        }
        waiting.bytes -= bytes;
        taken
    }

    /// Bytes that are queued.
    pub(super) fn bytes(&self) -> usize {
        lock(&self.waiting).bytes
    }
}

#[cfg(test)]
mod tests {
    use polling::now_or_never;

    use super::*;

    /// A single poll, which is all that these tests need.
    mod polling {
        use std::{
            pin::pin,
            task::{Context, Poll, Waker},
        };

        pub(super) fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
            match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(value) => Some(value),
                Poll::Pending => None,
            }
        }
    }

    fn message(payload: &str) -> Message {
        Message { channel: "chat".to_owned(), payload: payload.into() }
    }

    #[test]
    fn messages_are_taken_in_order_and_in_portions() {
        let inbox = Inbox::new(10_000);
        for payload in ["one", "two", "three"] {
            assert!(inbox.push(message(payload)));
        }
        let two = now_or_never(inbox.take(2, 10_000));
        assert_eq!(two, Some(vec![message("one"), message("two")]));
        assert!(inbox.push(message("four")));
        assert_eq!(
            now_or_never(inbox.take(9, 1)),
            Some(vec![message("three")]),
            "one is taken, whatever its size"
        );
        assert_eq!(now_or_never(inbox.take(9, 10_000)), Some(vec![message("four")]));
        assert_eq!((now_or_never(inbox.take(9, 10_000)), inbox.bytes()), (None, 0));
    }

    #[test]
    fn a_message_that_does_not_fit_is_refused_and_costs_nothing() {
        let inbox = Inbox::new(2 * message("1234").bytes());
        assert!(inbox.push(message("1234")) && inbox.push(message("1234")));
        let full = inbox.bytes();
        assert!(!inbox.push(message("5")));
        assert_eq!(inbox.bytes(), full);
        now_or_never(inbox.take(2, 10_000)).unwrap();
        assert!(inbox.push(message(&"x".repeat(10_000))), "an empty inbox takes any message");
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken_by_a_message() {
        let inbox = std::sync::Arc::new(Inbox::new(1_000));
        let taking = tokio::spawn({
            let inbox = std::sync::Arc::clone(&inbox);
            async move { inbox.take(1, 1_000).await }
        });
        inbox.push(message("here"));
        assert_eq!(taking.await.unwrap(), [message("here")]);
    }
}
