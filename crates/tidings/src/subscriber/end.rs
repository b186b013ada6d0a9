//! An end of a stream that is known in advance, and what its client receives before and with it.

use std::time::{Duration, Instant};

use crate::{
    feed::encode::{EndReason, Notice},
    jitter::FAR_AWAY,
};

/// How long before its credential expires a stream is closed, so that its last bytes are not late
/// under load. Half of the remaining time if that is short.
const EXPIRY_MARGIN: Duration = Duration::from_millis(500);

/// How long before the end of its credential a client is notified, so that it can renew it. Half of
/// the remaining time if that is short.
const ANNOUNCED_BEFORE: Duration = Duration::from_secs(60);

/// Both drivers of a reader have the ends of their streams in an order of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct End {
    pub(crate) at: Instant,
    pub(crate) reason: EndReason,
    /// When the end is to be announced; `None` for most reasons, and afterwards.
    announced_at: Option<Instant>,
}

impl End {
    pub(crate) fn new(at: Instant, reason: EndReason) -> Self {
        Self { at, reason, announced_at: None }
    }

    /// The Mercure protocol, "Authorization": the connection is closed by `exp` at the latest.
    pub(crate) fn of_credential(now: Instant, expires_in: Duration) -> Self {
        let expires_in = expires_in.min(FAR_AWAY);
        let open_for = expires_in.saturating_sub(EXPIRY_MARGIN.min(expires_in / 2));
        let announced_after = open_for.saturating_sub(ANNOUNCED_BEFORE.min(open_for / 2));
        let announced_at = (!open_for.is_zero()).then(|| now + announced_after);
        Self { at: now + open_for, reason: EndReason::Expired, announced_at }
    }

    /// When something is to be done next: the announcement, or the end.
    pub(crate) fn next_at(&self) -> Instant {
        self.announced_at.unwrap_or(self.at)
    }

    /// The announcement, if it is due and the end is not. It is made once.
    pub(crate) fn announcement(&mut self, now: Instant) -> Option<Notice> {
        self.announced_at.take_if(|at| *at <= now)?;
        let remaining = self.at.checked_duration_since(now).filter(|remaining| !remaining.is_zero())?;
        let remaining_secs = remaining.as_secs() + u64::from(remaining.subsec_nanos() > 0);
        Some(Notice::Expiring { remaining_secs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_announced_a_minute_before_or_after_half_of_a_short_time() {
        let now = Instant::now();
        for (expires_in_millis, announced_after_millis, ends_after_millis) in [
            (3_600_000, Some(3_539_500), 3_599_500),
            (120_500, Some(60_000), 120_000),
            (60_500, Some(30_000), 60_000),
            (4_500, Some(2_000), 4_000),
            (800, Some(200), 400),
            (0, None, 0),
        ] {
            let end = End::of_credential(now, Duration::from_millis(expires_in_millis));
            let after = |at: Instant| u64::try_from((at - now).as_millis()).expect("a short time");
            assert_eq!(end.announced_at.map(after), announced_after_millis, "{expires_in_millis}");
            assert_eq!(after(end.at), ends_after_millis, "{expires_in_millis}");
        }
        let endless = End::of_credential(now, Duration::MAX);
        assert!(endless.next_at() < endless.at);
    }

    #[test]
    fn an_announcement_is_made_once_and_never_after_the_end() {
        let now = Instant::now();
        let end = End::of_credential(now, Duration::from_millis(100_500));
        let at = |secs| now + Duration::from_secs(secs);
        let mut in_time = end;
        assert_eq!(in_time.announcement(at(49)), None);
        assert_eq!(in_time.next_at(), at(50));
        assert_eq!(in_time.announcement(at(50)), Some(Notice::Expiring { remaining_secs: 50 }));
        assert_eq!(in_time.announcement(at(51)), None);
        assert_eq!(in_time.next_at(), at(100));
        let mut late = end;
        let moment = Duration::from_millis(99_200);
        assert_eq!(late.announcement(now + moment), Some(Notice::Expiring { remaining_secs: 1 }));
        let mut too_late = end;
        assert_eq!(too_late.announcement(at(100)), None);
        assert_eq!(End::new(now, EndReason::Lifetime).announcement(at(1)), None);
    }
}
