//! Lines of the log that would drown all others: while the log of the hub is away, every publication is one. One a second is written, and how many were left out.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The shortest time between two lines.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<Written>);

#[derive(Debug, Default)]
struct Written {
    last: Option<Instant>,
    left_out: u64,
}

impl Complaints {
    /// Whether a line is to be written, and then how many were left out since the last one.
    pub(crate) fn next(&self, now: Instant) -> Option<u64> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if written.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            written.left_out += 1;
            return None;
        }
        written.last = Some(now);
        Some(std::mem::take(&mut written.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_says_how_many_were_left_out() {
        let complaints = Complaints::default();
        let start = Instant::now();
        let at = |millis| complaints.next(start + Duration::from_millis(millis));
        assert_eq!([at(0), at(1), at(999)], [Some(0), None, None]);
        assert_eq!([at(1_000), at(1_500), at(2_000)], [Some(2), None, Some(1)]);
        assert_eq!(at(9_000), Some(0));
    }
}
