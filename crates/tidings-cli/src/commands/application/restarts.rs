//! Whether an application that has ended is started again, and when.
//!
//! It knows neither processes nor clocks.

use std::{fmt, io, time::Duration};

use clap::ValueEnum;
use tidings_net::{Backoff, Spread};

/// The delay after the first end. It doubles with each further one.
const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(10);
/// An application that lived this long has not failed to start: the delays begin anew.
const LIVED: Duration = Duration::from_secs(10);

/// The statuses by which shells say that a program cannot be found or executed.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// After which ends an application is started again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum RestartPolicy {
    /// After a status other than 0 or a signal, once the application has accepted a connection
    OnFailure,
    /// After every end
    Always,
    /// Never
    Never,
}

/// How a process has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// With this status.
    Exited(u8),
    /// By the signal of this number.
    Signalled(u8),
}

impl End {
    /// What a shell reports of a program that it cannot start.
    pub(super) fn of_unstartable(error: &io::Error) -> Self {
        Self::Exited(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE })
    }

    /// The status in the way of shells.
    pub(super) fn status(self) -> u8 {
        match self {
            Self::Exited(status) => status,
            Self::Signalled(number) => 128u8.saturating_add(number),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "with status {status}"),
            Self::Signalled(number) => write!(f, "by signal {number}"),
        }
    }
}

/// Decides after each end.
#[derive(Debug)]
pub(super) struct Restarts {
    policy: RestartPolicy,
    backoff: Backoff,
}

impl Restarts {
    pub(super) fn new(policy: RestartPolicy) -> Self {
        Self { policy, backoff: Backoff::new(DELAY_MIN, DELAY_MAX).spread(Spread::NONE) }
    }

    /// How long to wait before the next start; `None`: it is not started again. `has_served`: it, or
    /// one before it, has accepted a connection. One that never has is misconfigured, which its
    /// operator has to see.
    pub(super) fn after(&mut self, end: End, lived: Duration, has_served: bool) -> Option<Duration> {
        let restarts = match self.policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => end != End::Exited(0) && has_served,
            RestartPolicy::Never => false,
        };
        if lived >= LIVED {
            self.backoff.succeeded();
        }
        restarts.then(|| self.backoff.failed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: End = End::Exited(1);
    const KILLED: End = End::Signalled(9);
    const SHORT: Duration = Duration::from_secs(1);

    #[test]
    fn delays_double_to_ten_seconds_and_begin_anew_after_ten_seconds_of_life() {
        let mut restarts = Restarts::new(RestartPolicy::Always);
        let mut after = |lived: Duration| restarts.after(FAILED, lived, true).unwrap().as_millis();
        for millis in [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
            assert_eq!(after(SHORT), millis);
        }
        assert_eq!(after(LIVED.saturating_sub(Duration::from_nanos(1))), 10_000);
        assert_eq!([after(LIVED), after(SHORT)], [100, 200]);
    }

    #[test]
    fn a_policy_says_after_which_ends_an_application_is_started_again() {
        for (policy, end, has_served, restarts) in [
            (RestartPolicy::OnFailure, FAILED, true, true),
            (RestartPolicy::OnFailure, KILLED, true, true),
            (RestartPolicy::OnFailure, End::Exited(0), true, false),
            (RestartPolicy::OnFailure, FAILED, false, false),
            (RestartPolicy::Always, End::Exited(0), false, true),
            (RestartPolicy::Always, KILLED, true, true),
            (RestartPolicy::Never, FAILED, true, false),
            (RestartPolicy::Never, End::Exited(0), true, false),
        ] {
            let next = Restarts::new(policy).after(end, SHORT, has_served);
            assert_eq!(next.is_some(), restarts, "{policy:?} {end} {has_served}");
        }
    }

    #[test]
    fn a_status_is_that_of_shells() {
        assert_eq!([End::Exited(3), End::Signalled(15), End::Signalled(200)].map(End::status), [3, 143, 255]);
    }
}
