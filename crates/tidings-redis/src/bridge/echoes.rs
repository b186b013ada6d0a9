//! What this process has published and not yet received back.
//!
//! Redis sends a published message to all subscribers, its publisher included, and a plain message
//! carries only its text. So the bridge counts what it sends, by channel and text, and takes as
//! many identical messages for its own. If another client publishes the same text in the meantime,
//! there are two identical messages and one is taken: the number is right, whichever one it was.
//!
//! A value belongs to one connection, on which what was sent comes back: when the connection ends,
//! the rest is forgotten.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    sync::Mutex,
    time::Duration,
};

use tidings_log::parts::lock;
use tokio::time::Instant;

/// Most messages that are awaited. The bridge waits for the reply to each batch, and what it sent
/// comes back before or right after: there are never more than a batch or two. Beyond that, the
/// oldest are forgotten and would be taken for messages of other clients.
const ECHOES_MAX: usize = 65_536;
/// How long a message that does not come back is awaited.
const ECHO_TIME_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Echoes {
    hasher: RandomState,
    expected: Mutex<Expected>,
}

#[derive(Debug, Default)]
struct Expected {
    counts: HashMap<u64, u32>,
    order: VecDeque<(Instant, u64)>,
}

impl Echoes {
    /// Records a message that is about to be sent.
    pub(super) fn expect(&self, channel: &str, payload: &[u8]) {
        let print = self.hasher.hash_one((channel, payload));
        let now = Instant::now();
        let mut expected = lock(&self.expected);
        let is_old = |(sent, _): &(Instant, u64)| now.duration_since(*sent) > ECHO_TIME_MAX;
        while expected.order.len() >= ECHOES_MAX || expected.order.front().is_some_and(is_old) {
            let Some((_, print)) = expected.order.pop_front() else { break };
            expected.take(print);
        }
        *expected.counts.entry(print).or_default() += 1;
        expected.order.push_back((now, print));
    }

    /// Whether a received message is one that was sent. True once for each.
    pub(super) fn is_own(&self, channel: &str, payload: &[u8]) -> bool {
        let print = self.hasher.hash_one((channel, payload));
        let mut expected = lock(&self.expected);
        if !expected.take(print) {
            return false;
        }
        // Messages come back in the order in which they were sent, so this is the first, or nearly.
        if let Some(at) = expected.order.iter().position(|(_, sent)| *sent == print) {
            expected.order.remove(at);
        }
        true
    }
}

impl Expected {
    fn take(&mut self, print: u64) -> bool {
        let Entry::Occupied(mut count) = self.counts.entry(print) else { return false };
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_sent_message_is_recognised_once() {
        let echoes = Echoes::default();
        for _ in 0..2 {
            echoes.expect("chat", b"hi");
        }
        assert!(!echoes.is_own("news", b"hi") && !echoes.is_own("chat", b"ho"));
        assert!(echoes.is_own("chat", b"hi") && echoes.is_own("chat", b"hi"));
        assert!(!echoes.is_own("chat", b"hi"), "this one is from another client");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_never_returns_is_forgotten() {
        let echoes = Echoes::default();
        echoes.expect("chat", b"lost");
        tokio::time::advance(ECHO_TIME_MAX + Duration::from_secs(1)).await;
        echoes.expect("chat", b"other");
        assert!(!echoes.is_own("chat", b"lost") && echoes.is_own("chat", b"other"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_awaited_messages_is_bounded() {
        let echoes = Echoes::default();
        for number in 0..=ECHOES_MAX {
            echoes.expect("chat", &number.to_be_bytes());
        }
        assert!(
            !echoes.is_own("chat", &0_usize.to_be_bytes()) && echoes.is_own("chat", &1_usize.to_be_bytes())
        );
        let expected = echoes.expected.lock().unwrap();
        assert_eq!((expected.order.len(), expected.counts.len()), (ECHOES_MAX - 1, ECHOES_MAX - 1));
    }
}
