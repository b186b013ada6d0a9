//! Why streams have ended, and how many.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::feed::encode::EndReason;

/// Why a stream has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The client has disconnected.
    Client,
    /// The credential has expired.
    Expired,
    /// What was granted was withdrawn.
    Revoked,
    /// The stream had reached its maximum age.
    Lifetime,
    /// The client did not read: its socket accepted nothing for too long, or too many bytes waited
    /// for full sockets.
    Slow,
    /// The hub has closed.
    Shutdown,
    /// The client sent too much on the stream, or the hub could not go on with it.
    Error,
}

impl CloseReason {
    /// All reasons.
    pub const ALL: [Self; 7] =
        [Self::Client, Self::Expired, Self::Revoked, Self::Lifetime, Self::Slow, Self::Shutdown, Self::Error];

    /// The name of the reason, as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Lifetime => "lifetime",
            Self::Slow => "slow",
            Self::Shutdown => "shutdown",
            Self::Error => "error",
        }
    }

    /// What it means that a socket fails: the system gives up one that has acknowledged nothing for
    /// too long (`TCP_USER_TIMEOUT`).
    pub(crate) fn of_io(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::TimedOut => Self::Slow,
            io::ErrorKind::InvalidData => Self::Error,
            _ => Self::Client,
        }
    }
}

/// Called with the reason when a stream ends, and dropped when its connection has ended. If the whole
/// hub is dropped, it is not called.
pub type OnEnd = Box<dyn FnMut(CloseReason) + Send>;

impl From<EndReason> for CloseReason {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::Shutdown => Self::Shutdown,
            EndReason::Expired => Self::Expired,
            EndReason::Lifetime => Self::Lifetime,
            EndReason::Revoked => Self::Revoked,
        }
    }
}

/// Counts streams that have ended.
#[derive(Debug, Default)]
pub(crate) struct ClosedStreams([AtomicU64; CloseReason::ALL.len()]);

impl ClosedStreams {
    pub(crate) fn count(&self, reason: CloseReason) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many have ended for each of the reasons, in the order of [`CloseReason::ALL`].
    pub(crate) fn by_reason(&self) -> [u64; CloseReason::ALL.len()] {
        CloseReason::ALL.map(|reason| self.0[reason as usize].load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_the_system_gave_up_was_slow_and_not_gone() {
        for (kind, reason) in [
            (io::ErrorKind::TimedOut, CloseReason::Slow),
            (io::ErrorKind::InvalidData, CloseReason::Error),
            (io::ErrorKind::ConnectionReset, CloseReason::Client),
            (io::ErrorKind::BrokenPipe, CloseReason::Client),
        ] {
            assert_eq!(CloseReason::of_io(kind), reason, "{kind}");
        }
    }
}
