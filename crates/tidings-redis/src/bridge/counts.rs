//! Metrics of a bridge, its state, and warnings that do not flood the log.

use std::{sync::Mutex, time::Duration};

use tidings_log::parts::lock;
use tokio::time::Instant;

/// A warning of one kind is logged at once, and then at most this often.
const WARNING_PAUSE: Duration = Duration::from_secs(60);

/// Metrics of a bridge since it started, and its state.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct BridgeFigures {
    /// Messages that were received, without those that this bridge had sent itself.
    pub received: u64,
    /// Events that were published to the hub.
    pub published: u64,
    /// Messages that could not be decoded.
    pub undecodable: u64,
    /// Messages whose events the validator refused, as HTTP does with 400.
    pub invalid: u64,
    /// Messages that were too large, as HTTP reports with 413.
    pub too_large: u64,
    /// Messages for which the log had no capacity, as HTTP reports with 507.
    pub no_room: u64,
    /// Messages that were dropped because the queue was full while the hub accepted none.
    pub dropped: u64,
    /// Messages that were sent.
    pub sent: u64,
    /// Messages that may not have been sent, because the connection was lost in the meantime.
    pub unsent: u64,
    /// Messages that came back and were recognised.
    pub returned: u64,
    /// Connections that were lost. While there is none, messages are lost.
    pub connections_lost: u64,
    /// Bytes of messages that are queued for the hub.
    pub queue_bytes: u64,
    /// Whether this process listens now.
    pub is_listening: bool,
}

/// One of the metrics that count.
pub(super) type Count = fn(&mut BridgeFigures) -> &mut u64;

#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<BridgeFigures>);

impl Counts {
    pub(super) fn add(&self, count: Count, number: usize) {
        *count(&mut lock(&self.0)) += number as u64;
    }

    pub(super) fn figures(&self, queue_bytes: usize, is_listening: bool) -> BridgeFigures {
        BridgeFigures { queue_bytes: queue_bytes as u64, is_listening, ..lock(&self.0).clone() }
    }
}

/// What the bridge of this process is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Activity {
    /// It is requesting the lease.
    Asking,
    /// It cannot find out whether another hub holds the lease.
    Uncertain(String),
    /// Another hub of the cluster bridges.
    StandingBy,
    /// It holds the lease and has no connection.
    Away(String),
    /// It bridges.
    Listening,
}

impl Activity {
    /// Why messages do not reach the hub, if this process is responsible for them.
    pub(super) fn trouble(&self) -> Option<String> {
        match self {
            Self::Asking => Some("it is not connected yet".to_owned()),
            Self::Uncertain(problem) => Some(format!("the holder of the bridge lease is unknown: {problem}")),
            Self::Away(problem) => Some(problem.clone()),
            Self::StandingBy | Self::Listening => None,
        }
    }
}

/// Lets one warning through at a time, and counts the others.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    last: Mutex<Option<(Instant, u64)>>,
}

impl Throttle {
    /// Whether to log a warning now, and if so how many have been suppressed since the last one.
    pub(super) fn add(&self) -> Option<u64> {
        let now = Instant::now();
        let mut last = lock(&self.last);
        match &mut *last {
            Some((reported, silent)) if now.duration_since(*reported) < WARNING_PAUSE => {
                *silent += 1;
                None
            }
            last => {
                let silent = last.map_or(0, |(_, silent)| silent);
                *last = Some((now, 0));
                Some(silent + 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_warning_a_minute_covers_all() {
        let warnings = Throttle::default();
        assert_eq!(warnings.add(), Some(1));
        for _ in 0..7 {
            assert_eq!(warnings.add(), None);
        }
        tokio::time::advance(WARNING_PAUSE).await;
        assert_eq!(warnings.add(), Some(8));
        assert_eq!(warnings.add(), None);
    }
}
