//! What this process has published and not received back yet.
//!
//! Redis sends a published message to all who listen, its publisher included, and a plain message carries nothing but its text. So the bridge counts
//! what it sends, by channel and text, and takes as many messages that look the same for its own. If somebody else publishes the very same text
//! meanwhile, there are two that look the same and one is taken: the right number, whichever it was.
//!
//! One value lives as long as one connection, on which what was sent comes back: with the connection, the rest is forgotten.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    sync::Mutex,
    time::Duration,
};

use tokio::time::Instant;

/// Most messages that are waited for. The bridge waits for each batch to be answered, and what it sent comes back before or right after: there
/// are never more than a batch or two. Beyond, the oldest are forgotten and would be taken for messages of others.
const ECHOES_MAX: usize = 65_536;
/// How long a message is waited for that does not come.
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
    /// Notes a message that is about to be sent.
    pub(super) fn expect(&self, channel: &str, payload: &[u8]) {
        let print = self.hasher.hash_one((channel, payload));
        let now = Instant::now();
        let mut expected = self.expected.lock().expect("nothing panics while it holds this");
        let is_old = |(sent, _): &(Instant, u64)| now.duration_since(*sent) > ECHO_TIME_MAX;
        while expected.order.len() >= ECHOES_MAX || expected.order.front().is_some_and(is_old) {
            let Some((_, print)) = expected.order.pop_front() else { break };
            expected.take(print);
        }
        *expected.counts.entry(print).or_default() += 1;
        expected.order.push_back((now, print));
    }

    /// Whether a message that came is one that was sent, which is true once for each.
    pub(super) fn is_own(&self, channel: &str, payload: &[u8]) -> bool {
        let print = self.hasher.hash_one((channel, payload));
        let mut expected = self.expected.lock().expect("nothing panics while it holds this");
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
    async fn as_many_are_taken_as_were_sent() {
        let echoes = Echoes::default();
        for _ in 0..2 {
            echoes.expect("chat", b"hi");
        }
        assert!(!echoes.is_own("news", b"hi") && !echoes.is_own("chat", b"ho"));
        assert!(echoes.is_own("chat", b"hi") && echoes.is_own("chat", b"hi"));
        assert!(!echoes.is_own("chat", b"hi"), "this one is somebody else's");
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_came_back_is_forgotten() {
        let echoes = Echoes::default();
        echoes.expect("chat", b"lost");
        tokio::time::advance(ECHO_TIME_MAX + Duration::from_secs(1)).await;
        echoes.expect("chat", b"other");
        assert!(!echoes.is_own("chat", b"lost") && echoes.is_own("chat", b"other"));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_remembered_than_there_is_room_for() {
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
