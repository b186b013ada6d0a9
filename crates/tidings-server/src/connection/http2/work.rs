//! The account of the work that one HTTP/2 connection causes, with two limits.
//!
//! **Of a pass.** One task serves all requests of a connection, up to 128 that arrive in one packet,
//! and its thread serves no other connection meanwhile. So a pass has a budget for what is read, and
//! one for responses that continue; the rest waits for the next pass (`passes`).
//!
//! **Without use.** A frame of a few bytes causes work, and many kinds of frames need no response
//! that would slow down their sender (RFC 9113, 10.5, lists what can be abused). So there is one
//! rule: a client may cause [`ALLOWANCE`] more work than [`USE_FACTOR`] times its useful work.
//!
//! | received | in a pass | without use |
//! |---|---|---|
//! | a part of a body | a frame, and a 64th of its bytes | nothing |
//! | a request | a request, its bytes and fields | a request |
//! | any other frame | a frame and its bytes | a frame and its bytes |
//!
//! | useful | is worth |
//! |---|---|
//! | a response that begins | a request |
//! | a piece of a response that is written | a frame and its bytes |
//! | a second | a pass, up to [`ALLOWANCE`] |
//!
//! Invariant: `balance` is at most [`BALANCE_MAX`], so that past conduct never allows more than that.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

/// Work that a connection may do whenever something happens to it: two requests, or a publication
/// with its body.
pub(super) const FIRST_PASS_WORK: u32 = 512;
/// Work of each further pass.
pub(super) const PASS_WORK: u32 = 2_048;
/// The unit of work is a byte of header fields. This is what any frame costs.
pub(super) const FRAME_WORK: u32 = 16;
/// What a request costs besides its bytes: all that answering it takes.
pub(super) const REQUEST_WORK: u32 = 200;
/// What a header field costs besides its bytes: the library makes an entry of it, which is looked
/// up, joined with others and dropped.
pub(super) const FIELD_WORK: u32 = 4;
/// Bytes of a body, which are copied and not looked at, that cost as much as one of header fields.
pub(super) const BODY_BYTES_PER_WORK: u32 = 64;
/// What it costs to go on with a response that has something to do.
const RESPONSE_WORK: u32 = 64;

/// Work without use that is tolerated at first, and again after a while: some 5,000 frames, or 600
/// requests that nobody waits for.
pub(super) const ALLOWANCE: u32 = 128 * 1024;
/// Work that useful work pays for: a client may widen the windows of a stream and of the connection
/// for each part of a piece that it has read.
pub(super) const USE_FACTOR: u32 = 4;
/// Most work without use that is ever tolerated: a client that comes back to full buffers may widen
/// two windows for each of 100,000 small events.
pub(super) const BALANCE_MAX: u32 = 4 * 1024 * 1024;

/// See the module's documentation. It belongs to one task, so the lock is never contended.
#[derive(Debug)]
pub(super) struct Work(Mutex<Account>);

#[derive(Debug)]
struct Account {
    reading: u32,
    responding: u32,
    /// Something waits for the next pass.
    is_cut_short: bool,
    /// Work without use that is tolerated from now on.
    balance: u32,
    /// Up to when time has been counted.
    counted_until: Instant,
}

impl Work {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(Account {
            reading: 0,
            responding: 0,
            is_cut_short: false,
            balance: ALLOWANCE,
            counted_until: now,
        }))
    }

    pub(super) fn begin_pass(&self, work: u32, now: Instant) {
        let mut account = self.account();
        account.reading = work;
        account.responding = work;
        account.is_cut_short = false;
        let secs = now.saturating_duration_since(account.counted_until).as_secs();
        account.counted_until += Duration::from_secs(secs);
        if account.balance < ALLOWANCE {
            let worth = u32::try_from(secs).unwrap_or(u32::MAX).saturating_mul(PASS_WORK);
            account.balance = account.balance.saturating_add(worth).min(ALLOWANCE);
        }
    }

    /// Whether there has to be another pass.
    pub(super) fn is_cut_short(&self) -> bool {
        self.account().is_cut_short
    }

    /// Whether anything may be read in this pass.
    pub(super) fn may_read(&self) -> bool {
        self.account().may(|account| account.reading > 0)
    }

    /// Whether this much may be read in this pass, which is then counted; otherwise nothing may be
    /// any more. What is larger than a pass has one to itself.
    pub(super) fn may_read_next(&self, work: u32) -> bool {
        let mut account = self.account();
        let may = account.may(|account| account.reading >= work.min(PASS_WORK));
        account.reading = if may { account.reading.saturating_sub(work) } else { 0 };
        may
    }

    /// Counts what turned out while it was read.
    pub(super) fn count_reading(&self, work: u32) {
        let mut account = self.account();
        account.reading = account.reading.saturating_sub(work);
    }

    /// Whether one more response may go on in this pass, which is then counted.
    pub(super) fn may_respond(&self) -> bool {
        let mut account = self.account();
        let may = account.may(|account| account.responding >= RESPONSE_WORK);
        account.responding = account.responding.saturating_sub(RESPONSE_WORK);
        may
    }

    /// Counts work that has no use, or none yet. False if it is too much.
    pub(super) fn charge(&self, work: u32) -> bool {
        let mut account = self.account();
        let left = account.balance.checked_sub(work);
        account.balance = left.unwrap_or(account.balance);
        left.is_some()
    }

    /// Counts useful work.
    pub(super) fn credit(&self, work: u32) {
        let mut account = self.account();
        account.balance = account.balance.saturating_add(work.saturating_mul(USE_FACTOR)).min(BALANCE_MAX);
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.0.lock().expect("nothing panics while it holds this")
    }
}

impl Account {
    fn may(&mut self, fits: impl FnOnce(&Self) -> bool) -> bool {
        let may = fits(self);
        self.is_cut_short |= !may;
        may
    }
}

/// Bytes as work.
pub(super) fn units(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often this may be done at this time.
    fn charges(work: &Work, cost: u32, now: Instant) -> u32 {
        work.begin_pass(PASS_WORK, now);
        (0..1_000_000).find(|_| !work.charge(cost)).expect("a limit")
    }

    #[test]
    fn time_allows_a_little_and_never_more_than_at_first() {
        let start = Instant::now();
        let work = Work::new(start);
        for (millis, allowed) in
            [(0, ALLOWANCE), (2_900, 2 * PASS_WORK), (3_000, PASS_WORK), (1 << 40, ALLOWANCE)]
        {
            assert_eq!(charges(&work, 16, start + Duration::from_millis(millis)), allowed / 16, "{millis}");
        }
    }

    #[test]
    fn past_conduct_buys_a_bounded_amount_of_work() {
        let now = Instant::now();
        let work = Work::new(now);
        (0..1_000_000).for_each(|_| work.credit(REQUEST_WORK));
        assert_eq!(charges(&work, 16, now), BALANCE_MAX / 16);
    }

    #[test]
    fn what_does_not_fit_waits_and_what_never_would_has_a_pass_to_itself() {
        let now = Instant::now();
        let work = Work::new(now);
        work.begin_pass(PASS_WORK, now);
        assert!(work.may_read_next(PASS_WORK - 1) && work.may_read() && !work.is_cut_short());
        assert!(!work.may_read_next(2) && !work.may_read() && work.is_cut_short());
        work.begin_pass(PASS_WORK, now);
        assert!(!work.is_cut_short() && work.may_read_next(10 * PASS_WORK));
        assert!(!work.may_read() && work.may_respond() && work.is_cut_short());
    }
}
